//! States that no guest can bring about, part by part.

use paraslot_device::state::Value;
use paraslot_spec::e1000::Eecd;
use serde_json::json;

use super::*;

/// The state of an adapter in the middle of much, of which `part` is there.
pub(super) fn with(part: &str) -> (Machine, SavedState) {
    let (mut machine, _) = unplugged();
    for step in SCRIPT {
        perform(&mut machine, *step);
        machine.nic.pause().unwrap();
        let saved = save(&mut machine);
        if saved.state.pointer(part).is_some() {
            return (machine, saved);
        }
        machine.nic.resume().unwrap();
    }
    panic!("{part} is nowhere");
}

/// Puts `values` in the place of `part`, one after the other: none is accepted.
fn refused(part: &str, values: impl IntoIterator<Item = Value>) {
    let (mut machine, saved) = with(part);
    for value in values {
        machine.nic.reset();
        let fresh = machine.nic.save().unwrap();
        machine.nic.restore(&saved).unwrap();
        let mut changed = saved.clone();
        *changed.state.pointer_mut(part).unwrap() = value.clone();
        let error = machine.nic.restore(&changed).expect_err(&format!("{part}: {value}"));
        let expected = matches!(error, StateError::Impossible(_) | StateError::Malformed(_));
        assert!(expected, "{part}: {value}: {error}");
        assert_eq!(machine.nic.save().unwrap(), fresh, "{part}: {value}: as after a reset");
        assert!(!machine.level());
    }
}

// CVE-2013-4535's kin, state that was believed: registers hold what a guest can write to them.
#[test]
fn registers_hold_what_can_be_written() {
    refused("/shared/registers/CTRL", [json!(1 << 26), json!(-1), json!(1u64 << 32)]);
    refused("/shared/registers/RDLEN", [json!(1), json!(1 << 20), json!(127)]);
    refused("/shared/registers/RDBAL", [json!(8)]);
    refused("/shared/registers/RDT", [json!(0x1_0000)]);
    refused("/shared/registers/PBA", [json!(20), json!(0x80), json!(1 << 16)]);
    refused("/shared/registers/EERD", [json!(1), json!(0x10_0000), json!(0x1_ff10)]);
    refused(
        "/shared/registers/MDIC",
        [json!(1 << 30), json!(1 << 28), json!(1 << 31), json!(3 << 26 | 1 << 28 | 1 << 21)],
    );
    refused("/shared/registers", [json!({"STATUS": 2}), json!({"TDT1": 2}), json!({"MTA128": 2})]);
}

#[test]
fn interrupts_follow_from_their_registers() {
    refused("/shared/interrupts/icr", [json!(1 << 17)]);
    refused("/shared/interrupts/ims", [json!(1 << 31)]);
    refused("/shared/interrupts/itr", [json!(0x1_0000)]);
    refused("/shared/interrupts/asserted", [json!(true)]);
    refused("/shared/interrupts/throttled", [json!(65_535 * 256 + 1), json!(u64::MAX)]);
    let (mut machine, mut saved) = with("/shared/interrupts");
    saved.state["shared"]["interrupts"] = json!({"icr": 1, "ims": 1, "itr": 0, "asserted": false});
    assert!(machine.nic.restore(&saved).is_err(), "put off by nothing");
}

// The bounds of CVE-2015-6815 and CVE-2016-1981 hold for what is restored too.
#[test]
fn what_is_being_sent_has_been_taken_from_a_ring() {
    let ring = |machine: &mut Machine, saved: &mut SavedState, register: &str, value: Value| {
        saved.state["shared"]["registers"][register] = value;
        assert!(matches!(machine.nic.restore(saved), Err(StateError::Impossible(_))));
    };
    let (mut machine, saved) = with("/engine/transmit/packet");
    ring(&mut machine, &mut saved.clone(), "TDH", json!(16));
    ring(&mut machine, &mut saved.clone(), "TDLEN", json!(0));
    let (mut machine, saved) = with("/engine/receive/frame");
    ring(&mut machine, &mut saved.clone(), "RDH", json!(8));
    ring(&mut machine, &mut saved.clone(), "RCTL", json!(0));

    let pieces = "/engine/transmit/packet/pieces";
    let many: Vec<_> = (0..257).map(|_| (TX_DATA, 1)).collect();
    refused(pieces, [json!([[0, 0]]), json!([[0, 0x10_0000]]), json!([[0, 70_000]]), json!(many)]);
    refused("/engine/transmit/packet/excess", [json!(1)]);
    refused("/engine/transmit/checksum/paylen", [json!(0x10_0000)]);
    let last = "/engine/transmit/packet/last/command";
    refused(last, [json!(0), json!(transmit::DEXT | transmit::EOP)]);
    // Ten segments, of which one is the last.
    refused("/engine/transmit/packet/sent", [json!(10), json!(u32::MAX)]);
    let (mut machine, mut saved) = with("/engine/transmit/packet/sent");
    saved.state["engine"]["transmit"]["packet"]["kind"] = json!("legacy");
    assert!(machine.nic.restore(&saved).is_err(), "segments of what is not segmented");
}

