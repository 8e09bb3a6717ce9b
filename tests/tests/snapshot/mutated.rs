//! States that nobody has saved: an error, or a device that works.

use std::sync::{Arc, Mutex};

use paraslot_backends::net::{Wire, WireOptions};
use paraslot_device::SavedState;
use paraslot_device::state::testing::mutate;
use paraslot_pci::PciDevice;
use paraslot_protocol::{Access, Completion, Device, Traffic};
use paraslot_tests::jobs::run;
use paraslot_tests::moving::{Build, Moves, Moving};
use paraslot_vmm::in_process::InProcess;
use serde_json::Value;

use crate::{disks, networks, stepped};

/// Over all devices and moments: as many mutated states as a day of a hostile operator's, or so.
const CASES: u64 = 100_000;
/// Moments of a job at which the state is taken.
const MOMENTS: u64 = 3;

/// A device in a machine whose driver has used it, and states of its.
pub(crate) struct Used {
    machine: InProcess,
    pub(crate) build: Build,
    pub(crate) states: Vec<SavedState>,
}

pub(crate) fn used(device: Device) -> Used {
    let disk = disks::DISKS.contains(&device);
    let build = |machine: &InProcess| match disk {
        true => disks::build(device, machine, Arc::new(paraslot_tests::image::patterned(1 << 20))),
        false => {
            let wire = Wire::loopback(WireOptions::default()).unwrap();
            networks::build(device, machine, Arc::new(wire))
        }
    };
    let course = |moves| {
        let machine = InProcess::new(&stepped()).unwrap();
        let moving = Arc::new(Mutex::new(Moving::new(build(&machine), moves)));
        machine.plug_shared(disks::SLOT, moving.clone()).unwrap();
        match disk {
            true => {
                let job = disks::job(device, Access::RandomWrite, Completion::Interrupt);
                run(&machine, job);
            }
            false => {
                let job = networks::job(device, Traffic::Request, Completion::Interrupt, 200);
                run(&machine, job);
            }
        }
        (machine, moving)
    };
    let count = course(Moves::PauseBefore(u64::MAX)).1.lock().unwrap().operations();
    let moments = (1..=MOMENTS).map(|moment| moment * (count - 1) / MOMENTS);
    let mut last = None;
    let states = moments.map(|moment| {
        let (machine, moving) = course(Moves::Before(moment));
        let text = moving.lock().unwrap().last_state().expect("it has moved").to_owned();
        last = Some(machine);
        serde_json::from_str(&text).expect("a state")
    });
    let states = states.collect();
    let machine = last.expect("a machine");
    Used { build: build(&machine), machine, states }
}

/// A state without what lasts through resets, which may be from a state before: how often the configuration has
/// changed, what SMART keeps of a disk's life, an EEPROM, and whether the cable is plugged in.
fn lasting(state: &SavedState) -> Value {
    fn strip(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for counter in ["generation", "smart", "eeprom", "link", "cable"] {
                    fields.remove(counter);
                }
                fields.values_mut().for_each(strip);
            }
            Value::Array(values) => values.iter_mut().for_each(strip),
            _ => {}
        }
    }
    let mut value = state.state.clone();
    strip(&mut value);
    value
}

/// Reads everywhere, as a guest does that looks around.
fn look_around(device: &mut dyn PciDevice) {
    let mut data = [0; 4];
    for offset in (0..256).step_by(4) {
        device.config_read(offset, &mut data);
    }
    for bar in 0..7 {
        for offset in (0..0x200).step_by(4) {
            device.bar_read(bar, offset, &mut data);
        }
    }
}

/// CVE-2014-0182, CVE-2013-4526, CVE-2013-4544 and their kin: counts and indices that were believed.
#[test]
fn mutated_states_are_refused_or_work() {
    let devices: Vec<Device> = disks::DISKS.into_iter().chain(networks::NETWORKS).collect();
    let each = CASES / u64::try_from(devices.len()).unwrap() / MOMENTS;
    for device in devices {
        let Used { machine, mut build, states } = used(device);
        let mut function = build();
        function.pause().unwrap();
        let fresh = function.save().unwrap();
        let (mut refused, mut taken) = (0, 0);
        for (moment, state) in states.iter().enumerate() {
            for seed in 0..each {
                let mut mutated = state.clone();
                for more in 0..=seed % 3 {
                    mutate(&mut mutated.state, seed * 3 + more);
                }
                let context = || format!("{device}, moment {moment}, seed {seed}");
                if function.restore(&mutated).is_err() {
                    refused += 1;
                    if seed % 8 == 0 {
                        let now = lasting(&function.save().unwrap());
                        assert_eq!(now, lasting(&fresh), "{}", context());
                    }
                    continue;
                }
                taken += 1;
                function.resume().unwrap_or_else(|error| panic!("{}: {error}", context()));
                machine.settle();
                look_around(&mut *function);
                function.pause().unwrap_or_else(|error| panic!("{}: {error}", context()));
                let again = function.save();
                let again = again.unwrap_or_else(|error| panic!("{}: {error}", context()));
                // What a device has come to by itself it takes over.
                if seed % 8 == 0 {
                    function
                        .restore(&again)
                        .unwrap_or_else(|error| panic!("{}: {error}", context()));
                }
            }
        }
        println!("{device}: {refused} refused, {taken} taken over");
        assert!(refused > each / 4 && taken > each / 4, "both have been tried");
        // And it is none the worse for it: a driver finds it as new.
        function.reset();
        function.resume().unwrap();
    }
}
