//! The internal PHY and the link (13.4.7.1; IEEE 802.3, 22.2.4).
//!
//! The link partner is able to do everything, except PAUSE, and answers at once: autonegotiation is
//! over when the write that started it returns.

mod state;

use paraslot_spec::e1000::phy::{
    Ability, Control, ID1, ID2, REGISTERS, SpecificStatus, Status, expansion, extended_control,
    extended_status, gigabit_control, gigabit_status, register, specific_control,
};

pub(crate) use self::state::PhyState;

/// Speeds in Mb/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speed {
    Ten,
    Hundred,
    Thousand,
}

/// A link that is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) speed: Speed,
    pub(crate) full_duplex: bool,
    /// What is transmitted comes back.
    pub(crate) loopback: bool,
}

/// The PHY.
pub(crate) struct Phy {
    /// The registers that keep what is written to them.
    kept: [u16; REGISTERS],
    /// Whether the cable is plugged in.
    cable: bool,
    /// Whether the MAC holds the PHY in reset.
    held: bool,
    /// What the last negotiation came to.
    agreed: Option<(Speed, bool)>,
    /// The link was down since the status register was last read.
    was_down: bool,
    /// A page was received since the expansion register was last read.
    page: bool,
}

/// Bits of the control register that stay.
const CONTROL: Control = Control::all().difference(Control::RESET).difference(Control::RESTART);
/// What the control register holds after a reset.
const CONTROL_RESET: Control =
    Control::SPEED_1000.union(Control::FULL_DUPLEX).union(Control::AUTONEGOTIATION);
/// What the PHY and its link partner advertise.
const ABILITIES: Ability = Ability::SELECTOR_802_3
    .union(Ability::TEN_HALF)
    .union(Ability::TEN_FULL)
    .union(Ability::HUNDRED_HALF)
    .union(Ability::HUNDRED_FULL);
/// Status bits that do not change.
const STATUS: Status = Status::EXTENDED_CAPABILITY
    .union(Status::AUTONEGOTIATION_ABILITY)
    .union(Status::PREAMBLE_SUPPRESSION)
    .union(Status::EXTENDED_STATUS)
    .union(Status::TEN_HALF)
    .union(Status::TEN_FULL)
    .union(Status::HUNDRED_HALF)
    .union(Status::HUNDRED_FULL);

/// Registers that keep what is written, with the bits that they keep and what they hold after a
/// reset.
const KEPT: [(u8, u16, u16); 8] = [
    (register::CONTROL, CONTROL.bits(), CONTROL_RESET.bits()),
    (register::ADVERTISEMENT, 0xbfff, ABILITIES.bits()),
    (register::NEXT_PAGE, 0xbfff, 0x2001),
    (
        register::GIGABIT_CONTROL,
        0xff00,
        gigabit_control::HALF | gigabit_control::FULL | gigabit_control::MULTI_PORT,
    ),
    (register::SPECIFIC_CONTROL, u16::MAX, specific_control::AUTO_CROSSOVER | 1 << 3),
    (register::EXTENDED_CONTROL, u16::MAX, extended_control::RESET),
    (register::PAGE_SELECT, u16::MAX, 0),
    (register::PAGE_DATA, u16::MAX, 0),
];

impl Phy {
    pub(crate) fn new(cable: bool) -> Self {
        let mut phy = Self {
            kept: [0; REGISTERS],
            cable,
            held: false,
            agreed: None,
            was_down: true,
            page: false,
        };
        phy.reset();
        phy
    }

    fn get(&self, number: u8) -> u16 {
        self.kept.get(usize::from(number)).copied().unwrap_or(0)
    }

    fn set(&mut self, number: u8, value: u16) {
        if let Some(register) = self.kept.get_mut(usize::from(number)) {
            *register = value;
        }
    }

    fn control(&self) -> Control {
        Control::from_bits_truncate(self.get(register::CONTROL))
    }

    /// A reset, by whatever means: all registers go back, and the link is negotiated anew.
    pub(crate) fn reset(&mut self) {
        for (number, _, reset) in KEPT {
            self.set(number, reset);
        }
        self.renegotiate();
    }

    /// A reset through the control register: settings take effect, and the clock of the MII goes back
    /// to what it was, as drivers know.
    fn soft_reset(&mut self) {
        for (number, _, reset) in KEPT {
            if number == register::EXTENDED_CONTROL {
                self.set(number, reset);
            }
        }
        self.renegotiate();
    }

    /// The MAC starts or ends a reset of the PHY.
    pub(crate) fn hold(&mut self, held: bool) {
        if held && !self.held {
            self.was_down = true;
        }
        if !held && self.held {
            self.reset();
        }
        self.held = held;
    }

    /// Plugs the cable in or out.
    pub(crate) fn set_cable(&mut self, cable: bool) {
        if cable != self.cable {
            self.cable = cable;
            self.renegotiate();
        }
    }

    pub(crate) fn cable(&self) -> bool {
        self.cable
    }

