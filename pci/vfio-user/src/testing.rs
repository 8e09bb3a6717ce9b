//! A function to be served, a server for it, and clients' memory.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use paraslot_device::{
    Bell, DeviceError, Dma, DmaSpace, Doorbell, Executor, Host, Progress, Runner, SavedState,
    SharedPage, Source, StateError, ThreadExecutor, ThreadOptions, Worker,
};
use paraslot_pci::{
    BarKind, BarSpec, BarState, ConfigSpace, ConfigSpaceBuilder, Identity, Layout, MsixLayout,
    PciDevice, ReadWindow,
};
use serde_json::{Value, json};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::connection::{End, Incoming, Message, message, send_some};
use crate::sys::{self, For};
use crate::version::Version;
use crate::wire::{Header, command};
use crate::{ClientSpace, Server, Stop};

/// MSI-X vectors: more than fit a message.
pub(crate) const VECTORS: u16 = 40;
pub(crate) const TABLE: u64 = 0x2000;
pub(crate) const PBA: u64 = 0x3000;
/// Registers, in BAR 0.
pub(crate) mod reg {
    /// 8 bytes of memory from here on are written again and again, unless it is 0.
    pub(crate) const TARGET: u64 = 0x00;
    /// Scratch.
    pub(crate) const SCRATCH: u64 = 0x08;
    /// Raises the MSI-X vector that is written, or MSI.
    pub(crate) const RAISE: u64 = 0x10;
    /// The level of the pin.
    pub(crate) const LEVEL: u64 = 0x18;
    /// 8 bytes of memory from what is written here on become the scratch register, before the access is answered; ones
    /// if there are none.
    pub(crate) const FETCH: u64 = 0x20;
    /// Doorbells: any value, and 7.
    pub(crate) const BELL: u64 = 0x40;
    pub(crate) const BELL_7: u64 = 0x44;
    /// The page that can be mapped; what is written to its first word is there.
    pub(crate) const PAGE: u64 = 0x1000;
}

/// What the test sees of the function.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) resets: AtomicU32,
    /// Writes that its worker has made to memory, and that were refused.
    pub(crate) writes: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// Doorbells that were written as registers.
    pub(crate) bells: AtomicU32,
    pub(crate) events: Mutex<Vec<EventFd>>,
    /// Pauses that fail, since requests do not come back.
    pub(crate) stuck: AtomicU32,
}

struct Writer<A> {
    dma: Dma<A>,
    target: Arc<AtomicU64>,
    bell: Arc<Bell>,
    seen: Arc<Seen>,
}

impl<A: DmaSpace> Worker for Writer<A> {
    fn sources(&self) -> Vec<Source> {
        vec![self.bell.source()]
    }

    fn service(&mut self) -> Progress {
        self.bell.answer();
        let target = self.target.load(Ordering::Acquire);
        let Some(memory) = self.dma.memory().filter(|_| target != 0) else {
            return Progress::Idle;
        };
        let count = self.seen.writes.load(Ordering::Relaxed) + 1;
        match memory.write_slice(&count.to_le_bytes(), GuestAddress(target)) {
            Ok(()) => self.seen.writes.store(count, Ordering::Relaxed),
            Err(_) => drop(self.seen.refused.fetch_add(1, Ordering::Relaxed)),
        }
        std::thread::yield_now();
        Progress::More
    }

    fn prepare_to_wait(&mut self) -> Progress {
        self.bell.sleep_unless(|| Progress::Idle)
    }

    fn quiesce(&mut self) -> Progress {
        Progress::Idle
    }
}

/// A function with one of everything.
pub(crate) struct Probe {
    config: ConfigSpace,
    layout: Layout,
    page: Arc<SharedPage>,
    scratch: [u8; 8],
    target: Arc<AtomicU64>,
    bell: Arc<Bell>,
    writer: Runner,
    fetch: Box<dyn Fn(u64) -> [u8; 8] + Send>,
    paused: bool,
    seen: Arc<Seen>,
}

