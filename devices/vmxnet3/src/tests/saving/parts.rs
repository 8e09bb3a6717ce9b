//! States that no guest can bring about, part by part.

use paraslot_device::state::Value;
use serde_json::json;

use super::*;

/// The state of an adapter in the middle of much, of which `part` is there.
fn with(part: &str) -> (Machine, SavedState) {
    for setup in setups() {
        let (mut machine, _) = unplugged(&setup);
        for step in SCRIPT {
            step(&mut machine);
            machine.nic.pause().unwrap();
            let saved = save(&mut machine);
            if saved.state.pointer(part).is_some() {
                return (machine, saved);
            }
            machine.nic.resume().unwrap();
        }
    }
    panic!("{part} is nowhere");
}

/// Puts `values` in the place of `part`, one after the other: none is accepted.
fn refused(part: &str, values: impl IntoIterator<Item = Value>) {
    let (mut machine, saved) = with(part);
    refused_by(&mut machine, &saved, part, values);
}

fn refused_by(
    machine: &mut Machine,
    saved: &SavedState,
    part: &str,
    values: impl IntoIterator<Item = Value>,
) {
    for value in values {
        machine.nic.reset();
        let fresh = machine.nic.save().unwrap();
        machine.nic.restore(saved).unwrap();
        let mut changed = saved.clone();
        *changed.state.pointer_mut(part).unwrap() = value.clone();
        let error = machine.nic.restore(&changed).expect_err(&format!("{part}: {value}"));
        let expected = matches!(error, StateError::Impossible(_) | StateError::Malformed(_));
        assert!(expected, "{part}: {value}: {error}");
        assert_eq!(machine.nic.save().unwrap(), fresh, "{part}: {value}: as after a reset");
        assert!(!machine.level() && machine.host.active() == 1);
    }
}

// CVE-2013-4544: indices of interrupts and queues that come with a state.
#[test]
fn interrupts_and_queues_are_those_that_there_are() {
    for part in ["event_intr", "tx/0/intr", "rx/0/intr"] {
        refused(&format!("/active/{part}"), [json!(25), json!(255), json!(256), json!(-1)]);
    }
    refused("/active/tx", [json!([]), with("/active/tx").1.state["active"]["rx"].clone()]);
    let queue = |kind: &str, count: usize| {
        let state = with("/active/tx/0").1.state;
        json!(vec![state["active"][kind][0].clone(); count])
    };
    refused("/active/tx", [queue("tx", 9)]);
    refused("/active/rx", [json!([]), queue("rx", 17)]);
    refused("/active/lanes", [json!([]), json!([{}, {}, {}])]);
    refused("/active/lanes/0/turn", [json!(9), json!(256)]);
    refused("/statistics/transmit/0", [json!({}), json!({"large": 1})]);
    refused(
        "/statistics/transmit",
        [{
            let counts =
                with("/statistics/transmit/0").1.state["statistics"]["transmit"]["0"].clone();
            json!({"8": counts})
        }],
    );
}

// CVE-2021-20203, and CVE-2013-4544 again: rings are as activation has them, and indices in them.
#[test]
fn rings_are_as_they_are_activated() {
    for ring in ["tx/0/ring", "tx/0/comp", "rx/0/first", "rx/0/second", "rx/0/comp"] {
        let ring = format!("/active/{ring}");
        refused(&format!("{ring}/size"), [0, 1, 31, 33, 1 << 20].map(Value::from));
        refused(&format!("{ring}/base"), [8, u64::MAX, u64::MAX - 511].map(Value::from));
        refused(&format!("{ring}/next"), [64, 4096, u32::MAX].map(Value::from));
    }
    refused("/active/rx/0/data/entry", [0, 1, 63, 4096].map(Value::from));
    refused("/active/rx/0/data/base", [0, u64::MAX].map(Value::from));
    refused("/active/queues", [1, 64, u64::MAX - 127].map(Value::from));
    refused("/active/shared", [u64::MAX, u64::MAX - 700].map(Value::from));
    refused("/active/tx/0/stopped", [json!(0), json!(0x8000_0004u32)]);
    refused("/active/rx/0/stopped", [json!(1), json!(0x8000_0000u32)]);
    // The first revisions have no data rings.
    let (mut machine, saved) = with("/active/rx/0/data");
    refused_by(&mut machine, &saved, "/active/revision", [1, 2, 3, 8, 0].map(Value::from));
}

