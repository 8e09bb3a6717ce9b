//! Entries against live devices.

use std::collections::BTreeSet;

use paraslot_pci::PciDevice;

use crate::entry::{Access, Entry, Evidence, State};
use crate::{Sheet, costs, entries, find, live, render};

fn sheets() -> Vec<Sheet> {
    entries().iter().map(|entry| Sheet::of(entry).unwrap()).collect()
}

fn fresh(entry: &Entry) -> Box<dyn PciDevice> {
    (entry.make)().unwrap()
}

#[test]
fn every_device_is_here_once() {
    let names: Vec<&str> = entries().iter().map(|entry| entry.name).collect();
    let expected =
        ["virtio-blk", "virtio-scsi", "pvscsi", "ahci", "virtio-net", "vmxnet3", "e1000"];
    assert_eq!(names, expected);
    assert!(names.iter().all(|name| find(name).is_some_and(|entry| entry.name == *name)));
    assert!(find("virtio").is_none());
}

#[test]
fn all_of_them_have_names_in_the_id_list() {
    for sheet in sheets() {
        let live = &sheet.live;
        assert!(!live.names.vendor.is_empty() && !live.names.device.is_empty(), "{:?}", live.names);
        assert!(!live.names.class.is_empty());
        assert_eq!(live.picture.faults, []);
        assert!(live.picture.capabilities.iter().all(|found| !found.name.is_empty()));
    }
}

/// What an entry says of a feature is what a guest finds.
#[test]
fn features_are_as_they_are_said_to_be() {
    for entry in entries() {
        let mut names = BTreeSet::new();
        for feature in entry.features {
            assert!(names.insert(feature.name), "{}: {} twice", entry.name, feature.name);
            let mut function = fresh(entry);
            if let Some(is_there) = live::is_there(function.as_mut(), feature.evidence) {
                let said = feature.state != State::Refused;
                assert_eq!(is_there, said, "{}: {}", entry.name, feature.name);
            }
        }
        let can_be_read = entry.features.iter().any(|feature| feature.evidence != Evidence::Told);
        assert!(can_be_read, "{}: nothing of its features can be read", entry.name);
    }
}

/// A virtio device offers nothing that its entry does not know.
#[test]
fn no_virtio_feature_is_left_out() {
    for entry in entries().iter().filter(|entry| entry.name.starts_with("virtio-")) {
        let offered = live::virtio_features(fresh(entry).as_mut());
        let listed = entry.features.iter().filter_map(|feature| match feature.evidence {
            Evidence::VirtioBit(bit) if feature.state != State::Refused => Some(1u128 << bit),
            _ => None,
        });
        assert_eq!(offered, listed.fold(0, |all, bit| all | bit), "{}", entry.name);
    }
}

#[test]
fn limits_are_what_the_device_tells() {
    for entry in entries() {
        let told = entry.limits.iter().filter_map(|limit| Some((limit.name, limit.evidence?)));
        for (name, report) in told {
            let found = live::reported(fresh(entry).as_mut(), &report);
            assert_eq!(found, report.value, "{}: {name}", entry.name);
        }
    }
}

/// Whether a bit of the register keeps what a guest writes into it, found out on a device for each write. A bit
/// that keeps is seen to keep either value: an answer to a command may be what was written by chance.
fn keeps_something(entry: &Entry, negotiated: bool, bar: u8, offset: u64, width: u8) -> bool {
    let bits = u32::from(width) * 8;
    let ones = u64::MAX >> (64 - bits);
    let (mut set, mut clear) = (0, 0);
    let mut with = |changed: &dyn Fn(u64) -> u64| {
        let mut function = fresh(entry);
        let function = function.as_mut();
        if negotiated {
            assert!(live::negotiate(function), "{}", entry.name);
        }
        let before = live::read(function, bar, offset, width);
        let written = changed(before);
        live::write(function, bar, offset, width, written);
        let after = live::read(function, bar, offset, width);
        set |= written & after;
        clear |= !written & !after;
    };
    with(&|_| 0);
    with(&|_| ones);
    for bit in (0..bits).map(|bit| 1 << bit) {
        with(&|before| before ^ bit);
        with(&|_| bit);
    }
    set & clear & ones != 0
}

/// The register takes or ignores what is written as its entry says.
#[test]
fn registers_can_be_written_as_they_are_said_to_be() {
    for entry in entries() {
        for block in entry.registers {
            let last =
                block.repeated.map_or(0, |(count, distance)| (u64::from(count) - 1) * distance);
            for register in block.registers {
                for base in BTreeSet::from([block.base, block.base + last]) {
                    let at = base + register.offset;
                    let keeps =
                        keeps_something(entry, block.negotiated, block.bar, at, register.width);
                    // What is set by ones may take a device that runs.
                    let said = match register.access {
                        Access::WriteOneToSet => keeps,
                        access => access == Access::ReadWrite,
                    };
                    let name = entry.name;
                    let access = register.access.name();
                    assert_eq!(keeps, said, "{name}: {} at {at:#x} is {access}", register.name);
                }
            }
        }
    }
}

