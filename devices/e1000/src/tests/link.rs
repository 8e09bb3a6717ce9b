use paraslot_spec::e1000::phy::{self, Ability, SpecificStatus, gigabit_control, register};

use super::*;

const RESTART: u16 = phy::Control::RESTART.bits() | phy::Control::AUTONEGOTIATION.bits();

impl Machine {
    fn phy_status(&mut self) -> phy::Status {
        phy::Status::from_bits_retain(self.phy(register::STATUS))
    }

    fn link_status(&mut self) -> Status {
        Status::from_bits_retain(self.read(STATUS))
    }

    fn specific(&mut self) -> SpecificStatus {
        SpecificStatus::from_bits_retain(self.phy(register::SPECIFIC_STATUS))
    }
}

#[test]
fn the_phy_is_an_m88e1011_with_a_link() {
    let mut machine = Machine::off();
    assert_eq!(machine.phy(register::ID1), 0x0141);
    assert_eq!(machine.phy(register::ID2) & 0xfff0, 0x0c20);
    assert_eq!(machine.phy(register::CONTROL), 0x1140);
    machine.phy_status();
    let status = machine.phy_status();
    assert!(status.contains(phy::Status::LINK | phy::Status::AUTONEGOTIATION_COMPLETE));
    assert_eq!(status.bits(), 0x796d);
    let specific = machine.specific();
    assert_eq!(specific.bits(), 0xac00);
    assert_eq!(machine.phy(register::GIGABIT_STATUS), 0x3c00);
    assert_eq!(machine.phy(register::EXTENDED_STATUS), 0x3000);
    assert_eq!(machine.phy(register::EXPANSION) & 1, 1);
    // The link partner does not know PAUSE.
    assert_eq!(machine.phy(register::PARTNER_ABILITY), 0x41e1);
}

#[test]
fn other_phys_and_no_operation_are_errors() {
    let mut machine = Machine::off();
    for command in [Mdic::READ.bits() | 2 << 21, Mdic::WRITE.bits(), 1 << 21, 3 << 26 | 1 << 21] {
        machine.write(MDIC, command);
        assert_eq!(machine.read(MDIC), command | (Mdic::READY | Mdic::ERROR).bits());
    }
    // Only the byte with the opcode starts an operation.
    machine.write(MDIC, Mdic::READ.bits() | 1 << 21 | u32::from(register::ID1) << 16);
    machine.nic.bar_write(MEMORY_BAR, u64::from(MDIC), &[0, 0]);
    assert_eq!(machine.read(MDIC) & Mdic::READY.bits(), 0);
    machine.nic.bar_write(MEMORY_BAR, u64::from(MDIC) + 3, &[8]);
    assert_eq!(machine.read(MDIC) & 0xf000_ffff, Mdic::READY.bits() | 0x0141);
}

#[test]
fn an_operation_can_end_with_an_interrupt() {
    let mut machine = Machine::off();
    machine.write(IMS, Cause::MDAC.bits());
    machine.write(MDIC, (Mdic::READ | Mdic::INTERRUPT).bits() | 1 << 21);
    assert!(machine.level());
    assert_eq!(machine.causes(), Cause::MDAC);
    machine.phy(0);
    assert_eq!(machine.causes(), Cause::empty());
}

#[test]
fn a_restarted_negotiation_is_told_once_it_is_over() {
    let mut machine = Machine::new();
    machine.write(IMS, Cause::LSC.bits());
    machine.phy_status();
    machine.set_phy(register::CONTROL, RESTART);
    assert!(machine.level());
    assert_eq!(machine.causes(), Cause::LSC);
    // It was down in between: the link bit tells once.
    assert!(!machine.phy_status().contains(phy::Status::LINK));
    let status = machine.phy_status();
    assert!(status.contains(phy::Status::LINK | phy::Status::AUTONEGOTIATION_COMPLETE));
    assert!(machine.link_status().contains(Status::LU));
    // Bits that clear themselves.
    assert_eq!(machine.phy(register::CONTROL), phy::Control::AUTONEGOTIATION.bits());
}

#[test]
fn the_best_that_both_can_do_is_agreed_on() {
    let mut machine = Machine::off();
    let gigabit = gigabit_control::FULL | gigabit_control::HALF;
    let cases = [
        (gigabit, Ability::all(), Status::FD | Status::SPEED_1000 | Status::ASDV_1000),
        (gigabit_control::HALF, Ability::all(), Status::SPEED_1000 | Status::ASDV_1000),
        (0, Ability::all(), Status::FD | Status::SPEED_100 | Status::ASDV_100),
        (0, Ability::HUNDRED_HALF | Ability::TEN_FULL, Status::SPEED_100 | Status::ASDV_100),
        (0, Ability::TEN_HALF | Ability::TEN_FULL, Status::FD),
        (0, Ability::TEN_HALF, Status::empty()),
    ];
    for (gigabit, ability, expected) in cases {
        let before = machine.link_status();
        machine.set_phy(register::GIGABIT_CONTROL, gigabit);
        let command = Mdic::WRITE.bits() | 4 << 16 | 1 << 21 | u32::from(ability.bits());
        machine.write(MDIC, command);
        assert_eq!(machine.link_status(), before, "not before it is negotiated");
        machine.set_phy(register::CONTROL, RESTART);
        assert_eq!(machine.link_status(), Status::LU | expected, "{gigabit:#x} {ability:?}");
        let full_duplex = machine.specific().contains(SpecificStatus::FULL_DUPLEX);
        assert_eq!(full_duplex, expected.contains(Status::FD));
    }
    machine.set_phy(register::ADVERTISEMENT, 1);
    machine.set_phy(register::CONTROL, RESTART);
    assert_eq!(machine.link_status(), Status::empty());
    assert_eq!(machine.phy(register::PARTNER_ABILITY), 0);
}

