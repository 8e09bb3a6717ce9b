//! Jobs for any machine. The drivers are compiled with this crate, and not with each test that has them work.

use paraslot_drivers::Platform;
use paraslot_drivers::workload::{self, Failure};
use paraslot_protocol::{Job, Outcome};

/// As [`workload::run`].
pub fn run(machine: &dyn Platform, job: impl Into<Job>) -> Outcome {
    let mut outcome = Outcome::default();
    // What failed is in the outcome too.
    let _ = run_into(machine, job, &mut outcome);
    outcome
}

/// As [`workload::run_into`].
///
/// # Errors
/// Likewise.
pub fn run_into(
    machine: &dyn Platform,
    job: impl Into<Job>,
    outcome: &mut Outcome,
) -> Result<(), Failure> {
    run_job(machine, job.into(), outcome)
}

fn run_job(machine: &dyn Platform, job: Job, outcome: &mut Outcome) -> Result<(), Failure> {
    workload::run_into(&machine, job, outcome)
}
