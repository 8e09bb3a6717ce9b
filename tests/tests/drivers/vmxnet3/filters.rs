//! What is let in: as much as the driver's mode says.

use paraslot_drivers::Nic;
use paraslot_drivers::vmxnet3::Options;
use paraslot_protocol::traffic::Flow;
use paraslot_tests::port::Port;

use super::{Plugged, driver, plugged, received};
use crate::net::{INWARD, MAC, OTHER, finished, wait_until};
use crate::place::{Place, in_both_places};

const BROADCAST: [u8; 6] = [0xff; 6];
const GROUP: [u8; 6] = [1, 0, 0x5e, 0, 0, 1];

fn to(destination: [u8; 6], number: u64) -> Vec<u8> {
    finished(Flow { source: OTHER, destination }, number, 80)
}

fn tagged(vlan: u16, number: u64) -> Vec<u8> {
    let mut frame = finished(INWARD, number, 80);
    let [high, low] = vlan.to_be_bytes();
    frame.splice(12..12, [0x81, 0, high, low]);
    frame
}

/// One station's frames and everybody's, without a tag or with a priority alone.
fn other_stations_groups_and_vlans_are_kept_out(place: Place) {
    for (name, machine) in place.machines() {
        let port = Port::new(1);
        let Plugged { platform, control, .. } = plugged(&machine, port.clone());
        let mut nic = driver(&platform, Options::new());
        let mut expected = vec![];
        let mut kept_out = 0;
        for number in 0..20 {
            for (frame, passes) in [
                (to(MAC, number), true),
                (to(OTHER, number), false),
                (to(BROADCAST, number), true),
                (to(GROUP, number), false),
                (tagged(100, number), false),
                (tagged(0, number), true),
                (tagged(0xe000, number), true),
                (tagged(0xe001, number), false),
            ] {
                port.deliver(&frame);
                if passes {
                    expected.push(frame);
                } else {
                    kept_out += 1;
                }
            }
        }
        let mut frames = vec![];
        wait_until(&platform, || {
            frames.extend(received(&mut nic));
            frames.len() >= expected.len() && port.waiting() == 0
        });
        frames.extend(received(&mut nic));
        // In their order, with their tags.
        assert!(frames == expected, "{name}");
        // The last may just be on its way out.
        wait_until(&platform, || control.statistics().filtered == kept_out);
    }
}

fn an_adapter_answers_to_the_address_it_was_given(place: Place) {
    const ANOTHER: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];
    let port = Port::new(1);
    let Plugged { platform, .. } = plugged(&place.stepped(), port.clone());
    let heard = |nic: &mut super::Driver<'_>| {
        for destination in [MAC, ANOTHER] {
            port.deliver(&to(destination, 1));
        }
        platform.settle();
        received(nic).iter().map(|frame| frame[..6].try_into().unwrap()).collect::<Vec<[u8; 6]>>()
    };
    let mut nic = driver(&platform, Options::new());
    assert_eq!((nic.address(), heard(&mut nic)), (MAC, vec![MAC]));
    nic.set_address(ANOTHER).unwrap();
    assert_eq!((nic.address(), heard(&mut nic)), (ANOTHER, vec![ANOTHER]));
    for wrong in [[0; 6], GROUP, BROADCAST] {
        assert!(nic.set_address(wrong).is_err());
    }
    assert_eq!(heard(&mut nic), [ANOTHER]);
    // A reset brings the adapter's own back.
    let mut nic = driver(&platform, Options::new());
    assert_eq!((nic.address(), heard(&mut nic)), (MAC, vec![MAC]));
    let mut nic = driver(&platform, Options { address: Some(ANOTHER), ..Options::new() });
    assert_eq!((nic.address(), heard(&mut nic)), (ANOTHER, vec![ANOTHER]));
}

in_both_places! {
    other_stations_groups_and_vlans_are_kept_out,
    an_adapter_answers_to_the_address_it_was_given,
}
