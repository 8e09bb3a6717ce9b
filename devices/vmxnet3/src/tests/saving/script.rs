//! What a driver may do, step by step: between any two the adapter may be moved.

use super::super::spreading::{conf, flow};
use super::super::*;

pub(super) type Step = fn(&mut Machine);

/// Drivers of several kinds.
pub(super) fn setups() -> [Setup; 3] {
    let one = Setup { messages: false, level: 4, features: Features::all(), ..Setup::default() };
    let several = Setup {
        tx: 3,
        rx: 2,
        queues: 2,
        level: IML_ADAPTIVE,
        features: Features::RXCSUM | Features::RXVLAN | Features::LRO,
        ..Setup::default()
    };
    let plain = Setup {
        tx: 2,
        data_ring: 128,
        bodies: 2,
        buffer: 256,
        revision: REVISION_3,
        ..Setup::default()
    };
    [one, several, plain]
}

/// Where the driver keeps what it has read, for the memories to be compared: how many, and the values.
pub(super) const NOTES: u64 = 0x9_0000;

fn note(machine: &mut Machine, value: u32) {
    let count = machine.bytes(NOTES, 4).try_into().map(u32::from_le_bytes).unwrap() + 1;
    machine.fill(NOTES, &count.to_le_bytes());
    machine.fill(NOTES + 4 * u64::from(count), &value.to_le_bytes());
}

fn order(machine: &mut Machine, command: u32) {
    let result = machine.order(command);
    note(machine, result);
}

/// One round of each worker's work, and no more.
fn round(machine: &mut Machine) {
    let _ = machine.executor.step_all();
}

fn settle(machine: &mut Machine) {
    machine.run();
}

/// The driver's interrupt handler: takes what it is told of, and unmasks.
fn serve(machine: &mut Machine) {
    let line = machine.read_vd(ICR);
    note(machine, line);
    for queue in 0..machine.setup.tx {
        while let Some(index) = machine.completed(queue) {
            note(machine, index);
        }
    }
    for queue in 0..machine.setup.rx {
        while let Some(got) = machine.clean(queue) {
            note(machine, got.bytes.len() as u32);
        }
    }
    for intr in 0..MAX_INTRS as u64 {
        machine.write_pt(IMR + STRIDE * intr, 0);
    }
}

fn packets(machine: &mut Machine, queue: usize, count: u32) {
    for number in 0..count {
        machine.put(queue, &[descriptor(TX_DATA, 60 + number, ALONE)]);
    }
}

fn coalesce(machine: &mut Machine, mode: u32, first: u32, depths: [u32; 2]) {
    let [tx_comp_depth, rx_depth] = depths.map(Into::into);
    let (mode, tx_depth_or_rate) = (mode.into(), first.into());
    let scheme = CoalesceScheme { mode, tx_depth_or_rate, tx_comp_depth, rx_depth };
    machine.fill(SPARE, scheme.as_bytes());
    let var_conf = VariableLenConfDesc {
        conf_ver: 1.into(),
        conf_len: (scheme.as_bytes().len() as u32).into(),
        conf_pa: SPARE.into(),
    };
    machine.set_shared(offset_of!(DriverShared, cmd_info), var_conf.as_bytes());
    order(machine, command::SET_COALESCE);
}

const FILTER_AT: usize = offset_of!(DriverShared, dev_read) + offset_of!(DSDevRead, rx_filter_conf);

/// Activates again with fewer buffers than frames.
fn start_with_few_buffers(machine: &mut Machine) {
    let shared = machine.prepare();
    let result = machine.activate(&shared);
    note(machine, result);
    for queue in 0..machine.setup.rx {
        machine.give(queue, 0, 1);
    }
    settle(machine);
}

