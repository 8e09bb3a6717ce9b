extern crate std;

mod adapter;

use std::vec::Vec;

use paraslot_protocol::traffic::{self, Flow};
use paraslot_protocol::{Completion as Mode, Device, JobError, NetJob, Outcome, Phase, Traffic};

use super::super::{Failure, run_on_nic};
use super::watch::Watch;
use crate::{Known, Offers};
use adapter::{Adapter, Config, Fault, GOOD, MAC, Machine, PEER, complete, frame};

const JOB: NetJob = NetJob {
    device: Device::VirtioNet,
    traffic: Traffic::Request,
    completion: Mode::Poll,
    frame_size: 64,
    batch: 8,
    rate: 0,
    warm_up_ms: 0,
    measure_ms: 60_000,
    operations: 500,
    verify: true,
    tsc_hz: 0,
};

const MODES: [Mode; 2] = [Mode::Poll, Mode::Interrupt];
const TRAFFICS: [Traffic; 4] =
    [Traffic::Transmit, Traffic::Receive, Traffic::Request, Traffic::Respond];
const RECEIVING: [Traffic; 3] = [Traffic::Receive, Traffic::Request, Traffic::Respond];

struct Ran {
    result: Result<(), Failure>,
    outcome: Outcome,
    phases: Vec<Phase>,
    sent: Vec<Vec<u8>>,
}

impl Ran {
    fn operations(&self) -> u64 {
        self.outcome.header.operations.get()
    }
    fn lost(&self) -> u64 {
        self.outcome.header.lost.get()
    }
    fn reordered(&self) -> u64 {
        self.outcome.header.reordered.get()
    }
    fn errors(&self) -> u64 {
        self.outcome.header.errors.get()
    }
    fn recorded(&self) -> u64 {
        self.outcome.latency.buckets().map(|(_, count)| u64::from(count)).sum()
    }
}

fn run_with(config: Config, job: NetJob) -> Ran {
    let machine = Machine::new(config, &job);
    let mut outcome = Outcome::default();
    let result = run_on_nic(&machine, Adapter::new(&machine), &job, &mut outcome);
    let phases = machine.fake.phases.borrow().clone();
    Ran { result, outcome, phases, sent: machine.sent() }
}

fn run_fault(fault: Fault, job: NetJob) -> Ran {
    run_with(Config { fault, ..GOOD }, job)
}

/// Every shape of job.
fn shapes() -> impl Iterator<Item = NetJob> {
    TRAFFICS.into_iter().flat_map(|traffic| {
        MODES.into_iter().flat_map(move |completion| {
            let sizes = [
                (64, 1, 100),
                (64, 32, 300),
                (65, 7, 50),
                (1514, 8, 30),
                (1515, 3, 10),
                (65536, 2, 4),
            ];
            sizes.into_iter().flat_map(move |(frame_size, batch, operations)| {
                [false, true].map(|verify| NetJob {
                    traffic,
                    completion,
                    frame_size,
                    batch,
                    operations,
                    verify,
                    ..JOB
                })
            })
        })
    })
}

#[test]
fn a_good_adapter_passes_every_job_and_is_counted_exactly() {
    for job in shapes() {
        let ran = run_with(GOOD, job);
        assert_eq!(ran.result, Ok(()), "{job}");
        assert_eq!(ran.phases, [Phase::Measure, Phase::Done]);
        let header = ran.outcome.header;
        let operations = job.operations;
        let bytes = operations * u64::from(job.frame_size);
        assert_eq!((header.operations.get(), header.bytes.get()), (operations, bytes), "{job}");
        assert_eq!((ran.errors(), ran.lost(), ran.reordered()), (0, 0, 0));
        let latencies = matches!(job.traffic, Traffic::Transmit | Traffic::Request);
        assert_eq!(ran.recorded(), if latencies { operations } else { 0 });
        let verified = job.verify && job.traffic != Traffic::Transmit;
        assert_eq!(header.verified.get(), if verified { operations } else { 0 });
        let first = u64::from(job.batch == 1);
        match job.traffic {
            Traffic::Transmit => {
                assert_eq!(header.doorbells.get(), operations.div_ceil(job.batch.into()));
            }
            Traffic::Request if job.batch == 1 => {
                assert_eq!(header.doorbells.get(), 2 * operations)
            }
            // The buffer of the frame before the measured part is given back too.
            Traffic::Receive => {
                assert_eq!(header.doorbells.get(), (operations + 1) / u64::from(job.batch) - first)
            }
            Traffic::Request | Traffic::Respond => {}
        }
        let interrupts = job.completion == Mode::Interrupt;
        assert!(header.interrupts.get() == 0 || interrupts);
        assert!(header.interrupts.get() > 0 || !interrupts || operations < 50, "{job}");
        assert!(header.waiting_cycles.get() <= header.cycles.get());
        assert!(header.waiting_cycles.get() > 0 || operations < 50);
    }
}

