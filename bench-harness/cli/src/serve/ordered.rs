//! Devices for `paraslot run`, in a process of their own: what an order on the standard input names, until
//! whoever gave it is gone.

use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use paraslot_device::{DmaSpace, Host, ThreadExecutor, ThreadOptions};
use paraslot_pci::PciDevice;
use paraslot_vfio_user::{Server, Stop, survive_lost_memory};

use super::board::Board;
use super::sandbox::Sandbox;
use super::{Service, attend_all};
use crate::bench::built::{Built, Watch, adapter, disk};
use crate::image::open_nameless;
use crate::order::{Answer, Line, Order, Question, Seat, Seen, What};
use crate::spec::Request;
use crate::{drag, network, storage, sys};

/// What is behind a device, for it alone.
enum Behind {
    Disk(storage::Opened),
    Net(network::Opened),
}

/// Does what `paraslot serve-run` does.
pub(crate) fn serve() -> anyhow::Result<()> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut line = Line::new(UnixStream::from(input)).context("this is for paraslot run")?;
    let (order, mut image) = line.take().context("this is for paraslot run")?;
    let Order { what, seats, busy_poll, drag } = &order;

    let paths: Vec<PathBuf> = seats.iter().map(|seat| seat.socket.clone()).collect();
    let request = match what {
        What::Disk(spec) => Request::Disk(spec.clone()),
        What::Net(spec, _) | What::Wire(spec) => Request::Net(spec.clone()),
    };
    let sandbox = Sandbox::new([&request].into_iter(), &paths);
    // What a kernel does not have is said by who serves strangers.
    sandbox.restrict_files()?;
    let stop = Stop::new().context("no eventfd")?;
    survive_lost_memory().context("cannot handle SIGBUS")?;

    let behind = match what {
        What::Disk(spec) => {
            let nameless = |options: &_| {
                let image = image.take().context("an image without a name did not come")?;
                open_nameless(image, options)
            };
            vec![Behind::Disk(storage::open(spec, storage::fresh_memory, nameless)?)]
        }
        What::Net(spec, workload) => vec![Behind::Net(network::open(spec, *workload)?)],
        What::Wire(spec) => network::wire(spec)?.map(Behind::Net).into(),
    };
    if behind.len() != seats.len() {
        bail!("{} devices, and {} to be served", behind.len(), seats.len());
    }
    let board = Board::default();
    let (mut services, mut watches, mut labels) = (Vec::new(), Vec::new(), Vec::new());
    for (seat, behind) in seats.iter().zip(behind) {
        let Seat { socket, device_cpu, guest_cpu } = seat;
        let listener = UnixListener::bind(socket)
            .with_context(|| format!("cannot listen at {}", socket.display()))?;
        let options = ThreadOptions {
            threads: 1,
            cpus: (*device_cpu).into_iter().collect(),
            busy_poll: *busy_poll,
        };
        let executor =
            ThreadExecutor::new("device", &options).context("cannot start the device's thread")?;
        let make = |host| -> anyhow::Result<Box<dyn PciDevice>> {
            let Built { function, watch, label } = build(what, behind, host)?;
            watches.push(watch);
            labels.push(label);
            Ok(function)
        };
        let server = Server::new(listener, drag::on(Arc::new(executor), *drag), make)?;
        let entry = board.add(request.name(), &socket.display().to_string());
        // With a machine goes its end of a wire, so that nobody waits for what it does not take.
        services.push(Service { entry, server, cpu: *guest_cpu, once: true });
    }

    let label = labels.into_iter().next().context("nothing to be served")?;
    let answers = || {
        line.say(&Answer::Ready(label))?;
        // Whoever gave the order may go at any time.
        while let Ok(Some(question)) = line.hear() {
            line.say(&answer(question, &watches)?)?;
        }
        stop.stop();
        Ok(())
    };
    attend_all(services, &stop, || sandbox.restrict_system_calls(), answers)
}

/// Makes a device over what is behind it.
fn build<A: DmaSpace>(what: &What, behind: Behind, host: Host<A>) -> anyhow::Result<Built> {
    match (what, behind) {
        (What::Disk(spec), Behind::Disk(opened)) => disk(spec, opened, host),
        (What::Net(spec, _) | What::Wire(spec), Behind::Net(opened)) => adapter(spec, opened, host),
        _ => bail!("a device over what is for the other kind"),
    }
}

fn answer(question: Question, watches: &[Watch]) -> anyhow::Result<Answer> {
    let of = |seat: usize| watches.get(seat).with_context(|| format!("there is no device {seat}"));
    Ok(match question {
        Question::Look(seat) => {
            let elsewhere = match seat {
                0 => sys::process_cpu_time(),
                _ => Some(Duration::ZERO),
            };
            Answer::Seen(Seen { elsewhere, ..of(seat)?.look() })
        }
        Question::Arrived(seat) => {
            Answer::Arrived(of(seat)?.arrived().map_err(|error| crate::error::line(&error)))
        }
    })
}
