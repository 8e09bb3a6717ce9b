//! Tests with a driver made by hand: it keeps the rings as a driver does, and trusts nothing it has not
//! looked at in memory.

#![expect(clippy::cast_possible_truncation, reason = "numbers chosen to fit")]

mod activation;
mod bringup;
mod commands;
mod hostile;
mod interrupts;
mod parts;
mod random;
mod receiving;
mod saving;
mod sending;
mod spreading;
mod stopping;
mod threads;
mod waking;

use std::mem::offset_of;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use paraslot_backends::net::testing::{HostPort, Packet, ScriptedNet, Sent};
use paraslot_backends::net::{NetBackend, NetStatistics, Offload};
use paraslot_device::{Executor, Host, ManualClock, ManualExecutor, Progress};
use paraslot_pci::PciDevice;
use paraslot_spec::pci;
use paraslot_spec::vmxnet3::registers::*;
use paraslot_spec::vmxnet3::*;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;
use zerocopy::{FromBytes, IntoBytes, little_endian};

use self::parts::{Board, Got, Setup, Side};
use crate::{Control, Options, Vmxnet3};

const MEMORY: usize = 4 << 20;
const SHARED: u64 = 0x1000;
const QUEUES: u64 = 0x2000;
const RSS: u64 = 0x4000;
const SPARE: u64 = 0x5000;
/// Each queue's rings, an area for each.
const TX_RINGS: u64 = 0x1_0000;
const RX_RINGS_AT: u64 = 0x4_0000;
const AREA: u64 = 0x4000;
const TX_DATA: u64 = 0x10_0000;
const RX_DATA: u64 = 0x20_0000;
/// Buffers of one receive queue.
const RX_AREA: u64 = 0x2_0000;
const RING: u32 = 32;
const BUFFER: u64 = 2048;
const MAC: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x55];

type Space = Arc<GuestMemoryMmap>;

/// A guest with an adapter.
struct Machine {
    nic: Vmxnet3<Space>,
    memory: Space,
    executor: ManualExecutor,
    host: HostPort,
    clock: ManualClock,
    board: Arc<Board>,
    control: Control,
    setup: Setup,
    tx: Vec<[Side; 2]>,
    /// The two rings and the completions of each receive queue.
    rx: Vec<[Side; 3]>,
}

fn build(
    backend: impl NetBackend + 'static,
    options: Options,
    executor: Arc<dyn Executor>,
) -> (Vmxnet3<Space>, Space, Arc<Board>) {
    let memory =
        Arc::new(GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap());
    let (nic, board) = plug(backend, options, executor, memory.clone());
    (nic, memory, board)
}

/// Puts an adapter into a machine that has memory.
fn plug(
    backend: impl NetBackend + 'static,
    options: Options,
    executor: Arc<dyn Executor>,
    memory: Space,
) -> (Vmxnet3<Space>, Arc<Board>) {
    let board = Arc::new(Board::default());
    let host = Host { memory, msi: board.clone(), intx: board.clone(), executor };
    (Vmxnet3::new(Arc::new(backend), options, host).unwrap(), board)
}

/// What the adapter of a machine is made of.
fn options(setup: &Setup, clock: &ManualClock) -> Options {
    Options {
        clock: Arc::new(clock.clone()),
        queues: setup.queues,
        express: setup.express,
        link: setup.link,
        ..Options::new(MAC)
    }
}

impl Machine {
    /// A machine that was just switched on, with bus mastering and its interrupts enabled.
    fn off(setup: Setup) -> Self {
        let (backend, host) = ScriptedNet::new(setup.queues);
        Self::on(setup, backend, host)
    }

    /// One with a backend that others may have too.
    fn on(setup: Setup, backend: ScriptedNet, host: HostPort) -> Self {
        let executor = ManualExecutor::new();
        let clock = ManualClock::new();
        let options = options(&setup, &clock);
        let (nic, memory, board) = build(backend, options, Arc::new(executor.clone()));
        let control = nic.control();
        let (tx, rx) = (Vec::new(), Vec::new());
        let mut machine =
            Self { nic, memory, executor, host, clock, board, control, setup, tx, rx };
        machine.command(pci::Command::MEMORY | pci::Command::BUS_MASTER);
        if machine.setup.messages {
            machine.enable_messages();
        }
        machine
    }

    /// A machine whose driver is ready to send and receive.
    fn with(setup: Setup) -> Self {
        let mut machine = Self::off(setup);
        machine.start();
        machine
    }

    fn new() -> Self {
        Self::with(Setup::default())
    }

