//! States that were stored, and states as nobody has saved them.

use paraslot_device::state::testing::mutate;
use proptest::prelude::*;

use super::*;
use crate::tests::random::{any_step, survive};

/// States from all over what a driver does with a disk, and with a drive.
static STATES: LazyLock<[Vec<serde_json::Value>; 2]> = LazyLock::new(|| {
    [Course::Disk, Course::Drive].map(|course| {
        let (build, _) = course.build();
        let mut machine = course.machine(&build);
        machine.states = Some(Vec::new());
        course.drive(&mut machine);
        let mut states = machine.states.take().unwrap_or_default();
        if course == Course::Disk {
            states.push(untold(&untold_writes()).0.snapshot());
            states.push(untold(&[(2, sectors(command::READ_DMA_EXT, 9, 1))]).0.snapshot());
        }
        states.into_iter().map(|state| serde_json::to_value(state).unwrap()).collect()
    })
});

proptest! {
    #![proptest_config(ProptestConfig { max_shrink_iters: 500, ..ProptestConfig::with_cases(2100) })]

    /// CVE-2013-4526 and its kin, numbers of a state that were believed: it is refused, and the HBA as after
    /// a reset; or a driver could have brought it about, and nothing that one does then is fatal.
    #[test]
    fn a_mutated_state_is_refused_or_harmless(
        packet: bool,
        place in any::<prop::sample::Index>(),
        late: bool,
        seeds in prop::collection::vec(any::<u64>(), 1..4),
        disk_steps in prop::collection::vec(any_step(false), 1..20),
        drive_steps in prop::collection::vec(any_step(true), 1..20),
    ) {
        let states = &STATES[usize::from(packet)];
        let mut state = if late { &states[states.len() - 1] } else { place.get(states) }.clone();
        seeds.into_iter().for_each(|seed| mutate(&mut state, seed));
        let Ok(state) = serde_json::from_value::<SavedState>(state) else { return Ok(()) };
        let course = if packet { Course::Drive } else { Course::Disk };
        let build = || match course {
            Course::Drive => options(drive(Some(SMALL.clone()))),
            _ => Options::new([DiskOptions::new(SMALL.clone())]),
        };
        let mut machine = Machine::of(build());
        machine.ahci.pause().unwrap();
        if machine.ahci.restore(&state).is_err() {
            static FRESH: LazyLock<[String; 2]> = LazyLock::new(|| {
                let options = [
                    Options::new([DiskOptions::new(SMALL.clone())]),
                    options(drive(Some(SMALL.clone()))),
                ];
                options.map(|options| {
                    let mut machine = Machine::of(options);
                    machine.ahci.pause().unwrap();
                    machine.saved()
                })
            });
            prop_assert_eq!(&machine.saved(), &FRESH[usize::from(packet)]);
            prop_assert!(!machine.interrupts.level());
            prop_assert_eq!(machine.interrupts.messages(), 0);
            return Ok(());
        }
        // Now that it has been taken over, it is what is saved.
        let text = machine.saved();
        machine.ahci.restore(&serde_json::from_str(&text).unwrap()).unwrap();
        prop_assert_eq!(machine.saved(), text);
        machine.ahci.resume().unwrap();
        machine.run();
        // With INTx as the only interrupt, as those steps expect.
        let ahci = &mut machine.ahci;
        let at = capability(ahci, pci::capability::MSI);
        write_config(ahci, at + pci::msi::CONTROL, 0);
        let at = capability(ahci, pci::capability::POWER_MANAGEMENT);
        write_config(ahci, at + pci::pm::CONTROL, 0);
        write_config(ahci, pci::header::COMMAND, pci::Command::MEMORY.bits());
        let gate = GatedBackend::new(SMALL.clone()).gate();
        survive(&mut machine, &gate, if packet { drive_steps } else { disk_steps })?;
        // Whatever it was in the middle of is over, and can be saved.
        let state = machine.snapshot();
        machine.ahci.pause().unwrap();
        machine.ahci.restore(&state).unwrap();
    }
}

/// An image for what is not looked at.
static SMALL: LazyLock<Arc<MemoryBackend>> = LazyLock::new(|| {
    let options = MemoryOptions { volatile_cache: true, ..MemoryOptions::default() };
    Arc::new(MemoryBackend::new(64 * 2048, options).unwrap())
});

/// Stored states of the first version, and before which access of a course each was saved: queued commands
/// are issued; a drive has sense data to be asked for.
const STORED: [(Course, usize, &str); 2] = [
    (Course::Disk, 84, include_str!("../../../tests/fixtures/state/ahci-1.json")),
    (Course::Drive, 100, include_str!("../../../tests/fixtures/state/ahci-drive-1.json")),
];
/// The same of [`untold`].
const STORED_UNTOLD: &str = include_str!("../../../tests/fixtures/state/ahci-untold-1.json");

/// What an earlier version of this crate saved, in the middle of traffic, is read by this one, and the
/// driver goes on with it.
#[test]
fn the_first_version_is_read() {
    for (course, before, saved) in STORED {
        let (_, wanted) = course.run(before, |_| Event::Pause);
        let (_, seen) = course.run(before, |build| Event::Restore(build, saved.trim().into()));
        assert_eq!(seen.results, wanted.results);
        assert!(seen.operations == wanted.operations && seen.memory == wanted.memory);
        assert_eq!(seen.messages, wanted.messages);
    }
    let (mut machine, build, _) = untold(&untold_writes());
    machine.go_on_with(build(), STORED_UNTOLD.trim());
    enable(&mut machine.ahci);
    machine.run();
    assert_eq!((machine.get(port::SACT), machine.get(port::TFD)), (0, 0x50));
}

#[test]
#[ignore = "writes the stored states anew"]
fn store_the_first_version() {
    let store = |name: &str, state: &SavedState| {
        let path = format!("{}/tests/fixtures/state/{name}-1.json", env!("CARGO_MANIFEST_DIR"));
        std::fs::write(path, serde_json::to_string(state).unwrap() + "\n").unwrap();
    };
    for ((_, before, _), (states, name)) in
        STORED.iter().zip(STATES.iter().zip(["ahci", "ahci-drive"]))
    {
        store(name, &serde_json::from_value(states[*before].clone()).unwrap());
    }
    store("ahci-untold", &untold(&untold_writes()).0.snapshot());
}
