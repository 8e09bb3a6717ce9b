//! The networks: alone with a port, and two machines on a wire.

use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use paraslot_backends::net::{
    Generator, GeneratorOptions, NetBackend, NetStatistics, Sink, Wire, WireOptions,
};
use paraslot_device::{Host, SystemClock};
use paraslot_pci::PciDevice;
use paraslot_protocol::traffic::{
    self, Flow, NUMBER, PATTERN, TRANSPORT, UDP_HEADERS, checksum_offset, sum,
};
use paraslot_protocol::{
    Completion, Device, Header, Job, NetJob, PATTERN_STEP, Phase, Traffic, pattern_base,
};
use paraslot_tests::frames::HERE;
use paraslot_tests::parts::{self, Statistics};
use paraslot_vmm::in_process::GuestRam;
use paraslot_vmm::{Exits, Path};

use crate::kvm;

const OPERATIONS: u64 = 640;
/// Of frames that are only sent, no more than the ring of either adapter has room for, so that no group
/// of them has to wait for room and is then told of in parts.
const SENT: u64 = 96;
/// Bytes of each frame.
const SIZE: u32 = 200;
/// Register reads in the handling of an interrupt by the e1000's driver: ICR and STATUS twice; and
/// writes: IMC and IMS. ITR comes on top if it changes.
const READS: u64 = 3;
const WRITES: u64 = 2;

const FLOW: Flow = Flow { source: HERE, destination: HERE };

/// What came of a job.
pub(crate) struct Done {
    pub(crate) header: Header,
    pub(crate) exits: Exits,
    pub(crate) counts: NetStatistics,
    /// Exits that are no register access.
    pub(crate) rest: u64,
}

pub(crate) fn job(device: Device, traffic: Traffic, completion: Completion, batch: u16) -> NetJob {
    NetJob {
        device,
        traffic,
        completion,
        frame_size: SIZE,
        batch,
        rate: 0,
        warm_up_ms: 0,
        measure_ms: 60_000,
        operations: if traffic == Traffic::Transmit { SENT } else { OPERATIONS },
        verify: true,
        tsc_hz: 0,
    }
}

/// The adapter that `device` names, and what tells what became of its frames.
pub(crate) fn adapter(
    device: Device,
    backend: Arc<dyn NetBackend>,
    host: Host<GuestRam>,
) -> (Box<dyn PciDevice>, Statistics) {
    parts::network(device, backend, HERE, Arc::new(SystemClock::new()), host)
}

/// Frames as the guest expects them, numbered.
pub(crate) fn generator() -> Generator {
    let mut number = 0u64;
    let make = move |_, room: &mut [u8]| {
        let size = usize::try_from(SIZE).expect("small");
        let frame = &mut room[..size];
        frame[..UDP_HEADERS].copy_from_slice(&FLOW.headers(SIZE)[..UDP_HEADERS]);
        let payload = &mut frame[UDP_HEADERS..];
        for (word, place) in (0u64..).zip(payload.chunks_mut(8)) {
            let value = pattern_base(number, 0).wrapping_add(PATTERN_STEP.wrapping_mul(word));
            place.copy_from_slice(&value.to_le_bytes()[..place.len()]);
        }
        payload[NUMBER..PATTERN].fill(0);
        payload[NUMBER..NUMBER + 8].copy_from_slice(&number.to_le_bytes());
        let checksum = !sum(0, &frame[TRANSPORT..]);
        let checksum = if checksum == 0 { u16::MAX } else { checksum };
        let place = TRANSPORT + checksum_offset(SIZE);
        frame[place..place + 2].copy_from_slice(&checksum.to_be_bytes());
        number += 1;
        size
    };
    Generator::new(GeneratorOptions::default(), make).expect("a generator")
}

/// What a job's frames go to and come from.
pub(crate) fn port(traffic: Traffic) -> Arc<dyn NetBackend> {
    match traffic {
        Traffic::Transmit => Arc::new(Sink::new(1).expect("a sink")),
        Traffic::Receive => Arc::new(generator()),
        Traffic::Request | Traffic::Respond => {
            Arc::new(Wire::loopback(WireOptions::default()).expect("a wire"))
        }
    }
}

fn run(path: Path, busy_poll: Duration, job: &NetJob, backend: Arc<dyn NetBackend>) -> Done {
    run_with(path, busy_poll, job, backend, &mut |_| ())
}