    fn command(&mut self, command: pci::Command) {
        self.nic.config_write(pci::header::COMMAND, &command.bits().to_le_bytes());
    }

    fn config(&mut self, offset: u16) -> u32 {
        let mut data = [0; 4];
        self.nic.config_read(offset, &mut data);
        u32::from_le_bytes(data)
    }

    /// The offset of a capability.
    fn capability(&mut self, id: u8) -> Option<u16> {
        let mut at = (self.config(pci::header::CAPABILITIES) & 0xff) as u16;
        while at != 0 {
            let header = self.config(at);
            if header as u8 == id {
                return Some(at);
            }
            at = (header >> 8 & 0xff) as u16;
        }
        None
    }

    fn enable_messages(&mut self) {
        for vector in 0..MAX_INTRS as u64 {
            self.nic.bar_write(MSIX_BAR, vector * 16, &[0; 16]);
        }
        let at = self.capability(pci::capability::MSI_X).unwrap();
        let enable = pci::msix::ENABLE;
        self.nic.config_write(at + pci::msix::CONTROL, &enable.to_le_bytes());
    }

    fn read_pt(&mut self, offset: u64) -> u32 {
        self.read(PT_BAR, offset)
    }

    fn write_pt(&mut self, offset: u64, value: u32) {
        self.nic.bar_write(PT_BAR, offset, &value.to_le_bytes());
    }

    fn read(&mut self, bar: u8, offset: u64) -> u32 {
        let mut data = [0; 4];
        self.nic.bar_read(bar, offset, &mut data);
        u32::from_le_bytes(data)
    }

    fn read_vd(&mut self, offset: u64) -> u32 {
        self.read(VD_BAR, offset)
    }

    fn write_vd(&mut self, offset: u64, value: u32) {
        self.nic.bar_write(VD_BAR, offset, &value.to_le_bytes());
    }

    /// Gives a command; returns how it ended.
    fn order(&mut self, command: u32) -> u32 {
        self.write_vd(CMD, command);
        self.read_vd(CMD)
    }

    /// What a driver writes to `DriverShared`, the queue descriptors and the rings.
    fn prepare(&mut self) -> DriverShared {
        let Setup { tx, rx, .. } = self.setup;
        let mut shared = DriverShared::default();
        shared.magic = REV1_MAGIC.into();
        let setup = self.setup.clone();
        let read = &mut shared.dev_read;
        read.misc.driver_info.vmxnet3_rev_spt = 1.into();
        read.misc.driver_info.upt_ver_spt = 1.into();
        read.misc.upt_features = setup.features.bits().into();
        read.misc.queue_desc_pa = QUEUES.into();
        read.misc.queue_desc_len = (256 * (tx + rx) as u32).into();
        read.misc.mtu = setup.mtu.into();
        read.misc.max_num_rx_sg = setup.most_buffers.into();
        read.misc.num_tx_queues = tx as u8;
        read.misc.num_rx_queues = rx as u8;
        read.intr_conf.auto_mask = setup.auto_mask.into();
        // Transmit queues, receive queues, events; or one for all.
        let number = if setup.messages { tx + rx + 1 } else { 1 };
        read.intr_conf.num_intrs = number as u8;
        read.intr_conf.event_intr_idx = number as u8 - 1;
        read.intr_conf.mod_levels = [setup.level; MAX_INTRS];
        read.rx_filter_conf.rx_mode = setup.mode.bits().into();
        read.rss_conf_desc =
            VariableLenConfDesc { conf_ver: 1.into(), conf_len: 176.into(), conf_pa: RSS.into() };
        let intr = |index: usize| if setup.messages { index as u8 } else { 0 };
        self.fill(QUEUES, &vec![0; 256 * (tx + rx)]);
        self.tx.clear();
        for index in 0..tx {
            let base = TX_RINGS + AREA * index as u64;
            let sides = [Side::new(base, RING), Side::new(base + 0x2000, RING)];
            self.fill(base, &[0; AREA as usize]);
            self.tx.push(sides);
            let mut queue = TxQueueDesc::default();
            queue.conf.tx_ring_base_pa = sides[0].base.into();
            queue.conf.comp_ring_base_pa = sides[1].base.into();
            queue.conf.tx_ring_size = RING.into();
            queue.conf.comp_ring_size = RING.into();
            queue.conf.intr_idx = intr(index);
            self.fill(QUEUES + 256 * index as u64, queue.as_bytes());
        }
        self.rx.clear();
        for index in 0..rx {
            let base = RX_RINGS_AT + AREA * index as u64;
            let sides = [
                Side::new(base, RING),
                Side::new(base + 0x1000, RING),
                Side::new(base + 0x2000, 2 * RING),
            ];
            self.fill(base, &[0; AREA as usize]);
            self.rx.push(sides);
            let mut queue = RxQueueDesc::default();
            queue.conf.rx_ring_base_pa = [sides[0].base.into(), sides[1].base.into()];
            queue.conf.comp_ring_base_pa = sides[2].base.into();
            queue.conf.rx_ring_size = [RING.into(); 2];
            queue.conf.comp_ring_size = (2 * RING).into();
            queue.conf.intr_idx = intr(tx + index);
            if setup.data_ring != 0 {
                queue.conf.rx_data_ring_base_pa = data_ring(index).into();
                queue.conf.rx_data_ring_desc_size = setup.data_ring.into();
            }
            self.fill(QUEUES + 256 * (tx + index) as u64, queue.as_bytes());
        }
        shared
    }

