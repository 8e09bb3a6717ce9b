//! Resets, and what must not happen after them (bug-test letter L).

use paraslot_spec::e1000::phy::{self, register};
use paraslot_spec::e1000::statistics;

use super::*;
use crate::registers::REGISTERS;

/// The ways in which everything ends. All but the first two leave registers as they are.
const WAYS: [fn(&mut Machine); 6] = [
    |machine| machine.write(CTRL, Ctrl::RST.bits()),
    |machine| {
        machine.nic.reset();
        machine.enable();
    },
    |machine| {
        machine.write(RCTL, 0);
        machine.write(TCTL, 0);
    },
    |machine| machine.command(pci::Command::MEMORY),
    |machine| machine.nic.pause().unwrap(),
    |machine| {
        // D3hot.
        let at = (machine.config(0x34) & 0xff) as u16;
        machine.nic.config_write(at + 4, &[3]);
    },
];

/// A machine with something of every kind under way: a packet begun, one that the backend was too
/// busy for, a frame that waits for descriptors, interrupts that wait for their time.
fn busy_machine() -> Machine {
    let mut machine = Machine::new();
    machine.write(RCTL, (Rctl::EN | Rctl::LPE | Rctl::SECRC).bits());
    machine.write(IMS, u32::MAX);
    machine.write(RDTR, 50);
    machine.write(TIDV, 50);
    machine.fill(TX_DATA, &frame(60));
    for _ in 0..14 {
        machine.arrive(&frame(60));
    }
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE | transmit::IDE)]);
    machine.host.set_room(0, Some(0));
    machine.transmit(&[
        TransmitDescriptor::legacy(TX_DATA, 60, ALONE),
        TransmitDescriptor::legacy(TX_DATA, 60, ALONE),
        TransmitDescriptor::legacy(TX_DATA, 20, transmit::RS),
    ]);
    machine.arrive(&frame(5000));
    machine.sent();
    machine.causes();
    assert_eq!((machine.read(RDH), machine.read(TDH), machine.level()), (15, 1, false));
    machine
}

#[test]
fn after_it_there_is_silence() {
    for (number, way) in WAYS.into_iter().enumerate() {
        let mut machine = busy_machine();
        way(&mut machine);
        let (memory, rises) = (machine.bytes(0, MEMORY), machine.rises());
        machine.host.set_room(0, None);
        machine.host.push(0, &frame(60));
        machine.write(TDT, 5);
        machine.write(RDT, 3);
        machine.run();
        machine.advance(1_000_000_000);
        assert_eq!(machine.bytes(0, MEMORY), memory, "memory written, {number}");
        assert_eq!(machine.sent(), [], "a frame sent, {number}");
        assert_eq!(machine.statistics().sent_frames, 1);
        // The delays of what was done before are the adapter's own, where it was not reset.
        if number < 2 || number == 4 {
            assert_eq!(machine.rises(), rises, "an interrupt, {number}");
        }
        if number < 2 {
            assert_eq!(machine.read(ICR), 0, "a cause, {number}");
        }
    }
}

#[test]
fn what_only_paused_goes_on() {
    for (number, way) in WAYS.into_iter().enumerate().skip(3) {
        let mut machine = busy_machine();
        way(&mut machine);
        machine.host.set_room(0, None);
        machine.run();
        match number {
            3 => machine.enable(),
            4 => machine.nic.resume().unwrap(),
            _ => {
                let at = (machine.config(0x34) & 0xff) as u16;
                machine.nic.config_write(at + 4, &[0]);
            }
        }
        machine.run();
        assert_eq!(machine.sent().len(), 2, "{number}");
        machine.transmit(&[TransmitDescriptor::legacy(TX_DATA + 20, 40, ALONE)]);
        assert_eq!(machine.one_sent(), frame(60), "{number}");
        for _ in 0..14 {
            assert_eq!(machine.clean().unwrap().0, frame(60));
        }
        machine.run();
        assert_eq!(machine.clean().unwrap().0, frame(5000), "{number}");
    }
}

