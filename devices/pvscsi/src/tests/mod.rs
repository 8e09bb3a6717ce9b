#![expect(clippy::cast_possible_truncation, reason = "numbers in tests are small")]
//! Tests that drive the adapter as a driver does: through configuration space, its BAR and guest
//! memory.

mod hostile;
mod interrupts;
mod kicks;
mod messages;
mod probe;
mod random;
mod requests;
mod reset;
mod saved;
mod tasks;
mod threads;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use paraslot_backends::block::testing::{Gate, GatedBackend};
use paraslot_backends::block::{BlockBackend, MemoryBackend, MemoryOptions};
use paraslot_device::{Executor, Host, IntxLine, ManualExecutor, MsiMessage, MsiSink, SavedState};
use paraslot_pci::PciDevice;
use paraslot_scsi::{Address, Bus, BusOptions, DiskOptions, Initiator, LogicalUnit};
use paraslot_spec::pci;
use paraslot_spec::pvscsi::{
    AbortCmd, CompletionDescriptor, Intr, MEMORY_BAR, MSIX_TABLE, RequestDescriptor, RequestFlags,
    ResetDevice, SetupMsgRing, SetupReqCall, SetupRings, SgElement, command, host_status, register,
    state, tag,
};
use paraslot_spec::scsi::opcode;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::{Options, Pvscsi};

const MEMORY: usize = 16 << 20;
const STATE: u64 = 0x1000;
const REQUESTS: u64 = 0x1_0000;
const COMPLETIONS: u64 = 0x4_0000;
const MESSAGES: u64 = 0x7_0000;
/// Pages of both rings at first, as Linux has them.
const PAGES: u32 = 8;
const ENTRIES: u32 = PAGES * 32;
/// Each context has a page for scatter/gather elements, and one for sense data.
const LISTS: u64 = 0x10_0000;
const SENSE: u64 = 0x20_0000;
/// And 16 KiB for data.
const DATA: u64 = 0x40_0000;
const BLOCKS: u64 = 8192;

const GOOD: u16 = 0;
const CHECK: u16 = 2;

fn list_at(context: u64) -> u64 {
    LISTS + context % 256 * 0x1000
}

fn sense_at(context: u64) -> u64 {
    SENSE + context % 256 * 0x1000
}

fn data_at(context: u64) -> u64 {
    DATA + context % 256 * 0x4000
}

/// Counts interrupts.
#[derive(Default)]
struct Interrupts {
    messages: AtomicUsize,
    level: AtomicBool,
    rises: AtomicUsize,
}

impl MsiSink for Interrupts {
    fn update(&self, _vector: u16, _message: MsiMessage, _masked: bool) {}

    fn trigger(&self, vector: u16) {
        assert_eq!(vector, 0);
        self.messages.fetch_add(1, Ordering::SeqCst);
    }

    fn event(&self, _vector: u16) -> Option<EventFd> {
        None
    }
}

impl IntxLine for Interrupts {
    fn set_level(&self, asserted: bool) {
        self.level.store(asserted, Ordering::SeqCst);
        self.rises.fetch_add(usize::from(asserted), Ordering::SeqCst);
    }
}

type Space = Arc<GuestMemoryMmap>;

/// How the driver is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Intx,
    Msi,
    Msix,
}

/// A guest with an adapter, and a driver's state.
struct Machine {
    device: Pvscsi<Space>,
    memory: Space,
    executor: ManualExecutor,
    interrupts: Arc<Interrupts>,
    bus: Bus,
    /// Requests that the driver has put into the ring, and completions that it has taken.
    produced: u32,
    consumed: u32,
    messages: u32,
    /// The driver goes by the threshold.
    threshold: bool,
    kicks: u32,
    /// Register accesses so far, and what is to happen before which.
    accesses: usize,
    before: Option<(usize, Event)>,
    /// The adapter's state before each, if it is wanted.
    states: Option<Vec<SavedState>>,
}

/// What happens to a machine while it is used.
#[derive(Clone)]
enum Event {
    Pause,
    /// The adapter is saved and restored in another one, for the units on the bus that this builds.
    Move(Arc<dyn Fn() -> Bus>),
    /// The other one goes on with this state instead.
    Restore(Arc<dyn Fn() -> Bus>, String),
}

/// An image in which each block starts with its number.
fn numbered() -> MemoryBackend {
    static CONTENTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut contents = vec![0x5a; BLOCKS as usize * 512];
        for (block, data) in (0..BLOCKS).zip(contents.chunks_mut(512)) {
            data[..8].copy_from_slice(&block.to_le_bytes());
        }
        contents
    });
    MemoryBackend::from_contents(&CONTENTS, MemoryOptions::default()).unwrap()
}

