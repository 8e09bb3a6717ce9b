//! What a guest might do to harm: queues stop, and their driver is told.

use super::*;

impl Machine {
    /// What is known of a queue, after the driver has been told that one has stopped.
    fn error(&mut self, events: Events) -> (u8, u32) {
        self.run();
        assert_eq!(self.ecr(), events);
        let event = self.setup.tx + self.setup.rx;
        assert!(self.messages().contains(&(event as u16)));
        assert_eq!(self.order(command::GET_QUEUE_STATUS), 0);
        let status = match events {
            Events::TQERR => self.tx_desc(0).status,
            _ => self.rx_desc(0).status,
        };
        // Another queue goes on, and so does this one once it was activated anew.
        self.start();
        self.send(&frame(60), 0, 0);
        self.arrive(&frame(60));
        assert_eq!((self.sent().len(), self.clean(0).is_some()), (1, true));
        self.order(command::GET_QUEUE_STATUS);
        assert_eq!((self.tx_desc(0).status, self.rx_desc(0).status), Default::default());
        (status.stopped, status.error.get())
    }
}

// CVE-2016-6834, CVE-2016-6888, CVE-2020-16092, QEMU 283f0a05e2: descriptors that make no packet stop
// their queue.
#[test]
fn descriptors_that_make_no_packet_stop_the_queue() {
    let plain = |flags| descriptor(TX_DATA, 60, flags);
    let cases: [(Vec<TxDesc>, u32); 6] = [
        // The next is not the device's.
        (vec![plain(0)], queue_error::NOEOP),
        (vec![plain(0); 3], queue_error::NOEOP),
        // A ring full of them.
        (vec![plain(0); RING as usize], queue_error::BIG_PKT),
        (vec![descriptor(TX_DATA, 60 | txd::DTYPE, ALONE)], queue_error::DESC_NOT_SPT),
        (vec![plain(0), descriptor(TX_DATA, 60 | txd::DTYPE, ALONE)], queue_error::DESC_NOT_SPT),
        (vec![plain(ALONE | txd::OM_ENCAP)], queue_error::DESC_NOT_SPT),
    ];
    for (descriptors, error) in cases {
        let mut machine = Machine::new();
        machine.transmit(&descriptors);
        assert_eq!((machine.sent(), machine.completed(0)), (vec![], None));
        let before = machine.bytes(0, MEMORY);
        machine.ring(0);
        machine.run();
        assert!(machine.bytes(0, MEMORY) == before, "it has stopped");
        assert_eq!(machine.error(Events::TQERR), (1, error));
    }
}

#[test]
fn a_packet_has_a_greatest_number_of_descriptors() {
    for (count, sent) in [(64, true), (65, false)] {
        let mut machine = Machine::off(Setup { mtu: 9000, ..Setup::default() });
        let shared = machine.prepare();
        let mut desc = machine.tx_desc(0);
        desc.conf.tx_ring_size = 128.into();
        machine.fill(QUEUES, desc.as_bytes());
        machine.tx[0][0].size = 128;
        assert_eq!(machine.activate(&shared), 0);
        machine.fill(TX_DATA, &frame(65 * 20));
        let descriptors: Vec<_> = (0..count)
            .map(|at| descriptor(TX_DATA + 20 * at, 20, if at + 1 == count { ALONE } else { 0 }))
            .collect();
        machine.transmit(&descriptors);
        assert_eq!(machine.sent().len(), usize::from(sent));
        machine.order(command::GET_QUEUE_STATUS);
        let error = machine.tx_desc(0).status.error.get();
        assert_eq!(error, if sent { 0 } else { queue_error::BIG_PKT });
    }
}

#[test]
fn buffers_that_are_none_stop_the_queue() {
    for (ring, flags) in [(0, 0), (0, 127), (1, rxd::BTYPE_BODY), (1, 2048)] {
        let mut machine = Machine::with(Setup { mtu: 9000, ..Setup::default() });
        let place = RX_RINGS_AT + 0x1000 * ring;
        machine.fill(place, RxDesc::new(RX_DATA, flags | rxd::GEN).as_bytes());
        let before = machine.bytes(RX_RINGS_AT + 0x2000, 64);
        machine.arrive(&frame(3000));
        assert_eq!(machine.bytes(RX_RINGS_AT + 0x2000, 64), before);
        let small = flags & rxd::LEN < 128;
        let error = if small { queue_error::SMALL_BUF } else { queue_error::DESC_NOT_SPT };
        assert_eq!(machine.error(Events::RQERR), (1, error), "{ring} {flags:#x}");
    }
}

// A ring of body buffers alone: the look for a head is bounded, and takes no processor time for itself.
#[test]
fn a_ring_without_heads_is_as_good_as_empty() {
    let mut machine = Machine::with(Setup { bodies: 1000, ..Setup::default() });
    machine.arrive(&frame(60));
    assert!(machine.clean(0).is_some());
    machine.arrive(&frame(60));
    assert_eq!((machine.clean(0), machine.host.waiting(0)), (None, 1));
    assert_eq!(machine.executor.step_all(), Progress::Idle);
    assert_eq!(machine.ecr(), Events::empty());
}

#[test]
fn events_are_cleared_one_by_one() {
    let mut machine = Machine::with(Setup { tx: 2, ..Setup::default() });
    machine.transmit(&[descriptor(TX_DATA, 60, 0)]);
    machine.control.set_link(false);
    machine.run();
    assert_eq!(machine.ecr(), Events::LINK | Events::TQERR);
    machine.write_vd(ECR, Events::LINK.bits());
    assert_eq!(machine.ecr(), Events::TQERR);
    machine.write_vd(ECR, u32::MAX);
    assert_eq!(machine.ecr(), Events::empty());
    // The other queue goes on.
    machine.control.set_link(true);
    machine.fill(TX_DATA, &frame(60));
    machine.put(1, &[descriptor(TX_DATA, 60, ALONE)]);
    machine.ring(1);
    machine.run();
    assert_eq!((machine.sent().len(), machine.completed(1)), (1, Some(0)));
}
