//! A lane's queues to the backends of its units.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use paraslot_backends::block::{BlockBackend, BlockQueue};
use paraslot_device::{Source, Sources};
use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};

use super::slot::Waiter;

/// A queue to a medium.
pub(super) struct Open {
    pub(super) queue: Box<dyn BlockQueue>,
    /// The backend writes zeroes.
    pub(super) write_zeroes: bool,
    /// Commands that have an operation for which there was no room, oldest first.
    pub(super) waiting: VecDeque<Waiter>,
    /// Commands that use it.
    pub(super) users: usize,
    sources: Sources,
    /// Its medium is not in the unit any more, or its unit not on the bus.
    retired: bool,
    /// It is in the list of those that may have completions.
    active: bool,
    /// It is in the list of those that hold something to be committed.
    dirty: bool,
}

fn descriptor_of(source: Source) -> RawFd {
    match source {
        Source::Event(descriptor) | Source::Readable(descriptor) => descriptor,
    }
}

/// All queues, by number, and what gathers their sources.
///
/// Sources are watched edge-triggered: nobody need read them, and one look at the epoll set quiets all
/// of them, and it.
pub(super) struct Queues {
    open: Vec<Option<Open>>,
    active: Vec<usize>,
    dirty: Vec<usize>,
    /// Retired ones that are still open.
    retired: usize,
    /// Those that they ring by.
    sources: usize,
    epoll: Epoll,
}

impl Queues {
    /// None, and `descriptor` among what the epoll set watches.
    pub(super) fn new(descriptor: RawFd) -> io::Result<Self> {
        let this = Self {
            open: Vec::new(),
            active: Vec::new(),
            dirty: Vec::new(),
            retired: 0,
            sources: 0,
            epoll: Epoll::new()?,
        };
        this.watch(descriptor)?;
        Ok(this)
    }

    fn watch(&self, descriptor: RawFd) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN | EventSet::EDGE_TRIGGERED, 0);
        self.epoll.ctl(ControlOperation::Add, descriptor, event)
    }

    pub(super) fn descriptor(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    /// Opens a queue; returns its number.
    pub(super) fn open(&mut self, backend: &dyn BlockBackend, depth: u32) -> io::Result<usize> {
        let queue = backend.open_queue(depth)?;
        let sources = queue.sources();
        for source in &sources {
            self.watch(descriptor_of(*source))?;
        }
        self.sources += sources.len();
        let open = Some(Open {
            queue,
            write_zeroes: backend.info().write_zeroes,
            waiting: VecDeque::new(),
            users: 0,
            sources,
            retired: false,
            active: false,
            dirty: false,
        });
        if let Some(number) = self.open.iter().position(Option::is_none) {
            self.open[number] = open;
            return Ok(number);
        }
        self.open.push(open);
        Ok(self.open.len() - 1)
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Open> {
        self.open.get_mut(number)?.as_mut()
    }

    /// An operation has been given to it, or is to be cancelled.
    pub(super) fn touch(&mut self, number: usize) {
        let Some(Some(open)) = self.open.get_mut(number) else { return };
        if !open.dirty {
            open.dirty = true;
            self.dirty.push(number);
        }
        if !open.active {
            open.active = true;
            self.active.push(number);
        }
    }

    /// Starts what they hold; returns whether there was any.
    pub(super) fn commit(&mut self) -> bool {
        let any = !self.dirty.is_empty();
        for number in self.dirty.drain(..) {
            if let Some(Some(open)) = self.open.get_mut(number) {
                open.dirty = false;
                open.queue.commit();
            }
        }
        any
    }

    /// The number of the one that is at `position` among those that may have completions.
    pub(super) fn active(&self, position: usize) -> Option<usize> {
        self.active.get(position).copied()
    }

    /// Takes the one at `position` off that list if it has nothing in flight; returns whether so.
    pub(super) fn rest(&mut self, position: usize) -> bool {
        let Some(&number) = self.active.get(position) else { return false };
        if let Some(Some(open)) = self.open.get_mut(number) {
            if open.queue.in_flight() != 0 || !open.waiting.is_empty() {
                return false;
            }
            open.active = false;
        }
        self.active.swap_remove(position);
        true
    }

    /// Whether something is in flight that will not ring.
    pub(super) fn restless(&self) -> bool {
        self.active.iter().filter_map(|number| self.open.get(*number)?.as_ref()).any(|open| {
            open.sources.is_empty() && (open.queue.in_flight() != 0 || !open.waiting.is_empty())
        })
    }

    /// Lets go of what limits hold back; to be committed.
    pub(super) fn hurry(&mut self) {
        for position in 0..self.active.len() {
            let Some(number) = self.active(position) else { break };
            if let Some(open) = self.get_mut(number) {
                open.queue.hurry();
                self.touch(number);
            }
        }
    }

    /// Whether any has a source.
    pub(super) fn have_sources(&self) -> bool {
        self.sources != 0
    }

    /// Quiets the epoll set.
    pub(super) fn quiet(&self) {
        const MOST: usize = 32;
        let mut events = [EpollEvent::default(); MOST];
        for _ in 0..=self.sources / MOST {
            match self.epoll.wait(0, &mut events) {
                Ok(MOST) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => break,
            }
        }
    }

    /// It gets no more commands, and is closed when the last has ended.
    pub(super) fn retire(&mut self, number: usize) {
        if let Some(Some(open)) = self.open.get_mut(number)
            && !open.retired
        {
            open.retired = true;
            self.retired += 1;
        }
    }

    /// Closes retired queues that have no commands any more.
    pub(super) fn reap(&mut self) {
        if self.retired == 0 {
            return;
        }
        for number in 0..self.open.len() {
            let Some(slot) = self.open.get_mut(number) else { break };
            let Some(open) = slot.take_if(|open| open.retired && open.users == 0) else { continue };
            self.retired -= 1;
            self.active.retain(|other| *other != number);
            self.dirty.retain(|other| *other != number);
            self.sources -= open.sources.len();
            for source in &open.sources {
                // A clone of it elsewhere would keep it in the set.
                let gone = descriptor_of(*source);
                let _ = self.epoll.ctl(ControlOperation::Delete, gone, EpollEvent::default());
            }
        }
    }
}
