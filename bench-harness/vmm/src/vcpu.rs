//! The vCPU's thread.

use std::ops::{AddAssign, Sub};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

use kvm_ioctls::{VcpuExit, VcpuFd};
use paraslot_protocol::Phase;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::bus::Bus;
use crate::interrupts::Interrupts;
use crate::ports::{Mark, Ports};
use crate::sys::{self, SharedRun};
use crate::{Registers, VmError};

/// Exits to user space. An instruction that repeats a port access is one exit for each time that KVM
/// hands over what has gathered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exits {
    /// Reads of memory that is not there.
    pub mmio_reads: u64,
    /// Writes to memory that is not there, or is read-only.
    pub mmio_writes: u64,
    /// Reads of ports.
    pub port_reads: u64,
    /// Writes to ports.
    pub port_writes: u64,
    /// Others: signals, for the most part.
    pub others: u64,
}

impl Exits {
    /// All of them.
    pub fn total(&self) -> u64 {
        let Self { mmio_reads, mmio_writes, port_reads, port_writes, others } = self;
        mmio_reads + mmio_writes + port_reads + port_writes + others
    }
}

impl AddAssign for Exits {
    fn add_assign(&mut self, other: Self) {
        self.mmio_reads += other.mmio_reads;
        self.mmio_writes += other.mmio_writes;
        self.port_reads += other.port_reads;
        self.port_writes += other.port_writes;
        self.others += other.others;
    }
}

impl Sub for Exits {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            mmio_reads: self.mmio_reads - other.mmio_reads,
            mmio_writes: self.mmio_writes - other.mmio_writes,
            port_reads: self.port_reads - other.port_reads,
            port_writes: self.port_writes - other.port_writes,
            others: self.others - other.others,
        }
    }
}

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
}

/// How the vCPU's thread is spoken to.
pub(crate) struct Control {
    pub(crate) reports: Sender<Report>,
    pub(crate) answers: Receiver<()>,
    pub(crate) stop: Arc<AtomicBool>,
    pub(crate) limit: Duration,
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
    pub(crate) fd: VcpuFd,
    pub(crate) bus: Bus,
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
        let shared = SharedRun::new(self.fd.get_kvm_run());
        let mut ended = Ended::default();
        let mut start = None;
        loop {
            if control.stop.load(Ordering::Acquire) {
                let (limit, registers) = (control.limit, self.registers());
                return Err(VmError::Timeout { limit, registers });
            }
            let exits = self.step(shared)?;
            ended.exits += exits;
            self.bus.settle()?;
            match if exits.port_writes == 0 { None } else { self.ports.take_mark() } {
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
        }
    }

    /// Enters the guest, and does what it left for.
    fn step(&mut self, shared: SharedRun) -> Result<Exits, VmError> {
        let mut exits = Exits::default();
        match self.fd.run() {
            Ok(VcpuExit::MmioRead(address, data)) => {
                exits.mmio_reads = 1;
                self.bus.mmio_read(address, data);
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                exits.mmio_writes = 1;
                self.bus.mmio_write(address, data);
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                exits.port_reads = 1;
                for access in data.chunks_mut(port_width(shared)) {
                    self.bus.port_read(port, access);
                }
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                exits.port_writes = 1;
                for access in data.chunks(port_width(shared)) {
                    self.bus.port_write(port, access);
                }
            }
            Ok(VcpuExit::Intr) => exits.others = 1,
            Err(error) if matches!(error.errno(), libc::EINTR | libc::EAGAIN) => exits.others = 1,
            Ok(VcpuExit::Shutdown) => return Err(VmError::Shutdown(self.registers())),
            Ok(VcpuExit::InternalError) => {
                let reason = format!("internal error {}", suberror(shared));
                return Err(VmError::Stopped { reason, registers: self.registers() });
            }
            Ok(exit) => {
                let reason = format!("{exit:?}");
                return Err(VmError::Stopped { reason, registers: self.registers() });
            }
            Err(error) => {
                let reason = std::io::Error::from_raw_os_error(error.errno()).to_string();
                return Err(VmError::Stopped { reason, registers: self.registers() });
            }
        }
        Ok(exits)
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

    /// Where the vCPU is; zeroes if KVM will not tell.
    fn registers(&self) -> Registers {
        let (Ok(general), Ok(special)) = (self.fd.get_regs(), self.fd.get_sregs()) else {
            return Registers::default();
        };
        Registers {
            cs: special.cs.selector,
            rip: general.rip,
            rsp: general.rsp,
            rflags: general.rflags,
            cr0: special.cr0,
            cr2: special.cr2,
            cr3: special.cr3,
        }
    }
}

#[expect(unsafe_code, reason = "what kvm-ioctls leaves out is in a union")]
fn port_width(shared: SharedRun) -> usize {
    // SAFETY: called between two runs of a vCPU that its caller holds.
    unsafe { shared.port_width() }.max(1).into()
}

#[expect(unsafe_code, reason = "what kvm-ioctls leaves out is in a union")]
fn suberror(shared: SharedRun) -> u32 {
    // SAFETY: as above.
    unsafe { shared.suberror() }
}

/// The signal that makes a vCPU's thread leave the guest. Its handler does nothing.
pub(crate) fn kick_signal() -> libc::c_int {
    static REGISTERED: Once = Once::new();
    extern "C" fn nothing(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    REGISTERED.call_once(|| {
        // Fails only for numbers that are no signal's.
        let _ = register_signal_handler(SIGRTMIN(), nothing);
    });
    SIGRTMIN()
}