#[test]
fn registers_have_places_of_their_own() {
    for entry in entries() {
        let mut taken = BTreeSet::new();
        for block in entry.registers {
            let size = live::Live::of(fresh(entry).as_mut())
                .bars
                .iter()
                .find(|bar| bar.index == usize::from(block.bar))
                .map(|bar| bar.size);
            let size = size.unwrap_or_else(|| panic!("{}: no BAR {}", entry.name, block.bar));
            let (count, distance) = block.repeated.unwrap_or((1, 0));
            for register in block.registers {
                for index in 0..u64::from(count) {
                    let at = block.base + index * distance + register.offset;
                    assert!(at + u64::from(register.width) <= size, "{}", register.name);
                    for byte in at..at + u64::from(register.width) {
                        let name = entry.name;
                        assert!(taken.insert((block.bar, byte)), "{name}: {}", register.name);
                    }
                }
            }
        }
    }
}

/// Every register that the model has in its table is in the entry, and so are both ends of its arrays.
#[test]
fn no_register_of_e1000_is_left_out() {
    use paraslot_e1000::registers::{ARRAYS, REGISTERS};
    let mut listed = BTreeSet::new();
    for block in find("e1000").unwrap().registers.iter().filter(|block| block.bar == 0) {
        let (count, distance) = block.repeated.unwrap_or((1, 0));
        for index in 0..u64::from(count) {
            let base = block.base + index * distance;
            listed.extend(block.registers.iter().map(|register| base + register.offset));
        }
    }
    for register in REGISTERS {
        assert!(listed.contains(&register.offset.into()), "{}", register.name);
    }
    for (name, first, count, distance, _) in ARRAYS {
        let last = u64::from(first) + (count as u64 - 1) * u64::from(distance);
        assert!(listed.contains(&first.into()) && listed.contains(&last), "{name}");
    }
}

/// None of the ten questions is left open.
#[test]
fn every_question_has_an_answer() {
    for sheet in sheets() {
        let entry = sheet.entry;
        assert!(entry.drivers.iter().any(|driver| driver.system == "Linux"), "{}", entry.name);
        assert!(entry.drivers.iter().any(|driver| driver.system.starts_with("Windows")));
        assert!(entry.drivers.iter().any(|driver| driver.system.starts_with("UEFI")));
        assert!(entry.features.iter().any(|feature| feature.state == State::Refused));
        assert!(!entry.security.fuzz.is_empty() && !entry.security.others.is_empty());
        assert!(entry.instead.iter().all(|other| {
            other.choose != entry.name && (find(other.choose).is_some() || other.choose == "vfio")
        }));
        assert!(!entry.instead.is_empty() && !entry.elsewhere.is_empty());
        assert!(!sheet.costs.rows.is_empty(), "{}", entry.name);
        let json = serde_json::to_value(&sheet).unwrap();
        empty_strings(entry.name, &json, &["note", "record", "date", "host"]);
    }
}

/// Fails where a text is missing, but for the keys in `may`.
fn empty_strings(of: &str, value: &serde_json::Value, may: &[&str]) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                assert!(value != "" || may.contains(&key.as_str()), "{of}: {key} says nothing");
                empty_strings(of, value, may);
            }
        }
        serde_json::Value::Array(list) => {
            list.iter().for_each(|value| empty_strings(of, value, may));
        }
        _ => {}
    }
}

#[test]
fn what_is_kept_of_costs_is_costs() {
    let kept = costs::kept();
    assert!(!kept.origin.record.is_empty() && !kept.origin.host.is_empty());
    for entry in entries() {
        assert!(kept.rows.iter().any(|row| row.device == entry.name), "{}", entry.name);
    }
    let known = |device: &str| find(device).is_some();
    assert!(kept.rows.iter().all(|row| known(&row.device) && row.per_second.0 > 0.0));
}

#[test]
fn every_sheet_can_be_read_in_every_way() {
    let sheets = sheets();
    for sheet in &sheets {
        let text = render::text(sheet);
        let long = text.lines().find(|line| line.chars().count() > 100 && !line.starts_with("   "));
        assert_eq!(long, None);
        let page = render::markdown(sheet);
        assert_eq!(page.matches("\n## ").count(), 11);
        // Every row of a table has as many cells as its head.
        let mut cells = None;
        for line in page.lines() {
            let here = line.starts_with('|').then(|| line.replace("\\|", "").matches('|').count());
            assert!(cells.is_none() || here.is_none() || cells == here, "{line}");
            cells = here;
        }
    }
    let json: serde_json::Value = serde_json::from_str(&render::json(&sheets).unwrap()).unwrap();
    assert_eq!(json[0]["name"], "virtio-blk");
    assert_eq!(json[0]["live"]["picture"]["device"], 0x1042);
    let summary = render::summary(&sheets);
    let index = render::index(&sheets);
    let html = render::html(&sheets);
    for entry in entries() {
        assert!(summary.contains(entry.name) && index.contains(&format!("{}.md", entry.name)));
        assert!(html.contains(&format!("data-device=\"{}\"", entry.name)));
    }
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!html.contains(outside), "the page asks for {outside}");
    }
}
