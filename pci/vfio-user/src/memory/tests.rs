use super::*;
use std::os::fd::AsFd;
use vm_memory::{Bytes, GuestAddress, GuestMemory, GuestMemoryMmap};

use crate::channel::{Channel, Nothing};
use crate::connection::End;
use crate::testing::{memory, word_at};
use crate::wire::{DmaAccess, Fields, Header, command, flags};

const MIB: u64 = 1 << 20;

fn range(address: u64, size: u64, offset: u64) -> Range {
    Range { address, size, offset, readable: true, writable: true }
}

fn lost() -> Arc<EventFd> {
    Arc::new(EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).unwrap())
}

fn fd(file: &std::fs::File) -> OwnedFd {
    file.as_fd().try_clone_to_owned().unwrap()
}

#[test]
fn memory_is_where_its_file_has_it() {
    let (shared, file, lost) = (Shared::new(), memory(MIB), lost());
    shared.map(range(0x10000, 0x2000, 0x4000), fd(&file), &lost).unwrap();
    shared.map(range(0x12000, 0x1000, 0x1000), fd(&file), &lost).unwrap();
    shared.map(range(0x1000, 0x1000, 0x8000), fd(&file), &lost).unwrap();
    let space = shared.space();
    let seen = space.memory();
    // Over the border of two of them.
    seen.write_slice(&[7; 16], GuestAddress(0x11ff8)).unwrap();
    assert_eq!(word_at(&file, 0x5ff8), u64::from_le_bytes([7; 8]));
    assert_eq!(word_at(&file, 0x1000), u64::from_le_bytes([7; 8]));
    seen.write_slice(&[9; 8], GuestAddress(0x1000)).unwrap();
    assert_eq!(word_at(&file, 0x8000), u64::from_le_bytes([9; 8]));
    for address in [0, 0xff9, 0x1ff9, 0x12ff9, u64::MAX - 3, u64::MAX] {
        assert!(seen.write_slice(&[1; 8], GuestAddress(address)).is_err(), "{address:#x}");
    }
    assert!(shared.has(0x12000, 0x1000) && !shared.has(0x12000, 0x2000) && !shared.has(0, 0));
}

