//! Devices that a process of their own serves over vfio-user: this program, started once more for each run
//! and in the sandbox of `paraslot serve`.

use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use paraslot_device::{Host, IntxLine};
use paraslot_report::Path;
use paraslot_vfio_user::{Fault, VfioUser};
use paraslot_vmm::VmHandle;
use tempfile::TempDir;
use vm_memory::GuestMemoryMmap;

use super::Setting;
use super::built::{Built, Watch};
use crate::order::{Answer, Line, Order, Question, Seat, Seen, What};
use crate::plan::{Cell, Flow};
use crate::spec::DeviceSpec;

/// This program, even if its file has been replaced since.
pub(crate) const SELF: &str = "/proc/self/exe";

/// How long a process may take to end when it is not needed any more.
const END: Duration = Duration::from_secs(20);

/// Most bytes of a process's error output that are kept.
const ERRORS_MAX: u64 = 64 << 10;

const GONE: &str = "the device's server is gone";

/// A process that serves the devices of one run.
pub(super) struct Server {
    line: Mutex<Line>,
    process: Mutex<Process>,
    guests: Arc<Mutex<Guests>>,
    /// What is behind the devices, as options of the command line.
    label: String,
    sockets: Vec<PathBuf>,
    /// Whether pins can be eventfds.
    has_pins: bool,
    place: TempDir,
}

/// The guests that end with it.
#[derive(Default)]
struct Guests {
    gone: bool,
    all: Vec<VmHandle>,
}

/// A pin without eventfds: whoever asserts it is told by way of this process.
///
/// The eventfds have KVM say when the guest has acknowledged the interrupt, so that who asserts the pin may do
/// so again. A KVM that interprets the guest's kernel acknowledges what it delivers: it would be asserted
/// again before the guest has found out why, and again, with the guest never getting that far.
struct Level(Arc<dyn IntxLine>);

impl IntxLine for Level {
    fn set_level(&self, asserted: bool) {
        self.0.set_level(asserted);
    }
}

/// The process, killed if it is forgotten.
struct Process {
    child: Child,
    errors: Option<JoinHandle<String>>,
}

/// What is seen of a device that is served.
pub(crate) struct Served {
    server: Arc<Server>,
    seat: usize,
    fault: Fault,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Setting<'_> {
    /// Starts a process that serves what a cell needs, for each of `places` one: its device's processor and
    /// its guest's. `None` if nothing is served on the cell's path.
    pub(super) fn server(
        &self,
        cell: &Cell,
        places: &[(Option<usize>, Option<usize>)],
    ) -> anyhow::Result<Option<Arc<Server>>> {
        if cell.path != Path::VfioUser {
            return Ok(None);
        }
        let (what, image) = match (&self.devices[cell.device], cell.net()) {
            (DeviceSpec::Disk(spec), _) => {
                (What::Disk(spec.clone()), self.storage.nameless(spec, cell)?)
            }
            (DeviceSpec::Net(spec), Some(workload)) if workload.flow == Flow::Wire => {
                (What::Wire(spec.clone()), None)
            }
            (DeviceSpec::Net(spec), Some(workload)) => (What::Net(spec.clone(), workload), None),
            (DeviceSpec::Net(_), None) | (DeviceSpec::Passed(_), _) => {
                bail!("{} is not served", cell.name)
            }
        };
        let place = tempfile::Builder::new().prefix("paraslot-").tempdir();
        let place = place.context("cannot make a directory for a socket")?;
        let sockets: Vec<_> =
            (0..places.len()).map(|seat| place.path().join(format!("{seat}"))).collect();
        let seat = |(socket, (device_cpu, guest_cpu)): (&PathBuf, _)| {
            let socket = socket.clone();
            Seat { socket, device_cpu, guest_cpu }
        };
        let seats = sockets.iter().zip(places.iter().copied()).map(seat).collect();
        let order = Order { what, seats, busy_poll: self.busy_poll, drag: self.drag };

        let (here, there) = UnixStream::pair().context("cannot make a socket")?;
        let mut command = Command::new(SELF);
        command.arg("serve-run").stdin(OwnedFd::from(there));
        let guests = Arc::new(Mutex::new(Guests::default()));
        let process = Process::start(command, &guests)?;
        let mut line = Line::new(here)?;
        line.expect_answers()?;
        let begin = |line: &mut Line| {
            line.give(&order, image)?;
            line.hear()
        };
        let begun = begin(&mut line);
        let mut server = Server {
            line: Mutex::new(line),
            process: Mutex::new(process),
            guests,
            label: String::new(),
            sockets,
            has_pins: paraslot_vmm::probe()?.hardware_assisted,
            place,
        };
        match begun {
            Ok(Some(Answer::Ready(label))) => server.label = label,
            Ok(Some(_)) => bail!("the device's server answers what was not asked"),
            Ok(None) => return Err(server.explain(anyhow!(GONE))),
            Err(error) => return Err(server.explain(error)),
        }
        Ok(Some(Arc::new(server)))
    }
}

