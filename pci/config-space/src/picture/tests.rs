//! Functions of ours read back, and lists that make no sense.

use std::sync::Arc;

use paraslot_device::interrupt::NoInterrupts;
use paraslot_spec::pci::{capability, header};
use proptest::prelude::*;

use super::*;
use crate::{BarKind, BarSpec, ConfigSpaceBuilder, Identity, MsixLayout};

/// What the builder makes of a function with everything.
fn built() -> Vec<u8> {
    let identity = Identity {
        vendor: 0x15ad,
        device: 0x07b0,
        revision: 1,
        class: [0x02, 0x00, 0x00],
        subsystem_vendor: 0x15ad,
        subsystem: 0x1234,
    };
    let none = Arc::new(NoInterrupts);
    let bar = BarSpec { kind: BarKind::Memory32, size: 0x2000, prefetchable: false };
    let msix = MsixLayout { vectors: 25, table: (2, 0), pba: (2, 0x1000) };
    let mut builder = ConfigSpaceBuilder::new(identity).bar(2, bar).intx();
    builder.capability(capability::VENDOR, &[6, 0, 0, 0], &[]);
    let config = builder.msix(msix).power_management().express().build(none.clone(), none);
    let mut bytes = vec![0; 4096];
    for (at, chunk) in (0u16..).step_by(4).zip(bytes.chunks_mut(4)) {
        config.read(at, chunk);
    }
    bytes
}

#[test]
fn what_was_built_is_read_back() {
    let picture = Picture::of(&built());
    assert_eq!((picture.vendor, picture.device, picture.revision), (0x15ad, 0x07b0, 1));
    assert_eq!((picture.subsystem_vendor, picture.subsystem), (0x15ad, 0x1234));
    assert_eq!(picture.class, [2, 0, 0]);
    assert_eq!((picture.pin, picture.header_type, picture.multifunction), (Some('A'), 0, false));
    assert_eq!(picture.faults, []);
    let found: Vec<(&str, String)> =
        picture.capabilities.iter().map(|found| (found.name, found.facts.join("; "))).collect();
    let expected = [
        ("Vendor Specific", "6 bytes"),
        ("MSI-X", "25 vectors; table in BAR 2 at 0x0; pending bits in BAR 2 at 0x1000; disabled"),
        ("Power Management", "version 3; D0, D3hot; now D0; keeps its state in D3hot"),
        (
            "PCI Express",
            "version 2; integrated endpoint; payloads of up to 128 bytes; function level reset",
        ),
    ];
    for (name, facts) in expected {
        assert!(found.contains(&(name, facts.to_owned())), "{name}: {facts} in {found:#?}");
    }
    assert_eq!(found.len(), expected.len());
}

/// What Linux shows to whoever is not root.
#[test]
fn a_header_alone_has_no_capabilities_and_no_faults() {
    let bytes = built();
    let picture = Picture::of(&bytes[..64]);
    assert_eq!((picture.vendor, picture.seen), (0x15ad, 64));
    assert!(picture.capabilities.is_empty() && picture.faults.is_empty());
    assert_eq!(Picture::of(&[]).vendor, 0);
}

#[test]
fn circles_and_strays_end_the_list() {
    let mut bytes = vec![0u8; 4096];
    bytes[usize::from(header::STATUS)] = 0x10;
    bytes[usize::from(header::CAPABILITIES)] = 0x40;
    (bytes[0x40], bytes[0x41]) = (capability::POWER_MANAGEMENT, 0x50);
    (bytes[0x50], bytes[0x51]) = (capability::MSI, 0x40);
    let picture = Picture::of(&bytes);
    assert_eq!(picture.faults, [ListFault::Endless(0x40)]);
    assert_eq!(picture.capabilities.len(), 2);
    bytes[0x51] = 0x3c;
    assert_eq!(Picture::of(&bytes).faults, [ListFault::IntoHeader(0x3c)]);
    bytes[0x51] = 0;
    // An extended one that leads to itself, by way of another; and into conventional space.
    bytes[0x100..0x104].copy_from_slice(&0x1401_0001_u32.to_le_bytes());
    bytes[0x140..0x144].copy_from_slice(&0x1001_000d_u32.to_le_bytes());
    bytes[0x144] = 0b1101;
    let picture = Picture::of(&bytes);
    assert_eq!(picture.faults, [ListFault::Endless(0x100)]);
    let last = picture.capabilities.last().unwrap();
    assert_eq!((last.offset, last.name), (0x140, "Access Control Services"));
    assert_eq!(
        last.facts,
        ["version 1", "source validation, request redirect, completion redirect"]
    );
    bytes[0x140..0x144].copy_from_slice(&0x0801_000d_u32.to_le_bytes());
    assert_eq!(Picture::of(&bytes).faults, [ListFault::OutOfPlace(0x80)]);
}

proptest! {
    /// Bytes of any origin: it ends, and no list has a place twice.
    #[test]
    fn nothing_is_believed(mut bytes in prop::collection::vec(any::<u8>(), 0..4096), listed: bool) {
        if listed && let Some(status) = bytes.get_mut(usize::from(header::STATUS)) {
            *status |= 0x10;
        }
        let picture = Picture::of(&bytes);
        let mut places: Vec<u16> = picture.capabilities.iter().map(|found| found.offset).collect();
        places.sort_unstable();
        prop_assert!(places.windows(2).all(|pair| pair[0] != pair[1]));
        prop_assert!(places.iter().all(|at| usize::from(*at) < bytes.len()));
    }
}
