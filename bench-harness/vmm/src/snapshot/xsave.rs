//! A vCPU's floating-point and vector state, whose size depends on the processor.

#![expect(unsafe_code, reason = "how much KVM reads and writes is not part of the call's type")]

use kvm_bindings::{Xsave, kvm_xsave, kvm_xsave2};
use kvm_ioctls::{Cap, VcpuFd, VmFd};
use vmm_sys_util::fam::FamStruct;
use zerocopy::IntoBytes;

use super::SnapshotError;
use crate::VmError;

/// What KVM had before it told.
const LEN_MIN: usize = size_of::<kvm_xsave>();
const WORD: usize = size_of::<<kvm_xsave2 as FamStruct>::Entry>();

/// Room for the state of a vCPU of `vm`, and how many bytes KVM has for it. This process enables no
/// feature at run time that would make that more.
fn room(vm: &VmFd) -> Result<(Xsave, usize), VmError> {
    let len = usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0).max(LEN_MIN);
    let xsave = Xsave::new((len - LEN_MIN).div_ceil(WORD));
    Ok((xsave.map_err(|_| VmError::Missing("room for a vCPU's state"))?, len))
}

/// Reads it.
pub(super) fn get(vm: &VmFd, vcpu: &VcpuFd) -> Result<Vec<u8>, VmError> {
    let (mut xsave, len) = room(vm)?;
    let read = if vm.check_extension(Cap::Xsave2) {
        // SAFETY: there is as much room as KVM has said that it needs.
        unsafe { vcpu.get_xsave2(&mut xsave) }.map_err(VmError::kvm("read the vCPU's state"))
    } else {
        let read = vcpu.get_xsave().map_err(VmError::kvm("read the vCPU's state"));
        // SAFETY: only the part of a fixed size is written.
        read.map(|state| unsafe { xsave.as_mut_fam_struct() }.xsave = state)
    };
    read?;
    let mut bytes = xsave.as_fam_struct_ref().xsave.as_bytes().to_vec();
    bytes.extend_from_slice(xsave.as_slice().as_bytes());
    bytes.truncate(len);
    Ok(bytes)
}

/// Sets it.
pub(super) fn set(vm: &VmFd, vcpu: &VcpuFd, state: &[u8]) -> Result<(), VmError> {
    let (mut xsave, len) = room(vm)?;
    let split = state.split_at_checked(LEN_MIN).filter(|_| state.len() == len);
    let Some((fixed, rest)) = split else {
        let what = format!("a vCPU's state has {} bytes, and here {len}", state.len());
        return Err(SnapshotError::mismatch(what).into());
    };
    // SAFETY: the length is not touched.
    let whole = unsafe { xsave.as_mut_fam_struct() };
    whole.xsave.as_mut_bytes().copy_from_slice(fixed);
    if let Some(room) = xsave.as_mut_slice().as_mut_bytes().get_mut(..rest.len()) {
        room.copy_from_slice(rest);
    }
    // SAFETY: there is as much as KVM has said that it reads.
    unsafe { vcpu.set_xsave2(&xsave) }.map_err(VmError::kvm("set the vCPU's state"))
}
