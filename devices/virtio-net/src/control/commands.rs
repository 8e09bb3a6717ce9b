//! Control commands: what each does, and when it is refused.

use paraslot_backends::net::hash::KEY;
use paraslot_device::DmaSpace;
use paraslot_spec::virtio_net::{
    self as spec, CoalesceQueue, ControlHeader, HashConfig, RssConfig, announce, class, feature,
    guest_offloads, mac, mq, notf_coal, rx, vlan,
};
use zerocopy::little_endian::{U16, U32, U64};

use super::reader::Reader;
use crate::coalesce::Coalesce;
use crate::config::MAX_TABLE;
use crate::filter::Table;
use crate::shared::Shared;
use crate::state::{Hashing, Rss, State, Steering};

/// How a command went.
pub(super) enum Outcome {
    Done,
    Refused,
    /// It was VQ_GET; without an answer it was refused.
    Queried(Option<spec::Coalesce>),
}

impl From<Option<()>> for Outcome {
    fn from(done: Option<()>) -> Self {
        if done.is_some() { Self::Done } else { Self::Refused }
    }
}

/// Carries out the command that `reader` is at the start of. What it changes is in force before this
/// returns; one that is refused changes nothing.
pub(super) fn execute<A: DmaSpace>(shared: &Shared, reader: &mut Reader<'_, A>) -> Outcome {
    let Some(header) = reader.structure::<ControlHeader>() else { return Outcome::Refused };
    let features = shared.state().features;
    let Some(needed) = needed(&header) else { return Outcome::Refused };
    if features & needed == 0 {
        return Outcome::Refused;
    }
    let command = header.command;
    match header.class {
        class::RX => set_mode(shared, command, reader).into(),
        class::MAC if command == mac::TABLE_SET => set_tables(shared, reader).into(),
        class::MAC => set_address(shared, reader).into(),
        class::VLAN => set_vlan(shared, command, reader).into(),
        class::ANNOUNCE => {
            shared.set_status(spec::status::ANNOUNCE, false);
            Outcome::Done
        }
        class::MQ if command == mq::VQ_PAIRS_SET => set_pairs(shared, reader).into(),
        class::MQ if command == mq::RSS_CONFIG => set_scaling(shared, reader).into(),
        class::MQ => set_hashing(shared, reader).into(),
        class::GUEST_OFFLOADS => set_offloads(shared, reader).into(),
        class::NOTF_COAL if command == notf_coal::VQ_GET => {
            Outcome::Queried(get_coalesce(shared, reader))
        }
        class::NOTF_COAL if command == notf_coal::VQ_SET => {
            set_queue_coalesce(shared, reader).into()
        }
        class::NOTF_COAL => set_coalesce(shared, command, reader).into(),
        _ => Outcome::Refused,
    }
}

/// The feature without which a command does not exist; `None` if it never does.
fn needed(header: &ControlHeader) -> Option<u64> {
    let needed = match (header.class, header.command) {
        (class::RX, rx::PROMISC | rx::ALLMULTI) => feature::CTRL_RX,
        (class::RX, rx::ALLUNI | rx::NOMULTI | rx::NOUNI | rx::NOBCAST) => feature::CTRL_RX_EXTRA,
        (class::MAC, mac::TABLE_SET) => feature::CTRL_RX,
        (class::MAC, mac::ADDR_SET) => feature::CTRL_MAC_ADDR,
        (class::VLAN, vlan::ADD | vlan::DEL) => feature::CTRL_VLAN,
        (class::ANNOUNCE, announce::ACK) => feature::GUEST_ANNOUNCE,
        (class::MQ, mq::VQ_PAIRS_SET) => feature::MQ,
        (class::MQ, mq::RSS_CONFIG) => feature::RSS,
        (class::MQ, mq::HASH_CONFIG) => feature::HASH_REPORT,
        (class::GUEST_OFFLOADS, guest_offloads::SET) => feature::CTRL_GUEST_OFFLOADS,
        (class::NOTF_COAL, notf_coal::TX_SET | notf_coal::RX_SET) => feature::NOTF_COAL,
        (class::NOTF_COAL, notf_coal::VQ_SET | notf_coal::VQ_GET) => feature::VQ_NOTF_COAL,
        _ => return None,
    };
    Some(needed)
}