/// Traffic both ways and all else that the adapter does. Rings go round.
pub(super) const SCRIPT: &[Step] = &[
    |machine| {
        let types = RssHashType::IPV4 | RssHashType::TCP_IPV4;
        machine.fill(RSS, conf(machine.setup.rx, types).as_bytes());
    },
    |machine| machine.start(),
    |machine| machine.fill(TX_DATA, &for_us(Packet::tcp4(&[7; 3000]).unfinished())),
    // Packets one by one, and many: silence, and moderated interrupts.
    |machine| packets(machine, 0, 1),
    |machine| machine.ring(0),
    settle,
    serve,
    |machine| packets(machine, 0, 20),
    |machine| machine.ring(0),
    round,
    |machine| packets(machine, machine.setup.tx - 1, 9),
    |machine| machine.ring(machine.setup.tx - 1),
    round,
    round,
    |machine| machine.advance(10),
    settle,
    |machine| machine.advance(200),
    serve,
    // A backend that takes one packet at a time.
    |machine| machine.host.set_room(0, Some(2)),
    |machine| packets(machine, 0, 5),
    |machine| machine.ring(0),
    settle,
    |machine| machine.host.set_room(0, Some(1)),
    settle,
    |machine| machine.host.set_room(0, None),
    settle,
    serve,
    // Frames for each queue.
    |machine| {
        for number in 0..12 {
            let (frame, _) = flow(Packet::tcp4(&[number; 300]), number, true);
            machine.host.push(u16::from(number) % machine.setup.queues, &frame);
        }
    },
    round,
    settle,
    |machine| machine.advance(3),
    serve,
    |machine| machine.advance(20_000),
    // A scheme, with packets that wait for more of them.
    |machine| coalesce(machine, COALESCE_STATIC, 64, [4, 3]),
    |machine| {
        packets(machine, 0, 2);
        machine.ring(0);
    },
    |machine| machine.host.push(0, &for_us(Packet::udp4(&[3; 40]).finished())),
    settle,
    |machine| machine.advance(600),
    settle,
    |machine| machine.advance(600),
    serve,
    |machine| coalesce(machine, COALESCE_RBC, 1000, [0; 2]),
    |machine| {
        packets(machine, 0, 1);
        machine.ring(0);
    },
    settle,
    |machine| {
        packets(machine, 0, 1);
        machine.ring(0);
    },
    settle,
    |machine| order(machine, command::GET_COALESCE),
    // An interrupt that is masked meanwhile.
    |machine| machine.write_pt(IMR, 1),
    |machine| machine.host.push(0, &for_us(Packet::udp4(&[4; 40]).finished())),
    settle,
    |machine| machine.advance(2000),
    serve,
    |machine| coalesce(machine, COALESCE_DISABLED, 0, [0; 2]),
    // Filters.
    |machine| machine.fill(SPARE, &[1, 0, 0x5e, 0, 0, 2, 1, 0, 0x5e, 0, 0, 1, 9]),
    |machine| {
        let mode = RxMode::UCAST | RxMode::MCAST;
        machine.set_shared(FILTER_AT, &mode.bits().to_le_bytes());
        machine.set_shared(FILTER_AT + offset_of!(RxFilterConf, mf_table_len), &[13, 0]);
        machine.set_shared(FILTER_AT + offset_of!(RxFilterConf, mf_table_pa), &SPARE.to_le_bytes());
        machine.set_shared(FILTER_AT + offset_of!(RxFilterConf, vf_table), &[0x20, 0, 0, 0]);
    },
    |machine| order(machine, command::UPDATE_RX_MODE),
    |machine| order(machine, command::UPDATE_MAC_FILTERS),
    |machine| order(machine, command::UPDATE_VLAN_FILTERS),
    // The driver changes its mind, and does not tell.
    |machine| machine.fill(SPARE, &[0; 13]),
    |machine| machine.host.push(0, &frame_to([1, 0, 0x5e, 0, 0, 1], 100)),
    |machine| machine.host.push(0, &frame_to([1, 0, 0x5e, 0, 0, 3], 100)),
    |machine| {
        for vlan in [5, 6] {
            let packet = Packet { vlan: vec![(0x8100, vlan)], ..Packet::udp4(&[1; 90]) };
            machine.host.push(0, &for_us(packet.finished()));
        }
    },
    settle,
    serve,
    |machine| order(machine, command::UPDATE_FEATURE),
    |machine| order(machine, command::UPDATE_RSSIDT),
    |machine| order(machine, command::UPDATE_IML),
    // Another address, in two halves.
    |machine| machine.write_vd(MACL, 0x0403_0202),
    |machine| machine.write_vd(MACH, 0x0605),
    |machine| machine.host.push(0, &frame_to([2, 2, 3, 4, 5, 6], 100)),
    settle,
    |machine| {
        machine.write_vd(MACL, u32::from_le_bytes([MAC[0], MAC[1], MAC[2], MAC[3]]));
        machine.write_vd(MACH, u16::from_le_bytes([MAC[4], MAC[5]]).into());
    },
    serve,
    // The link, and its event.
    |machine| machine.control.set_link(false),
    |machine| {
        packets(machine, 0, 1);
        machine.ring(0);
    },
    settle,
    |machine| machine.control.set_link(true),
    settle,
    |machine| machine.write_vd(ECR, machine.ecr().bits()),
    serve,
    // Without bus mastering.
    |machine| machine.command(pci::Command::MEMORY),
    |machine| {
        packets(machine, 0, 3);
        machine.ring(0);
    },
    |machine| machine.control.set_link(false),
    settle,
    |machine| machine.command(pci::Command::MEMORY | pci::Command::BUS_MASTER),
    |machine| machine.control.set_link(true),
    settle,
    serve,
    |machine| order(machine, command::GET_STATS),
    // Activated anew, with frames that wait for buffers.
    start_with_few_buffers,
    |machine| {
        for byte in 0..3 {
            if machine.setup.features.contains(Features::LRO) {
                let packet = Packet::tcp4(&[byte; 3000]);
                let bytes = for_us(packet.unfinished());
                machine.host.push_with(0, &bytes, packet.cut_offload(400));
            } else {
                machine.host.push(0, &for_us(Packet::tcp4(&[byte; 1000]).finished()));
            }
        }
    },
    settle,
    |machine| machine.advance(150),
    settle,
    |machine| machine.advance(5000),
    // A frame is given up after 20 ms, and the next begins to wait.
    |machine| machine.advance(16_000),
    |machine| {
        for queue in 0..machine.setup.rx {
            machine.give(queue, 0, 3);
            machine.give(queue, 1, 3);
        }
    },
    |machine| machine.advance(1000),
    |machine| machine.advance(30_000),
    |machine| {
        for queue in 0..machine.setup.rx {
            machine.give(queue, 0, 12);
            machine.write_pt(RXPROD + STRIDE * queue as u64, 0);
        }
    },
    settle,
    |machine| machine.advance(30_000),
    // Windows' way, without body buffers.
    |machine| {
        let mut shared = machine.prepare();
        shared.dev_read.misc.driver_info.gos = (gos::WINDOWS << gos::TYPE_SHIFT).into();
        let result = machine.activate(&shared);
        note(machine, result);
        for queue in 0..machine.setup.rx {
            machine.give(queue, 0, RING - 1);
        }
    },
    |machine| machine.host.push(0, &frame(700)),
    settle,
    // Queues that stop.
    |machine| machine.put(0, &[descriptor(TX_DATA, 60, 0)]),
    |machine| machine.ring(0),
    settle,
    |machine| order(machine, command::GET_QUEUE_STATUS),
    start_with_few_buffers,
    |machine| {
        let next = machine.rx[0][0].at();
        let tiny = RxDesc::new(RX_DATA, 10 | rxd::GEN);
        machine.fill(next, tiny.as_bytes());
        machine.host.push(0, &frame(60));
        machine.host.push(0, &frame(61));
    },
    settle,
    |machine| order(machine, command::GET_QUEUE_STATUS),
    |machine| order(machine, command::QUIESCE_DEV),
    |machine| machine.ring(0),
    settle,
    |machine| order(machine, command::GET_LINK),
    |machine| machine.write_vd(VRRS, REVISION_2),
    |machine| machine.write_vd(DSAH, 0),
    |machine| order(machine, command::RESET_DEV),
    |machine| machine.start(),
    |machine| machine.send(&frame(77), 0, 0),
    |machine| machine.arrive(&frame(78)),
    serve,
    |machine| machine.nic.reset(),
    settle,
];
