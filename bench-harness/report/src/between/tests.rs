//! Comparisons of figures whose truth is known.

use proptest::prelude::*;

use super::*;
use crate::{Completion, Family, GuestKind, Path, Record, Report, SCHEMA as REPORT_SCHEMA, Size};

/// Numbers that are the same each time.
struct Chance(u64);

impl Chance {
    /// Between 0 and 1, neither included.
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        u32::try_from(self.0 >> 32).map(|high| (f64::from(high) + 0.5) / 4_294_967_296.0).unwrap()
    }

    /// Normally distributed, of mean 0 and standard deviation 1.
    fn normal(&mut self) -> f64 {
        let radius = (-2.0 * self.uniform().ln()).sqrt();
        radius * (2.0 * std::f64::consts::PI * self.uniform()).cos()
    }

    /// How a host that is not one's own changes a run's speed: most runs by a little, one in eight by a third and
    /// more.
    fn host(&mut self, spread: f64) -> f64 {
        let slowed = if self.uniform() < 0.125 { self.uniform().ln() / 3.0 } else { 0.0 };
        spread * self.normal() + slowed
    }
}

/// A host whose speed wanders: by itself from run to run, and in waves of so much.
struct Drift {
    level: f64,
    phase: f64,
    stays: f64,
    waves: f64,
}

impl Drift {
    fn step(&mut self, chance: &mut Chance) -> f64 {
        self.level = self.stays * self.level + 0.01 * chance.normal();
        self.phase += 0.05;
        self.level + self.waves * self.phase.sin()
    }
}

/// A record of a read with these figures.
fn record(device: &str, rates: &[f64]) -> Record {
    let interval =
        Distribution::of(rates).unwrap_or(Distribution { median: 0.0, low: 0.0, high: 0.0 });
    Record {
        device: device.into(),
        family: Family::Paravirtual,
        path: Path::Event,
        guest: GuestKind::Freestanding,
        completion: Completion::Poll,
        workload: "randread".into(),
        size: Size::Block(4096),
        queue_depth: 1,
        offered_per_second: None,
        queues: 1,
        vmm: "paraslot".into(),
        backend: "backend=memory".into(),
        runs: u32::try_from(rates.len()).unwrap(),
        operations: 1,
        seconds: 1.0,
        ops_per_second: interval,
        run_ops_per_second: rates.to_vec(),
        bytes_per_second: interval,
        latency_ns: None,
        p50_ns: None,
        run_p50_ns: Vec::new(),
        p99_ns: None,
        exits_per_op: None,
        doorbells_per_op: None,
        interrupts_per_op: None,
        host_cpu_ns_per_op: None,
        guest_cycles_per_op: None,
        copied_bytes_per_op: None,
        frames_lost: None,
        frames_reordered: None,
    }
}

fn report(results: Vec<Record>) -> Report {
    Report::new(Manifest::default(), results)
}

/// Rounds of pairs in alternating order on a host that drifts, the second build `ratio` as fast.
fn pairs(chance: &mut Chance, rounds: usize, spread: f64, ratio: f64) -> Pairs {
    let mut drift = Drift { level: 0.0, phase: chance.uniform() * 6.0, stays: 0.95, waves: 0.03 };
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let mut run = |ratio: f64| 1e5 * ratio * (drift.step(chance) + chance.host(spread)).exp();
        if round % 2 == 0 {
            before.push(run(1.0));
            after.push(run(ratio));
        } else {
            after.push(run(ratio));
            before.push(run(1.0));
        }
    }
    let work = Work::of(&record("virtio-blk", &[]));
    Pairs { work, measure: Measure::Rate, before, after }
}

fn paired(measurements: Vec<Pairs>) -> Between {
    Between::paired(&Manifest::default(), &Manifest::default(), measurements)
}

