//! Its features, named as the manual and drivers name them.

use paraslot_spec::e1000::eeprom::{control2, word};
use paraslot_spec::e1000::{
    Ctrl, Eecd, Mdic, Rctl, Status, eerd, phy, registers as at, rxcsum, thresholds,
};
use paraslot_spec::pci::{VENDOR_INTEL, capability};

use crate::entry::Evidence::{Answer, Bits, Capability, Told};
use crate::entry::State::{Accepted, Implemented, Refused};
use crate::entry::{Evidence, Feature};
use crate::records::feature;

/// Whether a register has all these bits.
const fn has(register: u32, bits: u32) -> Evidence {
    Bits { bar: 0, offset: register as u64, mask: bits, value: bits }
}

/// Whether a register keeps these bits.
const fn keeps(register: u32, bits: u32) -> Evidence {
    let offset = register as u64;
    Answer { bar: 0, command: offset, write: bits, answer: offset, mask: bits, value: bits }
}

/// Whether a word of the EEPROM, read by EERD, has these bits and no others of `mask`.
#[expect(clippy::cast_possible_truncation, reason = "there are 64 words")]
const fn eeprom(word: usize, mask: u16, bits: u16) -> Evidence {
    Answer {
        bar: 0,
        command: at::EERD as u64,
        write: (word as u32) << eerd::ADDRESS_SHIFT | eerd::START,
        answer: at::EERD as u64,
        mask: (mask as u32) << eerd::DATA_SHIFT | eerd::DONE,
        value: (bits as u32) << eerd::DATA_SHIFT | eerd::DONE,
    }
}

/// Whether a register of the PHY's, read by MDIC, has these bits and no others of `mask`.
const fn phy(number: u8, mask: u16, bits: u16) -> Evidence {
    let place = (number as u32) << Mdic::REGISTER_SHIFT | phy::ADDRESS << Mdic::PHY_SHIFT;
    let done = Mdic::READY.bits();
    Answer {
        bar: 0,
        command: at::MDIC as u64,
        write: Mdic::READ.bits() | place,
        answer: at::MDIC as u64,
        mask: done | Mdic::ERROR.bits() | mask as u32,
        value: done | bits as u32,
    }
}

