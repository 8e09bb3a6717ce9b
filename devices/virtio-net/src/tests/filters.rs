//! Frames that the driver does not want.

use paraslot_spec::virtio_net::{class, mac, rx, vlan};

use super::*;

const OTHER: [u8; 6] = [0x02, 0, 0, 0, 0, 7];
const GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const GROUP2: [u8; 6] = [0x01, 0, 0x5e, 0, 0, 1];
const BROADCAST: [u8; 6] = [0xff; 6];

fn nic() -> Nic {
    let mut nic = Nic::new(ALL & !feature::CTRL_VLAN);
    nic.post(0, 60, 2048);
    nic
}

fn passes(nic: &mut Nic, frame: &[u8]) -> bool {
    let before = nic.statistics().filtered;
    nic.port.push(0, frame);
    let got = nic.receive();
    assert!(got.as_ref().is_none_or(|got| got.frame == frame));
    assert_eq!(nic.statistics().filtered - before, u64::from(got.is_none()));
    if got.is_some() {
        nic.post(0, 1, 2048);
    }
    got.is_some()
}

/// Which of own unicast, other unicast, listed unicast, multicast, listed multicast, broadcast pass.
fn picture(nic: &mut Nic) -> [bool; 6] {
    let listed = [2, 2, 2, 2, 2, 2];
    [MAC, OTHER, listed, GROUP, GROUP2, BROADCAST].map(|to| passes(nic, &frame_to(to, 60)))
}

pub(super) fn tables(unicast: &[[u8; 6]], multicast: &[[u8; 6]]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for table in [unicast, multicast] {
        bytes.extend(u32::try_from(table.len()).unwrap().to_le_bytes());
        bytes.extend(table.as_flattened());
    }
    bytes
}

// net.rxfilter.1 to net.rxfilter.13, net.mac.2, net.mac.4
#[test]
fn every_combination_of_modes() {
    let mut nic = nic();
    assert_eq!(nic.command(class::MAC, mac::TABLE_SET, &tables(&[[2; 6]], &[GROUP2])), 0);
    for modes in 0u8..64 {
        let on = |mode: u8| modes >> mode & 1 != 0;
        for mode in rx::PROMISC..=rx::NOBCAST {
            // Anything but 0 is on.
            let byte = if on(mode) { 1 + mode } else { 0 };
            assert_eq!(nic.command(class::RX, mode, &[byte]), 0);
        }
        let expected = if on(rx::PROMISC) {
            [true; 6]
        } else {
            let unicast = !on(rx::NOUNI);
            let multicast = !on(rx::NOMULTI);
            [
                unicast,
                unicast && on(rx::ALLUNI),
                unicast,
                multicast && on(rx::ALLMULTI),
                multicast,
                !on(rx::NOBCAST),
            ]
        };
        assert_eq!(picture(&mut nic), expected, "{modes:06b}");
    }
}

#[test]
fn a_driver_that_cannot_ask_gets_everything() {
    let mut nic = Nic::new(feature::MAC | feature::CTRL_VQ);
    nic.post(0, 60, 2048);
    assert_eq!(picture(&mut nic), [true; 6]);
}

// net.mac.3: the address is the one that was set, and is shown if it was taken from there.
#[test]
fn the_address_can_be_set() {
    let mut nic = nic();
    assert_eq!(picture(&mut nic), [true, false, false, false, false, true]);
    let changes = config(&nic.device).mac;
    assert_eq!(changes, MAC);
    assert_eq!(nic.command(class::MAC, mac::ADDR_SET, &OTHER), 0);
    assert_eq!(config(&nic.device).mac, OTHER);
    assert_eq!(picture(&mut nic), [false, true, false, false, false, true]);

    let mut nic = Nic::new(ALL & !feature::CTRL_VLAN & !feature::MAC);
    nic.post(0, 60, 2048);
    // Its address is not known before it says so.
    assert_eq!(picture(&mut nic), [true, true, true, false, false, true]);
    assert_eq!(nic.command(class::MAC, mac::ADDR_SET, &OTHER), 0);
    assert_eq!(config(&nic.device).mac, MAC);
    assert_eq!(picture(&mut nic), [false, true, false, false, false, true]);
}

