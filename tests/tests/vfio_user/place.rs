//! Functions behind a vfio-user server.

use std::time::Duration;

use paraslot_device::ThreadOptions;
pub(crate) use paraslot_tests::served::plug;
use paraslot_vmm::in_process::{Machine, Run};

use crate::machine::{MEMORY, events, threaded};

/// A machine for such functions: its memory can be mapped by others.
pub(crate) fn machine(run: Run) -> Machine {
    Machine { shared_memory: true, ..Machine::new(MEMORY, run) }
}

/// Workers stepped by the driver. Interrupts are eventfds: where there are none a worker passes them on, later
/// than the access that raised them, and who looks at once sees nothing.
pub(crate) fn stepped() -> Machine {
    Machine { interrupt_events: true, ..machine(Run::Stepped(None)) }
}

/// Workers on threads that sleep when they have nothing to do; one is the function's, one passes its
/// interrupts on.
pub(crate) fn threads() -> ThreadOptions {
    ThreadOptions { threads: 2, busy_poll: Duration::ZERO, ..Default::default() }
}

/// Machines on which everything is a message, and on which as much as can be is an eventfd or a mapping.
///
/// With workers that are stepped nothing happens by itself here either: the driver's thread waits for each
/// answer, and the workers are stepped by it.
pub(crate) fn machines() -> Vec<(&'static str, Machine)> {
    let high = Machine { memory_base: 5 << 30, ..threaded() };
    vec![
        ("stepped, by messages", machine(Run::Stepped(None))),
        ("stepped, by events", events(stepped())),
        ("threads, by messages", threaded()),
        ("threads, by events, memory above 4 GiB", events(high)),
    ]
}

/// Some of a long list: where a machine costs hundreds of messages, not every combination is worth one.
pub(crate) fn some<T>(all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
    all.step_by(5)
}
