//! The kernel in memory, and what it is told: the 64-bit boot protocol of Linux
//! (Documentation/arch/x86/boot.rst), for both kinds of image.

use std::fs::File;
use std::io::Read;

use kvm_ioctls::VcpuFd;
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::{BzImage, Elf, KernelLoader};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::elf::{self, Segment};
use super::{LinuxImage, start};
use crate::{VmError, acpi, boot};

const ZERO_PAGE: GuestAddress = GuestAddress(0x7000);
const COMMAND_LINE: GuestAddress = GuestAddress(0x2_0000);
/// What kernels take, less the zero at the end, where their header does not say.
const COMMAND_LINE_MAX: usize = 2047;
/// A kernel is not to be below this.
const HIGH: u64 = 0x10_0000;
/// An initial RAM disk is not to be beyond this, where the kernel's header does not say.
const INITRD_END: u64 = 0x8000_0000;
/// What is kept free after the kernel: an uncompressed one has its own tables there.
const KERNEL_SLACK: u64 = 4 << 20;
pub(super) const PAGE: u64 = 4096;

const MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
const BOOT_FLAG: u16 = 0xaa55;
/// A loader without a number of its own.
const LOADER: u8 = 0xff;
/// The protocol that has the address of the ACPI tables' root.
const VERSION: u16 = 0x020f;
/// The first protocol with a 64-bit entry.
const VERSION_64: u16 = 0x020c;
/// In `xloadflags`: there is a 64-bit entry.
const ENTRY_64: u16 = 1;
/// Where that is, from the start of the kernel.
const ENTRY_64_OFFSET: u64 = 0x200;

/// Types of the memory map.
const USABLE: u32 = 1;
const RESERVED: u32 = 2;
const ACPI: u32 = 3;

/// Loads `image` and has `vcpu` start it.
pub(super) fn load(
    memory: &GuestMemoryMmap,
    vcpu: &VcpuFd,
    image: &LinuxImage<'_>,
) -> Result<(), VmError> {
    let kernel = kernel(memory, image)?;
    let line_max = match usize::try_from(kernel.header.cmdline_size) {
        Ok(size) if size != 0 => size.min(COMMAND_LINE_MAX),
        _ => COMMAND_LINE_MAX,
    };
    if image.command_line.len() > line_max || image.command_line.contains('\0') {
        return Err(VmError::Image(format!(
            "the command line is longer than the {line_max} bytes that the kernel takes, or not text"
        )));
    }
    let line: Vec<u8> = image.command_line.bytes().chain([0]).collect();
    memory.write_slice(&line, COMMAND_LINE).map_err(no_room)?;

    let mut params = boot_params { hdr: kernel.header, ..Default::default() };
    params.hdr.type_of_loader = LOADER;
    params.hdr.cmd_line_ptr = low(COMMAND_LINE.0);
    if let Some(initrd) = image.initrd {
        let at = initrd_place(memory, &kernel, initrd.len() as u64)?;
        memory.write_slice(initrd, GuestAddress(at)).map_err(no_room)?;
        params.hdr.ramdisk_image = low(at);
        params.hdr.ramdisk_size = low(initrd.len() as u64);
    }
    params.acpi_rsdp_addr = acpi::RSDP;
    let map = memory_map(memory);
    for (entry, place) in map.iter().zip(&mut params.e820_table) {
        *place = *entry;
    }
    params.e820_entries = u8::try_from(map.len()).unwrap_or(u8::MAX);
    LinuxBootConfigurator::write_bootparams(&BootParams::new(&params, ZERO_PAGE), memory)
        .map_err(|error| VmError::Image(error.to_string()))?;
    start::start(memory, vcpu, kernel.entry, ZERO_PAGE)
}

pub(super) fn no_room(error: vm_memory::GuestMemoryError) -> VmError {
    VmError::Image(format!("it does not fit into the guest's memory: {error}"))
}

