//! A vCPU: entering the guest, and what it leaves for.

use std::ops::{AddAssign, ControlFlow, Sub};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};

use kvm_ioctls::{VcpuExit, VcpuFd};
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

use crate::bus::Bus;
use crate::sys::SharedRun;
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

/// Exits, counted by one thread and read by any.
#[derive(Default)]
pub(crate) struct ExitCounts {
    mmio_reads: AtomicU64,
    mmio_writes: AtomicU64,
    port_reads: AtomicU64,
    port_writes: AtomicU64,
    others: AtomicU64,
}

impl ExitCounts {
    pub(crate) fn add(&self, exits: Exits) {
        let counts = [
            (&self.mmio_reads, exits.mmio_reads),
            (&self.mmio_writes, exits.mmio_writes),
            (&self.port_reads, exits.port_reads),
            (&self.port_writes, exits.port_writes),
            (&self.others, exits.others),
        ];
        for (count, more) in counts.into_iter().filter(|(_, more)| *more != 0) {
            count.fetch_add(more, Ordering::Relaxed);
        }
    }

    pub(crate) fn get(&self) -> Exits {
        Exits {
            mmio_reads: self.mmio_reads.load(Ordering::Relaxed),
            mmio_writes: self.mmio_writes.load(Ordering::Relaxed),
            port_reads: self.port_reads.load(Ordering::Relaxed),
            port_writes: self.port_writes.load(Ordering::Relaxed),
            others: self.others.load(Ordering::Relaxed),
        }
    }
}

/// A vCPU, with the buses that its accesses go to.
pub(crate) struct Cpu {
    pub(crate) fd: VcpuFd,
    pub(crate) bus: Arc<Bus>,
}

impl Cpu {
    /// Enters the guest, does what it left for, and puts BARs where that has moved them.
    pub(crate) fn step(&mut self) -> Result<Exits, VmError> {
        let exits = self.enter()?;
        self.bus.settle()?;
        Ok(exits)
    }

    /// Has KVM finish the instruction that was left for, so that the vCPU's registers are its state.
    /// What that leaves for in turn is done.
    ///
    /// # Errors
    /// As of [`step`](Self::step).
    pub(crate) fn finish_instruction(&mut self) -> Result<Exits, VmError> {
        // A repeated instruction returns to the guest within this, and an interrupted entry is one of
        // the others.
        const STEPS: usize = 10_000;
        let mut sum = Exits::default();
        self.fd.set_kvm_immediate_exit(1);
        let finished = (0..STEPS).try_for_each(|_| match self.step() {
            Ok(exits) if exits.others != 0 => ControlFlow::Break(Ok(())),
            Ok(exits) => {
                sum += exits;
                ControlFlow::Continue(())
            }
            Err(error) => ControlFlow::Break(Err(error)),
        });
        self.fd.set_kvm_immediate_exit(0);
        match finished {
            ControlFlow::Break(Err(error)) => Err(error),
            _ => Ok(sum),
        }
    }

    fn enter(&mut self) -> Result<Exits, VmError> {
        let shared = SharedRun::new(self.fd.get_kvm_run());
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

    /// Where the vCPU is; zeroes if KVM will not tell.
    pub(crate) fn registers(&self) -> Registers {
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
