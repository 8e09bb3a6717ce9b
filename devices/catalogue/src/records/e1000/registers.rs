//! Its registers, 32 bits each.

use paraslot_spec::e1000::{IO_BAR, IOADDR, IODATA, registers as at};

use super::statistics::STATISTICS;
use crate::entry::Access::{self, Read, ReadToClear, ReadWrite, Write, WriteOneToSet};
use crate::entry::{Block, Register};

pub(super) const fn register(
    name: &'static str,
    offset: u32,
    access: Access,
    effect: &'static str,
) -> Register {
    crate::records::register(name, offset as u64, 4, access, effect)
}

/// Registers in the memory BAR, by their offsets in it.
pub(super) const fn block(name: &'static str, registers: &'static [Register]) -> Block {
    Block { name, bar: 0, base: 0, repeated: None, negotiated: false, registers }
}

/// `count` of them, from `base` on.
const fn array(
    name: &'static str,
    base: u32,
    count: u16,
    distance: u64,
    registers: &'static [Register],
) -> Block {
    let repeated = Some((count, distance));
    Block { name, bar: 0, base: base as u64, repeated, negotiated: false, registers }
}

pub(super) const REGISTERS: &[Block] = &[
    block(
        "General (13.4.1 to 13.4.16)",
        &[
            register(
                "CTRL",
                at::CTRL,
                ReadWrite,
                "Speed and duplex, VLAN mode; RST resets, and reads 0 at once; PHY_RST resets the PHY.",
            ),
            register("CTRL, again", at::CTRL_DUP, ReadWrite, "The same register."),
            register("STATUS", at::STATUS, Read, "Link, speed, duplex."),
            register("EECD", at::EECD, ReadWrite, "The EEPROM's pins; EE_GNT follows EE_REQ."),
            register(
                "EERD",
                at::EERD,
                ReadWrite,
                "START and an address read a word of the EEPROM: it is there at once, with DONE.",
            ),
            register("CTRL_EXT", at::CTRL_EXT, ReadWrite, "EE_RST loads the address anew."),
            register("FLA", at::FLA, Read, "There is no flash: 0."),
            register(
                "MDIC",
                at::MDIC,
                ReadWrite,
                "Reads or writes a register of the PHY's, with the write of its top byte; READY at once.",
            ),
            register("FCAL", at::FCAL, ReadWrite, "Address of pause frames, lower half."),
            register("FCAH", at::FCAH, ReadWrite, "Its upper half."),
            register("FCT", at::FCT, ReadWrite, "Their Ethertype."),
            register("VET", at::VET, ReadWrite, "The Ethertype of tags."),
            register(
                "FCTTV",
                at::FCTTV,
                ReadWrite,
                "Kept, without effect: no pause frame is sent.",
            ),
            register("TXCW", at::TXCW, ReadWrite, "Kept, without effect: there is no SerDes."),
            register("RXCW", at::RXCW, Read, "Likewise: 0."),
            register("LEDCTL", at::LEDCTL, ReadWrite, "Kept, without effect: there are no LEDs."),
            register(
                "PBA",
                at::PBA,
                ReadWrite,
                "KiB for receiving, which can be written; what is left of 64 is for transmitting.",
            ),
        ],
    ),
    block(
        "Interrupts (13.4.17 to 13.4.21)",
        &[
            register(
                "ICR",
                at::ICR,
                ReadToClear,
                "Causes. Reading clears them and lowers the pin; so do ones that are written.",
            ),
            register(
                "ITR",
                at::ITR,
                ReadWrite,
                "Least time between two interrupts, in units of 256 ns; 0 for none.",
            ),
            register("ICS", at::ICS, WriteOneToSet, "Raises causes. Reads them, without clearing."),
            register("IMS", at::IMS, WriteOneToSet, "Lets causes interrupt. Reads those that may."),
            register("IMC", at::IMC, Write, "Ones keep causes from interrupting. Reads 0."),
        ],
    ),
    block(
        "Receiving (13.4.22 to 13.4.32, 13.4.46, 13.4.47)",
        &[
            register(
                "RCTL",
                at::RCTL,
                ReadWrite,
                "On and off, filters, loopback, buffers' size. Off holds once its write is over.",
            ),
            register(
                "FCRTL",
                at::FCRTL,
                ReadWrite,
                "Kept, without effect: no pause frame is sent.",
            ),
            register("FCRTH", at::FCRTH, ReadWrite, "Likewise."),
            register(
                "RDBAL",
                at::RDBAL,
                ReadWrite,
                "The ring's address, a multiple of 16, lower half.",
            ),
            register("RDBAH", at::RDBAH, ReadWrite, "Its upper half."),
            register("RDLEN", at::RDLEN, ReadWrite, "Its bytes, a multiple of 128."),
            register("RDH", at::RDH, ReadWrite, "The next descriptor that the device takes."),
            register(
                "RDT",
                at::RDT,
                ReadWrite,
                "The descriptor behind the last of the driver's. A doorbell whose value matters: an exit.",
            ),
            register(
                "RDTR",
                at::RDTR,
                ReadWrite,
                "Delay of RXT0 after a frame, in units of 1.024 µs. FPD ends it now, and reads 0.",
            ),
            register("RXDCTL", at::RXDCTL, ReadWrite, "Thresholds, kept without effect."),
            register("RADV", at::RADV, ReadWrite, "Longest delay of RXT0."),
            register("RSRPD", at::RSRPD, ReadWrite, "Frames up to this size raise SRPD; 0: none."),
            register("RXCSUM", at::RXCSUM, ReadWrite, "Which checksums are checked."),
        ],
    ),
    block(
        "Transmitting (13.4.33 to 13.4.45)",
        &[
            register(
                "TCTL",
                at::TCTL,
                ReadWrite,
                "On and off, padding. Off holds once its write is over. CT and COLD have no effect.",
            ),
            register("TIPG", at::TIPG, ReadWrite, "Kept, without effect: there are no gaps."),
            register("AIT", at::AIT, ReadWrite, "Likewise."),
            register(
                "TDBAL",
                at::TDBAL,
                ReadWrite,
                "The ring's address, a multiple of 16, lower half.",
            ),
            register("TDBAH", at::TDBAH, ReadWrite, "Its upper half."),
            register("TDLEN", at::TDLEN, ReadWrite, "Its bytes, a multiple of 128."),
            register("TDH", at::TDH, ReadWrite, "The next descriptor that the device takes."),
            register(
                "TDT",
                at::TDT,
                ReadWrite,
                "The descriptor behind the last of the driver's. A doorbell whose value matters: an exit.",
            ),
            register(
                "TIDV",
                at::TIDV,
                ReadWrite,
                "Delay of TXDW after a packet with IDE, in units of 1.024 µs. FPD ends it now.",
            ),
            register(
                "TXDCTL",
                at::TXDCTL,
                ReadWrite,
                "LWTHRESH: when TXD_LOW is raised. The other thresholds are kept without effect.",
            ),
            register("TADV", at::TADV, ReadWrite, "Longest delay of TXDW."),
            register("TSPMT", at::TSPMT, ReadWrite, "Kept, without effect."),
        ],
    ),
    STATISTICS,
    array(
        "Exact addresses (13.5.2, 13.5.3)",
        at::RAL,
        16,
        8,
        &[
            register(
                "RAL",
                0,
                ReadWrite,
                "An address' first four bytes. A reset loads the first one.",
            ),
            register("RAH", 4, ReadWrite, "Its last two; bit 31: it is valid."),
        ],
    ),
    array(
        "Multicast table (13.5.1)",
        at::MTA,
        128,
        4,
        &[register(
            "MTA",
            0,
            ReadWrite,
            "A bit for each value of 12 bits of an address (RCTL.MO).",
        )],
    ),
    array(
        "VLAN filter table (13.5.4)",
        at::VFTA,
        128,
        4,
        &[register("VFTA", 0, ReadWrite, "A bit for each VLAN, with RCTL.VFE.")],
    ),
    block(
        "Wake-up and management (13.6), kept without effect",
        &[
            register("WUC", at::WUC, ReadWrite, "Wake-up control. A reset by CTRL.RST leaves it."),
            register("WUFC", at::WUFC, ReadWrite, "What wakes. Likewise."),
            register("WUS", at::WUS, Read, "What has: 0."),
            register("MANC", at::MANC, ReadWrite, "Management."),
            register("IPAV", at::IPAV, ReadWrite, "Which addresses below are valid."),
            register("IP4AT0", at::IP4AT, ReadWrite, "An IPv4 address."),
            register("IP4AT1", at::IP4AT + 8, ReadWrite, "Likewise."),
            register("IP4AT2", at::IP4AT + 16, ReadWrite, "Likewise."),
            register("IP4AT3", at::IP4AT + 24, ReadWrite, "Likewise."),
            register("IP6AT0", at::IP6AT, ReadWrite, "An IPv6 address."),
            register("IP6AT1", at::IP6AT + 4, ReadWrite, "Its second part."),
            register("IP6AT2", at::IP6AT + 8, ReadWrite, "Its third."),
            register("IP6AT3", at::IP6AT + 12, ReadWrite, "Its fourth."),
            register("WUPL", at::WUPL, Read, "Length of the packet that woke: 0."),
        ],
    ),
    Block {
        name: "I/O ports (13.2.2)",
        bar: IO_BAR,
        base: 0,
        repeated: None,
        negotiated: false,
        registers: &[
            crate::records::register("IOADDR", IOADDR, 4, ReadWrite, "Offset of a register above."),
            crate::records::register("IODATA", IODATA, 4, ReadWrite, "That register."),
        ],
    },
];
