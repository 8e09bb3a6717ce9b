//! The adapter's saved state.
//!
//! What the driver had in memory when it activated the device is in it, as it was read then and at each
//! command since: it is not read again, for memory need not be there yet, and the driver may have changed
//! it without having told. Rings are checked as they are at activation, except that they are not
//! looked for in memory: those that are not there stop their queue. Times are nanoseconds before or after
//! the moment at which the adapter was paused.

use std::sync::Mutex;
use std::time::Duration;

use paraslot_device::{DmaSpace, SavedState, StateError};
use paraslot_pci::{ConfigState, PciDevice};
use paraslot_spec::net::ETHERNET_MTU;
use paraslot_spec::vmxnet3::{
    CoalesceScheme, DriverShared, Events, Features, MAX_INTRS, MAX_MTU, REVISION_3,
};
use serde::{Deserialize, Serialize};

use crate::access::REVISIONS;
use crate::activate::{
    BESIDES_MTU, MOST_BUFFERS, Refused, check_queues, rx_control, rx_ids, tx_threshold,
};
use crate::device::{Registers, Vmxnet3};
use crate::filter::{Filter, FilterState};
use crate::irq::{IrqState, Policy, Scheme};
use crate::lane::{LaneState, LaneWorker};
use crate::receive::{RxQueue, RxState};
use crate::rss::{Rss, RssState};
use crate::shared::lock;
use crate::state::Active;
use crate::statistics::StatisticsState;
use crate::transmit::{TxQueue, TxState};

/// Who saves it.
const DEVICE: &str = "vmxnet3";
/// The layout of [`State`].
const VERSION: u32 = 1;

/// All of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    config: ConfigState,
    registers: RegistersState,
    /// The station address.
    #[serde(with = "hex")]
    mac: [u8; 6],
    link: bool,
    interrupts: IrqState,
    statistics: StatisticsState,
    /// If the device is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    active: Option<ActiveState>,
}

/// What no worker looks at.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistersState {
    #[serde(with = "hex")]
    permanent: [u8; 6],
    revision: u32,
    dsal: u32,
    dsah: u32,
    macl: u32,
    /// What CMD reads.
    result: u32,
    coalescing: SchemeState,
}

/// A coalescing scheme as the driver is told of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SchemeState {
    mode: u32,
    tx_depth_or_rate: u32,
    tx_comp_depth: u32,
    rx_depth: u32,
}

/// What the driver has set up, and how far its queues are.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActiveState {
    /// Where `DriverShared` is.
    shared: u64,
    /// Where the queue descriptors are.
    queues: u64,
    revision: u32,
    features: u64,
    mtu: u16,
    most_buffers: u8,
    /// Packets go on in head buffers.
    #[serde(default, skip_serializing_if = "is_default")]
    heads_alone: bool,
    event_intr: u8,
    /// Each interrupt's moderation level.
    #[serde(with = "hex")]
    levels: [u8; MAX_INTRS],
    filter: FilterState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rss: Option<RssState>,
    tx: Vec<TxState>,
    rx: Vec<RxState>,
    /// ECR.
    #[serde(default, skip_serializing_if = "is_default")]
    events: u32,
    /// Events that the driver has not been told of.
    #[serde(default, skip_serializing_if = "is_default")]
    news: u32,
    /// Each worker's.
    lanes: Vec<LaneState>,
}

impl<A: DmaSpace> Vmxnet3<A> {
    /// What [`PciDevice::save`] does.
    pub(crate) fn save_state(&mut self) -> Result<SavedState, StateError> {
        let Self { config, layout: _, shared, backend: _, dma: _, registers, runners, paused } =
            self;
        let mut workers = Vec::new();
        for runner in runners {
            workers.push(runner.parked::<LaneWorker<A>>().ok_or(StateError::NotPaused)?);
        }
        let state = shared.state();
        let active = state.active.as_ref().map(|active| {
            let lanes = workers.iter().map(|worker| worker.save(active, *paused)).collect();
            ActiveState::of(active, shared.news(), lanes)
        });
        let state = State {
            config: config.save(),
            registers: RegistersState::of(registers),
            mac: shared.mac(),
            link: shared.link_up(),
            interrupts: shared.irq.save(*paused),
            statistics: shared.statistics.save(),
            active: active.transpose()?,
        };
        SavedState::new(DEVICE, VERSION, &state)
    }

    /// What [`PciDevice::restore`] does.
    pub(crate) fn restore_state(&mut self, state: &SavedState) -> Result<(), StateError> {
        if !self.is_paused() {
            return Err(StateError::NotPaused);
        }
        self.reset();
        let restored = state.open(DEVICE, VERSION).and_then(|state| self.take_over(&state));
        if restored.is_err() {
            self.reset();
        }
        restored
    }

