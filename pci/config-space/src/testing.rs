//! What the tests of several modules share.

#![expect(clippy::cast_possible_truncation, reason = "numbers chosen to fit")]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use paraslot_device::{IntxLine, MsiMessage, MsiSink};
use paraslot_spec::pci::{Command, header};
use vmm_sys_util::eventfd::EventFd;

use crate::{
    BarKind, BarSpec, BarState, ConfigSpace, ConfigSpaceBuilder, DeviceError, Identity, Layout,
    MsixLayout, PciDevice, ROM_BAR,
};

pub(crate) const IDENTITY: Identity = Identity {
    vendor: 0x1af4,
    device: 0x1042,
    revision: 3,
    class: [0x01, 0x80, 0x05],
    subsystem_vendor: 0x1234,
    subsystem: 0x5678,
};

/// More than one quadword of pending bits, and not a multiple of 64 or 8.
pub(crate) const VECTORS: u16 = 70;
pub(crate) const MSIX_BAR: u8 = 2;
pub(crate) const TABLE: u64 = 0x1000;
pub(crate) const PENDING: u64 = 0x2000;

/// A host that checks what functions promise it: no message is sent that it does not know of or was
/// told is masked, and it hears of no change that is none.
#[derive(Default)]
pub(crate) struct Host {
    told: Mutex<Vec<Option<(MsiMessage, bool)>>>,
    updates: AtomicU64,
    sent: Mutex<Vec<(u16, MsiMessage)>>,
    levels: Mutex<Vec<bool>>,
    event: Option<EventFd>,
}

impl Host {
    pub(crate) fn with_event(event: EventFd) -> Self {
        Self { event: Some(event), ..Self::default() }
    }

    pub(crate) fn told(&self, vector: u16) -> Option<(MsiMessage, bool)> {
        self.told.lock().unwrap().get(usize::from(vector)).copied().flatten()
    }

    pub(crate) fn updates(&self) -> u64 {
        self.updates.load(Ordering::Relaxed)
    }

    /// The vectors that were sent since the last call.
    pub(crate) fn take_sent(&self) -> Vec<u16> {
        self.sent.lock().unwrap().drain(..).map(|(vector, _)| vector).collect()
    }

    /// The messages that were sent since the last call.
    pub(crate) fn take_messages(&self) -> Vec<MsiMessage> {
        self.sent.lock().unwrap().drain(..).map(|(_, message)| message).collect()
    }

    pub(crate) fn level(&self) -> bool {
        self.levels.lock().unwrap().last().copied().unwrap_or(false)
    }
}

impl MsiSink for Host {
    fn update(&self, vector: u16, message: MsiMessage, masked: bool) {
        self.updates.fetch_add(1, Ordering::Relaxed);
        let mut told = self.told.lock().unwrap();
        let vector = usize::from(vector);
        if told.len() <= vector {
            told.resize(vector + 1, None);
        }
        assert_ne!(told[vector], Some((message, masked)), "no news of vector {vector}");
        told[vector] = Some((message, masked));
    }

    fn trigger(&self, vector: u16) {
        let (message, masked) = self.told(vector).expect("a vector that the host never heard of");
        assert!(!masked, "vector {vector} is masked");
        self.sent.lock().unwrap().push((vector, message));
    }

    fn event(&self, _vector: u16) -> Option<EventFd> {
        self.event.as_ref().map(|event| event.try_clone().unwrap())
    }
}

impl IntxLine for Host {
    fn set_level(&self, asserted: bool) {
        let mut levels = self.levels.lock().unwrap();
        assert_ne!(levels.last().copied().unwrap_or(false), asserted, "not a change");
        levels.push(asserted);
    }
}

pub(crate) const fn memory(kind: BarKind, size: u64) -> BarSpec {
    BarSpec { kind, size, prefetchable: false }
}

