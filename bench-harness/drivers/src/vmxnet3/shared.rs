//! The page that the driver describes itself and its queues in.

use core::mem::offset_of;

use paraslot_spec::vmxnet3::{
    CoalesceScheme, DriverShared, Events, Features, IC_DISABLE_ALL, QUEUE_DESC_ALIGN, REV1_MAGIC,
    REVISION_1, RSS_HASH_FUNC_TOEPLITZ, RSS_MAX_KEY_SIZE, RSSConf, RssHashType, RxMode,
    RxQueueConf, RxQueueDesc, TxQueueConf, TxQueueDesc, UPT_VERSION_1, VariableLenConfDesc, gos,
};
use zerocopy::IntoBytes;

use super::interrupts::Interrupts;
use super::{MAX_QUEUES, Options};
use crate::{DmaRegion, Error, Platform};

/// Where the parts are, all in one page.
const QUEUES: usize = 1024;
const RSS: usize = 3584;
const COALESCING: usize = 3840;
const LEN: usize = 4096;
const _: () = {
    assert!(size_of::<DriverShared>() <= QUEUES);
    assert!(QUEUES.is_multiple_of(128) && QUEUE_DESC_ALIGN == 128);
    assert!(QUEUES + TX_QUEUE + MAX_QUEUES * RX_QUEUE <= RSS);
    assert!(RSS + size_of::<RSSConf>() <= COALESCING);
    assert!(COALESCING + size_of::<CoalesceScheme>() <= LEN);
};
const TX_QUEUE: usize = size_of::<TxQueueDesc>();
const RX_QUEUE: usize = size_of::<RxQueueDesc>();

/// The driver's version: 1.0.0.0.
const VERSION: u32 = 0x0100_0000;
/// Entries of the indirection table for each queue that there could be, as in Linux.
const ENTRIES_A_QUEUE: u16 = 4;

/// What decides to which queue a frame goes. It is no secret here.
const KEY: [u8; RSS_MAX_KEY_SIZE] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// The page.
pub(super) struct Shared {
    memory: DmaRegion,
}

impl Shared {
    pub(super) fn new<P: Platform>(platform: &P) -> Result<Self, Error> {
        Ok(Self { memory: platform.allocate(LEN).ok_or(Error::NoMemory)? })
    }

    /// Where it is.
    pub(super) fn address(&self) -> u64 {
        self.memory.physical(0)
    }

    /// The transmit queue's descriptor.
    pub(super) fn transmit_queue(&self) -> DmaRegion {
        self.memory.part(QUEUES, TX_QUEUE)
    }

    /// A receive queue's descriptor.
    pub(super) fn receive_queue(&self, queue: u8) -> DmaRegion {
        self.memory.part(QUEUES + TX_QUEUE + usize::from(queue) * RX_QUEUE, RX_QUEUE)
    }

    /// Fills in everything but the queues, for so many that receive.
    pub(super) fn fill(&self, options: &Options, queues: u8, most: u16, interrupts: &Interrupts) {
        let mut shared = DriverShared::default();
        shared.magic.set(REV1_MAGIC);
        let read = &mut shared.dev_read;

        let misc = &mut read.misc;
        misc.driver_info.version.set(VERSION);
        misc.driver_info.gos.set(gos::BITS_64);
        // As drivers do whatever the revision: the one in use is VRRS's.
        misc.driver_info.vmxnet3_rev_spt.set(REVISION_1);
        misc.driver_info.upt_ver_spt.set(UPT_VERSION_1);
        let mut features = Features::empty();
        features.set(Features::RXCSUM, options.checksum);
        features.set(Features::LRO, options.large_receive);
        features.set(Features::RSS, queues > 1);
        misc.upt_features.set(features.bits());
        misc.max_num_rx_sg.set(if options.large_receive { most } else { 0 });
        misc.mtu.set(options.mtu.into());
        misc.queue_desc_pa.set(self.memory.physical(QUEUES));
        let len = TX_QUEUE + usize::from(queues) * RX_QUEUE;
        misc.queue_desc_len.set(u32::try_from(len).unwrap_or(0));
        (misc.num_tx_queues, misc.num_rx_queues) = (1, queues);

        let conf = &mut read.intr_conf;
        conf.auto_mask = interrupts.auto_mask.into();
        conf.num_intrs = interrupts.plan.count;
        conf.event_intr_idx = 0;
        let levels = conf.mod_levels.iter_mut().take(conf.num_intrs.into());
        levels.for_each(|level| *level = options.moderation.level());
        conf.intr_ctrl.set(IC_DISABLE_ALL);

        // Frames without a tag, or with one that has a priority alone.
        if let Some(word) = read.rx_filter_conf.vf_table.first_mut() {
            word.set(1);
        }
        if queues > 1 {
            let conf = rss(queues);
            self.memory.write_bytes(RSS, conf.as_bytes());
            read.rss_conf_desc.conf_ver.set(1);
            read.rss_conf_desc.conf_len.set(u32::try_from(size_of::<RSSConf>()).unwrap_or(0));
            read.rss_conf_desc.conf_pa.set(self.memory.physical(RSS));
        }
        self.memory.write_bytes(0, shared.as_bytes());
    }

