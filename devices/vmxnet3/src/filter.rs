//! Which frames are for the guest.

use paraslot_device::StateError;
use paraslot_spec::net::{ETHERNET_BROADCAST, ETHERNET_GROUP, ether_type, tci};
use paraslot_spec::vmxnet3::{RxMode, VFT_SIZE};
use serde::{Deserialize, Serialize};

use crate::save::{is_default, require};

/// A station's or a group's address.
pub(crate) type Mac = [u8; 6];

/// The receive filters, but for the station address.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    pub(crate) mode: RxMode,
    /// In order.
    multicast: Vec<Mac>,
    vlans: Box<[u32; VFT_SIZE]>,
    /// Tagged frames are let in by their ID.
    by_vlan: bool,
}

impl Filter {
    /// A filter that lets nothing in.
    pub(crate) fn new() -> Self {
        Self {
            mode: RxMode::empty(),
            multicast: Vec::new(),
            vlans: Box::new([0; VFT_SIZE]),
            by_vlan: false,
        }
    }

    /// Sets the multicast table, six bytes an address; what is left over is no address.
    pub(crate) fn set_multicast(&mut self, table: &[u8]) {
        let (addresses, _) = table.as_chunks::<6>();
        self.multicast = addresses.to_vec();
        self.multicast.sort_unstable();
        self.multicast.dedup();
    }

    /// Sets the VLAN table. One without any ID, not even that of untagged frames, is no filter:
    /// FreeBSD's driver clears all of it for want of a filter, where Linux's has ID 0 in it.
    pub(crate) fn set_vlans(&mut self, table: [u32; VFT_SIZE]) {
        *self.vlans = table;
        self.by_vlan = table.iter().any(|word| *word != 0);
    }

    /// Whether `frame`, which has a whole Ethernet header, is for the guest at `mac`.
    pub(crate) fn passes(&self, frame: &[u8], mac: Mac) -> bool {
        if self.mode.contains(RxMode::PROMISC) {
            return true;
        }
        if self.by_vlan && tag(frame).is_some_and(|tag| !self.has_vlan(tag & tci::VID)) {
            return false;
        }
        let Some(destination) = frame.first_chunk::<6>() else { return false };
        if *destination == ETHERNET_BROADCAST {
            self.mode.contains(RxMode::BCAST)
        } else if destination[0] & ETHERNET_GROUP == 0 {
            self.mode.contains(RxMode::UCAST) && *destination == mac
        } else {
            self.mode.contains(RxMode::ALL_MULTI)
                || self.mode.contains(RxMode::MCAST)
                    && self.multicast.binary_search(destination).is_ok()
        }
    }

    /// ID 0 is a priority and no VLAN, and ID 4095 is reserved; no driver lists them for tagged frames.
    fn has_vlan(&self, vid: u16) -> bool {
        let word = self.vlans.get(usize::from(vid >> 5));
        matches!(vid, 0 | tci::VID) || word.is_some_and(|word| word >> (vid & 31) & 1 != 0)
    }
}

/// The receive filters, saved. The tables are bytes in hexadecimal digits.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FilterState {
    mode: u32,
    /// The multicast addresses, in order.
    #[serde(default, with = "hex", skip_serializing_if = "is_default")]
    multicast: Vec<u8>,
    /// The VLAN table's words, each with its low byte first; nothing for an empty one.
    #[serde(default, with = "hex", skip_serializing_if = "is_default")]
    vlans: Vec<u8>,
}

impl Filter {
    pub(crate) fn save(&self) -> FilterState {
        let Self { mode, multicast, vlans, by_vlan } = self;
        let vlans = vlans.iter().flat_map(|word| word.to_le_bytes()).filter(|_| *by_vlan);
        FilterState { mode: mode.bits(), multicast: multicast.concat(), vlans: vlans.collect() }
    }

