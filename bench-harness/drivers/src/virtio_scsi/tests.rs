extern crate std;

mod control;
mod device;
mod events;
mod lies;
mod requests;
mod set_up;

use std::vec;
use std::vec::Vec;

use paraslot_spec::virtio::feature;
use paraslot_spec::virtio_scsi::feature as scsi;

use super::{Event, Function, Options, Response, VirtioScsi};
use crate::scsi::testing::{Reply, TestUnit, Units};
use crate::scsi::{Address, Cdb, Data, MAX_RETRIES, Outcome};
use crate::testing::{done, failed, poll};
use crate::{Completion, Completions, Disk, DmaRegion, Error, Failed, Op, Platform};
use device::Machine;

const ALL: u64 = Options::ALL_FEATURES | feature::VERSION_1;
/// The queues.
const CONTROL: usize = 0;
const EVENTS: usize = 1;
const REQUESTS: usize = 2;
/// Status: driver OK, features OK, driver, acknowledge.
const RUNNING: u8 = 15;
const FAILED: u8 = 128;

/// A disk that does nothing by itself from now on.
fn disk(machine: &Machine, depth: u16) -> VirtioScsi<'_, Machine> {
    let disk = VirtioScsi::new(machine, Options::new(depth)).unwrap();
    machine.doorbells();
    machine.state.borrow_mut().units.seen.clear();
    machine.state.borrow_mut().idle = true;
    disk
}

fn failure(machine: &Machine, options: Options) -> Error {
    VirtioScsi::new(machine, options).err().expect("it cannot be set up")
}

/// A region of counting bytes.
fn region(machine: &Machine, len: usize) -> DmaRegion {
    let region = machine.allocate(len).unwrap();
    for at in 0..len {
        region.write8(at, at.to_le_bytes()[0]);
    }
    region
}
