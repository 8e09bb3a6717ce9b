extern crate std;

mod interrupts;
mod lies;
mod model;
mod requests;
mod set_up;

use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use super::{Nvme, Options};
use crate::pci::Signal;
use crate::testing::{Fake, done, failed, handle, poll};
use crate::{Completions, Disk, DmaRegion, Error, Failed, Op, Platform};
use model::{Fault, Fetched, Model, Posted};

/// A machine with a controller of 8 vectors.
fn usual() -> (Fake, Rc<Model>) {
    Model::new().plugged(8)
}

fn disk<'a>(fake: &'a Fake, model: &Model, options: Options) -> Nvme<'a, Fake> {
    let disk = Nvme::new(fake, options).unwrap();
    model.take_writes();
    model.administered.borrow_mut().clear();
    disk
}

fn failure(fake: &Fake, options: Options) -> Error {
    Nvme::new(fake, options).err().expect("it cannot be set up")
}

/// A region of bytes that count, from `first` on.
fn region(fake: &Fake, len: usize, first: usize) -> DmaRegion {
    let region = fake.allocate(len).unwrap();
    fill(&region, first);
    region
}

fn fill(region: &DmaRegion, first: usize) {
    let bytes: Vec<u8> = (0..region.len()).map(|at| byte(first + at)).collect();
    region.write_bytes(0, &bytes);
}

/// A pattern that is not the same in any two pages.
fn byte(at: usize) -> u8 {
    (at ^ at >> 8 ^ at >> 13).to_le_bytes()[0]
}
