//! Memory, the image in it, and the state in which PVH starts a vCPU.

use std::io::Cursor;
use std::ptr::NonNull;
use std::sync::Arc;

use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2, kvm_create_device,
    kvm_device_type_KVM_DEV_TYPE_VFIO, kvm_regs, kvm_segment,
};
use kvm_ioctls::{Cap, DeviceFd, Kvm, VcpuFd, VmFd};
use linux_loader::configurator::pvh::PvhBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::KernelLoader;
use linux_loader::loader::elf::start_info::{hvm_memmap_table_entry, hvm_start_info};
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use crate::VmError;
use crate::sys::{self, Slot};

/// Memory below 4 GiB ends here at the latest; BARs go above it.
const LOW_MEMORY_END: u64 = 0xc000_0000;
/// The rest of memory starts here.
pub(crate) const HIGH_MEMORY: u64 = 1 << 32;
/// Configuration space, 1 MiB for each of 256 buses.
pub(crate) const ECAM: u64 = 0xe000_0000;
/// Bytes of it.
pub(crate) const ECAM_LEN: u64 = 256 << 20;
/// Three pages that KVM needs on Intel's CPUs, out of everybody's way.
const TASK_STATE: usize = 0xfffb_d000;
/// The least memory that makes sense, the end of the guest's image being about 3 MiB.
const MEMORY_MIN: u64 = 4 << 20;
const PAGE: u64 = 4096;

/// Memory below this is not told of; a PC has its video memory and firmware there.
pub(crate) const CONVENTIONAL_END: u64 = 0xa_0000;
const EXTENDED: u64 = 0x10_0000;

const START_INFO: GuestAddress = GuestAddress(0x6000);
const MEMORY_MAP: GuestAddress = GuestAddress(0x7000);
const COMMAND_LINE: GuestAddress = GuestAddress(0x2_0000);
const COMMAND_LINE_MAX: usize = 2047;

const START_INFO_MAGIC: u32 = 0x336e_c578;
/// Types of the memory map, as in e820.
const USABLE: u32 = 1;
const RESERVED: u32 = 2;

/// Makes a virtual machine. KVM gives up on that (EINTR) whenever the kernel has something to do for
/// this thread, be it no signal but the clean-up of an io_uring; so it is asked again, within reason.
pub(crate) fn make(kvm: &Kvm) -> Result<VmFd, VmError> {
    const TRIES: usize = 100;
    let mut made = kvm.create_vm();
    for _ in 1..TRIES {
        match &made {
            Err(error) if error.errno() == libc::EINTR => made = kvm.create_vm(),
            _ => break,
        }
    }
    made.map_err(VmError::kvm("make a virtual machine"))
}

/// KVM's VFIO device: it learns of the groups whose functions the guest has.
pub(crate) fn vfio(vm: &VmFd) -> Result<DeviceFd, VmError> {
    let mut request =
        kvm_create_device { type_: kvm_device_type_KVM_DEV_TYPE_VFIO, fd: 0, flags: 0 };
    vm.create_device(&mut request).map_err(VmError::kvm("make its VFIO device"))
}

/// Makes the guest's memory and maps it into `vm`; in files that other processes can map, if it is to be
/// `shared`. Returns how many slots that took.
pub(crate) fn memory(
    vm: &VmFd,
    bytes: u64,
    shared: bool,
) -> Result<(Arc<GuestMemoryMmap>, u32), VmError> {
    const TOO_LARGE: &str = "it does not fit in this process";
    let refuse = |reason: String| VmError::Memory { bytes, reason };
    if bytes < MEMORY_MIN || !bytes.is_multiple_of(PAGE) {
        return Err(refuse(format!("it must be whole pages, and {MEMORY_MIN} at least")));
    }
    let low = bytes.min(LOW_MEMORY_END);
    let sizes = [(GuestAddress(0), low), (GuestAddress(HIGH_MEMORY), bytes - low)];
    let ranges: Vec<_> = sizes
        .into_iter()
        .filter(|(_, len)| *len != 0)
        .map(|(start, len)| {
            let size = usize::try_from(len).map_err(|_| refuse(TOO_LARGE.to_owned()))?;
            let file = shared.then(|| sys::memory_file(len)).transpose();
            Ok((start, size, file.map_err(|error| refuse(error.to_string()))?))
        })
        .collect::<Result<_, VmError>>()?;
    let memory = GuestMemoryMmap::from_ranges_with_files(ranges)
        .map_err(|error| refuse(error.to_string()))?;
    let mut slots = 0;
    for region in memory.iter() {
        let slot = Slot {
            number: slots,
            guest: region.start_addr().0,
            len: region.len(),
            read_only: false,
        };
        let Some(host) = NonNull::new(region.as_ptr()) else { continue };
        map_memory(vm, slot, host)?;
        slots += 1;
    }
    Ok((Arc::new(memory), slots))
}