#[test]
fn what_is_being_received_is_a_frame() {
    let frame = "/engine/receive/frame";
    refused(&format!("{frame}/rest"), [json!(""), json!("0"), json!("00".repeat(905))]);
    refused(&format!("{frame}/len"), [json!(13), json!(16_381)]);
    refused(&format!("{frame}/status"), [json!(receive::DD), json!(receive::EOP), json!(0)]);
    refused(&format!("{frame}/errors"), [json!(receive::CE), json!(receive::IPE)]);
    refused(&format!("{frame}/special"), [json!(1)]);
    refused(&format!("{frame}/destination"), [json!("00"), json!("0011223344556677")]);
    refused(
        "/engine/looped",
        [json!([""]), json!(["00".repeat(13)]), { json!(vec!["00".repeat(16_000); 5]) }],
    );
}

#[test]
fn timers_run_for_no_longer_than_they_can_be_set() {
    let most = 65_535 * 1024;
    refused("/engine/transmit/delay/packet", [json!(most + 1)]);
    refused("/engine/transmit/delay/absolute", [json!(u64::MAX)]);
    refused("/engine/receive/delay/packet", [json!(most + 1)]);
}

#[test]
fn the_eeprom_is_in_the_middle_of_an_instruction_or_of_none() {
    refused("/eeprom/words", [json!(""), json!("00".repeat(127)), json!("00".repeat(130))]);
    refused("/eeprom/pins", [json!(1 << 8), json!(Eecd::DO.bits()), json!(u32::MAX)]);
    let instruction = [(1, 0), (0, 1), (2, 1), (1, 9), (1, 16), (1, 17)];
    let instruction = instruction.map(|(bits, count)| json!({"bits": bits, "count": count}));
    refused("/eeprom/at/instruction", instruction);
    let reading = [(64, 3), (0, 17), (0, 200)];
    let reading = reading.map(|(address, bit)| json!({"address": address, "bit": bit}));
    refused("/eeprom/at/reading", reading);
    let writing = [(64, 0, 0), (0, 1, 0), (0, 2, 1), (0, 0, 16)]
        .map(|(address, data, count)| json!({"address": address, "data": data, "count": count}));
    refused("/eeprom/at/writing", writing);
    refused("/eeprom/pins", [json!(null)]);
    let (mut machine, mut saved) = with("/eeprom/at/reading");
    saved.state["eeprom"]["pins"] = json!(0);
    assert!(machine.nic.restore(&saved).is_err(), "reads without being selected");
}

#[test]
fn the_phy_and_the_statistics_are_those_that_there_are() {
    refused("/shared/phy/registers/0", [json!(1 << 15), json!(1 << 9)]);
    refused("/shared/phy/registers", [json!({}), json!({"31": 0})]);
    refused("/shared/phy/agreed/speed", [json!(0), json!(11)]);
    refused("/shared/statistics/counts", [json!([]), json!(vec![0; 65]), json!(vec![1; 64])]);
    refused("/shared/statistics/pairs", [json!([])]);
    refused("/shared/statistics/pairs/0/latched", [json!(1u64 << 40), json!(u64::MAX)]);
}

#[test]
fn another_device_or_version_is_refused() {
    let (mut machine, saved) = with("/config");
    for (device, version) in [("e1000e", 1), ("e1000", 0), ("e1000", 2)] {
        let other = SavedState { device: device.into(), version, ..saved.clone() };
        assert!(machine.nic.restore(&other).is_err());
    }
    // Built otherwise: another subsystem.
    let (backend, _) = ScriptedNet::new(1);
    let options = Options { subsystem: 7, ..Options::new(MAC) };
    let (mut other, ..) = build(backend, options, Arc::new(ManualExecutor::new()));
    other.pause().unwrap();
    assert!(matches!(other.restore(&saved), Err(StateError::Impossible(_))));
}
