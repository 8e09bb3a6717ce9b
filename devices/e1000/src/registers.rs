//! The register map (13.3), as a table: what each register holds after a reset and which of its bits
//! a guest can change. What an access does beyond that is the model's behaviour, not the table's.

mod state;

use std::sync::atomic::{AtomicU32, Ordering};

use paraslot_device::register::Register;
use paraslot_spec::e1000::registers::*;
use paraslot_spec::e1000::{
    Ctrl, CtrlExt, MULTICAST_WORDS, RECEIVE_ADDRESSES, Rctl, Tctl, VLAN_ETHERTYPE, VLAN_WORDS,
    rxcsum, thresholds,
};

pub(crate) use self::state::BankState;

/// CTRL's bits that keep what is written; RST clears itself.
const CTRL_BITS: u32 = Ctrl::all().difference(Ctrl::RST).bits();
/// CTRL_EXT's bits that do.
const CTRL_EXT_BITS: u32 = CtrlExt::all()
    .difference(CtrlExt::PHYINT)
    .difference(CtrlExt::ASDCHK)
    .difference(CtrlExt::EE_RST)
    .bits();
const RCTL_BITS: u32 = Rctl::all().bits() | Rctl::LBM | Rctl::RDMTS | Rctl::MO | Rctl::BSIZE;
const TCTL_BITS: u32 = Tctl::all().difference(Tctl::SWXOFF).bits() | Tctl::CT | Tctl::COLD;
const THRESHOLDS: u32 =
    thresholds::PTHRESH | thresholds::HTHRESH | thresholds::WTHRESH | thresholds::GRAN;
const RXCSUM_BITS: u32 = rxcsum::PCSS | rxcsum::IPOFL | rxcsum::TUOFL | rxcsum::IPV6OFL;
/// A water mark in units of eight bytes, and an enable bit.
const WATER_MARK: u32 = 0x8000_fff8;
/// TXCW: a configuration word, and what to do with it. Nothing: there is no SerDes.
const TXCW_BITS: u32 = 0xc000_ffff;
/// An LED's mode, inversion and blinking, four times.
const LEDCTL_BITS: u32 = 0xcfcf_cfcf;
/// LEDs for link at 1000 Mb/s (3), at 100 Mb/s (2), activity (1, blinking), and link (0).
const LEDCTL_RESET: u32 = 0x0706_8302;
/// Gaps of 8, 8 and 6 units.
const TIPG_RESET: u32 = 0x0060_2008;
/// RSRPD: a size of 12 bits.
const RSRPD_BITS: u32 = 0xfff;
/// WUC: APME, PME_En, PME_Status and APMPME.
const WUC_BITS: u32 = 0xf;
/// WUFC: the wake-up filters.
const WUFC_BITS: u32 = 0x000f_00ff;
/// MANC: what software can set of it.
const MANC_BITS: u32 = 0x003f_ff00;
/// IPAV: valid bits of four IPv4 addresses and one of IPv6.
const IPAV_BITS: u32 = 0x0001_000f;

/// PBA after power-on: 48 KiB for receiving, the rest for transmitting.
pub(crate) const PBA_RESET: u32 = 0x0010_0030;

/// PBA: what is not for receiving is for transmitting (13.4.16).
pub(crate) fn transmit_share(receive: u32) -> u32 {
    64u32.saturating_sub(receive) << 16
}

/// The registers that are not part of an array, and have no storage elsewhere in the model: those of
/// interrupts, statistics and the PHY do.
pub const REGISTERS: [Register; 55] = [
    Register::read_write("CTRL", CTRL, Ctrl::FD.union(Ctrl::SPEED_1000).bits(), CTRL_BITS),
    Register::read_only("EERD", EERD, 0),
    Register::read_write("CTRL_EXT", CTRL_EXT, 0, CTRL_EXT_BITS),
    Register::read_only("MDIC", MDIC, 0),
    Register::read_write("FCAL", FCAL, 0, u32::MAX),
    Register::read_write("FCAH", FCAH, 0, 0xffff),
    Register::read_write("FCT", FCT, 0, 0xffff),
    Register::read_write("VET", VET, VLAN_ETHERTYPE as u32, 0xffff),
    Register::read_write("RCTL", RCTL, 0, RCTL_BITS),
    Register::read_write("FCTTV", FCTTV, 0, 0xffff),
    Register::read_write("TXCW", TXCW, 0, TXCW_BITS),
    Register::read_only("RXCW", RXCW, 0),
    Register::read_write("TCTL", TCTL, 0, TCTL_BITS),
    Register::read_write("TIPG", TIPG, TIPG_RESET, 0x3fff_ffff),
    Register::read_write("AIT", AIT, 0, 0xffff),
    Register::read_write("LEDCTL", LEDCTL, LEDCTL_RESET, LEDCTL_BITS),
    Register::read_write("PBA", PBA, PBA_RESET, 0x7f),
    Register::read_write("FCRTL", FCRTL, 0, WATER_MARK),
    Register::read_write("FCRTH", FCRTH, 0, WATER_MARK),
    Register::read_write("RDBAL", RDBAL, 0, RING_BASE),
    Register::read_write("RDBAH", RDBAH, 0, u32::MAX),
    Register::read_write("RDLEN", RDLEN, 0, RING_LEN),
    Register::read_write("RDH", RDH, 0, INDEX),
    Register::read_write("RDT", RDT, 0, INDEX),
    Register::read_write("RDTR", RDTR, 0, DELAY),
    Register::read_write("RXDCTL", RXDCTL, 1 << 16, THRESHOLDS),
    Register::read_write("RADV", RADV, 0, DELAY),
    Register::read_write("RSRPD", RSRPD, 0, RSRPD_BITS),
    Register::read_write("TDBAL", TDBAL, 0, RING_BASE),
    Register::read_write("TDBAH", TDBAH, 0, u32::MAX),
    Register::read_write("TDLEN", TDLEN, 0, RING_LEN),
    Register::read_write("TDH", TDH, 0, INDEX),
    Register::read_write("TDT", TDT, 0, INDEX),
    Register::read_write("TIDV", TIDV, 0, DELAY),
    Register::read_write("TXDCTL", TXDCTL, 0, THRESHOLDS | thresholds::LWTHRESH),
    Register::read_write("TADV", TADV, 0, DELAY),
    Register::read_write("TSPMT", TSPMT, 0x0100_0400, u32::MAX),
    Register::read_write("RXCSUM", RXCSUM, 0, RXCSUM_BITS),
    Register::read_write("WUC", WUC, 0, WUC_BITS),
    Register::read_write("WUFC", WUFC, 0, WUFC_BITS),
    Register::read_only("WUS", WUS, 0),
    Register::read_write("MANC", MANC, 0, MANC_BITS),
    Register::read_write("IPAV", IPAV, 0, IPAV_BITS),
    Register::read_write("IP4AT0", IP4AT, 0, u32::MAX),
    Register::read_write("IP4AT1", IP4AT + 8, 0, u32::MAX),
    Register::read_write("IP4AT2", IP4AT + 16, 0, u32::MAX),
    Register::read_write("IP4AT3", IP4AT + 24, 0, u32::MAX),
    Register::read_write("IP6AT0", IP6AT, 0, u32::MAX),
    Register::read_write("IP6AT1", IP6AT + 4, 0, u32::MAX),
    Register::read_write("IP6AT2", IP6AT + 8, 0, u32::MAX),
    Register::read_write("IP6AT3", IP6AT + 12, 0, u32::MAX),
    Register::read_only("WUPL", WUPL, 0),
    Register::read_only("STATUS", STATUS, 0),
    Register::read_only("EECD", EECD, 0),
    Register::read_only("FLA", FLA, 0),
];

