//! Two programs by turns.
//!
//! In each round each measurement is made twice, once by each build, one right after the other; who comes first
//! alternates from measurement to measurement and from round to round. What the host does to both is in neither's
//! favour. Each run is a process of its own, with options that `run` has had from its beginning.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use paraslot_report::{Between, Manifest, Measure, Pairs, Record, Work, rounds_for};

use super::build::{Build, Missing, file};
use super::words::CompareArgs;
use crate::args::Times;
use crate::bench::remote::SELF;
use crate::plan::Plan;
use crate::run::progress::Progress;
use crate::run::{Interrupted, Planned, output};
use crate::signals;

/// Rounds that show that all works.
const QUICK_ROUNDS: u32 = 2;

/// What became of one measurement.
#[derive(Default)]
struct State {
    pairs: Option<Pairs>,
    /// Why it is not measured any more, by each build.
    missing: [Option<Missing>; 2],
    /// What it is of, if one build alone has it.
    alone: [Option<Work>; 2],
}

impl State {
    fn is_over(&self) -> bool {
        self.missing.iter().any(Option::is_some)
    }

    /// Adds what a round's two runs came to.
    fn add(&mut self, before: Result<Record, Missing>, after: Result<Record, Missing>) {
        match (before, after) {
            (Ok(before), Ok(after)) => {
                let measure = match after.offered_per_second {
                    None => Measure::Rate,
                    Some(_) => Measure::P50,
                };
                let figure = |record: &Record| match measure {
                    Measure::Rate => Some(record.ops_per_second.median),
                    Measure::P50 | Measure::P99 => record.p50_ns.map(|one| one.median),
                };
                let pairs = self.pairs.get_or_insert_with(|| Pairs {
                    work: Work::of(&after),
                    measure,
                    before: Vec::new(),
                    after: Vec::new(),
                });
                if let Some((before, after)) = figure(&before).zip(figure(&after)) {
                    pairs.before.push(before);
                    pairs.after.push(after);
                }
            }
            (before, after) => {
                for (index, result) in [before, after].into_iter().enumerate() {
                    match result {
                        Ok(record) => self.alone[index] = Some(Work::of(&record)),
                        Err(missing) => self.missing[index] = Some(missing),
                    }
                }
            }
        }
    }
}

/// Measures; the comparison, and what could not be measured, in a line each. `None` if it is only to be shown what
/// would be.
///
/// # Errors
/// When nothing can be measured, or it was interrupted.
pub(super) fn measure(
    program: &Path,
    arguments: &CompareArgs,
) -> anyhow::Result<Option<(Between, Vec<String>)>> {
    let run = arguments.run()?;
    let Planned { platform, fallback, plan, .. } = Planned::new(&run)?;
    if arguments.list {
        let _ = output::print(plan.cells.iter().map(|cell| cell.name.as_str()));
        return Ok(None);
    }
    let rounds = match arguments.rounds {
        Some(rounds) => rounds,
        None if arguments.is_quick() => QUICK_ROUNDS,
        None => u32::try_from(rounds_for(plan.cells.len())).unwrap_or(u32::MAX),
    };
    fs::create_dir_all(&arguments.out)
        .with_context(|| format!("cannot make the directory {}", arguments.out.display()))?;
    let place = tempfile::Builder::new().prefix("compare-").tempdir_in(&arguments.out);
    let place =
        place.with_context(|| format!("cannot make a directory in {}", arguments.out.display()))?;
    let mut words = arguments.words();
    words.extend(once(&run.times()));
    if let Some(platform) = clap::ValueEnum::to_possible_value(&platform)
        && run.platform.is_none()
    {
        words.push(format!("--platform={}", platform.get_name()).into());
    }
    let own_words = [words.clone(), arguments.drag()].concat();
    let mut builds = [
        Build::new(file(program)?, words, place.path().join("before")),
        Build::new(SELF, own_words, place.path().join("after")),
    ];
    builds[0].check()?;
    let mut warnings: Vec<String> = plan.notes.clone();
    warnings.extend(fallback.map(str::to_owned));
    if cfg!(debug_assertions) {
        warnings.push("built without optimisation: for figures, use a release build".into());
    }
    warnings.iter().for_each(|warning| eprintln!("! {warning}"));

    let interrupted = Interrupted::default();
    signals::watch(&signals::ENDING, interrupted.setter()).context("cannot watch for signals")?;
    let states = by_turns(&plan, rounds, &mut builds, &interrupted)?;
    Ok(Some(conclude(&plan, builds, states, warnings)?))
}

