//! A virtual machine for stock Linux.

mod elf;
mod ending;
mod firmware;
mod image;
mod saved;
mod start;

use std::io::Write;
use std::path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use kvm_bindings::kvm_cpuid_entry2;
use kvm_ioctls::{DeviceFd, Kvm, VcpuFd, VmFd};
use paraslot_device::executor::pin_to;
use paraslot_device::{Executor, Host};
use paraslot_pci::{Bdf, SharedDevice};
use vm_memory::{GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};
use vmm_sys_util::signal::Killable;

use crate::bus::Bus;
use crate::chipset::{self, Events, Power, Request, Serial};
use crate::cpu::{Cpu, ExitCounts, Exits, kick_signal};
use crate::interrupts::{Faults, Interrupts};
use crate::snapshot::{self, Chips, CpuState, Processor};
use crate::{Path, VmError, acpi, boot, probe};

use ending::Ending;

/// What a Linux guest's machine is to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinuxConfig {
    /// Bytes of memory, a multiple of 4096.
    pub memory_bytes: u64,
    /// vCPUs, 1 at least.
    pub cpus: u8,
    /// How the guest and the devices reach each other.
    pub path: Path,
    /// The processors that vCPUs stay on: vCPU `i` on number `i % len`. Empty leaves it to the
    /// scheduler.
    pub vcpu_cpus: Vec<usize>,
}

/// What is to be booted.
#[derive(Clone, Copy, Debug)]
pub struct LinuxImage<'a> {
    /// The kernel's file: a bzImage or an ELF vmlinux.
    pub kernel: &'a path::Path,
    /// The initial RAM disk.
    pub initrd: Option<&'a [u8]>,
    /// The kernel's command line.
    pub command_line: &'a str,
}

/// How a Linux guest's run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinuxEnd {
    /// It powered the machine off.
    PowerOff,
    /// It reset the machine.
    Reset,
    /// It was stopped by [`LinuxHandle::stop`].
    Stopped,
}

/// Most vCPUs that a machine has: their local APICs have eight bits for a number, one of which means
/// all of them and one is the I/O APIC's.
pub const LINUX_CPUS_MAX: u8 = 254;

/// A virtual machine that boots stock Linux.
///
/// It has memory from 0 up, at most 3 GiB of it below 4 GiB; vCPUs that are packages of their own; local
/// APICs and an I/O APIC, no other interrupt controller and no timer but the local APICs' and KVM's
/// clock; a PCI root bus as [`Vm`](crate::Vm) has it, whose BARs the guest places (32-bit ones from
/// 0xc000_0000, 64-bit ones above memory); a serial port (COM1); and ACPI tables that say so
/// (hardware-reduced, with reset, power off and a power button). There is no firmware, no real-time clock,
/// no keyboard and no display. INTA# of device `d` is pin `20 + d % 4` of the I/O APIC.
///
/// Functions can be plugged in and out while it runs ([`LinuxHandle::plug`], [`LinuxHandle::unplug`]). There is
/// no hot-plug controller that would tell the guest: somebody in it has it let go of a function before that is
/// taken out (`echo 1 > /sys/bus/pci/devices/0000:00:05.0/remove`), and look for one that has come
/// (`echo 1 > /sys/bus/pci/rescan`). A function can be taken out without asking, too. Then it reads as ones, as
/// hardware does that was pulled; what its driver makes of that is the driver's affair.
///
/// ```no_run
/// # use std::path::Path;
/// # use paraslot_vmm::{LinuxConfig, LinuxEnd, LinuxImage, LinuxVm, VmError};
/// # fn main() -> Result<(), VmError> {
/// let config = LinuxConfig {
///     memory_bytes: 512 << 20,
///     cpus: 2,
///     path: paraslot_vmm::Path::Event,
///     vcpu_cpus: Vec::new(),
/// };
/// let mut vm = LinuxVm::new(&config, Box::new(std::io::stdout()))?;
/// let kernel = Path::new("/boot/vmlinuz");
/// vm.load(&LinuxImage { kernel, initrd: None, command_line: "console=ttyS0" })?;
/// assert_eq!(vm.run(None)?, LinuxEnd::PowerOff);
/// # Ok(())
/// # }
/// ```
pub struct LinuxVm {
    // Dropped in this order: KVM lets go of memory before this process does.
    cpus: Vec<Vcpu>,
    chips: Chips,
    faults: Arc<Faults>,
    vcpu_cpus: Vec<usize>,
    pci64: (u64, u64),
    shared: Arc<Shared>,
    /// What the first vCPU shows of itself.
    leaves: Vec<kvm_cpuid_entry2>,
}