#[test]
fn tables_are_replaced_as_a_whole() {
    let mut nic = nic();
    let set = |nic: &mut Nic, bytes: &[u8]| nic.command(class::MAC, mac::TABLE_SET, bytes);
    assert_eq!(set(&mut nic, &tables(&[OTHER, [2; 6]], &[GROUP, GROUP2])), 0);
    assert_eq!(picture(&mut nic), [true; 6]);
    assert_eq!(set(&mut nic, &tables(&[OTHER], &[])), 0);
    assert_eq!(picture(&mut nic), [true, true, false, false, false, true]);
    assert_eq!(set(&mut nic, &tables(&[], &[GROUP])), 0);
    assert_eq!(picture(&mut nic), [true, false, false, true, false, true]);
    // What is refused changes nothing.
    assert_eq!(set(&mut nic, &tables(&[OTHER], &[GROUP2])[..15]), 1);
    assert_eq!(picture(&mut nic), [true, false, false, true, false, true]);
}

// More entries than there is room for: all of the kind pass (5.1.9.5.2).
#[test]
fn a_table_that_is_too_long_lets_all_pass() {
    let mut nic = nic();
    let unicast: Vec<[u8; 6]> = (0..64).map(|last| [2, 1, 1, 1, 1, last]).collect();
    let multicast: Vec<[u8; 6]> = (0..65).map(|last| [3, 1, 1, 1, 1, last]).collect();
    assert_eq!(nic.command(class::MAC, mac::TABLE_SET, &tables(&unicast, &multicast)), 0);
    assert_eq!(picture(&mut nic), [true, false, false, true, true, true]);
    assert!(passes(&mut nic, &frame_to([2, 1, 1, 1, 1, 63], 60)));
    assert_eq!(nic.command(class::MAC, mac::TABLE_SET, &tables(&multicast, &unicast)), 0);
    assert_eq!(picture(&mut nic), [true, true, true, false, false, true]);
}

fn tagged(kind: u16, tci: u16) -> Vec<u8> {
    let mut frame = frame(64);
    frame[12..14].copy_from_slice(&kind.to_be_bytes());
    frame[14..16].copy_from_slice(&tci.to_be_bytes());
    frame
}

// net.vlan.1, net.vlan.2, net.vlan.3
#[test]
fn vlans_pass_if_they_are_in_the_table() {
    let mut nic = Nic::new(ALL);
    nic.post(0, 40, 2048);
    assert!(passes(&mut nic, &frame(60)));
    for (vlan, command, expected) in [
        (1, None, false),
        (1, Some(vlan::ADD), true),
        (2, None, false),
        (63, Some(vlan::ADD), true),
        (64, Some(vlan::ADD), true),
        (4095, Some(vlan::ADD), true),
        (1, Some(vlan::DEL), false),
        (64, Some(vlan::ADD), true),
        (64, Some(vlan::DEL), false),
        (63, None, true),
    ] {
        if let Some(command) = command {
            assert_eq!(nic.command(class::VLAN, command, &u16::to_le_bytes(vlan)), 0);
        }
        // Priority and drop eligibility do not count.
        assert_eq!(passes(&mut nic, &tagged(0x8100, vlan | 0xf000)), expected, "{vlan}");
    }
    // A priority alone names no VLAN; a provider's tag is another matter.
    assert!(passes(&mut nic, &tagged(0x8100, 0xe000)));
    assert!(passes(&mut nic, &tagged(0x88a8, 2)));
    // Cut short: no tag.
    let mut short = frame(14);
    short[12..14].copy_from_slice(&[0x81, 0]);
    assert!(passes(&mut nic, &short));
    // net.rxfilter.2
    assert_eq!(nic.command(class::RX, rx::PROMISC, &[1]), 0);
    assert!(passes(&mut nic, &tagged(0x8100, 2)));

    let mut nic = Nic::new(ALL & !feature::CTRL_VLAN);
    nic.post(0, 40, 2048);
    assert!(passes(&mut nic, &tagged(0x8100, 2)));
}

// A frame that was not wanted may have been in the buffer; the next one makes no difference of that.
#[test]
fn a_filtered_frame_leaves_its_buffer_to_the_next() {
    let mut nic = Nic::new(ALL & !feature::MRG_RXBUF & !feature::CTRL_VLAN);
    nic.post(0, 1, 2048);
    nic.port.push(0, &frame_to(OTHER, 1000));
    nic.port.push(0, &frame(60));
    assert_eq!(nic.receive().unwrap().frame, frame(60));
}
