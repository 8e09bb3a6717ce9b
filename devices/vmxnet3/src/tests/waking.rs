//! Who wakes whom: doorbells, thresholds and requests for them, counted.

use super::*;

impl Machine {
    fn threshold(&self) -> u32 {
        self.tx_desc(0).ctrl.tx_threshold.get()
    }

    /// A packet of a driver that rings only if it must.
    fn offer(&mut self) -> bool {
        self.put(0, &[descriptor(TX_DATA, 60, ALONE)]);
        let must = self.threshold() <= 1;
        if must {
            self.ring(0);
        }
        must
    }
}

#[test]
fn a_batch_is_one_doorbell_one_wake_up_and_one_interrupt() {
    let mut machine = Machine::new();
    machine.fill(TX_DATA, &frame(60));
    machine.wakes();
    for round in 1..=10 {
        for _ in 0..16 {
            machine.put(0, &[descriptor(TX_DATA, 60, ALONE)]);
        }
        machine.ring(0);
        assert_eq!(machine.wakes(), 1);
        // All of it in one round of the worker.
        let _ = machine.executor.step_all();
        assert_eq!((machine.sent().len(), machine.messages()), (16, vec![0]));
        assert_eq!(machine.host.commits(0), round);
        machine.run();
        machine.write_pt(IMR, 0);
    }
}

// A worker that finds several packets tells the driver not to ring, and to ring again before it sleeps.
#[test]
fn a_driver_rings_only_for_a_worker_that_sleeps() {
    let mut machine = Machine::new();
    machine.fill(TX_DATA, &frame(60));
    assert_eq!(machine.threshold(), 1);
    assert!(machine.offer());
    machine.run();
    assert_eq!(machine.threshold(), 1, "one packet is no traffic");
    assert!(machine.offer() && machine.offer());
    let _ = machine.executor.step_all();
    assert!(machine.threshold() > 1 << 20);
    machine.sent();
    for _ in 0..20 {
        assert!(!machine.offer());
        let _ = machine.executor.step_all();
        assert_eq!(machine.sent().len(), 1, "found without a ring");
    }
    machine.run();
    assert_eq!(machine.threshold(), 1);
    assert!(machine.offer());
    machine.run();
    assert_eq!(machine.sent().len(), 1);
}

// A packet that was queued while the threshold was still high, and was not yet to be seen when the
// worker looked for the last time, is found by a look that the worker takes a little later.
#[test]
fn a_packet_that_was_held_back_is_found() {
    let mut machine = Machine::new();
    machine.fill(TX_DATA, &frame(60));
    machine.put(0, &[descriptor(TX_DATA, 60, ALONE)]);
    machine.put(0, &[descriptor(TX_DATA, 60, ALONE)]);
    machine.ring(0);
    machine.run();
    assert_eq!((machine.sent().len(), machine.threshold()), (2, 1));
    assert_eq!(machine.clock.next(), Some(Duration::from_micros(100)));
    machine.put(0, &[descriptor(TX_DATA, 60, ALONE)]);
    // The timer's source wakes the worker.
    machine.clock.advance(Duration::from_micros(100));
    machine.run();
    assert_eq!(machine.sent().len(), 1);
    assert_eq!(machine.clock.next(), None, "once is enough");
}

// A worker that is awake is not woken.
#[test]
fn doorbells_of_one_that_is_awake_cost_nothing() {
    let mut machine = Machine::new();
    machine.wakes();
    for _ in 0..5 {
        machine.ring(0);
        machine.write_pt(RXPROD, 0);
    }
    assert_eq!(machine.wakes(), 1);
    machine.fill(TX_DATA, &frame(60));
    machine.put(0, &[descriptor(TX_DATA, 60, ALONE)]);
    let _ = machine.executor.step_all();
    machine.ring(0);
    assert_eq!(machine.wakes(), 0);
}

#[test]
fn buffers_are_rung_for_only_when_there_are_none() {
    let mut machine = Machine::new();
    let asked = |machine: &Machine| machine.rx_desc(0).ctrl.update_rx_prod != 0;
    for _ in 0..100 {
        machine.arrive(&frame(60));
        assert!(!asked(&machine));
        machine.clean(0).unwrap();
    }
    for _ in 0..40 {
        machine.arrive(&frame(60));
    }
    // 31 buffers; nine frames wait where they are.
    assert!(asked(&machine));
    assert_eq!(machine.host.waiting(0), 9);
    machine.wakes();
    let mut got = 0;
    while machine.clean(0).is_some() {
        got += 1;
    }
    assert_eq!(got, 31);
    machine.write_pt(RXPROD, 0);
    assert_eq!(machine.wakes(), 1);
    machine.run();
    assert!(!asked(&machine));
    assert_eq!(std::iter::from_fn(|| machine.clean(0)).count(), 9);
    assert_eq!(machine.statistics().no_guest_buffers, 0);
}

// A driver that does not ring, or looked too early whether it must, is found out.
#[test]
fn buffers_are_found_without_a_ring() {
    let mut machine = Machine::new();
    for _ in 0..40 {
        machine.arrive(&frame(60));
    }
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let next = machine.clock.next().unwrap();
        pauses.push(next.as_micros());
        machine.clock.advance(next);
        machine.run();
    }
    assert_eq!(pauses[..8], [100, 200, 400, 800, 1600, 3200, 6400, 10_000]);
    assert_eq!(pauses[8..], [10_000; 4]);
    while machine.clean(0).is_some() {}
    machine.clock.advance(machine.clock.next().unwrap());
    machine.run();
    assert_eq!(std::iter::from_fn(|| machine.clean(0)).count(), 9);
    assert_eq!(machine.clock.next(), None);
}

// A frame for which there are some buffers but not enough waits for the others, and not for ever.
#[test]
fn a_frame_waits_for_its_buffers() {
    let mut machine = Machine::with(Setup { mtu: 9000, ..Setup::default() });
    // Three body buffers each, of 31.
    for _ in 0..11 {
        machine.arrive(&frame(8192));
    }
    assert_eq!((machine.host.waiting(0), machine.statistics().received_frames), (0, 10));
    machine.advance(10_000);
    // It is given up, and what follows is not held up.
    machine.host.push(0, &frame(60));
    machine.advance(10_000);
    machine.run();
    assert_eq!(machine.statistics().no_guest_buffers, 1);
    assert_eq!(machine.statistics().received_frames, 11);
    let lengths: Vec<_> =
        std::iter::from_fn(|| machine.clean(0)).map(|got| got.bytes.len()).collect();
    assert_eq!((lengths.len(), lengths[10]), (11, 60));
    // One that finds them in time is delivered.
    for _ in 0..11 {
        machine.arrive(&frame(8192));
    }
    machine.advance(5_000);
    assert!(machine.clean(0).is_some());
    machine.write_pt(RXPROD2, 0);
    machine.run();
    assert_eq!(std::iter::from_fn(|| machine.clean(0)).count(), 10);
}

// Nothing is looked for that could not be received: the worker sleeps while the link is down.
#[test]
fn buffers_are_not_looked_for_without_a_link() {
    let mut machine = Machine::off(Setup::default());
    let shared = machine.prepare();
    assert_eq!(machine.activate(&shared), 0);
    machine.run();
    assert!(machine.clock.next().is_some(), "it looks for buffers");
    machine.control.set_link(false);
    machine.advance(1000);
    assert_eq!(machine.clock.next(), None);
    machine.control.set_link(true);
    machine.give(0, 0, 3);
    machine.arrive(&frame(60));
    assert_eq!(machine.clean(0).unwrap().bytes, frame(60));
}