/// A vCPU, and what it was like after power-on.
struct Vcpu {
    cpu: Cpu,
    power_on: CpuState,
}

/// What the machine and those who watch it have in common.
struct Shared {
    bus: Arc<Bus>,
    serial: Arc<Serial>,
    power: Arc<Power>,
    events: Arc<Events>,
    exits: Vec<ExitCounts>,
    ending: Ending,
    interrupts: Arc<Interrupts>,
    vm: Arc<VmFd>,
    memory: Arc<GuestMemoryMmap>,
}

/// A way to a [`LinuxVm`] while it runs, from any thread.
#[derive(Clone)]
pub struct LinuxHandle(Arc<Shared>);

impl LinuxVm {
    /// Makes a machine without devices or an image. What the guest writes to its serial port goes to
    /// `console`.
    ///
    /// # Errors
    /// When there is no usable KVM, or it lacks what the path needs, or there is not enough memory, or
    /// the number of vCPUs is 0 or more than [`LINUX_CPUS_MAX`] or than KVM takes.
    pub fn new(config: &LinuxConfig, console: Box<dyn Write + Send>) -> Result<Self, VmError> {
        let kvm = probe::open()?;
        // Its own chips have their interrupts from eventfds whatever the path.
        probe::check(&kvm, true)?;
        if config.cpus == 0 || config.cpus > LINUX_CPUS_MAX {
            return Err(VmError::Missing("machine with that number of vCPUs"));
        }
        let vm = Arc::new(boot::make(&kvm)?);
        boot::chips(&vm)?;
        let (memory, slots) = boot::memory(&vm, config.memory_bytes, false)?;
        let bus = Arc::new(Bus::new(vm.clone(), config.path, slots)?);
        let cpus: Vec<_> = (0..config.cpus)
            .map(|id| {
                let fd = make_cpu(&kvm, &vm, id)?;
                let power_on = CpuState::save(&kvm, &vm, &fd)?.without_counter();
                Ok(Vcpu { cpu: Cpu { fd, bus: bus.clone() }, power_on })
            })
            .collect::<Result<_, VmError>>()?;

        let first = cpus.first().ok_or(VmError::Poisoned)?;
        let leaves = Processor::leaves(&first.cpu.fd)?;

        let serial = Arc::new(Serial::new(console)?);
        let power = Arc::new(Power::default());
        let events = Arc::new(Events::new()?);
        bus.add_ports(chipset::COM1, serial.clone())?;
        bus.add_ports(chipset::POWER, power.clone())?;
        bus.add_ports(chipset::EVENTS, events.clone())?;
        let pins =
            [(serial.interrupt(), chipset::COM1_GSI), (events.interrupt(), chipset::EVENTS_GSI)];
        for (event, pin) in pins {
            let what = "connect an eventfd to an interrupt";
            vm.register_irqfd(event, pin).map_err(VmError::kvm(what))?;
        }

        let faults = Arc::new(Faults::default());
        let interrupts = Arc::new(Interrupts::new(vm.clone(), config.path, faults.clone())?);
        let exits = cpus.iter().map(|_| ExitCounts::default()).collect();
        let chips = snapshot::save_chips(&vm)?;
        let pci64 = pci64_window(&kvm, &memory)?;
        let ending = Ending::default();
        let shared = Shared { bus, serial, power, events, exits, ending, interrupts, vm, memory };
        let shared = Arc::new(shared);
        let weak = Arc::downgrade(&shared);
        faults.on_fault(Box::new(move || {
            // The guest waits for what has failed, perhaps for ever. The run ends with the fault.
            if let Some(shared) = weak.upgrade() {
                shared.ending.set(Ok(LinuxEnd::Stopped));
            }
        }));
        let vcpu_cpus = config.vcpu_cpus.clone();
        Ok(Self { cpus, chips, faults, vcpu_cpus, pci64, shared, leaves })
    }

    /// The guest's memory.
    pub fn memory(&self) -> &Arc<GuestMemoryMmap> {
        &self.shared.memory
    }

    /// What a device that is going to be plugged in at `bdf` gets.
    pub fn host(&self, bdf: Bdf, executor: Arc<dyn Executor>) -> Host<Arc<GuestMemoryMmap>> {
        self.shared.host(bdf, executor)
    }

    /// Plugs a function in.
    ///
    /// # Errors
    /// When the address is taken or none, or KVM has no room for the function's doorbells.
    pub fn plug(&mut self, bdf: Bdf, device: SharedDevice) -> Result<(), VmError> {
        self.shared.bus.plug(bdf, device)
    }

