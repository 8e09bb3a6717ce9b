use super::*;

const US: u64 = 1000;
/// A unit of the delays.
const UNIT: u64 = 1024;

impl Machine {
    fn send_one(&mut self, flags: u32) {
        self.fill(TX_DATA, &frame(60));
        self.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE | flags)]);
    }

    /// The causes so far, without reading them.
    fn pending(&mut self) -> Cause {
        Cause::from_bits_retain(self.read(ICS))
    }
}

#[test]
fn causes_are_read_once_and_cleared_by_writing_ones() {
    let mut machine = Machine::off();
    let all = Cause::LSC | Cause::RXT0 | Cause::TXDW;
    machine.write(ICS, all.bits());
    assert!(!machine.level());
    assert_eq!(machine.pending(), all);
    machine.write(IMS, Cause::RXT0.bits());
    assert!(machine.level());
    machine.write(ICR, Cause::LSC.bits());
    assert!(machine.level());
    assert_eq!(machine.pending(), Cause::RXT0 | Cause::TXDW);
    machine.write(ICR, Cause::RXT0.bits());
    assert!(!machine.level());
    assert_eq!(machine.causes(), Cause::TXDW);
    assert_eq!(machine.causes(), Cause::empty());
}

#[test]
fn the_mask_is_set_and_cleared_by_ones() {
    let mut machine = Machine::off();
    machine.write(IMS, 0x85);
    machine.write(IMS, 0x10);
    assert_eq!((machine.read(IMS), machine.read(IMC)), (0x95, 0));
    machine.write(ICS, 0x10);
    assert!(machine.level());
    machine.write(IMC, 0x11);
    assert_eq!((machine.read(IMS), machine.level()), (0x84, false));
    machine.write(IMS, 0x10);
    assert!(machine.level());
    // What is not there cannot be set.
    machine.write(IMS, u32::MAX);
    machine.write(ICS, u32::MAX);
    assert_eq!((machine.read(IMS), machine.read(ICR)), (0x1_ffff, 0x1_ffff));
}

#[test]
fn the_line_stays_up_until_the_last_cause_is_gone() {
    let mut machine = Machine::new();
    machine.write(IMS, (Cause::RXT0 | Cause::TXDW).bits());
    machine.arrive(&frame(60));
    machine.send_one(0);
    machine.arrive(&frame(60));
    assert_eq!((machine.level(), machine.rises()), (true, 1));
    assert_eq!(machine.causes(), Cause::RXT0 | Cause::TXDW | Cause::TXQE);
    assert!(!machine.level());
    machine.arrive(&frame(60));
    assert_eq!((machine.level(), machine.rises()), (true, 2));
}

#[test]
fn the_command_register_can_disable_the_pin() {
    let mut machine = Machine::off();
    machine.write(IMS, 4);
    machine.write(ICS, 4);
    let on = pci::Command::MEMORY | pci::Command::BUS_MASTER;
    machine.command(on | pci::Command::INTX_DISABLE);
    assert!(!machine.level());
    assert_eq!(machine.config(4) >> 16 & 8, 8);
    machine.command(on);
    assert!(machine.level());
}

#[test]
fn receive_interrupts_come_at_once_without_a_delay() {
    let mut machine = Machine::new();
    machine.write(RADV, 100);
    machine.arrive(&frame(60));
    assert_eq!(machine.causes(), Cause::RXT0);
    assert_eq!(machine.clock.next(), None);
}

#[test]
fn the_receive_timer_starts_anew_with_each_frame() {
    let mut machine = Machine::new();
    machine.write(RDTR, 10);
    for _ in 0..5 {
        machine.arrive(&frame(60));
        machine.advance(9 * UNIT);
        assert_eq!(machine.pending(), Cause::empty());
    }
    machine.advance(UNIT - 1);
    assert_eq!(machine.pending(), Cause::empty());
    machine.advance(1);
    assert_eq!(machine.causes(), Cause::RXT0);
    machine.advance(1000 * UNIT);
    assert_eq!(machine.causes(), Cause::empty());
}

#[test]
fn the_absolute_receive_timer_does_not() {
    let mut machine = Machine::new();
    machine.write(RDTR, 10);
    machine.write(RADV, 25);
    for _ in 0..2 {
        machine.arrive(&frame(60));
        machine.advance(9 * UNIT);
    }
    machine.arrive(&frame(60));
    machine.advance(7 * UNIT - 1);
    assert_eq!(machine.pending(), Cause::empty());
    machine.advance(1);
    assert_eq!(machine.causes(), Cause::RXT0);
    // That was the end of the other one, too.
    machine.advance(100 * UNIT);
    assert_eq!(machine.causes(), Cause::empty());
}

#[test]
fn a_delayed_interrupt_can_be_flushed() {
    let mut machine = Machine::new();
    machine.write(RDTR, 1000);
    machine.write(RDTR, 1000 | FLUSH);
    assert_eq!(machine.causes(), Cause::empty(), "there is none");
    machine.arrive(&frame(60));
    machine.write(RDTR, 1000 | FLUSH);
    assert_eq!(machine.causes(), Cause::RXT0);
    machine.write(TIDV, 1000);
    machine.send_one(transmit::IDE);
    assert_eq!(machine.causes(), Cause::TXQE);
    machine.write(TIDV, FLUSH);
    assert_eq!(machine.causes(), Cause::TXDW);
    machine.advance(2000 * UNIT);
    assert_eq!(machine.causes(), Cause::empty());
}

