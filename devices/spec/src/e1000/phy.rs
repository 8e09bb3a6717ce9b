//! The internal PHY, a Marvell M88E1011, behind MDIC (13.4.7.1; IEEE 802.3, 22.2.4).

use bitflags::bitflags;

/// Address of the internal PHY in MDIC (13.4.7).
pub const ADDRESS: u32 = 1;
/// Registers, of 16 bits.
pub const REGISTERS: usize = 32;

/// Register numbers (13.4.7.1).
pub mod register {
    /// Control: [`super::Control`].
    pub const CONTROL: u8 = 0;
    /// Status: [`super::Status`].
    pub const STATUS: u8 = 1;
    /// Identifier, high.
    pub const ID1: u8 = 2;
    /// Identifier, low.
    pub const ID2: u8 = 3;
    /// Autonegotiation advertisement: [`super::Ability`].
    pub const ADVERTISEMENT: u8 = 4;
    /// Link partner's ability: [`super::Ability`].
    pub const PARTNER_ABILITY: u8 = 5;
    /// Autonegotiation expansion: [`super::expansion`].
    pub const EXPANSION: u8 = 6;
    /// Next page to transmit.
    pub const NEXT_PAGE: u8 = 7;
    /// Link partner's next page.
    pub const PARTNER_NEXT_PAGE: u8 = 8;
    /// 1000BASE-T control: [`super::gigabit_control`].
    pub const GIGABIT_CONTROL: u8 = 9;
    /// 1000BASE-T status: [`super::gigabit_status`].
    pub const GIGABIT_STATUS: u8 = 10;
    /// Extended status: [`super::extended_status`].
    pub const EXTENDED_STATUS: u8 = 15;
    /// M88: PHY specific control.
    pub const SPECIFIC_CONTROL: u8 = 16;
    /// M88: PHY specific status: [`super::SpecificStatus`].
    pub const SPECIFIC_STATUS: u8 = 17;
    /// M88: interrupt enable: [`super::Interrupt`].
    pub const INTERRUPT_ENABLE: u8 = 18;
    /// M88: interrupt status: [`super::Interrupt`].
    pub const INTERRUPT_STATUS: u8 = 19;
    /// M88: extended PHY specific control.
    pub const EXTENDED_CONTROL: u8 = 20;
    /// M88: receive error counter.
    pub const RECEIVE_ERRORS: u8 = 21;
    /// M88: page select for register 30.
    pub const PAGE_SELECT: u8 = 29;
    /// M88: register of the selected page.
    pub const PAGE_DATA: u8 = 30;
}

/// Identifier of the M88E1011, high.
pub const ID1: u16 = 0x0141;
/// Identifier of the M88E1011, low: model and, in bits 3:0, the revision.
pub const ID2: u16 = 0x0c20;

bitflags! {
    /// Control (IEEE 802.3, 22.2.4.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Control: u16 {
        /// Speed selection, high bit: 1000 Mb/s.
        const SPEED_1000 = 1 << 6;
        /// Collision test.
        const COLLISION_TEST = 1 << 7;
        /// Full duplex.
        const FULL_DUPLEX = 1 << 8;
        /// Restart autonegotiation; clears itself.
        const RESTART = 1 << 9;
        /// Isolate the PHY from the MAC.
        const ISOLATE = 1 << 10;
        /// Power down.
        const POWER_DOWN = 1 << 11;
        /// Autonegotiation.
        const AUTONEGOTIATION = 1 << 12;
        /// Speed selection, low bit: 100 Mb/s.
        const SPEED_100 = 1 << 13;
        /// Loopback.
        const LOOPBACK = 1 << 14;
        /// Reset; clears itself.
        const RESET = 1 << 15;
    }
}

bitflags! {
    /// Status (IEEE 802.3, 22.2.4.2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Status: u16 {
        /// There are extended registers.
        const EXTENDED_CAPABILITY = 1 << 0;
        /// Jabber.
        const JABBER = 1 << 1;
        /// Link is up; once it was down it reads zero until it has been read.
        const LINK = 1 << 2;
        /// Able to autonegotiate.
        const AUTONEGOTIATION_ABILITY = 1 << 3;
        /// Remote fault.
        const REMOTE_FAULT = 1 << 4;
        /// Autonegotiation is complete.
        const AUTONEGOTIATION_COMPLETE = 1 << 5;
        /// Preamble may be suppressed.
        const PREAMBLE_SUPPRESSION = 1 << 6;
        /// There is extended status.
        const EXTENDED_STATUS = 1 << 8;
        /// 10BASE-T, half duplex.
        const TEN_HALF = 1 << 11;
        /// 10BASE-T, full duplex.
        const TEN_FULL = 1 << 12;
        /// 100BASE-X, half duplex.
        const HUNDRED_HALF = 1 << 13;
        /// 100BASE-X, full duplex.
        const HUNDRED_FULL = 1 << 14;
    }
}

