use proptest::prelude::*;

use super::*;
use crate::fake::{Fake, express_capability, msix_capability};

fn config(list: &[(u16, &[u8])]) -> [u8; CONFIG_LEN] {
    let fake = Fake::new();
    fake.lock().capabilities(list);
    let config = fake.lock().config.clone();
    config.try_into().unwrap()
}

fn places(list: &[Capability]) -> Vec<u16> {
    list.iter().map(|capability| capability.at).collect()
}

const VENDOR_OF_6: [u8; 6] = [capability::VENDOR, 0, 6, 1, 2, 3];

#[test]
fn what_is_harmless_is_kept_in_its_place() {
    let list: &[(u16, &[u8])] = &[
        (0xe0, &[capability::POWER_MANAGEMENT, 0]),
        (0x48, &VENDOR_OF_6),
        // Vital product data: it would write to the hardware's memory.
        (0x58, &[0x03, 0]),
        (0x70, &msix_capability(5, (3, 0x2000), (3, 0x3000))),
    ];
    let list = parse(&config(list), true).unwrap();
    assert_eq!(places(&list), [0xe0, 0x48, 0x70]);
    let copy = Kind::Copy { id: capability::VENDOR, body: vec![6, 1, 2, 3], writable: vec![] };
    assert_eq!(list[1].kind, copy);
    let layout = MsixLayout { vectors: 5, table: (3, 0x2000), pba: (3, 0x3000) };
    assert_eq!(list[2].kind, Kind::Msix(layout));
}

#[test]
fn no_list_is_no_capabilities() {
    let mut config = config(&[(0x40, &VENDOR_OF_6)]);
    config[usize::from(header::STATUS)] = 0;
    assert_eq!(parse(&config, true), Ok(vec![]));
}

/// CH 009555684, QEMU 0ddcb39c93: pointers of 0xff, to the capability itself, and in a circle.
#[test]
fn a_list_that_does_not_end_is_refused() {
    let mut circle = config(&[(0x40, &VENDOR_OF_6), (0x48, &VENDOR_OF_6)]);
    circle[0x49] = 0x40;
    assert!(parse(&circle, true).unwrap_err().contains("comes back to 0x40"));
    let mut itself = config(&[(0x40, &VENDOR_OF_6)]);
    itself[0x41] = 0x40;
    assert!(parse(&itself, true).unwrap_err().contains("comes back to 0x40"));
    let mut ones = config(&[(0x40, &VENDOR_OF_6)]);
    ones[0x41] = 0xff;
    ones[0xfc..].fill(0xff);
    assert!(parse(&ones, true).unwrap_err().contains("comes back to 0xfc"));
    let mut header = config(&[(0x40, &VENDOR_OF_6)]);
    header[0x41] = 0x10;
    assert!(parse(&header, true).unwrap_err().contains("into the header"));
}

#[test]
fn capabilities_that_cannot_be_are_refused() {
    let beyond = config(&[(0xf8, &[capability::MSI_X, 0, 0, 0])]);
    assert!(parse(&beyond, true).unwrap_err().contains("leaves configuration space"));
    let over: &[(u16, &[u8])] = &[(0x40, &VENDOR_OF_6), (0x44, &VENDOR_OF_6)];
    assert!(parse(&config(over), true).unwrap_err().contains("overlaps"));
    let msix = msix_capability(1, (0, 0), (0, 0x800));
    let twice: &[(u16, &[u8])] = &[(0x40, &msix), (0x50, &msix)];
    assert!(parse(&config(twice), true).unwrap_err().contains("two capabilities 0x11"));
}

/// Through that window a guest's configuration write would become an access to the hardware.
#[test]
fn virtio_loses_its_window() {
    let mut virtio = config(&[
        (0x40, &[capability::VENDOR, 0, 16, 1, 4]),
        (0x50, &[capability::VENDOR, 0, 20, VIRTIO_PCI_CFG, 0]),
        (0x64, &[capability::VENDOR, 0, 16, 3, 4]),
    ]);
    assert_eq!(places(&parse(&virtio, true).unwrap()), [0x40, 0x50, 0x64]);
    virtio[..4].copy_from_slice(&[0xf4, 0x1a, 0x42, 0x10]);
    assert_eq!(places(&parse(&virtio, true).unwrap()), [0x40, 0x64]);
}