/// An address or length that is below 4 GiB.
fn low(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

/// A kernel in memory.
struct Kernel {
    entry: u64,
    end: u64,
    header: setup_header,
}

fn kernel(memory: &GuestMemoryMmap, image: &LinuxImage<'_>) -> Result<Kernel, VmError> {
    let unreadable = |error: &dyn std::fmt::Display| {
        VmError::Image(format!("{}: {error}", image.kernel.display()))
    };
    let mut file = File::open(image.kernel).map_err(|error| unreadable(&error))?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic).map_err(|error| unreadable(&error))?;
    let memory_end = low_end(memory);
    if magic == *b"\x7fELF" {
        let segments = elf::segments(&mut file, (HIGH, memory_end));
        let segments = segments.map_err(|reason| unreadable(&reason))?;
        let loaded =
            Elf::load(memory, None, &mut file, None).map_err(|error| unreadable(&error))?;
        segments.iter().try_for_each(|segment| clear_rest(memory, segment))?;
        let header = setup_header {
            header: MAGIC,
            boot_flag: BOOT_FLAG,
            version: VERSION,
            loadflags: 1,
            ..Default::default()
        };
        let end = loaded.kernel_end.saturating_add(KERNEL_SLACK);
        return Ok(Kernel { entry: loaded.kernel_load.0, end, header });
    }
    let header = bzimage_header(&mut file).ok_or_else(|| {
        VmError::Image(format!("{} is neither a bzImage nor an ELF file", image.kernel.display()))
    })?;
    if header.version < VERSION_64 || header.xloadflags & ENTRY_64 == 0 {
        return Err(unreadable(&"this kernel has no 64-bit entry point"));
    }
    let at = header.pref_address;
    let end = at.checked_add(header.init_size.into()).filter(|_| at >= HIGH);
    let end = end.ok_or_else(|| unreadable(&"its header makes no sense"))?;
    if end > memory_end {
        let reason =
            format!("it needs memory up to {end:#x}, and the guest's ends at {memory_end:#x}");
        return Err(unreadable(&reason));
    }
    let loaded = BzImage::load(memory, Some(GuestAddress(at)), &mut file, None)
        .map_err(|error| unreadable(&error))?;
    let header = loaded.setup_header.unwrap_or(header);
    Ok(Kernel {
        entry: at.saturating_add(ENTRY_64_OFFSET),
        end: end.max(loaded.kernel_end),
        header,
    })
}

/// Where memory ends that is contiguous from [`HIGH`] on.
fn low_end(memory: &GuestMemoryMmap) -> u64 {
    let region = memory.find_region(GuestAddress(HIGH));
    region.map_or(0, |region| region.start_addr().0 + region.len())
}

/// Clears what a segment has beyond the file: there may be something of an earlier run.
fn clear_rest(memory: &GuestMemoryMmap, segment: &Segment) -> Result<(), VmError> {
    const ZEROES: [u8; 4096] = [0; 4096];
    let (mut at, end) = (segment.start + segment.in_file, segment.start + segment.in_memory);
    while at < end {
        let len = usize::try_from(end - at).unwrap_or(ZEROES.len()).min(ZEROES.len());
        let zeroes = ZEROES.get(..len).unwrap_or_default();
        memory.write_slice(zeroes, GuestAddress(at)).map_err(no_room)?;
        at += len as u64;
    }
    Ok(())
}

/// The header of a bzImage, if the file has one.
fn bzimage_header(file: &mut File) -> Option<setup_header> {
    use std::io::{Seek, SeekFrom};
    use vm_memory::ByteValued;
    const HEADER: u64 = 0x1f1;
    let mut header = setup_header::default();
    file.seek(SeekFrom::Start(HEADER)).ok()?;
    file.read_exact(header.as_mut_slice()).ok()?;
    (header.header == MAGIC).then_some(header)
}

/// As high as the kernel takes it, and after the kernel.
fn initrd_place(memory: &GuestMemoryMmap, kernel: &Kernel, len: u64) -> Result<u64, VmError> {
    let limit = match u64::from(kernel.header.initrd_addr_max) {
        0 => INITRD_END,
        last => (last + 1).min(INITRD_END),
    };
    let at = low_end(memory).min(limit).checked_sub(len).map(|at| at & !(PAGE - 1));
    at.filter(|at| *at >= kernel.end).ok_or_else(|| {
        VmError::Image(format!(
            "kernel and initial RAM disk ({len} bytes) do not fit into the guest's memory"
        ))
    })
}

