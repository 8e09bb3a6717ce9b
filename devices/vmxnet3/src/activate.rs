//! What the driver says in [`DriverShared`], read once and checked.

use std::mem::offset_of;
use std::sync::Mutex;

use paraslot_device::{DmaSpace, Memory};
use paraslot_spec::net::{ETHERNET_HEADER, ETHERNET_MTU, VLAN_TAG};
use paraslot_spec::vmxnet3::{
    DATA_DESC_SIZE_ALIGN, DESC_LEN, DSDevRead, DriverShared, Events, Features, IntrConf, MAX_INTRS,
    MAX_MTU, MAX_RX_QUEUES, MAX_TX_QUEUES, MIN_MTU, QUEUE_DESC_ALIGN, RC_RING_MAX_SIZE, REV1_MAGIC,
    REVISION_1, REVISION_3, RING_BA_ALIGN, RING_SIZE_ALIGN, RSSConf, RX_RING_MAX_SIZE,
    RXDATA_DESC_MAX_SIZE, RxFilterConf, RxMode, RxQueueDesc, TC_RING_MAX_SIZE, TX_RING_MAX_SIZE,
    TxQueueDesc, UPT_VERSION_1, VariableLenConfDesc, gos,
};
use vm_memory::{Bytes, GuestAddress, GuestMemory, Permissions};
use zerocopy::{FromBytes, IntoBytes};

use crate::filter::Filter;
use crate::irq::{Policy, Scheme};
use crate::receive::{Rings, RxQueue};
use crate::ring::Ring;
use crate::rss::Rss;
use crate::state::Active;
use crate::transmit::TxQueue;

/// Most buffers of a received packet, whatever the driver says: of the greatest length, in pages.
pub(crate) const MOST_BUFFERS: usize = 64;
/// Bytes of a frame that the MTU does not count: its header, and two tags.
pub(crate) const BESIDES_MTU: usize = ETHERNET_HEADER + 2 * VLAN_TAG;

/// Why a device was not activated; the value is that of CMD then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Refused {
    /// `DriverShared` or what it points to is not memory.
    Memory = 1,
    /// The magic number, or what revisions the driver supports.
    Driver = 2,
    /// The MTU.
    Mtu = 3,
    /// The number of queues, or where their descriptors are.
    Queues = 4,
    /// A ring's place or size.
    Ring = 5,
    /// Interrupts.
    Interrupts = 6,
    /// Receive-side scaling.
    Rss = 7,
}

/// Reads a structure, once.
pub(crate) fn read<T, A>(memory: &Memory<A>, address: u64) -> Option<T>
where
    T: FromBytes + IntoBytes,
    A: DmaSpace,
{
    let mut value = T::new_zeroed();
    memory.read_slice(value.as_mut_bytes(), GuestAddress(address)).ok()?;
    Some(value)
}

/// What activation depends on besides `DriverShared`.
pub(crate) struct Terms {
    /// Where `DriverShared` is.
    pub(crate) shared: u64,
    /// The revision that the driver has selected.
    pub(crate) revision: u32,
    pub(crate) epoch: u64,
    pub(crate) scheme: Scheme,
}