/// The arrays: name, first register, number of registers, distance in bytes, bits that keep what is
/// written. All are zero after a reset but the first receive address.
pub const ARRAYS: [(&str, u32, usize, u32, u32); 4] = [
    ("RAL", RAL, RECEIVE_ADDRESSES, 8, u32::MAX),
    ("RAH", RAH, RECEIVE_ADDRESSES, 8, ADDRESS_VALID | ADDRESS_SELECT | 0xffff),
    ("MTA", MTA, MULTICAST_WORDS, 4, u32::MAX),
    ("VFTA", VFTA, VLAN_WORDS, 4, u32::MAX),
];

/// Registers that a reset by CTRL.RST leaves alone: the packet buffer's division, which takes effect
/// with that very reset, and what is to wake the system.
const SURVIVORS: [u32; 9] = [PBA, WUC, WUFC, WUS, IPAV, IP4AT, IP4AT + 8, IP4AT + 16, IP4AT + 24];

/// The table's entry for the register at `offset`; a fresh one for a register of an array.
pub(crate) fn find(offset: u32) -> Option<Register> {
    let single = REGISTERS.iter().find(|register| register.offset == offset).copied();
    single.or_else(|| {
        ARRAYS.iter().find_map(|&(name, first, count, distance, writable)| {
            let at = offset.checked_sub(first).filter(|at| at.is_multiple_of(distance))?;
            let index = usize::try_from(at / distance).ok()?;
            (index < count).then_some(Register::read_write(name, offset, 0, writable))
        })
    })
}

/// Bytes of registers that have storage; what lies beyond reads zero.
const LEN: u32 = 0x6000;

/// What the registers hold. Any thread may read; the vCPU's accesses, one at a time, write, and the
/// worker moves the heads.
pub(crate) struct Bank {
    words: Box<[AtomicU32]>,
}

impl Bank {
    pub(crate) fn new() -> Self {
        let words = (0..LEN / 4).map(|_| AtomicU32::new(0)).collect();
        let bank = Self { words };
        for register in &REGISTERS {
            bank.set(register.offset, register.reset);
        }
        bank
    }

    fn word(&self, offset: u32) -> Option<&AtomicU32> {
        self.words.get(usize::try_from(offset / 4).ok()?)
    }

    /// What the register at `offset` holds; zero where there is none.
    pub(crate) fn get(&self, offset: u32) -> u32 {
        self.word(offset).map_or(0, |word| word.load(Ordering::Acquire))
    }

    /// Sets the register at `offset`.
    pub(crate) fn set(&self, offset: u32, value: u32) {
        if let Some(word) = self.word(offset) {
            word.store(value, Ordering::Release);
        }
    }

    /// Back to what the registers hold after a reset; after power-on, if `power_on`.
    pub(crate) fn reset(&self, power_on: bool) {
        for register in &REGISTERS {
            if power_on || !SURVIVORS.contains(&register.offset) {
                self.set(register.offset, register.reset);
            }
        }
        for (_, first, count, distance, _) in ARRAYS {
            for offset in (first..).step_by(usize::try_from(distance).unwrap_or(4)).take(count) {
                self.set(offset, 0);
            }
        }
    }

    /// A ring's registers: those of the receive ring at RDBAL, or of the transmit ring at TDBAL.
    pub(crate) fn ring(&self, low: u32) -> crate::ring::Ring {
        crate::ring::Ring::new(self.get(low), self.get(low + 4), self.get(low + 8))
    }
}