    /// Activates the device with what is in `shared`; returns how that ended.
    fn activate(&mut self, shared: &DriverShared) -> u32 {
        self.fill(SHARED, shared.as_bytes());
        self.write_vd(VRRS, self.setup.revision);
        self.write_vd(UVRS, UPT_VERSION_1);
        self.write_vd(DSAL, SHARED as u32);
        self.write_vd(DSAH, 0);
        self.order(command::ACTIVATE_DEV)
    }

    fn start(&mut self) {
        let shared = self.prepare();
        assert_eq!(self.activate(&shared), 0);
        for queue in 0..self.setup.rx {
            self.give(queue, 0, RING - 1);
            self.give(queue, 1, RING - 1);
        }
        for intr in 0..MAX_INTRS as u64 {
            self.write_pt(IMR + intr * STRIDE, 0);
        }
        self.run();
    }

    /// Gives `count` buffers of a receive queue's ring to the device, without ringing.
    fn give(&mut self, queue: usize, ring: usize, count: u32) {
        for _ in 0..count {
            let side = self.rx[queue][ring];
            let body = ring == 1 || !side.next.is_multiple_of(self.setup.bodies + 1);
            let mut flags = self.setup.buffer;
            flags |= if body { rxd::BTYPE_BODY } else { 0 };
            flags |= if side.lap { rxd::GEN } else { 0 };
            let descriptor = RxDesc::new(buffer(queue, ring, side.next), flags);
            self.fill(side.at(), descriptor.as_bytes());
            self.rx[queue][ring].step();
        }
    }

    fn run(&self) {
        assert!(self.executor.run(3000), "the workers do not come to rest");
    }

    fn advance(&self, microseconds: u64) {
        self.clock.advance(Duration::from_micros(microseconds));
        self.run();
    }

    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    fn get<T: FromBytes>(&self, address: u64) -> T {
        T::read_from_bytes(&self.bytes(address, size_of::<T>())).unwrap()
    }