// lvu 75a0ac2 and its like: sizes and offsets that the client says.
#[test]
fn what_cannot_be_mapped_is_refused() {
    let (shared, file, lost) = (Shared::new(), memory(MIB), lost());
    let map = |range| shared.map(range, fd(&file), &lost);
    map(range(0x10000, 0x10000, 0)).unwrap();
    let malformed = Err(DmaError::Malformed);
    for (address, size, offset) in [
        (0, 0, 0),
        (0x800, 0x1000, 0),
        (0, 0x1800, 0),
        (0, 0x1000, 0x200),
        (0x40000, 2 * MIB, 0),
        (0x40000, 0x1000, MIB),
        (0x40000, MIB, 0x1000),
        (0x40000, 0x1000, !0xfff),
        (!0xfff, 0x1000, 0),
        (!0xfff, 0x2000, 0),
        (0x40000, !0xfff, 0),
    ] {
        assert_eq!(
            map(range(address, size, offset)),
            malformed,
            "{address:#x} {size:#x} {offset:#x}"
        );
    }
    let nothing = Range { readable: false, writable: false, ..range(0, 0x1000, 0) };
    assert_eq!(map(nothing), malformed);
    for (address, size) in [
        (0x10000, 0x10000),
        (0x1f000, 0x1000),
        (0xf000, 0x2000),
        (0xf000, 0x20000),
        (0x12000, 0x1000),
    ] {
        assert_eq!(map(range(address, size, 0)), Err(DmaError::Exists), "{address:#x} {size:#x}");
    }
    map(range(0xf000, 0x1000, 0)).unwrap();
    map(range(0x20000, 0x1000, 0)).unwrap();
    let at = range(0x80000, 0x1000, 0);
    let (socket, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    assert_eq!(shared.map(at, socket.into(), &lost), malformed);
    let null = std::fs::File::open("/dev/zero").unwrap();
    assert_eq!(shared.map(at, fd(&null), &lost), malformed);
    let read_only = sys_read_only(&file);
    assert_eq!(shared.map(at, fd(&read_only), &lost), Err(DmaError::Kernel(libc::EACCES)));
    let for_reads = Range { writable: false, ..at };
    assert_eq!(shared.map(for_reads, fd(&read_only), &lost), Ok(()));
}

fn sys_read_only(file: &std::fs::File) -> std::fs::File {
    crate::sys::read_only(file).unwrap()
}

// A guest that has its device write to where the client allows reads alone.
#[test]
fn memory_is_read_and_written_as_allowed() {
    let (shared, file, lost) = (Shared::new(), memory(MIB), lost());
    let map = |address, readable, writable| {
        let range = Range { readable, writable, ..range(address, 0x1000, 0) };
        shared.map(range, fd(&file), &lost).unwrap();
    };
    map(0x1000, true, false);
    map(0x2000, true, true);
    map(0x3000, false, true);
    let seen = shared.space().memory();
    let allowed = |address, len, access| seen.check_range(GuestAddress(address), len, access);
    for (access, from, to) in [
        (Permissions::Read, 0x1000, 0x3000),
        (Permissions::Write, 0x2000, 0x4000),
        (Permissions::ReadWrite, 0x2000, 0x3000),
    ] {
        for address in (0..0x5000_u64).step_by(0x800) {
            let inside = address >= from && address + 0x800 <= to;
            assert_eq!(allowed(address, 0x800, access), inside, "{address:#x} {access:?}");
            assert_eq!(
                seen.get_slices(GuestAddress(address), 0x800, access)
                    .is_ok_and(|mut slices| { slices.all(|slice| slice.is_ok()) }),
                inside
            );
        }
    }
    assert!(seen.write_slice(&[1; 16], GuestAddress(0x1ff8)).is_err());
    assert!(seen.read_slice(&mut [1; 16], GuestAddress(0x2ff8)).is_err());
    assert_eq!(word_at(&file, 0xff8), 0, "nothing of it was written");
}

// spdk#2100: unmapped while somebody uses it.
#[test]
fn memory_that_is_taken_away_is_out_of_reach_of_who_still_has_it() {
    let (shared, file, lost) = (Shared::new(), memory(MIB), lost());
    shared.map(range(0x1000, 0x1000, 0), fd(&file), &lost).unwrap();
    shared.map(range(0x2000, 0x1000, 0x1000), fd(&file), &lost).unwrap();
    let before = shared.space().memory();
    before.write_slice(&[1; 8], GuestAddress(0x1000)).unwrap();
    assert_eq!(shared.unmap(Some((0x1000, 0x2000))), Err(DmaError::Missing));
    shared.unmap(Some((0x1000, 0x1000))).unwrap();
    assert!(shared.space().memory().write_slice(&[2; 8], GuestAddress(0x1000)).is_err());
    before.write_slice(&[3; 8], GuestAddress(0x1000)).unwrap();
    assert_eq!(word_at(&file, 0), u64::from_le_bytes([1; 8]));
    // Others are as they were.
    before.write_slice(&[4; 8], GuestAddress(0x2000)).unwrap();
    assert_eq!(word_at(&file, 0x1000), u64::from_le_bytes([4; 8]));
    shared.unmap(None).unwrap();
    before.write_slice(&[5; 8], GuestAddress(0x2000)).unwrap();
    assert_eq!(word_at(&file, 0x1000), u64::from_le_bytes([4; 8]));
    assert_eq!(shared.unmap(None), Ok(()));
    drop(before);
    assert_eq!(Arc::strong_count(&lost), 1);
}

#[test]
fn there_is_a_most() {
    let (shared, file, lost) = (Shared::new(), memory(MIB), lost());
    for index in 0..MAX_MAPS as u64 {
        shared.map(range(index * 0x2000, 0x1000, 0), fd(&file), &lost).unwrap();
    }
    let more = shared.map(range(0x1000, 0x1000, 0), fd(&file), &lost);
    assert_eq!(more, Err(DmaError::TooMany));
    shared.unmap(None).unwrap();
    shared.map(range(0x1000, 0x1000, 0), fd(&file), &lost).unwrap();
}

// A client that shortens its file: SIGBUS, for whoever has it mapped.
#[test]
fn memory_that_is_cut_off_becomes_zeroes_and_is_told_of() {
    survive_lost_memory().unwrap();
    survive_lost_memory().unwrap();
    let (shared, file, here) = (Shared::new(), memory(MIB), lost());
    shared.map(range(0, 0x4000, 0), fd(&file), &here).unwrap();
    let other_file = memory(MIB);
    let there = lost();
    let other = Shared::new();
    other.map(range(0, 0x1000, 0), fd(&other_file), &there).unwrap();
    let (seen, others) = (shared.space().memory(), other.space().memory());
    seen.write_slice(&[7; 8], GuestAddress(0)).unwrap();
    file.set_len(0x1000).unwrap();
    seen.write_slice(&[7; 8], GuestAddress(0x3ff8)).unwrap();
    assert_eq!(here.read().unwrap(), 1);
    let mut back = [1; 8];
    seen.read_slice(&mut back, GuestAddress(0)).unwrap();
    assert_eq!(back, [0; 8], "the client's memory is gone");
    assert_eq!(word_at(&file, 0), u64::from_le_bytes([7; 8]));
    // Nobody else is concerned.
    others.write_slice(&[6; 8], GuestAddress(0)).unwrap();
    assert_eq!(word_at(&other_file, 0), u64::from_le_bytes([6; 8]));
    assert!(there.read().is_err());
}

/// Memory that is nobody's client's, of which the file is shortened.
fn lose_memory_of_our_own() {
    survive_lost_memory().unwrap();
    let file = memory(MIB);
    let len = usize::try_from(MIB).unwrap();
    let at = vm_memory::FileOffset::new(file.try_clone().unwrap(), 0);
    let range = (GuestAddress(0), len, Some(at));
    let own = GuestMemoryMmap::<()>::from_ranges_with_files([range]).unwrap();
    file.set_len(0).unwrap();
    own.write_slice(&[1; 8], GuestAddress(0)).unwrap();
}

#[test]
fn what_is_lost_otherwise_ends_the_process_as_before() {
    use std::os::unix::process::ExitStatusExt;
    let name = "memory::tests::what_is_lost_otherwise_ends_the_process_as_before";
    let Some(output) = crate::testing::alone(name, lose_memory_of_our_own) else { return };
    assert_eq!(output.status.signal(), Some(libc::SIGBUS));
}

/// A client that has memory of its own, and does what it is asked for.
struct Lender {
    memory: Arc<GuestMemoryMmap>,
    remote: Arc<Remote>,
    channel: Arc<Channel>,
    thread: Option<std::thread::JoinHandle<u64>>,
}

impl Lender {
    fn new(len: u64) -> Self {
        let (here, there) = std::os::unix::net::UnixStream::pair().unwrap();
        let channel = |socket| Arc::new(Channel::new(socket, Box::new(Nothing)));
        let (channel, client) = (channel(here), channel(there));
        let limit = std::time::Duration::from_secs(30);
        let remote = Arc::new(Remote::new(channel.clone(), 1 << 16, limit).unwrap());
        let len = usize::try_from(len).unwrap();
        let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), len)]).unwrap();
        let memory = Arc::new(memory);
        let theirs = memory.clone();
        let thread = std::thread::spawn(move || {
            let mut count = 0;
            while let Ok(message) = client.command() {
                let mut fields = Fields(&message.payload);
                let access = DmaAccess::parse(&mut fields).unwrap();
                let (mut answer, at) = (Vec::new(), GuestAddress(access.address));
                access.put(&mut answer);
                if message.header.command == command::DMA_READ {
                    answer.resize(16 + usize::try_from(access.count).unwrap(), 0);
                    theirs.read_slice(&mut answer[16..], at).unwrap();
                } else {
                    theirs.write_slice(fields.rest(), at).unwrap();
                }
                let header = Header { flags: flags::REPLY, ..message.header };
                client.send(header, &answer, &[], None).unwrap();
                count += 1;
            }
            count
        });
        Self { memory, remote, channel, thread: Some(thread) }
    }

    /// How many messages it took.
    fn end(mut self) -> u64 {
        self.channel.end(End::Closed);
        self.thread.take().unwrap().join().unwrap()
    }

    fn word(&self, address: u64) -> u64 {
        self.memory.read_obj(GuestAddress(address)).unwrap()
    }
}