#[test]
fn what_is_sent_is_what_the_traffic_is_described_as() {
    let own = Flow { source: MAC, destination: MAC };
    let checksums = [true, false];
    for job in shapes().filter(|job| job.traffic == Traffic::Transmit) {
        for (headroom, checksum) in [0, 12, 20]
            .into_iter()
            .flat_map(|headroom| checksums.map(|checksum| (headroom, checksum)))
        {
            let config = Config { headroom, offers: Offers { checksum, ..GOOD.offers }, ..GOOD };
            let ran = run_with(config, job);
            assert_eq!((ran.result, ran.sent.len() as u64), (Ok(()), job.operations));
            for (number, sent) in (0..).zip(&ran.sent) {
                let start = traffic::header_len(job.frame_size) + traffic::STAMP;
                let stamp = u64::from_le_bytes(sent[start..start + 8].try_into().unwrap());
                assert!(stamp > 0);
                let expected = frame(own, job.frame_size, number, stamp, job.verify);
                assert!(*sent == complete(expected), "{number} of {job}");
            }
        }
    }
}

#[test]
fn answers_are_the_requests_with_everything_exchanged() {
    for known in [Known::Right, Known::Partial, Known::Nothing] {
        for offers in [GOOD.offers, Offers { checksum: false, ..GOOD.offers }] {
            let answers =
                |job: &NetJob| (job.traffic, job.completion) == (Traffic::Respond, Mode::Poll);
            for job in shapes().filter(answers) {
                let piece = if job.frame_size > 1514 { 333 } else { 4096 };
                let config = Config { known, offers, headroom: 12, piece, ..GOOD };
                let ran = run_with(config, job);
                assert_eq!(
                    (ran.result, ran.sent.len() as u64),
                    (Ok(()), job.operations),
                    "{job} {known:?}"
                );
                let back = Flow { source: MAC, destination: PEER };
                for (number, sent) in (1000..).zip(&ran.sent) {
                    let start = traffic::header_len(job.frame_size) + traffic::STAMP;
                    let stamp = u64::from_le_bytes(sent[start..start + 8].try_into().unwrap());
                    let expected = frame(back, job.frame_size, number, stamp, job.verify);
                    assert!(*sent == complete(expected), "{number} of {job}");
                }
            }
        }
    }
}

// What is known of checksums and how a frame lies in memory make no difference.
#[test]
fn frames_are_checked_whatever_they_arrive_in() {
    for known in [Known::Right, Known::Partial, Known::Nothing] {
        for (frame_size, piece) in
            [(64, 4096), (1514, 99), (1514, 512), (1514, 1513), (65536, 1401), (65536, 2048)]
        {
            let config = Config { known, piece, ..GOOD };
            let job = NetJob { traffic: Traffic::Receive, frame_size, operations: 8, ..JOB };
            assert_eq!(run_with(config, job).result, Ok(()), "{frame_size} {piece}");
            for byte in [63, 98, 99, 1512, 1513, 1514, 65535] {
                // Numbers and time stamps are another matter.
                if byte >= frame_size as usize || byte == 63 && frame_size != 64 {
                    continue;
                }
                let config = Config { fault: Fault::Flip(1007, byte), ..config };
                let result = run_with(config, job).result;
                assert_eq!(result, Err(Failure::Corrupt(1007)), "{frame_size} {piece} {byte}");
            }
        }
    }
}

#[test]
fn the_warm_up_is_not_counted_and_time_ends_the_measured_part() {
    for traffic in TRAFFICS {
        for completion in MODES {
            let job =
                NetJob { traffic, completion, warm_up_ms: 5, measure_ms: 20, operations: 0, ..JOB };
            let ran = run_with(GOOD, job);
            assert_eq!(ran.result, Ok(()));
            assert_eq!(ran.phases, [Phase::WarmUp, Phase::Measure, Phase::Done]);
            let header = ran.outcome.header;
            if matches!(traffic, Traffic::Transmit | Traffic::Request) {
                assert_eq!(ran.recorded(), ran.operations());
                assert!(ran.sent.len() as u64 > ran.operations());
            }
            if traffic != Traffic::Transmit {
                assert!(header.verified.get() >= ran.operations());
            }
            // At 1 MHz, with what the last requests take.
            assert!((20_000..21_000).contains(&header.cycles.get()), "{}", header.cycles.get());
            assert!((500..50_000).contains(&ran.operations()), "{}", ran.operations());
        }
    }
}

