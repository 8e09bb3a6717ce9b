extern crate std;

mod interrupts;
mod lies;
mod model;
mod receiving;
mod sending;
mod set_up;

use std::rc::Rc;
use std::vec;
use std::vec::Vec;

use paraslot_protocol::traffic::{self, Flow};
use paraslot_spec::pci::{Command, VENDOR_VMWARE, capability};
use paraslot_spec::vmxnet3::{
    DEVICE_VMXNET3, Events, PT_BAR_SIZE, VD_BAR_SIZE, command, interrupt, rcd, registers, txd,
};

use super::{Options, Signalling, Vectors, Vmxnet3};
use crate::testing::Fake;
use crate::{Accesses, DmaRegion, Error, Known, Nic, Offers, Platform, Task};
use model::Access::{ReadVd, WritePt, WriteVd};
use model::{Fault, MAC, Model, PT, PtBar, TABLE, Table, VD, VdBar, Words};

const SLOT: u8 = 3;
const FLOW: Flow = Flow { source: MAC, destination: [2, 0, 0, 0, 0, 9] };
/// Where its capabilities are.
const MSIX: usize = 0x40;
const MSI: usize = 0x60;

/// A machine with an adapter, with so many vectors of MSI-X, or none, and with MSI or not.
fn machine_with(vectors: u32, msi: bool) -> (Fake, Rc<Model>) {
    let fake = Fake::new();
    fake.add(SLOT, 0, 0);
    fake.bar(SLOT, 0, PT_BAR_SIZE, false, PT);
    fake.bar(SLOT, 1, VD_BAR_SIZE, false, VD);
    fake.bar(SLOT, 2, 0x1000, false, TABLE);
    {
        let mut functions = fake.functions.borrow_mut();
        let config = functions.get_mut(&(SLOT, 0)).unwrap();
        config.words[0] = u32::from(DEVICE_VMXNET3) << 16 | u32::from(VENDOR_VMWARE);
        let msi_at = if msi { u32::try_from(MSI).unwrap() } else { 0 };
        let first = if vectors != 0 { u32::try_from(MSIX).unwrap() } else { msi_at };
        config.words[1] = if first != 0 { 1 << 20 } else { 0 };
        config.words[0x34 / 4] = first;
        let control = vectors.saturating_sub(1) << 16;
        config.words[MSIX / 4] = control | msi_at << 8 | u32::from(capability::MSI_X);
        config.writable[MSIX / 4] = 0xc000_0000;
        config.words[MSIX / 4 + 1] = 2;
        // Messages to 64-bit addresses.
        config.words[MSI / 4] = 1 << 23 | u32::from(capability::MSI);
        config.writable[MSI / 4] = 0x0001_0000;
        config.writable[MSI / 4 + 1..][..3].fill(u32::MAX);
    }
    let model = Rc::new(Model::default());
    fake.attach(PT, PT_BAR_SIZE, Rc::new(PtBar(model.clone())));
    fake.attach(VD, VD_BAR_SIZE, Rc::new(VdBar(model.clone())));
    fake.attach(TABLE, 0x1000, Rc::new(Table(model.clone())));
    (fake, model)
}

fn machine(fault: Fault) -> (Fake, Rc<Model>) {
    let (fake, model) = machine_with(25, true);
    model.fault.set(fault);
    (fake, model)
}

fn adapter<'f>(fake: &'f Fake, options: Options) -> Vmxnet3<'f, Fake> {
    Vmxnet3::new(fake, options).unwrap()
}

fn config(fake: &Fake, offset: usize) -> u32 {
    fake.functions.borrow()[&(SLOT, 0)].words[offset / 4]
}

fn pin_is_off(fake: &Fake) -> bool {
    config(fake, 4) & u32::from(Command::INTX_DISABLE.bits()) != 0
}

/// Where an interrupt's mask is.
fn imr(interrupt: u64) -> u64 {
    registers::IMR + registers::STRIDE * interrupt
}

/// Memory for a frame, with its bytes.
fn frame(fake: &Fake, bytes: &[u8]) -> DmaRegion {
    let region = fake.allocate(bytes.len()).unwrap();
    region.write_bytes(0, bytes);
    region
}

/// A frame of the traffic's kind, and its bytes.
fn traffic_frame(fake: &Fake, size: usize) -> (DmaRegion, Vec<u8>) {
    let wire_size = u32::try_from(size).unwrap();
    let mut bytes = pattern(size);
    let len = traffic::header_len(wire_size);
    bytes[..len].copy_from_slice(&FLOW.headers(wire_size)[..len]);
    (frame(fake, &bytes), bytes)
}

/// Bytes that are told apart.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

fn reclaimed(nic: &mut Vmxnet3<'_, Fake>) -> Vec<u16> {
    let mut tags = vec![];
    nic.reclaim(|tag| tags.push(tag)).unwrap();
    tags
}

/// A frame that has arrived: its bytes, how many pieces it was in, and what is known of it.
type Received = (Vec<u8>, usize, Known);

/// Everything that has arrived.
fn received(nic: &mut Vmxnet3<'_, Fake>, limit: u16) -> Vec<Received> {
    let mut frames = vec![];
    let count = nic.receive(limit, |arrival| {
        let mut bytes = vec![];
        for piece in arrival.pieces {
            let mut part = vec![0; piece.len()];
            piece.read_bytes(0, &mut part);
            bytes.extend(part);
        }
        assert_eq!(bytes.len(), arrival.len);
        frames.push((bytes, arrival.pieces.len(), arrival.checksum));
    });
    assert_eq!(usize::from(count.unwrap()), frames.len());
    frames
}

/// What a checksum that was found right looks like.
const RIGHT: u32 = rcd::V4 | rcd::IPC | rcd::TUC | rcd::UDP;
