//! Receive-side scaling.

use paraslot_backends::net::hash::{HashKind, HashTypes, Toeplitz};
use paraslot_backends::net::parse::Headers;
use paraslot_device::StateError;
use paraslot_spec::vmxnet3::{
    RSS_HASH_FUNC_TOEPLITZ, RSS_MAX_IND_TABLE_SIZE, RSS_MAX_KEY_SIZE, RSSConf, RssHashType, rcd,
};
use serde::{Deserialize, Serialize};

/// A packet's hash, as its completion has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hash {
    pub(crate) value: u32,
    /// RSSTYPE.
    pub(crate) kind: u32,
}

/// How frames are spread over the receive queues. All queues in it exist.
#[derive(Clone, Debug)]
pub(crate) struct Rss {
    /// What it was made of.
    conf: RSSConf,
    types: HashTypes,
    key: Toeplitz,
    table: Box<[u8]>,
}

impl Rss {
    /// What the driver has set up for `queues` receive queues. `None` if it makes no sense.
    pub(crate) fn new(conf: &RSSConf, queues: usize) -> Option<Self> {
        let types = RssHashType::from_bits_truncate(conf.hash_type.get());
        let key = conf.hash_key.get(..usize::from(conf.hash_key_size.get()))?;
        let table = conf.ind_table.get(..usize::from(conf.ind_table_size.get()))?;
        const { assert!(RSS_MAX_KEY_SIZE == 40 && RSS_MAX_IND_TABLE_SIZE == 128) };
        let right = conf.hash_func.get() == RSS_HASH_FUNC_TOEPLITZ
            && !key.is_empty()
            && !table.is_empty()
            && table.iter().all(|queue| usize::from(*queue) < queues);
        right.then(|| Self {
            conf: *conf,
            types: hash_types(types),
            key: Toeplitz::new(key),
            table: table.into(),
        })
    }

    /// A packet's hash; that of what is not hashed is none.
    pub(crate) fn hash(&self, headers: &Headers) -> Hash {
        let Some((value, kind)) = self.key.hash_packet(headers, self.types) else {
            return Hash::default();
        };
        let kind = match kind {
            HashKind::Ipv4 => rcd::RSS_TYPE_IPV4,
            HashKind::TcpV4 => rcd::RSS_TYPE_TCPIPV4,
            HashKind::Ipv6 => rcd::RSS_TYPE_IPV6,
            HashKind::TcpV6 => rcd::RSS_TYPE_TCPIPV6,
            // Not among the types that are ever asked for.
            _ => return Hash::default(),
        };
        Hash { value, kind }
    }

    /// The queue of a packet. What is not hashed goes to the first.
    pub(crate) fn queue(&self, hash: Hash) -> usize {
        if hash.kind == rcd::RSS_TYPE_NONE {
            return 0;
        }
        let value = usize::try_from(hash.value).unwrap_or(0);
        let index = value.checked_rem(self.table.len()).unwrap_or(0);
        self.table.get(index).map_or(0, |queue| usize::from(*queue))
    }
}

fn hash_types(types: RssHashType) -> HashTypes {
    let pairs = [
        (RssHashType::IPV4, HashTypes::IPV4),
        (RssHashType::TCP_IPV4, HashTypes::TCP_V4),
        (RssHashType::IPV6, HashTypes::IPV6),
        (RssHashType::TCP_IPV6, HashTypes::TCP_V6),
    ];
    let chosen = pairs.into_iter().filter(|(ours, _)| types.contains(*ours));
    chosen.map(|(_, theirs)| theirs).collect()
}

/// Receive-side scaling, saved.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RssState {
    /// Hash types.
    types: u16,
    #[serde(with = "hex")]
    key: Vec<u8>,
    /// The queue of each value of the hash's low bits.
    #[serde(with = "hex")]
    table: Vec<u8>,
}

impl Rss {
    pub(crate) fn save(&self) -> RssState {
        let Self { conf, types: _, key: _, table } = self;
        let key = conf.hash_key.get(..usize::from(conf.hash_key_size.get())).unwrap_or_default();
        RssState { types: conf.hash_type.get(), key: key.into(), table: table.to_vec() }
    }

    /// For `queues` receive queues.
    pub(crate) fn restored(state: &RssState, queues: usize) -> Result<Self, StateError> {
        let RssState { types, key, table } = state;
        let mut conf = RSSConf { hash_type: (*types).into(), ..RSSConf::default() };
        conf.hash_func = RSS_HASH_FUNC_TOEPLITZ.into();
        let put = |bytes: &[u8], place: &mut [u8]| {
            place.get_mut(..bytes.len())?.copy_from_slice(bytes);
            u16::try_from(bytes.len()).ok()
        };
        let sizes = put(key, &mut conf.hash_key).zip(put(table, &mut conf.ind_table));
        let rss = sizes.and_then(|(key, table)| {
            conf.hash_key_size = key.into();
            conf.ind_table_size = table.into();
            Self::new(&conf, queues)
        });
        rss.ok_or_else(|| StateError::impossible("receive-side scaling"))
    }
}