    /// Takes a state over after a reset: all of it is checked before any of it is.
    fn take_over(&mut self, state: &State) -> Result<(), StateError> {
        let State { config, registers, mac, link, interrupts, statistics, active } = state;
        let now = self.shared.irq.now();
        let epoch = self.registers.epoch.wrapping_add(1);
        let registers = registers.check(&self.registers.permanent, epoch)?;
        statistics.check()?;
        let (mut news, mut lanes) = (Events::empty(), Vec::new());
        let checked = match active {
            Some(state) => {
                let queues = state.rx.len();
                let all = state.lanes.len() == self.runners.len();
                require(all, "another number of workers")?;
                let checked = state.lanes.iter().map(|lane| lane.check(queues, now));
                lanes = checked.collect::<Result<_, _>>()?;
                news = events(state.news)?;
                Some(state.check(&registers)?)
            }
            None => None,
        };
        let policies = checked.as_ref().map(Active::policies);
        let interrupts = interrupts.check(policies.as_ref(), now)?;
        self.config.restore(config)?;

        // Nothing fails from here on.
        self.paused = now;
        self.registers = registers;
        self.shared.set_mac(*mac);
        self.shared.set_link(*link);
        self.shared.statistics.restore(statistics);
        let held = self.shared.irq.restore(&interrupts);
        if let (Some(active), Some(state)) = (checked, active) {
            self.set_backend(&active);
            for ((runner, lane), checked) in self.runners.iter_mut().zip(&state.lanes).zip(lanes) {
                if let Some(worker) = runner.parked::<LaneWorker<A>>() {
                    worker.restore(lane, checked, &active);
                }
            }
            self.shared.change().active = Some(active);
            self.shared.announce(news);
            self.shared.hold(held);
        }
        self.shared.ring_all();
        Ok(())
    }
}

impl RegistersState {
    fn of(registers: &Registers) -> Self {
        // Activations are counted to be told from each other, here.
        let Registers { permanent, revision, address, mac_low, result, scheme, epoch: _ } =
            *registers;
        let [dsal, dsah] = address;
        let CoalesceScheme { mode, tx_depth_or_rate, tx_comp_depth, rx_depth } = scheme.told();
        let coalescing = SchemeState {
            mode: mode.get(),
            tx_depth_or_rate: tx_depth_or_rate.get(),
            tx_comp_depth: tx_comp_depth.get(),
            rx_depth: rx_depth.get(),
        };
        Self { permanent, revision, dsal, dsah, macl: mac_low, result, coalescing }
    }

    /// For an adapter whose address is `here`.
    fn check(&self, here: &[u8; 6], epoch: u64) -> Result<Registers, StateError> {
        let Self { permanent, revision, dsal, dsah, macl, result, coalescing } = self;
        require(permanent == here, "another adapter's permanent address")?;
        let SchemeState { mode, tx_depth_or_rate, tx_comp_depth, rx_depth } = *coalescing;
        let scheme = Scheme::of(&CoalesceScheme {
            mode: mode.into(),
            tx_depth_or_rate: tx_depth_or_rate.into(),
            tx_comp_depth: tx_comp_depth.into(),
            rx_depth: rx_depth.into(),
        });
        Ok(Registers {
            permanent: *permanent,
            revision: one_revision(*revision)?,
            address: [*dsal, *dsah],
            mac_low: *macl,
            result: *result,
            scheme: scheme.ok_or_else(|| StateError::impossible("a coalescing scheme"))?,
            epoch,
        })
    }
}

impl ActiveState {
    fn of(active: &Active, news: Events, lanes: Vec<LaneState>) -> Result<Self, StateError> {
        let Active {
            epoch: _,
            shared,
            queues,
            revision,
            features,
            longest,
            most_buffers,
            event_intr,
            levels,
            // The registers have it.
            scheme: _,
            filter,
            rss,
            tx,
            rx,
            events,
        } = active;
        Ok(Self {
            shared: *shared,
            queues: *queues,
            revision: *revision,
            features: features.bits(),
            mtu: u16::try_from(longest.saturating_sub(BESIDES_MTU)).unwrap_or(u16::MAX),
            most_buffers: u8::try_from(*most_buffers).unwrap_or(u8::MAX),
            heads_alone: rx.first().is_some_and(|queue| lock(queue).heads_alone()),
            event_intr: *event_intr,
            levels: levels.map(|level| level.level().unwrap_or(0)),
            filter: filter.save(),
            rss: rss.as_ref().map(Rss::save),
            tx: tx.iter().map(|queue| lock(queue).save()).collect(),
            rx: rx.iter().map(|queue| lock(queue).save()).collect::<Result<_, _>>()?,
            events: lock(events).bits(),
            news: news.bits(),
            lanes,
        })
    }

