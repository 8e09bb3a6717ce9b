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
use crate::testing::Fake;
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

fn poll(disk: &mut Pvscsi<'_, Fake>) -> Result<Vec<Completion>, Error> {
    let mut completions = Completions::new();
    disk.poll(&mut completions)?;
    Ok(completions.as_slice().to_vec())
}

fn handle(disk: &mut Pvscsi<'_, Fake>) -> Result<Vec<Completion>, Error> {
    let mut completions = Completions::new();
    disk.handle(&mut completions)?;
    Ok(completions.as_slice().to_vec())
}

fn done(tag: u16) -> Completion {
    Completion { tag, result: Ok(()) }
}

fn failed(tag: u16, failed: Failed) -> Completion {
    Completion { tag, result: Err(failed) }
}
