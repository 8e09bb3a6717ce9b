//! The command registers: a command, and the words of its descriptor, one after the other.

use paraslot_device::StateError;
use paraslot_spec::pvscsi::{
    AbortCmd, Config, ResetDevice, SetupMsgRing, SetupReqCall, SetupRings, command, command_status,
};
use serde::{Deserialize, Serialize};
use zerocopy::{FromBytes, IntoBytes};

/// Words of the longest descriptor.
const MOST_WORDS: usize = size_of::<SetupRings>() / 4;

/// What the driver wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    AdapterReset,
    SetupRings,
    ResetBus,
    ResetDevice(ResetDevice),
    Abort(AbortCmd),
    Config(Config),
    SetupMsgRing(SetupMsgRing),
    SetupReqCall(SetupReqCall),
    GetMaxTargets,
}

/// COMMAND, COMMAND_DATA and COMMAND_STATUS.
pub(crate) struct CommandRegisters {
    /// The command whose descriptor is not complete.
    command: u32,
    words: [u32; MOST_WORDS],
    count: usize,
    status: u32,
}

/// The command registers, saved.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CommandState {
    command: u32,
    /// Those of the descriptor that have been written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    words: Vec<u32>,
    status: u32,
}

/// Words of the descriptor of `command`; None for a command that is not there.
fn words_of(command: u32) -> Option<usize> {
    let bytes = match command {
        command::ADAPTER_RESET | command::RESET_BUS | command::GET_MAX_TARGETS => 0,
        command::SETUP_RINGS => size_of::<SetupRings>(),
        command::RESET_DEVICE => size_of::<ResetDevice>(),
        command::ABORT_CMD => size_of::<AbortCmd>(),
        command::CONFIG => size_of::<Config>(),
        command::SETUP_MSG_RING => size_of::<SetupMsgRing>(),
        command::SETUP_REQCALLTHRESHOLD => size_of::<SetupReqCall>(),
        _ => return None,
    };
    Some(bytes / 4)
}

impl CommandRegisters {
    pub(crate) fn new() -> Self {
        Self {
            command: command::FIRST,
            words: [0; MOST_WORDS],
            count: 0,
            status: command_status::SUCCEEDED,
        }
    }

    /// COMMAND_STATUS.
    pub(crate) fn status(&self) -> u32 {
        self.status
    }

    /// What became of the order.
    pub(crate) fn set_status(&mut self, status: u32) {
        self.status = status;
    }

    /// Writes COMMAND. A descriptor that was not complete is forgotten.
    pub(crate) fn begin(&mut self, command: u32) -> Option<Order> {
        self.command = command::FIRST;
        self.count = 0;
        let Some(words) = words_of(command) else {
            self.status = command_status::FAILED;
            return None;
        };
        self.command = command;
        self.status = match command {
            // How a driver learns that they are there.
            command::SETUP_MSG_RING | command::SETUP_REQCALLTHRESHOLD => {
                u32::try_from(words).unwrap_or(command_status::FAILED)
            }
            _ => command_status::NOT_ENOUGH_DATA,
        };
        self.complete(words)
    }

    /// Writes COMMAND_DATA. Words that no command waits for are ignored.
    pub(crate) fn data(&mut self, word: u32) -> Option<Order> {
        let words = words_of(self.command)?;
        *self.words.get_mut(self.count)? = word;
        self.count += 1;
        self.complete(words)
    }

    fn complete(&mut self, words: usize) -> Option<Order> {
        if self.count < words {
            return None;
        }
        match std::mem::replace(&mut self.command, command::FIRST) {
            command::ADAPTER_RESET => Some(Order::AdapterReset),
            command::SETUP_RINGS => Some(Order::SetupRings),
            command::RESET_BUS => Some(Order::ResetBus),
            command::RESET_DEVICE => self.descriptor().map(Order::ResetDevice),
            command::ABORT_CMD => self.descriptor().map(Order::Abort),
            command::CONFIG => self.descriptor().map(Order::Config),
            command::SETUP_MSG_RING => self.descriptor().map(Order::SetupMsgRing),
            command::SETUP_REQCALLTHRESHOLD => self.descriptor().map(Order::SetupReqCall),
            command::GET_MAX_TARGETS => Some(Order::GetMaxTargets),
            _ => None,
        }
    }

