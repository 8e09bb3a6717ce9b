//! A virtual machine.

mod state;
mod suspend;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::{DeviceFd, VmFd};
use paraslot_device::executor::pin_to;
use paraslot_device::{Executor, Host};
use paraslot_pci::{Bdf, SharedDevice};
use paraslot_protocol::Phase;
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::signal::Killable;

use crate::bus::Bus;
use crate::cpu::{Cpu, Exits, kick_signal};
use crate::interrupts::{Faults, Interrupts};
use crate::ports::{PORTS, Ports};
use crate::snapshot::Processor;
use crate::vcpu::{Control, Ended, Measured, Report, Vcpu};
use crate::{VmError, boot, probe};

pub(crate) use suspend::Suspension;
pub use suspend::VmHandle;

/// How the guest and the devices reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Path {
    /// Every register access, doorbells included, exits to user space and is served on the vCPU's
    /// thread; every interrupt is an ioctl of the thread that raises it.
    Trap,
    /// What KVM can do by itself it does: doorbells are written to eventfds (`ioeventfd`), register
    /// windows are read-only memory, and interrupts come from eventfds (`irqfd`). Other register
    /// accesses exit as on the trap path.
    Event,
}

/// What a virtual machine is to be like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmConfig {
    /// Bytes of memory, a multiple of 4096 and at least 4 MiB.
    pub memory_bytes: u64,
    /// How the guest and the devices reach each other.
    pub path: Path,
    /// The processor that the vCPU stays on; `None` leaves it to the scheduler.
    pub vcpu_cpu: Option<usize>,
    /// Whether the memory is in files that other processes can map, as functions that they serve must
    /// (`memfd_create`). The kernel gives such memory large pages only where it was told to
    /// (`transparent_hugepage/shmem_enabled`).
    pub shared_memory: bool,
}

impl VmConfig {
    /// A machine with `memory_bytes` of memory, which is its own, and a vCPU that is anywhere.
    pub const fn new(memory_bytes: u64, path: Path) -> Self {
        Self { memory_bytes, path, vcpu_cpu: None, shared_memory: false }
    }
}

/// How a guest's run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What the guest wrote to its console.
    pub console: Vec<u8>,
    /// What it wrote to its exit port.
    pub exit_code: u32,
    /// Exits to user space, from the first instruction on.
    pub exits: Exits,
    /// What happened in its measured part, if it had one.
    pub measured: Option<Measured>,
}

/// A virtual machine with one vCPU, in-kernel interrupt controllers and a PCI root bus.
///
/// It has memory from 0 up, at most 3 GiB of it below 4 GiB; a host bridge at 00:00.0; configuration
/// mechanism 1 and ECAM (256 MiB at 0xe000_0000); the guest's ports
/// ([`paraslot_protocol::port`]); and nothing else: no firmware, no timer but the local APIC's, no
/// ACPI. The guest finds all of that in its PVH start info or knows it. INTA# of device `d` is pin
/// `20 + d % 4` of the I/O APIC, as on QEMU's q35. An access where nothing is reads as ones and writes nowhere.
///
/// ```no_run
/// # use std::time::Duration;
/// # use paraslot_vmm::{Path, Vm, VmConfig, VmError};
/// # fn main() -> Result<(), VmError> {
/// let mut vm = Vm::new(&VmConfig::new(64 << 20, Path::Event))?;
/// vm.load(paraslot_guest::IMAGE, "check=boot")?;
/// let run = vm.run(Duration::from_secs(10), &mut |_| ())?;
/// assert_eq!(run.exit_code, 0);
/// # Ok(())
/// # }
/// ```
pub struct Vm {
    // Dropped in this order: KVM lets go of memory before this process does.
    vcpu: Option<Vcpu>,
    interrupts: Arc<Interrupts>,
    faults: Arc<Faults>,
    ports: Arc<Ports>,
    vm: Arc<VmFd>,
    memory: Arc<GuestMemoryMmap>,
    vcpu_cpu: Option<usize>,
    tsc_hz: u64,
    /// What the vCPU shows of itself.
    leaves: Vec<kvm_cpuid_entry2>,
    suspension: Arc<Suspension>,
}

impl Vm {
    /// Makes a machine without devices, an image or a past.
    ///
    /// # Errors
    /// When there is no usable KVM, or it lacks what the path needs, or there is not enough memory.
    pub fn new(config: &VmConfig) -> Result<Self, VmError> {
        let kvm = probe::open()?;
        probe::check(&kvm, config.path == Path::Event)?;
        let vm = Arc::new(boot::make(&kvm)?);
        boot::chips(&vm)?;
        let (memory, slots) = boot::memory(&vm, config.memory_bytes, config.shared_memory)?;
        let fd = vm.create_vcpu(0).map_err(VmError::kvm("make a vCPU"))?;
        let tsc_hz = u64::from(boot::cpuid(&kvm, &fd, 0)?) * 1000;
        let leaves = Processor::leaves(&fd)?;

        let faults = Arc::new(Faults::default());
        let interrupts = Arc::new(Interrupts::new(vm.clone(), config.path, faults.clone())?);
        let ports = Arc::new(Ports::default());
        let bus = Arc::new(Bus::new(vm.clone(), config.path, slots)?);
        PORTS.into_iter().try_for_each(|range| bus.add_ports(range, ports.clone()))?;
        let vcpu = Vcpu {
            cpu: Cpu { fd, bus },
            ports: ports.clone(),
            interrupts: interrupts.clone(),
            count_messages: config.path == Path::Trap,
        };
        let vcpu_cpu = config.vcpu_cpu;
        Ok(Self {
            vcpu: Some(vcpu),
            interrupts,
            faults,
            ports,
            vm,
            memory,
            vcpu_cpu,
            tsc_hz,
            leaves,
            suspension: Arc::default(),
        })
    }

