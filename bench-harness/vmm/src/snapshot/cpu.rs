//! A vCPU's state.

use std::collections::BTreeSet;

use kvm_bindings::{
    KVM_MAX_CPUID_ENTRIES, Msrs, kvm_cpuid_entry2, kvm_debugregs, kvm_lapic_state, kvm_mp_state,
    kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use serde::{Deserialize, Serialize};
use zerocopy::IntoBytes;

use super::packed::Packed;
use super::{SnapshotError, xsave};
use crate::VmError;

const READ: &str = "read the vCPU's state";
const WRITE: &str = "set the vCPU's state";

const IA32_TIME_STAMP_COUNTER: u32 = 0x10;
const IA32_TSC_ADJUST: u32 = 0x3b;
const IA32_TSC_DEADLINE: u32 = 0x6e0;

/// The processor that vCPUs show their guest: CPUID's leaves, before the guest has changed any.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Processor {
    leaves: Vec<Packed<kvm_cpuid_entry2>>,
    /// Frequency of the time stamp counter, 0 if KVM does not tell.
    tsc_khz: u32,
}

impl Processor {
    /// What a vCPU that has not run yet shows.
    pub(crate) fn leaves(vcpu: &VcpuFd) -> Result<Vec<kvm_cpuid_entry2>, VmError> {
        let cpuid = vcpu.get_cpuid2(KVM_MAX_CPUID_ENTRIES).map_err(VmError::kvm(READ))?;
        Ok(cpuid.as_slice().to_vec())
    }

    /// The processor with these leaves.
    pub(crate) fn new(leaves: &[kvm_cpuid_entry2], vcpu: &VcpuFd) -> Self {
        let leaves = leaves.iter().copied().map(Packed).collect();
        Self { leaves, tsc_khz: vcpu.get_tsc_khz().unwrap_or(0) }
    }

    /// Whether one with these leaves is like it. Frequencies are another matter: KVM measures them, and
    /// gets almost the same each time.
    pub(crate) fn is_like(&self, leaves: &[kvm_cpuid_entry2]) -> bool {
        const FREQUENCIES: [u32; 3] = [0x15, 0x16, 0x4000_0010];
        let matters = |leaf: &&kvm_cpuid_entry2| !FREQUENCIES.contains(&leaf.function);
        let saved = self.leaves.iter().map(|Packed(leaf)| leaf).filter(matters);
        saved.map(IntoBytes::as_bytes).eq(leaves.iter().filter(matters).map(IntoBytes::as_bytes))
    }

    /// Has a vCPU's time stamp counter run at this one's frequency.
    pub(crate) fn set_frequency(&self, vcpu: &VcpuFd) -> Result<(), VmError> {
        if self.tsc_khz == 0 || vcpu.get_tsc_khz().is_ok_and(|khz| khz == self.tsc_khz) {
            return Ok(());
        }
        vcpu.set_tsc_khz(self.tsc_khz)
            .map_err(VmError::kvm("have the time stamp counter's frequency"))
    }
}

/// A vCPU's state.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CpuState {
    general: Packed<kvm_regs>,
    special: Packed<kvm_sregs>,
    #[serde(with = "hex")]
    xsave: Vec<u8>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    xcrs: Option<Packed<kvm_xcrs>>,
    debug: Packed<kvm_debugregs>,
    local_apic: Packed<kvm_lapic_state>,
    events: Packed<kvm_vcpu_events>,
    mp_state: u32,
    msrs: Vec<Msr>,
}

/// A model-specific register.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Msr {
    pub(crate) index: u32,
    pub(crate) value: u64,
}

impl Msr {
    fn read(index: u32, vcpu: &VcpuFd) -> Option<Self> {
        let mut msrs = one(kvm_msr_entry { index, ..Default::default() })?;
        let read = vcpu.get_msrs(&mut msrs).is_ok_and(|count| count == 1);
        let value = msrs.as_slice().first().filter(|_| read)?.data;
        Some(Self { index, value })
    }

