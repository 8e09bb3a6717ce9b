//! A function whose hardware is a script, and which writes down all that would reach it.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use paraslot_device::{
    Executor, Host, HostPages, IntxEventFds, IntxLine, ManualExecutor, MsiMessage, MsiSink,
    SharedPage,
};
use paraslot_spec::pci::{capability, express, header, msix};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::VfioPci;
use crate::function::{Function, Irq, Region, RegionInfo};

/// What reached the hardware.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Write(Region, u64, Vec<u8>),
    Enable(Irq, usize),
    /// The first vector, and how many.
    Retrigger(Irq, u16, usize),
    UnmaskBy,
    Disable(Irq),
    Reset,
}

/// The hardware, as a test sees it.
#[derive(Default)]
pub(crate) struct Hardware {
    pub(crate) config: Vec<u8>,
    pub(crate) regions: [RegionInfo; 6],
    pub(crate) irqs: [u32; 3],
    pub(crate) has_reset: bool,
    pub(crate) bars: BTreeMap<(u8, u64), u8>,
    pub(crate) reads: Vec<(Region, u64, usize)>,
    pub(crate) calls: Vec<Call>,
    pub(crate) mapped: Vec<(u8, u64, u64)>,
    pub(crate) active: Option<Irq>,
    triggers: Vec<EventFd>,
    unmask: Option<EventFd>,
    masked: bool,
    /// The kernel refuses changes of interrupts.
    pub(crate) refuses: bool,
    /// What the hardware drives its pin to.
    pub(crate) level: bool,
}

/// A handle on it.
#[derive(Clone, Default)]
pub(crate) struct Fake(Arc<Mutex<Hardware>>);

impl Fake {
    pub(crate) fn lock(&self) -> MutexGuard<'_, Hardware> {
        self.0.lock().unwrap()
    }

    /// 256 bytes of configuration space of an Ethernet adapter, no BARs, no capabilities, no pin.
    pub(crate) fn new() -> Self {
        let fake = Self::default();
        let mut hardware = fake.lock();
        hardware.config = vec![0; 256];
        hardware.has_reset = true;
        hardware.set(header::VENDOR_ID, &[0x86, 0x80, 0xd3, 0x10]);
        hardware.set(header::REVISION_ID, &[3, 0, 0, 2]);
        hardware.set(header::SUBSYSTEM_VENDOR_ID, &[0x86, 0x80, 0x1f, 0xa0]);
        drop(hardware);
        fake
    }

    /// With a 16 KiB memory BAR 0, a 32-byte I/O BAR 2, and in 64-bit BAR 4 an MSI-X table at 0x1000
    /// and pending bits at 0x2008, of 70 vectors; with MSI and its mask, power management, PCI Express and a pin.
    pub(crate) fn full() -> Self {
        let fake = Self::new();
        let mut hardware = fake.lock();
        hardware.bar(0, 0, 0x4000);
        hardware.bar(2, 1, 0x20);
        hardware.bar(4, 0xc, 0x4000);
        hardware.capabilities(&[
            (0x40, &[capability::POWER_MANAGEMENT, 0, 0x22, 0xc8, 0, 0, 0, 0]),
            (0x48, &[&[capability::MSI, 0, 0x80, 1][..], &[0; 20]].concat()),
            (0x60, &express_capability()),
            (0xa0, &msix_capability(70, (4, 0x1000), (4, 0x2008))),
        ]);
        hardware.config[usize::from(header::INTERRUPT_PIN)] = 2;
        hardware.irqs = [1, 1, 70];
        drop(hardware);
        fake
    }

    pub(crate) fn open(&self, host: &FakeHost) -> Result<VfioPci<()>, crate::VfioError> {
        VfioPci::new(Box::new(self.clone()), host.host())
    }

    /// The hardware raises an interrupt, as the kernel passes it on.
    pub(crate) fn raise(&self, vector: usize) -> bool {
        let hardware = self.lock();
        match hardware.triggers.get(vector) {
            Some(trigger) if hardware.active != Some(Irq::Intx) => trigger.write(1).is_ok(),
            _ => false,
        }
    }

    /// The hardware sets its pin; the kernel masks the interrupt when it has passed it on.
    pub(crate) fn set_level(&self, level: bool) {
        let mut hardware = self.lock();
        hardware.level = level;
        hardware.pin();
    }

    /// The kernel sees that the guest's acknowledgement was written.
    pub(crate) fn poll(&self) {
        let mut hardware = self.lock();
        if hardware.unmask.as_ref().is_some_and(|event| event.read().is_ok()) {
            hardware.masked = false;
            hardware.pin();
        }
    }

    pub(crate) fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.lock().calls)
    }
}

impl Hardware {
    pub(crate) fn set(&mut self, at: u16, bytes: &[u8]) {
        let at = usize::from(at);
        self.config[at..at + bytes.len()].copy_from_slice(bytes);
    }

    pub(crate) fn bar(&mut self, index: u8, flags: u8, size: u64) {
        self.set(header::BAR0 + 4 * u16::from(index), &[flags, 0, 0, 0]);
        let mappable = if flags & 1 == 0 && size >= 4096 { vec![(0, size)] } else { Vec::new() };
        self.regions[usize::from(index)] = RegionInfo { size, mappable };
    }