impl Probe {
    pub(crate) fn new<A: DmaSpace>(host: Host<A>, seen: Arc<Seen>) -> Result<Self, DeviceError> {
        let Host { memory, msi, intx, executor } = host;
        let identity = Identity {
            vendor: 0x1234,
            device: 0x5678,
            revision: 9,
            class: [0xff, 0, 0],
            subsystem_vendor: 1,
            subsystem: 2,
        };
        let bar = |kind, size| BarSpec { kind, size, prefetchable: false };
        let layout = MsixLayout {
            vectors: VECTORS,
            table: (0, TABLE.try_into().unwrap()),
            pba: (0, PBA.try_into().unwrap()),
        };
        let config = ConfigSpaceBuilder::new(identity)
            .bar(0, bar(BarKind::Memory64, 0x4000))
            .bar(2, bar(BarKind::Io, 16))
            .bar(3, bar(BarKind::Memory32, 0x1000))
            .intx()
            .msi()
            .msix(layout)
            .power_management()
            .express()
            .build(msi, intx);
        let page = Arc::new(SharedPage::in_bar(0x1000, 4096).map_err(DeviceError::Worker)?);
        let event = || EventFd::new(EFD_NONBLOCK).map_err(DeviceError::Worker);
        let (any, seven) = (event()?, event()?);
        seen.events.lock().unwrap().extend([any.try_clone().unwrap(), seven.try_clone().unwrap()]);
        let doorbell = |offset, value, event| Doorbell { bar: 0, offset, len: 4, value, event };
        let layout = Layout {
            doorbells: vec![doorbell(reg::BELL, None, any), doorbell(reg::BELL_7, Some(7), seven)],
            windows: vec![ReadWindow { bar: 0, offset: reg::PAGE, page: page.clone() }],
            ..config.layout()
        };
        let target = Arc::new(AtomicU64::new(0));
        let bell = Arc::new(Bell::new().map_err(DeviceError::Worker)?);
        let dma = Dma::new(memory, config.bus_master());
        let fetch = {
            let dma = dma.clone();
            Box::new(move |address| {
                let mut bytes = [0; 8];
                let memory = dma.memory();
                let read =
                    memory.and_then(|m| m.read_slice(&mut bytes, GuestAddress(address)).ok());
                read.map_or([0xff; 8], |()| bytes)
            })
        };
        let writer = Writer { dma, target: target.clone(), bell: bell.clone(), seen: seen.clone() };
        let writer = Runner::new("writer", executor, Box::new(writer))?;
        let (scratch, paused) = ([0; 8], false);
        Ok(Self { config, layout, page, scratch, target, bell, writer, fetch, paused, seen })
    }
}

fn number(data: &[u8]) -> u64 {
    data.iter().take(8).rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

impl PciDevice for Probe {
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
        let written = self.config.write(offset, data);
        if written.bus_master_on {
            self.bell.ring();
        }
        if written.function_reset {
            self.reset();
        }
    }
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        if self.config.msix_read(bar, offset, data) {
            return;
        }
        data.fill(0);
        let word = self.page.words()[0].load(Ordering::Acquire).to_le_bytes();
        for (at, byte) in (0..).zip(data) {
            let at = usize::try_from(offset + at).unwrap();
            let page = usize::try_from(reg::PAGE).unwrap();
            *byte = match at {
                8..16 if bar == 0 => self.scratch[at - 8],
                _ if bar == 0 && (page..page + 4).contains(&at) => word[at - page],
                _ => 0,
            };
        }
    }
    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if self.config.msix_write(bar, offset, data) || bar != 0 {
            return;
        }
        let value = number(data);
        match offset {
            reg::TARGET => {
                self.target.store(value, Ordering::Release);
                self.bell.ring();
            }
            reg::SCRATCH => {
                for (place, byte) in self.scratch.iter_mut().zip(data) {
                    *place = *byte;
                }
            }
            reg::FETCH => self.scratch = (self.fetch)(value),
            reg::RAISE => {
                let interrupts = self.config.interrupts();
                if interrupts.msi_enabled() {
                    interrupts.trigger_msi();
                } else {
                    interrupts.msix_vector(u16::try_from(value).unwrap_or(u16::MAX)).trigger();
                }
            }
            reg::LEVEL => self.config.interrupts().set_intx(value != 0),
            reg::PAGE => {
                let value = u32::try_from(value & 0xffff_ffff).unwrap();
                self.page.words()[0].store(value, Ordering::Release);
            }
            reg::BELL | reg::BELL_7 => drop(self.seen.bells.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
    }
    fn reset(&mut self) {
        self.seen.resets.fetch_add(1, Ordering::Relaxed);
        self.target.store(0, Ordering::Release);
        self.config.reset();
        self.scratch = [0; 8];
        self.page.words()[0].store(0, Ordering::Release);
    }
    fn pause(&mut self) -> Result<(), DeviceError> {
        let fewer = |stuck: u32| stuck.checked_sub(1);
        let stuck = &self.seen.stuck;
        if stuck.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer).is_ok() {
            return Err(DeviceError::Busy(Duration::ZERO));
        }
        Runner::pause_all(std::iter::once(&mut self.writer), Duration::from_secs(5))?;
        self.paused = true;
        Ok(())
    }
    fn resume(&mut self) -> Result<(), DeviceError> {
        self.paused = false;
        self.writer.start()
    }
    fn save(&mut self) -> Result<SavedState, StateError> {
        if !self.paused {
            return Err(StateError::NotPaused);
        }
        let fields = json!({
            "config": serde_json::to_value(self.config.save())?,
            "scratch": self.scratch,
            "target": self.target.load(Ordering::Relaxed),
        });
        SavedState::new("probe", 1, &fields)
    }
    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        if !self.paused {
            return Err(StateError::NotPaused);
        }
        self.reset();
        let fields: Value = state.open("probe", 1)?;
        let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
        let (scratch, target) = (field("scratch"), field("target"));
        let (scratch, target) = (serde_json::from_value(scratch)?, serde_json::from_value(target)?);
        self.config.restore(&serde_json::from_value(field("config"))?)?;
        self.scratch = scratch;
        self.target.store(target, Ordering::Relaxed);
        Ok(())
    }
}