    /// Writes it; says whether this KVM takes that.
    pub(crate) fn write(self, vcpu: &VcpuFd) -> bool {
        let msrs = one(kvm_msr_entry { index: self.index, data: self.value, ..Default::default() });
        msrs.is_some_and(|msrs| vcpu.set_msrs(&msrs).is_ok_and(|count| count == 1))
    }

    /// Writes it. One that cannot be written is to have that value already.
    fn restore(self, vcpu: &VcpuFd) -> Result<(), SnapshotError> {
        let Self { index, value } = self;
        if self.write(vcpu) || Self::read(index, vcpu).is_some_and(|msr| msr.value == value) {
            return Ok(());
        }
        let what = format!("this KVM does not take {value:#x} for the register {index:#x}");
        Err(SnapshotError::mismatch(what))
    }
}

fn one(entry: kvm_msr_entry) -> Option<Msrs> {
    Msrs::from_entries(&[entry]).ok()
}

fn indices(kvm: &Kvm) -> Result<Vec<u32>, VmError> {
    let list = kvm.get_msr_index_list().map_err(VmError::kvm(READ))?;
    Ok(list.as_slice().to_vec())
}

impl CpuState {
    /// The state of a vCPU that is between two instructions.
    pub(crate) fn save(kvm: &Kvm, vm: &VmFd, vcpu: &VcpuFd) -> Result<Self, VmError> {
        // KVM may write the others, but not the other way round.
        let mp_state = vcpu.get_mp_state().map_err(VmError::kvm(READ))?.mp_state;
        let special = vcpu.get_sregs().map_err(VmError::kvm(READ))?;
        check_nesting(&special)?;
        let local_apic = vcpu.get_lapic().map_err(VmError::kvm(READ))?;
        // One by one: KVM lists some that it does not give.
        let msrs = indices(kvm)?.into_iter().filter_map(|index| {
            let msr = Msr::read(index, vcpu)?;
            Some(msr).map(|msr| due(msr, &local_apic, vcpu))
        });
        Ok(Self {
            general: Packed(vcpu.get_regs().map_err(VmError::kvm(READ))?),
            special: Packed(special),
            xsave: xsave::get(vm, vcpu)?,
            xcrs: vcpu.get_xcrs().ok().map(Packed),
            debug: Packed(vcpu.get_debug_regs().map_err(VmError::kvm(READ))?),
            events: Packed(vcpu.get_vcpu_events().map_err(VmError::kvm(READ))?),
            mp_state,
            msrs: msrs.collect(),
            local_apic: Packed(local_apic),
        })
    }

    /// The same but for the time stamp counter, which goes on: where that of one vCPU is set those of all
    /// have to be.
    pub(crate) fn without_counter(mut self) -> Self {
        let counters = [IA32_TIME_STAMP_COUNTER, IA32_TSC_ADJUST];
        self.msrs.retain(|msr| !counters.contains(&msr.index));
        self
    }

    /// Has a vCPU be as the one that was saved. The guest's memory is there already; the I/O APIC
    /// comes afterwards.
    pub(crate) fn restore(
        &self,
        kvm: &Kvm,
        vm: &VmFd,
        vcpu: &VcpuFd,
        is_first: bool,
    ) -> Result<(), VmError> {
        let Self { general, special, xsave, xcrs, debug, local_apic, events, mp_state, msrs } =
            self;
        check_nesting(&special.0)?;
        let msrs = Registers::check(msrs, &indices(kvm)?)?;

        let mp_state = kvm_mp_state { mp_state: *mp_state };
        vcpu.set_mp_state(mp_state).map_err(VmError::kvm(WRITE))?;
        vcpu.set_regs(&general.0).map_err(VmError::kvm(WRITE))?;
        vcpu.set_sregs(&special.0).map_err(VmError::kvm(WRITE))?;
        xsave::set(vm, vcpu, xsave)?;
        if let Some(xcrs) = xcrs {
            vcpu.set_xcrs(&xcrs.0).map_err(VmError::kvm(WRITE))?;
        }
        vcpu.set_debug_regs(&debug.0).map_err(VmError::kvm(WRITE))?;
        msrs.restore_counter(vcpu, is_first)?;
        msrs.others.iter().try_for_each(|msr| msr.restore(vcpu))?;
        // After its base address and its mode, which are among the special registers.
        vcpu.set_lapic(&local_apic.0).map_err(VmError::kvm(WRITE))?;
        // The local APIC takes it in the mode that it is for.
        msrs.deadline.map_or(Ok(()), |msr| msr.restore(vcpu))?;
        vcpu.set_vcpu_events(&events.0).map_err(VmError::kvm(WRITE))?;
        // A guest that uses KVM's clock learns that it stood still. Others do not, which is no error.
        let _ = vcpu.kvmclock_ctrl();
        Ok(())
    }
}