/// Runs of one session after another's, on a host that goes on drifting.
fn sessions(chance: &mut Chance, count: usize, runs: usize, ratio: f64) -> Between {
    let mut of = |ratio: f64, drifts: &mut Vec<Drift>| {
        let mut rates = vec![Vec::new(); count];
        for _ in 0..runs {
            for (rates, drift) in rates.iter_mut().zip(drifts.iter_mut()) {
                let host = drift.step(chance) + chance.host(0.035);
                rates.push(1e5 * ratio * host.exp());
            }
        }
        let names = ["virtio-blk", "virtio-scsi", "pvscsi", "ahci"];
        let record = |(index, rates): (usize, &Vec<f64>)| {
            let mut record = record(names[index % 4], rates);
            record.queue_depth = u32::try_from(index / 4).unwrap();
            record
        };
        report(rates.iter().enumerate().map(record).collect())
    };
    // What outlives a session by much no session can know of.
    let drift = |index| Drift {
        level: 0.0,
        phase: crate::statistics::float(index),
        stays: 0.5,
        waves: 0.01,
    };
    let mut drifts: Vec<Drift> = (0..count).map(drift).collect();
    let before = of(1.0, &mut drifts);
    Between::of(&before, &of(ratio, &mut drifts))
}

/// The promise: of comparisons of a build with itself, one in a hundred at most finds anything.
#[test]
fn pairs_of_one_build_raise_no_more_alarms_than_promised() {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let rounds = rounds_for(20);
    let mut findings = Vec::new();
    for comparison in 0..1000 {
        // Hosts that are quieter and louder.
        let spread = [0.002, 0.01, 0.035, 0.1][comparison % 4];
        let all = (0..20).map(|_| pairs(&mut chance, rounds, spread, 1.0)).collect();
        let found = paired(all);
        let is_finding = |change: &Change| change.finding != Finding::NoDifference;
        findings.push((found.is_slower(), found.changes.iter().any(is_finding)));
    }
    let alarms = findings[..200].iter().filter(|(slower, _)| *slower).count();
    assert!(alarms <= 2, "{alarms} of 200");
    let false_ones = findings.iter().filter(|(_, any)| *any).count();
    assert!(false_ones <= 10, "{false_ones} of 1000");
}

#[test]
fn pairs_find_five_percent_in_the_rounds_that_are_made_for_it() {
    for (measurements, seed) in [(1, 7), (20, 0x2545_f491_4f6c_dd1d)] {
        let mut chance = Chance(seed);
        let rounds = rounds_for(measurements);
        let (mut found, mut all) = (0, 0);
        for _ in 0..400 / measurements {
            // Pairs differ by 5 % by chance: each run by that over √2. The drift of the host is what both have.
            let one = |_| {
                let mut one = pairs(&mut chance, rounds, 0.0, 1.0);
                for (before, after) in one.before.iter_mut().zip(&mut one.after) {
                    let common = *before;
                    *before = common * (0.05 / 2f64.sqrt() * chance.normal()).exp();
                    *after = common / 1.05 * (0.05 / 2f64.sqrt() * chance.normal()).exp();
                }
                one
            };
            let between = paired((0..measurements).map(one).collect());
            found += between.changes.iter().filter(|one| one.finding == Finding::Slower).count();
            all += measurements;
            assert!(between.changes.iter().all(|one| one.finding != Finding::Faster));
        }
        assert!(found * 100 >= all * 95, "{found} of {all}, {measurements} at once");
    }
}

#[test]
fn sessions_of_one_build_raise_no_more_alarms_than_promised() {
    let mut chance = Chance(0xd1b5_4a32_d192_ed03);
    let mut alarms = 0;
    for _ in 0..200 {
        let found = sessions(&mut chance, 20, 15, 1.0);
        assert_eq!(found.changes.len(), 20);
        alarms += u32::from(found.is_slower());
    }
    assert!(alarms <= 2, "{alarms} of 200");
}

