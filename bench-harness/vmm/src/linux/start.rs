//! The first vCPU as the 64-bit boot protocol has it (Documentation/arch/x86/boot.rst, "64-bit boot
//! protocol").

use kvm_bindings::{kvm_dtable, kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::image::{PAGE, no_room};
use crate::VmError;

const DESCRIPTORS: GuestAddress = GuestAddress(0x500);
/// Page tables that map the first 4 GiB to themselves: one of the fourth level, one of the third,
/// four of the second.
const TABLES: u64 = 0x9000;

/// Code and data segments as the protocol has them.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

/// 64-bit mode, the first 4 GiB mapped to themselves, RSI at the zero page: the vCPU as the protocol
/// has it at `entry`.
pub(super) fn start(
    memory: &GuestMemoryMmap,
    vcpu: &VcpuFd,
    entry: u64,
    zero_page: GuestAddress,
) -> Result<(), VmError> {
    const PROTECTED: u64 = 1;
    const PAGING: u64 = 1 << 31;
    const LARGE_ADDRESSES: u64 = 1 << 5;
    const LONG_MODE: u64 = 1 << 8 | 1 << 10;

    page_tables(memory)?;
    let (code, data, task) = (segment(CODE), segment(DATA), segment(TASK));
    let table = [0, 0, descriptor(&code), descriptor(&data), descriptor(&task), 0];
    let bytes: Vec<u8> = table.iter().flat_map(|entry: &u64| entry.to_le_bytes()).collect();
    memory.write_slice(&bytes, DESCRIPTORS).map_err(no_room)?;

    let old = vcpu.get_sregs().map_err(VmError::kvm("read the vCPU's registers"))?;
    let limit = u16::try_from(bytes.len() - 1).unwrap_or(u16::MAX);
    let special = kvm_sregs {
        cs: code,
        ds: data,
        es: data,
        fs: data,
        gs: data,
        ss: data,
        tr: task,
        gdt: kvm_dtable { base: DESCRIPTORS.0, limit, ..Default::default() },
        idt: kvm_dtable::default(),
        cr0: PROTECTED | PAGING,
        cr3: TABLES,
        cr4: LARGE_ADDRESSES,
        efer: LONG_MODE,
        ..old
    };
    vcpu.set_sregs(&special).map_err(VmError::kvm("set the vCPU's registers"))?;
    let general = kvm_regs { rip: entry, rsi: zero_page.0, rflags: 2, ..Default::default() };
    vcpu.set_regs(&general).map_err(VmError::kvm("set the vCPU's registers"))
}

fn page_tables(memory: &GuestMemoryMmap) -> Result<(), VmError> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    const LARGE_PAGE: u64 = 2 << 20;
    const ENTRIES: u64 = 512;
    const DIRECTORIES: u64 = 4;

    let third = TABLES + PAGE;
    let second = third + PAGE;
    let write = |at: u64, entry: u64| {
        memory.write_slice(&entry.to_le_bytes(), GuestAddress(at)).map_err(no_room)
    };
    write(TABLES, third | PRESENT_WRITABLE)?;
    for index in 0..DIRECTORIES {
        write(third + 8 * index, (second + PAGE * index) | PRESENT_WRITABLE)?;
    }
    (0..DIRECTORIES * ENTRIES).try_for_each(|index| {
        write(second + 8 * index, (index * LARGE_PAGE) | LARGE | PRESENT_WRITABLE)
    })
}

/// The flat segment that goes with a selector.
fn segment(selector: u16) -> kvm_segment {
    let flat = kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        present: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    match selector {
        CODE => kvm_segment { type_: 0xb, l: 1, ..flat },
        DATA => kvm_segment { type_: 0x3, db: 1, ..flat },
        _ => kvm_segment { type_: 0xb, s: 0, g: 0, limit: 0x67, ..flat },
    }
}

/// The same as the descriptor table has it (Intel SDM, volume 3, 3.4.5).
fn descriptor(segment: &kvm_segment) -> u64 {
    let limit = u64::from(if segment.g == 0 { segment.limit } else { segment.limit >> 12 });
    let bit = |value: u8, at: u32| u64::from(value & 1) << at;
    (limit & 0xffff)
        | (segment.base & 0xff_ffff) << 16
        | u64::from(segment.type_ & 0xf) << 40
        | bit(segment.s, 44)
        | u64::from(segment.dpl & 3) << 45
        | bit(segment.present, 47)
        | (limit >> 16 & 0xf) << 48
        | bit(segment.l, 53)
        | bit(segment.db, 54)
        | bit(segment.g, 55)
        | (segment.base >> 24 & 0xff) << 56
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_those_of_the_boot_protocol() {
        assert_eq!(descriptor(&segment(CODE)), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&segment(DATA)), 0x00cf_9300_0000_ffff);
    }
}