    /// Loads a kernel, and points the first vCPU at it.
    ///
    /// # Errors
    /// When the kernel, the RAM disk or the command line is not valid or does not fit.
    pub fn load(&mut self, image: &LinuxImage<'_>) -> Result<(), VmError> {
        self.check_whole()?;
        let platform = acpi::Platform { cpus: self.cpu_count(), pci64: self.pci64 };
        acpi::write(&self.shared.memory, &platform)?;
        for vcpu in &self.cpus {
            firmware::as_firmware_leaves_it(&vcpu.cpu.fd)?;
        }
        let first = self.cpus.first().ok_or(VmError::Poisoned)?;
        image::load(&self.shared.memory, &first.cpu.fd, image)
    }

    /// A vCPU whose thread panicked or could not be started is lost for good.
    fn check_whole(&self) -> Result<(), VmError> {
        if self.cpus.len() == self.shared.exits.len() { Ok(()) } else { Err(VmError::Poisoned) }
    }

    fn cpu_count(&self) -> u8 {
        u8::try_from(self.cpus.len()).unwrap_or(u8::MAX)
    }

    /// A way to this machine while it runs.
    pub fn handle(&self) -> LinuxHandle {
        LinuxHandle(self.shared.clone())
    }

    /// Runs the guest until it powers off, resets, or is stopped. If it was stopped since the last run
    /// ended, that is at once.
    ///
    /// # Errors
    /// [`VmError::Timeout`] when the limit passes first; others when something failed that the guest
    /// depends on.
    pub fn run(&mut self, limit: Option<Duration>) -> Result<LinuxEnd, VmError> {
        self.check_whole()?;
        self.shared.bus.resume()?;
        let kick = kick_signal();
        let ending = &self.shared.ending;
        let mut running = Vec::new();
        for (index, cpu) in std::mem::take(&mut self.cpus).into_iter().enumerate() {
            let pin = index.checked_rem(self.vcpu_cpus.len());
            let pin = pin.and_then(|at| self.vcpu_cpus.get(at)).copied();
            let shared = self.shared.clone();
            let thread = thread::Builder::new()
                .name(format!("vcpu{index}"))
                .spawn(move || run_cpu(cpu, index, pin, &shared));
            match thread {
                Ok(thread) => running.push(thread),
                Err(error) => ending.set(Err(VmError::Thread(error))),
            }
        }
        let ended = ending.wait(limit);
        ending.set(Ok(LinuxEnd::Stopped));
        let mut panic = None;
        for thread in running {
            // The signal is lost if it comes just before the vCPU enters the guest.
            while !thread.is_finished() {
                let _ = thread.kill(kick);
                thread::sleep(Duration::from_millis(1));
            }
            match thread.join() {
                Ok(cpu) => self.cpus.push(cpu),
                Err(payload) => panic = Some(payload),
            }
        }
        // All that the guest said is there when its run has ended.
        self.shared.serial.flush();
        ending.clear();
        if let Some(payload) = panic {
            std::panic::resume_unwind(payload);
        }
        if let Some(fault) = self.faults.take() {
            return Err(fault);
        }
        ended.unwrap_or_else(|| {
            let registers = self.cpus.first().map(|vcpu| vcpu.cpu.registers()).unwrap_or_default();
            Err(VmError::Timeout { limit: limit.unwrap_or_default(), registers })
        })
    }

    /// Devices and vCPUs as after power-on; an image has to be loaded again. Disks keep their data, and
    /// the memory its contents.
    ///
    /// # Errors
    /// When KVM refuses.
    pub fn reset(&mut self) -> Result<(), VmError> {
        self.shared.bus.resume()?;
        self.shared.bus.reset()?;
        self.shared.serial.reset()?;
        self.shared.power.clear();
        self.shared.events.clear();
        let (kvm, vm) = (probe::open()?, &self.shared.vm);
        snapshot::restore_chips(vm, &self.chips)?;
        let power_on = |vcpu: &Vcpu| vcpu.power_on.restore(&kvm, vm, &vcpu.cpu.fd, false);
        self.cpus.iter().try_for_each(power_on)
    }

    /// KVM's VFIO device, for functions of the host that are passed through. A machine has one: it can be
    /// had once, and for as long as it is kept.
    ///
    /// # Errors
    /// When this KVM has none, or it is there already.
    pub fn vfio(&self) -> Result<DeviceFd, VmError> {
        boot::vfio(&self.shared.vm)
    }
}

