//! What this host's KVM offers.

use std::arch::x86_64::__cpuid;
use std::io;

use kvm_ioctls::{Cap, Kvm};

use crate::VmError;

/// KVM's stable interface.
const API_VERSION: i32 = 12;

/// One thing that KVM may offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// What it is.
    pub name: &'static str,
    /// What it is for here.
    pub purpose: &'static str,
    /// Whether no machine can run without it.
    pub required: bool,
    /// Whether this KVM has it.
    pub present: bool,
}

/// What this host's KVM offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Version of its interface, always 12.
    pub api_version: i32,
    /// What it offers of what is used here.
    pub capabilities: Vec<Capability>,
    /// The CPU's own name.
    pub cpu: String,
    /// The signature of the hypervisor that this host runs under, if it does.
    pub hypervisor: Option<String>,
    /// Whether the CPU shows hardware virtualisation (SVM or VMX). A KVM without it interprets the
    /// guest's kernel code.
    pub hardware_assisted: bool,
    /// Frequency of a guest's time stamp counter in Hz, where KVM tells.
    pub tsc_hz: Option<u64>,
}

impl Probe {
    /// Whether this host is itself a virtual machine.
    pub fn nested(&self) -> bool {
        self.hypervisor.is_some()
    }
}

const CAPABILITIES: [(Cap, &str, &str, bool); 9] = [
    (Cap::UserMemory, "user memory", "guest memory", true),
    (Cap::Irqchip, "interrupt controllers", "interrupts without exits", true),
    (Cap::SetTssAddr, "task state segment address", "real mode on Intel", true),
    (Cap::SignalMsi, "MSI by ioctl", "interrupts on the trap path", true),
    (Cap::IrqRouting, "MSI routing", "interrupts on the event path", false),
    (Cap::Irqfd, "irqfd", "interrupts on the event path", false),
    (Cap::Ioeventfd, "ioeventfd", "doorbells on the event path", false),
    (Cap::ReadonlyMem, "read-only memory", "register windows on the event path", false),
    (Cap::GetTscKhz, "time stamp counter frequency", "exact latencies", false),
];

/// Opens KVM.
pub(crate) fn open() -> Result<Kvm, VmError> {
    let kvm = Kvm::new().map_err(|error| match error.errno() {
        libc::ENOENT | libc::ENODEV | libc::ENXIO => VmError::NoKvm,
        libc::EACCES | libc::EPERM => VmError::Permission,
        errno => VmError::Open(io::Error::from_raw_os_error(errno)),
    })?;
    if kvm.get_api_version() != API_VERSION {
        return Err(VmError::Missing("stable interface (version 12)"));
    }
    Ok(kvm)
}

/// Checks that `kvm` has what is required, and what the event path needs if that is wanted.
pub(crate) fn check(kvm: &Kvm, event_path: bool) -> Result<(), VmError> {
    for (cap, name, _, required) in CAPABILITIES {
        let wanted = required || (event_path && cap != Cap::GetTscKhz);
        if wanted && !kvm.check_extension(cap) {
            return Err(VmError::Missing(name));
        }
    }
    Ok(())
}

/// Asks what this host's KVM offers. Makes and drops a virtual machine without memory.
///
/// # Errors
/// When there is no KVM that this process may use.
pub fn probe() -> Result<Probe, VmError> {
    let kvm = open()?;
    let capabilities = CAPABILITIES.map(|(cap, name, purpose, required)| Capability {
        name,
        purpose,
        required,
        present: kvm.check_extension(cap),
    });
    Ok(Probe {
        api_version: kvm.get_api_version(),
        capabilities: capabilities.to_vec(),
        cpu: cpu_model(),
        hypervisor: hypervisor(),
        hardware_assisted: hardware_assisted(),
        tsc_hz: tsc_hz(&kvm),
    })
}

/// The frequency that a guest of this KVM would see.
fn tsc_hz(kvm: &Kvm) -> Option<u64> {
    let vm = kvm.create_vm().ok()?;
    let khz = vm.create_vcpu(0).ok()?.get_tsc_khz().ok()?;
    (khz != 0).then(|| u64::from(khz) * 1000)
}

/// Registers of CPUID, as the text that they hold.
fn text(registers: impl IntoIterator<Item = u32>) -> String {
    let bytes: Vec<u8> = registers.into_iter().flat_map(u32::to_le_bytes).collect();
    String::from_utf8_lossy(&bytes).trim_matches([' ', '\0']).to_owned()
}

fn cpu_model() -> String {
    const FIRST: u32 = 0x8000_0002;
    const LAST: u32 = 0x8000_0004;
    if __cpuid(0x8000_0000).eax < LAST {
        let vendor = __cpuid(0);
        return text([vendor.ebx, vendor.edx, vendor.ecx]);
    }
    text((FIRST..=LAST).flat_map(|leaf| {
        let part = __cpuid(leaf);
        [part.eax, part.ebx, part.ecx, part.edx]
    }))
}

fn hypervisor() -> Option<String> {
    const HYPERVISOR: u32 = 1 << 31;
    if __cpuid(1).ecx & HYPERVISOR == 0 {
        return None;
    }
    let leaf = __cpuid(0x4000_0000);
    Some(text([leaf.ebx, leaf.ecx, leaf.edx]))
}

fn hardware_assisted() -> bool {
    const VMX: u32 = 1 << 5;
    const SVM: u32 = 1 << 2;
    let extended = __cpuid(0x8000_0000).eax >= 0x8000_0001;
    __cpuid(1).ecx & VMX != 0 || (extended && __cpuid(0x8000_0001).ecx & SVM != 0)
}
