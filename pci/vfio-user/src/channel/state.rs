//! What the threads that use one end of a connection share.

use std::collections::{BTreeMap, VecDeque};

use crate::connection::{End, Incoming, Message};
use crate::wire::{Header, flags};

/// Commands that are kept at most: four times those that fit a socket's buffer by default.
const MAX_QUEUED: usize = 1024;
/// Bytes of their payloads: some of the largest ones, or all of the usual.
const MAX_QUEUED_BYTES: usize = 8 << 20;
/// Descriptors that came with them. Each counts against what the process may have open.
const MAX_QUEUED_FDS: usize = 64;

/// An answer that somebody waits for.
pub(super) struct Awaited {
    pub(super) command: u16,
    pub(super) answer: Option<Message>,
}

pub(super) struct State {
    /// What has come of the next message. Whoever reads has it.
    pub(super) incoming: Option<Incoming>,
    /// Somebody is in the middle of a message of ours.
    pub(super) sending: bool,
    commands: VecDeque<Message>,
    queued_bytes: usize,
    queued_fds: usize,
    /// By ID.
    pub(super) awaited: BTreeMap<u16, Awaited>,
    last_id: u16,
    /// Threads that wait for a change of this.
    pub(super) sleeping: usize,
    /// A command is being done by one of those who do them in turn.
    pub(super) doing: bool,
    pub(super) ended: bool,
    pub(super) end: Option<End>,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            incoming: Some(Incoming::default()),
            sending: false,
            commands: VecDeque::new(),
            queued_bytes: 0,
            queued_fds: 0,
            awaited: BTreeMap::new(),
            last_id: 0,
            sleeping: 0,
            doing: false,
            ended: false,
            end: None,
        }
    }

    /// Whether there are commands.
    pub(super) fn has_commands(&self) -> bool {
        !self.commands.is_empty()
    }

    /// Waits for an answer to `command`; says under which ID. None if all of them are taken.
    pub(super) fn await_answer(&mut self, command: u16) -> Option<u16> {
        let id = self.new_id()?;
        self.awaited.insert(id, Awaited { command, answer: None });
        Some(id)
    }

    pub(super) fn deliver(&mut self, message: Message) -> Result<(), End> {
        match message.header.flags & flags::TYPE {
            flags::COMMAND => self.queue(message),
            flags::REPLY => {
                let Header { id, command, .. } = message.header;
                let awaited = self
                    .awaited
                    .get_mut(&id)
                    .filter(|awaited| awaited.command == command && awaited.answer.is_none());
                let awaited = awaited.ok_or(End::Protocol("an answer that nobody waits for"))?;
                awaited.answer = Some(message);
                Ok(())
            }
            _ => Err(End::Protocol("a message of no known type")),
        }
    }

    fn queue(&mut self, message: Message) -> Result<(), End> {
        let bytes = self.queued_bytes.saturating_add(message.payload.len());
        let fds = self.queued_fds.saturating_add(message.fds.len());
        // A single one may be as large as it can be.
        let full =
            self.commands.len() >= MAX_QUEUED || bytes > MAX_QUEUED_BYTES || fds > MAX_QUEUED_FDS;
        if full && !self.commands.is_empty() {
            return Err(End::Protocol("too many commands at a time"));
        }
        (self.queued_bytes, self.queued_fds) = (bytes, fds);
        self.commands.push_back(message);
        Ok(())
    }

    pub(super) fn command(&mut self) -> Option<Message> {
        let message = self.commands.pop_front()?;
        self.queued_bytes = self.queued_bytes.saturating_sub(message.payload.len());
        self.queued_fds = self.queued_fds.saturating_sub(message.fds.len());
        Some(message)
    }

    /// A command for one who does not mind that others do some too: none is begun before the one before is done.
    pub(super) fn command_in_turn(&mut self) -> Option<Message> {
        if self.doing {
            return None;
        }
        let message = self.command();
        self.doing = message.is_some();
        message
    }

    /// An ID that nobody waits for.
    fn new_id(&mut self) -> Option<u16> {
        for _ in 0..=u16::MAX {
            self.last_id = self.last_id.wrapping_add(1);
            if !self.awaited.contains_key(&self.last_id) {
                return Some(self.last_id);
            }
        }
        None
    }
}