fn unit(backend: impl BlockBackend + 'static) -> Arc<LogicalUnit> {
    LogicalUnit::disk(DiskOptions::new(Arc::new(backend))).unwrap()
}

fn bus() -> Bus {
    Bus::new(BusOptions {
        initiator: Initiator("pvscsi-test".into()),
        max_target: 15,
        max_lun: 255,
        autosense: true,
    })
}

fn at(target: u8) -> Address {
    Address { target, lun: 0 }
}

/// A request without data.
fn request(context: u64, cdb: &[u8]) -> RequestDescriptor {
    let mut request = RequestDescriptor::default();
    request.context.set(context);
    request.cdb[..cdb.len()].copy_from_slice(cdb);
    request.cdb_len = cdb.len() as u8;
    request.tag = tag::SIMPLE;
    request.flags.set(RequestFlags::DIR_NONE.bits());
    request.sense_address.set(sense_at(context));
    request.sense_len.set(96);
    request
}

/// A request whose data is where the context has its own.
fn with_data(context: u64, cdb: &[u8], flags: RequestFlags, len: u64) -> RequestDescriptor {
    let mut request = request(context, cdb);
    request.flags.set(flags.bits());
    request.data_address.set(data_at(context));
    request.data_len.set(len);
    request
}

fn read10(context: u64, block: u32, blocks: u16) -> RequestDescriptor {
    let cdb = cdb10(opcode::READ_10, block, blocks);
    with_data(context, &cdb, RequestFlags::DIR_TO_HOST, u64::from(blocks) * 512)
}

fn write10(context: u64, block: u32, blocks: u16) -> RequestDescriptor {
    let cdb = cdb10(opcode::WRITE_10, block, blocks);
    with_data(context, &cdb, RequestFlags::DIR_TO_DEVICE, u64::from(blocks) * 512)
}

fn cdb10(opcode: u8, block: u32, blocks: u16) -> [u8; 10] {
    let mut cdb = [0; 10];
    cdb[0] = opcode;
    cdb[2..6].copy_from_slice(&block.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks.to_be_bytes());
    cdb
}

fn is_rw(request: &RequestDescriptor) -> bool {
    matches!(
        request.cdb[0],
        opcode::READ_6
            | opcode::WRITE_6
            | opcode::READ_10
            | opcode::WRITE_10
            | opcode::READ_12
            | opcode::WRITE_12
            | opcode::READ_16
            | opcode::WRITE_16
    )
}

impl Machine {
    /// A machine that was just switched on, with units on `bus`.
    fn off(bus: Bus) -> Self {
        let executor = ManualExecutor::new();
        let patience = Duration::from_millis(20);
        let options = Options { patience, ..Options::default() };
        Self::on_executor(bus, options, executor.clone(), Arc::new(executor))
    }

    fn on_executor(
        bus: Bus,
        options: Options,
        manual: ManualExecutor,
        executor: Arc<dyn Executor>,
    ) -> Self {
        let memory =
            Arc::new(GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap());
        let interrupts = Arc::new(Interrupts::default());
        let host = Host {
            memory: memory.clone(),
            msi: interrupts.clone(),
            intx: interrupts.clone(),
            executor,
        };
        let device = Pvscsi::new(bus.clone(), options, host).unwrap();
        Self {
            device,
            memory,
            executor: manual,
            interrupts,
            bus,
            produced: 0,
            consumed: 0,
            messages: 0,
            threshold: false,
            kicks: 0,
            accesses: 0,
            before: None,
            states: None,
        }
    }

    /// A machine whose driver is ready, with `unit` at target 0, and MSI-X.
    fn with_unit(unit: Arc<LogicalUnit>) -> Self {
        let bus = bus();
        bus.attach(at(0), unit).unwrap();
        let mut machine = Self::off(bus);
        machine.start(Mode::Msix);
        machine.wait_ready(0);
        machine
    }

    /// The same with a numbered disk.
    fn new() -> Self {
        Self::with_unit(unit(numbered()))
    }

    /// The same with operations that the test holds back.
    fn gated() -> (Self, Gate) {
        let backend = GatedBackend::new(numbered());
        let gate = backend.gate();
        gate.open();
        let machine = Self::with_unit(unit(backend));
        gate.close();
        (machine, gate)
    }