/// A function with one of everything.
pub(crate) fn builder() -> ConfigSpaceBuilder {
    let mut builder = ConfigSpaceBuilder::new(IDENTITY)
        .bar(0, memory(BarKind::Memory32, 0x1000))
        .bar(1, BarSpec { kind: BarKind::Io, size: 32, prefetchable: false })
        .bar(2, BarSpec { kind: BarKind::Memory64, size: 0x4000, prefetchable: true })
        .bar(4, memory(BarKind::Memory64, 32 << 30))
        .bar(ROM_BAR, memory(BarKind::Rom, 0x1_0000))
        .intx();
    builder.capability(0x09, &[5, 1, 2, 3], &[0, 0xf0]);
    builder
        .power_management()
        .msi()
        .msix(MsixLayout {
            vectors: VECTORS,
            table: (MSIX_BAR, TABLE as u32),
            pba: (MSIX_BAR, PENDING as u32),
        })
        .express()
}

pub(crate) fn build(host: &Arc<Host>) -> ConfigSpace {
    builder().build(host.clone(), host.clone())
}

pub(crate) fn function() -> (ConfigSpace, Arc<Host>) {
    let host = Arc::new(Host::default());
    (build(&host), host)
}

impl ConfigSpace {
    pub(crate) fn read_u8(&self, offset: u16) -> u8 {
        let mut data = [0xa5; 1];
        self.read(offset, &mut data);
        data[0]
    }

    pub(crate) fn read_u16(&self, offset: u16) -> u16 {
        let mut data = [0xa5; 2];
        self.read(offset, &mut data);
        u16::from_le_bytes(data)
    }

    pub(crate) fn read_u32(&self, offset: u16) -> u32 {
        let mut data = [0xa5; 4];
        self.read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn write_u16(&mut self, offset: u16, value: u16) -> crate::Written {
        self.write(offset, &value.to_le_bytes())
    }

    pub(crate) fn write_u32(&mut self, offset: u16, value: u32) -> crate::Written {
        self.write(offset, &value.to_le_bytes())
    }

    pub(crate) fn set_command(&mut self, command: Command) -> crate::Written {
        self.write_u16(header::COMMAND, command.bits())
    }

    /// Sets what the guest may set of a capability's 16-bit register.
    pub(crate) fn control(&mut self, id: u8, register: u16, value: u16) -> crate::Written {
        let at = self.find(id);
        self.write_u16(at + register, value)
    }

    /// The offset of a capability, found as a guest finds it.
    pub(crate) fn find(&self, id: u8) -> u16 {
        let (at, _) = *self.walk().iter().find(|(_, found)| *found == id).unwrap();
        at
    }

    /// Offset and ID of all capabilities in the list's order.
    pub(crate) fn walk(&self) -> Vec<(u16, u8)> {
        let mut list = Vec::new();
        let mut at = u16::from(self.read_u8(header::CAPABILITIES));
        while at != 0 {
            assert!(at >= header::END && at % 4 == 0, "capability pointer {at:#x}");
            assert!(list.len() < 48, "the list does not end");
            list.push((at, self.read_u8(at)));
            at = self.read_u8(at + 1).into();
        }
        list
    }
}

/// A function that consists of a configuration space and bytes behind its BARs.
pub(crate) struct Device {
    pub(crate) config: ConfigSpace,
    layout: Layout,
    pub(crate) bytes: Vec<u8>,
}

impl Device {
    pub(crate) fn new(host: &Arc<Host>) -> Self {
        let config = build(host);
        Self { layout: config.layout(), config, bytes: vec![0; 64] }
    }
}

impl PciDevice for Device {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn bars(&self) -> [Option<BarState>; 7] {
        self.config.bars()
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        if self.config.write(offset, data).function_reset {
            self.reset();
        }
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        if !self.config.msix_read(bar, offset, data) {
            for (at, byte) in (offset..).zip(data) {
                *byte = self.bytes.get(at as usize).copied().unwrap_or(0xff);
            }
        }
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if !self.config.msix_write(bar, offset, data) {
            for (at, value) in (offset..).zip(data) {
                if let Some(byte) = self.bytes.get_mut(at as usize) {
                    *byte = *value;
                }
            }
        }
    }

    fn reset(&mut self) {
        self.config.reset();
        self.bytes.fill(0);
    }

    fn pause(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
}
