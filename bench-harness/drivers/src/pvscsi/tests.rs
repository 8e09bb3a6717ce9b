extern crate std;

mod device;
mod interrupts;
mod lies;
mod manage;
mod requests;
mod set_up;

use std::vec;
use std::vec::Vec;

use super::{Message, Options, Pvscsi, Signal};
use crate::scsi::testing::{Reply, TestUnit, Units};
use crate::scsi::{Address, Cdb, Data, MAX_RETRIES, Outcome};
use crate::testing::{Fake, done, failed, handle, poll};
use crate::{Completion, Completions, Disk, DmaRegion, Error, Failed, Op, Platform};
use device::Bench;

/// A disk that does nothing by itself from now on.
fn disk(bench: &Bench, options: Options) -> Pvscsi<'_, Fake> {
    let disk = Pvscsi::new(&bench.fake, options).unwrap();
    bench.rest();
    disk
}

fn failure(bench: &Bench, options: Options) -> Error {
    Pvscsi::new(&bench.fake, options).err().expect("it cannot be set up")
}

/// A region of counting bytes.
fn region(bench: &Bench, len: usize) -> DmaRegion {
    let region = bench.fake.allocate(len).unwrap();
    for at in 0..len {
        region.write8(at, at.to_le_bytes()[0]);
    }
    region
}
