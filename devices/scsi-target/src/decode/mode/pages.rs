//! The mode pages that there are.

use paraslot_spec::scsi::mode::{
    caching, capabilities, control_page, error_recovery, exceptions, page,
};

use crate::decode::context::put;
use crate::unit::{Kind, LogicalUnit, modes};

/// Which values of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Values {
    /// Those that these `modes::*` make.
    Current(u32),
    /// A mask of what can be changed.
    Changeable,
}

/// A bit of a page that is a mode parameter.
pub(super) struct Bit {
    pub(super) byte: usize,
    pub(super) mask: u8,
    pub(super) mode: u32,
    /// Whether it can be changed.
    changeable: fn(&LogicalUnit) -> bool,
}

/// A mode page.
pub(super) struct Page {
    pub(super) code: u8,
    /// PAGE LENGTH.
    pub(super) len: u8,
    kinds: &'static [Kind],
    /// What else is in it, from the start of the page: nothing of it can be changed.
    fixed: fn(&LogicalUnit, &mut [u8]),
    pub(super) bits: &'static [Bit],
}

const BOTH: &[Kind] = &[Kind::Disk, Kind::Cdrom];
const DISK: &[Kind] = &[Kind::Disk];
const CDROM: &[Kind] = &[Kind::Cdrom];

/// All pages, in the order of their codes.
static PAGES: [Page; 5] = [
    // A drive retries nothing by itself, and corrects nothing.
    Page {
        code: page::ERROR_RECOVERY,
        len: error_recovery::LEN,
        kinds: CDROM,
        fixed: |_, _| {},
        bits: &[],
    },
    Page {
        code: page::CACHING,
        len: caching::LEN,
        kinds: DISK,
        fixed: |_, _| {},
        bits: &[Bit {
            byte: caching::FLAGS,
            mask: caching::WCE,
            mode: modes::WRITE_CACHE,
            changeable: |unit| unit.info.volatile_cache,
        }],
    },
    Page {
        code: page::CONTROL,
        len: control_page::LEN,
        kinds: BOTH,
        fixed: |_, page| put(page, control_page::QUEUE, &[control_page::UNRESTRICTED]),
        bits: &[
            Bit {
                byte: control_page::FLAGS,
                mask: control_page::D_SENSE,
                mode: modes::DESCRIPTOR_SENSE,
                changeable: |_| true,
            },
            Bit {
                byte: control_page::PROTECT,
                mask: control_page::SWP,
                mode: modes::SOFTWARE_PROTECT,
                changeable: |unit| unit.kind == Kind::Disk,
            },
        ],
    },
    // There are none that could be reported.
    Page {
        code: page::EXCEPTIONS,
        len: exceptions::LEN,
        kinds: DISK,
        fixed: |_, page| put(page, exceptions::FLAGS, &[exceptions::DEXCPT]),
        bits: &[],
    },
    Page {
        code: page::CAPABILITIES,
        len: capabilities::LEN,
        kinds: CDROM,
        fixed: mechanism,
        bits: &[],
    },
];

/// What an image of a disc has that a drive could read, and a tray.
fn mechanism(unit: &LogicalUnit, page: &mut [u8]) {
    use capabilities as field;
    /// kB/s of a drive that reads CDs at 48 times the speed of an audio CD.
    const SPEED: u16 = 48 * 176;
    let read = field::READ_CD_R | field::READ_CD_RW | field::READ_DVD_ROM | field::READ_DVD_R;
    let locked = if unit.state().prevented.is_empty() { 0 } else { field::LOCK_STATE };
    let mechanism = field::TRAY | field::EJECT | field::LOCK | locked;
    put(page, field::READ, &[read]);
    put(page, field::MECHANISM, &[mechanism]);
    put(page, field::MAX_SPEED, &SPEED.to_be_bytes());
    put(page, field::SPEED, &SPEED.to_be_bytes());
}

/// The pages of a unit.
pub(super) fn of(unit: &LogicalUnit) -> impl Iterator<Item = &'static Page> {
    let kind = unit.kind;
    PAGES.iter().filter(move |page| page.kinds.contains(&kind))
}

impl Page {
    /// The whole page, header included.
    pub(super) fn bytes(&self, unit: &LogicalUnit, values: Values) -> Vec<u8> {
        let mut bytes = vec![0; 2 + usize::from(self.len)];
        put(&mut bytes, 0, &[self.code, self.len]);
        if values != Values::Changeable {
            (self.fixed)(unit, &mut bytes);
        }
        for bit in self.bits {
            let set = match values {
                Values::Current(modes) => modes & bit.mode != 0,
                Values::Changeable => (bit.changeable)(unit),
            };
            if let Some(byte) = bytes.get_mut(bit.byte).filter(|_| set) {
                *byte |= bit.mask;
            }
        }
        bytes
    }
}