#[test]
fn sessions_find_what_is_well_above_their_noise() {
    let mut chance = Chance(0xbf58_476d_1ce4_e5b9);
    let (mut found, mut all) = (0, 0);
    for _ in 0..20 {
        let between = sessions(&mut chance, 20, 20, 0.7);
        found += between.changes.iter().filter(|one| one.finding == Finding::Slower).count();
        all += between.changes.len();
    }
    assert!(found * 100 >= all * 95, "{found} of {all}");
}

#[test]
fn a_ratio_is_the_seconds_speed_for_each_of_the_firsts() {
    let steady = |rate: f64| [rate, rate * 1.001, rate * 0.999, rate, rate * 1.002, rate, rate];
    let (before, after) = (record("ahci", &steady(1000.0)), record("ahci", &steady(900.0)));
    let between = Between::of(&report(vec![before.clone()]), &report(vec![after.clone()]));
    let [change] = between.changes.as_slice() else { panic!() };
    assert_eq!((change.finding, change.basis), (Finding::Slower, Basis::Runs));
    assert!((change.ratio.unwrap() - 0.9).abs() < 1e-3 && change.high.unwrap() < 0.91);
    assert!(between.is_slower());
    let back = Between::of(&report(vec![after]), &report(vec![before]));
    assert_eq!(back.changes[0].finding, Finding::Faster);
    assert!(!back.is_slower());
}

/// At a fixed load the latency is compared, and a longer one is slower.
#[test]
fn a_longer_latency_is_slower() {
    let with = |p50: f64| {
        let mut record = record("virtio-net", &[1e4; 8]);
        record.offered_per_second = Some(10_000);
        record.run_p50_ns = vec![p50, p50, p50 * 1.016, p50, p50, p50 * 1.016, p50, p50];
        record.p50_ns = Distribution::of(&record.run_p50_ns);
        record
    };
    let between = |before, after| Between::of(&report(vec![before]), &report(vec![after]));
    let found = between(with(20_000.0), with(25_000.0));
    assert_eq!(
        (found.changes[0].finding, found.changes[0].measure),
        (Finding::Slower, Measure::P50)
    );
    assert!((found.changes[0].ratio.unwrap() - 0.8).abs() < 1e-9);
    // One bucket is not enough.
    assert_eq!(between(with(20_000.0), with(20_320.0)).changes[0].finding, Finding::NoDifference);
    // From the intervals the same.
    let mut old = with(20_000.0);
    old.run_p50_ns.clear();
    let found = between(old, with(25_000.0));
    assert_eq!(
        (found.changes[0].finding, found.changes[0].basis),
        (Finding::Slower, Basis::Intervals)
    );
    assert!(found.warnings.iter().any(|line| line.contains("does not have its runs")));
}

#[test]
fn what_one_alone_has_is_listed() {
    let of = |names: &[&str]| report(names.iter().map(|name| record(name, &[1.0; 9])).collect());
    let between = Between::of(&of(&["ahci", "pvscsi", "pvscsi"]), &of(&["pvscsi", "virtio-blk"]));
    assert_eq!(between.changes.len(), 1);
    let names = |all: &[Work]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    let rest = "event/randread/4k/qd1/poll backend=memory";
    assert_eq!(names(&between.only_before), [format!("ahci/{rest}"), format!("pvscsi/{rest} #2")]);
    assert_eq!(names(&between.only_after), [format!("virtio-blk/{rest}")]);
    for text in [between.table(), between.markdown(), between.to_json().unwrap()] {
        assert!(text.contains("virtio-blk/event") && text.contains("pvscsi/event"), "{text}");
    }
    let nothing = Between::of(&of(&["ahci"]), &of(&["pvscsi"]));
    assert!(nothing.table().contains("nothing that both have") && !nothing.is_slower());
}

#[test]
fn a_terminal_is_not_flooded_by_what_one_alone_has() {
    let many: Vec<_> = (0..25).map(|index| record(&format!("disk{index}"), &[1.0; 9])).collect();
    let between = Between::of(&report(many.clone()), &report(many[..1].to_vec()));
    let count = |text: &str| text.lines().filter(|line| line.contains("only before: disk")).count();
    assert_eq!((count(&between.table()), count(&between.markdown())), (10, 24));
    assert!(between.table().contains("only before: 14 more"));
}