// The verifier has teeth.
#[test]
fn every_wrong_bit_is_noticed() {
    for traffic in RECEIVING {
        for frame_size in [64, 1515] {
            let checksum = traffic::TRANSPORT + traffic::checksum_offset(frame_size);
            let stamp = traffic::header_len(frame_size) + traffic::STAMP;
            for known in [Known::Right, Known::Nothing] {
                for byte in 0..90_usize.min(frame_size as usize) {
                    let at = if traffic == Traffic::Request { 5 } else { 1005 };
                    let config = Config { known, fault: Fault::Flip(at, byte), ..GOOD };
                    let job = NetJob { traffic, frame_size, operations: 20, ..JOB };
                    // Of those nothing is known but that the adapter finds them right.
                    let in_checksum = (checksum..checksum + 2).contains(&byte);
                    let unseen = in_checksum
                        || ((stamp..stamp + 8).contains(&byte) && traffic != Traffic::Request);
                    if traffic == Traffic::Respond && unseen && known == Known::Right {
                        // It would be sent back as it came.
                        continue;
                    }
                    let ran = run_with(config, job);
                    if known == Known::Right && unseen {
                        assert_eq!(ran.result, Ok(()));
                        continue;
                    }
                    // A frame that does not look like one of the job's is missed all the same.
                    let corrupt = matches!(ran.result, Err(Failure::Corrupt(_)));
                    let noticed = corrupt && ran.errors() > 0
                        || ran.result == Ok(()) && (ran.errors(), ran.lost()) == (0, 1);
                    assert!(noticed, "{traffic} {frame_size} {byte} {:?}", ran.result);
                }
            }
        }
    }
}

#[test]
fn wrong_lengths_and_false_claims_are_noticed() {
    for traffic in RECEIVING {
        for completion in MODES {
            let at = if traffic == Traffic::Request { 50 } else { 1050 };
            let job = NetJob { traffic, completion, frame_size: 300, operations: 200, ..JOB };
            for verify in [false, true] {
                for fault in [Fault::Long(at), Fault::Short(at)] {
                    let ran = run_fault(fault, NetJob { verify, ..job });
                    assert_eq!(ran.result, Err(Failure::Corrupt(at)), "{traffic} {fault:?}");
                    assert_eq!(ran.errors(), 1);
                }
            }
            for (known, claim) in [
                (Known::Partial, Known::Nothing),
                (Known::Right, Known::Partial),
                (Known::Nothing, Known::Partial),
            ] {
                let config = Config { known, fault: Fault::Claim(at, claim), ..GOOD };
                assert_eq!(run_with(config, job).result, Err(Failure::Corrupt(at)));
            }
            let foreign = run_fault(Fault::Foreign(at), job);
            assert_eq!((foreign.result, foreign.operations(), foreign.lost()), (Ok(()), 200, 0));
        }
    }
}

#[test]
fn loss_disorder_and_duplicates_are_counted() {
    for traffic in RECEIVING {
        for completion in MODES {
            for verify in [false, true] {
                let request = traffic == Traffic::Request;
                let at = if request { 50 } else { 1050 };
                let job = NetJob { traffic, completion, verify, ..JOB };
                let counts = |fault, job| {
                    let ran = run_fault(fault, job);
                    assert_eq!(ran.result, Ok(()), "{fault:?} {job}");
                    (ran.operations(), ran.lost(), ran.reordered())
                };
                assert_eq!(counts(Fault::Swap(at), job), (500, 0, 1));
                let lost = u64::from(request);
                assert_eq!(counts(Fault::Lose(at), job), (500 - lost, 1, 0), "{job}");
                if request {
                    // A lost one frees its place after a second.
                    assert_eq!(counts(Fault::LoseEach(100), job), (495, 5, 0));
                    // Its answer may come all the same.
                    let config = Config { fault: Fault::Delay(at), slow: 50_000, ..GOOD };
                    let ran = run_with(config, NetJob { operations: 1000, ..job });
                    assert_eq!(ran.result, Ok(()));
                    assert_eq!((ran.operations(), ran.lost(), ran.reordered()), (999, 1, 1));
                } else {
                    let (_, lost, reordered) = counts(Fault::LoseEach(100), job);
                    assert_eq!((lost, reordered), (5, 0));
                }
                let ran = run_fault(Fault::Duplicate(at), job);
                assert_eq!((ran.result, ran.errors()), (Err(Failure::Corrupt(at)), 1));
            }
        }
    }
}

