//! IDENTIFY DEVICE data.

use paraslot_spec::ata::identify::*;
use paraslot_spec::ata::set_features::transfer;
use paraslot_spec::ata::{LBA_28_MAX, NCQ_DEPTH, SECTOR};

use crate::disk::{Disk, Geometry, MULTIPLE_MAX, Settings, TRIM_BLOCKS, Trim};

/// The device needs no spin-up command, and the data is complete.
const SPECIFIC_COMPLETE: u16 = 0xc837;
/// ATA/ATAPI-4 to ACS-2. What later ones demand of logs is not served.
const MAJOR_VERSIONS: u16 = 0x00f0 | MAJOR_ATA8 | MAJOR_ACS2;
/// SATA 1.0a, II extensions, 2.5, 2.6, 3.0.
const TRANSPORT: u16 = TRANSPORT_SERIAL | TRANSPORT_SATA_3_0 | 0x001e;
/// All PIO cycles and multiword DMA cycles, in nanoseconds, as for the fastest modes.
const CYCLE: u16 = 120;
/// The largest geometry that may be told in cylinders, heads and sectors.
const MOST_CYLINDERS: u64 = 16_383;
const HEADS: u16 = 16;
const SECTORS_PER_TRACK: u16 = 63;

/// The data, word by word.
pub(crate) struct Words([u16; WORDS]);

impl Words {
    /// All zero.
    pub(crate) fn new() -> Self {
        Self([0; WORDS])
    }

    pub(crate) fn set(&mut self, word: usize, value: u16) {
        if let Some(place) = self.0.get_mut(word) {
            *place = value;
        }
    }

    /// `value` in `words` words, the lowest first.
    fn number(&mut self, word: usize, words: usize, value: u64) {
        for (index, pair) in value.to_le_bytes().chunks_exact(2).take(words).enumerate() {
            self.set(word + index, u16::from_le_bytes([pair[0], pair[1]]));
        }
    }

    fn text(&mut self, word: usize, len: usize, text: &str) {
        let mut characters = text.bytes().chain(std::iter::repeat(b' '));
        for index in 0..len / 2 {
            let pair = [characters.next(), characters.next()].map(|c| c.unwrap_or(b' '));
            self.set(word + index, u16::from_be_bytes(pair));
        }
    }

    /// Who the device is.
    pub(crate) fn names(&mut self, serial: &str, firmware: &str, model: &str) {
        self.text(word::SERIAL, SERIAL_LEN, serial);
        self.text(word::FIRMWARE, FIRMWARE_LEN, firmware);
        self.text(word::MODEL, MODEL_LEN, model);
    }

    /// The standards that it complies with.
    pub(crate) fn versions(&mut self) {
        self.set(word::MAJOR_VERSION, MAJOR_VERSIONS);
        self.set(word::TRANSPORT_MAJOR, TRANSPORT);
    }

    /// What there is beside PIO, and which is selected (as SET FEATURES says it).
    pub(crate) fn transfer_modes(&mut self, selected: u8) {
        let capabilities =
            CAPABILITY_DMA | CAPABILITY_LBA | CAPABILITY_IORDY | CAPABILITY_IORDY_DISABLE;
        self.set(word::CAPABILITIES, capabilities);
        self.set(word::CAPABILITIES_2, VALID);
        self.set(word::FIELD_VALIDITY, VALID_64_70 | VALID_88);
        self.set(word::MULTIWORD_DMA, modes(0x07, transfer::MULTIWORD_DMA, selected));
        self.set(word::ULTRA_DMA, modes(0x7f, transfer::ULTRA_DMA, selected));
        self.set(word::PIO_MODES, 0b11);
        for cycle in
            [word::MWDMA_CYCLE_MIN, word::MWDMA_CYCLE, word::PIO_CYCLE, word::PIO_CYCLE_IORDY]
        {
            self.set(cycle, CYCLE);
        }
    }

    /// The bytes, with signature and checksum.
    pub(crate) fn seal(self) -> [u8; SECTOR] {
        let mut data = [0; SECTOR];
        for (place, word) in data.chunks_exact_mut(2).zip(self.0) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let [.., signature, _checksum] = &mut data;
        *signature = INTEGRITY_SIGNATURE;
        seal(&mut data);
        data
    }
}

/// Bits of `modes` with the selected mode's bit, eight higher, if the mode is of kind `kind`.
fn modes(supported: u16, kind: u8, selected: u8) -> u16 {
    if selected & !7 == kind { supported | 1 << (8 + (selected & 7)) } else { supported }
}

impl Disk {
    /// What IDENTIFY DEVICE returns.
    pub(crate) fn identify(&self) -> [u8; SECTOR] {
        let mut words = Words::new();
        self.identity(&mut words);
        capacity(&mut words, &self.geometry);
        transfer_modes(&mut words, &self.settings);
        self.feature_sets(&mut words);
        words.seal()
    }

