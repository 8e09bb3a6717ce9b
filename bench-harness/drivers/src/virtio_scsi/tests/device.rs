//! A SCSI host that does what a test says, by the rules or against them.

extern crate std;

use std::vec;
use std::vec::Vec;

use paraslot_spec::virtio::device_type;

use super::{CONTROL, EVENTS, REQUESTS};
use crate::scsi::Address;
use crate::scsi::testing::{Reply, Units};
use crate::virtio::testing::{self, Buffer, Chain};

/// What is behind the queues.
pub(super) struct Host {
    pub(super) units: Units,
    /// Requests are left where they are.
    pub(super) idle: bool,
    /// What is answered to task management, if anything is.
    pub(super) response: Option<u8>,
    /// How much more is claimed to have been written then.
    pub(super) more: u32,
    /// Task management functions that were asked for.
    pub(super) managed: Vec<Vec<u8>>,
}

/// The machine.
pub(super) type Machine = testing::Machine<Host>;

/// A request that the host has taken.
pub(super) struct Taken {
    pub(super) chain: Chain,
    pub(super) address: Address,
    pub(super) id: u64,
    pub(super) cdb: Vec<u8>,
    pub(super) out: Vec<u8>,
    /// Where the response goes, and data.
    pub(super) response: u64,
    pub(super) room: u32,
}

/// A response without sense data: residual, status, response.
pub(super) fn response(residual: u32, status: u8, response: u8) -> Vec<u8> {
    let mut bytes = vec![0; 12];
    bytes[4..8].copy_from_slice(&residual.to_le_bytes());
    bytes[10..].copy_from_slice(&[status, response]);
    bytes
}

impl Machine {
    /// A machine with a host that offers `offered`.
    pub(super) fn new(offered: u64, units: Units) -> Self {
        let mut config = vec![0; 36];
        let words = [1, 126, 0xffff, 256, 16, 1, 1];
        for (at, word) in words.into_iter().enumerate() {
            config[4 * at..4 * at + 4].copy_from_slice(&u32::to_le_bytes(word));
        }
        config[30..32].copy_from_slice(&7_u16.to_le_bytes());
        let host = Host { units, idle: false, response: Some(0), more: 0, managed: Vec::new() };
        Self::with(device_type::SCSI, offered, config, 3, host, Self::work)
    }

    /// With every feature, and one disk.
    pub(super) fn usual() -> Self {
        Self::new(super::ALL, Units::one())
    }

    fn work(&self) {
        if !self.state.borrow().idle {
            self.serve();
        }
        self.manage();
    }

    /// Takes the next request. inline.scsi.1 and 2: the sizes are what the driver has set.
    pub(super) fn take(&self) -> Option<Taken> {
        let chain = self.next(REQUESTS)?;
        let (out, room): (Vec<&Buffer>, Vec<&Buffer>) =
            chain.buffers.iter().partition(|buffer| !buffer.write);
        // What is read comes before what is written.
        assert!(chain.buffers[..out.len()].iter().all(|buffer| !buffer.write));
        assert_eq!((out[0].len, room[0].len), (51, 108));
        assert!(chain.buffers.len() <= 3);
        let request = self.read(out[0].address, 51);
        let [1, target, high, low, 0, 0, 0, 0] = request[..8] else { panic!("no address") };
        assert_eq!(high & 0xc0, 0x40);
        assert_eq!(request[16..19], [0; 3]);
        let lun = u16::from_be_bytes([high & 0x3f, low]);
        Some(Taken {
            address: Address { target, lun },
            id: u64::from_le_bytes(request[8..16].try_into().unwrap()),
            cdb: request[19..].to_vec(),
            out: out[1..]
                .iter()
                .flat_map(|buffer| self.read(buffer.address, 512.min(buffer.len as usize)))
                .collect(),
            response: room[0].address,
            room: room[1..].iter().map(|buffer| buffer.len).sum(),
            chain,
        })
    }

    /// Completes a request.
    pub(super) fn complete(&self, taken: &Taken, reply: &Reply) {
        let out: u32 = taken.chain.buffers[1..].iter().filter(|b| !b.write).map(|b| b.len).sum();
        let moved = reply.data.len().min(taken.room as usize);
        let moved32 = u32::try_from(moved).unwrap();
        let residual = if reply.status == 0 && out != 0 { 0 } else { out + taken.room - moved32 };
        let mut bytes = match reply.absent {
            true => response(0, 0, 3),
            false => response(residual, reply.status, 0),
        };
        bytes[..4].copy_from_slice(&u32::try_from(reply.sense.len()).unwrap().to_le_bytes());
        bytes.extend(&reply.sense);
        self.write(taken.response, &bytes);
        if let Some(data) = taken.chain.buffers.last().filter(|_| taken.room != 0) {
            self.write(data.address, &reply.data[..moved]);
        }
        self.give_back(REQUESTS, &[(taken.chain.head.into(), 108 + moved32)]);
    }

    /// Completes a request with this response, and claims to have written so much.
    pub(super) fn respond(&self, taken: &Taken, bytes: &[u8], len: u32) {
        self.write(taken.response, bytes);
        self.give_back(REQUESTS, &[(taken.chain.head.into(), len)]);
    }

    /// Carries out all requests.
    pub(super) fn serve(&self) {
        while let Some(taken) = self.take() {
            let reply =
                self.state.borrow_mut().units.command(taken.address, &taken.cdb, &taken.out);
            self.complete(&taken, &reply);
        }
    }

    fn manage(&self) {
        while let Some(chain) = self.next(CONTROL) {
            let [request, room] = chain.buffers[..] else { panic!("a chain of other buffers") };
            assert!(!request.write && room.write && room.len == 1);
            let bytes = self.read(request.address, request.len as usize);
            let mut host = self.state.borrow_mut();
            host.managed.push(bytes);
            let (Some(response), more) = (host.response, host.more) else { continue };
            drop(host);
            self.write(room.address, &[response]);
            self.give_back(CONTROL, &[(chain.head.into(), 1 + more)]);
        }
    }

    /// Reports an event: what, where, why.
    pub(super) fn report(&self, event: u32, lun: [u8; 8], reason: u32) -> u16 {
        let chain = self.next(EVENTS).expect("there are buffers");
        let [buffer] = chain.buffers[..] else { panic!("a buffer of several parts") };
        assert!(buffer.write && buffer.len >= 16);
        let mut bytes = event.to_le_bytes().to_vec();
        bytes.extend(lun);
        bytes.extend(reason.to_le_bytes());
        self.write(buffer.address, &bytes);
        self.give_back(EVENTS, &[(chain.head.into(), 16)]);
        chain.head
    }
}