#[test]
fn numbers_before_the_measured_part_do_not_count() {
    // The first frame, which is waited for, is 1000.
    for fault in [Fault::Lose(1000), Fault::Lose(1001), Fault::Swap(1000)] {
        let ran = run_fault(fault, NetJob { traffic: Traffic::Receive, ..JOB });
        let (late, operations) = (u64::from(fault == Fault::Swap(1000)), ran.operations());
        assert_eq!((ran.result, operations, ran.lost(), ran.reordered()), (Ok(()), 500, 0, late));
    }
    let job = NetJob { traffic: Traffic::Receive, warm_up_ms: 5, ..JOB };
    assert_eq!(run_fault(Fault::Lose(1020), job).lost(), 0);
}

#[test]
fn silence_ends_the_job() {
    for completion in MODES {
        let job = NetJob { completion, ..JOB };
        // The last answer never comes, or none from some time on.
        for fault in [Fault::LoseFrom(100), Fault::Lose(499)] {
            let ran = run_fault(fault, NetJob { batch: 1, ..job });
            let expected = if fault == Fault::Lose(499) { 499 } else { 100 };
            assert_eq!((ran.result, ran.operations()), (Err(Failure::Stuck), expected));
            assert_eq!(ran.phases, [Phase::Measure, Phase::Done]);
        }
        for fault in [Fault::LoseFrom(1000), Fault::LoseFrom(1100)] {
            let ran = run_fault(fault, NetJob { traffic: Traffic::Receive, ..job });
            assert_eq!(ran.result, Err(Failure::Stuck));
            let job = NetJob { traffic: Traffic::Respond, measure_ms: 9000, ..job };
            let ran = run_fault(fault, job);
            assert_eq!(ran.result, Ok(()), "no request is no failure");
            assert!(ran.outcome.header.cycles.get() >= 9_000_000);
        }
        // Frames that the adapter keeps.
        for (traffic, at) in
            [(Traffic::Transmit, 100), (Traffic::Request, 100), (Traffic::Respond, 1100)]
        {
            for fault in [Fault::Keep(at), Fault::Keep(at + 399)] {
                let ran = run_fault(fault, NetJob { traffic, ..job });
                assert_eq!(ran.result, Err(Failure::Stuck), "{traffic} {fault:?}");
            }
        }
    }
}

// A lost interrupt is not made up for by looking anyway.
#[test]
fn lost_interrupts_are_noticed() {
    for traffic in TRAFFICS {
        for after in [0, 1, 5] {
            let job = NetJob { traffic, completion: Mode::Interrupt, ..JOB };
            let ran = run_fault(Fault::Silent(after), job);
            match traffic {
                // It does not know that there was something.
                Traffic::Respond => assert!(ran.result.is_err(), "{after}"),
                _ => assert_eq!(ran.result, Err(Failure::Stuck), "{traffic} {after}"),
            }
            assert!(ran.operations() < 500);
            // Also if the time is up before it is overdue.
            let job = NetJob { measure_ms: 1500, ..job };
            assert_eq!(run_fault(Fault::Silent(after), job).result, Err(Failure::Stuck));
        }
    }
}

#[test]
fn a_bad_answer_is_told_apart_from_silence() {
    for fault in [Fault::Flip(99, 50), Fault::Long(99)] {
        let ran = run_fault(fault, NetJob { batch: 1, ..JOB });
        assert_eq!(ran.result, Err(Failure::Corrupt(99)));
        // It is an answer all the same, and nobody waits for another one.
        assert_eq!((ran.operations(), ran.lost()), (499, 0));
    }
}

#[test]
fn frames_are_sent_at_their_time() {
    for traffic in [Traffic::Transmit, Traffic::Request] {
        for completion in MODES {
            // At 1 MHz, one each 100 cycles.
            let job =
                NetJob { traffic, completion, rate: 10_000, measure_ms: 50, operations: 0, ..JOB };
            let ran = run_with(GOOD, job);
            assert_eq!(ran.result, Ok(()));
            assert!((500..=501).contains(&ran.operations()), "{}", ran.operations());
            let stamp = |frame: &Vec<u8>| u64::from_le_bytes(frame[50..58].try_into().unwrap());
            let stamps: Vec<u64> = ran.sent.iter().map(stamp).collect();
            assert!(stamps.windows(2).all(|pair| pair[1] - pair[0] == 100), "{stamps:?}");
            assert!(ran.outcome.latency.max() < 200);
            // Most of the time there is nothing to do.
            let header = ran.outcome.header;
            assert!(header.waiting_cycles.get() > header.cycles.get() / 2, "{job} {header:?}");
        }
    }
}