#[test]
fn lent_memory_is_what_the_client_has() {
    let (shared, client) = (Shared::new(), Lender::new(4 * MIB));
    shared.map_remote(range(0, 2 * MIB, 0), &client.remote).unwrap();
    let (file, lost) = (memory(MIB), lost());
    shared.map(range(2 * MIB, MIB, 0), fd(&file), &lost).unwrap();
    shared.map_remote(range(3 * MIB, MIB, 0), &client.remote).unwrap();
    let seen = shared.space().memory();
    let at = GuestAddress;
    let data: Vec<u8> = (0..300_000_u32).map(|index| (index % 251) as u8).collect();
    seen.write_slice(&data, at(2 * MIB - 150_000)).unwrap();
    let mut back = vec![0; 150_000];
    client.memory.read_slice(&mut back, at(2 * MIB - 150_000)).unwrap();
    assert!(back == data[..150_000]);
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut back, 0).unwrap();
    assert!(back == data[150_000..]);
    let mut back = vec![0; 300_000];
    seen.read_slice(&mut back, at(2 * MIB - 150_000)).unwrap();
    assert!(back == data);
    // Each look is a look of its own.
    for value in [5_u16, 6] {
        client.memory.write_obj(value, at(0x1002)).unwrap();
        let load = seen.load::<u16>(at(0x1002), std::sync::atomic::Ordering::Acquire);
        assert_eq!(load.unwrap(), value);
    }
    seen.store(7_u32, at(3 * MIB), std::sync::atomic::Ordering::Release).unwrap();
    assert_eq!(client.word(3 * MIB), 7);
    // Only what was written is sent.
    client.memory.write_obj(u64::MAX, at(0x2000)).unwrap();
    seen.write_slice(&[1], at(0x2003)).unwrap();
    assert_eq!(client.word(0x2000), 0xffff_ffff_01ff_ffff);
    // By way of addresses of this process.
    let slices: Vec<_> = seen.get_slices(at(0x3000), 64, Permissions::Write).unwrap().collect();
    let slice = slices[0].as_ref().unwrap();
    slice.subslice(8, 8).unwrap().write_obj(9_u64, 0).unwrap();
    assert_eq!((client.word(0x3000), client.word(0x3008)), (0, 9));
    let before = client.word(MIB);
    shared.unmap(Some((0, 2 * MIB))).unwrap();
    for mut slice in seen.get_slices(at(0), 8, Permissions::No).unwrap().flatten() {
        slice = slice.subslice(0, 8).unwrap();
        slice.write_obj(1_u64, 0).unwrap();
    }
    assert!(
        seen.write_slice(&[1; 8], at(MIB)).is_err() && seen.read_slice(&mut [0; 8], at(0)).is_err()
    );
    assert_eq!((client.word(MIB), client.word(0)), (before, 0));
    // Whoever has it does not keep the connection.
    shared.unmap(None).unwrap();
    assert_eq!(Arc::strong_count(&client.remote), 1);
    drop(seen);
    // Three of 64 KiB each way but for the last, two looks, and four small ones.
    assert_eq!(client.end(), 3 + 3 + 2 + 1 + 1 + 1);
}

