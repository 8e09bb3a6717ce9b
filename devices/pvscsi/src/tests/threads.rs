//! With the worker on a thread: no wake-up is lost, whoever kicks, and whoever does not.

use std::time::Instant;

use paraslot_device::{ThreadExecutor, ThreadOptions};

use super::*;

/// Waits for what must come; the limit is there to fail rather than hang.
fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "it did not come");
        std::thread::yield_now();
    }
}

fn machine(busy_poll: Duration, unit: Arc<LogicalUnit>) -> (Machine, Arc<ThreadExecutor>) {
    let options = ThreadOptions { busy_poll, ..ThreadOptions::default() };
    let executor = Arc::new(ThreadExecutor::new("pvscsi-test", &options).unwrap());
    let bus = bus();
    bus.attach(at(0), unit).unwrap();
    let manual = ManualExecutor::new();
    let mut machine = Machine::on_executor(bus, Options::default(), manual, executor.clone());
    machine.start(Mode::Msix);
    machine.use_threshold();
    for context in 1..=8 {
        machine.submit(&request(context, &[opcode::TEST_UNIT_READY, 0, 0, 0, 0, 0]));
        wait_until(|| !machine.reap().is_empty());
    }
    (machine, executor)
}

/// Carries out requests, `depth` at a time, with a kick by `kick` where the threshold asks for it.
fn drive(machine: &mut Machine, depth: u32, count: u32, kick: impl Fn(&mut Machine)) {
    let (mut issued, mut done) = (0, 0);
    while done < count {
        while issued < count && issued - done < depth {
            machine.put(&read10(u64::from(issued) + 1, issued % 100, 1));
            issued += 1;
            // The barrier that Linux's driver does not have, so that this test can ask for much.
            std::sync::atomic::fence(Ordering::SeqCst);
            let waiting = machine.produced.wrapping_sub(machine.state(state::REQUEST_CONSUMER));
            if waiting >= machine.state(state::CALL_THRESHOLD) {
                kick(machine);
            }
        }
        wait_until(|| {
            let ended = machine.reap();
            done += ended.len() as u32;
            assert!(ended.iter().all(|c| c.host_status.get() == 0 && c.scsi_status.get() == GOOD));
            !ended.is_empty()
        });
    }
}

#[test]
fn every_request_completes() {
    for busy_poll in [Duration::ZERO, Duration::from_micros(20)] {
        let (mut machine, _executor) = machine(busy_poll, unit(numbered()));
        let doorbell = &machine.device.layout().doorbells[1];
        let event = doorbell.event.try_clone().unwrap();
        for depth in [1, 4, 32] {
            drive(&mut machine, depth, 1000, |machine| machine.write(register::KICK_RW_IO, 0));
            drive(&mut machine, depth, 1000, |_| event.write(1).unwrap());
            machine.device.pause().unwrap();
            machine.device.resume().unwrap();
        }
        machine.device.reset();
    }
}

#[test]
fn a_vcpu_and_the_worker_do_rounds_in_turn() {
    let backend = GatedBackend::new(numbered());
    let gate = backend.gate();
    gate.open();
    let (mut machine, _executor) = machine(Duration::ZERO, unit(backend));
    gate.close();
    for round in 0..50u64 {
        for context in 1..=8 {
            machine.submit(&read10(round * 8 + context, 1, 1));
        }
        if round % 2 == 0 {
            wait_until(|| gate.held() == 8);
        }
        let context = round * 8 + 3;
        assert_eq!(machine.abort(context, 0), 0);
        assert_eq!(machine.ended(), [(context, host_status::ABORTQUEUE)]);
        assert_eq!(machine.order(command::RESET_BUS, &[]), 0);
        let ended = machine.ended();
        assert_eq!(ended.len(), 7);
        assert!(ended.iter().all(|(_, status)| *status == host_status::BUSRESET));
        machine.submit(&request(1, &[opcode::TEST_UNIT_READY, 0, 0, 0, 0, 0]));
        wait_until(|| !machine.reap().is_empty());
    }
    gate.open();
    let kick = |machine: &mut Machine| machine.write(register::KICK_RW_IO, 0);
    drive(&mut machine, 8, 100, kick);
}

#[test]
fn hot_plug_is_told() {
    let (mut machine, _executor) = machine(Duration::ZERO, unit(numbered()));
    machine.set_up_messages();
    for round in 1..=20u32 {
        if round % 2 == 1 {
            machine.bus.attach(at(3), unit(numbered())).unwrap();
        } else {
            let _ = machine.bus.detach(at(3));
        }
        wait_until(|| machine.state(state::MESSAGE_PRODUCER) == round);
        machine.set_state(state::MESSAGE_CONSUMER, round);
    }
}