    pub(crate) fn restored(state: &FilterState) -> Result<Self, StateError> {
        let FilterState { mode, multicast, vlans } = state;
        let mode = RxMode::from_bits(*mode);
        let mut filter = Self::new();
        filter.mode =
            mode.ok_or_else(|| StateError::impossible("a mode of the receive filters"))?;
        let len = u16::try_from(multicast.len()).is_ok();
        filter.set_multicast(multicast);
        require(len && filter.multicast.concat() == *multicast, "the multicast table")?;
        if !vlans.is_empty() {
            let (words, rest) = vlans.as_chunks::<4>();
            let words: Result<[[u8; 4]; VFT_SIZE], _> = words.try_into();
            let words = words.ok().filter(|_| rest.is_empty());
            let words =
                words.ok_or_else(|| StateError::impossible("a VLAN table of another size"))?;
            filter.set_vlans(words.map(u32::from_le_bytes));
            require(filter.by_vlan, "a VLAN table is there that is none")?;
        }
        Ok(filter)
    }
}

/// The control information of the frame's VLAN tag, if it has a whole one.
pub(crate) fn tag(frame: &[u8]) -> Option<u16> {
    let [kind_high, kind_low, high, low] = *frame.get(12..)?.first_chunk()?;
    let tagged = u16::from_be_bytes([kind_high, kind_low]) == ether_type::VLAN;
    tagged.then(|| u16::from_be_bytes([high, low]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];

    fn to(destination: Mac, vid: Option<u16>) -> Vec<u8> {
        let mut frame = [&destination[..], &[2, 0, 0, 0, 0, 1]].concat();
        if let Some(vid) = vid {
            frame.extend([0x81, 0x00]);
            frame.extend((vid | 0xe000).to_be_bytes());
        }
        frame.extend([0x88, 0xb5]);
        frame.resize(60, 0);
        frame
    }

    #[test]
    fn each_mode_lets_its_own_in() {
        let group = [1, 0, 0x5e, 0, 0, 1];
        let other = [1, 0, 0x5e, 0, 0, 2];
        let stranger = [2, 0, 0, 0, 0, 8];
        let kinds = [MAC, stranger, group, other, ETHERNET_BROADCAST];
        let passing = |mode| {
            let mut filter = Filter::new();
            filter.mode = mode;
            filter.set_multicast(&[&group[..], &[9; 5]].concat());
            kinds.map(|kind| filter.passes(&to(kind, None), MAC))
        };
        assert_eq!(passing(RxMode::empty()), [false; 5]);
        assert_eq!(passing(RxMode::UCAST), [true, false, false, false, false]);
        assert_eq!(passing(RxMode::MCAST), [false, false, true, false, false]);
        assert_eq!(passing(RxMode::ALL_MULTI), [false, false, true, true, false]);
        assert_eq!(passing(RxMode::BCAST), [false, false, false, false, true]);
        assert_eq!(passing(RxMode::PROMISC), [true; 5]);
    }

    #[test]
    fn vlans_are_let_in_one_by_one() {
        let mut filter = Filter::new();
        filter.mode = RxMode::UCAST;
        assert!(filter.passes(&to(MAC, Some(7)), MAC));
        let mut table = [0; VFT_SIZE];
        table[4094 / 32] |= 1 << (4094 % 32);
        table[1] |= 1;
        filter.set_vlans(table);
        let passing: Vec<u16> =
            (0..4096).filter(|vid| filter.passes(&to(MAC, Some(*vid)), MAC)).collect();
        assert_eq!(passing, [0, 32, 4094, 4095]);
        assert!(filter.passes(&to(MAC, None), MAC));
        filter.mode = RxMode::PROMISC;
        assert!(filter.passes(&to(MAC, Some(7)), MAC));
        filter.mode = RxMode::UCAST;
        filter.set_vlans([0; VFT_SIZE]);
        assert!(filter.passes(&to(MAC, Some(7)), MAC));
    }

    #[test]
    fn a_frame_that_ends_in_its_tag_has_none() {
        let frame = to(MAC, Some(5));
        assert_eq!(tag(&frame[..15]), None);
        assert_eq!(tag(&frame[..16]), Some(0xe005));
    }
}
