//! A function's interrupts (being written).

use std::sync::Arc;

use paraslot_device::Interrupt;

/// A function's INTx pin, MSI and MSI-X vectors, shared between its configuration space, which
/// enables, masks and routes them, and its workers, which raise them.
pub struct Interrupts {}

impl Interrupts {
    /// Whether MSI-X is enabled.
    pub fn msix_enabled(&self) -> bool {
        todo!()
    }
    /// Whether MSI is enabled.
    pub fn msi_enabled(&self) -> bool {
        todo!()
    }
    /// MSI-X vectors that the function has.
    pub fn msix_vectors(&self) -> u16 {
        todo!()
    }
    /// Raises MSI-X vector `vector`: sends its message, or sets its pending bit while it or the
    /// function is masked. Without effect where there is no such vector, MSI-X is disabled or bus
    /// mastering is off.
    pub fn trigger_msix(&self, _vector: u16) {
        todo!()
    }
    /// Raises MSI vector 0, likewise.
    pub fn trigger_msi(&self) {
        todo!()
    }
    /// Sets what the function wants of its INTx line: it shows in the status register at once, and
    /// on the line unless INTx is disabled or MSI or MSI-X is enabled.
    pub fn set_intx(&self, _asserted: bool) {
        todo!()
    }
    /// A handle that raises MSI-X vector `vector`.
    pub fn msix_vector(self: &Arc<Self>, _vector: u16) -> Arc<dyn Interrupt> {
        todo!()
    }
}
