//! Whatever a guest does, nothing panics, the worker comes to rest, and a reset brings the adapter
//! back (bug-test letters B, F, R).

use proptest::prelude::*;

use super::*;
use crate::registers::REGISTERS;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Write { bar: u8, offset: u64, data: Vec<u8> },
    Read { bar: u8, offset: u64, len: usize },
    Register { offset: u32, value: u32 },
    Ring { transmit: bool, base: u64, len: u32, head: u32 },
    Transmit(Vec<[u32; 4]>),
    Receive { index: u32, address: u64 },
    Give(u32),
    Arrive { bytes: Vec<u8>, valid: bool },
    Room(Option<usize>),
    Advance(u64),
    Link(bool),
    Run,
    BusMaster(bool),
    Reset(bool),
    Pause,
}

fn any_address() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0u64..0x4000).prop_map(|at| TX_DATA + at),
        4 => (0u64..0x4000).prop_map(|at| RX_DATA + at),
        // Back into the adapter's own structures.
        1 => Just(TX_RING),
        1 => Just(RX_RING),
        1 => Just(0),
        1 => (0u64..2000).prop_map(|at| MEMORY as u64 - at),
        1 => any::<u64>(),
    ]
}

/// A descriptor as its four words: mostly ones that make sense.
fn any_descriptor() -> impl Strategy<Value = [u32; 4]> {
    let len = prop_oneof![4 => 0u32..2000, 1 => 0u32..0x1_0000, 1 => Just(0xf_ffff)];
    let flags = (any::<u8>(), 0u32..3, any::<u32>());
    let near = (any_address(), len, flags).prop_map(|(address, len, (flags, kind, status))| {
        let command = match kind {
            0 => len & 0xffff | u32::from(flags & 0xdf) << 24 | status & 0xff_0000,
            1 => len | transmit::DEXT | transmit::DTYP_DATA | u32::from(flags) << 24,
            _ => len | transmit::DEXT | u32::from(flags) << 24,
        };
        [address as u32, (address >> 32) as u32, command, status]
    });
    let context = (any::<[u8; 4]>(), 0u16..3000, any::<u32>()).prop_map(|(places, mss, flags)| {
        let [a, b, c, d] = places.map(|place| place % 80);
        let context = Context {
            ipcss: a,
            ipcso: b,
            ipcse: u16::from(a) + 20,
            tucss: c,
            tucso: d,
            mss,
            hdrlen: places[0] % 120,
            ..Context::default()
        };
        let flags = flags & (transmit::TSE | transmit::IP | transmit::TCP | transmit::RS);
        let descriptor = TransmitDescriptor::context(&context, flags);
        let address = descriptor.address.get();
        let status = descriptor.status.get();
        [address as u32, (address >> 32) as u32, descriptor.command.get(), status]
    });
    prop_oneof![8 => near, 3 => context, 1 => any::<[u32; 4]>()]
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![0usize..100, 1000usize..3000, 8000usize..17_000];
    (payload, 0u8..10, any::<[u8; 8]>()).prop_map(|(len, kind, noise)| {
        let mut bytes = match kind {
            0 => Packet::tcp4(&vec![kind; len]).finished(),
            1 => Packet::tcp6(&vec![kind; len]).finished(),
            2 => Packet::udp4(&vec![kind; len]).unfinished(),
            3 => Packet { vlan: vec![(0x8100, 5)], ..Packet::udp6(&vec![kind; len]) }.finished(),
            _ => frame(len.max(14)),
        };
        bytes[..6].copy_from_slice(&if kind & 1 == 0 { MAC } else { [0xff; 6] });
        if kind > 7 {
            let at = usize::from(noise[0]) % (bytes.len() - 8);
            bytes[at..at + 8].copy_from_slice(&noise);
        }
        bytes
    })
}