    /// Links capabilities: where, and their bytes.
    pub(crate) fn capabilities(&mut self, list: &[(u16, &[u8])]) {
        let mut pointer = header::CAPABILITIES;
        self.config[usize::from(header::STATUS)] |= 0x10;
        for (at, bytes) in list {
            self.set(*at, bytes);
            self.set(pointer, &at.to_le_bytes()[..1]);
            pointer = at + 1;
        }
        self.set(pointer, &[0]);
    }

    fn refuse(&self) -> io::Result<()> {
        if self.refuses { Err(io::ErrorKind::OutOfMemory.into()) } else { Ok(()) }
    }

    fn pin(&mut self) {
        if self.active == Some(Irq::Intx) && self.level && !self.masked {
            self.masked = true;
            self.triggers[0].write(1).unwrap();
        }
    }
}

impl Function for Fake {
    fn region(&self, region: Region) -> RegionInfo {
        match region {
            Region::Config => {
                RegionInfo { size: self.lock().config.len() as u64, mappable: vec![] }
            }
            Region::Bar(bar) => self.lock().regions[usize::from(bar)].clone(),
        }
    }

    fn read(&self, region: Region, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let mut hardware = self.lock();
        check(&hardware, region, offset, data.len());
        hardware.reads.push((region, offset, data.len()));
        for (at, byte) in (offset..).zip(data) {
            *byte = match region {
                Region::Config => hardware.config[usize::try_from(at).unwrap()],
                Region::Bar(bar) => hardware.bars.get(&(bar, at)).copied().unwrap_or(0),
            };
        }
        Ok(())
    }

    fn write(&self, region: Region, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut hardware = self.lock();
        check(&hardware, region, offset, data.len());
        hardware.calls.push(Call::Write(region, offset, data.to_vec()));
        for (at, byte) in (offset..).zip(data) {
            match region {
                Region::Config => hardware.config[usize::try_from(at).unwrap()] = *byte,
                Region::Bar(bar) => drop(hardware.bars.insert((bar, at), *byte)),
            }
        }
        Ok(())
    }

    fn pages(&self, bar: u8, offset: u64, len: u64) -> io::Result<Arc<dyn HostPages>> {
        let mut hardware = self.lock();
        assert!(len > 0 && offset.is_multiple_of(4096) && len.is_multiple_of(4096));
        assert!(offset + len <= hardware.regions[usize::from(bar)].size);
        hardware.mapped.push((bar, offset, len));
        Ok(Arc::new(SharedPage::new(4096)?))
    }

    fn irqs(&self, irq: Irq) -> u32 {
        self.lock().irqs[irq as usize]
    }

    fn enable(&self, irq: Irq, triggers: &[&EventFd]) -> io::Result<()> {
        let mut hardware = self.lock();
        hardware.refuse()?;
        assert_eq!(hardware.active, None, "two kinds of interrupt");
        assert!(
            (1..=hardware.irqs[irq as usize]).contains(&u32::try_from(triggers.len()).unwrap())
        );
        hardware.active = Some(irq);
        hardware.calls.push(Call::Enable(irq, triggers.len()));
        hardware.triggers = triggers.iter().map(|event| event.try_clone().unwrap()).collect();
        hardware.masked = false;
        hardware.pin();
        Ok(())
    }

    fn retrigger(&self, irq: Irq, first: u16, triggers: &[&EventFd]) -> io::Result<()> {
        let mut hardware = self.lock();
        hardware.refuse()?;
        assert_eq!(hardware.active, Some(irq));
        hardware.calls.push(Call::Retrigger(irq, first, triggers.len()));
        let first = usize::from(first);
        // As of Linux 6.1: a vector that was not there when the kind was enabled cannot come later.
        let places = hardware.triggers.get_mut(first..first + triggers.len());
        let places = places.ok_or(io::ErrorKind::InvalidInput)?;
        for (place, trigger) in places.iter_mut().zip(triggers) {
            *place = trigger.try_clone()?;
        }
        Ok(())
    }

    fn unmask_by(&self, event: &EventFd) -> io::Result<()> {
        let mut hardware = self.lock();
        assert_eq!(hardware.active, Some(Irq::Intx));
        hardware.calls.push(Call::UnmaskBy);
        hardware.unmask = Some(event.try_clone()?);
        Ok(())
    }

    fn disable(&self, irq: Irq) -> io::Result<()> {
        let mut hardware = self.lock();
        assert_eq!(hardware.active.take(), Some(irq));
        hardware.calls.push(Call::Disable(irq));
        hardware.triggers.clear();
        hardware.unmask = None;
        Ok(())
    }

    fn has_reset(&self) -> bool {
        self.lock().has_reset
    }

    fn reset(&self) -> io::Result<()> {
        let mut hardware = self.lock();
        assert!(hardware.has_reset);
        hardware.calls.push(Call::Reset);
        // The kernel puts back what was there before it, which may have been that.
        hardware.config[4] |= 4;
        Ok(())
    }
}

