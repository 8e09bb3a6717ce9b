//! Network adapters in the middle of a job.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use paraslot_backends::net::testing::{FaultNet, HostPort, Operation, ScriptedNet, Sent};
use paraslot_backends::net::{
    Frame, NetBackend, NetError, NetInfo, NetReceiver, NetSender, Offloads,
};
use paraslot_device::{Progress, Sources};
use paraslot_pci::Bdf;
use paraslot_protocol::traffic::{Flow, NUMBER, UDP_HEADERS};
use paraslot_protocol::{Completion, Device, NetJob, Outcome, Status, Traffic};
use paraslot_tests::frames::HERE;
use paraslot_tests::jobs::run;
use paraslot_tests::moving::{Build, Moves, Moving};
use paraslot_tests::parts;
use paraslot_tests::traffic::finished;
use paraslot_vmm::in_process::{InProcess, Machine, Run};

use crate::{MEMORY, fingerprint, places};

pub(crate) const SLOT: Bdf = Bdf::root(3);
pub(crate) const NETWORKS: [Device; 3] = [Device::VirtioNet, Device::Vmxnet3, Device::E1000];

/// Builds an adapter time and again, at one port.
pub(crate) fn build(device: Device, machine: &InProcess, port: Arc<dyn NetBackend>) -> Build {
    let (host, clock) = (machine.host(SLOT), machine.clock());
    Box::new(move || parts::network(device, port.clone(), HERE, clock.clone(), host.clone()).0)
}

pub(crate) fn job(
    device: Device,
    traffic: Traffic,
    completion: Completion,
    frame_size: u32,
) -> NetJob {
    NetJob {
        device,
        traffic,
        completion,
        frame_size,
        batch: 8,
        rate: 0,
        warm_up_ms: 0,
        measure_ms: 60_000,
        operations: 40,
        verify: true,
        tsc_hz: 0,
    }
}

fn jobs() -> impl Iterator<Item = NetJob> {
    NETWORKS.into_iter().flat_map(|device| {
        [
            job(device, Traffic::Transmit, Completion::Interrupt, 64),
            job(device, Traffic::Receive, Completion::Interrupt, 1514),
            job(device, Traffic::Request, Completion::Interrupt, 200),
            job(device, Traffic::Respond, Completion::Poll, 64),
        ]
    })
}

/// A port that records what is sent, and may send it back.
struct Recorder {
    inner: ScriptedNet,
    record: Record,
}

#[derive(Clone)]
struct Record {
    port: HostPort,
    echo: bool,
    sent: Arc<Mutex<Vec<Sent>>>,
}

impl Record {
    fn take(&self) {
        for sent in self.port.take_sent(0) {
            if self.echo {
                self.port.push_with(0, &sent.bytes, sent.offload);
            }
            self.sent.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
        }
    }
}

impl NetBackend for Recorder {
    fn info(&self) -> NetInfo {
        self.inner.info()
    }

    fn set_receive_offloads(&self, accepted: Offloads) -> io::Result<()> {
        self.inner.set_receive_offloads(accepted)
    }

    fn set_queues(&self, pairs: u16) -> io::Result<()> {
        self.inner.set_queues(pairs)
    }

    fn open_sender(&self, queue: u16) -> io::Result<Box<dyn NetSender>> {
        let inner = self.inner.open_sender(queue)?;
        Ok(Box::new(RecordingSender { inner, record: self.record.clone() }))
    }

    fn open_receiver(&self, queue: u16) -> io::Result<Box<dyn NetReceiver>> {
        self.inner.open_receiver(queue)
    }
}

struct RecordingSender {
    inner: Box<dyn NetSender>,
    record: Record,
}

impl NetSender for RecordingSender {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), NetError> {
        self.inner.send(frame)
    }

    fn commit(&mut self) {
        self.inner.commit();
        self.record.take();
    }

    fn sources(&self) -> Sources {
        self.inner.sources()
    }

    fn prepare_to_wait(&mut self) -> Progress {
        self.inner.prepare_to_wait()
    }

    fn stop_waiting(&mut self) {
        self.inner.stop_waiting();
    }

    fn copied_bytes(&self) -> u64 {
        self.inner.copied_bytes()
    }
}

/// How a job went.
struct Course {
    outcome: Outcome,
    operations: u64,
    /// Of guest memory.
    memory: u64,
    sent: Vec<Sent>,
    received: usize,
    interrupts: u64,
    state: String,
}