#[test]
fn too_few_runs_say_how_many_would_do() {
    let few = |count| report(vec![record("ahci", &vec![1.0; count])]);
    let found = Between::of(&few(3), &few(3));
    let change = &found.changes[0];
    assert_eq!((change.finding, change.runs_needed), (Finding::TooFewRuns, Some(5)));
    assert!(found.table().contains("5 would do"));
    // Many of one do not make up for one of the other: its own runs do not tell what they differ by.
    let found = Between::of(&few(1), &few(500));
    assert_eq!(found.changes[0].finding, Finding::TooFewRuns);
    let pairs = Pairs {
        work: Work::of(&record("ahci", &[])),
        measure: Measure::Rate,
        before: vec![1.0; 4],
        after: vec![0.5; 4],
    };
    let found = paired(vec![pairs]);
    assert_eq!(
        (found.changes[0].finding, found.changes[0].runs_needed),
        (Finding::TooFewRuns, Some(8))
    );
}

/// A build that does nothing any more is slower than one that does something.
#[test]
fn doing_nothing_is_slow() {
    let found = |before: f64, after: f64| {
        let of = |rate: f64| report(vec![record("ahci", &[rate; 9])]);
        let found = Between::of(&of(before), &of(after));
        assert!(found.changes[0].ratio.unwrap().is_finite());
        (found.changes[0].finding, found.table())
    };
    assert_eq!(found(1e5, 0.0).0, Finding::Slower);
    assert_eq!(found(0.0, 1e5).0, Finding::Faster);
    assert_eq!(found(0.0, 0.0).0, Finding::NoDifference);
}

#[test]
fn figures_that_are_none_are_not_compared() {
    let good = record("ahci", &[1.0; 9]);
    let mut bad = Vec::new();
    for figure in [f64::NAN, f64::INFINITY, -1.0] {
        let mut one = good.clone();
        one.run_ops_per_second[4] = figure;
        bad.push(one);
    }
    for (low, high) in [(2.0, 1.0), (f64::NAN, 2.0), (-1.0, 2.0), (1.0, f64::INFINITY)] {
        let interval = Distribution { median: 1.5, low, high };
        bad.push(Record {
            run_ops_per_second: Vec::new(),
            ops_per_second: interval,
            ..good.clone()
        });
    }
    bad.push(record("ahci", &vec![1.0; 1001]));
    bad.push(Record { run_ops_per_second: Vec::new(), runs: u32::MAX, ..good.clone() });
    bad.push(Record { offered_per_second: Some(1), ..good.clone() });
    for bad in bad {
        // The other has the same, so that both are of the same work.
        let other = Record { offered_per_second: bad.offered_per_second, ..good.clone() };
        for (before, after) in [(&bad, &other), (&other, &bad)] {
            let found = Between::of(&report(vec![before.clone()]), &report(vec![after.clone()]));
            assert_eq!(found.changes[0].finding, Finding::NotComparable);
            assert!(found.table().contains("not comparable: "));
        }
    }
    let uneven = Pairs {
        work: Work::of(&good),
        measure: Measure::Rate,
        before: vec![1.0; 9],
        after: vec![1.0; 8],
    };
    assert_eq!(paired(vec![uneven]).changes[0].finding, Finding::NotComparable);
}

#[test]
fn guests_with_other_memory_are_told_of() {
    let one = record("ahci", &[1.0; 9]);
    let socket = Record { path: Path::VfioUser, ..one.clone() };
    let found = Between::of(&report(vec![one.clone()]), &report(vec![one, socket]));
    assert!(
        found.warnings.iter().any(|line| line.contains("memory differs")),
        "{:?}",
        found.warnings
    );
}

