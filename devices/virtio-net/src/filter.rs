//! Which received frames the driver wants (5.1.9.5.1 to 5.1.9.5.3).

use paraslot_spec::net::{ETHERNET_BROADCAST, ETHERNET_GROUP, ether_type, tci};
use paraslot_spec::virtio_net::feature;
use serde::{Deserialize, Serialize};

/// As many of a frame's first bytes as the filter looks at: addresses and a VLAN tag.
pub(crate) const LOOKED_AT: usize = 18;

/// VLANs that there are.
const VLANS: u16 = 4096;

/// A station's or a group's address.
pub(crate) type Mac = [u8; 6];

/// Addresses of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// In order.
    entries: Vec<Mac>,
    /// There were too many: every address counts as an entry.
    overflow: bool,
}

impl Table {
    /// A table of these.
    pub(crate) fn new(mut entries: Vec<Mac>) -> Self {
        entries.sort_unstable();
        Self { entries, overflow: false }
    }

    /// The table of all addresses.
    pub(crate) fn overflow() -> Self {
        Self { entries: Vec::new(), overflow: true }
    }

    /// Its entries, in order; `None` for the table of all.
    pub(crate) fn entries(&self) -> Option<&[Mac]> {
        (!self.overflow).then_some(&self.entries)
    }

    fn contains(&self, mac: &Mac) -> bool {
        self.overflow || self.entries.binary_search(mac).is_ok()
    }
}

/// Receive modes that are on or off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "six modes, each on or off, in any combination")]
pub(crate) struct Modes {
    pub(crate) promisc: bool,
    pub(crate) allmulti: bool,
    pub(crate) alluni: bool,
    pub(crate) nomulti: bool,
    pub(crate) nouni: bool,
    pub(crate) nobcast: bool,
}

/// What the driver has asked for.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    /// Frames are looked at for their addresses.
    by_address: bool,
    /// Frames with a VLAN tag are looked at for it.
    by_vlan: bool,
    pub(crate) modes: Modes,
    /// The driver's own address, where it is known.
    pub(crate) mac: Option<Mac>,
    pub(crate) unicast: Table,
    pub(crate) multicast: Table,
    vlans: [u64; VLANS as usize / 64],
}

impl Filter {
    /// The filter that a driver starts with. One that cannot say what it wants gets everything; one
    /// that did not take the device's address is not known before it sets its own.
    pub(crate) fn new(features: u64, mac: Mac) -> Self {
        Self {
            by_address: features & feature::CTRL_RX != 0,
            by_vlan: features & feature::CTRL_VLAN != 0,
            modes: Modes::default(),
            mac: (features & feature::MAC != 0).then_some(mac),
            unicast: Table::default(),
            multicast: Table::default(),
            vlans: [0; VLANS as usize / 64],
        }
    }

    /// Whether all frames pass without being looked at.
    pub(crate) fn is_open(&self) -> bool {
        self.modes.promisc || !(self.by_address || self.by_vlan)
    }

    /// Adds a VLAN to the table or takes it out; `false` if there is no such VLAN.
    pub(crate) fn set_vlan(&mut self, vlan: u16, there: bool) -> bool {
        let bit = 1 << (vlan % 64);
        let Some(word) = self.vlans.get_mut(usize::from(vlan / 64)) else { return false };
        if there {
            *word |= bit;
        } else {
            *word &= !bit;
        }
        true
    }

    /// The VLANs in the table, in rising order.
    pub(crate) fn vlans(&self) -> impl Iterator<Item = u16> {
        (0..VLANS).filter(|vlan| self.has_vlan(*vlan))
    }

    fn has_vlan(&self, vlan: u16) -> bool {
        let word = self.vlans.get(usize::from(vlan / 64));
        word.is_some_and(|word| word & 1 << (vlan % 64) != 0)
    }

    /// Whether the driver wants the frame that starts like this.
    pub(crate) fn passes(&self, frame: &[u8]) -> bool {
        if self.is_open() {
            return true;
        }
        if self.by_vlan && vlan_of(frame).is_some_and(|vlan| !self.has_vlan(vlan)) {
            return false;
        }
        !self.by_address || self.passes_address(frame)
    }

    fn passes_address(&self, frame: &[u8]) -> bool {
        let Some(destination) = frame.first_chunk() else { return false };
        let modes = &self.modes;
        if *destination == ETHERNET_BROADCAST {
            !modes.nobcast
        } else if destination[0] & ETHERNET_GROUP != 0 {
            !modes.nomulti && (modes.allmulti || self.multicast.contains(destination))
        } else {
            let own = self.mac.is_none_or(|mac| mac == *destination);
            !modes.nouni && (modes.alluni || own || self.unicast.contains(destination))
        }
    }
}

/// The VLAN that a frame is tagged with. A tag for a priority alone (IEEE 802.1Q, 9.6) names none;
/// the outer tag of a provider's network is not what the table is about.
fn vlan_of(frame: &[u8]) -> Option<u16> {
    let [kind_high, kind_low, tci_high, tci_low] = *frame.get(12..)?.first_chunk()?;
    let vlan = u16::from_be_bytes([tci_high, tci_low]) & tci::VID;
    (u16::from_be_bytes([kind_high, kind_low]) == ether_type::VLAN && vlan != 0).then_some(vlan)
}

/// Bytes before the IP packet in a frame that starts like this, as far as they are of Ethernet.
pub(crate) fn link_header_len(frame: &[u8]) -> usize {
    let mut len = paraslot_spec::net::ETHERNET_HEADER;
    // Two tags at most.
    for _ in 0..2 {
        let kind = frame.get(len - 2..len).map_or(0, |kind| u16::from_be_bytes([kind[0], kind[1]]));
        if !matches!(kind, ether_type::VLAN | ether_type::SERVICE_VLAN) {
            break;
        }
        len += paraslot_spec::net::VLAN_TAG;
    }
    len
}