#[expect(unsafe_code, reason = "guest memory is handed to KVM by address")]
fn map_memory(vm: &VmFd, slot: Slot, host: NonNull<u8>) -> Result<(), VmError> {
    if let Ok(len) = usize::try_from(slot.len) {
        // SAFETY: the region is mapped, and as long as that.
        unsafe { sys::advise_huge(host, len) };
    }
    // SAFETY: the region is mapped. `Vm` keeps it until after the machine's last descriptor is gone.
    unsafe { sys::map(vm, slot, host) }.map_err(VmError::kvm("map the guest's memory"))
}

/// Makes the interrupt controllers, and tells KVM where it may put what Intel's CPUs need.
pub(crate) fn chips(vm: &VmFd) -> Result<(), VmError> {
    vm.set_tss_address(TASK_STATE).map_err(VmError::kvm("place the task state segment"))?;
    vm.create_irq_chip().map_err(VmError::kvm("make the interrupt controllers"))
}

/// Shows vCPU `id` all that KVM supports, as a package of its own, and the frequencies that hypervisors
/// tell in leaf 0x4000_0010. Returns that of its time stamp counter in kHz, 0 if KVM does not tell.
pub(crate) fn cpuid(kvm: &Kvm, vcpu: &VcpuFd, id: u8) -> Result<u32, VmError> {
    const HYPERVISOR: u32 = 0x4000_0000;
    const FREQUENCIES: u32 = 0x4000_0010;
    const LOCAL_APIC_KHZ: u32 = 1_000_000;

    let tsc_khz = vcpu.get_tsc_khz().unwrap_or(0);
    let mut cpuid: CpuId = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(VmError::kvm("tell what CPU it supports"))?;
    let deadline = kvm.check_extension(Cap::TscDeadlineTimer);
    for entry in cpuid.as_mut_slice() {
        describe(entry, id, deadline);
        if entry.function == HYPERVISOR {
            entry.eax = entry.eax.max(FREQUENCIES);
        }
    }
    let frequencies = kvm_cpuid_entry2 {
        function: FREQUENCIES,
        eax: tsc_khz,
        ebx: LOCAL_APIC_KHZ,
        ..Default::default()
    };
    if tsc_khz != 0 && cpuid.push(frequencies).is_err() {
        return Err(VmError::Missing("room for another CPUID leaf"));
    }
    vcpu.set_cpuid2(&cpuid).map_err(VmError::kvm("give the vCPU its features"))?;
    Ok(tsc_khz)
}

/// How wide the guest's physical addresses are.
pub(crate) fn physical_address_bits(kvm: &Kvm) -> Result<u32, VmError> {
    const ADDRESS_SIZES: u32 = 0x8000_0008;
    const USUAL: u32 = 36;
    let cpuid = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(VmError::kvm("tell what CPU it supports"))?;
    let sizes = cpuid.as_slice().iter().find(|entry| entry.function == ADDRESS_SIZES);
    Ok(sizes.map_or(USUAL, |sizes| sizes.eax & 0xff))
}

/// Puts what KVM leaves to its user into a leaf: who this vCPU is, and what runs it. KVM reports the
/// processor that it was asked on.
fn describe(entry: &mut kvm_cpuid_entry2, id: u8, deadline: bool) {
    const HYPERVISOR_PRESENT: u32 = 1 << 31;
    const TSC_DEADLINE: u32 = 1 << 24;
    const MULTI_THREADED: u32 = 1 << 28;
    let apic_id = u32::from(id);
    match entry.function {
        1 => {
            // One logical processor in the package.
            entry.ebx = (entry.ebx & 0x0000_ffff) | 1 << 16 | apic_id << 24;
            entry.ecx |= HYPERVISOR_PRESENT | if deadline { TSC_DEADLINE } else { 0 };
            entry.edx &= !MULTI_THREADED;
        }
        // Bits 31 to 14: cores and threads that share a cache, less one.
        4 | 0x8000_001d => entry.eax &= 0x0000_3fff,
        // The levels of the topology have no bits of their own.
        0xb | 0x1f => {
            entry.eax = 0;
            entry.ebx = u32::from(entry.ecx & 0xff00 != 0);
            entry.edx = apic_id;
        }
        0x8000_0008 => entry.ecx = 0,
        0x8000_001e => (entry.eax, entry.ebx, entry.ecx) = (apic_id, apic_id, 0),
        _ => {}
    }
}

/// Loads an image with a PVH entry point, and sets the vCPU up to start it.
pub(crate) fn load(
    memory: &GuestMemoryMmap,
    vcpu: &VcpuFd,
    image: &[u8],
    command_line: &str,
) -> Result<(), VmError> {
    let loaded = Elf::load(memory, None, &mut Cursor::new(image), None)
        .map_err(|error| VmError::Image(error.to_string()))?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(VmError::Image("it has no PVH entry point".to_owned()));
    };
    start_info(memory, command_line)?;
    registers(vcpu, entry)
}

