//! What traffic costs: exits, wake-ups and interrupts, counted.

use super::*;

impl Machine {
    /// Times that the worker's eventfd was written since this was last called.
    fn wakes(&self) -> u64 {
        self.nic.shared.bell.event().read().unwrap_or(0)
    }
}

#[test]
fn a_batch_of_32_is_one_exit_one_wake_up_and_one_interrupt() {
    let mut machine = Machine::new();
    machine.transmit_ring(TX_RING, 256);
    machine.write(IMS, Cause::TXDW.bits());
    machine.fill(TX_DATA, &frame(60));
    machine.run();
    machine.wakes();
    for round in 1..=10 {
        machine.put(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE); 32]);
        machine.write(TDT, machine.tdt);
        assert_eq!(machine.wakes(), 1);
        // All of it in one round of the worker.
        let _ = machine.executor.step_all();
        assert_eq!((machine.sent().len(), machine.rises()), (32, round));
        machine.run();
        machine.causes();
    }
    assert_eq!(machine.host.commits(0), 10);
}

#[test]
fn a_worker_that_is_awake_is_not_woken() {
    let mut machine = Machine::new();
    machine.fill(TX_DATA, &frame(60));
    machine.run();
    machine.wakes();
    for _ in 0..5 {
        machine.put(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
        machine.write(TDT, machine.tdt);
    }
    assert_eq!(machine.wakes(), 1, "once is enough");
    let _ = machine.executor.step_all();
    machine.put(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
    machine.write(TDT, machine.tdt);
    assert_eq!(machine.wakes(), 0, "it has not gone back to sleep");
    machine.run();
    assert_eq!(machine.sent().len(), 6);
}

#[test]
fn receive_buffers_wake_the_worker_only_if_it_has_none() {
    let mut machine = Machine::new();
    machine.run();
    machine.wakes();
    for _ in 0..5 {
        machine.arrive(&frame(60));
        machine.clean().unwrap();
    }
    assert_eq!(machine.wakes(), 0);
    for _ in 0..20 {
        machine.host.push(0, &frame(60));
    }
    machine.run();
    machine.clean().unwrap();
    assert_eq!(machine.wakes(), 1);
}

// An interrupt that a vCPU's own write has to put off needs the worker's timer, and nothing else does.
#[test]
fn a_throttled_interrupt_wakes_the_worker_to_set_its_timer() {
    let mut machine = Machine::new();
    machine.write(ITR, 1000);
    machine.write(IMS, Cause::LSC.bits());
    machine.run();
    machine.wakes();
    machine.write(ICS, Cause::LSC.bits());
    machine.causes();
    assert_eq!((machine.rises(), machine.wakes()), (1, 0));
    machine.write(IMC, u32::MAX);
    machine.write(ICS, Cause::LSC.bits());
    assert_eq!(machine.wakes(), 0);
    machine.write(IMS, Cause::LSC.bits());
    assert_eq!((machine.rises(), machine.wakes()), (1, 1));
    machine.run();
    assert_eq!(machine.clock.next(), Some(Duration::from_micros(256)));
}

// A driver's interrupt handler: one read. Nothing that it touches there waits for the worker.
#[test]
fn a_received_frame_is_an_interrupt_and_a_read() {
    let mut machine = Machine::new();
    machine.write(IMS, Cause::RXT0.bits());
    for round in 1..=5 {
        machine.arrive(&frame(60));
        assert_eq!((machine.level(), machine.rises()), (true, round));
        assert_eq!(machine.causes(), Cause::RXT0);
        assert!(!machine.level());
        machine.clean().unwrap();
    }
}

// An idle adapter asks for nothing: no timer, no polling.
#[test]
fn an_idle_adapter_sleeps() {
    let mut machine = Machine::new();
    machine.run();
    assert_eq!(machine.clock.next(), None);
    machine.write(RDTR, 10);
    machine.arrive(&frame(60));
    assert_eq!(machine.clock.next(), Some(Duration::from_nanos(10 * 1024)));
    machine.advance(20_000);
    assert_eq!(machine.clock.next(), None);
}
