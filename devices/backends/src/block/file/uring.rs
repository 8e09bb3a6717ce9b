//! Operations by io_uring: one ring for each queue, one system call for each batch.

#![expect(unsafe_code, reason = "submission entries point to memory that must outlive them")]

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode, squeue, types};
use paraslot_device::{Source, Sources};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

use super::gate::Entry;
use super::image::Image;
use super::plan::{Plan, Step, Workspace};
use crate::block::{BlockCompletion, BlockQueue, BlockRequest};

/// Most entries of a ring that the kernel makes.
const MAX_ENTRIES: u32 = 32768;
/// How often in a row the kernel may take nothing before the ring is given up.
const MAX_STALLS: u32 = 1000;
/// Most bytes that the kernel transfers at once.
const MAX_TRANSFER: usize = 0x7fff_f000;
const IORING_ENTER_GETEVENTS: u32 = 1;
/// In an entry's user data, beside the slot's number: it cancels the slot's operation.
const CANCEL: u64 = 1 << 63;

/// A queue on a ring of its own.
pub(super) struct UringQueue {
    ring: IoUring,
    image: Arc<Image>,
    event: Arc<EventFd>,
    /// The image's file is registered with the ring, as number 0, which spares the kernel counting
    /// references to it.
    registered: bool,
    depth: usize,
    slots: Vec<Slot>,
    free: Vec<usize>,
    /// Accepted, and not committed yet.
    held: VecDeque<usize>,
    /// User data of what is in the ring, and not taken by the kernel yet, in order.
    staged: VecDeque<u64>,
    /// Staged operations that are to be cancelled as soon as the kernel has taken them.
    late: usize,
    /// Refused by the image's gate.
    parked: VecDeque<usize>,
    /// Entries taken by the kernel.
    running: usize,
    done: Vec<BlockCompletion>,
    stalls: u32,
    broken: bool,
    copied: u64,
}

/// An operation, and what its system calls need. The kernel looks at the workspace only while the
/// operation is staged or running, and the slot is neither moved nor changed then: it is in a vector
/// that never grows.
#[derive(Default)]
struct Slot {
    plan: Option<Plan>,
    work: Workspace,
    /// Passed the gate, or waits at it.
    entry: Option<Entry>,
    waiting: bool,
    /// Its system call is staged or running.
    active: bool,
    /// Its cancellation is. The slot is not given to another operation until that has ended too: it
    /// could hit the wrong one, and there are as many entries in the ring as slots.
    cancelling: bool,
}

impl Slot {
    /// Leaves the image's gate, or the line before it.
    fn leave(&mut self, image: &Image) {
        let waiting = std::mem::take(&mut self.waiting);
        match self.entry.take() {
            Some(entry) if waiting => image.sync.give_up(entry),
            Some(entry) => image.sync.leave(entry),
            None => {}
        }
    }
}

fn ring(entries: u32) -> io::Result<IoUring> {
    // Asked for first: a batch goes on after an entry that fails (Linux 5.18).
    let submit_all = IoUring::builder().dontfork().setup_submit_all().build(entries);
    submit_all.or_else(|_| IoUring::builder().dontfork().build(entries))
}

/// Whether the kernel has all that is needed.
///
/// # Errors
/// Why it has not.
pub(super) fn available() -> io::Result<()> {
    let ring = ring(2)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::Readv::CODE,
        opcode::Writev::CODE,
        opcode::Fsync::CODE,
        opcode::Fallocate::CODE,
        opcode::AsyncCancel::CODE,
    ];
    if needed.into_iter().all(|code| probe.is_supported(code)) {
        Ok(())
    } else {
        Err(io::ErrorKind::Unsupported.into())
    }
}