fn set_mode<A: DmaSpace>(shared: &Shared, command: u8, reader: &mut Reader<'_, A>) -> Option<()> {
    let on = reader.structure::<u8>()? != 0;
    let modes = &mut shared.change().filter.modes;
    let mode = match command {
        rx::PROMISC => &mut modes.promisc,
        rx::ALLMULTI => &mut modes.allmulti,
        rx::ALLUNI => &mut modes.alluni,
        rx::NOMULTI => &mut modes.nomulti,
        rx::NOUNI => &mut modes.nouni,
        rx::NOBCAST => &mut modes.nobcast,
        _ => return None,
    };
    *mode = on;
    Some(())
}

/// One table of addresses, of which no more than `most` are kept.
fn read_table<A: DmaSpace>(reader: &mut Reader<'_, A>, most: usize) -> Option<Table> {
    let entries = u64::from(reader.structure::<U32>()?.get());
    match usize::try_from(entries) {
        Ok(count) if count <= most => {
            let table: Option<Vec<_>> = (0..count).map(|_| reader.structure()).collect();
            table.map(Table::new)
        }
        _ => {
            // Six bytes each; cannot overflow, since the count has 32 bits.
            reader.skip(entries * 6)?;
            Some(Table::overflow())
        }
    }
}

fn set_tables<A: DmaSpace>(shared: &Shared, reader: &mut Reader<'_, A>) -> Option<()> {
    let most = shared.limits.filter_entries;
    let unicast = read_table(reader, most)?;
    let multicast = read_table(reader, most)?;
    let filter = &mut shared.change().filter;
    filter.unicast = unicast;
    filter.multicast = multicast;
    Some(())
}

fn set_address<A: DmaSpace>(shared: &Shared, reader: &mut Reader<'_, A>) -> Option<()> {
    let address = reader.structure()?;
    let mut state = shared.change();
    state.filter.mac = Some(address);
    if state.features & feature::MAC != 0 {
        shared.set_mac(address);
    }
    Some(())
}

fn set_vlan<A: DmaSpace>(shared: &Shared, command: u8, reader: &mut Reader<'_, A>) -> Option<()> {
    let vlan = reader.structure::<U16>()?.get();
    shared.change().filter.set_vlan(vlan, command == vlan::ADD).then_some(())
}

/// Puts a steering in force. Refused, and not in force, if the backend cannot follow.
fn steer(shared: &Shared, state: &mut State, steering: Steering) -> Option<()> {
    let before = std::mem::replace(&mut state.steering, steering);
    if shared.backend.set_queues(state.backend_pairs()).is_err() {
        state.steering = before;
        return None;
    }
    Some(())
}

fn set_pairs<A: DmaSpace>(shared: &Shared, reader: &mut Reader<'_, A>) -> Option<()> {
    let pairs = reader.structure::<U16>()?.get();
    let steering = Steering::automatic(pairs, shared.limits.pairs)?;
    steer(shared, &mut shared.change(), steering)?;
    shared.ring_all();
    Some(())
}

/// The hash types `types` with a key of `len` bytes, which follows. `Some(None)`: nothing is hashed.
fn read_hashing<A: DmaSpace>(
    reader: &mut Reader<'_, A>,
    types: u32,
    len: u8,
) -> Option<Option<Hashing>> {
    let mut key = [0; KEY];
    let key = key.get_mut(..len.into())?;
    reader.read(key)?;
    if types == 0 {
        return Some(None);
    }
    Hashing::new(types, key).map(Some)
}