fn run_with(
    path: Path,
    busy_poll: Duration,
    job: &NetJob,
    backend: Arc<dyn NetBackend>,
    on_phase: &mut dyn FnMut(Phase),
) -> Done {
    let mut statistics = None;
    let make = |host| {
        let (device, counts) = adapter(job.device, backend, host);
        statistics = Some(counts);
        device
    };
    let result = crate::run(path, busy_poll, Job::Net(*job), make, on_phase);
    let (header, exits) = result.expect("the guest runs");
    assert_eq!(header.operations.get(), job.operations, "{job}");
    assert_eq!((header.lost.get(), header.reordered.get()), (0, 0), "{job}");
    if job.traffic != Traffic::Transmit {
        assert_eq!(header.verified.get(), job.operations, "{job}");
    }
    let rest = exits.total() - exits.others - exits.mmio_reads - exits.mmio_writes;
    Done { header, exits, counts: statistics.expect("an adapter")(), rest }
}

/// All combinations of traffic, completion, batch and polling.
fn each(device: Device, path: Path, mut check: impl FnMut(&NetJob, &Done)) {
    if !kvm() {
        return;
    }
    for traffic in [Traffic::Transmit, Traffic::Receive, Traffic::Request] {
        for completion in [Completion::Poll, Completion::Interrupt] {
            for (batch, busy_poll) in [(1, Duration::ZERO), (32, Duration::from_micros(50))] {
                let job = job(device, traffic, completion, batch);
                let done = run(path, busy_poll, &job, port(traffic));
                assert_eq!(done.rest, 0, "{job}: {:?}", done.exits);
                check(&job, &done);
            }
        }
    }
}

// virtio with an ioeventfd and an irqfd: no exit at all, whichever way frames go.
#[test]
fn virtio_net_does_not_exit_on_the_event_path() {
    each(Device::VirtioNet, Path::Event, |job, done| {
        assert_eq!(done.exits.total() - done.exits.others, 0, "{job}: {:?}", done.exits);
        assert_eq!(done.counts.send_invalid + done.counts.receive_errors, 0, "{job}");
    });
}

// Each doorbell is an exit, and there is nothing else.
#[test]
fn virtio_net_exits_for_doorbells_alone_on_the_trap_path() {
    each(Device::VirtioNet, Path::Trap, |job, done| {
        assert_eq!(done.exits.mmio_writes, done.header.doorbells.get(), "{job}: {:?}", done.exits);
        assert_eq!(done.exits.mmio_reads, 0, "{job}: {:?}", done.exits);
    });
}

/// vmxnet3's driver tells of frames and buffers by doorbells, and lets interrupts through again by one
/// write for each. It reads nothing.
fn check_vmxnet3(job: &NetJob, done: &Done, trapped: bool) {
    let Done { header, exits, .. } = done;
    let (interrupts, doorbells) = (header.interrupts.get(), header.doorbells.get());
    assert_eq!(exits.mmio_reads, 0, "{job}: {exits:?}");
    assert!(doorbells <= 2 * job.operations, "{job}: {doorbells}");
    let rest = exits.mmio_writes - if trapped { doorbells } else { 0 };
    // One interrupt may have been begun before the measured part, and one not ended in it.
    assert!(rest.abs_diff(interrupts) <= 2, "{job}: {exits:?}, {interrupts} interrupts");
    if job.batch == 32 && job.completion == Completion::Poll {
        assert!(exits.mmio_writes * 20 < job.operations, "{job}: {exits:?}");
    }
    assert_eq!(done.counts.send_invalid + done.counts.receive_errors, 0, "{job}");
}

#[test]
fn vmxnet3_exits_for_interrupts_alone_on_the_event_path() {
    each(Device::Vmxnet3, Path::Event, |job, done| check_vmxnet3(job, done, false));
}

#[test]
fn vmxnet3_exits_for_doorbells_and_interrupts_alone_on_the_trap_path() {
    each(Device::Vmxnet3, Path::Trap, |job, done| check_vmxnet3(job, done, true));
}

