//! The order of things: every measurement once in each round, so that what is compared is measured
//! under the same conditions.

use std::time::{Duration, Instant};

use anyhow::bail;

use super::progress::Progress;
use crate::args::{Peer, Times};
use crate::bench::qemu::QemuBench;
use crate::bench::{Bench, Setting};
use crate::collect::Runs;
use crate::error;
use crate::plan::Plan;

/// How long all rounds may take if there is a choice.
const BUDGET: Duration = Duration::from_secs(150);

/// What could not be measured: names, each with the reason.
#[derive(Debug, Default)]
pub(super) struct Failures(Vec<(String, String)>);

impl Failures {
    /// A line for each reason.
    pub(super) fn grouped(&self) -> Vec<String> {
        let mut groups: Vec<(&str, &str, usize)> = Vec::new();
        for (name, reason) in &self.0 {
            match groups.iter_mut().find(|(_, known, _)| known == reason) {
                Some((_, _, more)) => *more += 1,
                None => groups.push((name, reason, 0)),
            }
        }
        let line = |(name, reason, more): &(&str, &str, usize)| match more {
            0 => format!("{name}: {reason}"),
            more => format!("{name} and {more} more: {reason}"),
        };
        groups.iter().map(line).collect()
    }
}

/// Runs everything, round by round, until `interrupted`. What failed is not tried again.
///
/// # Errors
/// When nothing could be measured at all, or it was interrupted.
pub(super) fn measure(
    plan: &Plan,
    setting: &Setting<'_>,
    times: &Times,
    own: &mut dyn Bench,
    mut peer: Option<&mut QemuBench<'_>>,
    interrupted: &dyn Fn() -> bool,
) -> anyhow::Result<(Vec<Runs>, Failures)> {
    let mut runs = vec![Runs::default(); plan.cells.len()];
    let mut failed = vec![false; plan.cells.len()];
    let mut failures = Failures::default();
    let progress = Progress::new(plan.cells.len(), times.min_runs);
    let start = Instant::now();
    let mut round = 0;
    let mut rounds = times.min_runs;
    while round < rounds {
        for index in plan.round(round) {
            let cell = &plan.cells[index];
            progress.begin(&cell.name);
            if !failed[index] {
                let bench: &mut dyn Bench = match (cell.peer, &mut peer) {
                    (Some(Peer::Qemu), Some(qemu)) => *qemu,
                    _ => own,
                };
                let span = setting.storage.spans()[index];
                let job = cell.job(&plan.devices[cell.device], times, span, round);
                match job.and_then(|job| bench.run(cell, &job)) {
                    Ok(sample) => runs[index].add(&sample),
                    Err(error) => {
                        failed[index] = true;
                        failures.0.push((cell.name.clone(), error::line(&error)));
                    }
                }
            }
            progress.end();
            if interrupted() {
                bail!("interrupted");
            }
        }
        round += 1;
        if failed.iter().all(|failed| *failed) {
            bail!("nothing could be measured: {}", failures.grouped().join("; "));
        }
        rounds = enough(times, round, start.elapsed());
        progress.rounds(rounds);
    }
    Ok((runs, failures))
}

/// How many rounds there are to be: as many as fit into the budget, inside the bounds.
fn enough(times: &Times, done: u32, took: Duration) -> u32 {
    let fit = BUDGET.as_micros() * u128::from(done) / took.as_micros().max(1);
    let fit = u32::try_from(fit).unwrap_or(u32::MAX);
    fit.clamp(times.min_runs, times.max_runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_fit_the_budget_inside_the_bounds() {
        let times = Times { warm_up_ms: 1, measure_ms: 1, min_runs: 3, max_runs: 6 };
        assert_eq!(enough(&times, 1, Duration::from_secs(1)), 6);
        assert_eq!(enough(&times, 1, BUDGET / 4), 4);
        assert_eq!(enough(&times, 2, BUDGET / 2), 4);
        assert_eq!(enough(&times, 1, BUDGET * 2), 3);
        assert_eq!(enough(&times, 1, Duration::ZERO), 6);
    }

    #[test]
    fn failures_with_one_reason_take_one_line() {
        let failure = |name: &str, reason: &str| (name.to_owned(), reason.to_owned());
        let failures =
            Failures(vec![failure("a", "broken"), failure("b", "lost"), failure("c", "broken")]);
        assert_eq!(failures.grouped(), ["a and 1 more: broken", "b: lost"]);
        assert!(Failures::default().grouped().is_empty());
    }
}
