use super::*;
use std::sync::atomic::Ordering::Relaxed;

use paraslot_device::{Host, ManualExecutor};
use paraslot_pci::PciDevice;
use vm_memory::{FileOffset, GuestMemoryMmap};

use crate::VfioUser;
use crate::client::tests::Machine;
use crate::testing::{Bench, memory, reg, until};

type Memory = Arc<GuestMemoryMmap>;

/// Two pages that border on each other, and one elsewhere.
fn lent() -> Lent<Memory> {
    let parts = [(0x1000, 0x1000), (0x2000, 0x1000), (0x8000, 0x1000)];
    let memory = parts.map(|(start, len)| (GuestAddress(start), len));
    let memory = GuestMemoryMmap::from_ranges(&memory).unwrap();
    // The server was not told of all of it.
    Lent::new(Arc::new(memory), vec![0x2000..0x3000, 0x1000..0x2000, 0x8000..0x8800])
}

fn ask(lent: &Lent<Memory>, command: u16, flags: u32, payload: Vec<u8>) -> Option<(u32, Vec<u8>)> {
    let header = Header { id: 9, command, size: 0, flags, error: 0 };
    let message = Message { header, payload, fds: Vec::new(), too_many_fds: false };
    let (header, payload) = lent.answer(&message)?;
    assert_eq!((header.id, header.command), (9, command));
    assert_eq!(header.flags, if header.error == 0 { 1 } else { 1 | 1 << 5 });
    Some((header.error, payload))
}

fn access(address: u64, count: u64, data: &[u8]) -> Vec<u8> {
    [&address.to_le_bytes(), &count.to_le_bytes()[..], data].concat()
}

#[test]
fn what_the_server_was_told_of_is_read_and_written() {
    let lent = lent();
    let data: Vec<u8> = (0..32).collect();
    let write = access(0x1ff0, 32, &data);
    assert_eq!(ask(&lent, command::DMA_WRITE, 0, write), Some((0, access(0x1ff0, 32, &[]))));
    let read = ask(&lent, command::DMA_READ, 0, access(0x1ff8, 16, &[]));
    assert_eq!(read, Some((0, access(0x1ff8, 16, &data[8..24]))));
    let silent = access(0x8000, 2, &[7, 8]);
    assert_eq!(ask(&lent, command::DMA_WRITE, flags::NO_REPLY, silent), None);
    let read = ask(&lent, command::DMA_READ, 0, access(0x8000, 2, &[]));
    assert_eq!(read, Some((0, access(0x8000, 2, &[7, 8]))));
    let nothing = access(0x8000, 0, &[]);
    assert_eq!(ask(&lent, command::DMA_READ, 0, nothing.clone()), Some((0, nothing.clone())));
    assert_eq!(ask(&lent, command::DMA_WRITE, 0, nothing.clone()), Some((0, nothing)));
}

#[test]
fn anything_else_is_refused() {
    let lent = lent();
    let refused = |command, payload: Vec<u8>, errno: i32| {
        let answer = ask(&lent, command, 0, payload.clone());
        assert_eq!(answer, Some((errno.cast_unsigned(), vec![])), "{command} {payload:?}");
    };
    for (address, count) in [
        (0xfff, 2_u64),
        (0x2fff, 2),
        (0x7ff0, 0x20),
        // Memory that is there, and was kept from the server.
        (0x87ff, 2),
        (0x8800, 1),
        (0x1000, 0x2001),
        (u64::MAX, 1),
        (u64::MAX - 1, 8),
        (0x4000, 1 << 20),
    ] {
        refused(command::DMA_READ, access(address, count, &[]), libc::EFAULT);
        let data = vec![1; usize::try_from(count).unwrap()];
        refused(command::DMA_WRITE, access(address, count, &data), libc::EFAULT);
    }
    for count in [(1 << 20) + 1, u64::MAX] {
        refused(command::DMA_READ, access(0x1000, count, &[]), libc::EINVAL);
        refused(command::DMA_WRITE, access(0x1000, count, &[0; 8]), libc::EINVAL);
    }
    for data in [&[][..], &[1; 7], &[1; 9]] {
        refused(command::DMA_WRITE, access(0x1000, 8, data), libc::EINVAL);
    }
    refused(command::DMA_READ, vec![0; 15], libc::EINVAL);
    refused(command::DMA_WRITE, vec![], libc::EINVAL);
    for command in [0, 1, command::DMA_MAP, command::REGION_READ, 13, 14, u16::MAX] {
        refused(command, access(0x1000, 8, &[0; 8]), libc::EOPNOTSUPP);
    }
    let memory = &lent.memory;
    assert_eq!(memory.read_obj::<u64>(GuestAddress(0x1000)).unwrap(), 0, "nothing was written");
}