fn start_info(memory: &GuestMemoryMmap, command_line: &str) -> Result<(), VmError> {
    let image = |error: &dyn std::fmt::Display| VmError::Image(error.to_string());
    if command_line.len() > COMMAND_LINE_MAX || command_line.contains('\0') {
        return Err(VmError::Image("the command line is too long, or not text".to_owned()));
    }
    let text: Vec<u8> = command_line.bytes().chain([0]).collect();
    memory.write_slice(&text, COMMAND_LINE).map_err(|error| image(&error))?;

    let map = memory_map(memory);
    let info = hvm_start_info {
        magic: START_INFO_MAGIC,
        version: 1,
        cmdline_paddr: COMMAND_LINE.0,
        memmap_paddr: MEMORY_MAP.0,
        memmap_entries: u32::try_from(map.len()).unwrap_or(u32::MAX),
        ..Default::default()
    };
    let mut params = BootParams::new(&info, START_INFO);
    params.set_sections(&map, MEMORY_MAP);
    PvhBootConfigurator::write_bootparams(&params, memory).map_err(|error| image(&error))
}

fn memory_map(memory: &GuestMemoryMmap) -> Vec<hvm_memmap_table_entry> {
    let entry = |start: u64, end: u64, type_: u32| hvm_memmap_table_entry {
        addr: start,
        size: end.saturating_sub(start),
        type_,
        reserved: 0,
    };
    let mut map = Vec::new();
    for region in memory.iter() {
        let start = region.start_addr().0;
        let end = start + region.len();
        if start == 0 {
            map.push(entry(0, CONVENTIONAL_END, USABLE));
            map.push(entry(EXTENDED, end, USABLE));
        } else {
            map.push(entry(start, end, USABLE));
        }
    }
    map.push(entry(ECAM, ECAM + ECAM_LEN, RESERVED));
    map
}

/// Flat 32-bit protected mode without paging, EBX at the start info.
fn registers(vcpu: &VcpuFd, entry: GuestAddress) -> Result<(), VmError> {
    const PROTECTED: u64 = 1;
    const CODE: u8 = 0xb;
    const DATA: u8 = 0x3;
    const TASK: u8 = 0xb;

    let mut special = vcpu.get_sregs().map_err(VmError::kvm("read the vCPU's registers"))?;
    let flat = |type_: u8, selector: u16| kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_,
        present: 1,
        db: 1,
        s: 1,
        g: 1,
        ..Default::default()
    };
    special.cs = flat(CODE, 0x8);
    let data = flat(DATA, 0x10);
    (special.ds, special.es, special.ss) = (data, data, data);
    (special.fs, special.gs) = (data, data);
    special.tr =
        kvm_segment { limit: 0x67, selector: 0x18, type_: TASK, present: 1, ..Default::default() };
    special.cr0 = PROTECTED;
    special.cr4 = 0;
    special.efer = 0;
    vcpu.set_sregs(&special).map_err(VmError::kvm("set the vCPU's registers"))?;

    let general = kvm_regs { rip: entry.0, rbx: START_INFO.0, rflags: 2, ..Default::default() };
    vcpu.set_regs(&general).map_err(VmError::kvm("set the vCPU's registers"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A leaf with all bits set, as vCPU `id` sees it.
    fn described(function: u32, id: u8) -> kvm_cpuid_entry2 {
        let ones = u32::MAX;
        let mut entry = kvm_cpuid_entry2 { function, ..Default::default() };
        (entry.eax, entry.ebx, entry.ecx, entry.edx) = (ones, ones, ones, ones);
        describe(&mut entry, id, true);
        entry
    }

    #[test]
    fn each_cpu_is_a_package_with_its_own_number() {
        for id in [0, 1, 200] {
            let number = u32::from(id);
            let basic = described(1, id);
            // Its APIC ID, one logical processor, and the line size as it was.
            assert_eq!(basic.ebx, number << 24 | 1 << 16 | 0xffff);
            // Not several threads in a package.
            assert_eq!(basic.edx & 1 << 28, 0);
            for leaf in [0xb, 0x1f] {
                let topology = described(leaf, id);
                assert_eq!((topology.eax, topology.edx), (0, number));
            }
            // Caches are shared by nobody.
            assert_eq!((described(4, id).eax >> 14, described(0x8000_001d, id).eax >> 14), (0, 0));
            let extended = described(0x8000_001e, id);
            assert_eq!((extended.eax, extended.ebx, extended.ecx), (number, number, 0));
            assert_eq!(described(0x8000_0008, id).ecx, 0);
        }
    }

    #[test]
    fn what_kvm_does_itself_is_shown_if_it_does() {
        let leaf = |deadline| {
            let mut entry = kvm_cpuid_entry2 { function: 1, ..Default::default() };
            describe(&mut entry, 0, deadline);
            entry.ecx
        };
        assert_eq!((leaf(false), leaf(true)), (1 << 31, 1 << 31 | 1 << 24));
        // Others stay as they are.
        assert_eq!(described(7, 3).ebx, u32::MAX);
    }
}
