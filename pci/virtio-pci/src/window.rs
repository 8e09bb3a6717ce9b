//! The PCI configuration access capability (4.1.4.9): the BAR through configuration space, for
//! firmware that has not mapped it.

use paraslot_device::DmaSpace;
use paraslot_pci::PciDevice;
use paraslot_spec::virtio::pci::{Capability, PCI_CFG_DATA};
use paraslot_virtio::VirtioDevice;
use zerocopy::{FromZeros, IntoBytes};

use crate::VirtioPci;

/// Bytes of pci_cfg_data.
const DATA_LEN: usize = 4;

/// Which byte of `pci_cfg_data`, and which of the access, come first, if the access touches it.
fn overlap(data_at: u16, offset: u16, len: usize) -> Option<(usize, usize)> {
    let (data_at, offset) = (usize::from(data_at), usize::from(offset));
    let touches = offset < data_at + DATA_LEN && data_at < offset.saturating_add(len);
    touches.then(|| (offset.saturating_sub(data_at), data_at.saturating_sub(offset)))
}

impl<A: DmaSpace, D: VirtioDevice<A>> VirtioPci<A, D> {
    /// What the driver has asked for: BAR, offset and length. `None` if the length is not 1, 2 or 4,
    /// or the offset no multiple of it (4.1.4.9.2), or it is nowhere in the BAR.
    fn target(&self) -> Option<(u8, u64, usize)> {
        let mut cap = Capability::new_zeroed();
        self.config.read(self.window, cap.as_mut_bytes());
        let (offset, len) = (cap.offset.get(), cap.length.get());
        if !matches!(len, 1 | 2 | 4) || !offset.is_multiple_of(len) {
            return None;
        }
        let spec = self.layout.bars.get(usize::from(cap.bar)).copied().flatten()?;
        let inside = u64::from(offset) + u64::from(len) <= spec.size;
        inside.then_some((cap.bar, offset.into(), usize::try_from(len).ok()?))
    }

    /// A read that touches pci_cfg_data reads the BAR.
    pub(crate) fn read_window(&mut self, offset: u16, data: &mut [u8]) {
        let Some((from, to)) = overlap(self.window + PCI_CFG_DATA, offset, data.len()) else {
            return;
        };
        let Some((bar, place, len)) = self.target() else { return };
        let mut value = [0; DATA_LEN];
        if let Some(value) = value.get_mut(..len) {
            self.bar_read(bar, place, value);
        }
        for (byte, value) in data.iter_mut().skip(to).zip(value.iter().skip(from)) {
            *byte = *value;
        }
    }

    /// A write that touches pci_cfg_data writes the BAR, with what the register holds afterwards.
    pub(crate) fn write_window(&mut self, offset: u16, data: &[u8]) {
        let data_at = self.window + PCI_CFG_DATA;
        if overlap(data_at, offset, data.len()).is_none() {
            return;
        }
        let Some((bar, place, len)) = self.target() else { return };
        let mut value = [0; DATA_LEN];
        self.config.read(data_at, &mut value);
        if let Some(value) = value.get(..len) {
            self.bar_write(bar, place, value);
        }
    }
}
