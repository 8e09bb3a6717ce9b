//! What one initiator port sees.

mod state;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use paraslot_device::Bell;
use paraslot_spec::scsi::sense::code;

use crate::lane::{Lane, Mailbox};
use crate::nexus::Nexus;
use crate::task::{Caller, Effect, Function, Kind, Order, Response, Ticket, Work};
use crate::unit::LogicalUnit;
pub use state::BusState;

/// Where a unit is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// Target, 0 to 255.
    pub target: u8,
    /// Logical unit number, 0 to 16383.
    pub lun: u16,
}

/// Who an initiator is, to units that several buses share: persistent reservations are held in this
/// name (a TransportID of SPC-4, 7.6.4, is made of it).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Initiator(pub String);

/// How a bus is to be.
#[derive(Clone, Debug)]
pub struct BusOptions {
    /// The initiator's name, unique among those that share units.
    pub initiator: Initiator,
    /// Highest target there can be.
    pub max_target: u8,
    /// Highest LUN there can be, at most 16383.
    pub max_lun: u16,
    /// Sense data goes with the status, as everywhere today. Without it (ATAPI), a unit keeps it for
    /// the REQUEST SENSE that comes next.
    pub autosense: bool,
}

/// Why a unit could not be attached.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum BusError {
    /// The address is beyond the bus's limits.
    #[error("target {} LUN {} is beyond the limits", .0.target, .0.lun)]
    Range(Address),
    /// There is a unit already.
    #[error("target {} LUN {} is taken", .0.target, .0.lun)]
    Taken(Address),
}

/// What happens on a bus that its initiator may want to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusEvent {
    /// A unit was attached.
    Attached,
    /// A unit was detached.
    Detached,
    /// Something about a unit has changed, for which it has a unit attention with this additional
    /// sense code and qualifier pending (capacity, medium, mode parameters).
    Changed {
        /// Additional sense code.
        asc: u8,
        /// Its qualifier.
        ascq: u8,
        /// It is a CD-ROM.
        removable: bool,
    },
}

/// Hears of what happens on a bus, on whatever thread makes it happen.
pub trait Listener: Send + Sync {
    /// `event` happened to the unit at `address`.
    fn event(&self, address: Address, event: BusEvent);
}

/// The units that one initiator port sees. Cheap to clone.
///
/// Units come and go, and are shared with other buses, while lanes are at work: each lane has a view
/// of the bus of its own, and finds out by one load whether it is still true.
#[derive(Clone)]
pub struct Bus(Arc<Port>);

impl Bus {
    /// An empty bus.
    pub fn new(options: BusOptions) -> Self {
        Self(Arc::new(Port {
            options,
            inventory: Mutex::default(),
            generation: AtomicU64::new(0),
            leaving: Mutex::default(),
            lanes: Mutex::default(),
            listener: Mutex::default(),
        }))
    }

    /// The highest target and LUN.
    pub fn limits(&self) -> Address {
        Address { target: self.0.options.max_target, lun: self.0.options.max_lun.min(MAX_LUN) }
    }

    /// Who is to hear of events, instead of who was before. A device sets it when it takes the bus.
    pub fn listen(&self, listener: Option<Arc<dyn Listener>>) {
        *lock(&self.0.listener) = listener;
    }

    /// Puts a unit at an address, while the bus is in use or before. One unit may be on several buses.
    ///
    /// # Errors
    /// When the address is not free or not possible.
    pub fn attach(&self, address: Address, unit: Arc<LogicalUnit>) -> Result<(), BusError> {
        let limits = self.limits();
        if address.target > limits.target || address.lun > limits.lun {
            return Err(BusError::Range(address));
        }
        // The unit's own locks are never taken inside the inventory's.
        let nexus = Nexus::new(unit, &self.0, address);
        match lock(&self.0.inventory).entry(address) {
            Entry::Occupied(_) => return Err(BusError::Taken(address)),
            Entry::Vacant(place) => {
                place.insert(nexus);
                self.0.generation.fetch_add(1, Ordering::Release);
            }
        }
        self.0.luns_changed(address);
        self.0.tell(address, BusEvent::Attached);
        Ok(())
    }

