//! A server on a thread, and machines that its function is plugged into.

use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use paraslot_device::{DeviceError, Host, ThreadExecutor, ThreadOptions};
use paraslot_pci::{Bdf, PciDevice};
use paraslot_vfio_user::{ClientSpace, Fault, Server, Stop, VfioUser};
use paraslot_vmm::in_process::{GuestRam, InProcess, Machine, Run};

/// Where the function is plugged in.
pub(crate) const SLOT: Bdf = Bdf::root(3);
const MEMORY: usize = 64 << 20;

/// A function that is served until this is dropped.
pub(crate) struct Served {
    path: PathBuf,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
    _directory: tempfile::TempDir,
}

impl Served {
    pub(crate) fn new(
        make: impl FnOnce(Host<ClientSpace>) -> Result<Box<dyn PciDevice>, DeviceError>,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        let executor = ThreadExecutor::new("served", &sleepy()).unwrap();
        let mut server = Server::new(listener, Arc::new(executor), make).unwrap();
        let stop = Stop::new().unwrap();
        let thread = {
            let stop = stop.clone();
            std::thread::spawn(move || server.run(&stop).unwrap())
        };
        Self { path, stop, thread: Some(thread), _directory: directory }
    }

    /// A client's function for the machine of `host`.
    pub(crate) fn connect(&self, host: Host<GuestRam>) -> VfioUser<GuestRam> {
        VfioUser::connect(&self.path, host).unwrap()
    }

    /// A machine with the function in it.
    pub(crate) fn plugged(&self, machine: &Machine) -> (InProcess, Fault) {
        let machine = InProcess::new(machine).unwrap();
        let function = self.connect(machine.host(SLOT));
        let fault = function.fault();
        machine.plug(SLOT, function).unwrap();
        (machine, fault)
    }

    pub(crate) fn stop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

fn sleepy() -> ThreadOptions {
    ThreadOptions { busy_poll: Duration::ZERO, ..Default::default() }
}

/// Machines whose memory can be shared, on which everything is a message, and on which as much as can be
/// is an eventfd.
pub(crate) fn machines() -> [(&'static str, Machine); 3] {
    let messages = Machine { shared_memory: true, ..Machine::new(MEMORY, Run::Threads(sleepy())) };
    let events = Machine {
        doorbell_events: true,
        read_windows: true,
        interrupt_events: true,
        ..messages.clone()
    };
    let high = Machine { memory_base: 5 << 30, ..events.clone() };
    [("messages", messages), ("events", events), ("events, memory above 4 GiB", high)]
}
