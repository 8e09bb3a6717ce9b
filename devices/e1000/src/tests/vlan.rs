use super::checksum::context_of;
use super::*;

/// A frame for us with a tag.
fn tagged(tag: u16, len: usize) -> Vec<u8> {
    let mut bytes = frame(len);
    bytes.splice(12..12, [&[0x81, 0x00], &tag.to_be_bytes()[..]].concat());
    bytes
}

impl Machine {
    fn strip(&mut self) {
        let ctrl = self.read(CTRL);
        self.write(CTRL, ctrl | Ctrl::VME.bits());
    }
}

#[test]
fn tags_are_stripped_and_told() {
    let mut machine = Machine::new();
    machine.arrive(&tagged(0x6123, 100));
    let (bytes, descriptor) = machine.clean().unwrap();
    assert_eq!((bytes, descriptor.special.get()), (tagged(0x6123, 100), 0));
    assert_eq!(descriptor.status & receive::VP, 0);
    machine.strip();
    for len in [60, 100, 1514, 1518 - 4] {
        machine.arrive(&tagged(0x6123, len));
        let (bytes, descriptor) = machine.clean().unwrap();
        assert_eq!((bytes, descriptor.special.get()), (frame(len), 0x6123));
        assert_eq!(descriptor.status & receive::VP, receive::VP);
    }
    machine.arrive(&frame(100));
    let (bytes, descriptor) = machine.clean().unwrap();
    assert_eq!((bytes, descriptor.special.get()), (frame(100), 0));
    assert_eq!(descriptor.status & receive::VP, 0);
    // The tag's type is what VET says.
    machine.write(VET, 0x88a8);
    machine.arrive(&tagged(5, 100));
    assert_eq!(machine.clean().unwrap().0, tagged(5, 100));
}

// A frame of 18 bytes is a tag and nothing else; of 14 to 17 its tag is not all there.
#[test]
fn short_tagged_frames_stay_in_bounds() {
    let mut machine = Machine::new();
    machine.strip();
    for len in 14..22 {
        machine.arrive(&tagged(7, 60)[..len]);
        let (bytes, descriptor) = machine.clean().unwrap();
        assert_eq!(bytes.len(), if len < 18 { 60 } else { 56 }, "{len}");
        assert_eq!(descriptor.status & receive::VP != 0, len >= 18);
    }
}

#[test]
fn the_filter_table_says_which_vlans_are_ours() {
    let mut machine = Machine::new();
    let rctl = Rctl::EN | Rctl::SECRC | Rctl::VFE;
    machine.write(RCTL, rctl.bits());
    for vid in [0u16, 1, 31, 32, 100, 4095] {
        let (register, bit) = (VFTA + u32::from(vid >> 5) * 4, 1 << (vid & 31));
        machine.write(register, !bit);
        machine.arrive(&tagged(vid | 0xe000, 60));
        assert!(machine.clean().is_none(), "{vid}");
        machine.write(register, bit);
        machine.arrive(&tagged(vid | 0xe000, 60));
        assert!(machine.clean().is_some(), "{vid}");
    }
    // Untagged frames pass; a VLAN of ours does not make another's frame ours.
    machine.arrive(&frame(60));
    assert!(machine.clean().is_some());
    let mut other = tagged(1, 60);
    other[5] ^= 1;
    machine.arrive(&other);
    assert!(machine.clean().is_none());
}

#[test]
fn the_canonical_form_can_be_asked_for() {
    let mut machine = Machine::new();
    for (rctl, plain, other) in [
        (Rctl::empty(), true, true),
        (Rctl::CFIEN, true, false),
        (Rctl::CFIEN | Rctl::CFI, false, true),
        (Rctl::CFI, true, true),
    ] {
        machine.write(RCTL, (Rctl::EN | Rctl::SECRC | rctl).bits());
        for (tag, passes) in [(5, plain), (0x1005, other)] {
            machine.arrive(&tagged(tag, 60));
            assert_eq!(machine.clean().is_some(), passes, "{rctl:?} {tag:#x}");
        }
    }
}

#[test]
fn tags_are_inserted() {
    let mut machine = Machine::new();
    for len in [60, 100, 256, 257, 1514] {
        machine.fill(TX_DATA, &frame(len));
        let descriptor = TransmitDescriptor::legacy(TX_DATA, len as u16, ALONE).tagged(0x6123);
        machine.write(CTRL, Ctrl::FD.bits());
        machine.transmit(&[descriptor]);
        assert_eq!(machine.one_sent(), frame(len), "not without VME");
        machine.strip();
        machine.transmit(&[descriptor]);
        assert_eq!(machine.one_sent(), tagged(0x6123, len), "{len}");
    }
    // A short frame is padded behind its tag, to what a wire takes.
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 50, ALONE).tagged(7)]);
    let sent = machine.one_sent();
    assert_eq!((sent.len(), &sent[..54]), (60, &tagged(7, 1514)[..54]));
    machine.write(VET, 0x88a8);
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE).tagged(7)]);
    assert_eq!(machine.one_sent()[12..16], [0x88, 0xa8, 0, 7]);
}

#[test]
fn checksums_move_behind_the_tag() {
    let mut machine = Machine::new();
    machine.strip();
    for payload in [1000, 20] {
        let packet = Packet::udp4(&vec![3; payload]);
        let with_tag = Packet { vlan: vec![(0x8100, 9)], ..packet.clone() };
        let bytes = packet.unfinished();
        machine.fill(TX_DATA, &bytes);
        let data = TransmitDescriptor::data(TX_DATA, bytes.len() as u32, ALONE, transmit::TXSM);
        machine.transmit(&[TransmitDescriptor::context(&context_of(&packet), 0), data.tagged(9)]);
        let sent = machine.sent();
        assert_eq!(sent[0].bytes[..with_tag.unfinished().len()], with_tag.unfinished());
        assert_eq!(sent[0].offload, with_tag.checksum_offload());
    }
    // Segments, too, whoever makes them.
    for packet in [Packet::tcp4(&[5; 3000]), Packet::udp4(&[5; 3000])] {
        let mut bytes = packet.unfinished();
        let tcp = packet.payload_offset() == 54;
        let context = Context {
            mss: 1000,
            hdrlen: packet.payload_offset() as u8,
            paylen: 3000,
            ..context_of(&packet)
        };
        bytes[16..18].fill(0);
        machine.fill(TX_DATA, &bytes);
        let flags = transmit::TSE | transmit::IP | if tcp { transmit::TCP } else { 0 };
        let options = transmit::TXSM | transmit::IXSM;
        let len = bytes.len() as u32;
        machine.transmit(&[
            TransmitDescriptor::context(&context, flags),
            TransmitDescriptor::data(TX_DATA, len, ALONE | transmit::TSE, options).tagged(9),
        ]);
        let sent = machine.sent();
        assert!(sent.iter().all(|sent| sent.bytes[12..18] == [0x81, 0, 0, 9, 8, 0]));
        if tcp {
            let with_tag = Packet { vlan: vec![(0x8100, 9)], ..packet };
            assert_eq!(sent[0].offload, with_tag.cut_offload(1000));
            assert_eq!(sent[0].bytes.len(), bytes.len() + 4);
        } else {
            assert_eq!(sent.iter().map(|sent| sent.bytes.len()).collect::<Vec<_>>(), [1046; 3]);
        }
    }
}