    /// The descriptor that was written last.
    pub(crate) fn descriptor<T: FromBytes>(&self) -> Option<T> {
        let mut bytes = [0; MOST_WORDS * 4];
        for (to, word) in bytes.chunks_exact_mut(4).zip(&self.words) {
            to.copy_from_slice(word.to_le_bytes().as_bytes());
        }
        T::read_from_prefix(&bytes).ok().map(|(descriptor, _)| descriptor)
    }

    pub(crate) fn save(&self) -> CommandState {
        let Self { command, words, count, status } = self;
        // What a command has been made of is of no use any more.
        let count = if *command == command::FIRST { 0 } else { *count };
        let words = words.get(..count).unwrap_or(words).to_vec();
        CommandState { command: *command, words, status: *status }
    }

    /// Takes over what was saved, of an adapter with so many targets.
    pub(crate) fn restore(&mut self, saved: &CommandState, targets: u32) -> Result<(), StateError> {
        let CommandState { command, words, status } = saved;
        *self = Self::new();
        if *command == command::FIRST {
            let statuses = [command_status::SUCCEEDED, command_status::FAILED, 1, targets];
            if !words.is_empty() || !statuses.contains(status) {
                return Err(StateError::impossible("a command that left another status"));
            }
            self.status = *status;
            return Ok(());
        }
        // As the driver has written it; it has more to write.
        let orders =
            [self.begin(*command)].into_iter().chain(words.iter().map(|&word| self.data(word)));
        if orders.flatten().next().is_some() || self.count != words.len() || self.status != *status
        {
            *self = Self::new();
            return Err(StateError::impossible("a command that would have been carried out"));
        }
        Ok(())
    }

    /// Back to the state after power-on.
    pub(crate) fn reset(&mut self) {
        *self = Self::new();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_complete_with_the_last_word_of_its_descriptor() {
        let mut registers = CommandRegisters::new();
        assert_eq!(registers.begin(command::ADAPTER_RESET), Some(Order::AdapterReset));
        assert_eq!(registers.begin(command::ABORT_CMD), None);
        assert_eq!(registers.status(), command_status::NOT_ENOUGH_DATA);
        for word in [7, 0, 3] {
            assert_eq!(registers.data(word), None);
        }
        let Some(Order::Abort(abort)) = registers.data(0) else { panic!("not complete") };
        assert_eq!((abort.context.get(), abort.target.get()), (7, 3));
        // Nothing waits for more.
        assert_eq!(registers.data(0), None);
    }

    // What Linux's pvscsi_setup_msg_workqueue and pvscsi_setup_req_threshold look for.
    #[test]
    fn newer_commands_tell_that_they_are_there() {
        let mut registers = CommandRegisters::new();
        for (command, words) in
            [(command::SETUP_MSG_RING, 34), (command::SETUP_REQCALLTHRESHOLD, 1)]
        {
            assert_eq!(registers.begin(command), None);
            assert_eq!(registers.status(), words);
        }
        for command in [
            command::FIRST,
            command::ISSUE_SCSI,
            command::DEVICE_UNPLUG,
            command::GET_MAX_TARGETS + 1,
            u32::MAX,
        ] {
            assert_eq!(registers.begin(command), None);
            assert_eq!(registers.status(), command_status::FAILED);
            assert_eq!(registers.data(0), None);
        }
    }

    #[test]
    fn a_new_command_forgets_half_a_descriptor() {
        let mut registers = CommandRegisters::new();
        registers.begin(command::ABORT_CMD);
        registers.data(1);
        registers.begin(command::RESET_DEVICE);
        registers.data(5);
        registers.data(0);
        let Some(Order::ResetDevice(reset)) = registers.data(0) else { panic!("not complete") };
        assert_eq!(reset.target.get(), 5);
    }
}