/// Reads all that the driver has set up.
pub(crate) fn activate<A: DmaSpace>(
    memory: &Memory<A>,
    terms: &Terms,
) -> Result<(Active, bool), Refused> {
    let shared: DriverShared = read(memory, terms.shared).ok_or(Refused::Memory)?;
    let DSDevRead { misc, intr_conf, rx_filter_conf, rss_conf_desc, .. } = &shared.dev_read;
    // Drivers of all revisions say that they support the first, and no more.
    if shared.magic.get() != REV1_MAGIC
        || misc.driver_info.vmxnet3_rev_spt.get() & REVISION_1 == 0
        || misc.driver_info.upt_ver_spt.get() & UPT_VERSION_1 == 0
    {
        return Err(Refused::Driver);
    }
    let mtu = misc.mtu.get();
    if !(MIN_MTU..=MAX_MTU).contains(&mtu) {
        return Err(Refused::Mtu);
    }
    let mtu = usize::try_from(mtu).unwrap_or(ETHERNET_MTU).max(ETHERNET_MTU);
    let (tx, rx) = (usize::from(misc.num_tx_queues), usize::from(misc.num_rx_queues));
    let queues = misc.queue_desc_pa.get();
    if u64::from(misc.queue_desc_len.get()) < check_queues(queues, tx, rx)? {
        return Err(Refused::Queues);
    }
    let system = misc.driver_info.gos.get() >> gos::TYPE_SHIFT & gos::TYPE;
    let heads_alone = system == gos::WINDOWS;
    let reader = Reader { memory, queues, revision: terms.revision, heads_alone, tx, rx };
    let features = Features::from_bits_truncate(misc.upt_features.get());
    let interrupts = Intrs::new(intr_conf).ok_or(Refused::Interrupts)?;
    let rss = match features.contains(Features::RSS) {
        true => Some(read_rss(memory, rss_conf_desc, rx).ok_or(Refused::Rss)?),
        false => None,
    };
    let mut filter = Filter::new();
    read_filter(memory, rx_filter_conf, &mut filter);
    let tx = (0..tx).map(|index| reader.tx_queue(index, &interrupts).map(Mutex::new));
    let rx = (0..rx).map(|index| reader.rx_queue(index, &interrupts).map(Mutex::new));
    let active = Active {
        epoch: terms.epoch,
        shared: terms.shared,
        queues,
        revision: terms.revision,
        features,
        longest: mtu + BESIDES_MTU,
        most_buffers: usize::from(misc.max_num_rx_sg.get()).clamp(1, MOST_BUFFERS),
        event_intr: interrupts.event,
        levels: interrupts.levels,
        scheme: terms.scheme,
        filter,
        rss,
        tx: tx.collect::<Result<_, _>>()?,
        rx: rx.collect::<Result<_, _>>()?,
        events: Mutex::new(Events::empty()),
    };
    Ok((active, interrupts.auto_mask))
}

/// Checks the number of queues, and where their descriptors are. Says how many bytes these take.
pub(crate) fn check_queues(queues: u64, tx: usize, rx: usize) -> Result<u64, Refused> {
    let right = (1..=MAX_TX_QUEUES).contains(&tx)
        && (1..=MAX_RX_QUEUES).contains(&rx)
        && queues.is_multiple_of(QUEUE_DESC_ALIGN);
    if !right {
        return Err(Refused::Queues);
    }
    let len = (tx * size_of::<TxQueueDesc>() + rx * size_of::<RxQueueDesc>()) as u64;
    queues.checked_add(len).map(|_| len).ok_or(Refused::Queues)
}

/// CVE-2021-20203: a ring of a size that is possible, `most` at most, at its beginning.
pub(crate) fn check_ring(base: u64, size: u32, most: u32) -> Result<Ring, Refused> {
    let right = (1..=most).contains(&size)
        && size.is_multiple_of(RING_SIZE_ALIGN)
        && base.is_multiple_of(RING_BA_ALIGN);
    if right { Ring::new(base, size).ok_or(Refused::Ring) } else { Err(Refused::Ring) }
}

/// Checks a data ring of `size` entries of `entry` bytes. Says how many bytes that is.
pub(crate) fn check_data_ring(base: u64, size: u32, entry: u16) -> Result<u64, Refused> {
    let right = entry <= RXDATA_DESC_MAX_SIZE && entry.is_multiple_of(DATA_DESC_SIZE_ALIGN);
    let len = u64::from(size) * u64::from(entry);
    base.checked_add(len).map(|_| len).filter(|_| right).ok_or(Refused::Ring)
}

/// Interrupts as the driver has set them up.
pub(crate) struct Intrs {
    auto_mask: bool,
    number: u8,
    event: u8,
    pub(crate) levels: [Policy; MAX_INTRS],
}