    fn fill(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    /// A field of `DriverShared`.
    fn set_shared(&self, offset: usize, value: &[u8]) {
        self.fill(SHARED + offset as u64, value);
    }

    fn tx_desc(&self, queue: usize) -> TxQueueDesc {
        self.get(QUEUES + 256 * queue as u64)
    }

    fn rx_desc(&self, queue: usize) -> RxQueueDesc {
        self.get(QUEUES + 256 * (self.setup.tx + queue) as u64)
    }

    fn ecr(&self) -> Events {
        let ecr: little_endian::U32 = self.get(SHARED + offset_of!(DriverShared, ecr) as u64);
        Events::from_bits_retain(ecr.get())
    }

    /// Queues a packet of descriptors whose generations are set here, the first's last, without ringing.
    fn put(&mut self, queue: usize, descriptors: &[TxDesc]) {
        let first = self.tx[queue][0];
        for (number, descriptor) in descriptors.iter().enumerate() {
            let side = &mut self.tx[queue][0];
            let (at, lap) = (side.at(), side.lap);
            side.step();
            let mut descriptor = *descriptor;
            let ours = lap == (number != 0);
            let len = descriptor.len.get() & !txd::GEN | if ours { txd::GEN } else { 0 };
            descriptor.len = len.into();
            self.fill(at, descriptor.as_bytes());
        }
        let word: little_endian::U32 = self.get(first.at() + 8);
        self.fill(first.at() + 8, &(word.get() ^ txd::GEN).to_le_bytes());
    }

    fn ring(&mut self, queue: usize) {
        let next = self.tx[queue][0].next;
        self.write_pt(TXPROD + STRIDE * queue as u64, next);
    }

    /// Sends a packet, and runs until the adapter rests.
    fn transmit(&mut self, descriptors: &[TxDesc]) {
        self.put(0, descriptors);
        self.ring(0);
        self.run();
    }

    /// Sends a frame of one buffer with `om` and so on in its descriptor.
    fn send(&mut self, frame: &[u8], first: u32, second: u32) {
        self.fill(TX_DATA, frame);
        self.transmit(&[descriptor(TX_DATA, frame.len() as u32 | first, second | ALONE)]);
    }

    /// The next transmit completion's index.
    fn completed(&mut self, queue: usize) -> Option<u32> {
        let side = self.tx[queue][1];
        let completion: TxCompDesc = self.get(side.at());
        let word = completion.gen_type.get();
        if (word & COMP_GEN != 0) != side.lap {
            return None;
        }
        assert_eq!(word & !COMP_GEN, completion::TXCOMP << completion::TYPE_SHIFT);
        self.tx[queue][1].step();
        Some(completion.txd_idx.get())
    }

    fn sent(&self) -> Vec<Sent> {
        self.host.take_sent(0)
    }

    fn one_sent(&self) -> Sent {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        sent.remove(0)
    }

    /// A frame arrives, and the adapter runs until it rests.
    fn arrive(&self, frame: &[u8]) {
        self.host.push(0, frame);
        self.run();
    }

    /// The next packet of a receive queue. Its buffers are given back.
    fn clean(&mut self, queue: usize) -> Option<Got> {
        let mut got = Got { bytes: Vec::new(), completions: Vec::new() };
        loop {
            let side = self.rx[queue][2];
            let completion: RxCompDesc = self.get(side.at());
            if (completion.flags.get() & COMP_GEN != 0) != side.lap {
                assert!(got.completions.is_empty(), "a packet without an end");
                return None;
            }
            self.rx[queue][2].step();
            let word = completion.index.get();
            let (index, id) = (word & COMP_IDX, word >> rcd::RQID_SHIFT & rcd::RQID);
            let len = (completion.len.get() & rcd::LEN) as usize;
            let rx = self.setup.rx;
            let which = id as usize / rx;
            assert_eq!(id as usize % rx, queue);
            assert_eq!(word & rcd::SOP != 0, got.completions.is_empty());
            let place = if which == 2 {
                data_ring(queue) + u64::from(index) * u64::from(self.setup.data_ring)
            } else {
                buffer(queue, which, index)
            };
            got.bytes.extend(self.bytes(place, len));
            got.completions.push(completion);
            // Everything up to that descriptor is the driver's again, and given back one lap later.
            let ring = which % 2;
            let used = self.rx[queue][ring];
            let behind = (used.next + RING - 1 - index) % RING;
            self.give(queue, ring, RING - 1 - behind);
            if word & rcd::EOP != 0 {
                return Some(got);
            }
        }
    }

    /// The messages that were sent since this was last called.
    fn messages(&self) -> Vec<u16> {
        std::mem::take(&mut self.board.sent.lock().unwrap())
    }

    fn level(&self) -> bool {
        self.board.level.load(Ordering::SeqCst)
    }

    fn statistics(&self) -> NetStatistics {
        self.control.statistics()
    }

    /// Times that the first worker's eventfd was written since this was last called.
    fn wakes(&self) -> u64 {
        self.nic.shared.bell(0).unwrap().event().read().unwrap_or(0)
    }
}

fn buffer(queue: usize, ring: usize, index: u32) -> u64 {
    RX_DATA + RX_AREA * queue as u64 + BUFFER * (u64::from(index) + u64::from(RING) * ring as u64)
}

fn data_ring(queue: usize) -> u64 {
    0x8_0000 + 0x4000 * queue as u64
}

fn descriptor(address: u64, len: u32, flags: u32) -> TxDesc {
    TxDesc { addr: address.into(), len: len.into(), flags: flags.into() }
}

/// A frame for `destination` whose bytes tell their places.
fn frame_to(destination: [u8; 6], len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..len).map(|at| (at * 7 + at / 256) as u8).collect();
    frame[..6].copy_from_slice(&destination);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    frame
}

/// A frame for us.
fn frame(len: usize) -> Vec<u8> {
    frame_to(MAC, len)
}

/// A packet for us.
fn for_us(mut frame: Vec<u8>) -> Vec<u8> {
    frame[..6].copy_from_slice(&MAC);
    frame
}

/// The flags of the only descriptor of a packet.
const ALONE: u32 = txd::EOP | txd::CQ;