fn set_scaling<A: DmaSpace>(shared: &Shared, reader: &mut Reader<'_, A>) -> Option<()> {
    let config = reader.structure::<RssConfig>()?;
    let entries = u32::from(config.indirection_table_mask.get()) + 1;
    if !entries.is_power_of_two() || entries > MAX_TABLE.into() {
        return None;
    }
    let table: Option<Box<[u16]>> =
        (0..entries).map(|_| reader.structure::<U16>().map(U16::get)).collect();
    let table = table?;
    let transmit = reader.structure::<U16>()?.get();
    let key_len = reader.structure::<u8>()?;
    let hashing = read_hashing(reader, config.hash_types.get(), key_len)?;
    let unclassified = config.unclassified_queue.get();
    let pairs = shared.limits.pairs;
    if !(mq::PAIRS_MIN..=pairs).contains(&transmit) {
        return None;
    }
    let rss = Rss::new(table, unclassified, pairs)?;
    let mut state = shared.change();
    let enabled = |queue: &u16| state.is_running(2 * queue);
    if !enabled(&unclassified) || !rss.table().iter().all(enabled) {
        return None;
    }
    steer(shared, &mut state, Steering::Rss(rss))?;
    state.hashing = hashing;
    drop(state);
    shared.ring_all();
    Some(())
}

fn set_hashing<A: DmaSpace>(shared: &Shared, reader: &mut Reader<'_, A>) -> Option<()> {
    let config = reader.structure::<HashConfig>()?;
    let hashing = read_hashing(reader, config.hash_types.get(), config.hash_key_length)?;
    shared.change().hashing = hashing;
    Some(())
}

fn set_offloads<A: DmaSpace>(shared: &Shared, reader: &mut Reader<'_, A>) -> Option<()> {
    let offloads = reader.structure::<U64>()?.get();
    let mut state = shared.change();
    state.set_offloads(offloads)?;
    // If the backend refuses, it leaves nothing to be done, which the driver can take too.
    let _ = shared.backend.set_receive_offloads(state.offloads);
    Some(())
}

impl From<spec::Coalesce> for Coalesce {
    fn from(coalesce: spec::Coalesce) -> Self {
        Self { max_packets: coalesce.max_packets.get(), max_usecs: coalesce.max_usecs.get() }
    }
}

fn set_coalesce<A: DmaSpace>(
    shared: &Shared,
    command: u8,
    reader: &mut Reader<'_, A>,
) -> Option<()> {
    let coalesce = Coalesce::from(reader.structure::<spec::Coalesce>()?);
    let mut state = shared.change();
    let first = match command {
        notf_coal::RX_SET => {
            state.coalesce_receive = coalesce;
            0
        }
        _ => {
            state.coalesce_transmit = coalesce;
            1
        }
    };
    state.coalesce.iter_mut().skip(first).step_by(2).for_each(|slot| *slot = coalesce);
    drop(state);
    shared.ring_all();
    Some(())
}

fn set_queue_coalesce<A: DmaSpace>(shared: &Shared, reader: &mut Reader<'_, A>) -> Option<()> {
    let command = reader.structure::<CoalesceQueue>()?;
    let index = command.vq_index.get();
    let mut state = shared.change();
    if !state.is_running(index) {
        return None;
    }
    state.set_coalesce(index, command.coal.into())?;
    drop(state);
    shared.port(index)?.ring();
    Some(())
}

fn get_coalesce<A: DmaSpace>(
    shared: &Shared,
    reader: &mut Reader<'_, A>,
) -> Option<spec::Coalesce> {
    // The index and a reserved field; the rest of the structure is for the device to write.
    let [index, _reserved] = reader.structure::<[U16; 2]>()?;
    let state = shared.state();
    state.is_running(index.get()).then(|| {
        let coalesce = state.coalesce(index.get());
        spec::Coalesce {
            max_packets: coalesce.max_packets.into(),
            max_usecs: coalesce.max_usecs.into(),
        }
    })
}
