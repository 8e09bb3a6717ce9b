//! IDENTIFY PACKET DEVICE data.

use paraslot_spec::ata::SECTOR;
use paraslot_spec::ata::identify::*;
use paraslot_spec::ata::packet::BYTE_COUNT_MAX;
use paraslot_spec::ata::set_features::transfer;
use paraslot_spec::scsi::inquiry::device_type;

use crate::identify::Words;

/// The transfer mode after a reset.
pub(super) const FASTEST: u8 = transfer::ULTRA_DMA | 6;

/// Who the device is.
pub(super) struct Identity {
    pub(super) serial: String,
    pub(super) model: String,
    pub(super) firmware: String,
}

impl Identity {
    /// What IDENTIFY PACKET DEVICE returns while `transfer_mode` is selected.
    pub(super) fn identify(&self, transfer_mode: u8) -> [u8; SECTOR] {
        let mut words = Words::new();
        let kind = u16::from(device_type::CDROM) << GENERAL_TYPE_SHIFT;
        let general = GENERAL_PACKET | GENERAL_REMOVABLE | GENERAL_DRQ_50_US | PACKET_LEN_12;
        words.set(word::GENERAL, general | kind);
        words.names(&self.serial, &self.firmware, &self.model);
        words.versions();
        words.transfer_modes(transfer_mode);
        // Which way to say the direction of DMA, word 62: none is needed.
        words.set(word::DMADIR, 0);
        words.set(word::BYTE_COUNT_ZERO, BYTE_COUNT_MAX);

        let supported = SUPPORTED_POWER | SUPPORTED_PACKET | SUPPORTED_DEVICE_RESET | SUPPORTED_NOP;
        for first in [word::SUPPORTED, word::ENABLED] {
            words.set(first, supported);
        }
        words.set(word::SUPPORTED + 1, VALID);
        words.set(word::SUPPORTED + 2, VALID);
        words.set(word::ENABLED + 2, VALID);
        words.set(word::SATA_CAPABILITIES, SATA_GEN1 | SATA_GEN2 | SATA_GEN3);
        words.set(word::SATA_CAPABILITIES_2, 3 << SATA_SPEED_SHIFT);
        words.seal()
    }
}
