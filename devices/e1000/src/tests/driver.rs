//! What stock drivers do from probe to traffic, register by register.

use paraslot_spec::e1000::phy::{self, register};
use paraslot_spec::e1000::{eerd, manc, statistics, thresholds};

use super::*;

/// The way of Linux's driver (e1000_probe, e1000_open, e1000_configure).
#[test]
fn linux_brings_it_up() {
    let mut machine = Machine::off();
    // e1000_reset_hw: everything off, then the reset, by I/O ports.
    machine.write(IMC, u32::MAX);
    machine.write(RCTL, 0);
    machine.write(TCTL, Tctl::PSP.bits());
    machine.read(STATUS);
    let ctrl = machine.read(CTRL);
    machine.nic.bar_write(IO_BAR, 0, &CTRL.to_le_bytes());
    machine.nic.bar_write(IO_BAR, 4, &(ctrl | Ctrl::RST.bits()).to_le_bytes());
    assert_eq!(machine.read(CTRL) & Ctrl::RST.bits(), 0);
    let management = machine.read(MANC);
    machine.write(MANC, management & !manc::ARP_EN);
    machine.write(IMC, u32::MAX);
    machine.read(ICR);
    // The EEPROM's checksum, by EERD as other drivers do; its address.
    let sum = (0..64u32).fold(0u16, |sum, word| {
        machine.write(EERD, word << eerd::ADDRESS_SHIFT | eerd::START);
        sum.wrapping_add((machine.read(EERD) >> eerd::DATA_SHIFT) as u16)
    });
    assert_eq!(sum, 0xbaba);
    // e1000_init_hw: filters, tables, link.
    machine.write(VET, 0);
    for entry in 1..15 {
        machine.write(ral(entry), 0);
        machine.write(rah(entry), 0);
    }
    for word in 0..128 {
        machine.write(MTA + word * 4, 0);
    }
    let id = u32::from(machine.phy(register::ID1)) << 16 | u32::from(machine.phy(register::ID2));
    assert_eq!(id & 0xffff_fff0, 0x0141_0c20);
    machine.write(CTRL, (Ctrl::FD | Ctrl::SLU).bits());
    let specific = machine.phy(register::SPECIFIC_CONTROL);
    machine.set_phy(register::SPECIFIC_CONTROL, specific | 0x0800 | 0x0060);
    let extended = machine.phy(register::EXTENDED_CONTROL);
    machine.set_phy(register::EXTENDED_CONTROL, extended | 0x0070);
    let control = machine.phy(register::CONTROL);
    machine.set_phy(register::CONTROL, control | phy::Control::RESET.bits());
    machine.set_phy(register::ADVERTISEMENT, 0x01e1);
    machine.set_phy(register::GIGABIT_CONTROL, 0x0200);
    let control = machine.phy(register::CONTROL);
    let restart = phy::Control::AUTONEGOTIATION | phy::Control::RESTART;
    machine.set_phy(register::CONTROL, control | restart.bits());
    // e1000_setup_copper_link looks for the link for a hundred microseconds, reading twice.
    machine.phy(register::STATUS);
    let status = phy::Status::from_bits_retain(machine.phy(register::STATUS));
    assert!(status.contains(phy::Status::LINK | phy::Status::AUTONEGOTIATION_COMPLETE));
    machine.write(FCT, 0x8808);
    machine.write(FCAH, 0x100);
    machine.write(FCAL, 0x00c2_8001);
    machine.write(TXDCTL, thresholds::GRAN | 1 << 16);
    for counter in (statistics::FIRST..statistics::END).step_by(4) {
        machine.read(counter);
    }
    // e1000_configure.
    machine.write(RDTR, 0);
    machine.write(RADV, 8);
    machine.write(ITR, 488);
    machine.transmit_ring(TX_RING, RING);
    machine.write(TIPG, 0x0060_2008);
    machine.write(TIDV, 8);
    machine.write(TADV, 32);
    machine.write(TCTL, (Tctl::EN | Tctl::PSP | Tctl::RTLC).bits() | 15 << 4 | 63 << 12);
    machine.receive_ring(RX_RING, RING);
    machine.write(RXCSUM, 0x200);
    machine.write(RCTL, (Rctl::EN | Rctl::BAM).bits());
    machine.give(RING - 2);
    let enabled = Cause::RXT0 | Cause::TXDW | Cause::RXDMT0 | Cause::RXSEQ | Cause::LSC;
    machine.write(IMS, enabled.bits());
    machine.write(ICS, Cause::LSC.bits());
    assert!(machine.level());
    assert!(machine.causes().contains(Cause::LSC));
    assert!(machine.read(STATUS) & Status::LU.bits() != 0);
    machine.run();
    // A frame each way, with the interrupts that a driver waits for.
    machine.fill(TX_DATA, &frame(60));
    let flags = ALONE | transmit::IDE;
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, flags)]);
    assert_eq!(machine.one_sent(), frame(60));
    machine.advance(1_000_000);
    assert!(machine.level());
    assert!(machine.causes().contains(Cause::TXDW));
    machine.arrive(&frame(100));
    machine.advance(1_000_000);
    assert!(machine.level());
    // The driver takes four bytes off, as it has not asked for the FCS to be stripped.
    let (mut received, descriptor) = machine.clean().unwrap();
    received.truncate(received.len() - 4);
    assert_eq!((received, descriptor.errors), (frame(100), 0));
    assert!(machine.causes().contains(Cause::RXT0));
    assert!(!machine.level());
}

/// The way of a boot ROM: the address from the receive address registers, no interrupts, rings of
/// eight descriptors, polling.
#[test]
fn a_boot_rom_polls() {
    let mut machine = Machine::off();
    machine.write(CTRL, Ctrl::RST.bits());
    let address = [machine.read(RAL).to_le_bytes(), machine.read(RAH).to_le_bytes()].concat();
    assert_eq!((&address[..6], address[7]), (&MAC[..], 0x80));
    machine.transmit_ring(TX_RING, 8);
    machine.receive_ring(RX_RING, 8);
    machine.write(TCTL, (Tctl::EN | Tctl::PSP).bits());
    let rctl = Rctl::EN | Rctl::UPE | Rctl::MPE | Rctl::BAM | Rctl::SECRC;
    machine.write(RCTL, rctl.bits());
    machine.give(7);
    for round in 0..40u32 {
        let out = frame_to([0xff; 6], 42 + round as usize);
        machine.fill(TX_DATA, &out);
        machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, out.len() as u16, ALONE)]);
        assert_eq!(machine.status(round % 8), transmit::DD);
        let sent = machine.one_sent();
        assert_eq!((&sent[..out.len()], sent.len()), (&out[..], out.len().max(60)));
        machine.arrive(&frame_to([3; 6], 200));
        assert_eq!(machine.clean().unwrap().0, frame_to([3; 6], 200));
    }
    assert!(!machine.level() && machine.rises() == 0);
}
