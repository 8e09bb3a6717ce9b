//! Devices that reach themselves: buffers and rings that lie where their own registers are.
//!
//! CVE-2023-0330 and its family. A device here has no way to the bus, and is held exclusively while
//! it is called (`&mut dyn PciDevice`), so that it cannot be entered twice; guest memory is memory and
//! nothing else. What remains is that such an address must cost an error, and the registers nothing.

mod nic;
mod scsi;
mod vmxnet3;

use std::sync::Arc;

use paraslot_spec::ahci::{ABAR, Prd, port};
use paraslot_spec::ata::command;
use paraslot_spec::pci::header;
use paraslot_spec::virtio_blk::{request, status};
use paraslot_tests::bench::Bench;
use paraslot_virtio::testing::Buffer;

use crate::ahci::{ERROR, LIST, Sata, data_at, sectors};
use crate::blk::{self, Blk};
use crate::support::image;

/// Where the guest has put a BAR.
fn address(bench: &mut Bench, bar: u8) -> u64 {
    let mut low = [0; 4];
    bench.device.config_read(header::BAR0 + 4 * u16::from(bar), &mut low);
    let address = u64::from(u32::from_le_bytes(low) & !0xf);
    let state = bench.device.bars()[usize::from(bar)].expect("it is there");
    assert!(state.enabled && state.address == address && address != 0);
    address
}

fn registers(bench: &mut Bench, bar: u8, offset: u64) -> Vec<u8> {
    let mut data = vec![0; 256];
    bench.device.bar_read(bar, offset, &mut data);
    data
}

#[test]
fn virtio_blk_does_not_reach_its_own_registers() {
    let mut guest = Blk::small(Arc::new(image()));
    let (bar, common) = guest.place_of(paraslot_spec::virtio::pci::cfg_type::COMMON);
    let base = address(&mut guest.bench, bar);
    let before = registers(&mut guest.bench, bar, common);
    for offset in [0, common, 0x1000, 0x4000, 0x8000] {
        let at = base + offset;
        let read = guest.add(request::IN, 0, &[Buffer::writable(at, 512)], false);
        let write = guest.add(request::OUT, 600, &[Buffer::readable(at, 512)], true);
        guest.notify();
        assert!(guest.bench.executor.run(10));
        assert_eq!(guest.used(), Some((read.head, 0)));
        assert_eq!(guest.used(), Some((write.head, 1)));
        assert_eq!(guest.status_of(&read), status::IOERR);
        assert_eq!(guest.status_of(&write), status::IOERR);
    }
    assert_eq!(registers(&mut guest.bench, bar, common), before);
    // The status byte on the status register, and then a table and the rings there.
    let (kind, _, _) = guest.frame(request::FLUSH, 0);
    guest.ring.add(&[kind, Buffer::writable(base + common + 20, 1)]);
    assert!(guest.bench.executor.run(10));
    assert!(guest.status().bits() & 0x4f == 0x4f, "DEVICE_NEEDS_RESET, and the rest as it was");
    for field in 0..3 {
        guest.reset();
        let ring = &guest.ring;
        let mut places = [ring.descriptor_table(), ring.avail_ring(), ring.used_ring()];
        places[field] = base + common;
        guest.agree();
        guest.enable_queue(0, places[0], places[1], places[2]);
        guest.set_status(0xf);
        assert!(guest.bench.executor.run(10));
        assert_eq!(guest.status().bits(), 0x4f, "ring {field}");
    }
    guest.reset();
    guest.start();
    let read = guest.add(request::IN, 0, &[Buffer::writable(blk::DATA, 512)], false);
    assert!(guest.bench.executor.run(10));
    assert_eq!(guest.status_of(&read), status::OK);
}

#[test]
fn ahci_does_not_reach_its_own_registers() {
    let mut guest = Sata::new(Arc::new(image()));
    let base = address(&mut guest.bench, ABAR);
    let recover = |guest: &mut Sata| {
        guest.set(port::CMD, 0x10);
        guest.run();
        guest.set(port::IS, u32::MAX);
        guest.set(port::CMD, 0x11);
    };
    let generic = registers(&mut guest.bench, ABAR, 0)[0x0c..].to_vec();
    // PxCI as a data buffer: HBFS, and nothing is issued.
    for offset in [0x138, 0, 0x100] {
        for code in [command::READ_DMA_EXT, command::WRITE_DMA_EXT] {
            let prd = Prd::new(base + offset, 512);
            guest.prepare(2, &sectors(code, 2, 0, 1), &[prd]);
            guest.issue(1 << 2, false);
            guest.run();
            assert_eq!((guest.get(port::CI), guest.get(port::IS) >> 29 & 1), (1 << 2, 1));
            recover(&mut guest);
        }
    }
    // The command list, then the received FIS area on the registers.
    let low = u32::try_from(base).expect("32 bits");
    for register in [port::CLB, port::FB] {
        guest.set(register, low);
        guest.prepare(0, &sectors(command::READ_DMA_EXT, 0, 0, 1), &[Prd::new(data_at(0), 512)]);
        guest.issue(1, false);
        guest.run();
        assert_eq!((guest.get(port::CI), guest.get(port::IS) >> 29 & 1), (1, 1));
        recover(&mut guest);
        let list = u32::try_from(LIST).expect("small");
        guest.set(port::CLB, list);
        guest.set(port::FB, 0x2000);
    }
    assert_eq!(registers(&mut guest.bench, ABAR, 0)[0x0c..0x100], generic[..0xf4]);
    guest.prepare(0, &sectors(command::READ_DMA_EXT, 0, 0, 1), &[Prd::new(data_at(0), 512)]);
    guest.issue(1, false);
    guest.run();
    assert_eq!((guest.get(port::CI), guest.get(port::TFD) & ERROR), (0, 0));
}