    /// Frequency of the guest's time stamp counter in Hz, 0 if KVM does not tell.
    pub fn tsc_hz(&self) -> u64 {
        self.tsc_hz
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Arc<GuestMemoryMmap> {
        &self.memory
    }

    /// What a device that is going to be plugged in at `bdf` gets.
    pub fn host(&self, bdf: Bdf, executor: Arc<dyn Executor>) -> Host<Arc<GuestMemoryMmap>> {
        Host {
            memory: self.memory.clone(),
            msi: self.interrupts.messages(),
            intx: self.interrupts.pin(bdf),
            executor,
        }
    }

    /// Plugs a function in.
    ///
    /// # Errors
    /// When the address is taken or none, or KVM has no room for the function's doorbells.
    pub fn plug(&mut self, bdf: Bdf, device: SharedDevice) -> Result<(), VmError> {
        self.vcpu_mut()?.cpu.bus.plug(bdf, device)
    }

    /// KVM's VFIO device, for functions of the host that are passed through. A machine has one: it can be
    /// had once, and for as long as it is kept.
    ///
    /// # Errors
    /// When this KVM has none, or it is there already.
    pub fn vfio(&self) -> Result<DeviceFd, VmError> {
        boot::vfio(&self.vm)
    }

    /// Loads an ELF image with a PVH entry point, and points the vCPU at it.
    ///
    /// # Errors
    /// When the image or the command line is not valid or does not fit.
    pub fn load(&mut self, image: &[u8], command_line: &str) -> Result<(), VmError> {
        let memory = self.memory.clone();
        boot::load(&memory, &self.vcpu_mut()?.cpu.fd, image, command_line)
    }

    /// A way to this machine while it runs.
    pub fn handle(&self) -> VmHandle {
        let bus = self.vcpu.as_ref().map(|vcpu| Arc::downgrade(&vcpu.cpu.bus));
        VmHandle { suspension: self.suspension.clone(), bus: bus.unwrap_or_default() }
    }

    /// Runs the guest until it writes its exit port, for `limit` at most.
    ///
    /// `on_phase` is called for each of the guest's marks, on the calling thread, while the guest
    /// stands still.
    ///
    /// # Errors
    /// [`VmError::Suspended`] when [`VmHandle::suspend`] came before the end. Others when the guest does not end by itself, or something failed that it depends on. The console is
    /// then to be had with [`console`](Self::console).
    pub fn run(
        &mut self,
        limit: Duration,
        on_phase: &mut dyn FnMut(Phase),
    ) -> Result<Run, VmError> {
        self.vcpu_mut()?.cpu.bus.resume()?;
        let mut vcpu = self.vcpu.take().ok_or(VmError::Poisoned)?;
        let stop = Arc::new(AtomicBool::new(false));
        let suspension = self.suspension.clone();
        let (reports, from_vcpu) = channel();
        suspension.tell(Some(reports.clone()));
        let (answer, answers) = channel();
        let control = Control { reports, answers, stop: stop.clone(), suspension, limit };
        let cpu = self.vcpu_cpu;
        let kick = kick_signal();
        let thread = thread::Builder::new()
            .name("vcpu".to_owned())
            .spawn(move || {
                let pinned = cpu.map_or(Ok(()), pin_to).map_err(VmError::Thread);
                let ended = pinned.and_then(|()| vcpu.run(&control));
                drop(control);
                (vcpu, ended)
            })
            .map_err(VmError::Thread)?;
        let running = Running { thread: Some(thread), stop, kick };
        wait(&from_vcpu, answer, limit, on_phase);
        let (vcpu, ended) = running.finish();
        self.vcpu = Some(vcpu);
        self.suspension.tell(None);
        self.suspension.clear();
        // What went wrong behind the guest's back is the reason for what it did then.
        match self.faults.take() {
            Some(fault) => Err(fault),
            None => {
                let Ended { exit_code, exits, measured } = ended?;
                Ok(Run { console: self.console(), exit_code, exits, measured })
            }
        }
    }

    /// What the guest has written to its console and nobody has taken yet.
    pub fn console(&self) -> Vec<u8> {
        self.ports.take_console()
    }

    fn vcpu_mut(&mut self) -> Result<&mut Vcpu, VmError> {
        self.vcpu.as_mut().ok_or(VmError::Poisoned)
    }
}

type Outcome = (Vcpu, Result<Ended, VmError>);

/// The vCPU's thread. It does not outlive this.
struct Running {
    thread: Option<JoinHandle<Outcome>>,
    stop: Arc<AtomicBool>,
    kick: libc::c_int,
}

impl Running {
    /// Has the thread end, if it has not yet.
    fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // The signal is lost if it comes just before the vCPU enters the guest.
        while self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            let _ = self.thread.as_ref().map(|thread| thread.kill(self.kick));
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn finish(mut self) -> Outcome {
        self.stop();
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => unreachable!("the thread is there until it is joined here"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Passes marks on until the vCPU's thread is done or the time is up. The vCPU may be waiting for an
/// answer, so this must be the one to drop `answer`, before anybody waits for the thread.
fn wait(
    from_vcpu: &mpsc::Receiver<Report>,
    answer: mpsc::Sender<()>,
    limit: Duration,
    on_phase: &mut dyn FnMut(Phase),
) {
    let start = Instant::now();
    loop {
        match from_vcpu.recv_timeout(limit.saturating_sub(start.elapsed())) {
            Ok(Report::Phase(phase)) => {
                on_phase(phase);
                // The vCPU waits for this.
                let _ = answer.send(());
            }
            Ok(Report::Suspend | Report::Ended)
            | Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    }
}
