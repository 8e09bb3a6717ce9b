//! What a PCI function looks like to its host.

use std::sync::Arc;

use paraslot_device::{DeviceError, Doorbell, HostPages, SavedState, SharedPage, StateError};

/// Index of the expansion ROM among a function's BARs.
pub const ROM_BAR: u8 = 6;

/// What kind of address range a BAR decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere; takes the next BAR's register too.
    Memory64,
    /// The expansion ROM; only at index 6.
    Rom,
}

/// One BAR, as it is fixed at construction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarSpec {
    /// What it decodes.
    pub kind: BarKind,
    /// Bytes, a power of two: at least 16 of memory (4 of I/O, 2048 of ROM).
    pub size: u64,
    /// Reads have no side effects and writes may be merged.
    pub prefetchable: bool,
}

/// Where the guest has put a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarState {
    /// What it decodes.
    pub kind: BarKind,
    /// First address or port.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// Whether it decodes now: the command register (and the ROM's own bit) say so, the function is
    /// in D0, and the address range does not wrap.
    pub enabled: bool,
}

/// Part of a BAR that a host may map into the guest, read-only.
pub struct ReadWindow {
    /// The BAR.
    pub bar: u8,
    /// Offset in it, a multiple of the page size.
    pub offset: u64,
    /// The pages; as long as the window.
    pub page: Arc<SharedPage>,
}

/// Part of a BAR that a host may map into the guest for reads and writes: registers of hardware that is
/// passed through. The function answers `bar_read` and `bar_write` there all the same.
pub struct DirectWindow {
    /// The BAR.
    pub bar: u8,
    /// Offset in it, a multiple of the page size.
    pub offset: u64,
    /// The pages; as long as the window.
    pub pages: Arc<dyn HostPages>,
}

/// All that a host needs to know of a function to place and connect it. Fixed at construction.
#[derive(Default)]
pub struct Layout {
    /// The BARs, the ROM last. The register after a 64-bit BAR's is `None`.
    pub bars: [Option<BarSpec>; 7],
    /// Writes that may become eventfds.
    pub doorbells: Vec<Doorbell>,
    /// Reads that need not exit.
    pub windows: Vec<ReadWindow>,
    /// Accesses that need not exit at all.
    pub direct: Vec<DirectWindow>,
    /// MSI-X vectors, 0 for none.
    pub msix_vectors: u16,
    /// MSI vectors, 0 for none.
    pub msi_vectors: u16,
    /// Whether the function has an INTx pin.
    pub intx: bool,
}

/// One PCI function.
///
/// The host holds it exclusively and calls it for each access; the function never calls back into
/// the bus. It knows (BAR, offset), never an address. Accesses of any offset and length are
/// answered: what does not decode reads as ones and writes nowhere.
///
/// After a `config_write` the host compares [`bars`](Self::bars) with what it had, and maps, moves
/// or unmaps BARs, doorbells and windows accordingly.
///
/// A function may be dropped at any time, while its guest uses it, too. It is as if it was
/// [`reset`](Self::reset): afterwards no interrupt is raised, and no memory is touched, unless a backend holds
/// on to a request for longer than that waits. Then no more than the request's data may still land.
///
/// What a device's owner changes about it at run time (a link, a disk's capacity, units that come and go), it
/// does by the device's `Control`, a handle that it keeps when a host takes the function over. The calls may
/// come from any thread, at any time; what they would tell the guest while the function is paused may be lost.
pub trait PciDevice: Send {
    /// What the function consists of.
    fn layout(&self) -> &Layout;

    /// Where the guest has put the BARs, indexed as in [`Layout::bars`].
    fn bars(&self) -> [Option<BarState>; 7];

    /// Reads configuration space, `offset` in 0..4096.
    fn config_read(&mut self, offset: u16, data: &mut [u8]);

    /// Writes configuration space, `offset` in 0..4096.
    fn config_write(&mut self, offset: u16, data: &[u8]);

    /// Reads from a BAR.
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]);

    /// Writes to a BAR.
    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]);

    /// Puts the function into its state after power-on, configuration space included. Requests in
    /// flight are waited for, for a bounded time; a function whose backend holds on to them stays
    /// silent and finishes its reset when they come back.
    fn reset(&mut self);

    /// Stops all work: when it returns, no more memory is accessed and no interrupt raised until
    /// [`resume`](Self::resume).
    ///
    /// # Errors
    /// When requests in flight do not finish; the function then goes on as before.
    fn pause(&mut self) -> Result<(), DeviceError>;

    /// Undoes [`pause`](Self::pause). What the guest rang for meanwhile is seen.
    ///
    /// # Errors
    /// When the workers cannot be started again.
    fn resume(&mut self) -> Result<(), DeviceError>;

    /// All that a function of the same construction needs to go on as this one, guest memory aside.
    /// Only while paused. Changes nothing.
    ///
    /// # Errors
    /// When the function runs, or cannot be saved, which is so for one that does not implement this.
    fn save(&mut self) -> Result<SavedState, StateError> {
        Err(StateError::Unsupported("this function"))
    }

    /// Forgets everything and takes over a saved state. Only while paused, and it stays paused:
    /// [`resume`](Self::resume) has it go on. Guest memory is to be as it was saved before that, not
    /// necessarily before this. The host is told anew of messages and of the INTx line's level; what
    /// it knew of BARs it compares afterwards, as after a `config_write`.
    ///
    /// The state may be anybody's work: what it says is possible for a guest to bring about, or it is
    /// refused.
    ///
    /// # Errors
    /// When the state is not this function's, not possible, or the function runs. Unless it runs, it
    /// is as after [`reset`](Self::reset) then, and paused.
    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        let _ = state;
        Err(StateError::Unsupported("this function"))
    }
}

/// What its owner does not know the kind of is a function, too.
impl<D: PciDevice + ?Sized> PciDevice for Box<D> {
    fn layout(&self) -> &Layout {
        (**self).layout()
    }

    fn bars(&self) -> [Option<BarState>; 7] {
        (**self).bars()
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        (**self).config_read(offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        (**self).config_write(offset, data);
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        (**self).bar_read(bar, offset, data);
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        (**self).bar_write(bar, offset, data);
    }

    fn reset(&mut self) {
        (**self).reset();
    }

    fn pause(&mut self) -> Result<(), DeviceError> {
        (**self).pause()
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        (**self).resume()
    }

    fn save(&mut self) -> Result<SavedState, StateError> {
        (**self).save()
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        (**self).restore(state)
    }
}
