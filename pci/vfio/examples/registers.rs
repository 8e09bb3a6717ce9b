//! Takes functions from the host's drivers, reads a register of each, resets it, and gives it back.
//!
//! `registers ADDRESS/BAR/OFFSET…`, such as `0000:00:10.0/0/8` for an NVMe controller's version. It takes root's
//! privileges, and what the host does with the function ends.

#![expect(unsafe_code, reason = "a register is read where it is mapped")]

use std::error::Error;
use std::sync::Arc;

use paraslot_device::{
    Executor, Host, IntxEventFds, IntxLine, ManualExecutor, MsiMessage, MsiSink,
};
use paraslot_pci::{Layout, PciDevice};
use paraslot_vfio::{Borrowed, HostAddress, IommuSpace, VfioPci, survey};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// A host that has eventfds, which nobody reads.
struct Deaf;

impl MsiSink for Deaf {
    fn update(&self, _vector: u16, _message: MsiMessage, _masked: bool) {}
    fn trigger(&self, _vector: u16) {}
    fn event(&self, _vector: u16) -> Option<EventFd> {
        EventFd::new(EFD_NONBLOCK).ok()
    }
}

impl IntxLine for Deaf {
    fn set_level(&self, _asserted: bool) {}
    fn eventfds(&self) -> Option<IntxEventFds> {
        let event = || EventFd::new(EFD_NONBLOCK).ok();
        Some(IntxEventFds { assert: event()?, acknowledged: event()? })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    for function in survey()? {
        println!("{} {:?} {:?}", function.address, function.driver, function.obstacles);
    }
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 16 << 20)])?;
    let memory = Arc::new(memory);
    let space = IommuSpace::new(None)?;
    space.map_memory(&memory)?;
    for argument in std::env::args().skip(1) {
        look(&argument, &space, &memory).map_err(|error| format!("{argument}: {error}"))?;
    }
    Ok(())
}

fn look(
    argument: &str,
    space: &Arc<IommuSpace>,
    memory: &Arc<GuestMemoryMmap>,
) -> Result<(), Box<dyn Error>> {
    let mut parts = argument.split('/');
    let mut part = || parts.next().ok_or("ADDRESS/BAR/OFFSET");
    let address: HostAddress = part()?.parse()?;
    let (bar, offset) = (part()?.parse()?, u64::from_str_radix(part()?, 16)?);
    let owner = driver(address);

    let executor: Arc<dyn Executor> = Arc::new(ManualExecutor::new());
    let host = Host { memory: memory.clone(), msi: Arc::new(Deaf), intx: Arc::new(Deaf), executor };
    let mut device = VfioPci::open_borrowed(Borrowed::take(address)?, space, host)?;
    let layout = device.layout();
    let windows: Vec<_> = layout
        .direct
        .iter()
        .map(|window| (window.bar, window.offset, window.pages.byte_len()))
        .collect();
    println!(
        "{address} of {owner:?}, as {:?}: {} MSI-X vectors, {} MSI, INTx {}, reset {}, windows {windows:x?}",
        driver(address),
        layout.msix_vectors,
        layout.msi_vectors,
        layout.intx,
        device.has_reset(),
    );
    let mut id = [0; 4];
    device.config_read(0, &mut id);
    device.config_write(4, &[0x06, 0x00]);
    let value = read(&mut device, bar, offset);
    let mapped = through_window(device.layout(), bar, offset);
    println!("{address} {id:x?}: {value:#x} by bar_read, {mapped:#x?} through the window");
    if mapped != Some(value) || value == u32::MAX {
        return Err("the register is not the same on both ways".into());
    }
    device.reset();
    let after = read(&mut device, bar, offset);
    println!("{address}: {after:#x} after a reset");
    if let Some(error) = device.faults().take() {
        return Err(error.into());
    }
    drop(device);
    if driver(address) != owner {
        return Err(format!("it has {:?} afterwards", driver(address)).into());
    }
    println!("{address}: given back");
    Ok(())
}

fn read(device: &mut dyn PciDevice, bar: u8, offset: u64) -> u32 {
    let mut data = [0; 4];
    device.bar_read(bar, offset, &mut data);
    u32::from_le_bytes(data)
}

fn through_window(layout: &Layout, bar: u8, offset: u64) -> Option<u32> {
    let window = layout.direct.iter().find(|window| {
        let end = window.offset + window.pages.byte_len() as u64;
        window.bar == bar && (window.offset..end).contains(&offset) && offset.is_multiple_of(4)
    })?;
    let at = usize::try_from(offset - window.offset).ok()?;
    // SAFETY: the register is one of the pages, which are mapped as long as the window is there.
    Some(unsafe { window.pages.host_address().byte_add(at).cast::<u32>().read_volatile() })
}

fn driver(address: HostAddress) -> Option<String> {
    let functions = survey().ok()?;
    functions.into_iter().find(|function| function.address == address)?.driver
}
