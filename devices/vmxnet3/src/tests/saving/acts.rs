//! Whatever a guest may do, and its host.

use proptest::prelude::*;

use super::super::*;

#[derive(Clone, Debug)]
pub(super) enum Act {
    Write(u8, u64, u32),
    Read(u8, u64),
    Config(u16, Vec<u8>),
    Command(u32),
    /// Writes something into what driver and device share, or into rings.
    Memory(u64, u64, usize),
    Packet(usize, Vec<(u64, u32, u32)>),
    Give(usize, usize, u32),
    Arrive(u16, Vec<u8>),
    Room(u16, Option<usize>),
    Advance(u64),
    Link(bool),
    BusMaster(bool),
    Pause,
    Round,
    Run,
}

fn command() -> impl Strategy<Value = u32> {
    let commands = vec![
        command::ACTIVATE_DEV,
        command::QUIESCE_DEV,
        command::RESET_DEV,
        command::UPDATE_RX_MODE,
        command::UPDATE_MAC_FILTERS,
        command::UPDATE_VLAN_FILTERS,
        command::UPDATE_RSSIDT,
        command::UPDATE_IML,
        command::UPDATE_FEATURE,
        command::SET_COALESCE,
        command::GET_COALESCE,
        command::GET_STATS,
        command::GET_QUEUE_STATUS,
        command::GET_LINK,
        0,
    ];
    prop::sample::select(commands)
}

fn register() -> impl Strategy<Value = (u8, u64)> {
    let imr = (0..MAX_INTRS as u64).prop_map(|intr| (PT_BAR, IMR + STRIDE * intr));
    let bells = prop::sample::select(vec![TXPROD, RXPROD, RXPROD2]);
    let bells = (bells, 0..4u64).prop_map(|(first, queue)| (PT_BAR, first + STRIDE * queue));
    let vd = prop::sample::select(vec![VRRS, UVRS, DSAL, DSAH, CMD, MACL, MACH, ICR, ECR]);
    let msix = (0..MAX_INTRS as u64 * 4).prop_map(|word| (MSIX_BAR, 4 * word));
    prop_oneof![4 => imr, 4 => bells, 2 => vd.prop_map(|at| (VD_BAR, at)), 1 => msix]
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    (0..6u8, 20usize..3000, any::<u8>()).prop_map(|(kind, len, byte)| {
        let payload = vec![byte; len];
        for_us(match kind {
            0 => Packet::tcp6(&payload).finished(),
            1 => Packet::udp4(&payload).unfinished(),
            2 => Packet { vlan: vec![(0x8100, 5)], ..Packet::tcp4(&payload) }.finished(),
            3 => frame(len),
            _ => Packet::tcp4(&payload).finished(),
        })
    })
}

pub(super) fn any_act() -> impl Strategy<Value = Act> {
    let value = prop_oneof![Just(0), Just(1), Just(SHARED as u32), any::<u32>()];
    let place = prop_oneof![
        SHARED..SHARED + 720,
        QUEUES..QUEUES + 1024,
        TX_RINGS..TX_RINGS + 512,
        RX_RINGS_AT..RX_RINGS_AT + 512,
    ];
    let content = prop_oneof![3 => 0u64..64, 1 => any::<u64>()];
    let len = prop::sample::select(vec![1usize, 2, 4, 8]);
    let descriptor = (0u64..0x1000, 0u32..3000, prop_oneof![8 => Just(ALONE), 1 => any::<u32>()]);
    let config = prop::sample::select(vec![
        pci::header::COMMAND,
        pci::header::COMMAND + 1,
        // Capabilities, wherever they are.
        0x42,
        0x43,
        0x44,
        0x52,
        0x53,
        0x9a,
        0x9b,
    ]);
    prop_oneof![
        6 => (register(), value).prop_map(|((bar, at), value)| Act::Write(bar, at, value)),
        3 => register().prop_map(|(bar, at)| Act::Read(bar, at)),
        1 => (config, prop::collection::vec(any::<u8>(), 1..3))
            .prop_map(|(at, data)| Act::Config(at, data)),
        4 => command().prop_map(Act::Command),
        1 => (place, content, len).prop_map(|(at, value, len)| Act::Memory(at, value, len)),
        6 => (0usize..3, prop::collection::vec(descriptor, 1..5))
            .prop_map(|(queue, packet)| Act::Packet(queue, packet)),
        3 => (0usize..3, 0usize..2, 0u32..8)
            .prop_map(|(queue, ring, count)| Act::Give(queue, ring, count)),
        6 => (0u16..2, frames()).prop_map(|(queue, frame)| Act::Arrive(queue, frame)),
        1 => (0u16..2, prop::option::of(0usize..4))
            .prop_map(|(queue, room)| Act::Room(queue, room)),
        3 => (0u64..30_000).prop_map(Act::Advance),
        1 => any::<bool>().prop_map(Act::Link),
        1 => any::<bool>().prop_map(Act::BusMaster),
        1 => Just(Act::Pause),
        3 => Just(Act::Round),
        4 => Just(Act::Run),
    ]
}

pub(super) fn perform(machine: &mut Machine, act: &Act) {
    match act {
        Act::Write(bar, at, value) => machine.nic.bar_write(*bar, *at, &value.to_le_bytes()),
        Act::Read(bar, at) => _ = machine.read(*bar, *at),
        Act::Config(at, data) => machine.nic.config_write(*at, data),
        Act::Command(command) => _ = machine.order(*command),
        Act::Memory(at, value, len) => machine.fill(*at, &value.to_le_bytes()[..*len]),
        Act::Packet(queue, packet) => {
            let packet: Vec<_> = packet
                .iter()
                .map(|(at, len, flags)| descriptor(TX_DATA + at, len & txd::LEN, *flags))
                .collect();
            if *queue < machine.tx.len() {
                machine.put(*queue, &packet);
            }
        }
        Act::Give(queue, ring, count) => {
            if *queue < machine.rx.len() {
                machine.give(*queue, *ring, *count);
            }
        }
        Act::Arrive(queue, frame) => {
            machine.host.push(queue % machine.setup.queues, frame);
        }
        Act::Room(queue, room) => machine.host.set_room(queue % machine.setup.queues, *room),
        Act::Advance(microseconds) => machine.clock.advance(Duration::from_micros(*microseconds)),
        Act::Link(up) => machine.control.set_link(*up),
        Act::BusMaster(on) => {
            let mut bits = pci::Command::MEMORY;
            bits.set(pci::Command::BUS_MASTER, *on);
            machine.command(bits);
        }
        Act::Pause => {
            machine.nic.pause().unwrap();
            machine.nic.resume().unwrap();
        }
        Act::Round => _ = machine.executor.step_all(),
        Act::Run => machine.run(),
    }
}
