#![expect(clippy::cast_possible_truncation, reason = "numbers in tests are small")]
//! Tests that drive the HBA as a driver does: through configuration space, ABAR and guest memory.

mod commands;
mod cost;
mod features;
mod hotplug;
mod ncq;
mod packet;
mod prdt;
mod random;
mod registers;
mod reset;
mod saved;
mod threads;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use paraslot_backends::block::{BlockBackend, MemoryBackend, MemoryOptions};
use paraslot_device::{
    Executor, Host, IntxLine, ManualExecutor, MsiMessage, MsiSink, SavedState, SharedPage,
};
use paraslot_pci::PciDevice;
use paraslot_spec::ahci::fis::{RegisterD2h, RegisterH2d};
use paraslot_spec::ahci::{
    ABAR, CommandHeader, Ghc, PRD_TABLE, PortCommand, PortInterrupt, Prd, header, host, port,
    port_base, received,
};
use paraslot_spec::ata::{command, device};
use paraslot_spec::pci;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;
use zerocopy::{FromBytes, IntoBytes};

use crate::{Ahci, DiskOptions, Options};

const MEMORY: usize = 16 << 20;
const LIST: u64 = 0x1000;
const FIS: u64 = 0x2000;
const TABLES: u64 = 0x1_0000;
const TABLE_LEN: u64 = 0x1_0000;
/// Each slot has 64 KiB of data buffer.
const DATA: u64 = 0x40_0000;
const DATA_LEN: u64 = 0x1_0000;
const SECTORS: u64 = 8192;

fn table_at(slot: u32) -> u64 {
    TABLES + u64::from(slot) * TABLE_LEN
}

fn data_at(slot: u32) -> u64 {
    DATA + u64::from(slot) * DATA_LEN
}

/// Counts interrupts, and looks at the registers at the moment of each as a guest would.
#[derive(Default)]
struct Interrupts {
    messages: AtomicUsize,
    level: AtomicBool,
    changes: AtomicUsize,
    page: Mutex<Option<Arc<SharedPage>>>,
    seen: Mutex<Vec<Seen>>,
}

/// Port 0's registers when an interrupt came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    is: u32,
    px_is: u32,
    ci: u32,
    sact: u32,
}

impl Interrupts {
    fn look(&self) {
        let Some(page) = self.page.lock().unwrap().clone() else { return };
        let read = |at: u32| page.words()[at as usize / 4].load(Ordering::Acquire);
        let at = |offset| read(port_base(0) + offset);
        let seen = Seen {
            is: read(host::IS),
            px_is: at(port::IS),
            ci: at(port::CI),
            sact: at(port::SACT),
        };
        self.seen.lock().unwrap().push(seen);
    }

    fn messages(&self) -> usize {
        self.messages.load(Ordering::Relaxed)
    }

    fn level(&self) -> bool {
        self.level.load(Ordering::Relaxed)
    }
}

impl MsiSink for Interrupts {
    fn update(&self, _vector: u16, _message: MsiMessage, _masked: bool) {}

    fn trigger(&self, _vector: u16) {
        self.messages.fetch_add(1, Ordering::Relaxed);
        self.look();
    }

    fn event(&self, _vector: u16) -> Option<EventFd> {
        None
    }
}

impl IntxLine for Interrupts {
    fn set_level(&self, asserted: bool) {
        self.level.store(asserted, Ordering::Relaxed);
        self.changes.fetch_add(1, Ordering::Relaxed);
        if asserted {
            self.look();
        }
    }
}

type Space = Arc<GuestMemoryMmap>;

/// A guest with an HBA, of which it uses port 0.
struct Machine {
    ahci: Ahci<Space>,
    memory: Space,
    executor: ManualExecutor,
    interrupts: Arc<Interrupts>,
    /// Register accesses so far, and what is to happen before which.
    accesses: usize,
    before: Option<(usize, Event)>,
    /// The HBA's state before each, if it is wanted.
    states: Option<Vec<SavedState>>,
}

/// What happens to a machine while it is used.
#[derive(Clone)]
enum Event {
    Pause,
    /// The HBA is saved and restored in another one, which is built like this.
    Move(Arc<dyn Fn() -> Options>),
    /// The other one goes on with this state instead.
    Restore(Arc<dyn Fn() -> Options>, String),
}

fn memory_backend(options: MemoryOptions) -> MemoryBackend {
    MemoryBackend::new(SECTORS * 512, options).unwrap()
}

/// An image with a volatile cache, in which each sector starts with its number.
fn numbered() -> MemoryBackend {
    static CONTENTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut contents = vec![0x5a; SECTORS as usize * 512];
        for (sector, data) in (0..SECTORS).zip(contents.chunks_mut(512)) {
            data[..8].copy_from_slice(&sector.to_le_bytes());
        }
        contents
    });
    let options = MemoryOptions { volatile_cache: true, ..Default::default() };
    MemoryBackend::from_contents(&CONTENTS, options).unwrap()
}