impl Intrs {
    /// CVE-2013-4544: all indices are below the number of interrupts, and that is not more than there
    /// are. Without a message for each they share one, or the line; each still has a mask of its own,
    /// which is all that FreeBSD's driver wants of those of its transmit queues.
    pub(crate) fn new(conf: &IntrConf) -> Option<Self> {
        let number = conf.num_intrs;
        if !(1..=MAX_INTRS).contains(&usize::from(number)) {
            return None;
        }
        let mut levels = [Policy::None; MAX_INTRS];
        for (policy, level) in levels.iter_mut().zip(conf.mod_levels).take(number.into()) {
            *policy = Policy::of_level(level)?;
        }
        let event = conf.event_intr_idx;
        let auto_mask = conf.auto_mask != 0;
        (event < number).then_some(Self { auto_mask, number, event, levels })
    }
}

/// Reads receive-side scaling's configuration.
pub(crate) fn read_rss<A: DmaSpace>(
    memory: &Memory<A>,
    desc: &VariableLenConfDesc,
    queues: usize,
) -> Option<Rss> {
    let conf = read_variable::<RSSConf, A>(memory, desc)?;
    Rss::new(&conf, queues)
}

/// Reads a structure of variable length, of which all that is known must be there.
pub(crate) fn read_variable<T, A>(memory: &Memory<A>, desc: &VariableLenConfDesc) -> Option<T>
where
    T: FromBytes + IntoBytes,
    A: DmaSpace,
{
    let whole = u64::from(desc.conf_len.get()) >= size_of::<T>() as u64;
    if !whole || desc.conf_ver.get() != 1 {
        return None;
    }
    read(memory, desc.conf_pa.get())
}

/// Reads all of the receive filters.
fn read_filter<A: DmaSpace>(memory: &Memory<A>, conf: &RxFilterConf, filter: &mut Filter) {
    filter.mode = RxMode::from_bits_truncate(conf.rx_mode.get());
    filter.set_vlans(conf.vf_table.map(|word| word.get()));
    // A table that is not memory has no addresses.
    let _ = read_multicast(memory, conf.mf_table_pa.get(), conf.mf_table_len.get(), filter);
}

/// Reads the multicast table: 65,535 bytes at most. Says whether it could be read.
pub(crate) fn read_multicast<A: DmaSpace>(
    memory: &Memory<A>,
    address: u64,
    len: u16,
    filter: &mut Filter,
) -> bool {
    let mut table = vec![0; len.into()];
    let read = memory.read_slice(&mut table, GuestAddress(address)).is_ok();
    filter.set_multicast(if read { &table } else { &[] });
    read
}

/// Reads queue descriptors.
struct Reader<'a, A: DmaSpace> {
    memory: &'a Memory<A>,
    queues: u64,
    revision: u32,
    /// The driver gives no body buffers.
    heads_alone: bool,
    tx: usize,
    rx: usize,
}