#[test]
fn records_have_their_runs_and_older_ones_load_without() {
    let report = report(vec![record("ahci", &[1.0, 2.0])]);
    let text = report.to_json().unwrap();
    assert_eq!(Report::from_json(&text).unwrap().results[0].run_ops_per_second, [1.0, 2.0]);
    let mut value: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert!(value["results"][0].get("run_p50_ns").is_none());
    value["results"][0].as_object_mut().unwrap().remove("run_ops_per_second");
    let older = Report::from_json(&value.to_string()).unwrap();
    assert!(older.results[0].run_ops_per_second.is_empty());
    assert_eq!(report.schema, REPORT_SCHEMA);
}

#[test]
fn the_forms_agree() {
    let of = |rate: f64| report(vec![record("vir|tio\u{1b}", &[rate; 9])]);
    let found = Between::of(&of(1e5), &of(5e4));
    let markdown = found.markdown();
    assert!(
        markdown.contains("| vir\\|tio?/event/randread/4k/qd1/poll backend=memory | 9 |"),
        "{markdown}"
    );
    assert!(
        markdown.contains("| 100 k/s | 50.00 k/s | 0.500 | 0.500-0.500 | SLOWER |"),
        "{markdown}"
    );
    let value: serde_json::Value = serde_json::from_str(&found.to_json().unwrap()).unwrap();
    let change = &value["changes"][0];
    assert_eq!(change["finding"], "slower");
    assert_eq!((&change["block_size"], &change["basis"]), (&4096.into(), &"runs".into()));
    assert_eq!(value["false_alarm_max"], 0.01);
    assert!(found.table().contains("Of 1 measurements: 1 slower, 0 faster, 0 no different."));
}

proptest! {
    #[test]
    fn any_figures_have_a_finding(
        before in prop::collection::vec(prop::num::f64::ANY, 0..30),
        after in prop::collection::vec(prop::num::f64::ANY, 0..30),
        runs in any::<u32>(),
        offered in any::<Option<u32>>(),
    ) {
        let of = |figures: &[f64]| {
            let mut one = record("ahci", &[1.0]);
            one.runs = runs;
            one.offered_per_second = offered;
            one.run_ops_per_second = figures.to_vec();
            one.run_p50_ns = figures.to_vec();
            if let [median, low, high, ..] = figures {
                one.ops_per_second = Distribution { median: *median, low: *low, high: *high };
                one.p50_ns = Some(one.ops_per_second);
            }
            one
        };
        let found = Between::of(&report(vec![of(&before)]), &report(vec![of(&after)]));
        prop_assert!(found.table().contains("Of 1 measurements"));
        let change = &found.changes[0];
        let figures = [change.ratio, change.low, change.high, change.noise];
        prop_assert!(figures.iter().flatten().all(|figure| figure.is_finite()), "{change:?}");
        let pairs = |measure| Pairs {
            work: Work::of(&of(&[])), measure, before: before.clone(), after: after.clone(),
        };
        let found = paired(vec![pairs(Measure::Rate), pairs(Measure::P50)]);
        prop_assert!(!found.markdown().is_empty());
    }

    /// Whoever comes first: what is slower one way is faster the other.
    #[test]
    fn the_other_way_round_is_the_inverse(
        before in prop::collection::vec(1.0..2.0f64, 8..20),
        after in prop::collection::vec(1.0..4.0f64, 8..20),
    ) {
        let of = |rates: &[f64]| report(vec![record("ahci", rates)]);
        let there = Between::of(&of(&before), &of(&after)).changes[0].clone();
        let back = Between::of(&of(&after), &of(&before)).changes[0].clone();
        prop_assert!((there.ratio.unwrap() * back.ratio.unwrap() - 1.0).abs() < 1e-9);
        prop_assert!((there.low.unwrap() * back.high.unwrap() - 1.0).abs() < 1e-9);
        let mirrored = match there.finding {
            Finding::Slower => Finding::Faster,
            Finding::Faster => Finding::Slower,
            other => other,
        };
        prop_assert_eq!(back.finding, mirrored);
    }
}
