//! What a kernel expects of firmware.

use kvm_ioctls::VcpuFd;

use crate::VmError;
use crate::snapshot::Msr;

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

    let mut lapic = vcpu.get_lapic().map_err(VmError::kvm("read the vCPU's state"))?;
    for (register, mode) in [(LINT0, EXTERNAL), (LINT1, NON_MASKABLE)] {
        for (byte, value) in lapic.regs.iter_mut().skip(register).zip(mode.to_le_bytes()) {
            *byte = std::ffi::c_char::from_ne_bytes([value]);
        }
    }
    vcpu.set_lapic(&lapic).map_err(VmError::kvm("set the vCPU's state"))?;
    let msrs = [(IA32_MISC_ENABLE, FAST_STRINGS), (IA32_MTRR_DEF_TYPE, ENABLED_WRITE_BACK)];
    for (index, value) in msrs {
        // A KVM without them has a guest that does not see them either.
        let _ = Msr { index, value }.write(vcpu);
    }
    Ok(())
}