pub(super) fn any_step() -> impl Strategy<Value = Step> {
    let mut offsets: Vec<u32> = REGISTERS.iter().map(|register| register.offset).collect();
    offsets.extend([ICR, ICS, IMS, IMC, ITR, TDT, RDT, TDH, RDH, RCTL, TCTL, MDIC, EECD]);
    let value = prop_oneof![
        3 => any::<u32>(),
        3 => (0u32..32).prop_map(|bit| 1 << bit),
        1 => Just(0),
        1 => Just(u32::MAX),
        1 => 0u32..300,
        2 => (any::<u32>(), any::<u32>()).prop_map(|(a, b)| a & b | 2),
    ];
    let offset = prop_oneof![0u64..0x6000, 0u64..0x2_0010];
    let data = prop::collection::vec(any::<u8>(), 0..17);
    prop_oneof![
        2 => (0u8..3, offset.clone(), data)
            .prop_map(|(bar, offset, data)| Step::Write { bar, offset, data }),
        1 => (0u8..3, offset, 0usize..17)
            .prop_map(|(bar, offset, len)| Step::Read { bar, offset, len }),
        6 => (prop::sample::select(offsets), value)
            .prop_map(|(offset, value)| Step::Register { offset, value }),
        1 => (any::<bool>(), any_address(), 0u32..0x2000, 0u32..300)
            .prop_map(|(transmit, base, len, head)| Step::Ring { transmit, base, len, head }),
        8 => prop::collection::vec(any_descriptor(), 1..12).prop_map(Step::Transmit),
        2 => (0u32..16, any_address())
            .prop_map(|(index, address)| Step::Receive { index, address }),
        4 => (0u32..16).prop_map(Step::Give),
        6 => (any_frame(), any::<bool>())
            .prop_map(|(bytes, valid)| Step::Arrive { bytes, valid }),
        2 => prop::option::of(0usize..4).prop_map(Step::Room),
        3 => (0u64..200_000).prop_map(Step::Advance),
        1 => any::<bool>().prop_map(Step::Link),
        8 => Just(Step::Run),
        1 => any::<bool>().prop_map(Step::BusMaster),
        1 => any::<bool>().prop_map(Step::Reset),
        1 => Just(Step::Pause),
    ]
}

pub(super) fn perform(machine: &mut Machine, step: Step) {
    match step {
        Step::Write { bar, offset, data } => machine.nic.bar_write(bar, offset, &data),
        Step::Read { bar, offset, len } => {
            machine.nic.bar_read(bar, offset, &mut vec![0; len]);
        }
        Step::Register { offset, value } => machine.write(offset, value),
        Step::Ring { transmit, base, len, head } => {
            let at = if transmit { TDBAL } else { RDBAL };
            machine.write(at, base as u32);
            machine.write(at + 8, len);
            machine.write(at + 16, head);
        }
        Step::Transmit(descriptors) => {
            let base = u64::from(machine.read(TDBAL));
            let len = (machine.read(TDLEN) / 16).max(1);
            let mut tail = machine.read(TDT) % len;
            for words in descriptors {
                let at = GuestAddress(base + u64::from(tail) * 16);
                let _ = machine.memory.write_slice(words.as_bytes(), at);
                tail = (tail + 1) % len;
            }
            machine.write(TDT, tail);
        }
        Step::Receive { index, address } => machine.receive_descriptor(index, address),
        Step::Give(count) => {
            let tail = machine.read(RDT).wrapping_add(count) % (machine.read(RDLEN) / 16).max(1);
            machine.write(RDT, tail);
        }
        Step::Arrive { bytes, valid } => {
            let offload = Offload { checksum_valid: valid, ..Offload::default() };
            machine.host.push_raw(0, &bytes, offload);
        }
        Step::Room(frames) => machine.host.set_room(0, frames),
        Step::Advance(nanoseconds) => machine.clock.advance(Duration::from_nanos(nanoseconds)),
        Step::Link(up) => machine.control.set_link(up),
        Step::Run => machine.run(),
        Step::BusMaster(on) => {
            let mut bits = pci::Command::MEMORY;
            bits.set(pci::Command::BUS_MASTER, on);
            machine.command(bits);
        }
        Step::Reset(software) => {
            if software {
                machine.write(CTRL, Ctrl::RST.bits());
            } else {
                machine.nic.reset();
                machine.enable();
            }
            machine.start();
        }
        Step::Pause => {
            machine.nic.pause().unwrap();
            machine.nic.resume().unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::with_cases(160) })]

    #[test]
    fn nothing_that_a_guest_does_is_fatal(steps in prop::collection::vec(any_step(), 1..100)) {
        let mut machine = Machine::new();
        for step in steps {
            perform(&mut machine, step);
            // The line is where ICR and IMS say, or will be when its time has come.
            let wanted = machine.read(ICS) & machine.read(IMS) != 0;
            let put_off = machine.nic.shared.irq.due().is_some();
            prop_assert!(!machine.level() || wanted);
            prop_assert_eq!(machine.level() || put_off, wanted);
            let head = machine.read(TDH);
            prop_assert!(head <= 0xffff);
        }
        machine.run();
        // A reset makes all good.
        machine.host.set_room(0, None);
        machine.host.open();
        machine.control.set_link(true);
        machine.enable();
        machine.nic.reset();
        machine.enable();
        while machine.host.waiting(0) != 0 {
            machine.start();
            machine.run();
        }
        machine.sent();
        machine.start();
        machine.fill(TX_DATA, &frame(300));
        machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 300, ALONE)]);
        prop_assert_eq!(machine.one_sent(), frame(300));
        machine.arrive(&frame(300));
        prop_assert_eq!(machine.clean().unwrap().0, frame(300));
    }
}
