//! Logs and SMART data.

use paraslot_spec::ata::log::{DIRECTORY_VERSION, address, identify_page, ncq_error};
use paraslot_spec::ata::{SECTOR, smart};

use crate::disk::{Disk, NcqError};
use crate::identify::seal;

/// Most 512-byte pages that any log has.
pub(crate) const MOST_PAGES: usize = 2;
/// Room for the longest answer.
pub(crate) type Buffer = [u8; MOST_PAGES * SECTOR];

/// A log that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Log {
    Directory,
    NcqCommandError,
    IdentifyDeviceData,
}

impl Log {
    /// The log at an address, of the general purpose logs or of SMART's.
    fn find(at: u8, general: bool) -> Option<Self> {
        match at {
            address::DIRECTORY => Some(Self::Directory),
            address::NCQ_COMMAND_ERROR if general => Some(Self::NcqCommandError),
            address::IDENTIFY_DEVICE_DATA => Some(Self::IdentifyDeviceData),
            _ => None,
        }
    }

    fn pages(self) -> u16 {
        match self {
            Self::Directory | Self::NcqCommandError => 1,
            Self::IdentifyDeviceData => 2,
        }
    }
}

impl Disk {
    /// Reads `count` pages from page `page` of a log, or `None` if they are not all there. Reading
    /// the NCQ command error log ends the state that the error put the device in.
    pub(crate) fn read_log(
        &mut self,
        at: u8,
        page: u16,
        count: u16,
        general: bool,
        data: &mut Buffer,
    ) -> Option<usize> {
        let log = Log::find(at, general)?;
        let end = page.checked_add(count).filter(|end| count != 0 && *end <= log.pages())?;
        let pages = data.chunks_exact_mut(SECTOR);
        for (number, place) in (page..end).zip(pages) {
            place.fill(0);
            match log {
                Log::Directory => directory(general, place),
                Log::NcqCommandError => ncq_command_error(self.ncq_error.take(), place),
                Log::IdentifyDeviceData if number == 0 => identify_pages(place),
                Log::IdentifyDeviceData => place.copy_from_slice(&self.identify()),
            }
        }
        Some(usize::from(count) * SECTOR)
    }

    /// SMART READ DATA. The attributes are counts that the model keeps since it was made.
    pub(crate) fn smart_data(&self, data: &mut Buffer) -> usize {
        let Some(data) = data.get_mut(..SECTOR) else { return 0 };
        data.fill(0);
        put(data, smart::data::REVISION, &SMART_REVISION.to_le_bytes());
        let raw = [self.smart.sectors_written, self.smart.sectors_read];
        for (index, (id, raw)) in ATTRIBUTES.into_iter().zip(raw).enumerate() {
            // ID, flags (advisory, collected on-line), normalised value, worst, raw value.
            let [a, b, c, d, e, f, ..] = raw.to_le_bytes();
            let attribute = [id, 0x32, 0, 100, 100, a, b, c, d, e, f, 0];
            put(data, smart::data::ATTRIBUTES + index * ATTRIBUTE_LEN, &attribute);
        }
        // Attributes are kept at all times, which is what autosave would be for.
        put(data, smart::data::CAPABILITY, &3u16.to_le_bytes());
        seal(data);
        SECTOR
    }

    /// SMART READ ATTRIBUTE THRESHOLDS: none of the attributes has one.
    pub(crate) fn smart_thresholds(data: &mut Buffer) -> usize {
        let Some(data) = data.get_mut(..SECTOR) else { return 0 };
        data.fill(0);
        put(data, smart::data::REVISION, &SMART_REVISION.to_le_bytes());
        for (index, id) in ATTRIBUTES.into_iter().enumerate() {
            put(data, smart::data::ATTRIBUTES + index * ATTRIBUTE_LEN, &[id]);
        }
        seal(data);
        SECTOR
    }
}

/// Revision of SMART's structures that current tools expect.
const SMART_REVISION: u16 = 0x10;
const ATTRIBUTE_LEN: usize = 12;
/// Total logical sectors written and read.
const ATTRIBUTES: [u8; 2] = [241, 242];

fn put(data: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = data.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
        place.copy_from_slice(bytes);
    }
}

fn directory(general: bool, data: &mut [u8]) {
    put(data, 0, &DIRECTORY_VERSION.to_le_bytes());
    for at in 1..=u8::MAX {
        if let Some(log) = Log::find(at, general) {
            put(data, usize::from(at) * 2, &log.pages().to_le_bytes());
        }
    }
}

fn ncq_command_error(error: Option<NcqError>, data: &mut [u8]) {
    let Some(NcqError { tag, status, error, lba, device, count }) = error else {
        put(data, ncq_error::TAG, &[ncq_error::NOT_QUEUED]);
        return seal(data);
    };
    let [a, b, c, d, e, f, ..] = lba.to_le_bytes();
    put(data, ncq_error::TAG, &[tag.unwrap_or(ncq_error::NOT_QUEUED)]);
    put(data, ncq_error::STATUS, &[status, error]);
    put(data, ncq_error::LBA, &[a, b, c, device, d, e, f]);
    put(data, ncq_error::COUNT, &count.to_le_bytes());
    seal(data);
}

/// The list of the IDENTIFY DEVICE data log's pages.
fn identify_pages(data: &mut [u8]) {
    put(data, 0, &identify_page::REVISION.to_le_bytes());
    put(data, 8, &[2, identify_page::LIST, identify_page::COPY]);
}