fn memory_map(memory: &GuestMemoryMmap) -> Vec<boot_e820_entry> {
    let entry = |start: u64, end: u64, type_: u32| boot_e820_entry {
        addr: start,
        size: end.saturating_sub(start),
        r#type: type_,
    };
    let (tables, tables_end) = acpi::TABLES;
    let mut map = Vec::new();
    for region in memory.iter() {
        let start = region.start_addr().0;
        let end = start + region.len();
        if start == 0 {
            map.push(entry(0, boot::CONVENTIONAL_END, USABLE));
            map.push(entry(tables, tables_end, ACPI));
            map.push(entry(HIGH, end, USABLE));
        } else {
            map.push(entry(start, end, USABLE));
        }
    }
    map.push(entry(boot::ECAM, boot::ECAM + boot::ECAM_LEN, RESERVED));
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory(bytes: usize) -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), bytes)]).unwrap()
    }

    fn try_load(content: &[u8], bytes: usize) -> Result<Kernel, VmError> {
        use std::io::Write;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        let image = LinuxImage { kernel: file.path(), initrd: None, command_line: "" };
        kernel(&memory(bytes), &image)
    }

    /// A bzImage of one sector of set-up and `payload`.
    fn bzimage(payload: &[u8], edit: impl FnOnce(&mut setup_header)) -> Vec<u8> {
        use vm_memory::ByteValued;
        let mut header = setup_header {
            setup_sects: 1,
            header: MAGIC,
            boot_flag: BOOT_FLAG,
            version: VERSION,
            loadflags: 1,
            xloadflags: ENTRY_64,
            pref_address: 0x10_0000,
            init_size: 0x1_0000,
            ..Default::default()
        };
        edit(&mut header);
        let mut image = vec![0; 1024];
        image[0x1f1..][..header.as_slice().len()].copy_from_slice(header.as_slice());
        image.extend(payload);
        image
    }

    #[test]
    fn the_memory_map_has_all_memory_and_what_is_reserved() {
        let regions = [(GuestAddress(0), 8 << 20), (GuestAddress(1 << 32), 4 << 20)];
        let map = memory_map(&GuestMemoryMmap::from_ranges(&regions).unwrap());
        let entries: Vec<_> = map
            .iter()
            .map(|&boot_e820_entry { addr, size, r#type }| (addr, addr + size, r#type))
            .collect();
        let expected = [
            (0, 0xa_0000, USABLE),
            (0xe_0000, 0x10_0000, ACPI),
            (0x10_0000, 0x80_0000, USABLE),
            (0x1_0000_0000, 0x1_0040_0000, USABLE),
            (0xe000_0000, 0xf000_0000, RESERVED),
        ];
        assert_eq!(entries, expected);
    }

    #[test]
    fn a_bzimage_is_entered_after_its_first_page_fraction() {
        let kernel = try_load(&bzimage(&[1; 100], |_| ()), 4 << 20).unwrap();
        assert_eq!((kernel.entry, kernel.end), (0x10_0200, 0x11_0000));
    }

    // A kernel's file may be anything.
    #[test]
    fn what_is_no_kernel_is_refused() {
        let header = |edit: fn(&mut setup_header)| bzimage(&[1; 100], edit);
        let images = [
            vec![],
            vec![0; 3],
            vec![0; 5000],
            b"\x7fELF".to_vec(),
            [b"\x7fELF".as_slice(), &[0xff; 200]].concat(),
            header(|header| header.version = 0x20b),
            header(|header| header.xloadflags = 0),
            header(|header| header.pref_address = 0x1000),
            header(|header| header.pref_address = u64::MAX),
            header(|header| header.pref_address = 1 << 40),
            header(|header| header.init_size = 8 << 20),
            header(|header| header.setup_sects = 255),
            header(|header| header.loadflags = 0),
        ];
        for (index, image) in images.iter().enumerate() {
            assert!(matches!(try_load(image, 4 << 20), Err(VmError::Image(_))), "{index}");
        }
        let missing =
            LinuxImage { kernel: "/nonexistent".as_ref(), initrd: None, command_line: "" };
        assert!(matches!(kernel(&memory(4 << 20), &missing), Err(VmError::Image(_))));
    }

    #[test]
    fn a_ram_disk_is_after_the_kernel_and_where_it_can_be_reached() {
        let memory = memory(64 << 20);
        let kernel = |end, initrd_addr_max| Kernel {
            entry: HIGH,
            end,
            header: setup_header { initrd_addr_max, ..Default::default() },
        };
        let place = |end, max, len| initrd_place(&memory, &kernel(end, max), len).ok();
        assert_eq!(place(HIGH, 0, 5000), Some((64 << 20) - 8192));
        assert_eq!(place(HIGH, (32 << 20) - 1, 4096), Some((32 << 20) - 4096));
        assert_eq!(place(60 << 20, 0, 4 << 20), Some(60 << 20));
        assert_eq!(place(60 << 20, 0, (4 << 20) + 1), None);
        assert_eq!(place(HIGH, 0, u64::MAX), None);
    }
}