    fn identity(&self, words: &mut Words) {
        // Not removable.
        words.set(word::GENERAL, 0x0040);
        words.set(word::SPECIFIC, SPECIFIC_COMPLETE);
        words.names(&self.serial, &self.firmware, &self.model);
        words.versions();
        words.set(word::ROTATION_RATE, ROTATION_NONE);
        if let Some(name) = self.world_wide_name {
            // The first of the four words has the highest bits.
            for (index, pair) in name.to_be_bytes().chunks_exact(2).enumerate() {
                words.set(word::WORLD_WIDE_NAME + index, u16::from_be_bytes([pair[0], pair[1]]));
            }
        }
    }

    fn feature_sets(&self, words: &mut Words) {
        let Geometry { volatile_cache, trim, .. } = self.geometry;
        let Settings { write_cache, look_ahead, .. } = self.settings;
        let when = |condition, bits| if condition { bits } else { 0 };

        let supported = SUPPORTED_SMART
            | SUPPORTED_POWER
            | SUPPORTED_LOOK_AHEAD
            | when(volatile_cache, SUPPORTED_WRITE_CACHE);
        let enabled = SUPPORTED_POWER
            | when(self.smart.enabled, SUPPORTED_SMART)
            | when(look_ahead, SUPPORTED_LOOK_AHEAD)
            | when(volatile_cache && write_cache, SUPPORTED_WRITE_CACHE);
        let second = SUPPORTED_LBA48 | SUPPORTED_FLUSH | SUPPORTED_FLUSH_EXT;
        let third = VALID
            | SUPPORTED_GPL
            | SUPPORTED_FUA
            | when(self.world_wide_name.is_some(), SUPPORTED_WWN);
        words.set(word::SUPPORTED, supported);
        words.set(word::SUPPORTED + 1, VALID | second);
        words.set(word::SUPPORTED + 2, third);
        words.set(word::ENABLED, enabled);
        words.set(word::ENABLED + 1, second | ENABLED_119_VALID);
        words.set(word::ENABLED + 2, third);
        words.set(word::SUPPORTED_2, VALID | SUPPORTED_2_LOG_DMA);
        words.set(word::ENABLED_2, VALID | SUPPORTED_2_LOG_DMA);

        words.set(word::QUEUE_DEPTH, u16::from(NCQ_DEPTH - 1));
        let speeds = SATA_GEN1 | SATA_GEN2 | SATA_GEN3;
        words.set(word::SATA_CAPABILITIES, speeds | SATA_NCQ | SATA_READ_LOG_DMA);
        words.set(word::SATA_CAPABILITIES_2, 3 << SATA_SPEED_SHIFT);

        if let Some(trim) = trim {
            words.set(word::DSM, DSM_TRIM);
            words.set(word::DSM_BLOCKS, TRIM_BLOCKS);
            let zeroes = ADDITIONAL_DRAT | ADDITIONAL_RZAT;
            words.set(word::ADDITIONAL, when(trim == Trim::Zeroes, zeroes));
        }
    }
}

fn capacity(words: &mut Words, geometry: &Geometry) {
    let Geometry { sectors, sector_size, physical_exponent, .. } = *geometry;
    let track = u64::from(HEADS) * u64::from(SECTORS_PER_TRACK);
    let cylinders = (sectors / track).min(MOST_CYLINDERS);
    for [first, second, third] in [
        [word::CYLINDERS, word::HEADS, word::SECTORS_PER_TRACK],
        [word::CURRENT_CYLINDERS, word::CURRENT_HEADS, word::CURRENT_SECTORS_PER_TRACK],
    ] {
        words.number(first, 1, cylinders);
        words.set(second, HEADS);
        words.set(third, SECTORS_PER_TRACK);
    }
    words.number(word::CURRENT_CAPACITY, 2, cylinders * track);
    words.number(word::SECTORS_28, 2, sectors.min(LBA_28_MAX.into()));
    words.number(word::SECTORS_48, 4, sectors);
    let mut size = VALID;
    if physical_exponent != 0 {
        size |= SECTOR_MULTIPLE | physical_exponent;
    }
    if sector_size > 512 {
        size |= SECTOR_LOGICAL_LONG;
        words.number(word::LOGICAL_SECTOR_WORDS, 2, u64::from(sector_size / 2));
    }
    words.set(word::SECTOR_SIZE, size);
    words.set(word::ALIGNMENT, VALID);
}

fn transfer_modes(words: &mut Words, settings: &Settings) {
    let Settings { multiple, transfer_mode, .. } = *settings;
    words.set(word::MULTIPLE_MAX, 0x8000 | u16::from(MULTIPLE_MAX));
    if multiple != 0 {
        words.set(word::MULTIPLE, MULTIPLE_VALID | u16::from(multiple));
    }
    words.transfer_modes(transfer_mode);
    words.set(word::FIELD_VALIDITY, VALID_54_58 | VALID_64_70 | VALID_88);
}

/// Sets the last byte so that all add up to 0.
pub(crate) fn seal(data: &mut [u8]) {
    let sum = data.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte));
    if let Some(last) = data.last_mut() {
        *last = last.wrapping_sub(sum);
    }
}
