//! Devices for other monitors, over vfio-user.

mod board;
pub(crate) mod ordered;
mod sandbox;
mod sockets;

use std::os::unix::net::UnixListener;
use std::panic::resume_unwind;
use std::sync::{Arc, RwLock};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use paraslot_device::executor::pin_to;
use paraslot_device::{DmaSpace, Host, ThreadOptions};
use paraslot_pci::PciDevice;
use paraslot_vfio_user::{End, Server, Stop, survive_lost_memory};

use crate::args::ServeArgs;
use crate::backing::{Drive, network, open_drive, threads_for};
use crate::control::{self, Owned};
use crate::counted::Counted;
use crate::devices;
use crate::signals;
use crate::spec::{Request, Served};
use board::{Board, Entry, Work};
use sandbox::Sandbox;
use sockets::Socket;

/// A device that waits for its clients.
struct Service {
    entry: Arc<Entry>,
    server: Server,
    /// The processor on which its clients' messages are served.
    cpu: Option<usize>,
    /// Whether it goes with its first client.
    once: bool,
}

/// Does what `paraslot serve` does.
pub(crate) fn serve(arguments: &ServeArgs) -> anyhow::Result<()> {
    let requests = || arguments.device.iter().map(|Served(request)| request);
    let sandbox =
        Sandbox::new(requests(), &arguments.socket).with_control(arguments.control.as_deref());
    // Before there are threads: what they may reach they have from this one.
    if !arguments.no_sandbox && !sandbox.restrict_files()? {
        eprintln!("paraslot: this kernel has no Landlock: files are not restricted");
    }
    // Before there are threads that make files.
    let control = arguments.control.as_deref().map(control::bind).transpose()?;
    let (listener, _bound) = control.unzip();
    let stop = Stop::new().context("no eventfd")?;
    let board = Board::default();
    watch_signals(&stop, &board)?;
    // What a client does to memory that it shares is its own affair.
    survive_lost_memory().context("cannot handle SIGBUS")?;

    let sockets = sockets::open(&arguments.socket, arguments.device.len())?;
    let drives = requests().map(open_drive).collect::<Result<Vec<_>, _>>()?;
    let (mut services, mut all, mut bounds) = (Vec::new(), Vec::new(), Vec::new());
    for ((request, drive), socket) in requests().zip(&drives).zip(sockets) {
        let Socket { name, listener, bound } = socket;
        bounds.push(bound);
        let entry = board.add(request.name(), &name);
        let made = service(request, drive.as_ref(), listener, &entry, arguments, &mut all);
        let server = made.with_context(|| format!("{} at {name}", request.name()))?;
        services.push(Service { entry, server, cpu: None, once: false });
    }
    if let Some(listener) = listener {
        control::serve(listener, move |command| control::execute(&command, all.iter()))?;
    }
    let restrict = || {
        sockets::ready();
        if arguments.no_sandbox { Ok(()) } else { sandbox.restrict_system_calls() }
    };
    let served = attend_all(services, &stop, restrict, || Ok(()));
    drop(bounds);
    // What the guests did not flush is there, too.
    let flushed = drives.iter().flatten().try_for_each(|drive| drive.flush());
    served.and(flushed)
}

/// Serves them all until they are stopped. Once all threads are there `restrict` is called, and then, while
/// clients are served, `meanwhile`.
fn attend_all(
    services: Vec<Service>,
    stop: &Stop,
    restrict: impl FnOnce() -> anyhow::Result<()>,
    meanwhile: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    // All threads that there will be are there when the filter comes, for it leaves no way to start another.
    let gate = RwLock::new(());
    thread::scope(|scope| {
        let closed = gate.write();
        let run = |service: Service| {
            if let Some(cpu) = service.cpu {
                // A thread is where the one is that starts it.
                pin_to(cpu).context("cannot pin a thread")?;
            }
            let attend = || {
                drop(gate.read());
                attend(service, stop)
            };
            let thread = thread::Builder::new().name("client".into());
            thread.spawn_scoped(scope, attend).context("cannot start a thread")
        };
        let threads: Vec<_> = services.into_iter().map(run).collect();
        let mut result = restrict();
        let all = threads.iter().all(Result::is_ok);
        if result.is_err() || !all {
            stop.stop();
        }
        drop(closed);
        if result.is_ok() && all {
            result = meanwhile();
            if result.is_err() {
                stop.stop();
            }
        }
        // All of them end before anybody is told of the first that failed.
        let ends = threads.into_iter().map(|thread| {
            let end = thread?.join();
            end.unwrap_or_else(|panic| resume_unwind(panic))
        });
        let ends: Vec<anyhow::Result<()>> = ends.collect();
        ends.into_iter().fold(result, anyhow::Result::and)
    })
}