    /// Takes the unit away from an address, if there is one. Its commands end with
    /// [`Outcome::Reset`](crate::Outcome::Reset); the ticket says when the last one has.
    pub fn detach(&self, address: Address) -> Option<Ticket> {
        let nexus = {
            let mut inventory = lock(&self.0.inventory);
            let nexus = inventory.remove(&address)?;
            self.0.generation.fetch_add(1, Ordering::Release);
            nexus
        };
        let mut nexuses = self.0.leaving(|other| other == address);
        lock(&self.0.leaving).push(Arc::downgrade(&nexus));
        nexuses.push(nexus.clone());
        let work = Work::new(Response::Complete, Effect::Detach(nexus), Caller::None);
        let ticket = issue(nexuses, None, &Kind::Reset, work);
        self.0.luns_changed(address);
        self.0.tell(address, BusEvent::Detached);
        Some(ticket)
    }

    /// The capacity of the disk at an address has changed: has all who see it told. Returns it in bytes;
    /// `None` if there is no unit. See [`LogicalUnit::resize`].
    pub fn resize(&self, address: Address) -> Option<u64> {
        self.unit(address).map(|unit| unit.resize())
    }

    /// The unit at an address.
    pub fn unit(&self, address: Address) -> Option<Arc<LogicalUnit>> {
        lock(&self.0.inventory).get(&address).map(|nexus| nexus.unit.clone())
    }

    /// The addresses of all units, in order.
    pub fn addresses(&self) -> Vec<Address> {
        lock(&self.0.inventory).keys().copied().collect()
    }

    /// A lane for up to `depth` commands at once.
    ///
    /// # Errors
    /// When the host lacks the resources.
    pub fn open_lane(&self, depth: u32) -> io::Result<Lane> {
        let lane = Lane::new(self.0.clone(), depth)?;
        let mut lanes = lock(&self.0.lanes);
        lanes.retain(|mailbox| mailbox.strong_count() != 0);
        lanes.push(Arc::downgrade(lane.mailbox()));
        drop(lanes);
        Ok(lane)
    }

    /// Has a task management function carried out by all lanes that it concerns. `bell`, if given, rings
    /// when the ticket has its response.
    ///
    /// What a reset does to a unit, it does when all commands that it ends have ended: what the unit
    /// carries out meanwhile finds it as it was. A lane whose worker does not run may have commands, and
    /// is waited for until it runs again or is dropped. Commands of a unit that was detached from the
    /// address a moment ago are among those that a function is about.
    pub fn manage(&self, function: Function, bell: Option<Arc<Bell>>) -> Ticket {
        match self.concerned(function) {
            Ok(Concerned { nexuses, tag, kind, effect, response }) => {
                let work = Work::new(response, effect, bell.into());
                issue(nexuses, tag, &kind, work)
            }
            Err(response) => Ticket::done(response, &bell.into()),
        }
    }