    /// Fills in the transmit queue.
    pub(super) fn fill_transmit(&self, conf: TxQueueConf) {
        let mut queue = TxQueueDesc::default();
        queue.conf = conf;
        self.transmit_queue().write_bytes(0, queue.as_bytes());
    }

    /// Fills in a receive queue.
    pub(super) fn fill_receive(&self, queue: u8, conf: RxQueueConf) {
        let mut descriptor = RxQueueDesc::default();
        descriptor.conf = conf;
        self.receive_queue(queue).write_bytes(0, descriptor.as_bytes());
    }

    /// Sets what is let in.
    pub(super) fn set_mode(&self, mode: RxMode) {
        self.memory.write32(offset_of!(DriverShared, dev_read.rx_filter_conf.rx_mode), mode.bits());
    }

    /// Says how packets are to be gathered, for a command.
    pub(super) fn set_coalescing(&self, scheme: &CoalesceScheme) {
        self.memory.write_bytes(COALESCING, scheme.as_bytes());
        let mut place = VariableLenConfDesc::default();
        place.conf_ver.set(1);
        place.conf_len.set(u32::try_from(size_of::<CoalesceScheme>()).unwrap_or(0));
        place.conf_pa.set(self.memory.physical(COALESCING));
        let at = offset_of!(DriverShared, cmd_info.var_conf);
        self.memory.write_bytes(at, place.as_bytes());
    }

    /// Whether the adapter may interrupt at all.
    pub(super) fn set_interrupts(&self, on: bool) {
        let at = offset_of!(DriverShared, dev_read.intr_conf.intr_ctrl);
        self.memory.write32(at, if on { 0 } else { IC_DISABLE_ALL });
    }

    /// What has happened.
    pub(super) fn events(&self) -> Events {
        Events::from_bits_retain(self.memory.load32(offset_of!(DriverShared, ecr)))
    }

    /// Whether a queue has stopped, by what the adapter has written of so many that receive.
    pub(super) fn has_stopped(&self, queues: u8) -> bool {
        let transmit = self.transmit_queue().read8(offset_of!(TxQueueDesc, status.stopped));
        let stopped =
            |queue| self.receive_queue(queue).read8(offset_of!(RxQueueDesc, status.stopped));
        transmit != 0 || (0..queues).any(|queue| stopped(queue) != 0)
    }
}

/// How frames are spread over so many queues.
fn rss(queues: u8) -> RSSConf {
    let mut conf = RSSConf::default();
    conf.hash_type.set(RssHashType::all().bits());
    conf.hash_func.set(RSS_HASH_FUNC_TOEPLITZ);
    conf.hash_key_size.set(u16::try_from(KEY.len()).unwrap_or(0));
    conf.hash_key = KEY;
    let entries = u16::try_from(MAX_QUEUES).unwrap_or(0) * ENTRIES_A_QUEUE;
    conf.ind_table_size.set(entries);
    let places = conf.ind_table.iter_mut().take(entries.into());
    places.zip((0..queues).cycle()).for_each(|(place, queue)| *place = queue);
    conf
}