fn disk(backend: impl BlockBackend + 'static) -> DiskOptions {
    DiskOptions::new(Arc::new(backend))
}

fn build(options: Options, executor: Arc<dyn Executor>) -> (Ahci<Space>, Space, Arc<Interrupts>) {
    let memory =
        Arc::new(GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap());
    let interrupts = Arc::new(Interrupts::default());
    let host = Host {
        memory: memory.clone(),
        msi: interrupts.clone(),
        intx: interrupts.clone(),
        executor,
    };
    let ahci = Ahci::new(options, host).unwrap();
    *interrupts.page.lock().unwrap() = Some(ahci.layout().windows[0].page.clone());
    (ahci, memory, interrupts)
}

fn write_config(ahci: &mut Ahci<Space>, offset: u16, value: u16) {
    ahci.config_write(offset, &value.to_le_bytes());
}

fn enable(ahci: &mut Ahci<Space>) {
    let command = pci::Command::MEMORY | pci::Command::BUS_MASTER;
    write_config(ahci, pci::header::COMMAND, command.bits());
}

/// Where the capability `id` is.
fn capability(ahci: &mut Ahci<Space>, id: u8) -> u16 {
    let mut byte = [0];
    ahci.config_read(pci::header::CAPABILITIES, &mut byte);
    loop {
        let at = u16::from(byte[0]);
        assert_ne!(at, 0, "no capability {id:#x}");
        let mut capability = [0; 2];
        ahci.config_read(at, &mut capability);
        if capability[0] == id {
            return at;
        }
        byte[0] = capability[1];
    }
}

fn enable_msi(ahci: &mut Ahci<Space>) {
    let at = capability(ahci, pci::capability::MSI);
    ahci.config_write(at + pci::msi::ADDRESS, &0xfee0_0000u32.to_le_bytes());
    write_config(ahci, at + pci::msi::CONTROL, pci::msi::ENABLE);
}

impl Machine {
    /// A machine that was just switched on.
    fn off(backend: impl BlockBackend + 'static) -> Self {
        Self::of(Options::new([disk(backend)]))
    }

    /// The same, of any kind.
    fn of(options: Options) -> Self {
        let executor = ManualExecutor::new();
        let parts = build(options, Arc::new(executor.clone()));
        Self::around(parts, executor)
    }

    /// The same, of what was built.
    fn around(
        (ahci, memory, interrupts): (Ahci<Space>, Space, Arc<Interrupts>),
        executor: ManualExecutor,
    ) -> Self {
        let (accesses, before, states) = (0, None, None);
        Self { ahci, memory, executor, interrupts, accesses, before, states }
    }

    /// A machine whose driver is ready to issue commands, with INTx.
    fn new(backend: impl BlockBackend + 'static) -> Self {
        let mut machine = Self::off(backend);
        enable(&mut machine.ahci);
        machine.start();
        machine
    }

    /// The same with MSI.
    fn with_msi(backend: impl BlockBackend + 'static) -> Self {
        let mut machine = Self::off(backend);
        enable(&mut machine.ahci);
        enable_msi(&mut machine.ahci);
        machine.start();
        machine
    }

    fn start(&mut self) {
        self.write(host::GHC, (Ghc::AE | Ghc::IE).bits());
        self.set(port::CLB, LIST as u32);
        self.set(port::FB, FIS as u32);
        self.command_on(PortCommand::FRE);
        self.run();
        self.set(port::SERR, u32::MAX);
        self.set(port::IS, u32::MAX);
        self.write(host::IS, u32::MAX);
        self.set(port::IE, u32::MAX);
        self.command_on(PortCommand::ST);
    }