/// A server of a [`Probe`], on a thread of its own.
pub(crate) struct Bench {
    pub(crate) seen: Arc<Seen>,
    pub(crate) path: PathBuf,
    stop: Stop,
    /// How each connection ended.
    pub(crate) ends: std::sync::mpsc::Receiver<End>,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::patient(Duration::from_secs(30))
    }

    /// One that waits so long for what it asks its clients.
    pub(crate) fn patient(patience: Duration) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let seen = Arc::new(Seen::default());
        let options = ThreadOptions { busy_poll: Duration::ZERO, ..Default::default() };
        let executor: Arc<dyn Executor> = Arc::new(ThreadExecutor::new("probe", &options).unwrap());
        let probe = seen.clone();
        let make = |host: Host<ClientSpace>| {
            Ok::<Box<dyn PciDevice>, DeviceError>(Box::new(Probe::new(host, probe)?))
        };
        let mut server = Server::new(listener, executor, make).unwrap();
        server.set_patience(patience);
        let (ended, ends) = std::sync::mpsc::channel();
        let stop = Stop::new().unwrap();
        let thread = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                loop {
                    let end = server.serve_one(&stop).unwrap();
                    let stopped = matches!(end, End::Stopped);
                    let _ = ended.send(end);
                    if stopped {
                        break;
                    }
                }
            })
        };
        Self { seen, path, stop, ends, thread: Some(thread), _directory: directory }
    }

    /// How the next connection ended.
    pub(crate) fn end(&self) -> End {
        self.ends.recv_timeout(Duration::from_secs(30)).unwrap()
    }

    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(&self.path).unwrap()
    }

    /// A client that has agreed on the version.
    pub(crate) fn client(&self) -> Raw {
        let mut client = Raw(self.connect());
        let (header, _, _) = client.ask(command::VERSION, &Version::proposal().bytes(), &[]);
        assert_eq!(header.error, 0);
        client
    }

    pub(crate) fn stop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A client that says what it is told to.
pub(crate) struct Raw(pub(crate) UnixStream);

impl Raw {
    /// Waits until the test is given up.
    fn wait(&self, what: For) {
        use std::os::fd::AsRawFd;
        let ready = sys::wait(&[(self.0.as_raw_fd(), what)], 30_000).unwrap();
        assert_eq!(ready, [true], "no answer");
    }