// A client with more memory than there is room for here.
#[test]
fn pages_that_stand_for_lent_memory_are_bounded_and_come_back() {
    const PAGES: u64 = 256;
    let room = Room::small(16, 64, 100);
    let shared = Shared::with_room(room.clone());
    let client = Lender::new(PAGES * PAGE);
    shared.map_remote(range(0, PAGES * PAGE, 0), &client.remote).unwrap();
    let space = shared.space();
    let page = |index: u64| GuestAddress(index % PAGES * PAGE);
    // One unit of work after another: no more than a generation, and what one of them takes beyond it.
    for index in 0..3 * PAGES {
        let memory = space.memory();
        memory.write_obj(index, page(index)).unwrap();
        assert_eq!(memory.read_obj::<u64>(page(index)).unwrap(), index);
        assert_eq!(client.word(page(index).0), index);
        assert!(room.used() <= 16, "{}", room.used());
    }
    // All in one.
    let memory = space.memory();
    let before = room.used();
    let fitted = (0..PAGES).take_while(|index| memory.write_obj(1_u64, page(*index)).is_ok());
    let fitted = fitted.count() as u64;
    assert!((48..=64).contains(&fitted), "{fitted} with {before} in use");
    for _ in 0..3 {
        assert!(memory.write_obj(1_u64, page(fitted)).is_err(), "asked for again");
    }
    assert_eq!(room.used(), 64);
    memory.write_obj(2_u64, page(3)).unwrap();
    assert_eq!(client.word(page(3).0), 2, "what is in use goes on");
    assert!(memory.write_slice(&[0; 65 * 4096], page(100)).is_err());
    // Those who come have pages of their own when those before are gone.
    let next = space.memory();
    assert!(next.write_obj(3_u64, page(99)).is_err());
    drop(memory);
    next.write_obj(3_u64, page(99)).unwrap();
    assert_eq!((client.word(page(99).0), room.used()), (3, 1));
    shared.unmap(None).unwrap();
    drop(next);
    assert_eq!(room.used(), 0);
    client.end();
}