#[test]
fn what_the_driver_has_set_up_is_possible() {
    refused("/active/mtu", [1499, 9001, 0, 65_535].map(Value::from));
    refused("/active/most_buffers", [0, 65, 256].map(Value::from));
    refused("/active/features", [json!(1u64 << 40), json!(-1)]);
    refused("/active/levels", [json!("09".repeat(25)), json!("00".repeat(24))]);
    refused("/active/filter/mode", [json!(1 << 20)]);
    let lists = ["010000000002", "010000000001", "010000000001"].concat();
    refused("/active/filter/multicast", [json!(lists), json!("01"), json!("00".repeat(65_538))]);
    refused(
        "/active/filter/vlans",
        [json!("20"), json!("00".repeat(512)), json!("01".repeat(516))],
    );
    refused("/active/rss", [Value::Null]);
    refused("/active/rss/key", [json!(""), json!("11".repeat(41))]);
    refused("/active/rss/table", [json!(""), json!("00".repeat(129)), json!("01"), json!("ff")]);
    refused("/active/events", [json!(1 << 12)]);
    refused("/active/news", [json!(1 << 12)]);
    let (mut machine, saved) = with("/active/rss");
    refused_by(&mut machine, &saved, "/active/features", [json!(1)]);
}

#[test]
fn registers_hold_what_they_can() {
    refused("/registers/revision", [0, 3, 8].map(Value::from));
    refused("/registers/permanent", [json!("021122334456"), json!("0211223344")]);
    refused("/registers/coalescing/mode", [json!(4)]);
    let (mut machine, saved) = with("/registers");
    let scheme = |mode: u32, first: u32, tx: u32, rx: u32| json!({"mode": mode, "tx_depth_or_rate": first, "tx_comp_depth": tx, "rx_depth": rx});
    let schemes = [scheme(COALESCE_STATIC, 1, 129, 1), scheme(COALESCE_RBC, 99, 0, 0)];
    refused_by(&mut machine, &saved, "/registers/coalescing", schemes);
    refused("/mac", [json!("02"), json!(7)]);
}

#[test]
fn interrupts_wait_for_something() {
    refused("/interrupts/masked", [json!(1 << 25), json!(u32::MAX)]);
    let vectors = "/interrupts/vectors";
    refused(vectors, [json!({"25": {"asserted": true}}), json!({"x": {}})]);
    // An inactive device has nothing to say.
    let (mut machine, saved) = with(vectors);
    refused_by(&mut machine, &saved, vectors, [json!({"0": {"asserted": true}})]);
    let pending = format!("{vectors}/0/pending");
    refused(&format!("{pending}/since"), [json!(1_000_001), json!(u64::MAX)]);
    refused(&format!("{pending}/tx"), [json!(0)]);
    refused(&format!("{pending}/urgent"), [json!(true)]);
    refused(&format!("{vectors}/0/last"), [json!(10_000_001)]);
    // Unmasked, and not moderated: it would have been sent.
    let (mut machine, saved) = with(&pending);
    refused_by(&mut machine, &saved, "/active/levels", [json!("00".repeat(25))]);
}

#[test]
fn a_frame_that_waits_is_one_that_can_have_come() {
    let frame = "/active/lanes/0/frame";
    let texts = ["".into(), "0".into(), "00".repeat(13), "00".repeat(65_558)];
    refused(&format!("{frame}/frame"), texts.map(Value::from));
    refused(&format!("{frame}/queue"), [2, 16, 255].map(Value::from));
    // One that has no kind has no value.
    refused(&format!("{frame}/hash_kind"), [0, 5, 15].map(Value::from));
    let both = [rcd::V4 | rcd::V6, rcd::TCP | rcd::UDP, 1, 1 << 31];
    refused(&format!("{frame}/flags"), both.map(Value::from));
    let segmented = format!("{frame}/segments/0");
    let (mut machine, saved) = with(&segmented);
    for (part, values) in [
        ("segments/0", [json!(0), json!(9)]),
        ("segments/1", [json!(0), json!(65_536)]),
        ("packets", [json!(0), json!(1u64 << 40)]),
        ("bytes", [json!(0), json!(u64::MAX)]),
        ("segments", [Value::Null, json!([1])]),
    ] {
        refused_by(&mut machine, &saved, &format!("{frame}/{part}"), values);
    }
    let starving = "/active/lanes/0/starving";
    refused(&format!("{starving}/since"), [json!(20_000_001)]);
    refused(&format!("{starving}/pause"), [0, 99_999, 150_000, 20_000_000].map(Value::from));
    refused(&format!("{starving}/next"), [json!(10_000_001), json!(u64::MAX)]);
}

#[test]
fn another_device_or_version_or_construction_is_refused() {
    let (mut machine, saved) = with("/active");
    for (device, version) in [("e1000", 1), ("vmxnet3", 0), ("vmxnet3", 2)] {
        let other = SavedState { device: device.into(), version, ..saved.clone() };
        assert!(machine.nic.restore(&other).is_err());
    }
    // Without the Express capability; with a worker more.
    for setup in
        [Setup { express: false, ..Setup::default() }, Setup { queues: 2, ..Setup::default() }]
    {
        let (mut other, _) = unplugged(&setup);
        other.nic.pause().unwrap();
        assert!(matches!(other.nic.restore(&saved), Err(StateError::Impossible(_))));
    }
}
