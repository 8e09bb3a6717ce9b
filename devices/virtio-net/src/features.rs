//! Which features need which (5.1.3.1), and what they mean to a backend.

use paraslot_backends::net::Offloads;
use paraslot_backends::net::hash::HashTypes;
use paraslot_spec::virtio::feature as virtio;
use paraslot_spec::virtio_net::feature;

/// All that this device can do.
pub(crate) const SERVED: u64 = virtio::EVENT_IDX
    | virtio::INDIRECT_DESC
    | feature::CSUM
    | feature::GUEST_CSUM
    | feature::CTRL_GUEST_OFFLOADS
    | feature::MTU
    | feature::MAC
    | feature::GUEST_TSO4
    | feature::GUEST_TSO6
    | feature::GUEST_ECN
    | feature::GUEST_UFO
    | feature::HOST_TSO4
    | feature::HOST_TSO6
    | feature::HOST_ECN
    | feature::HOST_UFO
    | feature::MRG_RXBUF
    | feature::STATUS
    | feature::CTRL_VQ
    | feature::CTRL_RX
    | feature::CTRL_VLAN
    | feature::CTRL_RX_EXTRA
    | feature::GUEST_ANNOUNCE
    | feature::MQ
    | feature::CTRL_MAC_ADDR
    | feature::VQ_NOTF_COAL
    | feature::NOTF_COAL
    | feature::GUEST_USO4
    | feature::GUEST_USO6
    | feature::HOST_USO
    | feature::HASH_REPORT
    | feature::RSS
    | feature::SPEED_DUPLEX;

/// Offloads by which a received frame may be longer than the network's.
pub(crate) const GUEST_SEGMENTATION: u64 = feature::GUEST_TSO4
    | feature::GUEST_TSO6
    | feature::GUEST_UFO
    | feature::GUEST_USO4
    | feature::GUEST_USO6;

/// Features, and of what each needs at least one (5.1.3.1).
const NEEDS: &[(u64, u64)] = &[
    (GUEST_SEGMENTATION, feature::GUEST_CSUM),
    (feature::GUEST_ECN, feature::GUEST_TSO4 | feature::GUEST_TSO6),
    (
        feature::HOST_TSO4 | feature::HOST_TSO6 | feature::HOST_UFO | feature::HOST_USO,
        feature::CSUM,
    ),
    (feature::HOST_ECN, feature::HOST_TSO4 | feature::HOST_TSO6),
    (
        feature::CTRL_RX
            | feature::CTRL_VLAN
            | feature::GUEST_ANNOUNCE
            | feature::MQ
            | feature::CTRL_MAC_ADDR
            | feature::NOTF_COAL
            | feature::RSS
            | feature::VQ_NOTF_COAL,
        feature::CTRL_VQ,
    ),
];

/// What a device should offer only along with the control queue (5.1.4.1), or cannot serve without.
/// A driver may still take it alone.
const POINTLESS_ALONE: &[(u64, u64)] = &[
    (
        feature::HASH_REPORT | feature::CTRL_RX_EXTRA | feature::CTRL_GUEST_OFFLOADS,
        feature::CTRL_VQ,
    ),
    (feature::GUEST_ANNOUNCE, feature::STATUS),
];

fn lacking(features: u64, needs: &[(u64, u64)]) -> u64 {
    let unmet = needs.iter().filter(|(_, needed)| features & needed == 0);
    unmet.fold(0, |lacking, (needing, _)| lacking | features & needing)
}

/// Features in a set that lack one that they need.
pub(crate) fn broken(features: u64) -> u64 {
    lacking(features, NEEDS)
}

/// A set without those that lack another.
pub(crate) fn consistent(mut features: u64) -> u64 {
    loop {
        let unmet = broken(features) | lacking(features, POINTLESS_ALONE);
        if unmet == 0 {
            return features;
        }
        features &= !unmet;
    }
}

/// What a driver can take, as feature bits.
const GUEST_OFFLOADS: [(u64, Offloads); 7] = [
    (feature::GUEST_CSUM, Offloads::CHECKSUM),
    (feature::GUEST_TSO4, Offloads::TSO4),
    (feature::GUEST_TSO6, Offloads::TSO6),
    (feature::GUEST_ECN, Offloads::TSO_ECN),
    (feature::GUEST_UFO, Offloads::UFO),
    (feature::GUEST_USO4, Offloads::USO4),
    (feature::GUEST_USO6, Offloads::USO6),
];

/// What a driver takes whose offloads, as feature bits, are `guest`. One that lacks another counts
/// for nothing.
pub(crate) fn receive_offloads(guest: u64) -> Offloads {
    // Twice: without a checksum there is no TSO, and without TSO no ECN.
    let guest = guest & !broken(guest);
    let guest = guest & !broken(guest);
    GUEST_OFFLOADS
        .into_iter()
        .filter(|(bit, _)| guest & bit != 0)
        .fold(Offloads::empty(), |offloads, (_, offload)| offloads | offload)
}

/// The feature bits of what a driver takes.
pub(crate) fn guest_offloads(offloads: Offloads) -> u64 {
    GUEST_OFFLOADS
        .into_iter()
        .filter(|(_, offload)| offloads.contains(*offload))
        .fold(0, |guest, (bit, _)| guest | bit)
}

/// Hash types that can be enabled: all that there are.
pub(crate) const HASH_TYPES: HashTypes = HashTypes::all();

/// What a queue is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// A pair's receive queue.
    Receive(u16),
    /// A pair's transmit queue.
    Transmit(u16),
    /// The control queue.
    Control,
}

/// What queue `index` is for (5.1.2), with these features accepted; `None` if there is no such
/// queue then.
pub(crate) fn role(index: u16, features: u64, max_pairs: u16) -> Option<Role> {
    let several = features & (feature::MQ | feature::RSS) != 0;
    let pairs = if several { max_pairs } else { 1 };
    let pair = index / 2;
    if pair < pairs {
        let even = index.is_multiple_of(2);
        return Some(if even { Role::Receive(pair) } else { Role::Transmit(pair) });
    }
    let control = features & feature::CTRL_VQ != 0 && index == 2 * pairs;
    control.then_some(Role::Control)
}
