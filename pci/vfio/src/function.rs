//! A function as the kernel offers it: the little that the PCI side asks of VFIO.

use std::io;
use std::sync::Arc;

use paraslot_device::HostPages;
use vmm_sys_util::eventfd::EventFd;

/// A part of the function that is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Region {
    /// A BAR, 0 to 5.
    Bar(u8),
    /// Configuration space.
    Config,
}

/// What the kernel says of a region.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RegionInfo {
    /// Bytes, 0 for none.
    pub(crate) size: u64,
    /// Offset and length of what can be mapped.
    pub(crate) mappable: Vec<(u64, u64)>,
}

/// One kind of interrupt. The kernel has at most one of them on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Irq {
    Intx,
    Msi,
    Msix,
}

/// One function of the host's, opened.
///
/// What is behind it may be hostile or broken: sizes, offsets and contents are checked by the caller.
pub(crate) trait Function: Send {
    /// What there is of `region`.
    fn region(&self, region: Region) -> RegionInfo;

    /// Reads 1, 2, 4 or 8 bytes, naturally aligned.
    fn read(&self, region: Region, offset: u64, data: &mut [u8]) -> io::Result<()>;

    /// Writes 1, 2, 4 or 8 bytes, naturally aligned.
    fn write(&self, region: Region, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Maps whole pages of a BAR. They outlive the function, which stays open until they are gone.
    fn pages(&self, bar: u8, offset: u64, len: u64) -> io::Result<Arc<dyn HostPages>>;

    /// How many interrupts of a kind there are.
    fn irqs(&self, irq: Irq) -> u32;

    /// Turns a kind of interrupt on, with as many vectors as there are triggers, each written when its
    /// vector is raised. No other kind may be on. Vectors cannot be added later: Linux before 6.5
    /// cannot.
    fn enable(&self, irq: Irq, triggers: &[&EventFd]) -> io::Result<()>;

    /// Gives vectors of the kind that is on other triggers: as many as there are triggers, from `first` on.
    fn retrigger(&self, irq: Irq, first: u16, triggers: &[&EventFd]) -> io::Result<()>;

    /// Has the kernel unmask INTx, which it masks when it raises it, whenever `event` is written.
    fn unmask_by(&self, event: &EventFd) -> io::Result<()>;

    /// Turns a kind of interrupt off.
    fn disable(&self, irq: Irq) -> io::Result<()>;

    /// Whether the function can be reset on its own.
    fn has_reset(&self) -> bool;

    /// Resets it. Whether it is a bus master afterwards is not said.
    fn reset(&self) -> io::Result<()>;
}
