//! What the device writes, to the byte: nothing outside the buffers that a request gives it, no
//! longer a completion than was written, and no byte of the host's in place of one of the image's.
//!
//! CVE-2016-6836 and its like (bytes that were never filled), CVE-2015-5154 (transfers past the end
//! of their data), CVE-2012-6075 (more than the buffer holds).

mod nic;
mod scsi;
mod vmxnet3;

use std::io;
use std::sync::Arc;

use paraslot_backends::block::testing::FaultBackend;
use paraslot_backends::block::{BlockBackend, BlockError, BlockOp};
use paraslot_spec::ahci::{PortCommand, port};
use paraslot_spec::ata::command;
use paraslot_spec::virtio_blk::{ID_LEN, request, status};

use crate::ahci::{self, ERROR, LIST, RECEIVED, Sata};
use crate::blk::{self, Blk, NO_STATUS};
use crate::support::{Random, all_memory, differences, image, image_byte};

/// What all of guest memory is filled with.
const CANARY: u8 = 0xa5;
/// What a read that fails half-way leaves in the first half of its buffers.
const TORN: u8 = 0xbd;

/// One operation in four fails; a read that does has filled half of its buffers.
fn torn(seed: u64) -> Arc<dyn BlockBackend> {
    let mut random = Random::new(seed ^ 0x7013);
    Arc::new(FaultBackend::new(image(), move |_, request| {
        if !random.one_in(4) {
            return None;
        }
        if request.op == BlockOp::Read {
            request.buffers.copy_from(&vec![TORN; request.buffers.len() / 2]);
        }
        Some(BlockError::Io(io::Error::from_raw_os_error(5)))
    }))
}

/// Guest memory with what the device may have changed taken over from after to before.
struct Ledger {
    before: Vec<u8>,
    after: Vec<u8>,
}

impl Ledger {
    /// The bytes there now; they are accounted for.
    fn take(&mut self, address: u64, len: u64) -> &[u8] {
        let start = usize::try_from(address).expect("in memory");
        let range = start..start + usize::try_from(len).expect("in memory");
        self.before[range.clone()].copy_from_slice(&self.after[range.clone()]);
        &self.after[range]
    }

    fn nothing_else(&self, what: &str) {
        let changed = differences(&self.before, &self.after);
        assert!(changed.is_empty(), "{what}: {changed:x?}");
    }
}

/// Checks the buffers of a read of the image from `offset` on.
fn check_read(ledger: &mut Ledger, data: &[(u64, u32)], offset: u64, ok: bool, what: &str) {
    let total: u64 = data.iter().map(|(_, len)| u64::from(*len)).sum();
    let mut at = 0;
    for (address, len) in data {
        for byte in ledger.take(*address, (*len).into()) {
            let expected = match ok {
                true => image_byte(offset + at),
                false if *byte == TORN && at < total / 2 => TORN,
                false => CANARY,
            };
            assert_eq!(*byte, expected, "{what}: byte {at} of a read");
            at += 1;
        }
    }
}

