#![expect(clippy::cast_possible_truncation, reason = "numbers chosen to fit")]

use std::collections::BTreeSet;
use std::sync::Arc;

use paraslot_spec::pci::{Command, capability};
use proptest::prelude::*;

use super::*;
use crate::testing::{Host, MSIX_BAR, PENDING, TABLE, VECTORS, build, function};

fn table_end() -> u64 {
    TABLE + table_len(VECTORS)
}

fn pending_end() -> u64 {
    PENDING + pending_len(VECTORS)
}

#[test]
fn structures_have_their_lengths() {
    assert_eq!((table_len(70), pending_len(70)), (1120, 16));
    assert_eq!((pending_len(1), pending_len(64), pending_len(65)), (8, 8, 16));
    assert_eq!((table_len(2048), pending_len(2048)), (32768, 256));
}

/// 6.8.2: all entries are zero and masked.
#[test]
fn the_table_after_reset() {
    let (config, _) = function();
    for vector in 0..u64::from(VECTORS) {
        let mut entry = [0xa5; 16];
        assert!(config.msix_read(MSIX_BAR, TABLE + 16 * vector, &mut entry));
        assert_eq!(entry, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    }
}

/// Every offset around the structures, every width from 1 to 8 and beyond: what lies in them is
/// theirs, reads agree with one another, and nothing panics. Cloud Hypervisor 78a30012f, 7fbc5a135
/// and 61193de6e, crosvm 002cd87a0, CVE-2020-13754.
#[test]
fn reads_of_any_offset_and_width() {
    let (mut config, _) = function();
    let _ = config.control(capability::MSI_X, msix::CONTROL, msix::ENABLE);
    for vector in [0, 7, 8, 63, 64, 69] {
        config.interrupts().trigger_msix(vector);
    }
    for at in (TABLE..table_end()).step_by(3) {
        assert!(config.msix_write(MSIX_BAR, at, &[(at % 251) as u8]));
    }
    // Unmasking along the way sent some; what counts is that all reads agree.
    let byte = |at: u64| {
        let mut data = [0xa5];
        config.msix_read(MSIX_BAR, at, &mut data).then_some(data[0])
    };
    let mut seen = BTreeSet::new();
    for offset in TABLE - 16..pending_end() + 16 {
        let inside =
            (TABLE..table_end()).contains(&offset) || (PENDING..pending_end()).contains(&offset);
        assert_eq!(byte(offset).is_some(), inside, "{offset:#x}");
        for len in (0..=8).chain([16, 64]) {
            let mut data = vec![0xa5; len];
            assert_eq!(config.msix_read(MSIX_BAR, offset, &mut data), inside);
            for (at, value) in (offset..).zip(&data) {
                let expected = if inside { byte(at).unwrap_or(0) } else { 0xa5 };
                assert_eq!(*value, expected, "{len} bytes at {offset:#x}");
                seen.insert(*value);
            }
        }
    }
    assert!(seen.len() > 100, "the table held something to compare");
    for offset in [0, u64::MAX, u64::MAX - 7, u64::from(u32::MAX) + TABLE + 1] {
        assert!(!config.msix_read(MSIX_BAR, offset, &mut [0; 8]));
    }
    assert!(!config.msix_read(0, TABLE, &mut [0; 4]));
    assert!(!config.msix_read(255, TABLE, &mut [0; 4]));
}

#[test]
fn writes_of_any_offset_and_width() {
    let (mut config, _) = function();
    let mut expected: Vec<u8> = Vec::new();
    for _ in 0..VECTORS {
        expected.extend(RESET);
    }
    for offset in TABLE - 16..table_end() + 16 {
        let inside = (TABLE..table_end()).contains(&offset);
        for len in (0..=8_u8).chain([16, 40]) {
            let value = (offset % 255) as u8 ^ len;
            let data: Vec<u8> = (0..len).map(|index| value.wrapping_mul(index | 1)).collect();
            assert_eq!(config.msix_write(MSIX_BAR, offset, &data), inside);
            if inside {
                let start = (offset - TABLE) as usize;
                for (at, byte) in (start..expected.len()).zip(&data) {
                    let writable = WRITABLE[at % ENTRY];
                    expected[at] = expected[at] & !writable | byte & writable;
                }
            }
        }
    }
    let mut table = vec![0; expected.len()];
    assert!(config.msix_read(MSIX_BAR, TABLE, &mut table));
    assert!(table == expected);
    for offset in [0, u64::MAX, u64::MAX - 7] {
        assert!(!config.msix_write(MSIX_BAR, offset, &[0; 8]));
    }
    assert!(!config.msix_write(0, TABLE, &[0; 4]));
}

/// CVE-2015-7549: writes to the pending bits must have somewhere to go; they are ignored.
#[test]
fn pending_bits_are_read_only() {
    let (mut config, _) = function();
    let _ = config.control(capability::MSI_X, msix::CONTROL, msix::ENABLE);
    config.interrupts().trigger_msix(66);
    for value in [0x00, 0xff] {
        for offset in PENDING..pending_end() {
            for len in 0..=16 {
                assert!(config.msix_write(MSIX_BAR, offset, &vec![value; len]));
            }
        }
    }
    let mut bits = [0xa5; 16];
    assert!(config.msix_read(MSIX_BAR, PENDING, &mut bits));
    assert_eq!(u128::from_le_bytes(bits), 1 << 66);
}

#[derive(Clone, Debug)]
enum Step {
    Raise(usize),
    Mask(usize, bool),
    FunctionMask(bool),
    Enable(bool),
    BusMaster(bool),
    Sleep(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let vector = 0..3_usize;
    prop_oneof![
        4 => vector.clone().prop_map(Step::Raise),
        2 => (vector, any::<bool>()).prop_map(|(vector, on)| Step::Mask(vector, on)),
        1 => any::<bool>().prop_map(Step::FunctionMask),
        1 => any::<bool>().prop_map(Step::Enable),
        1 => any::<bool>().prop_map(Step::BusMaster),
        1 => any::<bool>().prop_map(Step::Sleep),
    ]
}

proptest! {
    /// Against the specification in a few lines: what is sent, and what is pending, after each step.
    #[test]
    fn vectors_do_as_the_specification_says(steps in prop::collection::vec(step(), 1..100)) {
        let host = Arc::new(Host::default());
        let mut config = build(&host);
        let (mut masked, mut pending) = ([true; 3], [false; 3]);
        let (mut function_mask, mut enabled, mut bus_master, mut asleep) = (false, false, false, false);
        for step in steps {
            let mut sent = Vec::new();
            match step {
                Step::Raise(vector) => {
                    config.interrupts().trigger_msix(vector as u16);
                    pending[vector] |= enabled;
                }
                Step::Mask(vector, on) => {
                    masked[vector] = on;
                    config.msix_write(MSIX_BAR, TABLE + 16 * vector as u64 + 12, &[on.into()]);
                }
                Step::FunctionMask(on) => function_mask = on,
                Step::Enable(on) => enabled = on,
                Step::BusMaster(on) => bus_master = on,
                Step::Sleep(on) => asleep = on,
            }
            let control = if function_mask { msix::FUNCTION_MASK } else { 0 }
                | if enabled { msix::ENABLE } else { 0 };
            let _ = config.control(capability::MSI_X, msix::CONTROL, control);
            let _ = config.set_command(if bus_master { Command::BUS_MASTER } else { Command::empty() });
            let _ = config.control(capability::POWER_MANAGEMENT, 4, if asleep { 3 } else { 0 });
            for vector in 0..3 {
                let open = enabled && bus_master && !asleep && !function_mask && !masked[vector];
                if open && pending[vector] {
                    pending[vector] = false;
                    sent.push(vector as u16);
                }
            }
            prop_assert_eq!(host.take_sent(), sent);
            let mut bits = [0];
            prop_assert!(config.msix_read(MSIX_BAR, PENDING, &mut bits));
            let expected = (0..3).map(|vector| u8::from(pending[vector]) << vector).sum::<u8>();
            prop_assert_eq!(bits[0], expected);
        }
    }
}
