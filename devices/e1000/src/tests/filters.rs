use paraslot_spec::e1000::statistics;

use super::*;

impl Machine {
    /// Whether a frame for `destination` gets through, and whether by an inexact filter.
    fn accepts(&mut self, destination: [u8; 6]) -> Option<bool> {
        self.arrive(&frame_to(destination, 60));
        self.clean().map(|(_, descriptor)| descriptor.status & receive::PIF != 0)
    }

    fn receive_with(&mut self, rctl: Rctl) {
        self.write(RCTL, (Rctl::EN | Rctl::SECRC | rctl).bits());
    }

    fn set_address(&mut self, entry: u8, address: [u8; 6], high: u32) {
        let [a, b, c, d, e, f] = address;
        self.write(ral(entry), u32::from_le_bytes([a, b, c, d]));
        self.write(rah(entry), u32::from(u16::from_le_bytes([e, f])) | high);
    }
}

const OTHER: [u8; 6] = [0x02, 0x11, 0x22, 0x33, 0x44, 0x56];
const GROUP: [u8; 6] = [0x01, 0x00, 0x5e, 0x12, 0x34, 0x56];
const ALL: [u8; 6] = [0xff; 6];

#[test]
fn each_kind_of_address_has_its_bit() {
    let mut machine = Machine::new();
    let cases = [
        (Rctl::empty(), [true, false, false, false]),
        (Rctl::UPE, [true, true, false, false]),
        (Rctl::MPE, [true, false, true, true]),
        (Rctl::BAM, [true, false, false, true]),
        (Rctl::UPE | Rctl::MPE | Rctl::BAM, [true; 4]),
    ];
    for (rctl, expected) in cases {
        machine.receive_with(rctl);
        let accepted = [MAC, OTHER, GROUP, ALL].map(|to| machine.accepts(to).is_some());
        assert_eq!(accepted, expected, "{rctl:?}");
    }
    assert_eq!(machine.statistics().filtered, 3 + 2 + 1 + 2);
    assert_eq!(machine.read(statistics::TPR), 20);
    assert_eq!(machine.read(statistics::GPRC), 12);
    assert_eq!(machine.read(statistics::BPRC), 3);
    assert_eq!(machine.read(statistics::MPRC), 2);
}

#[test]
fn sixteen_addresses_are_exact() {
    let mut machine = Machine::new();
    machine.receive_with(Rctl::empty());
    for entry in 0..16u8 {
        let address = [2, 0, 0, 0, entry, 99];
        assert_eq!(machine.accepts(address), None);
        machine.set_address(entry, address, 0);
        assert_eq!(machine.accepts(address), None, "not valid");
        // The reserved values of the address select field match nothing.
        machine.set_address(entry, address, ADDRESS_VALID | 1 << 16);
        assert_eq!(machine.accepts(address), None);
        machine.set_address(entry, address, ADDRESS_VALID);
        assert_eq!(machine.accepts(address), Some(false));
    }
    assert_eq!(machine.accepts(MAC), None, "the first entry is another now");
    machine.set_address(3, GROUP, ADDRESS_VALID);
    assert_eq!(machine.accepts(GROUP), Some(false));
}

// The hash of Linux's driver (e1000_hash_mc_addr), for each multicast offset.
#[test]
fn the_multicast_table_is_indexed_as_drivers_do() {
    let mut machine = Machine::new();
    let hashes: [fn(u32, u32) -> u32; 4] = [
        |fifth, sixth| fifth >> 4 | sixth << 4,
        |fifth, sixth| fifth >> 3 | sixth << 5,
        |fifth, sixth| fifth >> 2 | sixth << 6,
        |fifth, sixth| fifth | sixth << 8,
    ];
    for (offset, hash) in (0u32..).zip(hashes) {
        machine.write(RCTL, (Rctl::EN | Rctl::SECRC).bits() | offset << Rctl::MO_SHIFT);
        for (fifth, sixth) in [(0x34u8, 0x56u8), (0xff, 0xff), (0, 0), (0x0f, 0xf0), (0xa5, 0x5a)] {
            let address = [1, 0, 0x5e, 0x12, fifth, sixth];
            let hash = hash(fifth.into(), sixth.into()) & 0xfff;
            let register = MTA + (hash >> 5 & 0x7f) * 4;
            machine.write(register, !(1 << (hash & 31)));
            assert_eq!(machine.accepts(address), None, "{offset} {address:x?}");
            machine.write(register, 1 << (hash & 31));
            assert_eq!(machine.accepts(address), Some(true), "{offset} {address:x?}");
            machine.write(register, 0);
        }
    }
    // It is for groups alone.
    for word in 0..128 {
        machine.write(MTA + word * 4, u32::MAX);
    }
    assert_eq!((machine.accepts(OTHER), machine.accepts(GROUP)), (None, Some(true)));
}

#[test]
fn pause_frames_are_the_adapters_own() {
    let mut machine = Machine::new();
    machine.write(FCAL, 0x00c2_8001);
    machine.write(FCAH, 0x0100);
    machine.write(FCT, 0x8808);
    let mut pause = frame_to([1, 0x80, 0xc2, 0, 0, 1], 60);
    pause[12..14].copy_from_slice(&[0x88, 0x08]);
    for (rctl, passes) in [
        (Rctl::MPE, false),
        (Rctl::MPE | Rctl::PMCF, true),
        (Rctl::MPE | Rctl::PMCF | Rctl::DPF, false),
    ] {
        machine.receive_with(rctl);
        machine.arrive(&pause);
        assert_eq!(machine.clean().is_some(), passes, "{rctl:?}");
        assert_eq!(machine.accepts(GROUP), Some(false));
    }
}
