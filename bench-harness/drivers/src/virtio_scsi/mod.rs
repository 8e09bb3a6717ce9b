//! virtio-scsi (VIRTIO 1.4, 5.6).
//!
//! One request queue is used. The control queue carries task management, one function at a time; the
//! event queue is kept supplied with buffers where the device reports events. Neither interrupts: who
//! has a function carried out waits for it, and events are looked for by [`VirtioScsi::events`].
//!
//! Not driven: data in both directions, protection information, asynchronous notifications.

mod config;
mod control;
mod disk;
mod events;
mod requests;
#[cfg(test)]
mod tests;

pub use config::Options;
pub use control::{Function, Response};
pub use events::Event;

use paraslot_spec::virtio::{device_type, feature};
use paraslot_spec::virtio_scsi::{CONTROL_QUEUE, EVENT_QUEUE, feature as scsi};

use config::Limits;
use control::Control;
use events::Events;
use requests::Requests;

use crate::scsi::{Address, Cdb, Data, Ended, Host, Unit, find_disk};
use crate::virtio::{NotifyAddress, SplitQueue, Transport, find};
use crate::{Error, MsiMessage, Platform};

/// A queue, and where it is notified.
struct Queue {
    ring: SplitQueue,
    index: u16,
    notify: NotifyAddress,
}

impl Queue {
    /// Sets up queue `index`, of at most `limit` entries.
    fn new<P: Platform>(
        transport: &Transport<'_, P>,
        index: u16,
        limit: u16,
        interrupt: Option<(u16, MsiMessage)>,
    ) -> Result<Self, Error> {
        let size = transport.queue_size(index, limit)?;
        let event_idx = transport.has(feature::EVENT_IDX);
        let ring = SplitQueue::new(transport.platform(), size, event_idx)?;
        let notify = transport.enable_queue(index, &ring.layout(), interrupt)?;
        Ok(Self { ring, index, notify })
    }

    /// Tells the device of what was pushed.
    fn kick<P: Platform>(&mut self, transport: &Transport<'_, P>) {
        if self.ring.publish() {
            transport.notify(self.notify, self.index);
        }
    }
}

/// The first disk on a virtio SCSI host.
///
/// Each tag has its chain, as [`VirtioBlk`](crate::virtio_blk::VirtioBlk)'s have: it is set up once,
/// and a request like the one before it changes the command and two bytes of the response, no more.
pub struct VirtioScsi<'p, P> {
    requests: Requests<'p, P>,
    control: Control,
    events: Option<Events>,
    unit: Unit,
    options: Options,
}

impl<'p, P: Platform> VirtioScsi<'p, P> {
    /// Sets up the first virtio-scsi device on bus 0, and the first disk behind it.
    ///
    /// # Errors
    /// When there is none, it cannot be set up, or it is too small for the depth asked for.
    pub fn new(platform: &'p P, options: Options) -> Result<Self, Error> {
        options.check()?;
        let function = find(platform, device_type::SCSI).ok_or(Error::NotFound)?;
        let transport = Transport::new(function, options.accept)?;
        let limits = Limits::read(&transport).map_err(|error| transport.fail(error))?;
        let (mut requests, control, mut events) = match Self::set_up(&transport, &limits, options) {
            Ok((queues, control, events)) => (Requests::new(transport, queues), control, events),
            Err(error) => return Err(transport.fail(error)),
        };
        if let Some(events) = &mut events {
            events.fill(requests.transport());
        }
        match find_disk(&mut requests, limits.targets, limits.max_transfer) {
            Ok(unit) => Ok(Self { requests, control, events, unit, options }),
            Err(error) => Err(requests.transport().fail(error)),
        }
    }

    fn set_up(
        transport: &Transport<'p, P>,
        limits: &Limits,
        options: Options,
    ) -> Result<(requests::Parts, Control, Option<Events>), Error> {
        limits.check(options)?;
        limits.write(transport);
        let control = Control::new(transport, Queue::new(transport, CONTROL_QUEUE, 16, None)?)?;
        let events = Queue::new(transport, EVENT_QUEUE, events::COUNT, None)?;
        let events = match transport.features() & (scsi::HOTPLUG | scsi::CHANGE) {
            0 => None,
            _ => Some(Events::new(transport, events, limits.event_len)?),
        };
        let parts = requests::Parts::new(transport, options)?;
        transport.driver_ok();
        Ok((parts, control, events))
    }

    /// The disk.
    pub fn unit(&self) -> &Unit {
        &self.unit
    }

    /// Has any command carried out, by any unit, and waits for it. Nothing must be in flight. Unlike a
    /// request's, its ending is reported whatever it is.
    ///
    /// # Errors
    /// When something is in flight, the data has a length that commands cannot say, or the device
    /// does not answer or misbehaves.
    pub fn execute(&mut self, address: Address, cdb: &Cdb, data: Data<'_>) -> Result<Ended, Error> {
        self.requests.execute(address, cdb, data)
    }

    /// Features in use.
    pub fn features(&self) -> u64 {
        self.requests.transport().features()
    }

    /// Whether requests are described by indirect tables.
    pub fn uses_indirect(&self) -> bool {
        self.requests.uses_indirect()
    }
}
