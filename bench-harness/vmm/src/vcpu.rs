//! The freestanding guest's vCPU: its marks, and what happens between them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use paraslot_protocol::Phase;

use crate::cpu::{Cpu, Exits};
use crate::interrupts::Interrupts;
use crate::ports::{Mark, Ports};
use crate::vm::Suspension;
use crate::{VmError, sys};

/// What happened between the guest's marks [`Phase::Measure`] and [`Phase::Done`], neither of them
/// included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measured {
    /// Exits to user space, all of them.
    pub exits: Exits,
    /// Time that passed.
    pub wall: Duration,
    /// CPU time of the vCPU's thread: the guest itself, KVM, and the device models' register
    /// accesses.
    pub vcpu_cpu: Duration,
    /// Messages (MSI and MSI-X) that were sent by ioctl. `None` on the event path, where devices
    /// send them by eventfd; the guest counts what it takes.
    pub messages: Option<u64>,
}

/// What the vCPU's thread tells the one that waits.
pub(crate) enum Report {
    /// The guest is at a mark. The vCPU stands still until this is answered.
    Phase(Phase),
    /// The vCPU does not run any more.
    Ended,
    /// It is not to run any more: not from its thread, but from whoever else wants it to stand still.
    Suspend,
}

/// How the vCPU's thread is spoken to.
pub(crate) struct Control {
    pub(crate) reports: Sender<Report>,
    pub(crate) answers: Receiver<()>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) suspension: Arc<Suspension>,
    pub(crate) limit: Duration,
}

impl Drop for Control {
    fn drop(&mut self) {
        // Nobody waits any more if this fails.
        let _ = self.reports.send(Report::Ended);
    }
}

/// How a guest ended.
#[derive(Default)]
pub(crate) struct Ended {
    pub(crate) exit_code: u32,
    pub(crate) exits: Exits,
    pub(crate) measured: Option<Measured>,
}

/// All that the vCPU's thread needs.
pub(crate) struct Vcpu {
    pub(crate) cpu: Cpu,
    pub(crate) ports: Arc<Ports>,
    pub(crate) interrupts: Arc<Interrupts>,
    pub(crate) count_messages: bool,
}

/// The state of things at a point in time.
struct Sample {
    exits: Exits,
    wall: Instant,
    cpu: Duration,
    messages: u64,
}

impl Vcpu {
    /// Runs until the guest ends or is stopped.
    pub(crate) fn run(&mut self, control: &Control) -> Result<Ended, VmError> {
        let mut ended = Ended::default();
        let mut start = None;
        // There is one if a run ended in the middle of the instruction that made it.
        let mut mark = self.ports.take_mark();
        loop {
            match mark {
                None => {}
                Some(Mark::Exit(code)) => {
                    ended.exit_code = code;
                    return Ok(ended);
                }
                Some(Mark::Phase(phase)) => {
                    if phase == Phase::Done {
                        let end = self.sample(ended.exits);
                        ended.measured = start.take().map(|start| self.between(&start, &end));
                    }
                    if control.reports.send(Report::Phase(phase)).is_ok() {
                        // An error means that nobody waits any more; the guest goes on regardless.
                        let _ = control.answers.recv();
                    }
                    if phase == Phase::Measure {
                        start = Some(self.sample(ended.exits));
                    }
                }
            }
            if control.suspension.is_asked() {
                return Err(VmError::Suspended);
            }
            if control.stop.load(Ordering::Acquire) {
                let (limit, registers) = (control.limit, self.cpu.registers());
                return Err(VmError::Timeout { limit, registers });
            }
            let exits = self.cpu.step()?;
            ended.exits += exits;
            mark = if exits.port_writes == 0 { None } else { self.ports.take_mark() };
        }
    }

    fn sample(&self, exits: Exits) -> Sample {
        let messages = self.interrupts.sent();
        Sample { exits, wall: Instant::now(), cpu: sys::thread_cpu_time(), messages }
    }

    fn between(&self, start: &Sample, end: &Sample) -> Measured {
        let mut exits = end.exits - start.exits;
        exits.port_writes -= 1; // the mark at the end
        Measured {
            exits,
            wall: end.wall - start.wall,
            vcpu_cpu: end.cpu.saturating_sub(start.cpu),
            messages: self.count_messages.then(|| end.messages - start.messages),
        }
    }
}