/// What the e1000's driver does must exit: no register of it can be a page of the guest's, as reading
/// ICR changes it.
pub(crate) fn check_e1000(job: &NetJob, done: &Done) {
    let Done { header, exits, .. } = done;
    let (operations, batch) = (job.operations, u64::from(job.batch));
    let (interrupts, doorbells) = (header.interrupts.get(), header.doorbells.get());
    assert_eq!(exits.mmio_reads + exits.mmio_writes, header.register_accesses.get(), "{job}");
    // A write of TDT for each group of frames to be sent, and of RDT for each of buffers.
    match job.traffic {
        Traffic::Transmit => assert_eq!(doorbells, operations / batch, "{job}: {exits:?}"),
        Traffic::Receive => {
            assert!(doorbells.abs_diff(operations / batch) <= 1, "{job}: {exits:?}");
        }
        _ => {
            // One of each for a request, when there is one at a time.
            let most = 2 * operations;
            assert!(doorbells <= most && (batch != 1 || doorbells == most), "{job}: {exits:?}");
        }
    }
    if job.completion == Completion::Poll {
        assert_eq!((exits.mmio_reads, interrupts), (0, 0), "{job}: {exits:?}");
        assert_eq!(exits.mmio_writes, doorbells, "{job}: {exits:?}");
        return;
    }
    // One interrupt may have been begun before the measured part, and one not ended in it.
    // One way there may be none: while there is always something more, nobody waits for one.
    assert!(interrupts > 0 || job.traffic != Traffic::Request, "{job}");
    let reads = READS * interrupts;
    assert!(exits.mmio_reads.abs_diff(reads) <= READS, "{job}: {exits:?}, {interrupts}");
    let writes = exits.mmio_writes - doorbells;
    let throttled = writes.saturating_sub(WRITES * interrupts);
    assert!(writes + WRITES >= WRITES * interrupts, "{job}: {exits:?}, {interrupts}");
    assert!(throttled <= interrupts, "{job}: ITR at most once an interrupt: {exits:?}");
}

// On either path: a doorbell is one exit a batch, an interrupt five, and one more where the interval
// between interrupts changes.
#[test]
fn e1000_exits_as_often_as_its_driver_must() {
    each(Device::E1000, Path::Event, check_e1000);
}

#[test]
fn e1000_exits_as_often_on_the_trap_path() {
    each(Device::E1000, Path::Trap, check_e1000);
}

// At a rate that anything can keep up with, nothing is lost.
#[test]
fn nothing_is_lost_at_a_low_rate() {
    if !kvm() {
        return;
    }
    for device in [Device::VirtioNet, Device::Vmxnet3, Device::E1000] {
        for completion in [Completion::Poll, Completion::Interrupt] {
            let job = NetJob { rate: 5000, ..job(device, Traffic::Request, completion, 32) };
            let done = run(Path::Event, Duration::ZERO, &job, port(job.traffic));
            assert!(done.counts.received_frames >= OPERATIONS, "{job}: {:?}", done.counts);
            assert_eq!(done.counts.sent_frames, done.counts.received_frames, "{job}");
        }
    }
}

// A frame that is to be segmented goes out whole and comes back whole.
#[test]
fn large_frames_are_moved_without_exits() {
    if !kvm() {
        return;
    }
    for device in [Device::VirtioNet, Device::Vmxnet3] {
        for traffic in [Traffic::Transmit, Traffic::Request] {
            let small = job(device, traffic, Completion::Poll, 8);
            let job = NetJob { frame_size: traffic::MAX_FRAME, ..small };
            let done = run(Path::Event, Duration::ZERO, &job, port(traffic));
            assert_eq!(done.exits.total() - done.exits.others, 0, "{job}: {:?}", done.exits);
        }
    }
}

// Two machines, each with an adapter of either kind, on one wire: every request is answered, once, and
// what comes back is what was sent.
#[test]
fn two_machines_on_a_wire_answer_each_other() {
    if !kvm() {
        return;
    }
    for (asks, answers) in [
        (Device::VirtioNet, Device::VirtioNet),
        (Device::VirtioNet, Device::E1000),
        (Device::E1000, Device::Vmxnet3),
        (Device::Vmxnet3, Device::VirtioNet),
        (Device::Vmxnet3, Device::Vmxnet3),
        (Device::E1000, Device::E1000),
    ] {
        let (here, there) = Wire::new(WireOptions::default()).expect("a wire");
        let completion = Completion::Interrupt;
        let request = job(asks, Traffic::Request, completion, 8);
        let respond = job(answers, Traffic::Respond, completion, 8);
        // Nobody asks before there is somebody to answer: what is sent to no receiver is lost.
        let (ready, is_ready) = channel();
        let (one, other) = std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let mut tell = |phase| {
                    if phase == Phase::Measure {
                        ready.send(()).expect("the other machine waits");
                    }
                };
                let port = Arc::new(there.clone());
                run_with(Path::Event, Duration::ZERO, &respond, port, &mut tell).counts
            });
            is_ready.recv().expect("the other machine starts");
            let one = run(Path::Event, Duration::ZERO, &request, Arc::new(here.clone())).counts;
            (one, other.join().expect("it runs"))
        });
        assert_eq!((one.sent_frames, one.received_frames), (OPERATIONS, OPERATIONS));
        assert_eq!((other.sent_frames, other.received_frames), (OPERATIONS, OPERATIONS));
        let wire = (here.statistics().delivered, there.statistics().delivered);
        assert_eq!(wire, (OPERATIONS, OPERATIONS), "{asks} and {answers}");
        assert_eq!(here.statistics().dropped + there.statistics().dropped, 0);
    }
}
