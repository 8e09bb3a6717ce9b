//! What a test needs of an initiator, and what it says of endings.

use paraslot_scsi::{Address, Bus, Sense, Status};

/// Where the unit under test is. Drivers have a disk of their own at target 0.
pub(crate) const HERE: Address = Address { target: 1, lun: 0 };

/// The data of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Data<'a> {
    /// It has none.
    None,
    /// Room for so many bytes.
    In(usize),
    /// These.
    Out(&'a [u8]),
}

/// The way in which a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With this status, CHECK CONDITION apart.
    Status(Status),
    /// With CHECK CONDITION.
    Check(Sense),
    /// There is nobody at this target.
    Absent,
    /// It did not get as far as a status, since its data does not fit its buffer. Drivers do not tell
    /// that from other failures of the transport.
    Overrun,
    /// Task management or a reset ended it.
    Aborted,
}

/// A command that is over.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) end: End,
    /// Bytes of the data that were moved.
    pub(crate) moved: usize,
    /// Those of them that came in.
    pub(crate) data: Vec<u8>,
}

/// Who sends commands to units, and waits for each.
pub(crate) trait Initiator {
    /// Has a command carried out. What is beyond the bytes that have been moved must not have changed.
    fn execute(&mut self, address: Address, cdb: &[u8], data: Data<'_>) -> Ended;

    /// Has its device's worker do what there is to do.
    fn work(&mut self);

    /// The bus that it sees the units on, unless that is a secret of its device's.
    fn bus(&self) -> Option<&Bus>;
}

pub(crate) const GOOD: End = End::Status(Status::Good);
pub(crate) const CONFLICT: End = End::Status(Status::ReservationConflict);

/// Commands for [`HERE`], and what must come of them.
impl dyn Initiator + '_ {
    /// How a command ends.
    pub(crate) fn end(&mut self, cdb: &[u8], data: Data<'_>) -> End {
        self.execute(HERE, cdb, data).end
    }

    /// A command without data.
    #[track_caller]
    pub(crate) fn good(&mut self, cdb: &[u8]) {
        assert_eq!(self.end(cdb, Data::None), GOOD, "{cdb:02x?}");
    }

    /// A command that moves data in: as much as there is.
    #[track_caller]
    pub(crate) fn input(&mut self, cdb: &[u8], room: usize) -> Vec<u8> {
        let Ended { end, data, .. } = self.execute(HERE, cdb, Data::In(room));
        assert_eq!(end, GOOD, "{cdb:02x?}");
        data
    }

    /// A command that takes all of `data`.
    #[track_caller]
    pub(crate) fn output(&mut self, cdb: &[u8], data: &[u8]) {
        let Ended { end, moved, .. } = self.execute(HERE, cdb, Data::Out(data));
        assert_eq!((end, moved), (GOOD, data.len()), "{cdb:02x?}");
    }

    /// A command that ends with CHECK CONDITION.
    #[track_caller]
    pub(crate) fn fails(&mut self, cdb: &[u8], data: Data<'_>, sense: Sense) {
        let end = self.end(cdb, data);
        assert!(end == End::Check(sense), "{cdb:02x?}: {end:x?} instead of {sense:x?}");
    }

    /// What TEST UNIT READY reports.
    pub(crate) fn attention(&mut self) -> Option<(u8, u8)> {
        match self.end(&[0; 6], Data::None) {
            End::Check(Sense { key: 6, asc, ascq, .. }) => Some((asc, ascq)),
            _ => None,
        }
    }

    /// The bus that it sees the units on.
    pub(crate) fn port(&self) -> Bus {
        self.bus().expect("a bus that is known").clone()
    }

    /// All attentions that are pending, which are not afterwards.
    pub(crate) fn attentions(&mut self) -> Vec<(u8, u8)> {
        (0..32).map_while(|_| self.attention()).collect()
    }
}

/// A sense key, an additional sense code and its qualifier, and nothing beside.
pub(crate) const fn sense(key: u8, asc: u8, ascq: u8) -> Sense {
    Sense { key, asc, ascq, information: None, specific: None }
}

/// ILLEGAL REQUEST.
pub(crate) const fn illegal(asc: u8, ascq: u8) -> Sense {
    sense(5, asc, ascq)
}

/// The same about this place, which INFORMATION says.
pub(crate) const fn at(sense: Sense, information: u64) -> Sense {
    Sense { information: Some(information), ..sense }
}

/// INVALID FIELD IN CDB, with a pointer to the byte, and to a field's highest bit unless it is a
/// matter of whole bytes.
pub(crate) const fn bad_cdb(byte: u8, bit: Option<u8>) -> Sense {
    Sense { specific: Some([0xc0 | pointer(bit), 0, byte]), ..illegal(0x24, 0) }
}

/// INVALID FIELD IN PARAMETER LIST, likewise.
pub(crate) const fn bad_parameter(byte: u8, bit: Option<u8>) -> Sense {
    Sense { specific: Some([0x80 | pointer(bit), 0, byte]), ..illegal(0x26, 0) }
}

const fn pointer(bit: Option<u8>) -> u8 {
    match bit {
        Some(bit) => 8 | bit,
        None => 0,
    }
}

/// LOGICAL BLOCK ADDRESS OUT OF RANGE.
pub(crate) const fn out_of_range(lba: u64) -> Sense {
    at(illegal(0x21, 0), lba)
}

/// PARAMETER LIST LENGTH ERROR.
pub(crate) const LIST_LENGTH: Sense = illegal(0x1a, 0);
/// INVALID COMMAND OPERATION CODE.
pub(crate) const UNKNOWN: Sense = illegal(0x20, 0);