    /// What Linux's driver does to bring it up.
    fn start(&mut self, mode: Mode) {
        self.enable(pci::Command::MEMORY | pci::Command::BUS_MASTER);
        self.enable_interrupts(mode);
        self.order(command::ADAPTER_RESET, &[]);
        self.set_up_rings(PAGES);
        self.write(register::INTR_MASK, Intr::all().bits());
    }

    fn enable(&mut self, command: pci::Command) {
        self.device.config_write(pci::header::COMMAND, &command.bits().to_le_bytes());
    }

    fn capability(&mut self, id: u8) -> u16 {
        let mut byte = [0];
        self.device.config_read(pci::header::CAPABILITIES, &mut byte);
        loop {
            let at = u16::from(byte[0]);
            assert_ne!(at, 0, "no capability {id:#x}");
            let mut capability = [0; 2];
            self.device.config_read(at, &mut capability);
            if capability[0] == id {
                return at;
            }
            byte[0] = capability[1];
        }
    }

    fn enable_interrupts(&mut self, mode: Mode) {
        match mode {
            Mode::Intx => {}
            Mode::Msi => {
                let at = self.capability(pci::capability::MSI);
                self.device.config_write(at + pci::msi::ADDRESS, &0xfee0_0000u32.to_le_bytes());
                self.device.config_write(at + pci::msi::CONTROL, &pci::msi::ENABLE.to_le_bytes());
            }
            Mode::Msix => {
                for (index, word) in [0xfee0_0000u32, 0, 0x41, 0].into_iter().enumerate() {
                    self.write(MSIX_TABLE + 4 * index as u32, word);
                }
                let at = self.capability(pci::capability::MSI_X);
                let enable = pci::msix::ENABLE.to_le_bytes();
                self.device.config_write(at + pci::msix::CONTROL, &enable);
            }
        }
    }

    /// Counts a register access, before which something may happen.
    fn accessed(&mut self) {
        let at = self.accesses;
        self.accesses += 1;
        match self.before.take_if(|(before, _)| *before == at) {
            None => {}
            Some((_, Event::Pause)) => {
                self.device.pause().unwrap();
                self.device.resume().unwrap();
            }
            Some((_, Event::Move(build))) => self.move_to(build()),
            Some((_, Event::Restore(build, text))) => self.go_on_with(build(), &text),
        }
        if let Some(mut states) = self.states.take() {
            states.push(self.snapshot());
            self.states = Some(states);
        }
    }

    fn read(&mut self, offset: u32) -> u32 {
        self.accessed();
        let mut data = [0; 4];
        self.device.bar_read(MEMORY_BAR, offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.accessed();
        self.device.bar_write(MEMORY_BAR, offset.into(), &value.to_le_bytes());
    }

    /// Writes a command and its descriptor; returns COMMAND_STATUS.
    fn order(&mut self, command: u32, descriptor: &[u8]) -> u32 {
        self.write(register::COMMAND, command);
        for word in descriptor.chunks(4) {
            self.write(register::COMMAND_DATA, u32::from_le_bytes(word.try_into().unwrap()));
        }
        self.read(register::COMMAND_STATUS)
    }

    fn setup(&self, pages: u32) -> SetupRings {
        let mut setup = SetupRings::default();
        setup.request_pages.set(pages);
        setup.completion_pages.set(pages);
        setup.state_page.set(STATE >> 12);
        for index in 0..32 {
            setup.request_ring[index].set((REQUESTS >> 12) + index as u64);
            setup.completion_ring[index].set((COMPLETIONS >> 12) + index as u64);
        }
        setup
    }

    fn set_up_rings(&mut self, pages: u32) {
        self.fill(STATE, &[0; 4096]);
        (self.produced, self.consumed) = (0, 0);
        let setup = self.setup(pages);
        assert_eq!(self.order(command::SETUP_RINGS, setup.as_bytes()), 0);
        assert_eq!(self.state(state::REQUEST_ENTRIES_LOG2), 5 + pages.trailing_zeros());
        assert_eq!(self.state(state::COMPLETION_ENTRIES_LOG2), 7 + pages.trailing_zeros());
    }

    fn set_up_messages(&mut self) {
        let mut setup = SetupMsgRing::default();
        setup.pages.set(1);
        setup.ring[0].set(MESSAGES >> 12);
        self.messages = 0;
        assert_eq!(self.order(command::SETUP_MSG_RING, setup.as_bytes()), 0);
    }

    fn use_threshold(&mut self) {
        let enable = SetupReqCall { enable: 1.into() };
        assert_eq!(self.order(command::SETUP_REQCALLTHRESHOLD, enable.as_bytes()), 1);
        self.threshold = true;
    }

    fn state(&self, offset: u64) -> u32 {
        self.memory.read_obj(GuestAddress(STATE + offset)).unwrap()
    }

    fn set_state(&self, offset: u64, value: u32) {
        self.memory.write_obj(value, GuestAddress(STATE + offset)).unwrap();
    }

    fn fill(&self, address: u64, data: &[u8]) {
        self.memory.write_slice(data, GuestAddress(address)).unwrap();
    }

    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut data = vec![0; len];
        self.memory.read_slice(&mut data, GuestAddress(address)).unwrap();
        data
    }