pub(super) const FEATURES: &[Feature] = &[
    feature(
        "link at 1000 Mb/s, full duplex",
        Implemented,
        "While the cable is in. Slows nothing down.",
        has(at::STATUS, Status::FD.bits() | Status::LU.bits() | Status::SPEED_1000.bits()),
    ),
    feature(
        "PHY (M88E1011) by MDIC",
        Implemented,
        "Resets, power-down, loopback.",
        phy(phy::register::ID1, u16::MAX, phy::ID1),
    ),
    feature(
        "autonegotiation",
        Implemented,
        "Over at once. The link partner is able to do everything but PAUSE.",
        phy(
            phy::register::STATUS,
            phy::Status::AUTONEGOTIATION_COMPLETE.bits(),
            phy::Status::AUTONEGOTIATION_COMPLETE.bits(),
        ),
    ),
    feature(
        "forced speed and duplex",
        Implemented,
        "STATUS says so.",
        Answer {
            bar: 0,
            command: at::CTRL as u64,
            write: Ctrl::FRCSPD.bits() | Ctrl::SPEED_100.bits(),
            answer: at::STATUS as u64,
            mask: Status::SPEED_100.bits() | Status::SPEED_1000.bits(),
            value: Status::SPEED_100.bits(),
        },
    ),
    feature(
        "EEPROM by EERD",
        Implemented,
        "With a checksum, as drivers look for one.",
        eeprom(word::VENDOR, u16::MAX, VENDOR_INTEL),
    ),
    feature(
        "EEPROM by EECD",
        Implemented,
        "Bit by bit (Microwire); it can be written, until the adapter goes.",
        has(at::EECD, Eecd::PRES.bits()),
    ),
    feature("registers by I/O ports", Implemented, "IOADDR and IODATA, BAR 1.", Told),
    feature("legacy descriptors", Implemented, "With a checksum anywhere (CSS, CSO).", Told),
    feature("context and data descriptors", Implemented, "IP, TCP and UDP checksums.", Told),
    feature(
        "TCP segmentation (TSE)",
        Implemented,
        "Left to whoever takes the packet whole, if its context fits its headers; else done here, by the letter.",
        Told,
    ),
    feature(
        "VLAN tags inserted and stripped",
        Implemented,
        "VLE and CTRL.VME.",
        keeps(at::CTRL, Ctrl::VME.bits()),
    ),
    feature(
        "received checksums checked (RXCSUM)",
        Implemented,
        "Of IPv4; of TCP and UDP, with IPV6OFL over IPv6 too.",
        keeps(at::RXCSUM, rxcsum::IPOFL | rxcsum::TUOFL | rxcsum::IPV6OFL),
    ),
    feature(
        "address filters",
        Implemented,
        "16 exact addresses, a table of 4096 bits for multicast, promiscuous modes.",
        keeps(at::RCTL, Rctl::UPE.bits() | Rctl::MPE.bits() | Rctl::BAM.bits()),
    ),
    feature(
        "VLAN filter",
        Implemented,
        "A bit for each of the 4096.",
        keeps(at::RCTL, Rctl::VFE.bits()),
    ),
    feature(
        "long frames",
        Implemented,
        "Up to 16 KiB, over several buffers of 256 bytes to 16 KiB.",
        keeps(at::RCTL, Rctl::LPE.bits() | Rctl::BSEX.bits()),
    ),
    feature("loopback", Implemented, "By the MAC, and by the PHY.", keeps(at::RCTL, Rctl::LBM_MAC)),
    feature(
        "interrupt throttling (ITR)",
        Implemented,
        "In units of 256 ns.",
        keeps(at::ITR, at::DELAY),
    ),
    feature(
        "interrupt delays (RDTR, RADV, TIDV, TADV)",
        Implemented,
        "In units of 1.024 µs.",
        keeps(at::RADV, at::DELAY),
    ),
    feature(
        "low thresholds",
        Implemented,
        "Of descriptors: RXDMT0 by RCTL.RDMTS, TXD_LOW by LWTHRESH.",
        keeps(at::TXDCTL, thresholds::LWTHRESH),
    ),
    feature(
        "small packets (RSRPD)",
        Implemented,
        "Interrupt without delay.",
        keeps(at::RSRPD, 0xfff),
    ),
    feature(
        "pause frames kept from the driver",
        Implemented,
        "Those that FCAL, FCAH and FCT describe, by RCTL.DPF and PMCF.",
        keeps(at::RCTL, Rctl::DPF.bits() | Rctl::PMCF.bits()),
    ),
    feature("statistics", Implemented, "Cleared when read; what cannot happen stays 0.", Told),
    feature(
        "power management",
        Implemented,
        "D0 and D3hot.",
        Capability(capability::POWER_MANAGEMENT),
    ),
    feature(
        "wake-up (WUC, WUFC, IPAV, IP4AT, IP6AT)",
        Accepted,
        "Nobody is woken.",
        keeps(at::WUFC, 0x000f_00ff),
    ),
    feature("manageability (MANC)", Accepted, "", keeps(at::MANC, 0x003f_ff00)),
    feature(
        "thresholds of TXDCTL and RXDCTL",
        Accepted,
        "Descriptors are written back at once.",
        keeps(at::RXDCTL, thresholds::PTHRESH | thresholds::HTHRESH | thresholds::WTHRESH),
    ),
    feature("RPS in a descriptor", Accepted, "Taken for RS.", Told),
    feature(
        "packet buffer (PBA, TSPMT)",
        Accepted,
        "Frames do not wait in it, but in the backend.",
        keeps(at::PBA, 0x20),
    ),
    feature(
        "flow control's water marks and timer",
        Accepted,
        "CTRL.RFCE and TFCE too.",
        keeps(at::FCRTH, 0x8000_fff8),
    ),
    feature(
        "half duplex (CT, COLD, TIPG, AIT)",
        Accepted,
        "There are no collisions.",
        keeps(at::TIPG, 0x3fff_ffff),
    ),
    feature(
        "CTRL.SLU and ASDE",
        Accepted,
        "A link that is negotiated is up.",
        keeps(at::CTRL, Ctrl::SLU.bits() | Ctrl::ASDE.bits()),
    ),
    feature("LEDs (LEDCTL)", Accepted, "", keeps(at::LEDCTL, 0xcfcf_cfcf)),
    feature(
        "software definable pins",
        Accepted,
        "Nothing is wired to them.",
        keeps(at::CTRL, Ctrl::SDP0_DATA.bits() | Ctrl::SDP1_DATA.bits()),
    ),
    feature(
        "FCS of a received frame (RCTL.SECRC clear)",
        Accepted,
        "Four zero bytes stand for it.",
        Told,
    ),
    feature(
        "packet checksum (RXCSUM.PCSS)",
        Accepted,
        "0 in every descriptor.",
        keeps(at::RXCSUM, rxcsum::PCSS),
    ),
    feature(
        "MSI",
        Refused,
        "The chip has it, but not so that drivers would use it.",
        Capability(capability::MSI),
    ),
    feature("MSI-X", Refused, "The chip has none.", Capability(capability::MSI_X)),
    feature("several queues, RSS", Refused, "The chip has one of each.", Told),
    feature(
        "flow control",
        Refused,
        "Pause frames are neither sent nor obeyed; EEPROM and link partner say so.",
        eeprom(word::CONTROL2, control2::PAUSE, control2::PAUSE),
    ),
    feature(
        "TBI and SerDes",
        Refused,
        "The chip has a PHY.",
        has(at::STATUS, Status::TBIMODE.bits()),
    ),
    feature(
        "PCI-X, 64-bit bus",
        Refused,
        "The chip has neither.",
        has(at::STATUS, Status::PCIX_MODE.bits() | Status::BUS64.bits()),
    ),
    feature(
        "flexible wake-up filters (FFLT, FFMT, FFVT)",
        Refused,
        "They read 0.",
        keeps(at::FFLT, 0xff),
    ),
    feature("flash (FLA)", Refused, "Reads 0.", keeps(at::FLA, 1)),
    feature("expansion ROM", Refused, "", Told),
    feature(
        "packet buffer memory and FIFOs, for diagnosis",
        Refused,
        "They read 0.",
        keeps(at::PBM, 1),
    ),
    feature("the PHY's own interrupt", Refused, "The link has one (LSC).", Told),
];