/// Runs a vCPU until the machine ends, and says so if that was here.
fn run_cpu(mut vcpu: Vcpu, index: usize, pin: Option<usize>, shared: &Shared) -> Vcpu {
    // A panic ends the machine, too; who waits for this thread passes it on.
    let _guard = ending::OnPanic(&shared.ending);
    if let Err(error) = pin.map_or(Ok(()), pin_to) {
        shared.ending.set(Err(VmError::Thread(error)));
    }
    let count = |exits| {
        if let Some(counts) = shared.exits.get(index) {
            counts.add(exits);
        }
    };
    while !shared.ending.is_set() {
        match vcpu.cpu.step() {
            Ok(exits) => count(exits),
            Err(error) => shared.ending.set(Err(error)),
        }
        match shared.power.take_request() {
            None => {}
            Some(Request::PowerOff) => shared.ending.set(Ok(LinuxEnd::PowerOff)),
            Some(Request::Reset) => shared.ending.set(Ok(LinuxEnd::Reset)),
        }
    }
    // What is half done would be done to whatever registers the vCPU is given next.
    match vcpu.cpu.finish_instruction() {
        Ok(exits) => count(exits),
        Err(error) => shared.ending.set(Err(error)),
    }
    vcpu
}

fn make_cpu(kvm: &Kvm, vm: &VmFd, id: u8) -> Result<VcpuFd, VmError> {
    let fd = vm.create_vcpu(id.into()).map_err(VmError::kvm("make a vCPU"))?;
    boot::cpuid(kvm, &fd, id)?;
    Ok(fd)
}

/// Where 64-bit BARs may go: above memory, aligned for large ones, as far as addresses reach.
fn pci64_window(kvm: &Kvm, memory: &GuestMemoryMmap) -> Result<(u64, u64), VmError> {
    const ALIGNMENT: u64 = 1 << 30;
    const LEN: u64 = 64 << 30;
    let bits = boot::physical_address_bits(kvm)?;
    let addresses = 1_u64.checked_shl(bits).unwrap_or(u64::MAX);
    let end = memory.iter().map(|region| region.start_addr().0 + region.len()).max();
    let start = end.unwrap_or(0).max(boot::HIGH_MEMORY).next_multiple_of(ALIGNMENT);
    match start.saturating_add(LEN).min(addresses) {
        end if end > start => Ok((start, end - 1)),
        _ => Err(VmError::Missing("room for 64-bit BARs above the guest's memory")),
    }
}

impl Shared {
    fn host(&self, bdf: Bdf, executor: Arc<dyn Executor>) -> Host<Arc<GuestMemoryMmap>> {
        Host {
            memory: self.memory.clone(),
            msi: self.interrupts.messages(),
            intx: self.interrupts.pin(bdf),
            executor,
        }
    }
}

impl LinuxHandle {
    /// Types into the serial console.
    pub fn input(&self, bytes: &[u8]) {
        self.0.serial.input(bytes);
    }

    /// Pushes the power button.
    pub fn power_button(&self) {
        self.0.events.press_power_button();
    }

    /// Stops the machine: this run, or the next one if there is none, ends with
    /// [`LinuxEnd::Stopped`].
    pub fn stop(&self) {
        self.0.ending.set(Ok(LinuxEnd::Stopped));
    }

    /// What a device that is going to be plugged in at `bdf` gets.
    pub fn host(&self, bdf: Bdf, executor: Arc<dyn Executor>) -> Host<Arc<GuestMemoryMmap>> {
        self.0.host(bdf, executor)
    }

    /// Plugs a function in. The guest finds it when it looks, which is when somebody has it do so. While the
    /// machine stands still to be saved, so does the function.
    ///
    /// # Errors
    /// As [`LinuxVm::plug`].
    pub fn plug(&self, bdf: Bdf, device: SharedDevice) -> Result<(), VmError> {
        self.0.bus.plug(bdf, device)
    }

    /// Takes a function out and returns it; `None` if there is none. The guest may be using it.
    ///
    /// When this returns its registers read as ones and are written in vain, KVM has none of its doorbells and
    /// mapped registers, and no vCPU is in the middle of an access to it. It is paused: it touches no memory
    /// and raises no interrupt, unless a backend holds on to one of its requests. Waits for that, for as long
    /// as [`pause`](paraslot_pci::PciDevice::pause) does. To drop it ends its workers (and waits for their
    /// threads, if they are its executor's alone) and gives back its interrupts; to plug it in again, here or elsewhere, takes a
    /// [`resume`](paraslot_pci::PciDevice::resume) first.
    ///
    /// # Errors
    /// When KVM does not let go of its doorbells or its mapped registers. It is gone all the same.
    pub fn unplug(&self, bdf: Bdf) -> Result<Option<SharedDevice>, VmError> {
        self.0.bus.unplug(bdf)
    }

    /// Exits to user space of all vCPUs, since the machine was made.
    pub fn exits(&self) -> Exits {
        self.0.exits.iter().fold(Exits::default(), |mut sum, counts| {
            sum += counts.get();
            sum
        })
    }
}
