//! Two guests on a wire: one sends, the other receives and is the one that is measured.
//!
//! Whoever has set its device up first stands still until the other has: virtual processors stop at
//! marks anyway. From then on the sender is measured all the time, for a little longer than the
//! receiver takes. What it sends when the receiver has shut its device down is lost on the wire, so it
//! ends by itself.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use anyhow::{Context, bail};
use paraslot_protocol::{Job, NetJob, Phase, Traffic};
use paraslot_vmm::Vm;

use super::{Machine, Marks};
use crate::bench::built::adapter;
use crate::bench::remote::Server;
use crate::bench::{Sample, Setting};
use crate::network::{self, Opened};
use crate::plan::Cell;
use crate::spec::{DeviceSpec, NetSpec};

/// Milliseconds for which the sender goes on after the receiver: what the two may be apart, and more.
const LONGER_MS: u32 = 20;

/// Where two guests wait for each other.
struct Meeting {
    here: Sender<()>,
    there: Receiver<()>,
}

impl Meeting {
    /// Its two sides.
    fn new() -> (Self, Self) {
        let ((one, from_one), (other, from_other)) = (channel(), channel());
        (Self { here: one, there: from_other }, Self { here: other, there: from_one })
    }

    /// At the beginning, waits for the other, unless it is gone. Not later: neither gets on while the
    /// other stands still.
    fn at(&self, phase: Phase) {
        if phase == Phase::WarmUp {
            let _ = self.here.send(());
            let _ = self.there.recv();
        }
    }
}

/// Runs the job on a receiver, with a sender at the other end.
pub(super) fn run(setting: &Setting<'_>, cell: &Cell, job: &Job) -> anyhow::Result<Sample> {
    let (DeviceSpec::Net(spec), Job::Net(receive)) = (&setting.devices[cell.device], job) else {
        bail!("{} is not for a network", cell.name);
    };
    // Guests tell of a warm-up only if there is one.
    let receive = NetJob { warm_up_ms: receive.warm_up_ms.max(1), ..*receive };
    let send = NetJob {
        traffic: Traffic::Transmit,
        warm_up_ms: 1,
        measure_ms: receive.warm_up_ms.saturating_add(receive.measure_ms).saturating_add(LONGER_MS),
        ..receive
    };
    // Each virtual processor shares its place with the other machine's device, so that a guest and
    // its own device run at the same time.
    let (vcpu, device) = (setting.vcpu_cpu(), setting.device_cpu());
    let server = setting.server(cell, &[(device, vcpu), (vcpu, device)])?;
    let result = run_on(setting, cell, spec, &[receive, send], server.as_ref());
    match server {
        Some(server) => server.end(result),
        None => result,
    }
}

/// Runs the receiver's job and the sender's, on adapters of `server`'s if there is one.
fn run_on(
    setting: &Setting<'_>,
    cell: &Cell,
    spec: &NetSpec,
    [receive, send]: &[NetJob; 2],
    server: Option<&Arc<Server>>,
) -> anyhow::Result<Sample> {
    let ends = match server {
        Some(_) => [None, None],
        None => network::wire(spec)?.map(Some),
    };
    let machine = |seat, end: Option<Opened>, (device, vcpu), job: &NetJob| {
        let (threads, shared) = (setting.threads_on(device), setting.shared_memory);
        let job = Job::Net(*job);
        let build = |vm: &Vm, host| match (server, end) {
            (Some(server), _) => server.plug(seat, vm.handle(), host),
            (None, Some(end)) => adapter(spec, end, host),
            (None, None) => bail!("a wire has two ends"),
        };
        Machine::new(cell.path, shared, vcpu, &threads, setting.drag, &job, build)
    };
    let (vcpu, device) = (setting.vcpu_cpu(), setting.device_cpu());
    let [at_receiver, at_sender] = ends;
    let mut receiver = machine(0, at_receiver, (device, vcpu), receive)?;
    // It has the same address, as the guest sends to its own: what comes back has to pass its filter.
    let mut sender = machine(1, at_sender, (vcpu, device), send)?;

    let mut marks = Marks::new(vec![receiver.watch.clone(), sender.watch.clone()]);
    let (meeting, other) = Meeting::new();
    let (received, sent) = thread::scope(|scope| {
        let thread = thread::Builder::new().name("sender".into());
        let sending = thread.spawn_scoped(scope, move || {
            // Owned here, to be gone as soon as the sender has ended.
            let meeting = other;
            sender.run(&mut |phase| meeting.at(phase))
        });
        let sending = sending.context("cannot start the sender")?;
        let received = receiver.run(&mut |phase| {
            meeting.at(phase);
            marks.note(phase);
        });
        drop(meeting);
        // Its end of the wire goes with it, and what is sent from now on with that.
        drop(receiver);
        let sent = sending.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, anyhow::Error>((received, sent))
    })?;
    let mut sample = received.context("the receiver")?;
    marks.complete(&mut sample);
    Ok(together(sample, &sent.context("the sender")?))
}

/// The receiver's run with the sender's part of it. What the sender did for a frame it did for each
/// that was on its way to the receiver.
fn together(mut received: Sample, sent: &Sample) -> Sample {
    let frames = u128::from(received.operations) + u128::from(received.lost);
    let share = |count: u64| {
        let share = u128::from(count) * frames / u128::from(sent.operations.max(1));
        u64::try_from(share).unwrap_or(u64::MAX)
    };
    received.doorbells =
        received.doorbells.zip(sent.doorbells).map(|(own, other)| own + share(other));
    received.interrupts += share(sent.interrupts);
    received.exits = received.exits.zip(sent.exits).map(|(own, other)| own + share(other));
    received
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_senders_share_is_that_of_the_frames_received() {
        let received = Sample {
            operations: 900,
            lost: 100,
            doorbells: Some(10),
            interrupts: 90,
            exits: Some(5),
            ..Sample::default()
        };
        let sent = Sample {
            operations: 2000,
            doorbells: Some(400),
            interrupts: 2,
            exits: Some(6),
            ..Sample::default()
        };
        let both = together(received.clone(), &sent);
        assert_eq!((both.operations, both.doorbells, both.interrupts), (900, Some(210), 91));
        assert_eq!(both.exits, Some(8));
        let unknown = Sample { exits: None, ..sent };
        assert_eq!(together(received, &unknown).exits, None);
    }

    #[test]
    fn nobody_waits_for_who_is_gone() {
        let (one, other) = Meeting::new();
        let thread = thread::spawn(move || {
            other.at(Phase::WarmUp);
            other.at(Phase::Done);
        });
        one.at(Phase::WarmUp);
        thread.join().unwrap();
        one.at(Phase::WarmUp);
    }
}
