//! Whatever a guest does, nothing panics, and a reset brings the HBA back (bug-test letters F, L, R).

use paraslot_backends::block::testing::{Gate, GatedBackend};
use paraslot_spec::ahci::ATAPI_COMMAND;
use proptest::prelude::*;

use super::packet::{disc, drive, options};
use super::*;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Write { offset: u64, data: Vec<u8> },
    Read { offset: u64, len: usize },
    Port { register: u32, value: u32 },
    Host { register: u32, value: u32 },
    Command { slot: u32, fis: [u8; 20], cdb: [u8; 12], prds: Vec<(u64, u32)>, header: u32 },
    Issue { slots: u32, queued: bool },
    Run,
    Release(usize),
    BusMaster(bool),
    Reset,
    Pause,
}

fn any_command() -> impl Strategy<Value = [u8; 20]> {
    let codes = prop::sample::select(vec![
        0x60u8, 0x61, 0x60, 0x61, 0x25, 0x35, 0x3d, 0x20, 0x24, 0x30, 0xc4, 0xc6, 0x06, 0x2f, 0x47,
        0xec, 0xef, 0xb0, 0xe0, 0xe5, 0xe6, 0xe7, 0x90, 0x40,
    ]);
    let near = (codes, 0u8..4, any::<[u8; 3]>(), any::<[u8; 16]>());
    let plausible = near.prop_map(|(code, features, [low, count, flags], rest)| {
        let mut fis = [0; 20];
        fis[..4].copy_from_slice(&[0x27, 0x80, code, features]);
        fis[4] = low;
        fis[7] = 0x40 | flags & 0x80;
        fis[12] = count & 0xf8;
        // Sometimes a reset, sometimes noise.
        match flags & 0x1f {
            0 => fis[1] = 0,
            1 => fis[15] = 4,
            2 => fis[4..].copy_from_slice(&rest),
            _ => {}
        }
        fis
    });
    prop_oneof![8 => plausible, 1 => any::<[u8; 20]>()]
}

fn any_prds() -> impl Strategy<Value = Vec<(u64, u32)>> {
    let address = prop_oneof![
        6 => (0u64..0x8000).prop_map(|at| DATA + at * 2),
        1 => Just(MEMORY as u64 - 512),
        // Back into the HBA's own structures.
        1 => Just(LIST),
        1 => Just(FIS),
        1 => any::<u64>(),
    ];
    let dbc = prop_oneof![6 => (0u32..2048).prop_map(|half| half * 2 + 1), 1 => any::<u32>()];
    prop::collection::vec((address, dbc), 0..6)
}

/// A packet, or another command of a packet device.
fn any_packet() -> impl Strategy<Value = [u8; 20]> {
    let codes = prop::sample::select(vec![0xa0u8, 0xa0, 0xa0, 0xa0, 0xa1, 0x08, 0xec, 0xef, 0xe6]);
    let plausible = (codes, 0u8..8, any::<[u8; 2]>(), 0u8..32).prop_map(
        |(code, features, [low, high], control)| {
            let mut fis = [0; 20];
            fis[..7].copy_from_slice(&[0x27, 0x80, code, features, 0, low, high]);
            match control {
                0 => fis[1] = 0,
                1 => (fis[1], fis[15]) = (0, 4),
                _ => {}
            }
            fis
        },
    );
    prop_oneof![8 => plausible, 1 => any_command()]
}

fn any_cdb() -> impl Strategy<Value = [u8; 12]> {
    let opcode = prop::sample::select(vec![
        0x00u8, 0x03, 0x12, 0x1a, 0x1b, 0x1e, 0x25, 0x28, 0x28, 0x28, 0x2f, 0x35, 0x43, 0x46, 0x4a,
        0x51, 0x55, 0x5a, 0xa0, 0xa8, 0xbd, 0xbe,
    ]);
    let small = (opcode, any::<[u8; 12]>()).prop_map(|(opcode, noise)| {
        let mut cdb = noise.map(|byte| if byte < 0xc0 { byte & 3 } else { byte });
        cdb[0] = opcode;
        cdb
    });
    prop_oneof![8 => small, 1 => any::<[u8; 12]>()]
}

