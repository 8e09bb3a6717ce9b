//! Functions behind a vfio-user server, which is a thread of this process.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use paraslot_device::{
    DeviceError, Executor, Host, SavedState, StateError, ThreadExecutor, ThreadOptions,
};
use paraslot_pci::{BarState, Bdf, Layout, PciDevice};
use paraslot_vfio_user::{ClientSpace, Fault, Server, Stop, VfioUser};
use paraslot_vmm::in_process::{GuestRam, InProcess};

use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::parts::Part;

/// A socket that listens at an address of its own.
///
/// # Panics
/// When the host has none.
pub fn listener() -> (SocketAddr, UnixListener) {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("paraslot-tests-{}-{number}", std::process::id());
    let address = SocketAddr::from_abstract_name(name).expect("a short name");
    let listener = UnixListener::bind_addr(&address).expect("a free name");
    (address, listener)
}

/// A function that is served until this is dropped.
pub struct Served {
    address: SocketAddr,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    /// Serves what `part` makes, with its workers on `executor`.
    ///
    /// # Panics
    /// When it cannot be made, or the host lacks something.
    pub fn new<P: Part>(executor: Arc<dyn Executor>, part: P) -> (Self, P::Control) {
        let mut control = None;
        let served = Self::with(executor, |host| {
            let (function, kept) = part.make_served(host).expect("a function");
            control = Some(kept);
            function
        });
        (served, control.expect("it was made"))
    }

    /// Serves what `make` makes, with its workers on `executor`.
    ///
    /// # Panics
    /// When the host lacks something.
    pub fn with(
        executor: Arc<dyn Executor>,
        make: impl FnOnce(Host<ClientSpace>) -> Box<dyn PciDevice>,
    ) -> Self {
        let (address, listener) = listener();
        let make = |host| Ok::<_, std::convert::Infallible>(make(host));
        let mut server = Server::new(listener, executor, make).expect("a server");
        let stop = Stop::new().expect("an eventfd");
        let stopped = stop.clone();
        let thread = std::thread::spawn(move || server.run(&stopped).expect("clients"));
        Self { address, stop, thread: Some(thread) }
    }

    /// A client's function for the machine of `host`.
    ///
    /// # Panics
    /// When the server is gone, or the host lacks something.
    pub fn connect(&self, host: Host<GuestRam>) -> VfioUser<GuestRam> {
        let socket = UnixStream::connect_addr(&self.address).expect("a server");
        VfioUser::new(socket, host).expect("a function")
    }

    /// Ends the server, and with it the function.
    ///
    /// # Panics
    /// When the server could not go on, unless the test has failed already.
    pub fn stop(&mut self) {
        self.stop.stop();
        let ended = self.thread.take().map_or(Ok(()), JoinHandle::join);
        if !std::thread::panicking() {
            ended.expect("a server that was stopped");
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Makes a function behind a server of its own, and plugs it into a machine. When it is taken out and dropped, the
/// server ends. If the machine's memory is shared, its executor is the server's too; if not, the server has one of
/// its own, since its workers wait for the machine's.
///
/// # Panics
/// When it cannot be made, or its place is taken; and when it is dropped if the connection was lost before.
pub fn plug<P: Part>(machine: &InProcess, slot: Bdf, part: P) -> P::Control {
    let host = machine.host(slot);
    let is_shared = host.memory.iter().all(|part| part.file_offset().is_some());
    let executor = if is_shared { machine.executor() } else { executor() };
    let (server, control) = Served::new(executor, part);
    let function = server.connect(host);
    let fault = function.fault();
    let remote = Remote { function, fault, _server: server };
    machine.plug(slot, remote).expect("a free place");
    control
}

/// A thread of nobody else's that sleeps when it has nothing to do.
///
/// # Panics
/// When the host lacks a thread.
pub fn executor() -> Arc<dyn Executor> {
    let options = ThreadOptions { busy_poll: Duration::ZERO, ..Default::default() };
    Arc::new(ThreadExecutor::new("server", &options).expect("a thread"))
}

/// A function and its server.
struct Remote {
    function: VfioUser<GuestRam>,
    fault: Fault,
    // Dropped after the function, whose end it sees.
    _server: Served,
}

impl Drop for Remote {
    fn drop(&mut self) {
        if let Some(fault) = self.fault.take()
            && !std::thread::panicking()
        {
            panic!("the connection was lost: {fault}");
        }
    }
}

impl PciDevice for Remote {
    fn layout(&self) -> &Layout {
        self.function.layout()
    }

    fn bars(&self) -> [Option<BarState>; 7] {
        self.function.bars()
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.function.config_read(offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.function.config_write(offset, data);
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.function.bar_read(bar, offset, data);
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.function.bar_write(bar, offset, data);
    }

    fn reset(&mut self) {
        self.function.reset();
    }

    fn pause(&mut self) -> Result<(), DeviceError> {
        self.function.pause()
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        self.function.resume()
    }

    fn save(&mut self) -> Result<SavedState, StateError> {
        self.function.save()
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        self.function.restore(state)
    }
}