// As Linux forces 100 Mb/s: the settings survive the reset that they take effect with.
#[test]
fn speed_and_duplex_can_be_forced() {
    let mut machine = Machine::off();
    machine.set_phy(register::EXTENDED_CONTROL, 0x0d70);
    let forced = phy::Control::SPEED_100 | phy::Control::FULL_DUPLEX;
    machine.set_phy(register::CONTROL, (forced | phy::Control::RESET).bits());
    assert_eq!(machine.phy(register::CONTROL), forced.bits());
    assert_eq!(
        machine.link_status(),
        Status::LU | Status::FD | Status::SPEED_100 | Status::ASDV_100
    );
    assert!(!machine.phy_status().contains(phy::Status::AUTONEGOTIATION_COMPLETE));
    assert_eq!(machine.phy(register::EXTENDED_CONTROL), 0x0d60, "the clock does not");
    machine.set_phy(register::CONTROL, 0);
    assert_eq!(machine.link_status(), Status::LU);
}

#[test]
fn the_cable_can_be_unplugged() {
    let mut machine = Machine::new();
    machine.write(IMS, Cause::LSC.bits());
    assert!(machine.control.link());
    machine.control.set_link(true);
    assert_eq!(machine.rises(), 0, "nothing has changed");
    machine.control.set_link(false);
    assert!(machine.level() && !machine.control.link());
    assert_eq!(machine.causes(), Cause::LSC);
    assert_eq!(machine.link_status(), Status::empty());
    let status = machine.phy_status();
    assert!(!status.intersects(phy::Status::LINK | phy::Status::AUTONEGOTIATION_COMPLETE));
    // Nothing goes in or out, and nothing is lost.
    machine.fill(TX_DATA, &frame(60));
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
    machine.arrive(&frame(70));
    assert_eq!((machine.read(TDH), machine.status(0), machine.done(0)), (0, 0, false));
    machine.control.set_link(true);
    machine.run();
    assert!(machine.causes().contains(Cause::LSC));
    assert!(machine.link_status().contains(Status::LU));
    assert_eq!((machine.one_sent(), machine.status(0)), (frame(60), transmit::DD));
    assert_eq!(machine.clean().unwrap().0, frame(70));
}

#[test]
fn an_adapter_can_be_built_without_a_cable() {
    let (backend, _) = ScriptedNet::new(1);
    let options = Options { link: false, ..Options::default() };
    let (mut nic, ..) = build(backend, options, Arc::new(ManualExecutor::new()));
    let mut status = [0; 4];
    nic.bar_read(MEMORY_BAR, STATUS.into(), &mut status);
    assert_eq!(status, [0; 4]);
    nic.control().set_link(true);
    nic.bar_read(MEMORY_BAR, STATUS.into(), &mut status);
    assert_eq!(status[0] & 2, 2);
}

#[test]
fn powering_the_phy_down_or_resetting_it_takes_the_link_down() {
    let mut machine = Machine::new();
    for bits in [phy::Control::POWER_DOWN, phy::Control::ISOLATE] {
        let control = machine.phy(register::CONTROL);
        machine.set_phy(register::CONTROL, control | bits.bits());
        assert_eq!(machine.link_status(), Status::empty());
        assert_eq!(machine.causes(), Cause::LSC);
        machine.set_phy(register::CONTROL, control);
        assert!(machine.link_status().contains(Status::LU));
        assert_eq!(machine.causes(), Cause::LSC);
    }
    machine.set_phy(register::SPECIFIC_CONTROL, 0x0808);
    let ctrl = machine.read(CTRL);
    machine.write(CTRL, ctrl | Ctrl::PHY_RST.bits());
    assert_eq!(machine.link_status() & Status::LU, Status::empty());
    machine.write(CTRL, ctrl);
    assert!(machine.link_status().contains(Status::LU));
    assert_eq!(machine.phy(register::SPECIFIC_CONTROL), 0x0068);
    assert_eq!(machine.causes(), Cause::LSC);
}

#[test]
fn registers_of_the_phy_that_are_not_there_are_zero() {
    let mut machine = Machine::off();
    for number in [8, 11, 12, 13, 14, 18, 19, 21, 22, 25, 31] {
        machine.set_phy(number, 0xffff);
        assert_eq!(machine.phy(number), 0, "{number}");
    }
    machine.set_phy(register::PAGE_SELECT, 0x1234);
    assert_eq!(machine.phy(register::PAGE_SELECT), 0x1234);
    machine.set_phy(register::ID1, 0xffff);
    assert_eq!(machine.phy(register::ID1), 0x0141);
}