/// Anything that a guest and its host do with a port that has a disk, or a packet device.
pub(super) fn any_step(packet: bool) -> impl Strategy<Value = Step> {
    let command = if packet { any_packet().boxed() } else { any_command().boxed() };
    let registers: Vec<u32> = crate::registers::PORT.iter().map(|r| r.offset).collect();
    let value = prop_oneof![
        any::<u32>(),
        (0u32..32).prop_map(|bit| 1 << bit),
        Just(0),
        Just(0x11),
        Just(0x10),
        Just(u32::MAX)
    ];
    prop_oneof![
        2 => (0u64..0x1010, prop::collection::vec(any::<u8>(), 0..17))
            .prop_map(|(offset, data)| Step::Write { offset, data }),
        1 => (0u64..0x1010, 0usize..17).prop_map(|(offset, len)| Step::Read { offset, len }),
        4 => (prop::sample::select(registers), value.clone())
            .prop_map(|(register, value)| Step::Port { register, value }),
        1 => (0u32..0x30, value).prop_map(|(register, value)| Step::Host { register, value }),
        8 => (0u32..32, command, any_cdb(), any_prds(), any::<u32>()).prop_map(
            move |(slot, fis, cdb, prds, noise)| {
                let usual = if packet { 5 | header::ATAPI } else { 5 };
                let header = if noise & 0xf0 == 0 { noise } else { usual };
                Step::Command { slot, fis, cdb, prds, header }
            }
        ),
        8 => (any::<u32>(), any::<bool>())
            .prop_map(|(slots, queued)| Step::Issue { slots, queued }),
        8 => Just(Step::Run),
        4 => (0usize..4).prop_map(Step::Release),
        1 => any::<bool>().prop_map(Step::BusMaster),
        1 => Just(Step::Reset),
        1 => Just(Step::Pause),
    ]
}

fn perform(machine: &mut Machine, gate: &Gate, step: Step) {
    match step {
        Step::Write { offset, data } => machine.ahci.bar_write(ABAR, offset, &data),
        Step::Read { offset, len } => {
            let mut data = vec![0; len];
            machine.ahci.bar_read(ABAR, offset, &mut data);
        }
        Step::Port { register, value } => machine.set(register, value),
        Step::Host { register, value } => machine.write(register & !3, value),
        Step::Command { slot, fis, cdb, prds, header } => {
            let fis = RegisterH2d::read_from_bytes(&fis).unwrap();
            let prds: Vec<_> = prds
                .into_iter()
                .map(|(address, dbc)| {
                    let mut prd = Prd::new(address, 2);
                    prd.dbc = dbc.into();
                    prd
                })
                .collect();
            machine.prepare(slot, &fis, &prds, header & 0xffe0);
            machine.fill(table_at(slot) + ATAPI_COMMAND, &cdb);
        }
        Step::Issue { slots, queued } => {
            if queued {
                machine.set(port::SACT, slots);
            }
            machine.set(port::CI, slots);
        }
        // A device that waits for the gate rests all the same.
        Step::Run => machine.run(),
        Step::Release(count) => gate.release(count),
        Step::BusMaster(on) => {
            let mut bits = pci::Command::MEMORY;
            bits.set(pci::Command::BUS_MASTER, on);
            write_config(&mut machine.ahci, pci::header::COMMAND, bits.bits());
        }
        Step::Reset => {
            machine.ahci.reset();
            enable(&mut machine.ahci);
            machine.start();
        }
        Step::Pause => {
            if machine.ahci.pause().is_ok() {
                machine.ahci.resume().unwrap();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::with_cases(192) })]

    #[test]
    fn nothing_that_a_guest_does_is_fatal(steps in prop::collection::vec(any_step(false), 1..120)) {
        let backend = GatedBackend::new(numbered());
        let gate = backend.gate();
        let mut machine = Machine::new(backend);
        survive(&mut machine, &gate, steps)?;
        machine.issue_with(0, &sectors(command::READ_DMA_EXT, 77, 1), 512);
        machine.expect_done();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 2000, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn nothing_that_a_guest_does_is_fatal_to_a_drive(
        steps in prop::collection::vec(any_step(true), 1..120),
        deaf: bool,
    ) {
        let backend = GatedBackend::new(disc(0));
        let gate = backend.gate();
        gate.deafen(deaf);
        let unit = drive(Some(Arc::new(backend)));
        let mut machine = Machine::of(options(unit.clone()));
        enable(&mut machine.ahci);
        machine.start();
        survive(&mut machine, &gate, steps)?;
        // It may have been told to eject.
        let _ = unit.change_medium(Some(Arc::new(disc(0))));
        machine.expect_drive();
    }
}

/// Does all of it, and resets the HBA, which makes all good, and is quiet.
pub(super) fn survive(
    machine: &mut Machine,
    gate: &Gate,
    steps: Vec<Step>,
) -> Result<(), TestCaseError> {
    for step in steps {
        perform(machine, gate, step);
        let page = machine.ahci.layout().windows[0].page.clone();
        let ghc = page.words()[1].load(Ordering::Relaxed);
        prop_assert_eq!(ghc & !3, Ghc::AE.bits());
        // The line is where IS and GHC.IE say, with INTx as the only interrupt.
        let level = ghc & 2 != 0 && page.words()[2].load(Ordering::Relaxed) != 0;
        prop_assert_eq!(machine.interrupts.level(), level);
    }
    gate.open();
    enable(&mut machine.ahci);
    machine.write(host::GHC, Ghc::HR.bits());
    machine.run();
    prop_assert_eq!(machine.read(host::GHC), Ghc::AE.bits());
    prop_assert_eq!(machine.ahci.taken(0), 0);
    machine.set(port::CLBU, 0);
    machine.set(port::FBU, 0);
    machine.start();
    Ok(())
}
