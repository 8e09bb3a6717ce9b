//! What vCPUs and interrupt controllers are like after power-on, and how they get back there.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, Msrs, kvm_debugregs,
    kvm_fpu, kvm_irqchip, kvm_lapic_state, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_sregs,
    kvm_vcpu_events, kvm_xcrs,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};

use crate::VmError;

/// A vCPU's state.
pub(super) struct CpuState {
    regs: kvm_regs,
    sregs: kvm_sregs,
    fpu: kvm_fpu,
    lapic: kvm_lapic_state,
    mp_state: kvm_mp_state,
    events: kvm_vcpu_events,
    debug: kvm_debugregs,
    xcrs: Option<kvm_xcrs>,
    msrs: Vec<kvm_msr_entry>,
}

/// The time stamp counter goes on through a reset, so that those of all vCPUs stay together.
const IA32_TIME_STAMP_COUNTER: u32 = 0x10;
const IA32_TSC_ADJUST: u32 = 0x3b;

const READ: &str = "read the vCPU's state";
const WRITE: &str = "set the vCPU's state";

impl CpuState {
    pub(super) fn save(kvm: &Kvm, vcpu: &VcpuFd) -> Result<Self, VmError> {
        let list = kvm.get_msr_index_list().map_err(VmError::kvm(READ))?;
        let kept = |index: &u32| ![IA32_TIME_STAMP_COUNTER, IA32_TSC_ADJUST].contains(index);
        // One by one: KVM lists some that it does not give.
        let msrs = list.as_slice().iter().copied().filter(kept).filter_map(|index| {
            let mut msrs = one(kvm_msr_entry { index, ..Default::default() })?;
            let read = vcpu.get_msrs(&mut msrs).is_ok_and(|count| count == 1);
            msrs.as_slice().first().copied().filter(|_| read)
        });
        Ok(Self {
            regs: vcpu.get_regs().map_err(VmError::kvm(READ))?,
            sregs: vcpu.get_sregs().map_err(VmError::kvm(READ))?,
            fpu: vcpu.get_fpu().map_err(VmError::kvm(READ))?,
            lapic: vcpu.get_lapic().map_err(VmError::kvm(READ))?,
            mp_state: vcpu.get_mp_state().map_err(VmError::kvm(READ))?,
            events: vcpu.get_vcpu_events().map_err(VmError::kvm(READ))?,
            debug: vcpu.get_debug_regs().map_err(VmError::kvm(READ))?,
            xcrs: vcpu.get_xcrs().ok(),
            msrs: msrs.collect(),
        })
    }

    pub(super) fn restore(&self, vcpu: &VcpuFd) -> Result<(), VmError> {
        vcpu.set_mp_state(self.mp_state).map_err(VmError::kvm(WRITE))?;
        vcpu.set_regs(&self.regs).map_err(VmError::kvm(WRITE))?;
        vcpu.set_sregs(&self.sregs).map_err(VmError::kvm(WRITE))?;
        vcpu.set_fpu(&self.fpu).map_err(VmError::kvm(WRITE))?;
        if let Some(xcrs) = &self.xcrs {
            vcpu.set_xcrs(xcrs).map_err(VmError::kvm(WRITE))?;
        }
        // Those that can only be read cannot have changed.
        for msrs in self.msrs.iter().filter_map(|entry| one(*entry)) {
            let _ = vcpu.set_msrs(&msrs);
        }
        // After the APIC's base, which is among the special registers.
        vcpu.set_lapic(&self.lapic).map_err(VmError::kvm(WRITE))?;
        vcpu.set_vcpu_events(&self.events).map_err(VmError::kvm(WRITE))?;
        vcpu.set_debug_regs(&self.debug).map_err(VmError::kvm(WRITE))
    }
}

fn one(entry: kvm_msr_entry) -> Option<Msrs> {
    Msrs::from_entries(&[entry]).ok()
}

/// The state of the machine's interrupt controllers.
pub(super) struct ChipState([kvm_irqchip; 3]);

impl ChipState {
    pub(super) fn save(vm: &VmFd) -> Result<Self, VmError> {
        let chips = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];
        let mut states = chips.map(|chip_id| kvm_irqchip { chip_id, ..Default::default() });
        for state in &mut states {
            vm.get_irqchip(state).map_err(VmError::kvm("read the interrupt controllers"))?;
        }
        Ok(Self(states))
    }

    pub(super) fn restore(&self, vm: &VmFd) -> Result<(), VmError> {
        self.0.iter().try_for_each(|state| {
            vm.set_irqchip(state).map_err(VmError::kvm("set the interrupt controllers"))
        })
    }
}

/// Does what firmware would have: the pins of the local APIC, memory types, fast string operations.
pub(super) fn as_firmware_leaves_it(vcpu: &VcpuFd) -> Result<(), VmError> {
    const LINT0: usize = 0x350;
    const LINT1: usize = 0x360;
    const EXTERNAL: u32 = 7 << 8;
    const NON_MASKABLE: u32 = 4 << 8;
    const IA32_MISC_ENABLE: u32 = 0x1a0;
    const FAST_STRINGS: u64 = 1;
    const IA32_MTRR_DEF_TYPE: u32 = 0x2ff;
    const ENABLED_WRITE_BACK: u64 = 1 << 11 | 6;

    let mut lapic = vcpu.get_lapic().map_err(VmError::kvm(READ))?;
    for (register, mode) in [(LINT0, EXTERNAL), (LINT1, NON_MASKABLE)] {
        for (byte, value) in lapic.regs.iter_mut().skip(register).zip(mode.to_le_bytes()) {
            *byte = std::ffi::c_char::from_ne_bytes([value]);
        }
    }
    vcpu.set_lapic(&lapic).map_err(VmError::kvm(WRITE))?;
    let msrs = [(IA32_MISC_ENABLE, FAST_STRINGS), (IA32_MTRR_DEF_TYPE, ENABLED_WRITE_BACK)];
    for (index, data) in msrs {
        // A KVM without them has a guest that does not see them either.
        if let Some(msrs) = one(kvm_msr_entry { index, data, ..Default::default() }) {
            let _ = vcpu.set_msrs(&msrs);
        }
    }
    Ok(())
}