#[test]
fn who_waits_for_the_server_and_the_attendant_answer_it() {
    let bench = Bench::new();
    let file = FileOffset::new(memory(0x1000), 0);
    let parts = [(GuestAddress(0), 0x1000, Some(file)), (GuestAddress(0x1000), 0x4000, None)];
    let memory: Memory = Arc::new(GuestMemoryMmap::from_ranges_with_files(parts).unwrap());
    let (machine, executor) = (Arc::new(Machine::default()), ManualExecutor::new());
    let host = Host {
        memory: memory.clone(),
        msi: machine.clone(),
        intx: machine,
        executor: Arc::new(executor.clone()),
    };
    let mut function = VfioUser::connect(&bench.path, host).unwrap();
    function.config_write(4, &[0x06, 0]);
    // In the middle of an access.
    for (address, word) in [(0x1000, 1_u64), (0x2ffc, 2), (0xffc, 3), (8, 4)] {
        memory.write_obj(word, GuestAddress(address)).unwrap();
        function.bar_write(0, reg::FETCH, &address.to_le_bytes());
        let mut fetched = [0; 8];
        function.bar_read(0, reg::SCRATCH, &mut fetched);
        assert_eq!(fetched, word.to_le_bytes());
    }
    // While nobody waits.
    function.log_writes().unwrap();
    function.bar_write(0, reg::TARGET, &0x3000_u64.to_le_bytes());
    let word = || memory.read_obj::<u64>(GuestAddress(0x3000)).unwrap();
    until("memory is written", || {
        executor.run(1);
        word() > 20
    });
    // The last write may be under way when it is stopped.
    function.pause().unwrap();
    assert_eq!(word(), bench.seen.writes.load(Relaxed));
    assert_eq!(function.take_dirty().unwrap(), [(0x3000, 0x1000)]);
    let last = word();
    executor.run(100);
    assert_eq!(word(), last);
    function.resume().unwrap();
    until("it goes on", || {
        executor.run(1);
        word() > last
    });
    let fault = function.fault();
    assert!(fault.take().is_none());
    drop(function);
    assert!(matches!(bench.end(), crate::End::Closed));
}

#[test]
fn an_attendant_of_a_connection_that_has_ended_has_nothing_to_do() {
    let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
    let channel = Arc::new(Channel::new(here, Box::new(crate::channel::Nothing)));
    let mut attendant = Attendant::new(channel, Arc::new(Nothing)).unwrap();
    let is_woken = |attendant: &Attendant| {
        let source = [(attendant.epoll.as_raw_fd(), crate::sys::For::Input)];
        crate::sys::wait(&source, 0).unwrap() == [true]
    };
    assert!(!is_woken(&attendant));
    let header = Header { id: 3, command: command::DMA_READ, ..Header::default() };
    let message = crate::connection::message(header, &[]);
    crate::sys::send(&there, &message, &[]).unwrap();
    assert!(is_woken(&attendant));
    assert_eq!(attendant.service(), Progress::More);
    let answer = crate::connection::Incoming::default().take(&there).unwrap().unwrap();
    assert_eq!((answer.header.id, answer.header.error), (3, libc::EOPNOTSUPP.cast_unsigned()));
    assert!(!is_woken(&attendant));
    drop(there);
    assert!(is_woken(&attendant));
    while is_woken(&attendant) {
        assert_eq!(attendant.service(), Progress::Idle);
    }
    assert_eq!(attendant.service(), Progress::Idle);
}