/// Serves client after client until it is stopped, or the only one; stops the others when it cannot go on.
fn attend(mut service: Service, stop: &Stop) -> anyhow::Result<()> {
    let Service { entry, server, cpu: _, once } = &mut service;
    loop {
        match server.serve_one(stop) {
            Ok(End::Stopped) => return Ok(()),
            Ok(end) => {
                entry.client_left();
                if !matches!(end, End::Closed) {
                    eprintln!("paraslot: {}: {end}", entry.name());
                }
                if *once {
                    return Ok(());
                }
            }
            Err(error) => {
                stop.stop();
                return Err(error).with_context(|| entry.name().to_owned());
            }
        }
    }
}

/// Has signals end the program, or show what there is to show.
fn watch_signals(stop: &Stop, board: &Board) -> anyhow::Result<()> {
    let (stop, board) = (stop.clone(), board.clone());
    let handle = move |signal| match signal {
        libc::SIGUSR1 => eprint!("{board}"),
        _ => stop.stop(),
    };
    let signals = [&signals::ENDING[..], &[libc::SIGUSR1]].concat();
    signals::watch(&signals, handle).context("cannot watch for signals")
}

/// Makes a device over what is behind it, served at `listener`.
fn service(
    request: &Request,
    drive: Option<&Arc<Drive>>,
    listener: UnixListener,
    entry: &Arc<Entry>,
    arguments: &ServeArgs,
    all: &mut Vec<Owned>,
) -> anyhow::Result<Server> {
    let busy_poll = Duration::from_micros(arguments.busy_poll.into());
    let queues = match request {
        Request::Disk(spec) => spec.queues,
        Request::Net(spec) => spec.queues,
        Request::Host(_) => None,
    };
    let options = ThreadOptions { busy_poll, ..ThreadOptions::default() };
    let executor = threads_for(request.name(), queues, options)?;
    Server::new(listener, executor, |host| {
        let (function, owned) = device(request, drive, entry, host)?;
        all.push(owned);
        Ok(function)
    })
}

fn device<A: DmaSpace>(
    request: &Request,
    drive: Option<&Arc<Drive>>,
    entry: &Entry,
    host: Host<A>,
) -> anyhow::Result<(Box<dyn PciDevice>, Owned)> {
    // As they are counted on a command line.
    let (name, device) = (u16::from(entry.number()) + 1, request.name());
    match request {
        Request::Disk(spec) => {
            let drive = drive.context("a disk without an image")?;
            let (backend, counts) = Counted::new(drive.backend());
            entry.set_work(Work::Disk(counts));
            let (function, resize) = devices::disk(spec, Arc::new(backend), host)?;
            Ok((function, Owned::disk(name.to_string(), device, drive.clone(), resize)))
        }
        Request::Net(spec) => {
            let mac = spec.mac.unwrap_or([0x52, 0x54, 0, 0, 1, entry.number()]);
            let (port, limiters) = network(spec)?;
            let (function, cable) = devices::adapter(spec, port, mac, host)?;
            entry.set_work(Work::Net(cable.statistics));
            let owned = Owned::adapter(name.to_string(), device, limiters, cable.set_link);
            Ok((function, owned))
        }
        Request::Host(_) => anyhow::bail!("a function of the host's is not served"),
    }
}
