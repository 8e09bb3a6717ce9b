//! States that were stored when their layouts were new. Those of what is a function by itself are with its crate;
//! here are functions of two parts, transport and device.

use std::fs;
use std::path::PathBuf;

use paraslot_device::SavedState;
use paraslot_protocol::Device;

use crate::mutated::used;

/// Functions behind the virtio transport.
const BEHIND_THE_TRANSPORT: [Device; 3] =
    [Device::VirtioBlk, Device::VirtioNet, Device::VirtioScsi];
/// The moment of those at which there are states that has a driver in the middle of something.
const BUSY: usize = 1;

fn path(device: Device, version: u32) -> PathBuf {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/state");
    PathBuf::from(format!("{folder}/{device}-function-{version}.json"))
}

/// A state of each version, from the first to today's, is taken over; today's comes back as it was.
#[test]
fn every_version_is_read() {
    for device in BEHIND_THE_TRANSPORT {
        let mut used = used(device);
        let now = used.states[BUSY].version;
        let mut function = (used.build)();
        for version in 1..=now {
            let text = fs::read_to_string(path(device, version));
            let text = text.unwrap_or_else(|error| panic!("{device}, version {version}: {error}"));
            let stored: SavedState = serde_json::from_str(&text).unwrap();
            assert_eq!(stored.version, version, "{device}");
            function.pause().unwrap();
            let restored = function.restore(&stored);
            restored.unwrap_or_else(|error| panic!("{device}, version {version}: {error}"));
            if version == now {
                assert_eq!(function.save().unwrap(), stored, "{device}");
            }
            function.resume().unwrap();
        }
    }
}

#[test]
#[ignore = "writes the states of today's versions anew"]
fn store_todays_versions() {
    for device in BEHIND_THE_TRANSPORT {
        let state = &used(device).states[BUSY];
        let text = serde_json::to_string(state).unwrap() + "\n";
        fs::write(path(device, state.version), text).unwrap();
    }
}
