//! A network adapter that does what a test says, by the rules or against them.

extern crate std;

use std::vec;
use std::vec::Vec;

use paraslot_spec::virtio::device_type;

use crate::virtio::testing::{self, Buffer, Chain};

/// What the device answers to control commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// This, and so many bytes written besides.
    Ack(u8, u32),
    Nothing,
}

/// What is behind the control queue.
pub(super) struct Network {
    pub(super) answer: Answer,
    /// What commands read, and what they had room for.
    pub(super) commands: Vec<(Vec<u8>, usize)>,
}

/// The machine.
pub(super) type Machine = testing::Machine<Network>;

impl Machine {
    /// A machine with a device that offers `offered` and has queues for so many pairs.
    pub(super) fn new(offered: u64, pairs: u16) -> Self {
        let mut config = vec![0; 28];
        config[..6].copy_from_slice(&[0x52, 0x54, 0, 1, 2, 3]);
        config[6..8].copy_from_slice(&1_u16.to_le_bytes());
        config[8..10].copy_from_slice(&pairs.to_le_bytes());
        config[10..12].copy_from_slice(&1500_u16.to_le_bytes());
        let queues = 2 * usize::from(pairs) + 1;
        let network = Network { answer: Answer::Ack(0, 0), commands: Vec::new() };
        Self::with(device_type::NET, offered, config, queues, network, Self::control)
    }

    /// Takes everything off a transmit queue: header and frame in one, without having it back.
    pub(super) fn take_frames(&self, queue: usize) -> Vec<(Chain, Vec<u8>)> {
        let chains = core::iter::from_fn(|| self.next(queue));
        chains
            .map(|chain| {
                assert!(chain.buffers.iter().all(|buffer| !buffer.write));
                let bytes = |buffer: &Buffer| self.read(buffer.address, buffer.len as usize);
                let bytes = chain.buffers.iter().flat_map(bytes).collect();
                (chain, bytes)
            })
            .collect()
    }

    /// Puts bytes, header included, into receive buffers, and gives back what `lie` makes of the IDs
    /// and lengths.
    pub(super) fn deliver(
        &self,
        queue: usize,
        bytes: &[u8],
        lie: impl FnOnce(&mut Vec<(u32, u32)>),
    ) {
        let mut used = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let chain = self.next(queue).expect("there are buffers");
            let [buffer] = chain.buffers[..] else { panic!("a buffer of several parts") };
            assert!(buffer.write);
            let (now, later) = rest.split_at(rest.len().min(buffer.len as usize));
            self.write(buffer.address, now);
            used.push((u32::from(chain.head), u32::try_from(now.len()).unwrap()));
            rest = later;
        }
        lie(&mut used);
        self.give_back(queue, &used);
    }

    /// Does what the control queue asks for.
    pub(super) fn control(&self) {
        let queue = self.device.borrow().queues.len() - 1;
        while let Some(chain) = self.next(queue) {
            let (out, room): (Vec<&Buffer>, Vec<&Buffer>) =
                chain.buffers.iter().partition(|buffer| !buffer.write);
            let command: Vec<u8> = out
                .iter()
                .flat_map(|buffer| self.read(buffer.address, buffer.len as usize))
                .collect();
            let len: u32 = room.iter().map(|buffer| buffer.len).sum();
            let fill = len as usize - 1;
            self.state.borrow_mut().commands.push((command, fill));
            let Answer::Ack(ack, more) = self.state.borrow().answer else { continue };
            if let [first, _] = room[..] {
                let bytes: Vec<u8> = (1..=8).collect();
                self.write(first.address, &bytes[..fill]);
            }
            let last = room.last().unwrap();
            self.write(last.address + u64::from(last.len) - 1, &[ack]);
            self.give_back(queue, &[(u32::from(chain.head), len + more)]);
        }
    }
}
