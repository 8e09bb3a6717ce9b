//! What the standard library does not tell of processes and processors.

#![expect(unsafe_code, reason = "affinity, CPU clocks and interfaces have no safe interface")]

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

/// The processors that the calling thread may run on, in order.
pub(crate) fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: an all-zero cpu_set_t is the empty set.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is ours and of the size given; pid 0 is the calling thread.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the numbers are below the set's size in bits.
    let allowed = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    Ok((0..8 * size_of_val(&set)).filter(allowed).collect())
}

/// Does something while files are made with these permissions taken from them. All of the process's are, so it
/// is for when there is nobody else who makes any.
pub(crate) fn with_file_mask<T>(mask: libc::mode_t, act: impl FnOnce() -> T) -> T {
    // SAFETY: no memory is involved.
    let before = unsafe { libc::umask(mask) };
    let result = act();
    // SAFETY: as above.
    unsafe { libc::umask(before) };
    result
}

/// CPU time that all threads of this process have used, the kernel's work for them included. `None`
/// if there is no such clock.
pub(crate) fn process_cpu_time() -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is ours.
    if unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) } != 0 {
        return None;
    }
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
    Some(Duration::new(seconds, nanoseconds))
}

/// The family of IPv4's addresses, and the flag of an interface that is up.
const AF_INET: libc::sa_family_t = 2;
const UP: libc::c_short = 1;

/// Moves the calling thread to a network namespace of its own, in which there is nothing yet.
///
/// # Errors
/// When this process may not, or the kernel has none.
pub(crate) fn leave_network() -> io::Result<()> {
    // SAFETY: no memory is involved.
    done(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// Gives a network interface of the calling thread's namespace an address, in a network of `prefix` bits,
/// and sets it up.
///
/// # Errors
/// When there is none of that name, or this process may not.
pub(crate) fn set_up_interface(name: &str, address: Ipv4Addr, prefix: u32) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: an ifreq is integers and bytes, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    let (_terminator, room) =
        request.ifr_name.split_last_mut().ok_or(io::ErrorKind::InvalidInput)?;
    if name.len() > room.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in room.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let ask = |code: libc::Ioctl, request: &mut libc::ifreq| {
        // SAFETY: these ioctls read and write one ifreq; its name ends with a zero byte.
        done(unsafe { libc::ioctl(socket.as_raw_fd(), code, &raw mut *request) })
    };
    let mask =
        Ipv4Addr::from_bits(u32::MAX.checked_shl(32_u32.saturating_sub(prefix)).unwrap_or(0));
    for (code, address) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, mask)] {
        let mut value = libc::sockaddr { sa_family: AF_INET, sa_data: [0; 14] };
        // Behind the port.
        for (to, from) in value.sa_data.iter_mut().skip(2).zip(address.octets()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_addr = value;
        ask(code, &mut request)?;
    }
    ask(libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the call has written the flags.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | UP;
    ask(libc::SIOCSIFFLAGS, &mut request)
}

fn done(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paraslot_device::executor::pin_thread;

    #[test]
    fn a_thread_is_pinned_where_it_may_run_and_nowhere_else() {
        std::thread::spawn(|| {
            let cpus = allowed_cpus().unwrap();
            let last = *cpus.last().unwrap();
            pin_thread(0, last).unwrap();
            assert_eq!(allowed_cpus().unwrap(), [last]);
            assert!(pin_thread(0, usize::MAX).is_err());
            assert_eq!(allowed_cpus().unwrap(), [last]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn an_interface_that_is_not_there_is_not_set_up() {
        let set_up = |name| set_up_interface(name, Ipv4Addr::new(10, 9, 0, 1), 30);
        assert!(set_up("paraslot-no").is_err());
        let long = set_up("a name of more than 15 characters").unwrap_err();
        assert_eq!(long.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn cpu_time_rises_with_work() {
        let before = process_cpu_time().unwrap();
        let mut sum = 0u64;
        while process_cpu_time().unwrap() == before {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(process_cpu_time().unwrap() > before);
    }
}
