//! vmxnet3: buffers, packets, rings and what the driver shares where the device's registers are.

use paraslot_spec::vmxnet3::registers::{CMD, DSAL, IMR, RXPROD, TXPROD};
use paraslot_spec::vmxnet3::{MSIX_BAR, PT_BAR, VD_BAR, command, rcd, rxd};

use super::{address, registers};
use crate::net::frame;
use crate::nic::Adapter;
use crate::vmxnet3::{LAST, PLACES, Setup, Vmx, descriptor};

/// All registers whose reading changes nothing.
fn seen(guest: &mut Vmx) -> Vec<Vec<u8>> {
    let mut seen = vec![registers(&mut guest.bench, MSIX_BAR, 0)];
    for register in [IMR, TXPROD, RXPROD] {
        seen.push(registers(&mut guest.bench, PT_BAR, register));
    }
    seen.push(registers(&mut guest.bench, VD_BAR, DSAL)[..8].to_vec());
    seen
}

#[test]
fn vmxnet3_does_not_reach_its_own_registers() {
    let mut guest = Vmx::new();
    let places: Vec<u64> = [(PT_BAR, TXPROD), (PT_BAR, IMR), (VD_BAR, CMD), (MSIX_BAR, 0)]
        .into_iter()
        .map(|(bar, register)| address(&mut guest.bench, bar) + register)
        .collect();
    let there = places.clone();
    guest.start();
    guest.give_all(move |ring, index| {
        let place = there[usize::try_from(index).expect("small") % there.len()];
        (place, 2048 | if ring == 1 { rxd::BTYPE_BODY } else { 0 })
    });
    let before = seen(&mut guest);
    // Frames into registers: each is told of as wrong.
    let lost = guest.statistics().receive_errors;
    for _ in 0..places.len() {
        guest.port.deliver(&frame(100));
    }
    guest.run();
    for _ in &places {
        let arrived = guest.arrived().expect("it is told of");
        assert_ne!(arrived.completions[0].len.get() & rcd::ERR, 0);
    }
    assert_eq!(guest.statistics().receive_errors, lost + places.len() as u64);
    assert_eq!(guest.statistics().received_frames, 0);
    // Packets out of registers: lost, and completed.
    for place in &places {
        guest.bench.poke(PLACES, &frame(60));
        let alone = guest.put(&[descriptor(*place, 100, LAST)]);
        let second = [descriptor(PLACES, 60, 0), descriptor(*place, 600, LAST)];
        let behind = guest.put(&second) + 1;
        guest.kick();
        guest.run();
        assert_eq!(guest.sent(), [alone, behind]);
    }
    assert!(guest.port.take_sent().is_empty());
    assert_eq!(guest.statistics().send_invalid, 2 * places.len() as u64);
    assert_eq!(seen(&mut guest), before, "a register was written");
    // Rings, queue descriptors and what is shared: refused.
    for place in [places[0] & !0xfff, places[2] & !0xfff] {
        type Change = fn(&mut Setup, u64);
        let changes: [Change; 6] = [
            |setup, place| setup.tx.conf.tx_ring_base_pa = place.into(),
            |setup, place| setup.tx.conf.comp_ring_base_pa = place.into(),
            |setup, place| setup.rx.conf.rx_ring_base_pa[0] = place.into(),
            |setup, place| setup.rx.conf.rx_ring_base_pa[1] = place.into(),
            |setup, place| setup.rx.conf.comp_ring_base_pa = place.into(),
            |setup, place| setup.shared.dev_read.misc.queue_desc_pa = place.into(),
        ];
        for change in changes {
            let mut setup = Setup::default();
            change(&mut setup, place);
            assert_ne!(guest.start_with(&setup), 0);
        }
        guest.prepare(&Setup::default());
        guest.vd(DSAL, u32::try_from(place).expect("32 bits"));
        assert_ne!(guest.order(command::ACTIVATE_DEV), 0);
    }
    guest.port.drain();
    guest.start();
    guest.works();
}