impl UringQueue {
    pub(super) fn new(image: Arc<Image>, depth: u32) -> io::Result<Self> {
        let entries = depth.clamp(1, MAX_ENTRIES);
        let ring = ring(entries)?;
        let event = Arc::new(EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC)?);
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        let registered = ring.submitter().register_files(&[image.file.as_raw_fd()]).is_ok();
        let depth = usize::try_from(entries).unwrap_or(usize::MAX);
        Ok(Self {
            ring,
            image,
            event,
            registered,
            depth,
            slots: std::iter::repeat_with(Slot::default).take(depth).collect(),
            free: (0..depth).rev().collect(),
            held: VecDeque::with_capacity(depth),
            staged: VecDeque::with_capacity(depth),
            late: 0,
            parked: VecDeque::new(),
            running: 0,
            done: Vec::with_capacity(depth),
            stalls: 0,
            broken: false,
            copied: 0,
        })
    }

    /// Takes an operation as far as its next system call.
    fn proceed(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        if slot.active || slot.cancelling {
            return;
        }
        let Some(plan) = &mut slot.plan else { return };
        let step = plan.step(&self.image, &mut slot.work);
        if let Some(entry) = step.entry() {
            if !self.image.sync.try_enter(entry, slot.waiting, &self.event) {
                slot.waiting = true;
                slot.entry = Some(entry);
                self.parked.push_back(index);
                return;
            }
            slot.waiting = false;
            slot.entry = Some(entry);
        } else {
            // If it has waited, it was for something that has become needless.
            slot.leave(&self.image);
        }
        let Some(entry) = self.entry(index, &step) else {
            let Step::Done(result) = step else { return };
            self.finish(index, result);
            return;
        };
        if self.broken {
            self.abandon(index);
            return;
        }
        // SAFETY: what the entry points to is the slot's workspace, which stays as it is until the
        // operation is no longer staged or running, and through it guest memory that the slot's
        // buffers keep mapped, the slot's bounce buffer, or constant zeroes; the file is open for
        // as long as the image. `drop` waits for the kernel to be done with all of it.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_err() {
            // There are as many entries as slots, so it is never full.
            return self.abandon(index);
        }
        self.staged.push_back(index as u64);
        if let Some(slot) = self.slots.get_mut(index) {
            slot.active = true;
        }
    }

    /// Has the kernel stop an operation that it has taken.
    fn push_cancel(&mut self, index: usize) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let target = index as u64;
        let entry = opcode::AsyncCancel::new(target).build().user_data(target | CANCEL);
        // SAFETY: the entry points to nothing.
        if unsafe { self.ring.submission().push(&entry) }.is_ok() {
            slot.cancelling = true;
            self.staged.push_back(target | CANCEL);
        }
    }

    fn entry(&self, index: usize, step: &Step) -> Option<squeue::Entry> {
        let (file, file_flags) = if self.registered {
            (types::Fd(0), squeue::Flags::FIXED_FILE)
        } else {
            (types::Fd(self.image.file.as_raw_fd()), squeue::Flags::empty())
        };
        let iov = self.slots.get(index)?.work.iov.as_slice();
        let flags = |durable: bool| if durable { libc::RWF_DSYNC } else { 0 };
        let count = u32::try_from(iov.len()).unwrap_or(u32::MAX);
        let single =
            |only: &libc::iovec| u32::try_from(only.iov_len.min(MAX_TRANSFER)).unwrap_or(u32::MAX);
        let entry = match (step, iov) {
            (Step::Read { at }, [only]) => {
                opcode::Read::new(file, only.iov_base.cast(), single(only)).offset(*at).build()
            }
            (Step::Read { at }, _) => {
                opcode::Readv::new(file, iov.as_ptr(), count).offset(*at).build()
            }
            (Step::Write { at, durable }, [only]) => {
                opcode::Write::new(file, only.iov_base.cast(), single(only))
                    .offset(*at)
                    .rw_flags(flags(*durable))
                    .build()
            }
            (Step::Write { at, durable }, _) => opcode::Writev::new(file, iov.as_ptr(), count)
                .offset(*at)
                .rw_flags(flags(*durable))
                .build(),
            (Step::Fallocate { mode, at, len }, _) => {
                opcode::Fallocate::new(file, *len).offset(*at).mode(*mode).build()
            }
            (Step::Sync, _) => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
            (Step::Done(_), _) => return None,
        };
        Some(entry.flags(file_flags).user_data(index as u64))
    }

    /// Notes how a system call ended.
    fn settle(&mut self, index: usize, result: io::Result<u64>) {
        let Some(slot) = self.slots.get_mut(index) else { return };
        let Some(plan) = &mut slot.plan else { return };
        plan.result(&self.image, &slot.work, result);
        // Only now that a loss is known may others look.
        slot.leave(&self.image);
    }

    fn finish(&mut self, index: usize, result: Result<(), crate::block::BlockError>) {
        let Some(plan) = self.slots.get_mut(index).and_then(|slot| slot.plan.take()) else {
            return;
        };
        self.copied = self.copied.wrapping_add(plan.copied());
        self.done.push(plan.complete(result));
        self.free.push(index);
    }

    /// Ends an operation whose system call cannot be made.
    fn abandon(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.leave(&self.image);
        }
        self.finish(index, Err(io::Error::from_raw_os_error(libc::EIO).into()));
    }

    /// Notes that the kernel has taken the first `count` of what is staged.
    fn taken(&mut self, count: usize) {
        self.running += count;
        if self.late == 0 {
            self.staged.drain(..count);
            return;
        }
        for _ in 0..count {
            let Some(data) = self.staged.pop_front().filter(|data| data & CANCEL == 0) else {
                continue;
            };
            let index = usize::try_from(data).unwrap_or(usize::MAX);
            let plan = self.slots.get(index).and_then(|slot| slot.plan.as_ref());
            if plan.is_some_and(Plan::is_cancelled) {
                self.late -= 1;
                self.push_cancel(index);
            }
        }
    }

    /// Has the kernel take what is in the ring. If it does not take everything, it is asked again
    /// when the queue is looked at next, for which the queue rings itself.
    fn enter(&mut self) {
        if self.staged.is_empty() || self.broken {
            return;
        }
        match self.ring.submit() {
            Ok(taken) => {
                let taken = taken.min(self.staged.len());
                self.taken(taken);
                if taken != 0 {
                    self.stalls = 0;
                }
            }
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
                ) => {}
            // The ring cannot be used any more; that is a fault in this program or its sandbox.
            Err(_) => self.stalls = MAX_STALLS,
        }
        if self.staged.is_empty() {
            return;
        }
        self.stalls += 1;
        if self.stalls > MAX_STALLS {
            self.broken = true;
            self.late = 0;
            for data in std::mem::take(&mut self.staged) {
                self.give_up(data);
            }
        }
        self.ring_bell();
    }

    /// An entry will not be taken.
    fn give_up(&mut self, data: u64) {
        let index = usize::try_from(data & !CANCEL).unwrap_or(usize::MAX);
        let Some(slot) = self.slots.get_mut(index) else { return };
        if data & CANCEL == 0 {
            slot.active = false;
            self.abandon(index);
        } else {
            slot.cancelling = false;
            self.proceed(index);
        }
    }

    fn ring_bell(&self) {
        // It can fail only by being full, and then it has rung.
        let _ = self.event.write(1);
    }

    /// Takes one result from the ring.
    fn reap(&mut self) -> Option<usize> {
        let entry = self.ring.completion().next()?;
        let data = entry.user_data();
        let index = usize::try_from(data & !CANCEL).unwrap_or(usize::MAX);
        self.running = self.running.saturating_sub(1);
        let slot = self.slots.get_mut(index)?;
        if data & CANCEL != 0 {
            // Whether the operation was found or not, its own result says how it ended.
            slot.cancelling = false;
            return Some(index);
        }
        slot.active = false;
        let result = entry.result();
        let result = u64::try_from(result)
            .map_err(|_| io::Error::from_raw_os_error(result.saturating_neg()));
        self.settle(index, result);
        Some(index)
    }
}