/// The options for one run.
fn once(times: &Times) -> Vec<OsString> {
    let Times { warm_up_ms, measure_ms, .. } = times;
    // Without --quick there may be more runs than the fewest.
    let words = [
        "--quick".to_owned(),
        "--min-runs=1".to_owned(),
        format!("--warmup={warm_up_ms}"),
        format!("--time={measure_ms}"),
    ];
    words.map(OsString::from).into()
}

/// All rounds.
fn by_turns(
    plan: &Plan,
    rounds: u32,
    builds: &mut [Build; 2],
    interrupted: &Interrupted,
) -> anyhow::Result<Vec<State>> {
    let mut states: Vec<State> = plan.cells.iter().map(|_| State::default()).collect();
    let progress = Progress::new(2 * plan.cells.len(), rounds);
    for round in 0..rounds {
        for index in plan.round(round) {
            let cell = &plan.cells[index];
            let device = &plan.devices[cell.device];
            if states[index].is_over() {
                progress.end();
                progress.end();
                continue;
            }
            let run = |build: &mut Build| {
                progress.begin(&cell.name);
                let result = build.run(cell, device);
                progress.end();
                if interrupted.is_set() {
                    bail!("interrupted");
                }
                Ok(result)
            };
            let [before, after] = &mut *builds;
            let this_first = (u64::from(round) + index as u64) % 2 == 1;
            let (before, after) = if this_first {
                let after = run(after)?;
                (run(before)?, after)
            } else {
                let before = run(before)?;
                (before, run(after)?)
            };
            states[index].add(before, after);
        }
        if states.iter().all(State::is_over) {
            break;
        }
    }
    Ok(states)
}

/// What all of it says.
fn conclude(
    plan: &Plan,
    builds: [Build; 2],
    states: Vec<State>,
    warnings: Vec<String>,
) -> anyhow::Result<(Between, Vec<String>)> {
    let (mut measured, mut failures) = (Vec::new(), Vec::new());
    let (mut only_before, mut only_after) = (Vec::new(), Vec::new());
    let mut reasons = Vec::new();
    for (cell, state) in plan.cells.iter().zip(states) {
        let State { pairs, missing: [before, after], alone: [alone_before, alone_after] } = state;
        match (&before, &after) {
            (None, Some(Missing::Unknown(_))) => only_before.extend(alone_before),
            (Some(Missing::Unknown(_)), None) => only_after.extend(alone_after),
            _ => {
                for (which, missing) in [("before", &before), ("after", &after)] {
                    if let Some(Missing::Failed(why) | Missing::Unknown(why)) = missing {
                        failures.push(format!("{} ({which}): {why}", cell.name));
                    }
                }
                // What ran until it failed is not compared.
                measured.extend(pairs.filter(|_| before.is_none() && after.is_none()));
            }
        }
        for missing in [before, after].into_iter().flatten() {
            let (Missing::Unknown(why) | Missing::Failed(why)) = missing;
            if !reasons.contains(&why) {
                reasons.push(why);
            }
        }
    }
    if measured.is_empty() {
        bail!("nothing could be measured of both: {}", reasons.join("; "));
    }
    let [before, after] = builds.map(|build| build.manifest.unwrap_or_else(Manifest::default));
    let mut between = Between::paired(&before, &after, measured);
    between.warnings.extend(warnings);
    between.only_before = only_before;
    between.only_after = only_after;
    Ok((between, failures))
}