bitflags! {
    /// What is advertised, by us or by the link partner (IEEE 802.3, 28.2.4.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ability: u16 {
        /// Selector: IEEE 802.3.
        const SELECTOR_802_3 = 1 << 0;
        /// 10BASE-T.
        const TEN_HALF = 1 << 5;
        /// 10BASE-T, full duplex.
        const TEN_FULL = 1 << 6;
        /// 100BASE-TX.
        const HUNDRED_HALF = 1 << 7;
        /// 100BASE-TX, full duplex.
        const HUNDRED_FULL = 1 << 8;
        /// 100BASE-T4.
        const HUNDRED_T4 = 1 << 9;
        /// PAUSE.
        const PAUSE = 1 << 10;
        /// PAUSE, asymmetric direction.
        const ASYMMETRIC_PAUSE = 1 << 11;
        /// Remote fault.
        const REMOTE_FAULT = 1 << 13;
        /// Acknowledge.
        const ACKNOWLEDGE = 1 << 14;
        /// Next page.
        const NEXT_PAGE = 1 << 15;
    }
}

/// Autonegotiation expansion (IEEE 802.3, 28.2.4.1.5).
pub mod expansion {
    /// The link partner is able to autonegotiate.
    pub const PARTNER_ABLE: u16 = 1 << 0;
    /// A page was received; cleared when read.
    pub const PAGE_RECEIVED: u16 = 1 << 1;
    /// The PHY is able to exchange next pages.
    pub const NEXT_PAGE_ABLE: u16 = 1 << 2;
    /// So is the link partner.
    pub const PARTNER_NEXT_PAGE_ABLE: u16 = 1 << 3;
}

/// 1000BASE-T control (IEEE 802.3, 40.5.1.1).
pub mod gigabit_control {
    /// Advertise half duplex.
    pub const HALF: u16 = 1 << 8;
    /// Advertise full duplex.
    pub const FULL: u16 = 1 << 9;
    /// Multi-port device.
    pub const MULTI_PORT: u16 = 1 << 10;
    /// Be master, if set by hand.
    pub const MASTER: u16 = 1 << 11;
    /// Master or slave is set by hand.
    pub const MANUAL: u16 = 1 << 12;
}

/// 1000BASE-T status (IEEE 802.3, 40.5.1.1).
pub mod gigabit_status {
    /// The link partner can do half duplex.
    pub const PARTNER_HALF: u16 = 1 << 10;
    /// The link partner can do full duplex.
    pub const PARTNER_FULL: u16 = 1 << 11;
    /// The remote receiver is well.
    pub const REMOTE_RECEIVER: u16 = 1 << 12;
    /// The local receiver is well.
    pub const LOCAL_RECEIVER: u16 = 1 << 13;
    /// The PHY is the master.
    pub const MASTER: u16 = 1 << 14;
}

/// Extended status (IEEE 802.3, 22.2.4.4).
pub mod extended_status {
    /// 1000BASE-T, half duplex.
    pub const GIGABIT_HALF: u16 = 1 << 12;
    /// 1000BASE-T, full duplex.
    pub const GIGABIT_FULL: u16 = 1 << 13;
}

bitflags! {
    /// M88: PHY specific status (13.4.7.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct SpecificStatus: u16 {
        /// Jabber.
        const JABBER = 1 << 0;
        /// Polarity is reversed.
        const REVERSED = 1 << 1;
        /// The link was brought up at a lower speed.
        const DOWNSHIFT = 1 << 5;
        /// Crossed over.
        const MDIX = 1 << 6;
        /// Link is up, now.
        const LINK = 1 << 10;
        /// Speed and duplex are resolved.
        const RESOLVED = 1 << 11;
        /// A page was received.
        const PAGE_RECEIVED = 1 << 12;
        /// Full duplex.
        const FULL_DUPLEX = 1 << 13;
        /// 100 Mb/s.
        const SPEED_100 = 1 << 14;
        /// 1000 Mb/s.
        const SPEED_1000 = 1 << 15;
    }
}

bitflags! {
    /// M88: interrupts (13.4.7.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Interrupt: u16 {
        /// Link changed.
        const LINK = 1 << 10;
        /// Autonegotiation completed.
        const AUTONEGOTIATION = 1 << 11;
        /// A page was received.
        const PAGE_RECEIVED = 1 << 12;
        /// Duplex changed.
        const DUPLEX = 1 << 13;
        /// Speed changed.
        const SPEED = 1 << 14;
    }
}

/// M88: PHY specific control (13.4.7.1).
pub mod specific_control {
    /// Jabber is not detected.
    pub const JABBER_DISABLE: u16 = 1 << 0;
    /// Polarity is not corrected.
    pub const POLARITY_REVERSAL: u16 = 1 << 1;
    /// Crossover: automatic at all speeds.
    pub const AUTO_CROSSOVER: u16 = 0b11 << 5;
    /// Force the link to be good.
    pub const FORCE_LINK: u16 = 1 << 10;
    /// Carrier sense while transmitting.
    pub const CARRIER_ON_TRANSMIT: u16 = 1 << 11;
}

/// M88: extended PHY specific control (13.4.7.1).
pub mod extended_control {
    /// TX_CLK of 2.5 MHz.
    pub const TX_CLK_2_5: u16 = 0b110 << 4;
    /// TX_CLK of 25 MHz.
    pub const TX_CLK_25: u16 = 0b111 << 4;
    /// What it holds after a reset: TX_CLK of 2.5 MHz, downshift after four attempts as a master and
    /// one as a slave.
    pub const RESET: u16 = TX_CLK_2_5 | 0b11 << 10 | 0b01 << 8;
}
