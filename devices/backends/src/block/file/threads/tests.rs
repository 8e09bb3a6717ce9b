//! Cancelling while the pool's only thread is held up.

use super::*;
use crate::block::file::gate::Entry;
use crate::block::file::tests::{cancelled, flush};
use crate::block::testing::{GuestPages, finish};

const MIB: u64 = 1 << 20;

// What waits for a thread is taken out; what a thread has begun is not.
#[test]
fn threads_let_go_of_what_none_has_begun() {
    let image = Arc::new(Image::of(tempfile::tempfile().unwrap(), MIB));
    image.file.set_len(MIB).unwrap();
    let guest = GuestPages::new(0x4000);
    let pool = Arc::new(Pool::new(image.clone(), 1).unwrap());
    let [mut queue, mut other] =
        [4, 4].map(|depth| ThreadsQueue::new(pool.clone(), depth).unwrap());
    // The one thread is stopped at the gate.
    image.sync.enter(Entry::Shared);
    queue.submit(flush(1)).unwrap();
    queue.commit();
    let bell = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
    while image.sync.try_enter(Entry::Shared, false, &bell) {
        image.sync.leave(Entry::Shared);
    }
    for (queue, byte) in [(&mut queue, 5), (&mut other, 6)] {
        guest.write(0, &[byte; 512]);
        queue.submit(guest.write_request(2, 0, &[(0, 512)])).unwrap();
        queue.commit();
    }
    queue.submit(guest.write_request(3, 512, &[(0, 512)])).unwrap();
    queue.cancel(1);
    queue.cancel(2);
    queue.cancel(3);
    let mut completions = Vec::new();
    queue.complete(&mut completions);
    assert_eq!(cancelled(&completions), [(2, true), (3, true)]);
    assert_eq!(queue.in_flight(), 1);
    image.sync.leave(Entry::Shared);
    assert_eq!(cancelled(&finish(&mut queue)), [(1, false)]);
    assert_eq!(cancelled(&finish(&mut other)), [(2, false)]);
    let mut written = [0; 1024];
    std::os::unix::fs::FileExt::read_exact_at(&image.file, &mut written, 0).unwrap();
    assert_eq!(written, [[6; 512], [0; 512]].concat()[..]);
    // It can still be dropped: nothing runs.
    queue.submit(flush(4)).unwrap();
    queue.commit();
    queue.cancel(4);
    drop((queue, other));
}