    pub(crate) fn send(&mut self, header: Header, payload: &[u8], fds: &[BorrowedFd<'_>]) {
        let message = message(header, payload);
        let mut done = 0;
        while done < message.len() {
            match send_some(&self.0, &message, done, fds).unwrap() {
                0 => self.wait(For::Output),
                len => done += len,
            }
        }
    }

    pub(crate) fn receive(&mut self) -> Result<(Header, Vec<u8>, Vec<OwnedFd>), End> {
        let mut incoming = Incoming::default();
        loop {
            if let Some(message) = incoming.take(&self.0)? {
                let Message { header, payload, fds, .. } = message;
                return Ok((header, payload, fds));
            }
            self.wait(For::Input);
        }
    }

    pub(crate) fn ask(
        &mut self,
        command: u16,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> (Header, Vec<u8>, Vec<OwnedFd>) {
        self.send(Header { id: 5, command, ..Header::default() }, payload, fds);
        let answer = self.receive().unwrap();
        assert_eq!((answer.0.id, answer.0.command, answer.0.flags & 0xf), (5, command, 1));
        answer
    }

    /// The errno that a command is refused with, 0 for none.
    pub(crate) fn errno(&mut self, command: u16, payload: &[u8], fds: &[BorrowedFd<'_>]) -> i32 {
        let (header, _, _) = self.ask(command, payload, fds);
        assert_eq!(header.flags & 0x20 != 0, header.error != 0);
        i32::try_from(header.error).unwrap()
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
    }

    pub(crate) fn read(&mut self, region: u32, offset: u64, len: u32) -> Vec<u8> {
        let mut request = offset.to_le_bytes().to_vec();
        request.extend(region.to_le_bytes());
        request.extend(len.to_le_bytes());
        let (header, payload, _) = self.ask(command::REGION_READ, &request, &[]);
        assert_eq!(header.flags & 0x20, 0);
        assert_eq!(payload[..16], request);
        payload[16..].to_vec()
    }

    pub(crate) fn write(&mut self, region: u32, offset: u64, data: &[u8]) {
        let mut request = offset.to_le_bytes().to_vec();
        request.extend(region.to_le_bytes());
        request.extend(u32::try_from(data.len()).unwrap().to_le_bytes());
        let head = request.clone();
        request.extend(data);
        let (header, payload, _) = self.ask(command::REGION_WRITE, &request, &[]);
        assert_eq!((header.flags & 0x20, payload), (0, head));
    }

    pub(crate) fn map(&mut self, address: u64, size: u64, offset: u64, file: &File) -> i32 {
        self.errno(command::DMA_MAP, &map(3, offset, address, size), &[file.as_fd()])
    }

    pub(crate) fn unmap(&mut self, address: u64, size: u64) -> i32 {
        let payload = unmap(0, address, size);
        let (header, answer, _) = self.ask(command::DMA_UNMAP, &payload, &[]);
        assert_eq!(answer, payload, "there are clients that wait for it");
        i32::try_from(header.error).unwrap()
    }

    pub(crate) fn set_irqs(
        &mut self,
        flags: u32,
        index: u32,
        (start, count): (u32, u32),
        data: &[u8],
        events: &[&EventFd],
    ) -> i32 {
        let fields = [20, flags, index, start, count];
        let mut payload: Vec<u8> = fields.into_iter().flat_map(u32::to_le_bytes).collect();
        payload.extend(data);
        let fds: Vec<_> = events.iter().map(|event| sys::borrow(event)).collect();
        self.errno(command::SET_IRQS, &payload, &fds)
    }
}

pub(crate) fn map(flags: u32, offset: u64, address: u64, size: u64) -> Vec<u8> {
    let mut payload = [32_u32.to_le_bytes(), flags.to_le_bytes()].concat();
    payload.extend([offset, address, size].into_iter().flat_map(u64::to_le_bytes));
    payload
}

pub(crate) fn unmap(flags: u32, address: u64, size: u64) -> Vec<u8> {
    let mut payload = [24_u32.to_le_bytes(), flags.to_le_bytes()].concat();
    payload.extend([address, size].into_iter().flat_map(u64::to_le_bytes));
    payload
}

/// Memory of a client's.
pub(crate) fn memory(len: u64) -> File {
    let file = tempfile::tempfile().unwrap();
    file.set_len(len).unwrap();
    file
}

/// The same of any length, where there are such files.
pub(crate) fn sparse(len: u64) -> Option<File> {
    let file = tempfile::tempfile().unwrap();
    file.set_len(len).is_ok().then_some(file)
}

/// 8 bytes of it.
pub(crate) fn word_at(file: &File, offset: u64) -> u64 {
    use std::os::unix::fs::FileExt;
    let mut word = [0; 8];
    file.read_exact_at(&mut word, offset).unwrap();
    u64::from_le_bytes(word)
}

/// Looks again until it is so.
pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..30_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{what}");
}

/// An eventfd, and what it was written since the last look.
pub(crate) fn event() -> EventFd {
    EventFd::new(EFD_NONBLOCK).unwrap()
}

pub(crate) fn count(event: &EventFd) -> u64 {
    event.read().unwrap_or(0)
}

/// Runs a test, or what it needs a process for, in a process that no other test is in; returns how that
/// ended and what it said.
pub(crate) fn alone(name: &str, test: fn()) -> Option<std::process::Output> {
    const ALONE: &str = "PARASLOT_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        test();
        return None;
    }
    let program = std::env::current_exe().unwrap();
    let output = std::process::Command::new(program)
        .args([name, "--exact", "--test-threads=1", "--nocapture"])
        .env(ALONE, "1")
        .output();
    Some(output.unwrap())
}
