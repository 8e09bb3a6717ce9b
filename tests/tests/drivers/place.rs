//! Where functions are: in the machine's own process, or behind a vfio-user server. A driver does not know, so
//! what is asked of a function in one place is asked of it in the other.

use std::time::Duration;

use paraslot_device::ThreadOptions;
use paraslot_pci::Bdf;
use paraslot_tests::parts::Part;
use paraslot_tests::{parts, served};
use paraslot_vmm::in_process::{InProcess, Machine, Run};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

use crate::machine::{MEMORY, events};

/// Where a machine's functions are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// In its own process.
    InProcess,
    /// Behind a vfio-user server.
    Served,
}

impl Place {
    /// A machine for such functions. Those that are served map its memory.
    pub(crate) fn machine(self, run: Run) -> Machine {
        Machine { shared_memory: self == Self::Served, ..Machine::new(MEMORY, run) }
    }

    /// Workers stepped by the driver, to their end.
    ///
    /// Where functions are served, interrupts are eventfds: where there are none a worker passes them on, later than
    /// the access that raised them, and who looks at once sees nothing.
    pub(crate) fn stepped(self) -> Machine {
        Machine { interrupt_events: self == Self::Served, ..self.machine(Run::Stepped(None)) }
    }

    /// Workers on threads that sleep when they have nothing to do. Of two one is the function's, and one passes its
    /// interrupts on.
    pub(crate) fn threads(self) -> ThreadOptions {
        let threads = match self {
            Self::InProcess => 1,
            Self::Served => 2,
        };
        ThreadOptions { threads, busy_poll: Duration::ZERO, ..Default::default() }
    }

    /// Workers on threads.
    pub(crate) fn threaded(self) -> Machine {
        self.machine(Run::Threads(self.threads()))
    }

    /// Machines that differ in every way that a function could notice; where it is served, those on which
    /// everything is a message, and on which as much as can be is an eventfd or a mapping.
    ///
    /// With workers that are stepped nothing happens by itself there either: the driver's thread waits for each
    /// answer, and the workers are stepped by it.
    pub(crate) fn machines(self) -> Vec<(&'static str, Machine)> {
        let high = |machine| Machine { memory_base: 5 << 30, ..machine };
        match self {
            Self::InProcess => {
                let busy = ThreadOptions { threads: 2, ..Default::default() };
                vec![
                    ("stepped", self.stepped()),
                    ("one step at a time", self.machine(Run::Stepped(Some(1)))),
                    ("stepped, by events", events(self.stepped())),
                    ("memory above 4 GiB", high(self.stepped())),
                    ("threads", self.threaded()),
                    ("busy threads", self.machine(Run::Threads(busy))),
                    ("threads, by events", events(self.threaded())),
                ]
            }
            Self::Served => vec![
                ("stepped, by messages", self.machine(Run::Stepped(None))),
                ("stepped, by events", events(self.stepped())),
                ("threads, by messages", self.threaded()),
                ("threads, by events, memory above 4 GiB", events(high(self.threaded()))),
            ],
        }
    }

    /// Of a long list, what is worth a machine: all; where a machine costs hundreds of messages, some.
    pub(crate) fn some<T>(self, all: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        all.step_by(match self {
            Self::InProcess => 1,
            Self::Served => 5,
        })
    }
}

/// Makes a function where the machine has its functions, and plugs it in. Others can map the memory of one whose
/// functions are served, and of no other.
pub(crate) fn plug<P: Part>(machine: &InProcess, slot: Bdf, part: P) -> P::Control {
    let memory = machine.host(slot).memory;
    if memory.iter().all(|region| region.file_offset().is_some()) {
        served::plug(machine, slot, part)
    } else {
        parts::plug(machine, slot, part)
    }
}

/// Has each of a module's tests run in both places.
macro_rules! in_both_places {
    ($($test:ident),+ $(,)?) => {
        mod in_process {
            $(#[test]
            fn $test() {
                super::$test($crate::place::Place::InProcess);
            })+
        }

        mod served {
            $(#[test]
            fn $test() {
                super::$test($crate::place::Place::Served);
            })+
        }
    };
}

pub(crate) use in_both_places;