#[test]
fn transmit_interrupts_are_delayed_if_the_descriptor_says_so() {
    let mut machine = Machine::new();
    machine.write(TIDV, 8);
    machine.write(TADV, 20);
    for _ in 0..2 {
        machine.send_one(transmit::IDE);
        assert_eq!(machine.causes(), Cause::TXQE);
        machine.advance(7 * UNIT);
    }
    machine.send_one(transmit::IDE);
    machine.advance(6 * UNIT - 1);
    assert_eq!(machine.causes(), Cause::TXQE);
    machine.advance(1);
    assert_eq!(machine.causes(), Cause::TXDW);
    // One that is not to be delayed takes the others along.
    machine.send_one(transmit::IDE);
    machine.send_one(0);
    assert_eq!(machine.causes(), Cause::TXDW | Cause::TXQE);
    machine.advance(100 * UNIT);
    assert_eq!(machine.causes(), Cause::empty());
    // Without RS there is nothing to be told; without a delay there is none.
    let ide = transmit::EOP | transmit::IFCS | transmit::IDE;
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ide)]);
    machine.advance(100 * UNIT);
    assert_eq!(machine.causes(), Cause::TXQE);
    machine.write(TIDV, 0);
    machine.send_one(transmit::IDE);
    assert_eq!(machine.causes(), Cause::TXDW | Cause::TXQE);
}

#[test]
fn interrupts_keep_their_distance() {
    let mut machine = Machine::new();
    machine.write(ITR, 488);
    let interval = 488 * 256;
    machine.write(IMS, (Cause::RXT0 | Cause::LSC).bits());
    machine.arrive(&frame(60));
    assert_eq!(machine.rises(), 1, "the first comes at once");
    assert_eq!(machine.causes(), Cause::RXT0);
    machine.arrive(&frame(60));
    machine.advance(interval - 1);
    assert_eq!((machine.level(), machine.pending()), (false, Cause::RXT0));
    machine.advance(1);
    assert_eq!((machine.level(), machine.rises()), (true, 2));
    assert_eq!(machine.causes(), Cause::RXT0);
    // The distance is from rise to rise.
    machine.advance(interval);
    machine.arrive(&frame(60));
    assert_eq!(machine.rises(), 3);
    machine.causes();
    // What is acknowledged before its time never comes.
    machine.arrive(&frame(60));
    machine.causes();
    machine.advance(10 * interval);
    assert_eq!(machine.rises(), 3);
}

#[test]
fn what_software_does_is_throttled_too() {
    let mut machine = Machine::new();
    machine.write(ITR, 1000);
    let interval = 1000 * 256;
    machine.write(IMS, Cause::LSC.bits());
    machine.write(ICS, Cause::LSC.bits());
    assert!(machine.level());
    machine.causes();
    machine.write(ICS, Cause::LSC.bits());
    machine.run();
    machine.advance(interval - 1);
    assert!(!machine.level());
    machine.advance(1);
    assert!(machine.level());
    machine.causes();
    // Unmasked in the meantime: it still waits.
    machine.write(IMC, u32::MAX);
    machine.write(ICS, Cause::LSC.bits());
    machine.write(IMS, Cause::LSC.bits());
    machine.run();
    assert!(!machine.level());
    machine.advance(interval);
    assert!(machine.level());
    machine.causes();
    // Throttling that is switched off holds nothing back.
    machine.write(ICS, Cause::LSC.bits());
    assert!(!machine.level());
    machine.write(ITR, 0);
    assert!(machine.level());
}

#[test]
fn masking_does_not_start_the_interval_anew() {
    let mut machine = Machine::new();
    machine.write(ITR, 1000);
    machine.write(IMS, Cause::LSC.bits());
    machine.write(ICS, Cause::LSC.bits());
    for _ in 0..10 {
        machine.write(IMC, u32::MAX);
        machine.write(IMS, Cause::LSC.bits());
        machine.run();
        machine.advance(25 * US);
    }
    assert_eq!(machine.rises(), 1);
    machine.advance(6 * US);
    assert_eq!((machine.rises(), machine.level()), (2, true));
}

#[test]
fn few_descriptors_left_are_told_once() {
    for (setting, left) in [(0u32, 8), (1, 4), (2, 2)] {
        let mut machine = Machine::new();
        machine.write(RDTR, 1000);
        let rctl = machine.read(RCTL);
        machine.write(RCTL, rctl | setting << Rctl::RDMTS_SHIFT);
        for frames in 1..15 {
            machine.arrive(&frame(60));
            let expected = if 15 - frames == left { Cause::RXDMT0 } else { Cause::empty() };
            assert_eq!(machine.causes(), expected, "{setting} {frames}");
        }
    }
}

#[test]
fn small_packets_can_be_told_at_once() {
    let mut machine = Machine::new();
    machine.write(RDTR, 1000);
    machine.write(RSRPD, 100);
    machine.arrive(&frame(97));
    assert_eq!(machine.causes(), Cause::empty());
    machine.arrive(&frame(96));
    assert_eq!(machine.causes(), Cause::SRPD);
    machine.write(RSRPD, 0);
    machine.arrive(&frame(60));
    assert_eq!(machine.causes(), Cause::empty());
}

#[test]
fn a_round_of_frames_is_one_interrupt() {
    let mut machine = Machine::new();
    machine.write(IMS, Cause::RXT0.bits());
    for _ in 0..10 {
        machine.host.push(0, &frame(60));
    }
    machine.run();
    assert_eq!((machine.rises(), machine.statistics().received_frames), (1, 10));
}