    /// Counts a register access, before which something may happen.
    fn accessed(&mut self) {
        let at = self.accesses;
        self.accesses += 1;
        match self.before.take_if(|(before, _)| *before == at) {
            None => {}
            Some((_, Event::Pause)) => {
                self.ahci.pause().unwrap();
                self.ahci.resume().unwrap();
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
        self.ahci.bar_read(ABAR, offset.into(), &mut data);
        u32::from_le_bytes(data)
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.accessed();
        self.ahci.bar_write(ABAR, offset.into(), &value.to_le_bytes());
    }

    fn get(&mut self, offset: u32) -> u32 {
        self.read(port_base(0) + offset)
    }

    fn set(&mut self, offset: u32, value: u32) {
        self.write(port_base(0) + offset, value);
    }

    fn command_on(&mut self, bits: PortCommand) {
        let command = self.get(port::CMD);
        self.set(port::CMD, command | bits.bits());
    }

    fn command_off(&mut self, bits: PortCommand) {
        let command = self.get(port::CMD);
        self.set(port::CMD, command & !bits.bits());
    }

    fn has(&mut self, bits: PortCommand) -> bool {
        self.get(port::CMD) & bits.bits() != 0
    }

    fn causes(&mut self) -> PortInterrupt {
        PortInterrupt::from_bits_retain(self.get(port::IS))
    }

    fn run(&self) {
        assert!(self.executor.run(1000), "the workers do not come to rest");
    }

    /// Acknowledges all interrupts.
    fn acknowledge(&mut self) {
        let causes = self.get(port::IS);
        self.set(port::IS, causes);
        self.write(host::IS, 1);
    }

    /// Writes a command into `slot` without issuing it.
    fn prepare(&self, slot: u32, fis: &RegisterH2d, prds: &[Prd], flags: u32) {
        let entries = u32::try_from(prds.len()).unwrap() << header::PRDTL_SHIFT;
        let header = CommandHeader::new(5 | flags | entries, table_at(slot));
        let at = LIST + u64::from(slot) * 32;
        self.memory.write_slice(header.as_bytes(), GuestAddress(at)).unwrap();
        self.memory.write_slice(fis.as_bytes(), GuestAddress(table_at(slot))).unwrap();
        self.memory.write_slice(prds.as_bytes(), GuestAddress(table_at(slot) + PRD_TABLE)).unwrap();
    }

    /// Issues a command and runs until the device rests.
    fn issue(&mut self, slot: u32, fis: &RegisterH2d, prds: &[Prd]) {
        self.prepare(slot, fis, prds, 0);
        self.set(port::CI, 1 << slot);
        self.run();
    }

    /// A command with `len` bytes of the slot's buffer (none if 0).
    fn issue_with(&mut self, slot: u32, fis: &RegisterH2d, len: u32) {
        let prds: Vec<_> = (len != 0).then(|| Prd::new(data_at(slot), len)).into_iter().collect();
        self.issue(slot, fis, &prds);
    }

    fn issue_queued(&mut self, slots: u32) {
        self.set(port::SACT, slots);
        self.set(port::CI, slots);
    }

    /// Expects that the command in slot 0 succeeded with a D2H FIS; acknowledges it.
    fn expect_done(&mut self) {
        assert_eq!(self.get(port::CI), 0);
        assert_eq!(self.get(port::TFD), 0x50);
        let causes = self.causes();
        assert!(causes == PortInterrupt::DHRS || causes == PortInterrupt::PSS, "{causes:?}");
        self.acknowledge();
    }

    /// Expects that slot 0's command failed with `error`, and recovers as drivers do.
    fn expect_error(&mut self, error: u8) {
        assert_eq!(self.get(port::CI), 1);
        assert_eq!(self.get(port::TFD) & 0xff01, u32::from(error) << 8 | 1);
        assert!(self.causes().contains(PortInterrupt::TFES | PortInterrupt::DHRS));
        let fis = self.d2h();
        assert_eq!((fis.status & 1, fis.error), (1, error));
        self.recover();
    }

    /// Restarts the command list engine after an error (6.2.2.1).
    fn recover(&mut self) {
        self.command_off(PortCommand::ST);
        assert!(!self.has(PortCommand::CR));
        assert_eq!((self.get(port::CI), self.get(port::SACT)), (0, 0));
        self.set(port::SERR, u32::MAX);
        self.acknowledge();
        self.command_on(PortCommand::ST);
    }

    fn prdbc(&self, slot: u32) -> u32 {
        self.memory.read_obj(GuestAddress(LIST + u64::from(slot) * 32 + 4)).unwrap()
    }

    fn bytes(&self, address: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        self.memory.read_slice(&mut bytes, GuestAddress(address)).unwrap();
        bytes
    }

    fn fill(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    fn received<T: FromBytes>(&self, offset: u64) -> T {
        T::read_from_bytes(&self.bytes(FIS + offset, size_of::<T>())).unwrap()
    }

    fn d2h(&self) -> RegisterD2h {
        self.received(received::REGISTER)
    }

    /// IDENTIFY DEVICE's words.
    fn identify(&mut self) -> Vec<u16> {
        self.issue_with(0, &RegisterH2d::command(command::IDENTIFY_DEVICE), 512);
        self.expect_done();
        let data = self.bytes(data_at(0), 512);
        data.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect()
    }
}

/// A 48-bit or 28-bit command on sectors.
fn sectors(code: u8, lba: u64, count: u16) -> RegisterH2d {
    let mut fis = RegisterH2d::command(code);
    fis.set_lba(lba);
    fis.count = count.into();
    fis.device = device::LBA;
    fis
}

/// A queued command.
fn queued(code: u8, tag: u32, lba: u64, count: u16) -> RegisterH2d {
    let mut fis = sectors(code, lba, u16::try_from(tag).unwrap() << 3);
    [fis.features, fis.features_exp] = count.to_le_bytes();
    fis
}

fn set_features(code: u8, count: u16) -> RegisterH2d {
    let mut fis = RegisterH2d::command(command::SET_FEATURES);
    fis.features = code;
    fis.count = count.into();
    fis
}