    /// What a function is about; or its response, if nothing needs to be done.
    fn concerned(&self, function: Function) -> Result<Concerned, Response> {
        match function {
            Function::AbortTask { address, tag } => self.one(address, Some(tag), Kind::Abort),
            Function::AbortTaskSet(address) => self.one(address, None, Kind::Abort),
            Function::QueryTask { address, tag } => self.one(address, Some(tag), Kind::Query),
            Function::QueryTaskSet(address) => self.one(address, None, Kind::Query),
            Function::ClearAca(address) => {
                self.0.find(address)?;
                Err(Response::Complete)
            }
            Function::ClearTaskSet(address) => match self.0.find(address) {
                Ok(by) => {
                    let mut concerned = self.one(address, None, Kind::Clear(by.clone()))?;
                    concerned.add(by.unit.nexuses());
                    Ok(concerned)
                }
                Err(_) => self.one(address, None, Kind::Abort),
            },
            Function::LogicalUnitReset(address) => {
                let mut concerned = self.one(address, None, Kind::Reset)?;
                if let Ok(nexus) = self.0.find(address) {
                    concerned.reset(vec![nexus], code::DEVICE_RESET.1);
                }
                Ok(concerned)
            }
            Function::NexusReset { target } => {
                let units = self.0.units(Some(target));
                let mut nexuses = self.0.leaving(|address| address.target == target);
                let response = match (units.is_empty(), nexuses.is_empty()) {
                    (false, _) => Response::Complete,
                    (true, false) => Response::NoTarget,
                    (true, true) => return Err(Response::NoTarget),
                };
                nexuses.extend(units.iter().cloned());
                let effect = Effect::Lost(units);
                Ok(Concerned { nexuses, tag: None, kind: Kind::Reset, effect, response })
            }
            Function::ResetAll => {
                let nexuses = self.0.leaving(|_| true);
                let (kind, response) = (Kind::Reset, Response::Complete);
                let effect = Effect::None;
                let mut concerned = Concerned { nexuses, tag: None, kind, effect, response };
                concerned.reset(self.0.units(None), code::BUS_RESET.1);
                Ok(concerned)
            }
        }
    }

    /// A function for one address. Commands of a unit that has just been there may not have ended, and
    /// their initiator must not be told before they have.
    fn one(&self, address: Address, tag: Option<u64>, kind: Kind) -> Result<Concerned, Response> {
        let mut nexuses = self.0.leaving(|other| other == address);
        let response = match self.0.find(address) {
            Ok(nexus) => {
                nexuses.push(nexus);
                Response::Complete
            }
            Err(response) if nexuses.is_empty() => return Err(response),
            Err(response) => response,
        };
        Ok(Concerned { nexuses, tag, kind, effect: Effect::None, response })
    }

    /// What the device's own reset does to its units: every reservation, attention and mode setting
    /// that does not survive a hard reset is as after power-on (unit attention 29/00). The
    /// lanes must have been stopped or dropped.
    pub fn power_on(&self) {
        for nexus in self.0.units(None) {
            nexus.power_on();
        }
    }
}

/// Whose commands a function is about, and what becomes of them and of the units.
struct Concerned {
    nexuses: Vec<Arc<Nexus>>,
    tag: Option<u64>,
    kind: Kind,
    effect: Effect,
    /// If no query finds anything.
    response: Response,
}

impl Concerned {
    /// These, too.
    fn add(&mut self, nexuses: Vec<Arc<Nexus>>) {
        for nexus in nexuses {
            if !self.nexuses.iter().any(|other| Arc::ptr_eq(other, &nexus)) {
                self.nexuses.push(nexus);
            }
        }
    }

    /// A reset of the units of `wanted`, each once, for whoever sees them.
    fn reset(&mut self, wanted: Vec<Arc<Nexus>>, ascq: u8) {
        let mut units: Vec<Arc<Nexus>> = Vec::new();
        for nexus in wanted {
            if !units.iter().any(|other| Arc::ptr_eq(&other.unit, &nexus.unit)) {
                self.add(nexus.unit.nexuses());
                units.push(nexus);
            }
        }
        self.effect = Effect::Reset(units, ascq);
    }
}

