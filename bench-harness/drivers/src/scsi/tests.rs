extern crate std;

mod endings;
mod finding;
mod requesting;

use std::vec;
use std::vec::Vec;

use super::testing::{Reply, TestUnit, Units};
use super::*;
use crate::testing::Fake;
use crate::{DmaRegion, Error, Op, Platform};

/// A transport without a device: commands are carried out as they are issued.
struct Direct {
    fake: Fake,
    units: Units,
    /// Says of each command that so many bytes were moved.
    claim: Option<u32>,
}

impl Direct {
    fn new(units: Units) -> Self {
        Self { fake: Fake::new(), units, claim: None }
    }

    fn find(&mut self) -> Result<Unit, Error> {
        find_disk(self, 8, 1 << 20)
    }
}

impl Host for Direct {
    type Platform = Fake;

    fn platform(&self) -> &Fake {
        &self.fake
    }

    fn run(&mut self, address: Address, request: &Request) -> Result<Ended, Error> {
        let Request { cdb, buffer } = *request;
        let len = usize::try_from(buffer.len).unwrap();
        let mut out = vec![0; len];
        if buffer.direction == Direction::Out {
            let (region, at) = self.fake.at(buffer.address);
            region.read_bytes(at, &mut out);
        }
        let reply = self.units.command(address, cdb.bytes(), &out);
        if reply.absent {
            return Ok(Ended::badly(Outcome::Absent));
        }
        let mut moved = reply.data.len().min(len);
        if buffer.direction == Direction::In {
            let (region, at) = self.fake.at(buffer.address);
            region.write_bytes(at, &reply.data[..moved]);
        } else {
            moved = len;
        }
        let outcome = match reply.status {
            2 => Outcome::Check(Sense::parse(&reply.sense)),
            status => Outcome::Status(status),
        };
        let moved = self.claim.unwrap_or(u32::try_from(moved).unwrap());
        Ok(Ended { outcome, moved })
    }
}