// A client that lends memory in many pieces, each of which is a mapping, while much is in flight.
#[test]
fn mappings_that_stand_for_lent_memory_are_bounded() {
    let shared = Shared::with_room(Room::small(1, 1000, 32));
    let client = Lender::new(8 * PAGE);
    for index in 0..8 {
        shared.map_remote(range(index * PAGE, PAGE, 0), &client.remote).unwrap();
    }
    let space = shared.space();
    let mut kept = Vec::new();
    let mut places = std::collections::BTreeSet::new();
    for round in 0..20_u64 {
        let memory = space.memory();
        memory.write_obj(round, GuestAddress(0)).unwrap();
        assert_eq!(client.word(0), round);
        places.insert(std::ptr::from_ref(&*memory).addr());
        kept.push(memory);
    }
    assert_eq!(places.len(), 4);
    // They are let go, and there is another.
    let last = kept.pop().unwrap();
    kept.clear();
    let next = space.memory();
    assert!(!std::ptr::eq(&*next, &*last));
    next.write_obj(1_u64, GuestAddress(7 * PAGE)).unwrap();
    assert_eq!(client.word(7 * PAGE), 1);
    client.end();
}

#[test]
fn lent_memory_has_a_most() {
    let (shared, client) = (Shared::new(), Lender::new(MIB));
    let map = |address, size| shared.map_remote(range(address, size, 0), &client.remote);
    map(0, MAX_LENT - PAGE).unwrap();
    assert_eq!(map(1 << 41, 2 * PAGE), Err(DmaError::TooMany));
    assert_eq!(map(PAGE, PAGE), Err(DmaError::Exists));
    map(1 << 41, PAGE).unwrap();
    assert_eq!(map(1 << 42, PAGE), Err(DmaError::TooMany));
    shared.unmap(Some((1 << 41, PAGE))).unwrap();
    map(1 << 42, PAGE).unwrap();
    client.end();
}