/// Gives all lanes of the buses of `nexuses` their part of a function.
pub(crate) fn issue(
    nexuses: Vec<Arc<Nexus>>,
    tag: Option<u64>,
    kind: &Kind,
    work: Arc<Work>,
) -> Ticket {
    let ticket = work.ticket();
    let mut by_port: BTreeMap<*const Port, (Arc<Port>, Vec<Arc<Nexus>>)> = BTreeMap::new();
    for nexus in nexuses {
        // Without a port there are no lanes.
        let Some(port) = nexus.port.upgrade() else { continue };
        let (_, theirs) = by_port.entry(Arc::as_ptr(&port)).or_insert_with(|| (port, Vec::new()));
        theirs.push(nexus);
    }
    for (port, theirs) in by_port.into_values() {
        let order = Order { kind: kind.clone(), nexuses: theirs.into(), tag, work: work.clone() };
        let mailboxes: Vec<_> = lock(&port.lanes).iter().filter_map(Weak::upgrade).collect();
        for mailbox in mailboxes {
            mailbox.post(order.clone());
        }
    }
    // Unless some lane has it, it is over here.
    drop(work);
    ticket
}

/// Highest LUN that flat space addressing has (SAM-5, 4.7.7.3).
const MAX_LUN: u16 = 0x3fff;

/// What the clones of a [`Bus`], its lanes and its nexuses share.
pub(crate) struct Port {
    options: BusOptions,
    inventory: Mutex<BTreeMap<Address, Arc<Nexus>>>,
    /// Counts changes of the inventory. Changed under its lock.
    generation: AtomicU64,
    /// What was detached; gone when its commands have ended.
    leaving: Mutex<Vec<Weak<Nexus>>>,
    lanes: Mutex<Vec<Weak<Mailbox>>>,
    listener: Mutex<Option<Arc<dyn Listener>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Port {
    pub(crate) fn options(&self) -> &BusOptions {
        &self.options
    }

    /// Another number after every change of what is attached.
    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// All that is attached, in order, and the number that goes with it.
    pub(crate) fn view(&self) -> (u64, Vec<Arc<Nexus>>) {
        let inventory = lock(&self.inventory);
        (self.generation(), inventory.values().cloned().collect())
    }

    /// The LUNs of a target, in order.
    pub(crate) fn luns(&self, target: u8) -> Vec<u16> {
        let inventory = lock(&self.inventory);
        inventory.range(span(target)).map(|(address, _)| address.lun).collect()
    }

    /// Tells the listener, if there is one.
    pub(crate) fn tell(&self, address: Address, event: BusEvent) {
        let listener = lock(&self.listener).clone();
        if let Some(listener) = listener {
            listener.event(address, event);
        }
    }

    /// The units of a target, or of all.
    fn units(&self, target: Option<u8>) -> Vec<Arc<Nexus>> {
        let inventory = lock(&self.inventory);
        let all = inventory.values();
        all.filter(|nexus| target.is_none_or(|only| nexus.address.target == only))
            .cloned()
            .collect()
    }

    /// What was detached from `wanted` addresses and may have commands yet.
    fn leaving(&self, wanted: impl Fn(Address) -> bool) -> Vec<Arc<Nexus>> {
        let mut leaving = lock(&self.leaving);
        leaving.retain(|nexus| nexus.strong_count() != 0);
        let all = leaving.iter().filter_map(Weak::upgrade);
        all.filter(|nexus| wanted(nexus.address)).collect()
    }

    fn find(&self, address: Address) -> Result<Arc<Nexus>, Response> {
        let inventory = lock(&self.inventory);
        if let Some(nexus) = inventory.get(&address) {
            return Ok(nexus.clone());
        }
        let there = inventory.range(span(address.target)).next().is_some();
        Err(if there { Response::IncorrectLun } else { Response::NoTarget })
    }

    /// The other units of its target report that what REPORT LUNS says has changed (SPC-4, 6.33).
    fn luns_changed(&self, address: Address) {
        let (asc, ascq) = code::LUNS_CHANGED;
        for nexus in self.units(Some(address.target)) {
            if nexus.address != address {
                nexus.attention(asc, ascq);
            }
        }
    }
}

fn span(target: u8) -> std::ops::RangeInclusive<Address> {
    Address { target, lun: 0 }..=Address { target, lun: u16::MAX }
}
