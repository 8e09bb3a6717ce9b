//! The few calls that the compiler cannot check.

#![expect(unsafe_code, reason = "KVM's interface is shared memory and ioctls")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::ptr::NonNull;
use std::time::Duration;

use kvm_bindings::{
    KVM_MEM_READONLY, KVMIO, kvm_ioeventfd, kvm_ioeventfd_flag_nr_datamatch,
    kvm_ioeventfd_flag_nr_deassign, kvm_ioeventfd_flag_nr_pio, kvm_run,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Error, VmFd};
use vm_memory::FileOffset;
use vmm_sys_util::ioctl::ioctl_with_ref;
use vmm_sys_util::ioctl_iow_nr;

ioctl_iow_nr!(KVM_IOEVENTFD, KVMIO, 0x79, kvm_ioeventfd);

/// A piece of this process's memory in the guest's address space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Slot {
    pub(crate) number: u32,
    pub(crate) guest: u64,
    pub(crate) len: u64,
    pub(crate) read_only: bool,
}

/// Maps `host` into the guest.
///
/// # Safety
/// The memory must be mapped, and must stay so until the slot is unmapped or the machine is gone.
pub(crate) unsafe fn map(vm: &VmFd, slot: Slot, host: NonNull<u8>) -> Result<(), Error> {
    let region = kvm_userspace_memory_region {
        slot: slot.number,
        flags: if slot.read_only { KVM_MEM_READONLY } else { 0 },
        guest_phys_addr: slot.guest,
        memory_size: slot.len,
        userspace_addr: host.as_ptr().addr() as u64,
    };
    // SAFETY: the caller's promise.
    unsafe { vm.set_user_memory_region(region) }
}

/// Takes a slot out of the guest's address space.
pub(crate) fn unmap(vm: &VmFd, slot: Slot) -> Result<(), Error> {
    let region =
        kvm_userspace_memory_region { slot: slot.number, memory_size: 0, ..Default::default() };
    // SAFETY: a slot of no bytes names no memory.
    unsafe { vm.set_user_memory_region(region) }
}

/// A guest write that becomes a write to an eventfd.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IoEvent {
    pub(crate) address: u64,
    pub(crate) port: bool,
    /// Width that it answers to, 0 for any.
    pub(crate) len: u8,
    pub(crate) value: Option<u64>,
    pub(crate) event: RawFd,
}

/// Registers an I/O event, or takes it away. (`VmFd`'s own call cannot say "this width, any value".)
pub(crate) fn io_event(vm: &VmFd, event: IoEvent, assign: bool) -> Result<(), Error> {
    let flag = |set: bool, number: u32| u32::from(set) << number;
    let request = kvm_ioeventfd {
        datamatch: event.value.unwrap_or(0),
        addr: event.address,
        len: event.len.into(),
        fd: event.event,
        flags: flag(event.value.is_some(), kvm_ioeventfd_flag_nr_datamatch)
            | flag(event.port, kvm_ioeventfd_flag_nr_pio)
            | flag(!assign, kvm_ioeventfd_flag_nr_deassign),
        ..Default::default()
    };
    // SAFETY: the descriptor is a machine's, and the call reads `request` alone.
    let result = unsafe { ioctl_with_ref(&vm.as_raw_fd(), KVM_IOEVENTFD(), &request) };
    if result == 0 { Ok(()) } else { Err(Error::last()) }
}

/// The shared page of a vCPU.
#[derive(Clone, Copy)]
pub(crate) struct SharedRun(NonNull<kvm_run>);

impl SharedRun {
    /// The page of `vcpu`, to be used no longer than that.
    pub(crate) fn new(run: &mut kvm_run) -> Self {
        Self(NonNull::from(run))
    }

    /// After an exit for port I/O: the width of each of its accesses, in bytes.
    ///
    /// # Safety
    /// The vCPU must exist and not be running.
    pub(crate) unsafe fn port_width(self) -> u8 {
        // SAFETY: the page is mapped as long as the vCPU exists. Every bit pattern is an integer.
        unsafe { (&raw const (*self.0.as_ptr()).__bindgen_anon_1.io.size).read_volatile() }
    }

    /// After an exit for an internal error: what kind.
    ///
    /// # Safety
    /// As above.
    pub(crate) unsafe fn suberror(self) -> u32 {
        // SAFETY: as above.
        unsafe {
            (&raw const (*self.0.as_ptr()).__bindgen_anon_1.internal.suberror).read_volatile()
        }
    }
}

/// CPU time that the calling thread has used, the guest's included.
pub(crate) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for writes; the clock always exists, and else `time` stays zero.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// A file of `len` bytes that is nowhere but in memory.
pub(crate) fn memory_file(len: u64) -> io::Result<FileOffset> {
    // SAFETY: the name is a C string; the call has no other memory argument.
    let fd = unsafe { libc::memfd_create(c"paraslot-memory".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: `fd` was just made and belongs to nobody else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len)?;
    Ok(FileOffset::new(file, 0))
}

/// Asks for large pages. Without them everything works, slower.
///
/// # Safety
/// The memory must be a mapping of that length.
pub(crate) unsafe fn advise_huge(memory: NonNull<u8>, len: usize) {
    // SAFETY: the advice changes no contents.
    unsafe { libc::madvise(memory.as_ptr().cast(), len, libc::MADV_HUGEPAGE) };
}
