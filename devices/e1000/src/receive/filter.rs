//! Which frames are for the guest (13.4.22, 13.5).

use paraslot_spec::e1000::registers::{FCAH, FCAL, FCT, MTA, RCTL, VET, VFTA};
use paraslot_spec::e1000::{Rctl, VLAN_WORDS};
use paraslot_spec::net::{ETHERNET_BROADCAST, ETHERNET_GROUP, tci};

use crate::shared::Shared;

/// How a frame has passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Passed {
    /// By the multicast table alone, which others pass too.
    pub(crate) inexact: bool,
    /// The tag of a frame whose type is VET's.
    pub(crate) tag: Option<u16>,
}

/// Whether `frame`, which has a whole Ethernet header, is for the guest.
pub(crate) fn pass(shared: &Shared, frame: &[u8]) -> Option<Passed> {
    let rctl = shared.bank.get(RCTL);
    let has = |bit: Rctl| rctl & bit.bits() != 0;
    let destination: [u8; 6] = *frame.first_chunk()?;
    let ether_type = u16::from_be_bytes(*frame.get(12..)?.first_chunk()?);
    let [first, ..] = destination;

    let mut inexact = false;
    let wanted = if destination == ETHERNET_BROADCAST && has(Rctl::BAM) {
        true
    } else if first & ETHERNET_GROUP == 0 {
        has(Rctl::UPE) || shared.has_address(destination)
    } else if has(Rctl::MPE) || shared.has_address(destination) {
        true
    } else {
        inexact = in_table(shared, destination, rctl);
        inexact
    };
    if !wanted || is_pause(shared, rctl, destination, ether_type) {
        return None;
    }
    let mut tag = None;
    if u32::from(ether_type) == shared.bank.get(VET)
        && let Some(control) = frame.get(14..).and_then(|rest| rest.first_chunk())
    {
        let control = u16::from_be_bytes(*control);
        tag = Some(control);
        let canonical = control & tci::DEI == 0;
        if has(Rctl::VFE) && !in_vlan_table(shared, control & tci::VID)
            || has(Rctl::CFIEN) && canonical == has(Rctl::CFI)
        {
            return None;
        }
    }
    Some(Passed { inexact, tag })
}

/// Whether the multicast table has `address`: twelve of its upper bits index a bit (13.5.1).
fn in_table(shared: &Shared, address: [u8; 6], rctl: u32) -> bool {
    let [.., fifth, sixth] = address;
    let upper = u16::from_le_bytes([fifth, sixth]);
    let shift = match (rctl & Rctl::MO) >> Rctl::MO_SHIFT {
        0 => 4,
        1 => 3,
        2 => 2,
        _ => 0,
    };
    bit(shared, MTA, upper >> shift & 0xfff)
}

fn in_vlan_table(shared: &Shared, vid: u16) -> bool {
    bit(shared, VFTA, vid)
}

/// Bit `index`, of 4096, of a table.
fn bit(shared: &Shared, table: u32, index: u16) -> bool {
    const { assert!(VLAN_WORDS * 32 == 4096) };
    let word = u32::from(index >> 5 & 0x7f);
    shared.bank.get(table + word * 4) >> (index & 31) & 1 != 0
}

/// Whether it is a pause frame that is to be kept from the guest.
fn is_pause(shared: &Shared, rctl: u32, destination: [u8; 6], ether_type: u16) -> bool {
    if u32::from(ether_type) != shared.bank.get(FCT) || ether_type == 0 {
        return false;
    }
    let [a, b, c, d, e, f] = destination;
    let low = u32::from_le_bytes([a, b, c, d]);
    let high = u32::from(u16::from_le_bytes([e, f]));
    (shared.bank.get(FCAL), shared.bank.get(FCAH)) == (low, high)
        && (rctl & Rctl::DPF.bits() != 0 || rctl & Rctl::PMCF.bits() == 0)
}
