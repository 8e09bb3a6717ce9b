//! Functions in the machine's own process.

use std::time::Duration;

use paraslot_device::ThreadOptions;
pub(crate) use paraslot_tests::parts::plug;
use paraslot_vmm::in_process::{Machine, Run};

use crate::machine::{MEMORY, events, threaded};

/// A machine for such functions.
pub(crate) fn machine(run: Run) -> Machine {
    Machine::new(MEMORY, run)
}

/// Workers stepped by the driver, to their end.
pub(crate) fn stepped() -> Machine {
    machine(Run::Stepped(None))
}

/// Workers on a thread that sleeps when it has nothing to do.
pub(crate) fn threads() -> ThreadOptions {
    ThreadOptions { busy_poll: Duration::ZERO, ..Default::default() }
}

/// Machines that differ in every way that a device could notice.
pub(crate) fn machines() -> Vec<(&'static str, Machine)> {
    let busy = ThreadOptions { threads: 2, ..Default::default() };
    vec![
        ("stepped", stepped()),
        ("one step at a time", machine(Run::Stepped(Some(1)))),
        ("stepped, by events", events(stepped())),
        ("memory above 4 GiB", Machine { memory_base: 5 << 30, ..stepped() }),
        ("threads", threaded()),
        ("busy threads", machine(Run::Threads(busy))),
        ("threads, by events", events(threaded())),
    ]
}

/// Of a long list, what is worth a machine: all.
pub(crate) fn some<T>(all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    all
}