impl Server {
    /// Makes a device of a machine's of what is served; `guest` is the machine's, which stands still when there is
    /// nobody any more who does.
    pub(super) fn plug(
        self: &Arc<Self>,
        seat: usize,
        guest: VmHandle,
        host: Host<Arc<GuestMemoryMmap>>,
    ) -> anyhow::Result<Built> {
        let socket = self.sockets.get(seat).context("nothing is served there")?;
        let mut host = host;
        if !self.has_pins {
            host.intx = Arc::new(Level(host.intx));
        }
        let function = VfioUser::connect(socket, host)?;
        // Nobody else is to come, and nothing is to be left if this program is killed.
        let _ = fs::remove_file(socket);
        let _ = fs::remove_dir(self.place.path());
        let mut guests = lock(&self.guests);
        if guests.gone {
            guest.suspend();
        }
        guests.all.push(guest);
        drop(guests);
        let served = Served { server: self.clone(), seat, fault: function.fault() };
        Ok(Built {
            function: Box::new(function),
            watch: Watch::Served(served),
            label: self.label.clone(),
        })
    }

    fn ask(&self, question: Question) -> anyhow::Result<Answer> {
        let mut line = lock(&self.line);
        line.say(&question)?;
        line.hear()?.context(GONE)
    }

    /// Has the process end, which `result` came of; it must have done so well.
    ///
    /// # Errors
    /// Those of `result`, or why the process did not. What the process has to say of an error is part of it.
    pub(super) fn end<T>(&self, result: anyhow::Result<T>) -> anyhow::Result<T> {
        let result = result.map_err(|error| self.explain(error))?;
        lock(&self.line).hang_up();
        let (status, said) = lock(&self.process).end()?;
        if !status.success() || !said.is_empty() {
            bail!(ended(status, &said));
        }
        Ok(result)
    }

    /// Why a run failed with `error`: if the process is gone, for that reason.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        // One that was just lost may be on its way out: who hears nothing more of it ends.
        lock(&self.line).hang_up();
        match lock(&self.process).end() {
            Ok((status, said)) if !status.success() || !said.is_empty() => {
                error.context(ended(status, &said))
            }
            Ok(_) => error,
            Err(stuck) => error.context(stuck),
        }
    }
}

/// That a process ended when nobody wanted it to, or said what nobody wanted to hear.
fn ended(status: ExitStatus, said: &str) -> String {
    let how = if status.success() { String::new() } else { format!(" ended ({status})") };
    let said = said.lines().map(|line| line.strip_prefix("paraslot: ").unwrap_or(line));
    let said = said.collect::<Vec<_>>().join("; ");
    let said = if said.is_empty() { said } else { format!(": {said}") };
    format!("the device's server{how}{said}")
}

impl Process {
    /// Starts it. The guests that `guests` know stand still when it ends.
    fn start(mut command: Command, guests: &Arc<Mutex<Guests>>) -> anyhow::Result<Self> {
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let child = command.spawn().context("cannot start the device's server")?;
        let mut this = Self { child, errors: None };
        let mut errors = this.child.stderr.take().context("the device's server has no output")?;
        let guests = guests.clone();
        let read = move || {
            let mut said = Vec::new();
            // What could be read tells more than that not all could.
            let _ = errors.by_ref().take(ERRORS_MAX).read_to_end(&mut said);
            let _ = io::copy(&mut errors, &mut io::sink());
            // Nobody has the other end any more.
            let mut guests = lock(&guests);
            guests.gone = true;
            guests.all.iter().for_each(VmHandle::suspend);
            String::from_utf8_lossy(&said).into_owned()
        };
        let errors = thread::Builder::new().name("errors".into()).spawn(read);
        this.errors = Some(errors.context("cannot start a thread")?);
        Ok(this)
    }

    /// Waits until it has ended; how it did, and what it said.
    fn end(&mut self) -> anyhow::Result<(ExitStatus, String)> {
        let start = Instant::now();
        let status = loop {
            match self.child.try_wait().context("cannot wait for the device's server")? {
                Some(status) => break status,
                None if start.elapsed() > END => bail!("the device's server does not end"),
                None => thread::sleep(Duration::from_millis(1)),
            }
        };
        let said = self.errors.take().map(|thread| thread.join().unwrap_or_default());
        Ok((status, said.unwrap_or_default()))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already, and been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(thread) = self.errors.take() {
            let _ = thread.join();
        }
    }
}

impl Served {
    /// What there is to be seen now; nothing of what a process that does not answer would tell.
    pub(super) fn look(&self) -> Seen {
        match self.server.ask(Question::Look(self.seat)) {
            Ok(Answer::Seen(seen)) => seen,
            // The run fails for that.
            Ok(_) | Err(_) => Seen::default(),
        }
    }

    /// How many frames of the guest's have arrived; `None` if that cannot be known.
    pub(super) fn arrived(&self) -> anyhow::Result<Option<u64>> {
        if let Some(error) = self.fault.take() {
            return Err(error.into());
        }
        match self.server.ask(Question::Arrived(self.seat))? {
            Answer::Arrived(arrived) => arrived.map_err(anyhow::Error::msg),
            _ => bail!("the device's server answers what was not asked"),
        }
    }
}
