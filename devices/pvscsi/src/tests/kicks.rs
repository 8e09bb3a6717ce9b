//! When a driver has to kick.

use paraslot_spec::pvscsi::command_status;

use super::*;

#[test]
fn a_kick_a_request_at_depth_1() {
    let mut machine = Machine::new();
    machine.use_threshold();
    for context in 1..=100 {
        machine.submit(&read10(context, 0, 1));
        let _ = machine.executor.step(0);
        // One request is no reason to go on looking.
        assert_eq!(machine.state(state::CALL_THRESHOLD), 1);
        machine.run();
        assert_eq!(machine.ended(), [(context, 0)]);
    }
    assert_eq!(machine.kicks, 100);
}

/// Keeps 32 requests under way until 3,200 are done; returns how often the driver had to kick.
fn kicks_at_depth_32(machine: &mut Machine, gate: Option<&Gate>) -> u32 {
    let mut done = 0;
    let mut context = 0;
    let mut outstanding = 0;
    while done < 3200 {
        while outstanding < 32 {
            context += 1;
            machine.submit(&read10(context, 0, 1));
            outstanding += 1;
        }
        // A device that has slept is woken by nothing but a kick, or its backend.
        let _ = machine.executor.step(0);
        if let Some(gate) = gate {
            gate.release(8);
        }
        let ended = machine.reap().len() as u32;
        outstanding -= ended;
        done += ended;
    }
    machine.kicks
}

#[test]
fn hardly_a_kick_at_depth_32() {
    let mut machine = Machine::new();
    machine.use_threshold();
    let kicks = kicks_at_depth_32(&mut machine, None);
    assert!(kicks < 320, "{kicks} kicks for 3,200 requests");
    assert!(kicks > 0);
    let (mut machine, gate) = Machine::gated();
    machine.use_threshold();
    let kicks = kicks_at_depth_32(&mut machine, Some(&gate));
    assert!(kicks < 320, "{kicks} kicks for 3,200 requests");
    // Without it, each of them.
    let mut machine = Machine::new();
    assert!(kicks_at_depth_32(&mut machine, None) >= 3200);
}

// A driver goes by what it sees when it has put a request there. Whatever it sees, the request is found
// before the device sleeps, or kicked for.
#[test]
fn a_request_without_a_kick_is_found_before_the_device_sleeps() {
    let mut machine = Machine::new();
    machine.use_threshold();
    for context in 1..=4 {
        machine.submit(&read10(context, 0, 1));
        let _ = machine.executor.step(0);
    }
    assert_eq!(machine.state(state::CALL_THRESHOLD), u32::MAX, "the device is awake");
    let kicks = machine.kicks;
    machine.submit(&read10(5, 0, 1));
    assert_eq!(machine.kicks, kicks);
    machine.run();
    assert_eq!(machine.ended().len(), 5);
    assert_eq!(machine.state(state::CALL_THRESHOLD), 1, "it sleeps");
}

// What a vCPU takes while the worker sleeps does not mean that anybody goes on looking; and the worker
// is woken for what may be left to do.
#[test]
fn a_vcpu_that_takes_requests_does_not_keep_the_driver_from_kicking() {
    let mut machine = Machine::new();
    machine.use_threshold();
    machine.run();
    for context in 1..=5 {
        let _ = machine.device.shared.bell.event().read();
        machine.put(&read10(context, 0, 1));
        assert_eq!(machine.order(command::RESET_BUS, &[]), 0);
        let ended = machine.ended();
        assert!(ended.len() == 1 && ended[0].0 == context);
        assert_eq!(machine.state(state::CALL_THRESHOLD), 1);
        if context == 1 {
            assert!(machine.device.shared.bell.event().read().is_ok());
        }
    }
}

#[test]
fn the_threshold_is_there_for_those_who_asked() {
    let mut machine = Machine::new();
    machine.fill(STATE + state::CALL_THRESHOLD, &[0xaa; 4]);
    for context in 1..=8 {
        machine.submit(&read10(context, 0, 1));
        let _ = machine.executor.step(0);
    }
    machine.run();
    assert_eq!(machine.state(state::CALL_THRESHOLD), 0xaaaa_aaaa);
    machine.use_threshold();
    assert_eq!(machine.state(state::CALL_THRESHOLD), 1);
    // A driver that sets up its rings anew does not ask again (Linux's pvscsi_host_reset).
    machine.order(command::ADAPTER_RESET, &[]);
    machine.set_up_rings(PAGES);
    assert_eq!(machine.state(state::CALL_THRESHOLD), 1);
    let disable = SetupReqCall { enable: 0.into() };
    assert_eq!(machine.order(command::SETUP_REQCALLTHRESHOLD, disable.as_bytes()), 0);
    machine.set_state(state::CALL_THRESHOLD, 7);
    for context in 1..=8 {
        machine.submit(&read10(context, 0, 1));
        let _ = machine.executor.step(0);
    }
    machine.run();
    assert_eq!(machine.state(state::CALL_THRESHOLD), 7);
    assert_ne!(machine.read(register::COMMAND_STATUS), command_status::FAILED);
}

#[test]
fn kicks_by_eventfd_and_by_register_wake_the_worker() {
    let mut machine = Machine::new();
    let events: Vec<_> = machine
        .device
        .layout()
        .doorbells
        .iter()
        .map(|doorbell| doorbell.event.try_clone().unwrap())
        .collect();
    for event in events {
        // Whether it is the eventfd that the worker waits for, the tests on threads see.
        event.write(1).unwrap();
        assert_eq!(event.read().unwrap(), 1);
    }
    // The worker is asleep: a register write rings for it, any value.
    for (register, value) in [(register::KICK_RW_IO, 0), (register::KICK_NON_RW_IO, u32::MAX)] {
        machine.run();
        let _ = machine.device.shared.bell.event().read();
        assert!(machine.device.shared.bell.event().read().is_err());
        machine.write(register, value);
        assert_eq!(machine.device.shared.bell.event().read().unwrap(), 1);
        machine.run();
    }
}