    fn object<T: FromBytes>(&self, address: u64) -> T {
        T::read_from_bytes(&self.bytes(address, size_of::<T>())).unwrap()
    }

    fn place(&self, address: u64, object: &(impl IntoBytes + Immutable)) {
        self.fill(address, object.as_bytes());
    }

    fn elements(&self, address: u64, elements: &[(u64, u32, u32)]) {
        for (index, &(address_of, len, flags)) in elements.iter().enumerate() {
            let mut element = SgElement::default();
            element.address.set(address_of);
            element.len.set(len);
            element.flags.set(flags);
            self.place(address + 16 * index as u64, &element);
        }
    }

    /// Puts a request into the ring without a kick.
    fn put(&mut self, request: &RequestDescriptor) {
        let entries = 1 << self.state(state::REQUEST_ENTRIES_LOG2);
        self.place(REQUESTS + u64::from(self.produced % entries) * 128, request);
        self.produced = self.produced.wrapping_add(1);
        self.set_state(state::REQUEST_PRODUCER, self.produced);
    }

    /// Puts a request into the ring and kicks, as Linux's driver does.
    fn submit(&mut self, request: &RequestDescriptor) {
        self.put(request);
        let waiting = self.produced.wrapping_sub(self.state(state::REQUEST_CONSUMER));
        if !is_rw(request) {
            self.kicks += 1;
            self.write(register::KICK_NON_RW_IO, 0);
        } else if !self.threshold || waiting >= self.state(state::CALL_THRESHOLD) {
            self.kicks += 1;
            self.write(register::KICK_RW_IO, 0);
        }
    }

    fn run(&self) {
        assert!(self.executor.run(1000), "it does not come to rest");
    }

    /// Takes completions off the ring.
    fn reap(&mut self) -> Vec<CompletionDescriptor> {
        let mut completions = Vec::new();
        let entries = 1 << self.state(state::COMPLETION_ENTRIES_LOG2);
        while self.consumed != self.state(state::COMPLETION_PRODUCER) {
            let at = COMPLETIONS + u64::from(self.consumed % entries) * 32;
            completions.push(self.object(at));
            self.consumed = self.consumed.wrapping_add(1);
        }
        self.set_state(state::COMPLETION_CONSUMER, self.consumed);
        completions
    }

    /// Contexts and host statuses of the completions on the ring.
    fn ended(&mut self) -> Vec<(u64, u16)> {
        let mut ended: Vec<_> =
            self.reap().iter().map(|c| (c.context.get(), c.host_status.get())).collect();
        ended.sort_unstable();
        ended
    }

    /// Has one request carried out.
    fn carry_out(&mut self, request: &RequestDescriptor) -> CompletionDescriptor {
        self.submit(request);
        self.run();
        let completions = self.reap();
        assert_eq!(completions.len(), 1);
        assert_eq!(completions[0].context, request.context);
        completions[0]
    }

    /// Asks until there is no unit attention any more.
    fn wait_ready(&mut self, target: u8) {
        for _ in 0..8 {
            let mut request = request(255, &[opcode::TEST_UNIT_READY, 0, 0, 0, 0, 0]);
            request.target = target;
            if self.carry_out(&request).scsi_status.get() == GOOD {
                self.kicks = 0;
                self.interrupts.messages.store(0, Ordering::SeqCst);
                return;
            }
        }
        panic!("not ready");
    }

    fn abort(&mut self, context: u64, target: u32) -> u32 {
        let mut abort = AbortCmd::default();
        abort.context.set(context);
        abort.target.set(target);
        self.order(command::ABORT_CMD, abort.as_bytes())
    }

    fn reset_device(&mut self, target: u32) -> u32 {
        let reset = ResetDevice { target: target.into(), lun: [0; 8] };
        self.order(command::RESET_DEVICE, reset.as_bytes())
    }

    fn messages_sent(&self) -> usize {
        self.interrupts.messages.load(Ordering::SeqCst)
    }

    fn level(&self) -> bool {
        self.interrupts.level.load(Ordering::SeqCst)
    }
}
