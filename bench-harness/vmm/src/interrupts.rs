//! From functions to the local and I/O APIC: messages and pins.

mod messages;
mod pin;

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi, kvm_msi,
};
use kvm_ioctls::VmFd;
use paraslot_device::{IntxEventFds, IntxLine, MsiMessage, MsiSink};
use paraslot_pci::Bdf;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{Path, VmError};

use messages::Messages;
use pin::Pin;

/// Pins of the I/O APIC; global interrupt numbers from here on are messages.
const PINS: u32 = 24;
/// Pins for INTx: the last four, in turn by device number, as QEMU's q35 has it for devices below 25
/// (PIRQ E to H of its ICH9), so that one guest knows both.
pub(crate) const FIRST_INTX_PIN: u8 = 20;
/// How many there are.
pub(crate) const INTX_PINS: u8 = 4;
/// Global interrupt numbers that KVM has.
const NUMBERS: u32 = 4096;

/// The first thing that went wrong where there was nobody to tell.
#[derive(Default)]
pub(crate) struct Faults {
    first: Mutex<Option<VmError>>,
    alarm: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl Faults {
    /// Has `alarm` called for each of them from now on. Only the first such call counts.
    pub(crate) fn on_fault(&self, alarm: Box<dyn Fn() + Send + Sync>) {
        let _ = self.alarm.set(alarm);
    }
    pub(crate) fn add(&self, error: VmError) {
        lock(&self.first).get_or_insert(error);
        if let Some(alarm) = self.alarm.get() {
            alarm();
        }
    }
    pub(crate) fn take(&self) -> Option<VmError> {
        lock(&self.first).take()
    }
    fn check<T>(&self, result: Result<T, VmError>) -> Option<T> {
        result.map_err(|error| self.add(error)).ok()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The machine's interrupt inputs.
pub(crate) struct Interrupts {
    vm: Arc<VmFd>,
    path: Path,
    faults: Arc<Faults>,
    /// Messages sent by ioctl.
    sent: AtomicU64,
    /// Messages by global interrupt number.
    routes: Mutex<BTreeMap<u32, MsiMessage>>,
    /// Those who have them.
    sinks: Mutex<Vec<Weak<Messages>>>,
    /// How many functions assert each pin.
    asserted: [Mutex<u32>; INTX_PINS as usize],
}

impl Interrupts {
    /// Interrupts of a machine whose controllers have been made. Pins lead to the I/O APIC alone: the
    /// PC/AT controllers, to which KVM leads the first sixteen as well, are not part of these machines.
    /// Guests do not set them up, and after a reset would get what had gathered there.
    pub(crate) fn new(vm: Arc<VmFd>, path: Path, faults: Arc<Faults>) -> Result<Self, VmError> {
        let interrupts = Self {
            vm,
            path,
            faults,
            sent: AtomicU64::new(0),
            routes: Mutex::default(),
            sinks: Mutex::default(),
            asserted: Default::default(),
        };
        interrupts.publish(&BTreeMap::new())?;
        Ok(interrupts)
    }

    /// Messages sent by ioctl so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Where a function's messages go.
    pub(crate) fn messages(self: &Arc<Self>) -> Arc<dyn MsiSink> {
        let messages = Arc::new(Messages::new(self.clone()));
        let mut sinks = lock(&self.sinks);
        sinks.retain(|sink| sink.strong_count() != 0);
        sinks.push(Arc::downgrade(&messages));
        messages
    }

    /// Waits until messages that were sent by eventfd have reached their local APICs. Nobody sends any
    /// meanwhile.
    pub(crate) fn flush(&self) -> Result<(), VmError> {
        let sinks: Vec<_> = lock(&self.sinks).iter().filter_map(Weak::upgrade).collect();
        sinks.iter().try_for_each(|sink| sink.flush())
    }

    /// Waits until an interrupt that `event` has asked for, as [`VmFd::register_irqfd`] has connected it to
    /// `number`, has reached its controller. Nobody asks meanwhile.
    pub(crate) fn flush_event(&self, event: &EventFd, number: u32) -> Result<(), VmError> {
        // KVM hands some to a worker of the kernel's, for which it waits when it lets go of the eventfd.
        self.vm.unregister_irqfd(event, number).map_err(VmError::kvm(CONNECT))?;
        self.vm.register_irqfd(event, number).map_err(VmError::kvm(CONNECT))
    }

    /// Has the I/O APIC see its pins for INTx as the functions have them.
    pub(crate) fn set_pins(&self) -> Result<(), VmError> {
        let what = "set an interrupt pin";
        (0..INTX_PINS).zip(&self.asserted).try_for_each(|(index, count)| {
            let asserted = *lock(count) != 0;
            self.vm.set_irq_line(intx_pin(index), asserted).map_err(VmError::kvm(what))
        })
    }

    /// A function's INTx pin.
    pub(crate) fn pin(self: &Arc<Self>, bdf: Bdf) -> Arc<dyn IntxLine> {
        Arc::new(Pin::new(self.clone(), bdf.device % INTX_PINS))
    }

    fn send(&self, message: MsiMessage) -> Result<(), VmError> {
        let (address_lo, address_hi) = halves(message.address);
        let msi = kvm_msi { address_lo, address_hi, data: message.data, ..Default::default() };
        self.sent.fetch_add(1, Ordering::Relaxed);
        match self.vm.signal_msi(msi) {
            // Not delivered is no error: the guest has turned the local APIC off, or there is none of
            // that number. KVM says so with 0 or -1, which is also this.
            Ok(_) => Ok(()),
            Err(error) if error.errno() == libc::EPERM => Ok(()),
            Err(error) => Err(VmError::kvm("send a message")(error)),
        }
    }

    /// An eventfd that sends `message`, and its global interrupt number.
    fn connect(&self, message: MsiMessage) -> Result<(EventFd, u32), VmError> {
        let event = EventFd::new(EFD_NONBLOCK).map_err(no_event)?;
        let mut routes = lock(&self.routes);
        let number = (PINS..NUMBERS).find(|number| !routes.contains_key(number));
        let number = number.ok_or(VmError::Missing("global interrupt number left"))?;
        routes.insert(number, message);
        let connected = self
            .publish(&routes)
            .and_then(|()| self.vm.register_irqfd(&event, number).map_err(VmError::kvm(CONNECT)));
        if connected.is_err() {
            routes.remove(&number);
        }
        connected.map(|()| (event, number))
    }

    /// Gives up what [`connect`](Self::connect) gave.
    fn disconnect<'a>(&self, events: impl Iterator<Item = &'a (EventFd, u32)>) {
        let mut routes = lock(&self.routes);
        for (event, number) in events {
            // It has been registered, so this cannot fail; and there is nobody to tell.
            let _ = self.vm.unregister_irqfd(event, *number);
            // KVM hears of that with the next change: nothing leads to the number any more.
            routes.remove(number);
        }
    }

    /// A pair of eventfds for pin `index` of those for INTx.
    fn connect_pin(&self, index: u8) -> Result<IntxEventFds, VmError> {
        let make = || EventFd::new(EFD_NONBLOCK).map_err(no_event);
        let events = IntxEventFds { assert: make()?, acknowledged: make()? };
        self.vm
            .register_irqfd_with_resample(&events.assert, &events.acknowledged, intx_pin(index))
            .map_err(VmError::kvm(CONNECT))?;
        Ok(events)
    }

    fn disconnect_pin(&self, index: u8, events: &IntxEventFds) {
        let _ = self.vm.unregister_irqfd(&events.assert, intx_pin(index));
    }

    /// Counts a function in or out of those that assert pin `index`, and sets the pin.
    fn assert_pin(&self, index: u8, asserted: bool) {
        let Some(count) = self.asserted.get(usize::from(index)) else { return };
        let mut count = lock(count);
        let before = *count;
        *count = if asserted { before + 1 } else { before.saturating_sub(1) };
        if (before == 0) != (*count == 0) {
            let set = self.vm.set_irq_line(intx_pin(index), asserted);
            self.faults.check(set.map_err(VmError::kvm("set an interrupt pin")));
        }
    }

    fn reroute(&self, number: u32, message: MsiMessage) -> Result<(), VmError> {
        let mut routes = lock(&self.routes);
        routes.insert(number, message);
        self.publish(&routes)
    }

    fn publish(&self, routes: &BTreeMap<u32, MsiMessage>) -> Result<(), VmError> {
        let pins = (0..PINS).map(|pin| kvm_irq_routing_entry {
            gsi: pin,
            type_: KVM_IRQ_ROUTING_IRQCHIP,
            u: kvm_irq_routing_entry__bindgen_ty_1 {
                irqchip: kvm_irq_routing_irqchip { irqchip: KVM_IRQCHIP_IOAPIC, pin },
            },
            ..Default::default()
        });
        let messages = routes.iter().map(|(number, message)| {
            let (address_lo, address_hi) = halves(message.address);
            let msi = kvm_irq_routing_msi {
                address_lo,
                address_hi,
                data: message.data,
                ..Default::default()
            };
            kvm_irq_routing_entry {
                gsi: *number,
                type_: KVM_IRQ_ROUTING_MSI,
                u: kvm_irq_routing_entry__bindgen_ty_1 { msi },
                ..Default::default()
            }
        });
        let entries: Vec<_> = pins.chain(messages).collect();
        let table = KvmIrqRouting::from_entries(&entries)
            .map_err(|_| VmError::Missing("room for more interrupts"))?;
        self.vm.set_gsi_routing(&table).map_err(VmError::kvm("route interrupts"))
    }
}

const CONNECT: &str = "connect an eventfd to an interrupt";

fn no_event(error: io::Error) -> VmError {
    VmError::Kvm { what: CONNECT, error }
}

/// The pin of the I/O APIC that is number `index` of those for INTx.
fn intx_pin(index: u8) -> u32 {
    u32::from(FIRST_INTX_PIN + index % INTX_PINS)
}

fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}