    /// Finds the best that both sides can do (IEEE 802.3, 28B.3).
    fn renegotiate(&mut self) {
        self.was_down = true;
        self.page = true;
        let gigabit = self.get(register::GIGABIT_CONTROL);
        let ability = Ability::from_bits_truncate(self.get(register::ADVERTISEMENT));
        let best = [
            (gigabit & gigabit_control::FULL != 0, Speed::Thousand, true),
            (gigabit & gigabit_control::HALF != 0, Speed::Thousand, false),
            (ability.contains(Ability::HUNDRED_FULL), Speed::Hundred, true),
            (ability.contains(Ability::HUNDRED_HALF), Speed::Hundred, false),
            (ability.contains(Ability::TEN_FULL), Speed::Ten, true),
            (ability.contains(Ability::TEN_HALF), Speed::Ten, false),
        ];
        let best = best.into_iter().find(|(able, ..)| *able);
        self.agreed = best.map(|(_, speed, full_duplex)| (speed, full_duplex));
    }

    /// The link as it is now.
    pub(crate) fn link(&self) -> Option<Link> {
        let control = self.control();
        let loopback = control.contains(Control::LOOPBACK);
        if self.held
            || control.intersects(Control::POWER_DOWN | Control::ISOLATE)
            || !(self.cable || loopback)
        {
            return None;
        }
        if !control.contains(Control::AUTONEGOTIATION) || loopback {
            let speed = match control & (Control::SPEED_1000 | Control::SPEED_100) {
                Control::SPEED_1000 => Speed::Thousand,
                Control::SPEED_100 => Speed::Hundred,
                _ => Speed::Ten,
            };
            let full_duplex = control.contains(Control::FULL_DUPLEX);
            return Some(Link { speed, full_duplex, loopback });
        }
        let (speed, full_duplex) = self.agreed?;
        Some(Link { speed, full_duplex, loopback })
    }

    /// Whether autonegotiation is complete.
    fn negotiated(&self) -> Option<Link> {
        let negotiates = self.control().contains(Control::AUTONEGOTIATION);
        self.link().filter(|link| negotiates && !link.loopback)
    }

    /// Reads a register.
    pub(crate) fn read(&mut self, number: u8) -> u16 {
        let link = self.link();
        let negotiated = self.negotiated().is_some();
        match number {
            register::STATUS => {
                let mut status = STATUS;
                let was_down = std::mem::take(&mut self.was_down);
                status.set(Status::LINK, link.is_some() && !was_down);
                status.set(Status::AUTONEGOTIATION_COMPLETE, negotiated);
                status.bits()
            }
            register::ID1 => ID1,
            register::ID2 => ID2,
            register::PARTNER_ABILITY if negotiated => (ABILITIES | Ability::ACKNOWLEDGE).bits(),
            register::EXPANSION if negotiated => {
                let page =
                    if std::mem::take(&mut self.page) { expansion::PAGE_RECEIVED } else { 0 };
                expansion::PARTNER_ABLE | expansion::NEXT_PAGE_ABLE | page
            }
            register::EXPANSION => expansion::NEXT_PAGE_ABLE,
            register::GIGABIT_STATUS if negotiated => {
                gigabit_status::PARTNER_HALF
                    | gigabit_status::PARTNER_FULL
                    | gigabit_status::REMOTE_RECEIVER
                    | gigabit_status::LOCAL_RECEIVER
            }
            register::EXTENDED_STATUS => {
                extended_status::GIGABIT_HALF | extended_status::GIGABIT_FULL
            }
            register::SPECIFIC_STATUS => link.map_or(SpecificStatus::empty(), specific).bits(),
            // The others keep what is written, or are zero.
            _ => self.get(number),
        }
    }

    /// Writes a register. Says whether the link has gone down since, were it only to come up again.
    pub(crate) fn write(&mut self, number: u8, value: u16) -> bool {
        let Some((_, keeps, _)) = KEPT.into_iter().find(|(kept, ..)| *kept == number) else {
            return false;
        };
        let before = self.link();
        let negotiated = self.control().contains(Control::AUTONEGOTIATION);
        self.set(number, value & keeps);
        let mut renegotiated = false;
        if number == register::CONTROL {
            let written = Control::from_bits_truncate(value);
            let negotiates = written.contains(Control::AUTONEGOTIATION);
            if written.contains(Control::RESET) {
                self.soft_reset();
                renegotiated = true;
            } else if negotiates && (written.contains(Control::RESTART) || !negotiated) {
                self.renegotiate();
                renegotiated = true;
            }
        }
        let after = self.link();
        if after != before {
            self.was_down = true;
        }
        renegotiated || after != before
    }
}

fn specific(link: Link) -> SpecificStatus {
    let speed = match link.speed {
        Speed::Ten => SpecificStatus::empty(),
        Speed::Hundred => SpecificStatus::SPEED_100,
        Speed::Thousand => SpecificStatus::SPEED_1000,
    };
    let mut status = SpecificStatus::LINK | SpecificStatus::RESOLVED | speed;
    status.set(SpecificStatus::FULL_DUPLEX, link.full_duplex);
    status
}