// An adapter that does nothing for a while makes all frames late that were due meanwhile, not only
// those that it had.
#[test]
fn frames_that_could_not_be_sent_are_late() {
    for traffic in [Traffic::Transmit, Traffic::Request] {
        for completion in MODES {
            let job =
                NetJob { traffic, completion, rate: 10_000, measure_ms: 60, operations: 0, ..JOB };
            let config = Config { stall: (10_000, 40_000), depth: 16, ..GOOD };
            let ran = run_with(config, job);
            assert_eq!(ran.result, Ok(()));
            let late: u64 = ran
                .outcome
                .latency
                .buckets()
                .filter(|(bucket, _)| paraslot_protocol::bucket_range(*bucket).0 > 5_000)
                .map(|(_, count)| u64::from(count))
                .sum();
            assert!((240..=300).contains(&late), "{late} {job} {}", ran.operations());
            assert!(ran.outcome.latency.max() >= 29_000);
        }
    }
}

// Frames that need several places on the ring fill it before there are as many as the depth says.
#[test]
fn a_ring_that_is_full_before_the_tags_are_used_up_loses_nothing() {
    for traffic in [Traffic::Transmit, Traffic::Request, Traffic::Respond] {
        for completion in MODES {
            let config = Config { ring: 5, ..GOOD };
            let job = NetJob { traffic, completion, ..JOB };
            let ran = run_with(config, job);
            assert_eq!((ran.result, ran.operations()), (Ok(()), 500));
            assert_eq!((ran.errors(), ran.lost(), ran.sent.len()), (0, 0, 500));
            assert!(ran.outcome.header.cycles.get() < 100_000, "nobody sleeps for a second");
            let stuck = Config { fault: Fault::Keep(0), ..config };
            assert_eq!(run_with(stuck, job).result, Err(Failure::Stuck));
            if traffic == Traffic::Respond {
                continue;
            }
            let (stall, rate) = ((10_000, 20_000), 10_000);
            let paced = NetJob { rate, measure_ms: 40, operations: 0, ..job };
            let ran = run_with(Config { stall, ..config }, paced);
            assert_eq!(ran.result, Ok(()));
            let stamp = |frame: &Vec<u8>| u64::from_le_bytes(frame[50..58].try_into().unwrap());
            let stamps: Vec<u64> = ran.sent.iter().map(stamp).collect();
            assert!(stamps.windows(2).all(|pair| pair[1] - pair[0] == 100), "{stamps:?}");
            assert!((400..=401).contains(&ran.operations()), "{}", ran.operations());
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let small = Config { depth: 4, ..GOOD };
    for traffic in [Traffic::Transmit, Traffic::Request] {
        assert_eq!(run_with(small, NetJob { traffic, ..JOB }).result, Err(Failure::Unfit("batch")));
    }
    let large = NetJob { frame_size: 1515, ..JOB };
    for traffic in TRAFFICS {
        let sends = traffic != Traffic::Receive;
        let receives = traffic != Traffic::Transmit;
        let no_segmentation = Offers { segmentation: false, ..GOOD.offers };
        let no_large_receive = Offers { large_receive: false, ..GOOD.offers };
        for (offers, needed) in [(no_segmentation, sends), (no_large_receive, receives)] {
            let expected = if needed { Err(Failure::Unfit("frame_size")) } else { Ok(()) };
            let config = Config { offers, ..GOOD };
            assert_eq!(run_with(config, NetJob { traffic, ..large }).result, expected);
            let usual = NetJob { traffic, frame_size: 1514, ..large };
            assert_eq!(run_with(config, usual).result, Ok(()));
        }
    }
    let ran = run_with(GOOD, NetJob { batch: 0, ..JOB });
    assert_eq!(ran.result, Err(Failure::Job(JobError::Invalid("batch"))));
}

// Of several vectors one is masked while it is handled, and at the start none is: an interrupt of another comes
// between the last look and the wait, and tells of what that has not seen.
#[test]
fn an_interrupt_behind_the_last_look_is_not_slept_through() {
    let machine = Machine::new(GOOD, &JOB);
    let mut nic = Adapter::new(&machine);
    let mut watch = Watch::new(&mut nic, true).unwrap();
    assert!(watch.may_look(&machine, &mut nic).unwrap());
    machine.fake.interrupts.set(1);
    watch.nothing_left(&mut nic).unwrap();
    assert!(watch.may_look(&machine, &mut nic).unwrap(), "there is something");
    watch.nothing_left(&mut nic).unwrap();
    assert!(!watch.may_look(&machine, &mut nic).unwrap(), "it was seen to");
}
