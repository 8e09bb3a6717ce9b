//! A guest's hands on the function, and the host's ears.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use paraslot_device::{Host, IntxLine, ManualExecutor, MsiMessage, MsiSink};
use paraslot_pci::PciDevice;
use paraslot_spec::pci::{Command, capability, header, msix};
use paraslot_spec::virtio::{Status, feature, pci};
use paraslot_virtio::testing::{Buffer, DriverRing};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;
use zerocopy::{FromZeros, IntoBytes};

use super::echo::{Control, Echo, NEEDED};
use crate::VirtioPci;
use crate::offsets;

pub(crate) type Space = Arc<GuestMemoryMmap>;

/// What reaches the host.
#[derive(Default)]
pub(crate) struct Ears {
    pub(crate) messages: Mutex<Vec<u16>>,
    pub(crate) line: AtomicBool,
    pub(crate) edges: AtomicUsize,
}

impl Ears {
    pub(crate) fn line(&self) -> bool {
        self.line.load(Ordering::SeqCst)
    }

    /// Vectors whose message was sent since the last call.
    pub(crate) fn messages(&self) -> Vec<u16> {
        std::mem::take(&mut *self.messages.lock().unwrap())
    }

    /// Whether nothing was heard at all since the last call.
    pub(crate) fn silent(&self) -> bool {
        self.messages().is_empty() && self.edges.swap(0, Ordering::SeqCst) == 0
    }
}

impl MsiSink for Ears {
    fn update(&self, _vector: u16, _message: MsiMessage, _masked: bool) {}
    fn trigger(&self, vector: u16) {
        self.messages.lock().unwrap().push(vector);
    }
    fn event(&self, _vector: u16) -> Option<EventFd> {
        None
    }
}

impl IntxLine for Ears {
    fn set_level(&self, asserted: bool) {
        self.line.store(asserted, Ordering::SeqCst);
        self.edges.fetch_add(1, Ordering::SeqCst);
    }
}

/// Structures of the function, as its capabilities say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Structure {
    pub(crate) at: u16,
    pub(crate) cap_len: u8,
    pub(crate) bar: u8,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

pub(crate) struct Guest {
    pub(crate) function: VirtioPci<Space, Echo>,
    pub(crate) control: Arc<Control>,
    pub(crate) executor: ManualExecutor,
    pub(crate) ears: Arc<Ears>,
    pub(crate) space: Space,
}

pub(crate) fn space() -> Space {
    Arc::new(GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap())
}

pub(crate) fn host(
    space: &Space,
    executor: Arc<dyn paraslot_device::Executor>,
    ears: &Arc<Ears>,
) -> Host<Space> {
    Host { memory: space.clone(), msi: ears.clone(), intx: ears.clone(), executor }
}

impl Guest {
    /// A function after power-on, its memory decoding and bus mastering on.
    pub(crate) fn new() -> Self {
        Self::with(Echo::new())
    }

    pub(crate) fn with(echo: Echo) -> Self {
        let executor = ManualExecutor::new();
        let ears = Arc::new(Ears::default());
        let space = space();
        let control = echo.control.clone();
        let host = host(&space, Arc::new(executor.clone()), &ears);
        let function = VirtioPci::new(echo, host).unwrap();
        let mut guest = Self { function, control, executor, ears, space };
        guest.command(Command::MEMORY | Command::BUS_MASTER);
        guest
    }

    /// As [`new`](Self::new), and with a driver that has gone through with it (3.1.1): both queues
    /// run, the first with `features`.
    pub(crate) fn running(features: u64) -> (Self, DriverRing<Space>) {
        let mut guest = Self::new();
        let rings = guest.start(features);
        (guest, rings)
    }

    /// A driver's way from reset to DRIVER_OK; the first queue's ring.
    pub(crate) fn start(&mut self, features: u64) -> DriverRing<Space> {
        self.set_status(0);
        self.run();
        self.negotiate(features | NEEDED | feature::VERSION_1);
        let ring = self.ring(0);
        self.set_up(0, &ring);
        let other = self.ring(1);
        self.set_up(1, &other);
        let status = self.status() | Status::DRIVER_OK;
        self.set_status(status.bits());
        ring
    }

    pub(crate) fn ring(&self, queue: u16) -> DriverRing<Space> {
        let size = super::echo::SIZES[usize::from(queue)];
        DriverRing::new(self.space.clone(), 0x1_0000 + 0x1_0000 * u64::from(queue), size)
    }

    pub(crate) fn negotiate(&mut self, features: u64) -> Status {
        self.set_status(Status::ACKNOWLEDGE.bits());
        let status = Status::ACKNOWLEDGE | Status::DRIVER;
        self.set_status(status.bits());
        self.write_features(features);
        self.set_status((status | Status::FEATURES_OK).bits());
        self.status()
    }

    pub(crate) fn write_features(&mut self, features: u64) {
        for select in 0..2u32 {
            let window = u32::try_from((features >> (32 * select)) & 0xffff_ffff).unwrap();
            self.set32(offsets::DRIVER_FEATURE_SELECT, select);
            self.set32(offsets::DRIVER_FEATURE, window);
        }
    }

    pub(crate) fn offered(&mut self) -> u64 {
        let mut features = 0;
        for select in (0..2u32).rev() {
            self.set32(offsets::DEVICE_FEATURE_SELECT, select);
            features = (features << 32) | u64::from(self.get32(offsets::DEVICE_FEATURE));
        }
        features
    }

    /// Gives a queue its ring and enables it.
    pub(crate) fn set_up(&mut self, queue: u16, ring: &DriverRing<Space>) {
        self.select(queue);
        self.set16(offsets::QUEUE_SIZE, ring.size());
        self.set64(offsets::QUEUE_DESC, ring.descriptor_table());
        self.set64(offsets::QUEUE_DRIVER, ring.avail_ring());
        self.set64(offsets::QUEUE_DEVICE, ring.used_ring());
        self.set16(offsets::QUEUE_ENABLE, 1);
    }