#[test]
fn virtio_blk_writes_what_a_request_gives_it_and_no_more() {
    let (mut failed, mut read) = (0, 0);
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut guest = Blk::small(torn(seed));
        // Beside the rings, which are in use.
        let end = usize::try_from(guest.ring.end()).expect("small");
        guest.bench.poke(end as u64, &vec![CANARY; blk::MEMORY - end]);
        for round in 0..4 {
            let what = format!("seed {seed}, round {round}");
            let mut pending: Vec<_> =
                (0..1 + random.below(12)).map(|_| guest.any_request(&mut random)).collect();
            let before = all_memory(&guest.bench, blk::MEMORY);
            guest.notify();
            assert!(guest.bench.executor.run(100));
            let after = all_memory(&guest.bench, blk::MEMORY);
            let mut ledger = Ledger { before, after };
            ledger.take(guest.ring.used_ring(), guest.ring.end() - guest.ring.used_ring());
            while let Some((head, written)) = guest.used() {
                let at = pending.iter().position(|request| request.head == head);
                let request = pending.swap_remove(at.expect("given back once"));
                let answer = ledger.take(request.status, 1)[0];
                assert_ne!(answer, NO_STATUS);
                let ok = answer == status::OK;
                let data: Vec<_> = request.data.iter().map(|b| (b.address, b.len)).collect();
                let expected = match request.kind {
                    request::IN => {
                        check_read(&mut ledger, &data, request.sector * 512, ok, &what);
                        if ok { request.len() + 1 } else { 0 }
                    }
                    request::GET_ID => {
                        let (mut id, mut left) = (Vec::new(), ID_LEN as u64);
                        for (address, len) in data {
                            let filled = left.min(len.into());
                            id.extend_from_slice(ledger.take(address, filled));
                            left -= filled;
                        }
                        let mut name = *b"memory\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
                        assert_eq!(id, &mut name[..id.len()]);
                        let filled = u32::try_from(id.len()).expect("small");
                        if filled == request.len() { filled + 1 } else { filled }
                    }
                    _ => 1,
                };
                assert_eq!(written, expected, "{what}: kind {}, {answer}", request.kind);
                failed += u32::from(!ok);
                read += u32::from(ok && request.kind == request::IN);
                // As new for the next one.
                for (address, len) in request.data.iter().map(|b| (b.address, b.len)) {
                    guest.bench.poke(address, &vec![CANARY; usize::try_from(len).expect("small")]);
                }
            }
            assert!(pending.is_empty(), "{what}: not all were answered");
            ledger.nothing_else(&what);
        }
    }
    assert!(failed > 500 && read > 500, "{failed} failed, {read} read");
}

#[test]
fn ahci_writes_what_a_command_gives_it_and_no_more() {
    let (mut failed, mut read) = (0, 0);
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let mut guest = Sata::new(torn(seed));
        guest.bench.poke(0x4000, &vec![CANARY; ahci::MEMORY - 0x4000]);
        for round in 0..12 {
            let what = format!("seed {seed}, round {round}");
            let slot = u32::try_from(random.below(32)).expect("small");
            let queued = random.one_in(2);
            guest.set(port::CMD, PortCommand::FRE.bits());
            guest.run();
            guest.set(port::CMD, (PortCommand::FRE | PortCommand::ST).bits());
            let issued = guest.any_command(slot, queued, &mut random);
            let before = all_memory(&guest.bench, ahci::MEMORY);
            guest.run();
            let after = all_memory(&guest.bench, ahci::MEMORY);
            let mut ledger = Ledger { before, after };
            let ok = guest.get(port::TFD) & ERROR == 0;
            assert!(ok || guest.get(port::CI) | guest.get(port::SACT) != 0);
            let header = LIST + 32 * u64::from(slot);
            let moved = ledger.take(header + 4, 4).to_vec();
            let moved = u32::from_le_bytes(moved.try_into().expect("four bytes"));
            // PRDBC counts for commands that are not queued (4.2.2).
            assert_eq!(moved, if ok && !queued { issued.bytes } else { 0 }, "{what}: PRDBC");
            ledger.take(RECEIVED, 0x60);
            match issued.code {
                command::IDENTIFY_DEVICE if ok => {
                    let mut page = Vec::new();
                    for (address, len) in &issued.data {
                        page.extend_from_slice(ledger.take(*address, (*len).into()));
                    }
                    // The sum of all bytes is 0 (ACS-4, word 255).
                    assert_eq!(page.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)), 0);
                }
                _ if issued.reads() => {
                    check_read(&mut ledger, &issued.data, issued.lba * 512, ok, &what);
                    read += u32::from(ok);
                }
                _ => {}
            }
            failed += u32::from(!ok);
            ledger.nothing_else(&what);
            if !ok {
                // The log that says which queued command it was has to be read first (ACS-4, NCQ).
                let log = crate::ahci::sectors(command::READ_LOG_EXT, slot, 0x10, 1);
                guest.set(port::CMD, PortCommand::FRE.bits());
                guest.run();
                guest.set(port::CMD, (PortCommand::FRE | PortCommand::ST).bits());
                let prd = paraslot_spec::ahci::Prd::new(crate::ahci::data_at(slot), 512);
                guest.prepare(slot, &log, &[prd]);
                guest.issue(1 << slot, false);
                guest.run();
            }
            for (address, len) in issued.data.iter().copied().chain([(ahci::data_at(slot), 512)]) {
                guest.bench.poke(address, &vec![CANARY; usize::try_from(len).expect("small")]);
            }
        }
    }
    assert!(failed > 30 && read > 100, "{failed} failed, {read} read");
}
