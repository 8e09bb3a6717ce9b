//! Resets, quiescence, pauses, bus mastering: nothing of before happens afterwards.

use super::*;

fn busy_machine() -> Machine {
    let mut machine = Machine::with(Setup { tx: 2, rx: 2, queues: 2, ..Setup::default() });
    machine.fill(TX_DATA, &frame(60));
    for queue in 0..2 {
        machine.put(queue, &[descriptor(TX_DATA, 60, ALONE)]);
        machine.ring(queue);
        machine.host.push(queue as u16, &frame(60));
    }
    machine
}

type Way = (&'static str, fn(&mut Machine));

/// Runs the workers and says that nothing happens.
fn assert_silent(machine: &Machine, what: &str) {
    let before = machine.bytes(0, MEMORY);
    machine.run();
    machine.advance(100_000);
    let sent: Vec<_> = (0..2).flat_map(|queue| machine.host.take_sent(queue)).collect();
    assert_eq!((sent, machine.messages()), (vec![], vec![]), "{what}");
    assert!(machine.bytes(0, MEMORY) == before && !machine.level(), "{what}");
}

// CVE-2016-6833: doorbells of a device that has been stopped.
#[test]
fn after_it_was_stopped_nothing_happens() {
    let ways: [Way; 7] = [
        ("quiesce", |machine| _ = machine.order(command::QUIESCE_DEV)),
        ("reset", |machine| _ = machine.order(command::RESET_DEV)),
        ("no address", |machine| machine.write_vd(DSAL, 0)),
        ("power", |machine| machine.nic.reset()),
        ("bus master", |machine| machine.command(pci::Command::MEMORY)),
        ("pause", |machine| machine.nic.pause().unwrap()),
        ("function level reset", |machine| {
            let at = machine.capability(pci::capability::PCI_EXPRESS).unwrap();
            machine.nic.config_write(at + pci::express::DEVICE_CONTROL, &[0, 0x80]);
        }),
    ];
    for (what, stop) in ways {
        let mut machine = busy_machine();
        stop(&mut machine);
        assert_silent(&machine, what);
        for offset in (0..4096).step_by(8).filter(|offset| *offset >= TXPROD) {
            machine.write_pt(offset, 1);
        }
        assert_silent(&machine, what);
    }
}

#[test]
fn what_was_stopped_goes_on() {
    let mut machine = busy_machine();
    machine.nic.pause().unwrap();
    machine.control.set_link(false);
    machine.control.set_link(true);
    machine.run();
    assert_eq!(machine.messages(), [0; 0]);
    machine.nic.resume().unwrap();
    machine.run();
    let mut messages = machine.messages();
    messages.sort_unstable();
    assert_eq!(messages, [0, 1, 2, 3, 4]);
    let mut machine = busy_machine();
    machine.command(pci::Command::MEMORY);
    machine.run();
    machine.command(pci::Command::MEMORY | pci::Command::BUS_MASTER);
    machine.run();
    assert_eq!((machine.host.take_sent(0).len(), machine.host.take_sent(1).len()), (1, 1));
    assert!(machine.clean(0).is_some() && machine.clean(1).is_some());
}

#[test]
fn a_reset_forgets() {
    let mut machine = Machine::new();
    machine.write_vd(MACL, 0x0403_0202);
    machine.write_vd(MACH, 0x0605);
    machine.send(&frame(60), 0, 0);
    machine.order(command::RESET_DEV);
    assert_eq!((machine.read_vd(MACL), machine.read_vd(MACH)), (0x3322_1102, 0x5544));
    assert_eq!((machine.read_vd(DSAL), machine.read_vd(CMD)), (0, 0));
    machine.start();
    machine.order(command::GET_STATS);
    assert_eq!(machine.tx_desc(0).stats.ucast_pkts.get(), 1, "counts go on");
    machine.nic.reset();
    assert_eq!(machine.read(PT_BAR, IMR), 1);
    machine.command(pci::Command::MEMORY | pci::Command::BUS_MASTER);
    machine.enable_messages();
    machine.start();
    machine.order(command::GET_STATS);
    assert_eq!(machine.tx_desc(0).stats, TxStats::default());
}

// A frame that waits for buffers, and a packet that waits for the backend, go with the activation.
#[test]
fn what_waits_is_forgotten() {
    let mut machine = Machine::with(Setup { mtu: 9000, ..Setup::default() });
    machine.host.set_room(0, Some(0));
    machine.send(&frame(60), 0, 0);
    // Of 31 body buffers each takes three, and the last four.
    for _ in 0..10 {
        machine.arrive(&frame(8192));
    }
    machine.arrive(&frame(9000));
    assert_eq!((machine.host.waiting(0), machine.statistics().received_frames), (0, 10));
    machine.order(command::QUIESCE_DEV);
    machine.host.set_room(0, None);
    machine.start();
    machine.run();
    assert_eq!((machine.sent(), machine.clean(0)), (vec![], None));
    machine.arrive(&frame(61));
    assert_eq!(machine.clean(0).unwrap().bytes, frame(61));
}

#[test]
fn a_device_that_goes_leaves_memory_alone() {
    let machine = busy_machine();
    let Machine { nic, memory, executor, host, control, .. } = machine;
    drop(nic);
    let mut before = vec![0; MEMORY];
    memory.read_slice(&mut before, GuestAddress(0)).unwrap();
    executor.run(100);
    let mut after = vec![0; MEMORY];
    memory.read_slice(&mut after, GuestAddress(0)).unwrap();
    assert!(before == after);
    assert_eq!(host.take_sent(0), []);
    control.set_link(false);
    assert!(!control.link());
}