impl BlockQueue for UringQueue {
    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        // Room is given back only when the completion is collected.
        if self.in_flight_now() >= self.depth {
            return Err(request);
        }
        let Some(index) = self.free.pop() else { return Err(request) };
        if let Some(slot) = self.slots.get_mut(index) {
            slot.plan = Some(Plan::new(request, &self.image));
        }
        self.held.push_back(index);
        Ok(())
    }

    fn commit(&mut self) {
        let done = self.done.len();
        while let Some(index) = self.held.pop_front() {
            self.proceed(index);
        }
        self.enter();
        if self.done.len() != done {
            // These have no completion in the ring that would ring.
            self.ring_bell();
        }
    }

    fn complete(&mut self, completions: &mut Vec<BlockCompletion>) {
        // At most what is running now: what is started here is for the next call.
        for _ in 0..self.running {
            let Some(index) = self.reap() else { break };
            self.proceed(index);
        }
        for _ in 0..self.parked.len() {
            let Some(index) = self.parked.pop_front() else { break };
            self.proceed(index);
        }
        self.enter();
        completions.append(&mut self.done);
    }

    fn sources(&self) -> Sources {
        Sources::from_iter([Source::Event(self.event.as_raw_fd())])
    }

    fn in_flight(&self) -> usize {
        self.in_flight_now()
    }

    fn cancel(&mut self, token: u64) {
        let done = self.done.len();
        for index in 0..self.slots.len() {
            let Some(slot) = self.slots.get_mut(index) else { break };
            let Some(plan) = &mut slot.plan else { continue };
            if plan.token() != token || plan.is_cancelled() {
                continue;
            }
            plan.cancel();
            if !slot.active {
                self.held.retain(|held| *held != index);
                self.parked.retain(|parked| *parked != index);
                self.proceed(index);
            } else if self.staged.contains(&(index as u64)) {
                self.late += 1;
            } else {
                self.push_cancel(index);
            }
        }
        self.enter();
        if self.done.len() != done {
            self.ring_bell();
        }
    }

    fn copied_bytes(&self) -> u64 {
        self.copied
    }
}

impl UringQueue {
    fn in_flight_now(&self) -> usize {
        self.depth - self.free.len() + self.done.len()
    }
}

impl Drop for UringQueue {
    /// What the kernel has not taken is not started; the rest is waited for, since it may write to
    /// memory until it is over.
    fn drop(&mut self) {
        while self.reap().is_some() {}
        while self.running != 0 {
            // SAFETY: no argument is passed. Nothing is submitted either.
            let waited =
                unsafe { self.ring.submitter().enter::<()>(0, 1, IORING_ENTER_GETEVENTS, None) };
            if waited.is_err() {
                // Results come all the same, since this thread enters the kernel to sleep.
                std::thread::sleep(Duration::from_millis(1));
            }
            while self.reap().is_some() {}
        }
        for slot in &mut self.slots {
            slot.leave(&self.image);
        }
        if self.registered {
            // The kernel takes its time to do so when the ring is closed, and the file stays open
            // until then.
            let _ = self.ring.submitter().unregister_files();
        }
    }
}