    pub(crate) fn select(&mut self, queue: u16) {
        self.set16(offsets::QUEUE_SELECT, queue);
    }

    pub(crate) fn status(&mut self) -> Status {
        Status::from_bits_retain(self.common(offsets::DEVICE_STATUS, 1)[0])
    }

    pub(crate) fn set_status(&mut self, status: u8) {
        self.set_common(offsets::DEVICE_STATUS, &[status]);
    }

    pub(crate) fn image(&mut self) -> pci::CommonCfg {
        let mut image = pci::CommonCfg::new_zeroed();
        let bytes = self.common(0, size_of::<pci::CommonCfg>());
        image.as_mut_bytes().copy_from_slice(&bytes);
        image
    }

    pub(crate) fn common(&mut self, offset: u64, len: usize) -> Vec<u8> {
        self.read(crate::layout::COMMON + offset, len)
    }

    pub(crate) fn set_common(&mut self, offset: u64, data: &[u8]) {
        self.write(crate::layout::COMMON + offset, data);
    }

    pub(crate) fn get16(&mut self, offset: u64) -> u16 {
        u16::from_le_bytes(self.common(offset, 2).try_into().unwrap())
    }

    pub(crate) fn get32(&mut self, offset: u64) -> u32 {
        u32::from_le_bytes(self.common(offset, 4).try_into().unwrap())
    }

    pub(crate) fn set16(&mut self, offset: u64, value: u16) {
        self.set_common(offset, &value.to_le_bytes());
    }

    pub(crate) fn set32(&mut self, offset: u64, value: u32) {
        self.set_common(offset, &value.to_le_bytes());
    }

    /// In halves, as drivers must (4.1.3.1).
    pub(crate) fn set64(&mut self, offset: u64, value: u64) {
        let bytes = value.to_le_bytes();
        self.set_common(offset, &bytes[..4]);
        self.set_common(offset + 4, &bytes[4..]);
    }

    pub(crate) fn read(&mut self, offset: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0x5a; len];
        self.function.bar_read(crate::layout::BAR, offset, &mut data);
        data
    }

    pub(crate) fn write(&mut self, offset: u64, data: &[u8]) {
        self.function.bar_write(crate::layout::BAR, offset, data);
    }

    pub(crate) fn isr(&mut self) -> u8 {
        self.read(crate::layout::ISR, 1)[0]
    }

    pub(crate) fn ring_doorbell(&mut self, queue: u16) {
        self.write(crate::layout::NOTIFY + 4 * u64::from(queue), &queue.to_le_bytes());
    }

    pub(crate) fn config(&mut self, offset: u16, len: usize) -> Vec<u8> {
        let mut data = vec![0x5a; len];
        self.function.config_read(offset, &mut data);
        data
    }

    pub(crate) fn config16(&mut self, offset: u16) -> u16 {
        u16::from_le_bytes(self.config(offset, 2).try_into().unwrap())
    }

    pub(crate) fn set_config(&mut self, offset: u16, data: &[u8]) {
        self.function.config_write(offset, data);
    }

    pub(crate) fn command(&mut self, command: Command) {
        self.set_config(header::COMMAND, &command.bits().to_le_bytes());
    }

    /// Offsets of the capabilities with this ID, in order.
    pub(crate) fn capabilities(&mut self, id: u8) -> Vec<u16> {
        let mut found = Vec::new();
        let mut at = u16::from(self.config(header::CAPABILITIES, 1)[0]);
        for _ in 0..48 {
            if at == 0 {
                return found;
            }
            let head = self.config(at, 2);
            if head[0] == id {
                found.push(at);
            }
            at = head[1].into();
        }
        panic!("the capability list does not end")
    }

    /// The first virtio structure of a type.
    pub(crate) fn structure(&mut self, cfg_type: u8) -> Option<Structure> {
        for at in self.capabilities(capability::VENDOR) {
            let mut cap = pci::Capability::new_zeroed();
            let bytes = self.config(at, size_of::<pci::Capability>());
            cap.as_mut_bytes().copy_from_slice(&bytes);
            if cap.cfg_type == cfg_type {
                return Some(Structure {
                    at,
                    cap_len: cap.cap_len,
                    bar: cap.bar,
                    offset: cap.offset.get().into(),
                    length: cap.length.get().into(),
                });
            }
        }
        None
    }

    /// Enables MSI-X and unmasks all vectors.
    pub(crate) fn enable_msix(&mut self) {
        let at = self.capabilities(capability::MSI_X)[0];
        let place = self.config(at + msix::TABLE, 4);
        let table = u64::from(u32::from_le_bytes(place.try_into().unwrap()) & !7);
        for vector in 0..u64::from(self.function.layout().msix_vectors) {
            let entry = table + vector * msix::ENTRY_LEN;
            self.write(entry, &0xfee0_0000_u64.to_le_bytes());
            self.write(entry + 12, &[0; 4]);
        }
        self.set_config(at + msix::CONTROL, &msix::ENABLE.to_le_bytes());
    }

    pub(crate) fn disable_msix(&mut self) {
        let at = self.capabilities(capability::MSI_X)[0];
        self.set_config(at + msix::CONTROL, &[0, 0]);
    }

    /// Has the workers do all they can.
    pub(crate) fn run(&mut self) {
        self.executor.run(100);
    }
}

/// A request that copies eight bytes from one place to another.
pub(crate) const COPY: [Buffer; 2] = [
    Buffer { address: 0x8_0000, len: 8, writable: false },
    Buffer { address: 0x9_0000, len: 8, writable: true },
];