/// What the kernel is never asked for.
fn check(hardware: &Hardware, region: Region, offset: u64, len: usize) {
    assert!([1, 2, 4, 8].contains(&len) && offset.is_multiple_of(len as u64), "{offset:#x}, {len}");
    let size = match region {
        Region::Config => hardware.config.len() as u64,
        Region::Bar(bar) => hardware.regions[usize::from(bar)].size,
    };
    assert!(offset + len as u64 <= size, "{offset:#x} of {region:?}");
}

/// A host with an eventfd for each vector, or without.
#[derive(Default)]
pub(crate) struct FakeHost(Arc<Sinks>);

#[derive(Default)]
pub(crate) struct Sinks {
    events: Vec<EventFd>,
    /// How often one of them was asked for.
    asked: AtomicUsize,
    sent: Mutex<Vec<u16>>,
    pub(crate) told: Mutex<BTreeMap<u16, (MsiMessage, bool)>>,
    pin: Option<IntxEventFds>,
    /// Nobody has the pin any more.
    gone: AtomicBool,
}

/// The pin, whose eventfds are of use as long as someone has it.
struct Line(Arc<Sinks>);

impl Drop for Line {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::Relaxed);
    }
}

impl FakeHost {
    pub(crate) fn new() -> Self {
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let pin = Some(IntxEventFds { assert: event(), acknowledged: event() });
        let events = (0..70).map(|_| event()).collect();
        Self(Arc::new(Sinks { events, pin, ..Sinks::default() }))
    }

    pub(crate) fn without_pin() -> Self {
        let events = (0..70).map(|_| EventFd::new(EFD_NONBLOCK).unwrap()).collect();
        Self(Arc::new(Sinks { events, ..Sinks::default() }))
    }

    pub(crate) fn host(&self) -> Host<()> {
        let executor: Arc<dyn Executor> = Arc::new(ManualExecutor::new());
        let line = Arc::new(Line(self.0.clone()));
        Host { memory: (), msi: self.0.clone(), intx: line, executor }
    }

    /// How many messages of a vector have come since the last call.
    pub(crate) fn messages(&self, vector: u16) -> u64 {
        let written = self.0.events[usize::from(vector)].read().unwrap_or(0);
        let mut sent = self.0.sent.lock().unwrap();
        let before = sent.len();
        sent.retain(|at| *at != vector);
        written + (before - sent.len()) as u64
    }

    /// How often an eventfd was asked for.
    pub(crate) fn asked(&self) -> usize {
        self.0.asked.load(Ordering::Relaxed)
    }

    pub(crate) fn asserted(&self) -> u64 {
        assert!(!self.0.gone.load(Ordering::Relaxed), "the pin is not wired any more");
        self.0.pin.as_ref().unwrap().assert.read().unwrap_or(0)
    }

    pub(crate) fn acknowledge(&self) {
        self.0.pin.as_ref().unwrap().acknowledged.write(1).unwrap();
    }

    pub(crate) fn told(&self, vector: u16) -> Option<(MsiMessage, bool)> {
        self.0.told.lock().unwrap().get(&vector).copied()
    }
}

impl MsiSink for Sinks {
    fn update(&self, vector: u16, message: MsiMessage, masked: bool) {
        self.told.lock().unwrap().insert(vector, (message, masked));
    }
    fn trigger(&self, vector: u16) {
        self.sent.lock().unwrap().push(vector);
    }
    fn event(&self, vector: u16) -> Option<EventFd> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.events.get(usize::from(vector))?.try_clone().ok()
    }
}

impl IntxLine for Line {
    fn set_level(&self, _asserted: bool) {
        panic!("the line is the hardware's");
    }
    fn eventfds(&self) -> Option<IntxEventFds> {
        let pin = self.0.pin.as_ref()?;
        let (assert, acknowledged) = (pin.assert.try_clone(), pin.acknowledged.try_clone());
        Some(IntxEventFds { assert: assert.ok()?, acknowledged: acknowledged.ok()? })
    }
}

/// An endpoint with function level reset and a link.
pub(crate) fn express_capability() -> Vec<u8> {
    let mut bytes = vec![0; usize::from(express::LEN)];
    bytes[0] = capability::PCI_EXPRESS;
    bytes[2] = 0x02;
    bytes[4..8].copy_from_slice(&(express::FUNCTION_LEVEL_RESET | 0x8001).to_le_bytes());
    bytes[8..10].copy_from_slice(&0x2810_u16.to_le_bytes());
    bytes[0x0a] = 0x30;
    bytes[0x0c] = 0x11;
    bytes
}

pub(crate) fn msix_capability(vectors: u16, table: (u8, u32), pba: (u8, u32)) -> Vec<u8> {
    let mut bytes = vec![0; usize::from(msix::LEN)];
    bytes[0] = capability::MSI_X;
    bytes[2..4].copy_from_slice(&(vectors - 1).to_le_bytes());
    for (at, (bar, offset)) in [(4, table), (8, pba)] {
        bytes[at..at + 4].copy_from_slice(&(offset | u32::from(bar)).to_le_bytes());
    }
    bytes
}