    /// The active device, if there can be one like that.
    fn check(&self, registers: &Registers) -> Result<Active, StateError> {
        let Self {
            shared,
            queues,
            revision,
            features,
            mtu,
            most_buffers,
            heads_alone,
            event_intr,
            levels,
            filter,
            rss,
            tx,
            rx,
            events: set,
            news: _,
            lanes: _,
        } = self;
        possible(check_queues(*queues, tx.len(), rx.len()))?;
        let whole = shared.checked_add(size_of::<DriverShared>() as u64).is_some();
        require(whole, "DriverShared ends behind all addresses")?;
        let revision = one_revision(*revision)?;
        let features = Features::from_bits(*features);
        let features = features.ok_or_else(|| StateError::impossible("unknown features"))?;
        let (mtu, most_buffers) = (usize::from(*mtu), usize::from(*most_buffers));
        let largest = usize::try_from(MAX_MTU).unwrap_or(ETHERNET_MTU);
        let right =
            (ETHERNET_MTU..=largest).contains(&mtu) && (1..=MOST_BUFFERS).contains(&most_buffers);
        require(right, "an MTU, or a number of buffers, that cannot be")?;
        // CVE-2013-4544: the interrupts that queues and events have are those that there are.
        let intrs = tx.iter().map(TxState::intr).chain(rx.iter().map(RxState::intr));
        let there = intrs.chain([*event_intr]).all(|intr| usize::from(intr) < MAX_INTRS);
        require(there, "an interrupt that is not there")?;
        let mut policies = [Policy::None; MAX_INTRS];
        for (policy, level) in policies.iter_mut().zip(levels) {
            let known = Policy::of_level(*level);
            *policy = known.ok_or_else(|| StateError::impossible("a moderation level"))?;
        }
        require(features.contains(Features::RSS) == rss.is_some(), "RSS or no RSS")?;
        let rss = rss.as_ref().map(|rss| Rss::restored(rss, rx.len())).transpose()?;
        let tx_queues = tx.iter().enumerate().map(|(index, state)| {
            TxQueue::restored(state, tx_threshold(*queues, index)).map(Mutex::new)
        });
        let rx_queues = rx.iter().enumerate().map(|(index, state)| {
            let ids = rx_ids(rx.len(), index);
            let control = rx_control(*queues, tx.len(), index);
            let data_rings = revision >= REVISION_3;
            RxQueue::restored(state, *heads_alone, data_rings, ids, control).map(Mutex::new)
        });
        Ok(Active {
            epoch: registers.epoch,
            shared: *shared,
            queues: *queues,
            revision,
            features,
            longest: mtu + BESIDES_MTU,
            most_buffers,
            event_intr: *event_intr,
            levels: policies,
            scheme: registers.scheme,
            filter: Filter::restored(filter)?,
            rss,
            tx: tx_queues.collect::<Result<_, _>>()?,
            rx: rx_queues.collect::<Result<_, _>>()?,
            events: Mutex::new(events(*set)?),
        })
    }
}

fn one_revision(revision: u32) -> Result<u32, StateError> {
    let known = revision.is_power_of_two() && revision & REVISIONS != 0;
    require(known, "a revision that is not offered")?;
    Ok(revision)
}

fn events(bits: u32) -> Result<Events, StateError> {
    Events::from_bits(bits).ok_or_else(|| StateError::impossible("unknown events"))
}

/// What activation would refuse is no state.
pub(crate) fn possible<T>(checked: Result<T, Refused>) -> Result<T, StateError> {
    checked.map_err(|refused| StateError::impossible(format!("not to be activated: {refused:?}")))
}

/// Refuses a state in which something is not so.
pub(crate) fn require(so: bool, otherwise: &str) -> Result<(), StateError> {
    if so { Ok(()) } else { Err(StateError::impossible(otherwise)) }
}

/// Nanoseconds from `start` to `end`, as they are saved: none if that is negative, and `most` at most,
/// which is as good as any more.
pub(crate) fn elapsed(start: Duration, end: Duration, most: Duration) -> u64 {
    u64::try_from(end.saturating_sub(start).min(most).as_nanos()).unwrap_or(u64::MAX)
}

/// Whether a field that is mostly not there need not be saved.
pub(crate) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