/// A hypervisor's own guests are state that is not saved.
fn check_nesting(special: &kvm_sregs) -> Result<(), SnapshotError> {
    const SVM_ENABLE: u64 = 1 << 12;
    const VMX_ENABLE: u64 = 1 << 13;
    if special.efer & SVM_ENABLE != 0 || special.cr4 & VMX_ENABLE != 0 {
        return Err(SnapshotError::Unsupported("it is a hypervisor itself"));
    }
    Ok(())
}

/// A deadline that has passed reads as 0, though its interrupt may not have reached the local APIC. It is
/// one that has just passed, then: an interrupt too many rather than one too few.
fn due(msr: Msr, local_apic: &kvm_lapic_state, vcpu: &VcpuFd) -> Msr {
    const LVT_TIMER: usize = 0x320;
    const DEADLINE_MODE: u8 = 0b10 << 1;
    const MODE: u8 = 0b11 << 1;
    // The mode is in bits 18:17.
    let mode = local_apic.regs.as_bytes().get(LVT_TIMER + 2).map(|byte| byte & MODE);
    if msr.index != IA32_TSC_DEADLINE || msr.value != 0 || mode != Some(DEADLINE_MODE) {
        return msr;
    }
    Msr::read(IA32_TIME_STAMP_COUNTER, vcpu).map_or(msr, |now| Msr { value: now.value, ..msr })
}

/// Model-specific registers, in the order in which they are set.
struct Registers {
    counter: Option<Msr>,
    others: Vec<Msr>,
    deadline: Option<Msr>,
}

impl Registers {
    /// Those that KVM has, each once.
    fn check(msrs: &[Msr], known: &[u32]) -> Result<Self, SnapshotError> {
        let known: BTreeSet<u32> = known.iter().copied().collect();
        let mut seen = BTreeSet::new();
        for Msr { index, .. } in msrs {
            if !known.contains(index) {
                let what = format!("this KVM has no register {index:#x}");
                return Err(SnapshotError::mismatch(what));
            }
            if !seen.insert(*index) {
                let what = format!("a vCPU has the register {index:#x} twice");
                return Err(SnapshotError::mismatch(what));
            }
        }
        let find = |wanted: u32| msrs.iter().copied().find(|msr| msr.index == wanted);
        let special = [IA32_TIME_STAMP_COUNTER, IA32_TSC_DEADLINE];
        let others = msrs.iter().copied().filter(|msr| !special.contains(&msr.index));
        Ok(Self {
            counter: find(IA32_TIME_STAMP_COUNTER),
            others: others.collect(),
            deadline: find(IA32_TSC_DEADLINE),
        })
    }

    /// Sets the time stamp counter. A value within a second of what it is by then KVM takes for one that
    /// is to be the same as others', and would leave a young machine's as it is. So that of the first
    /// vCPU is set far away before; then those of the others do join it.
    fn restore_counter(&self, vcpu: &VcpuFd, is_first: bool) -> Result<(), SnapshotError> {
        const FAR: u64 = 1 << 62;
        let Some(counter) = self.counter else { return Ok(()) };
        if is_first {
            Msr { value: counter.value ^ FAR, ..counter }.restore(vcpu)?;
        }
        counter.restore(vcpu)
    }
}