fn course(job: NetJob, moves: Moves) -> Course {
    // One step at a time, so that it moves in the middle of its work, too.
    let machine = InProcess::new(&Machine::new(MEMORY, Run::Stepped(Some(1)))).unwrap();
    let (inner, port) = ScriptedNet::new(1);
    let sent = Arc::default();
    let record = Record { port, echo: job.traffic == Traffic::Request, sent };
    let there = match job.traffic {
        Traffic::Receive | Traffic::Respond => job.operations + 20,
        Traffic::Transmit | Traffic::Request => 0,
    };
    let flow = Flow { source: HERE, destination: HERE };
    (0..there).for_each(|number| record.port.push(0, &finished(flow, number, job.frame_size)));
    // Now and then there is no room for a frame.
    let mut sends = 0;
    let choose = move |_, operation| {
        sends += u64::from(matches!(operation, Operation::Send { .. }));
        (sends % 7 == 0).then(|| {
            sends += 1;
            NetError::Busy
        })
    };
    let backend = FaultNet::new(Recorder { inner, record: record.clone() }, choose);
    let moving = Moving::new(build(job.device, &machine, Arc::new(backend)), moves);
    let moving = Arc::new(Mutex::new(moving));
    machine.plug_shared(SLOT, moving.clone()).unwrap();
    let outcome = run(&machine, job);
    let header = &outcome.header;
    assert_eq!((outcome.status(), header.errors.get()), (Status::Ok, 0), "{job}, {moves:?}");
    assert_eq!((header.lost.get(), header.reordered.get()), (0, 0), "{job}, {moves:?}");
    assert_eq!(machine.stray_interrupts(), 0, "{job}, {moves:?}");
    let mut moving = moving.lock().unwrap();
    let sent = std::mem::take(&mut *record.sent.lock().unwrap());
    let arrived = if record.echo { sent.len() } else { usize::try_from(there).unwrap() };
    Course {
        operations: moving.operations(),
        memory: fingerprint(&machine),
        received: arrived - record.port.waiting(0),
        sent,
        interrupts: (0..8).map(|vector| machine.messages_sent(SLOT, vector)).sum(),
        state: moving.state(),
        outcome,
    }
}

/// At every index of the sequence of operations: what comes after a move is what comes after a pause.
/// Lost doorbells and interrupts: crosvm 078ef31b7, CH 3e3008f36, OV d31d6641d, FC 5958.
#[test]
fn an_adapter_moves_before_any_operation_and_nobody_notices() {
    let mut seen = Vec::new();
    for job in jobs() {
        let count = course(job, Moves::PauseBefore(u64::MAX)).operations;
        println!("{job}: {count} operations");
        assert!(count > 20);
        for index in places(&mut seen, job.device, count) {
            let paused = course(job, Moves::PauseBefore(index));
            let moved = course(job, Moves::Before(index));
            let context = format!("{job}, before operation {index}");
            assert_eq!(moved.operations, paused.operations, "{context}");
            assert_eq!(moved.outcome.header, paused.outcome.header, "{context}");
            assert!(moved.sent == paused.sent, "{context}");
            assert_eq!(moved.received, paused.received, "{context}");
            assert_eq!(moved.interrupts, paused.interrupts, "{context}");
            assert_eq!(moved.memory, paused.memory, "{context}");
            assert_eq!(moved.state, paused.state, "{context}");
        }
    }
}

/// An adapter that moves all the time.
#[test]
fn an_adapter_that_moves_before_each_operation_loses_nothing() {
    for job in jobs() {
        let job = NetJob { operations: 200, ..job };
        let moved = course(job, Moves::Always);
        let stayed = course(job, Moves::PauseBefore(u64::MAX));
        let header = |course: &Course| {
            let header = &course.outcome.header;
            (header.operations, header.verified)
        };
        assert_eq!(header(&moved), header(&stayed), "{job}");
        // Frames carry the time when they were sent, too, which differs.
        let number = |sent: &Sent| {
            let number = sent.bytes[UDP_HEADERS + NUMBER..].first_chunk().unwrap();
            u64::from_le_bytes(*number)
        };
        let numbers = |course: &Course| course.sent.iter().map(number).collect::<Vec<_>>();
        assert_eq!(numbers(&moved), numbers(&stayed), "{job}");
    }
}
