//! What the driver has set up. It is restored through the checks of the commands that do so, and a
//! driver without the feature that a command needs has had no part in it.

use paraslot_device::StateError;
use paraslot_spec::virtio_net::feature;
use serde::{Deserialize, Serialize};

use super::Address;
use crate::coalesce::Coalesce;
use crate::config::Limits;
use crate::features::guest_offloads;
use crate::filter::{Filter, Mac, Modes, Table};
use crate::state::{Hashing, Rss, State, Steering};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DriverState {
    /// As feature bits.
    offloads: u64,
    filter: FilterState,
    steering: SteeringState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hashing: Option<HashingState>,
    coalesce_transmit: Coalesce,
    coalesce_receive: Coalesce,
    /// Of the queues that have others than those, in rising order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    coalesce: Vec<QueueCoalesce>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterState {
    modes: Modes,
    /// The driver's own address, where it is known.
    mac: Option<Address>,
    unicast: TableState,
    multicast: TableState,
    /// In rising order.
    vlans: Vec<u16>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum TableState {
    /// In rising order, one behind the other.
    Entries(#[serde(with = "hex")] Vec<u8>),
    /// There were too many.
    Overflow,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum SteeringState {
    Automatic { pairs: u16 },
    Rss { table: Vec<u16>, unclassified: u16 },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct HashingState {
    types: u32,
    #[serde(with = "hex")]
    key: Vec<u8>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct QueueCoalesce {
    queue: u16,
    coalesce: Coalesce,
}

/// Refused unless `possible`.
fn check(possible: bool, what: &str) -> Result<(), StateError> {
    if possible { Ok(()) } else { Err(StateError::impossible(what)) }
}

impl TableState {
    fn new(table: &Table) -> Self {
        table.entries().map_or(Self::Overflow, |entries| Self::Entries(entries.concat()))
    }

    /// A table of no more than `most` entries.
    fn read(&self, most: usize) -> Result<Table, StateError> {
        let Self::Entries(bytes) = self else { return Ok(Table::overflow()) };
        let (entries, rest) = bytes.as_chunks::<{ size_of::<Mac>() }>();
        check(rest.is_empty() && entries.len() <= most, "a table of addresses of no such length")?;
        Ok(Table::new(entries.to_vec()))
    }
}

impl DriverState {
    pub(super) fn new(state: &State) -> Self {
        // Destructured, so that a new field is thought of. Queues that run are known by their workers.
        let State {
            features: _,
            offloads,
            filter,
            steering,
            hashing,
            coalesce_transmit,
            coalesce_receive,
            coalesce,
            running: _,
            link: _,
        } = state;
        let coalesce = (0..).zip(coalesce).filter_map(|(queue, &coalesce)| {
            let usual = state.usual_coalesce(queue);
            (coalesce != usual).then_some(QueueCoalesce { queue, coalesce })
        });
        Self {
            offloads: guest_offloads(*offloads),
            filter: FilterState::new(filter),
            steering: match steering {
                Steering::Automatic { pairs } => SteeringState::Automatic { pairs: *pairs },
                Steering::Rss(rss) => {
                    let (table, unclassified) = (rss.table().to_vec(), rss.unclassified());
                    SteeringState::Rss { table, unclassified }
                }
            },
            hashing: hashing.as_ref().map(|hashing| HashingState {
                types: hashing.types().bits(),
                key: hashing.key().to_vec(),
            }),
            coalesce_transmit: *coalesce_transmit,
            coalesce_receive: *coalesce_receive,
            coalesce: coalesce.collect(),
        }
    }

    /// Sets up in `state`, which is as a driver finds it, what the driver did.
    pub(super) fn restore(&self, state: &mut State, limits: &Limits) -> Result<(), StateError> {
        let Self {
            offloads,
            filter,
            steering,
            hashing,
            coalesce_transmit,
            coalesce_receive,
            coalesce,
        } = self;
        let features = state.features;
        let has = |feature: u64| features & feature != 0;
        check(
            guest_offloads(state.offloads) == *offloads || has(feature::CTRL_GUEST_OFFLOADS),
            "offloads of a driver that could not choose them",
        )?;
        check(state.set_offloads(*offloads).is_some(), "offloads that the driver cannot take")?;
        filter.restore(&mut state.filter, features, limits)?;

        let (steering, possible) = match steering {
            SteeringState::Automatic { pairs } => {
                (Steering::automatic(*pairs, limits.pairs), *pairs == 1 || has(feature::MQ))
            }
            SteeringState::Rss { table, unclassified } => {
                let rss = Rss::new(table.as_slice().into(), *unclassified, limits.pairs);
                (rss.map(Steering::Rss), has(feature::RSS))
            }
        };
        let impossible = || StateError::impossible("a steering that the driver cannot have set up");
        state.steering = steering.filter(|_| possible).ok_or_else(impossible)?;
        state.hashing = hashing.as_ref().map(|hashing| hashing.read(features)).transpose()?;

        let none = Coalesce::default();
        check(
            has(feature::NOTF_COAL) || [coalesce_transmit, coalesce_receive] == [&none; 2],
            "coalescing that the driver cannot have set up",
        )?;
        state.coalesce_transmit = *coalesce_transmit;
        state.coalesce_receive = *coalesce_receive;
        for index in 0..2 * limits.pairs {
            let _ = state.set_coalesce(index, state.usual_coalesce(index));
        }
        check(
            coalesce.is_empty() || has(feature::VQ_NOTF_COAL),
            "coalescing that the driver cannot have set up for a queue",
        )?;
        check(
            coalesce.is_sorted_by(|one, next| one.queue < next.queue),
            "coalescing set up for queues in no order",
        )?;
        coalesce.iter().try_for_each(|&QueueCoalesce { queue, coalesce }| {
            check(
                state.set_coalesce(queue, coalesce).is_some(),
                "coalescing set up for a queue that is not there",
            )
        })
    }
}

impl FilterState {
    fn new(filter: &Filter) -> Self {
        Self {
            modes: filter.modes,
            mac: filter.mac.map(Address),
            unicast: TableState::new(&filter.unicast),
            multicast: TableState::new(&filter.multicast),
            vlans: filter.vlans().collect(),
        }
    }

    fn restore(
        &self,
        filter: &mut Filter,
        features: u64,
        limits: &Limits,
    ) -> Result<(), StateError> {
        let Self { modes, mac, unicast, multicast, vlans } = self;
        let has = |feature: u64| features & feature != 0;
        let Modes { promisc, allmulti, alluni, nomulti, nouni, nobcast } = *modes;
        check(
            (has(feature::CTRL_RX) || !(promisc || allmulti))
                && (has(feature::CTRL_RX_EXTRA) || !(alluni || nomulti || nouni || nobcast)),
            "receive modes that the driver cannot have set",
        )?;
        filter.modes = *modes;

        // Once set it is known.
        let mac = mac.map(|mac| mac.0);
        check(
            mac == filter.mac || (mac.is_some() && has(feature::CTRL_MAC_ADDR)),
            "an address that the driver cannot have set",
        )?;
        filter.mac = mac;

        let unicast = unicast.read(limits.filter_entries)?;
        let multicast = multicast.read(limits.filter_entries)?;
        let none = Table::default();
        check(
            has(feature::CTRL_RX) || [&unicast, &multicast] == [&none; 2],
            "tables of addresses that the driver cannot have set",
        )?;
        filter.unicast = unicast;
        filter.multicast = multicast;

        check(
            (vlans.is_empty() || has(feature::CTRL_VLAN))
                && vlans.is_sorted_by(|one, next| one < next)
                && vlans.iter().all(|vlan| filter.set_vlan(*vlan, true)),
            "VLANs that the driver cannot have set",
        )
    }
}

impl HashingState {
    fn read(&self, features: u64) -> Result<Hashing, StateError> {
        let possible = features & (feature::RSS | feature::HASH_REPORT) != 0;
        let hashing = Hashing::new(self.types, &self.key).filter(|_| possible);
        hashing.ok_or_else(|| StateError::impossible("hashes that the driver cannot have set up"))
    }
}