impl<A: DmaSpace> Reader<'_, A> {
    /// A ring that is possible, in memory.
    fn ring(&self, base: u64, size: u32, most: u32) -> Result<Ring, Refused> {
        let ring = check_ring(base, size, most)?;
        self.check(base, u64::from(size) * DESC_LEN as u64)?;
        Ok(ring)
    }

    fn check(&self, base: u64, len: u64) -> Result<(), Refused> {
        let len = usize::try_from(len).map_err(|_| Refused::Memory)?;
        let there = self.memory.check_range(GuestAddress(base), len, Permissions::ReadWrite);
        if there { Ok(()) } else { Err(Refused::Memory) }
    }

    fn interrupt(&self, index: u8, interrupts: &Intrs) -> Result<u8, Refused> {
        if index < interrupts.number { Ok(index) } else { Err(Refused::Interrupts) }
    }

    fn tx_queue(&self, index: usize, interrupts: &Intrs) -> Result<TxQueue, Refused> {
        let place = tx_desc(self.queues, index);
        let TxQueueDesc { conf, .. } = read(self.memory, place).ok_or(Refused::Memory)?;
        let ring =
            self.ring(conf.tx_ring_base_pa.get(), conf.tx_ring_size.get(), TX_RING_MAX_SIZE)?;
        let comp =
            self.ring(conf.comp_ring_base_pa.get(), conf.comp_ring_size.get(), TC_RING_MAX_SIZE)?;
        let intr = self.interrupt(conf.intr_idx, interrupts)?;
        let queue = TxQueue::new(ring, comp, intr, tx_threshold(self.queues, index));
        // What the driver goes by from its first packet on.
        if queue.set_threshold(self.memory, 1) { Ok(queue) } else { Err(Refused::Memory) }
    }

    fn rx_queue(&self, index: usize, interrupts: &Intrs) -> Result<RxQueue, Refused> {
        let place = rx_desc(self.queues, self.tx, index);
        let RxQueueDesc { conf, .. } = read(self.memory, place).ok_or(Refused::Memory)?;
        let [base, base_2] = conf.rx_ring_base_pa.map(|base| base.get());
        let [size, size_2] = conf.rx_ring_size.map(|size| size.get());
        let first = self.ring(base, size, RX_RING_MAX_SIZE)?;
        // Drivers that give no more than one buffer a packet do without the second ring.
        let second = match size_2 {
            0 => None,
            _ => Some(self.ring(base_2, size_2, RX_RING_MAX_SIZE)?),
        };
        let comp =
            self.ring(conf.comp_ring_base_pa.get(), conf.comp_ring_size.get(), RC_RING_MAX_SIZE)?;
        let intr = self.interrupt(conf.intr_idx, interrupts)?;
        let entry = conf.rx_data_ring_desc_size.get();
        let data = conf.rx_data_ring_base_pa.get();
        let data_ring = if self.revision >= REVISION_3 && entry != 0 && data != 0 {
            self.check(data, check_data_ring(data, size, entry)?)?;
            Some((data, entry))
        } else {
            None
        };
        let rings = Rings { descriptors: [Some(first), second], comp, data: data_ring };
        let control = rx_control(self.queues, self.tx, index);
        let ids = rx_ids(self.rx, index);
        let queue = RxQueue::new(rings, self.heads_alone, ids, intr, control);
        if queue.ask(self.memory, false) { Ok(queue) } else { Err(Refused::Memory) }
    }
}

/// Where a transmit queue's descriptor is. The table of them does not wrap.
pub(crate) fn tx_desc(queues: u64, index: usize) -> u64 {
    queues.wrapping_add((index * size_of::<TxQueueDesc>()) as u64)
}

/// Where a receive queue's is, behind those of `tx` transmit queues.
pub(crate) fn rx_desc(queues: u64, tx: usize, index: usize) -> u64 {
    tx_desc(queues, tx).wrapping_add((index * size_of::<RxQueueDesc>()) as u64)
}

/// Where a transmit queue's `txThreshold` is.
pub(crate) fn tx_threshold(queues: u64, index: usize) -> GuestAddress {
    let offset = offset_of!(TxQueueDesc, ctrl.tx_threshold) as u64;
    GuestAddress(tx_desc(queues, index).wrapping_add(offset))
}

/// Where a receive queue's `updateRxProd` is.
pub(crate) fn rx_control(queues: u64, tx: usize, index: usize) -> GuestAddress {
    let offset = offset_of!(RxQueueDesc, ctrl.update_rx_prod) as u64;
    GuestAddress(rx_desc(queues, tx, index).wrapping_add(offset))
}

/// RQID of each ring of a receive queue, of which there are `rx`.
pub(crate) fn rx_ids(rx: usize, index: usize) -> [u32; 3] {
    [index, index + rx, index + 2 * rx].map(|id| u32::try_from(id).unwrap_or(0))
}
