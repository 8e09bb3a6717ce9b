//! From functions to the local and I/O APIC: messages and pins.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kvm_bindings::{
    KVM_IRQ_ROUTING_IRQCHIP, KVM_IRQ_ROUTING_MSI, KVM_IRQCHIP_IOAPIC, KvmIrqRouting,
    kvm_irq_routing_entry, kvm_irq_routing_entry__bindgen_ty_1, kvm_irq_routing_irqchip,
    kvm_irq_routing_msi, kvm_msi,
};
use kvm_ioctls::VmFd;
use paraslot_device::{IntxLine, MsiMessage, MsiSink};
use paraslot_pci::Bdf;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::{Path, VmError};

/// Pins of the I/O APIC; global interrupt numbers from here on are messages.
const PINS: u32 = 24;
/// Pins for INTx: the last four, in turn by device number, as QEMU's q35 has it for devices below 25
/// (PIRQ E to H of its ICH9), so that one guest knows both.
const FIRST_INTX_PIN: u8 = 20;
const INTX_PINS: u8 = 4;
/// Global interrupt numbers that KVM has.
const NUMBERS: u32 = 4096;

/// The first thing that went wrong where there was nobody to tell.
#[derive(Default)]
pub(crate) struct Faults(Mutex<Option<VmError>>);

impl Faults {
    pub(crate) fn add(&self, error: VmError) {
        lock(&self.0).get_or_insert(error);
    }
    pub(crate) fn take(&self) -> Option<VmError> {
        lock(&self.0).take()
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
    /// How many functions assert each pin.
    asserted: [Mutex<u32>; INTX_PINS as usize],
}

impl Interrupts {
    pub(crate) fn new(vm: Arc<VmFd>, path: Path, faults: Arc<Faults>) -> Self {
        Self {
            vm,
            path,
            faults,
            sent: AtomicU64::new(0),
            routes: Mutex::default(),
            asserted: Default::default(),
        }
    }

    /// Messages sent by ioctl so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Where a function's messages go.
    pub(crate) fn messages(self: &Arc<Self>) -> Arc<dyn MsiSink> {
        Arc::new(Messages { interrupts: self.clone(), vectors: Mutex::default() })
    }

    /// A function's INTx pin.
    pub(crate) fn pin(self: &Arc<Self>, bdf: Bdf) -> Arc<dyn IntxLine> {
        let index = bdf.device % INTX_PINS;
        Arc::new(Pin { interrupts: self.clone(), index, level: Mutex::new(false) })
    }

    fn send(&self, message: MsiMessage) -> Result<(), VmError> {
        let (address_lo, address_hi) = halves(message.address);
        let msi = kvm_msi { address_lo, address_hi, data: message.data, ..Default::default() };
        self.sent.fetch_add(1, Ordering::Relaxed);
        // Not delivered (because the local APIC is off) is no error.
        self.vm.signal_msi(msi).map(drop).map_err(VmError::kvm("send a message"))
    }

    /// An eventfd that sends `message`, and its global interrupt number.
    fn connect(&self, message: MsiMessage) -> Result<(EventFd, u32), VmError> {
        let mut routes = lock(&self.routes);
        let number = PINS + u32::try_from(routes.len()).unwrap_or(u32::MAX);
        if number >= NUMBERS {
            return Err(VmError::Missing("global interrupt number left"));
        }
        routes.insert(number, message);
        self.publish(&routes)?;
        let what = "connect an eventfd to an interrupt";
        let event = EventFd::new(EFD_NONBLOCK).map_err(|error| VmError::Kvm { what, error })?;
        self.vm.register_irqfd(&event, number).map_err(VmError::kvm(what))?;
        Ok((event, number))
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

fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

/// A function's messages.
struct Messages {
    interrupts: Arc<Interrupts>,
    vectors: Mutex<BTreeMap<u16, Vector>>,
}

#[derive(Default)]
struct Vector {
    message: MsiMessage,
    event: Option<(EventFd, u32)>,
}

impl MsiSink for Messages {
    fn update(&self, vector: u16, message: MsiMessage, masked: bool) {
        // A masked vector's message need not be routed: nobody sends it.
        if masked {
            return;
        }
        let mut vectors = lock(&self.vectors);
        let vector = match vectors.entry(vector) {
            Entry::Vacant(vacant) => vacant.insert(Vector { message, event: None }),
            Entry::Occupied(occupied) => {
                let vector = occupied.into_mut();
                if vector.message == message {
                    return;
                }
                vector.message = message;
                vector
            }
        };
        if let Some((_, number)) = &vector.event {
            self.interrupts.faults.check(self.interrupts.reroute(*number, message));
        }
    }

    fn trigger(&self, vector: u16) {
        let vectors = lock(&self.vectors);
        let Some(vector) = vectors.get(&vector) else { return };
        match &vector.event {
            // An eventfd is full at 2^64 - 2, so this succeeds.
            Some((event, _)) => drop(event.write(1)),
            None => drop(self.interrupts.faults.check(self.interrupts.send(vector.message))),
        }
    }

    fn event(&self, vector: u16) -> Option<EventFd> {
        if self.interrupts.path == Path::Trap {
            return None;
        }
        let mut vectors = lock(&self.vectors);
        let vector = vectors.entry(vector).or_default();
        if vector.event.is_none() {
            vector.event = self.interrupts.faults.check(self.interrupts.connect(vector.message));
        }
        vector.event.as_ref()?.0.try_clone().ok()
    }
}

/// A function's INTx pin. Functions share the machine's pins, so each keeps its own level.
///
/// A level is set by ioctl on either path, by whichever thread changes it. An irqfd has no level: it
/// raises a pin for an instant, or (with a resampling eventfd) until the guest acknowledges it, and
/// then has to be told again. A device that says when its line falls would have to be made to forget
/// that. What it would save is the ioctl of a thread that is not the vCPU's.
struct Pin {
    interrupts: Arc<Interrupts>,
    index: u8,
    level: Mutex<bool>,
}

impl IntxLine for Pin {
    fn set_level(&self, asserted: bool) {
        let mut level = lock(&self.level);
        let Some(count) = self.interrupts.asserted.get(usize::from(self.index)) else { return };
        if *level == asserted {
            return;
        }
        *level = asserted;
        let mut count = lock(count);
        let before = *count;
        *count = if asserted { before + 1 } else { before.saturating_sub(1) };
        if (before == 0) != (*count == 0) {
            let pin = u32::from(FIRST_INTX_PIN + self.index);
            let set = self.interrupts.vm.set_irq_line(pin, asserted);
            self.interrupts.faults.check(set.map_err(VmError::kvm("set an interrupt pin")));
        }
    }
}