#[test]
fn a_software_reset_puts_registers_back_and_leaves_some() {
    let mut machine = busy_machine();
    for register in &REGISTERS {
        if !matches!(register.offset, CTRL | MDIC | EERD | EECD) {
            machine.write(register.offset, 0x5a5a_5a5a);
        }
    }
    for offset in [ral(0), rah(0), ral(15), rah(15), MTA + 4, VFTA + 508] {
        machine.write(offset, u32::MAX);
    }
    machine.write(ITR, 77);
    machine.set_phy(register::SPECIFIC_CONTROL, 0x1111);
    machine.write(CTRL, Ctrl::RST.bits());
    // PBA takes effect with this reset; wake-up settings are for when there is no driver.
    let survives =
        |offset| matches!(offset, PBA | WUC | WUFC | IPAV) || (IP4AT..IP4AT + 32).contains(&offset);
    for register in &REGISTERS {
        if matches!(register.offset, STATUS | EECD) {
            continue;
        }
        let value = machine.read(register.offset);
        if survives(register.offset) {
            assert_ne!(value, register.reset, "{}", register.name);
        } else {
            assert_eq!(value, register.reset, "{}", register.name);
        }
    }
    assert_eq!((machine.read(RAL), machine.read(RAH)), (0x3322_1102, 0x8000_5544));
    for offset in [ral(15), rah(15), MTA + 4, VFTA + 508, IMS, ICR, ITR] {
        assert_eq!(machine.read(offset), 0, "{offset:#x}");
    }
    assert_eq!(machine.read(statistics::GPRC), 0);
    assert_eq!(machine.phy(register::SPECIFIC_CONTROL), 0x1111, "the PHY is not reset");
    assert!(!machine.level());
    assert!(machine.read(STATUS) & Status::LU.bits() != 0);
    machine.host.set_room(0, None);
    machine.start();
    machine.arrive(&frame(77));
    // The frame that was on its way is gone.
    assert_eq!(machine.clean().unwrap().0, frame(77));
}

#[test]
fn power_puts_everything_back() {
    let mut machine = busy_machine();
    machine.write(PBA, 10);
    machine.set_phy(register::CONTROL, phy::Control::POWER_DOWN.bits());
    machine.nic.bar_write(IO_BAR, 0, &[4; 4]);
    machine.write(ICS, 4);
    assert!(machine.level());
    machine.nic.reset();
    assert!(!machine.level());
    assert_eq!(machine.config(4) & 0xffff, 0);
    assert_eq!((machine.read(PBA), machine.phy(register::CONTROL)), (0x0010_0030, 0x1140));
    assert!(machine.read(STATUS) & Status::LU.bits() != 0);
    let mut selected = [0; 4];
    machine.nic.bar_read(IO_BAR, 0, &mut selected);
    assert_eq!(selected, [0; 4]);
    // But for the cable, which is not ours.
    machine.control.set_link(false);
    machine.nic.reset();
    assert_eq!(machine.read(STATUS), 0);
}

#[test]
fn what_was_on_its_way_back_is_gone() {
    let mut machine = Machine::new();
    machine.write(RCTL, Rctl::LBM_MAC);
    machine.fill(TX_DATA, &frame(60));
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
    machine.write(CTRL, Ctrl::RST.bits());
    machine.start();
    assert!(machine.clean().is_none());
}

// Contexts do not outlive a reset.
#[test]
fn a_context_is_gone() {
    let mut machine = Machine::new();
    machine.fill(TX_DATA, &frame(100));
    let context = Context { tucss: 20, tucso: 30, ..Context::default() };
    let data = TransmitDescriptor::data(TX_DATA, 100, ALONE, transmit::TXSM);
    machine.transmit(&[TransmitDescriptor::context(&context, 0), data]);
    assert_ne!(machine.one_sent(), frame(100));
    machine.write(CTRL, Ctrl::RST.bits());
    machine.start();
    machine.transmit(&[data]);
    let sent = machine.one_sent();
    assert_eq!(sent[20..], frame(100)[20..]);
}

// A ring that is set up anew begins with a new packet, and a new frame.
#[test]
fn a_new_ring_forgets_the_old_ones_packet() {
    let mut machine = busy_machine();
    machine.host.set_room(0, None);
    machine.write(TDLEN, RING * 16);
    machine.write(TDH, 8);
    machine.write(TDT, 8);
    machine.run();
    machine.tdt = 8;
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
    assert_eq!(machine.one_sent(), frame(60));
    machine.receive_ring(RX_RING, RING);
    machine.cleaned = 0;
    machine.give(15);
    machine.arrive(&frame(61));
    assert_eq!(machine.clean().unwrap().0, frame(61));
}

#[test]
fn a_device_that_goes_is_quiet() {
    let mut machine = busy_machine();
    machine.write(ICS, 4);
    let (memory, control) = (machine.memory.clone(), machine.control.clone());
    let Machine { nic, executor, host, clock, line, .. } = machine;
    assert!(line.level.load(Ordering::SeqCst));
    drop(nic);
    assert!(!line.level.load(Ordering::SeqCst));
    let look = || {
        let mut bytes = vec![0; MEMORY];
        memory.read_slice(&mut bytes, GuestAddress(0)).unwrap();
        bytes
    };
    let before = look();
    host.set_room(0, None);
    host.push(0, &frame(60));
    control.set_link(false);
    control.set_link(true);
    clock.advance(Duration::from_secs(1));
    assert!(executor.run(100));
    assert!(executor.is_empty());
    assert_eq!((look(), host.take_sent(0).len()), (before, 0));
    assert!(!line.level.load(Ordering::SeqCst));
}