/// What is left out is none the less there: nothing that is kept may begin in it, or cover it, or the
/// guest would be shown part of what it is not to have.
#[test]
fn what_is_left_out_is_not_overlapped_either() {
    let window = |second: (u16, &[u8])| {
        let window = [capability::VENDOR, 0, 20, VIRTIO_PCI_CFG, 0];
        let mut virtio = config(&[(0x50, &window), second]);
        virtio[..4].copy_from_slice(&[0xf4, 0x1a, 0x42, 0x10]);
        parse(&virtio, true)
    };
    let vendor = |len: u8| [capability::VENDOR, 0, len, 1];
    assert_eq!(places(&window((0x64, &vendor(16))).unwrap()), [0x64]);
    // In the window, and over its start. A length of its own that is too small changes nothing.
    assert!(window((0x60, &vendor(16))).unwrap_err().contains("overlaps"));
    assert!(window((0x48, &vendor(16))).unwrap_err().contains("overlaps"));
    let short: &[(u16, &[u8])] =
        &[(0x50, &[capability::VENDOR, 0, 0, VIRTIO_PCI_CFG]), (0x60, &vendor(16))];
    let mut virtio = config(short);
    virtio[..4].copy_from_slice(&[0xf4, 0x1a, 0x42, 0x10]);
    assert!(parse(&virtio, true).unwrap_err().contains("overlaps"));
    // One that is not known has an ID and a pointer at least.
    let over: &[(u16, &[u8])] = &[(0x48, &[0x03, 0]), (0x40, &vendor(12))];
    assert!(parse(&config(over), true).unwrap_err().contains("0x9 at 0x40 overlaps"));
    let inside: &[(u16, &[u8])] = &[(0x40, &vendor(12)), (0x48, &[0x03, 0])];
    assert!(parse(&config(inside), true).unwrap_err().contains("0x3 at 0x48 overlaps"));
}

#[test]
fn the_guests_msi_is_moved_where_it_has_room() {
    // A 32-bit capability without a mask, of 10 bytes, and others that leave it 12.
    let list: &[(u16, &[u8])] = &[
        (0x40, &[capability::MSI, 0, 0, 0]),
        (0x4c, &VENDOR_OF_6),
        (0xe0, &[capability::POWER_MANAGEMENT, 0]),
    ];
    let moved = parse(&config(list), true).unwrap();
    assert_eq!(places(&moved), [0xf0, 0x4c, 0xe0]);
    let alone = parse(&config(&[(0x40, &[capability::MSI, 0, 0, 0])]), true).unwrap();
    assert_eq!(places(&alone), [0x40]);
    // And left out where there is none.
    let long = [&[capability::VENDOR, 0, 0xb4][..], &[0; 0xb1]].concat();
    let list: &[(u16, &[u8])] = &[(0x40, &[capability::MSI, 0, 0, 0]), (0x4c, &long)];
    assert_eq!(places(&parse(&config(list), true).unwrap()), [0x4c]);
}

#[test]
fn msi_has_the_mask_that_the_function_has() {
    for (control, maskable) in [(0x00, false), (0x80, false), (0x100, true), (0x18e, true)] {
        let [low, high] = u16::to_le_bytes(control);
        let list = parse(&config(&[(0x40, &[capability::MSI, 0, low, high])]), true).unwrap();
        assert_eq!(list, [Capability { at: 0x40, kind: Kind::Msi { maskable } }]);
    }
}

#[test]
fn an_endpoint_becomes_an_integrated_one_and_has_the_reset_that_there_is() {
    let config = config(&[(0x40, &express_capability())]);
    for reset in [false, true] {
        let list = parse(&config, reset).unwrap();
        let Kind::Copy { id, body, writable } = &list[0].kind else { panic!() };
        assert_eq!((*id, body.len()), (capability::PCI_EXPRESS, 0x3a));
        let word =
            |at: u16| u16::from_le_bytes([body[usize::from(at) - 2], body[usize::from(at) - 1]]);
        assert_eq!(word(express::CAPABILITIES), 0x92);
        assert_eq!(word(express::DEVICE_CAPABILITIES), 0x8001);
        assert_eq!(word(express::DEVICE_CAPABILITIES + 2) & 0x1000 != 0, reset);
        assert_eq!((word(express::DEVICE_CONTROL), word(0x0a)), (0x2810, 0));
        assert_eq!(word(express::LINK_CAPABILITIES), 0);
        assert_eq!(writable, &[0, 0, 0, 0, 0, 0, 0xff, 0x7f]);
    }
}

proptest! {
    /// CH 009555684, QEMU 0ddcb39c93: whatever the bytes are, the walk ends, and what it keeps is
    /// inside and apart, so that the builder does not panic.
    #[test]
    fn any_list_is_walked(bytes in proptest::collection::vec(any::<u8>(), 256), kinds: Vec<(u8, u8)>) {
        let mut config: [u8; CONFIG_LEN] = bytes.try_into().unwrap();
        config[usize::from(header::STATUS)] |= 0x10;
        for (at, id) in kinds {
            let known = [0x01, 0x05, 0x09, 0x10, 0x11, 0x12];
            config[usize::from(at & !3)] = known[usize::from(id) % known.len()];
        }
        if let Ok(list) = parse(&config, true) {
            let mut taken = [false; CONFIG_LEN];
            for capability in list {
                let Capability { at, kind } = &capability;
                let (at, len) = (*at, usize::from(capability.len()));
                if let Kind::Copy { body, writable, .. } = kind {
                    prop_assert!(writable.len() <= body.len());
                }
                prop_assert!(at >= header::END && at % 4 == 0);
                for byte in &mut taken[usize::from(at)..usize::from(at) + len] {
                    prop_assert!(!std::mem::replace(byte, true));
                }
            }
        }
    }
}
