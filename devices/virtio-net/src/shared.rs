//! What the device, its workers and its owner share.

use std::io;
use std::mem::offset_of;
use std::os::fd::AsRawFd;
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use paraslot_backends::net::{NetBackend, NetCounters, NetStatistics};
use paraslot_device::{DeviceError, Source};
use paraslot_spec::virtio_net::{Config, feature, status};
use paraslot_virtio::{DeviceConfig, TransportSignals};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::config::Limits;
use crate::filter::Mac;
use crate::inbox::Inbox;
use crate::state::State;

pub(crate) const MAC: usize = offset_of!(Config, mac);
pub(crate) const STATUS: usize = offset_of!(Config, status);

/// What belongs to one data queue, whether or not it has a worker.
pub(crate) struct Port {
    /// Wakes the worker when what it waits for may have changed.
    bell: EventFd,
    pub(crate) counters: NetCounters,
    /// Of receive queues.
    pub(crate) inbox: Inbox,
}

impl Port {
    fn new() -> io::Result<Self> {
        let bell = EventFd::new(EFD_NONBLOCK)?;
        Ok(Self { bell, counters: NetCounters::default(), inbox: Inbox::default() })
    }

    pub(crate) fn source(&self) -> Source {
        Source::Event(self.bell.as_raw_fd())
    }

    /// Wakes the worker, if there is one.
    pub(crate) fn ring(&self) {
        // Fails only when it has been rung 2⁶⁴ times, and then it rings.
        let _ = self.bell.write(1);
    }
}

pub(crate) struct Shared {
    pub(crate) backend: Arc<dyn NetBackend>,
    pub(crate) config: Arc<DeviceConfig>,
    pub(crate) limits: Limits,
    /// By virtqueue.
    ports: Box<[Arc<Port>]>,
    state: RwLock<State>,
    signals: OnceLock<Arc<dyn TransportSignals>>,
}

impl Shared {
    pub(crate) fn new(
        backend: Arc<dyn NetBackend>,
        config: Arc<DeviceConfig>,
        limits: Limits,
        link: bool,
    ) -> Result<Self, DeviceError> {
        let ports: io::Result<Box<[_]>> =
            (0..2 * limits.pairs).map(|_| Port::new().map(Arc::new)).collect();
        Ok(Self {
            backend,
            config,
            ports: ports.map_err(DeviceError::Worker)?,
            state: RwLock::new(State::new(0, &limits, link)),
            limits,
            signals: OnceLock::new(),
        })
    }

    pub(crate) fn attach(&self, signals: Arc<dyn TransportSignals>) {
        // A second transport would be the host's mistake; the first stays.
        let _ = self.signals.set(signals);
    }

    fn config_changed(&self) {
        if let Some(signals) = self.signals.get() {
            signals.config_changed();
        }
    }

    pub(crate) fn state(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The state, to change it. No worker is in the middle of a round of work then.
    pub(crate) fn change(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn port(&self, index: u16) -> Option<&Arc<Port>> {
        self.ports.get(usize::from(index))
    }

    /// Has all workers of data queues look at the state.
    pub(crate) fn ring_all(&self) {
        self.ports.iter().for_each(|port| port.ring());
    }

    /// What was set up is forgotten, and `features` are accepted.
    pub(crate) fn start_over(&self, features: u64) {
        let mut state = self.change();
        *state = State::new(features, &self.limits, state.link);
        // What the backend refuses it does not deliver, or not so distributed: no harm is done.
        let _ = self.backend.set_receive_offloads(state.offloads);
        let _ = self.backend.set_queues(state.backend_pairs());
        if self.limits.offered & feature::MAC != 0 {
            self.set_mac(self.limits.mac);
        }
        self.set_status(status::ANNOUNCE, false);
    }

    /// What a queue that is about to be started has its notifications held back by (5.1.9.5.10.6).
    pub(crate) fn coalesce_anew(&self, index: u16) {
        let mut state = self.change();
        let usual = state.usual_coalesce(index);
        // The control queue has nothing held back.
        let _ = state.set_coalesce(index, usual);
    }

    /// Notes that a data queue has a worker, or has none any more.
    pub(crate) fn set_running(&self, index: u16, running: bool) {
        let mut state = self.change();
        if let Some(slot) = state.running.get_mut(usize::from(index)) {
            *slot = running;
        }
        // It can refuse no more than an improvement: see `start_over`.
        let _ = self.backend.set_queues(state.backend_pairs());
    }

    /// Shows the driver its address.
    pub(crate) fn set_mac(&self, mac: Mac) {
        self.config.update(|bytes| {
            if let Some(field) = bytes.get_mut(MAC..MAC + 6) {
                field.copy_from_slice(&mac);
            }
        });
    }

    /// Shows the driver whether the link is up, and tells it if that is new.
    pub(crate) fn show_link(&self, up: bool) {
        let shown = self.limits.offered & feature::STATUS != 0;
        if shown && self.set_status(status::LINK_UP, up) {
            self.config_changed();
        }
    }

    /// Changes bits of the status field; returns whether that changed anything.
    pub(crate) fn set_status(&self, bits: u16, set: bool) -> bool {
        self.config.update(|bytes| {
            if let Some(field) = bytes.get_mut(STATUS..STATUS + 2)
                && let Some(field) = field.first_chunk_mut()
            {
                let old = u16::from_le_bytes(*field);
                *field = if set { old | bits } else { old & !bits }.to_le_bytes();
            }
        })
    }
}

/// The owner's hand on a device that a transport has taken over.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<Shared>);

impl Control {
    /// Plugs the cable in or out. While the link is down, frames that the driver sends are lost, and
    /// so is what arrives. It stays as it is when the driver resets the device, and when a saved state
    /// is restored: a driver that was shown otherwise is told of a change.
    ///
    /// Waits for workers to end their round of work.
    pub fn set_link(&self, up: bool) {
        self.0.change().link = up;
        self.0.show_link(up);
        self.0.ring_all();
    }

    /// Whether the link is up.
    pub fn link(&self) -> bool {
        self.0.state().link
    }

    /// Asks the driver to make its presence known to the network (5.1.9.5.4). Returns whether it can
    /// be asked: it must have accepted GUEST_ANNOUNCE. It is asked until it acknowledges, or resets
    /// the device.
    ///
    /// An owner whose guest has moved to another port of the network calls this once the device is
    /// resumed; a restore does not, since it cannot know. Where this returns `false`, the network has
    /// to learn of the move in another way.
    pub fn announce(&self) -> bool {
        let state = self.0.state();
        let possible = state.features & feature::GUEST_ANNOUNCE != 0;
        // While it is held nobody resets the device.
        let changed = possible && self.0.set_status(status::ANNOUNCE, true);
        drop(state);
        if changed {
            self.0.config_changed();
        }
        possible
    }

    /// What became of all frames since the device was made. This is the owner's, and no part of what
    /// is saved.
    pub fn statistics(&self) -> NetStatistics {
        let mut sum = NetStatistics::default();
        self.0.ports.iter().for_each(|port| sum += port.counters.get());
        sum
    }

    /// The same for one pair of queues, from 0; `None` if there is no such pair.
    pub fn queue_statistics(&self, pair: u16) -> Option<NetStatistics> {
        let index = pair.checked_mul(2)?;
        let mut sum = self.0.port(index)?.counters.get();
        sum += self.0.port(index.checked_add(1)?)?.counters.get();
        Some(sum)
    }
}
