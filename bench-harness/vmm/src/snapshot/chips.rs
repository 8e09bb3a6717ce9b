//! The machine's interrupt controllers, and KVM's clock.

use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip,
};
use kvm_ioctls::VmFd;

use super::SnapshotError;
use super::packed::Packed;
use crate::VmError;

const CHIPS: [u32; 3] = [KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, KVM_IRQCHIP_IOAPIC];

/// The interrupt controllers that vCPUs share.
pub(crate) type Chips = Vec<Packed<kvm_irqchip>>;

/// Their states.
pub(crate) fn save_chips(vm: &VmFd) -> Result<Chips, VmError> {
    let read = |chip_id| {
        let mut chip = kvm_irqchip { chip_id, ..Default::default() };
        vm.get_irqchip(&mut chip).map_err(VmError::kvm("read the interrupt controllers"))?;
        Ok(Packed(chip))
    };
    CHIPS.into_iter().map(read).collect()
}

/// Has them be as they were. What the I/O APIC has not delivered yet it delivers now, if it may.
pub(crate) fn restore_chips(vm: &VmFd, chips: &Chips) -> Result<(), VmError> {
    if !chips.iter().map(|Packed(chip)| chip.chip_id).eq(CHIPS) {
        return Err(SnapshotError::mismatch("it has other interrupt controllers").into());
    }
    chips.iter().try_for_each(|Packed(chip)| {
        vm.set_irqchip(chip).map_err(VmError::kvm("set the interrupt controllers"))
    })
}

/// KVM's clock, in nanoseconds.
pub(crate) fn read_clock(vm: &VmFd) -> Result<u64, VmError> {
    Ok(vm.get_clock().map_err(VmError::kvm("read its clock"))?.clock)
}

/// Sets it. It goes on from there: the guest does not see the time that has passed.
pub(crate) fn restore_clock(vm: &VmFd, clock: u64) -> Result<(), VmError> {
    let clock = kvm_clock_data { clock, ..Default::default() };
    vm.set_clock(&clock).map_err(VmError::kvm("set its clock"))
}
