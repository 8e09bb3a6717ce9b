//! Requests in flight.

use super::ending::Medium;
use super::{Ended, MAX_RETRIES, Request};
use crate::{Completion, Error, MAX_DEPTH};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Free,
    /// The device has its request, or will with the next kick.
    Issued,
    /// It is to be issued again.
    Waiting,
}

#[derive(Clone, Copy, Debug, Default)]
struct Tag {
    request: Request,
    state: State,
    retries: u8,
}

/// The tags of a disk, and what each was last used for.
pub(crate) struct Tags {
    tags: [Tag; MAX_DEPTH],
    depth: u16,
    in_flight: u16,
    /// Those of them that wait to be issued again.
    waiting: u16,
}

impl Tags {
    /// `depth` tags, from 1 to [`MAX_DEPTH`].
    pub(crate) fn new(depth: u16) -> Result<Self, Error> {
        match (1..=MAX_DEPTH).contains(&usize::from(depth)) {
            true => Ok(Self { tags: [Tag::default(); MAX_DEPTH], depth, in_flight: 0, waiting: 0 }),
            false => Err(Error::Request("depth")),
        }
    }

    pub(crate) fn depth(&self) -> u16 {
        self.depth
    }

    pub(crate) fn in_flight(&self) -> u16 {
        self.in_flight
    }

    fn get(&mut self, tag: u16) -> Option<&mut Tag> {
        self.tags.get_mut(usize::from(tag)).filter(|_| tag < self.depth)
    }

    /// Whether a tag can be used.
    pub(crate) fn check(&mut self, tag: u16) -> Result<(), Error> {
        match self.get(tag) {
            Some(tag) if tag.state == State::Free => Ok(()),
            _ => Err(Error::Request("the tag is too high or in use")),
        }
    }

    /// Uses one that was checked.
    pub(crate) fn begin(&mut self, tag: u16, request: Request) {
        if let Some(tag) = self.get(tag) {
            *tag = Tag { request, state: State::Issued, retries: 0 };
            self.in_flight += 1;
        }
    }

    /// The request of a tag, if the device has it.
    pub(crate) fn request(&mut self, tag: u16) -> Option<Request> {
        self.get(tag).filter(|tag| tag.state == State::Issued).map(|tag| tag.request)
    }

    /// The tag is free again, if it was not.
    pub(crate) fn end(&mut self, tag: u16) {
        if let Some(tag) = self.get(tag).filter(|tag| tag.state == State::Issued) {
            tag.state = State::Free;
            self.in_flight -= 1;
        }
    }

    /// What has become of a tag's request that ended. Nothing, if it is to be issued again: it comes out
    /// of [`again`](Self::again) then, so that it cannot end twice before the device has it.
    pub(crate) fn judge(&mut self, tag: u16, ended: &Ended) -> Option<Completion> {
        let state = self.get(tag)?;
        if ended.is_passing(Medium::Same) && state.retries < MAX_RETRIES {
            state.retries += 1;
            state.state = State::Waiting;
            self.waiting += 1;
            return None;
        }
        self.conclude(tag, ended)
    }

    /// The same, of a request that is not issued again.
    pub(crate) fn conclude(&mut self, tag: u16, ended: &Ended) -> Option<Completion> {
        let result = ended.result(self.get(tag)?.request.buffer.len);
        self.end(tag);
        Some(Completion { tag, result })
    }

    /// The first request from `start` on that is to be issued again, and now is.
    pub(crate) fn again(&mut self, start: u16) -> Option<(u16, Request)> {
        if self.waiting == 0 {
            return None;
        }
        for tag in start..self.depth {
            let Some(state) = self.get(tag).filter(|tag| tag.state == State::Waiting) else {
                continue;
            };
            state.state = State::Issued;
            let request = state.request;
            self.waiting -= 1;
            return Some((tag, request));
        }
        None
    }

    /// Ends all requests in flight.
    pub(crate) fn drain(&mut self, mut each: impl FnMut(u16)) {
        while self.again(0).is_some() {}
        for tag in 0..self.depth {
            if self.request(tag).is_some() {
                self.end(tag);
                each(tag);
            }
        }
    }
}
