//! What the vCPUs' accesses, the worker and the owner share.

mod state;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paraslot_backends::net::{NetCounters, NetStatistics};
use paraslot_device::Bell;
use paraslot_device::Clock;
use paraslot_pci::Interrupts;
use paraslot_spec::e1000::registers::{ADDRESS_VALID, RAH, RAL};
use paraslot_spec::e1000::registers::{CTRL, rah, ral};
use paraslot_spec::e1000::{Cause, Ctrl, Status};

use crate::interrupt::Irq;
use crate::phy::{Phy, Speed};
use crate::registers::Bank;
use crate::statistics::Statistics;

pub(crate) use self::state::SharedState;

/// Everything but the rings' progress, which is the engine's. Nothing here is held for longer than an
/// access takes.
pub(crate) struct Shared {
    pub(crate) bank: Bank,
    pub(crate) irq: Irq,
    pub(crate) statistics: Statistics,
    pub(crate) counters: NetCounters,
    pub(crate) bell: Bell,
    phy: Mutex<Phy>,
    /// STATUS as far as the PHY has a say in it; [`LOOPED`] with it.
    link: AtomicU32,
    /// The worker sleeps for want of receive descriptors: RDT is to wake it.
    starved: AtomicBool,
}

/// The PHY sends back what it is sent. Not a bit of STATUS.
const LOOPED: u32 = 1 << 31;

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(
        interrupts: Arc<Interrupts>,
        clock: Arc<dyn Clock>,
        cable: bool,
    ) -> io::Result<Self> {
        let shared = Self {
            bank: Bank::new(),
            irq: Irq::new(interrupts, clock),
            statistics: Statistics::new(),
            counters: NetCounters::default(),
            bell: Bell::new()?,
            phy: Mutex::new(Phy::new(cable)),
            link: AtomicU32::new(0),
            starved: AtomicBool::new(false),
        };
        shared.phy(|_| ());
        Ok(shared)
    }

    /// Does something to the PHY; the link follows. Says what it has come to.
    pub(crate) fn phy<R>(&self, change: impl FnOnce(&mut Phy) -> R) -> R {
        let mut phy = lock(&self.phy);
        let result = change(&mut phy);
        let link = phy.link().map_or(0, |link| {
            let speed = match link.speed {
                Speed::Ten => Status::empty(),
                Speed::Hundred => Status::SPEED_100 | Status::ASDV_100,
                Speed::Thousand => Status::SPEED_1000 | Status::ASDV_1000,
            };
            let mut status = Status::LU | speed;
            status.set(Status::FD, link.full_duplex);
            status.bits() | if link.loopback { LOOPED } else { 0 }
        });
        self.link.store(link, Ordering::Release);
        result
    }

    /// The link has changed, or has been negotiated anew.
    pub(crate) fn link_changed(&self) {
        self.irq.raise(Cause::LSC.bits());
        self.bell.ring();
    }

    /// Whether the link is up.
    pub(crate) fn link_up(&self) -> bool {
        self.link.load(Ordering::Acquire) & Status::LU.bits() != 0
    }

    /// Whether the PHY sends back what it is sent.
    pub(crate) fn phy_loopback(&self) -> bool {
        self.link.load(Ordering::Acquire) & LOOPED != 0
    }

    /// STATUS: what the PHY says, unless CTRL forces it.
    pub(crate) fn status(&self) -> u32 {
        let ctrl = Ctrl::from_bits_truncate(self.bank.get(CTRL));
        let mut status = Status::from_bits_truncate(self.link.load(Ordering::Acquire));
        if ctrl.contains(Ctrl::FRCSPD) {
            status.set(Status::SPEED_100, ctrl.contains(Ctrl::SPEED_100));
            status.set(Status::SPEED_1000, ctrl.contains(Ctrl::SPEED_1000));
        }
        if ctrl.contains(Ctrl::FRCDPLX) {
            status.set(Status::FD, ctrl.contains(Ctrl::FD));
        }
        status.bits()
    }

    /// Loads the first receive address, as from the EEPROM.
    pub(crate) fn load_address(&self, mac: [u8; 6]) {
        let [a, b, c, d, e, f] = mac;
        self.bank.set(RAL, u32::from_le_bytes([a, b, c, d]));
        self.bank.set(RAH, u32::from(u16::from_le_bytes([e, f])) | ADDRESS_VALID);
    }

    /// Whether `address` is among the exact receive addresses.
    pub(crate) fn has_address(&self, address: [u8; 6]) -> bool {
        let [a, b, c, d, e, f] = address;
        let low = u32::from_le_bytes([a, b, c, d]);
        let high = u32::from(u16::from_le_bytes([e, f])) | ADDRESS_VALID;
        (0..16).any(|entry| {
            // Destination addresses alone: the other values of the address select field are reserved.
            self.bank.get(rah(entry)) == high && self.bank.get(ral(entry)) == low
        })
    }

    /// RDT was written.
    pub(crate) fn refilled(&self) {
        // One total order with `starve`: either this sees the worker starve, or it sees the tail.
        fence(Ordering::SeqCst);
        if self.starved.load(Ordering::Relaxed) {
            self.bell.ring();
        }
    }

    /// Tells whether RDT is to ring the bell. The worker looks at RDT after it has asked for that.
    pub(crate) fn starve(&self, starved: bool) {
        if self.starved.load(Ordering::Relaxed) != starved {
            self.starved.store(starved, Ordering::Relaxed);
        }
        if starved {
            fence(Ordering::SeqCst);
        }
    }
}

/// The owner's hand on an [`E1000`](crate::E1000). Clones are for the same adapter; they may outlive
/// it, and then have no effect.
#[derive(Clone)]
pub struct Control(pub(crate) Arc<Shared>);

impl Control {
    /// Plugs the cable in or out: the guest sees the link go up or down, by STATUS, the PHY and an
    /// interrupt. While it is down, nothing is sent or received: what the guest wants to transmit
    /// stays in its ring, as it does on the hardware.
    pub fn set_link(&self, up: bool) {
        let changed = self.0.phy(|phy| {
            let before = phy.link();
            phy.set_cable(up);
            phy.link() != before
        });
        if changed {
            self.0.link_changed();
        }
    }

    /// Whether the cable is plugged in.
    pub fn link(&self) -> bool {
        self.0.phy(|phy| phy.cable())
    }

    /// What has become of the frames so far, since the adapter was built.
    pub fn statistics(&self) -> NetStatistics {
        self.0.counters.get()
    }
}
