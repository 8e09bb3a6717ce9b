extern crate std;

mod control;
mod device;
mod frames;
mod lies;
mod set_up;

use std::vec;
use std::vec::Vec;

use paraslot_spec::virtio::feature;
use paraslot_spec::virtio_net::{Coalesce, feature as net, hash_report, rx};
use zerocopy::little_endian::U32;

use super::{Layout, Options, Rss, VirtioNet};
use crate::{DmaRegion, Error, Known, Nic, Offers, Platform, Task};
use device::{Answer, Machine};

const ALL: u64 = Options::ALL_FEATURES | feature::VERSION_1;
const USUAL: u64 = Options::USUAL_FEATURES | feature::VERSION_1;
/// Status: driver OK, features OK, driver, acknowledge.
const RUNNING: u8 = 15;
const FAILED: u8 = 128;

const OPTIONS: Options = Options::new();

fn adapter(machine: &Machine, options: Options) -> VirtioNet<'_, Machine> {
    let adapter = VirtioNet::new(machine, options).unwrap();
    machine.doorbells();
    adapter
}

fn failure(machine: &Machine, options: Options) -> Error {
    VirtioNet::new(machine, options).err().expect("it cannot be set up")
}

/// A region with `headroom` and a frame of counting bytes.
fn region(machine: &Machine, headroom: usize, len: usize) -> (DmaRegion, Vec<u8>) {
    let region = machine.allocate(headroom + len).unwrap();
    let bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect();
    region.write_bytes(headroom, &bytes);
    (region, bytes)
}

/// A header of 12 bytes.
fn header(flags: u8, kind: u8, fields: [u16; 5]) -> Vec<u8> {
    let mut bytes = vec![flags, kind];
    bytes.extend(fields.into_iter().flat_map(u16::to_le_bytes));
    bytes
}

/// A header without anything, but a number of buffers.
fn plain(buffers: u16) -> Vec<u8> {
    header(0, 0, [0, 0, 0, 0, buffers])
}

fn frame(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 7 % 253).unwrap()).collect()
}

/// All frames that have arrived: bytes, checksum, number of pieces.
fn received(adapter: &mut VirtioNet<'_, Machine>) -> Result<Vec<(Vec<u8>, Known, usize)>, Error> {
    let mut frames = Vec::new();
    adapter.receive(u16::MAX, |arrival| {
        let mut bytes = Vec::new();
        for piece in arrival.pieces {
            let mut part = vec![0; piece.len()];
            piece.read_bytes(0, &mut part);
            bytes.extend(part);
        }
        assert_eq!(bytes.len(), arrival.len);
        frames.push((bytes, arrival.checksum, arrival.pieces.len()));
    })?;
    Ok(frames)
}

fn reclaimed(adapter: &mut VirtioNet<'_, Machine>) -> Result<Vec<u16>, Error> {
    let mut tags = Vec::new();
    adapter.reclaim(|tag| tags.push(tag))?;
    Ok(tags)
}
