//! A server of devices, and a machine with what it serves.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use paraslot_device::ThreadOptions;
use paraslot_pci::Bdf;
use paraslot_protocol::{Access, Completion, Device, DiskJob, Outcome, Status};
use paraslot_vfio_user::VfioUser;
use paraslot_vmm::in_process::{InProcess, Machine, Run};
use tempfile::TempDir;

/// A server, killed if the test forgets it.
pub(crate) struct Served {
    pub(crate) child: Child,
    pub(crate) errors: BufReader<ChildStderr>,
    pub(crate) place: TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn place() -> TempDir {
    let place = TempDir::new().unwrap();
    File::create(place.path().join("disk.img")).unwrap().set_len(8 << 20).unwrap();
    place
}

pub(crate) fn command(place: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_paraslot"));
    command.arg("serve").args(arguments).current_dir(place).stderr(Stdio::piped());
    command
}

impl Served {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let place = place();
        let mut child = command(place.path(), arguments).spawn().unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        Self { child, errors, place }
    }

    /// A client's socket. It is there before long, or the server has ended.
    pub(crate) fn connect(&mut self, socket: &str) -> UnixStream {
        let start = Instant::now();
        loop {
            match UnixStream::connect(self.place.path().join(socket)) {
                Ok(stream) => return stream,
                Err(error) => {
                    let ended = self.child.try_wait().unwrap();
                    assert!(ended.is_none(), "{ended:?}: {}", self.rest());
                    assert!(start.elapsed() < Duration::from_secs(60), "{error}");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        }
    }

    pub(crate) fn rest(&mut self) -> String {
        let mut text = String::new();
        self.errors.read_to_string(&mut text).unwrap();
        text
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(sent.success());
    }
}

/// Runs a job in a machine with the function that is served at `socket`.
pub(crate) fn drive(
    served: &mut Served,
    socket: &str,
    shared_memory: bool,
    job: impl FnOnce(&InProcess) -> Outcome,
) {
    let sleepy = ThreadOptions { busy_poll: Duration::ZERO, ..ThreadOptions::default() };
    let machine = InProcess::new(&Machine {
        shared_memory,
        doorbell_events: true,
        read_windows: true,
        interrupt_events: true,
        ..Machine::new(64 << 20, Run::Threads(sleepy))
    });
    let machine = machine.unwrap();
    let slot = Bdf::root(3);
    let path = served.place.path().join(socket);
    let function = VfioUser::connect(&path, machine.host(slot))
        .unwrap_or_else(|error| panic!("{error}: {:?}", served.child.try_wait()));
    let fault = function.fault();
    machine.plug(slot, function).unwrap();
    let outcome = job(&machine);
    assert_eq!((outcome.status(), outcome.header.errors.get()), (Status::Ok, 0), "{socket}");
    assert!(fault.take().is_none());
}

pub(crate) fn disk_job(device: Device, access: Access) -> DiskJob {
    DiskJob {
        device,
        access,
        completion: Completion::Interrupt,
        block_size: 4096,
        depth: 8,
        span: 8 << 20,
        warm_up_ms: 0,
        measure_ms: 60_000,
        operations: if access == Access::Fill { 2048 } else { 300 },
        verify: true,
        seed: 42,
        tsc_hz: 0,
    }
}
