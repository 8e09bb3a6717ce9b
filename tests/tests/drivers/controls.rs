//! What an owner does to a disk while its guest uses it, as the drivers see it. What it does to a network is
//! beside each adapter's tests: the link in their `lifecycle` and `control`, limits in `limits`.

use std::sync::Arc;

use paraslot_backends::block::{BlockBackend, NullBackend, NullOptions};
use paraslot_drivers::ahci::{Ahci, AhciOptions};
use paraslot_drivers::pvscsi::{self, Message, Pvscsi};
use paraslot_drivers::scsi::{self, Cdb, Data, Outcome};
use paraslot_drivers::virtio_blk::{Options, VirtioBlk};
use paraslot_drivers::virtio_scsi::{self, VirtioScsi};
use paraslot_drivers::{Completions, Disk, Error, Op, Platform};
use paraslot_protocol::Device;
use paraslot_scsi::{Address, Bus, DiskOptions, LogicalUnit};
use paraslot_spec::scsi::sense::{code, key};
use paraslot_spec::virtio_scsi::{event, reset_reason};
use paraslot_tests::scsi::one_disk;
use paraslot_vmm::in_process::{InProcess, Machine};

use crate::machine::*;
use crate::net::wait_until;
use crate::place::{Place, in_both_places, plug};

/// The owner's hand on a disk, or on the adapter that it is behind.
enum Control {
    Disk(paraslot_virtio_blk::Control),
    Units(Bus),
    Ports(paraslot_ahci::Control),
}

impl Control {
    fn resize(&self) -> u64 {
        match self {
            Self::Disk(disk) => disk.resize(),
            Self::Units(bus) => bus.resize(Address::default()).unwrap(),
            Self::Ports(ports) => ports.resize(AHCI_PORT.into()).unwrap(),
        }
    }
}

/// A machine with a disk.
fn plugged(
    device: Device,
    machine: &Machine,
    backend: Arc<dyn BlockBackend>,
) -> (InProcess, Control) {
    let platform = InProcess::new(machine).unwrap();
    let control = match device {
        Device::VirtioBlk => {
            let options = paraslot_virtio_blk::Options::default();
            let disk = paraslot_virtio_blk::VirtioBlk::new(backend, &options).unwrap();
            Control::Disk(plug(&platform, SLOT, disk))
        }
        Device::VirtioScsi => {
            let options = paraslot_virtio_scsi::Options::default();
            let adapter = paraslot_virtio_scsi::VirtioScsi::new(one_disk(backend), &options);
            Control::Units(plug(&platform, SLOT, adapter.unwrap()).bus().clone())
        }
        Device::Pvscsi => {
            let options = paraslot_pvscsi::Options::default();
            let control = plug(&platform, SLOT, (one_disk(backend), options));
            Control::Units(control.bus().clone())
        }
        _ => {
            let mut options =
                paraslot_ahci::Options::new([paraslot_ahci::DiskOptions::new(backend)]);
            options.ports.swap(0, AHCI_PORT.into());
            Control::Ports(plug(&platform, SLOT, options))
        }
    };
    (platform, control)
}

const MIB: u64 = 1 << 20;

/// A disk grows, and shrinks. `goes_on` says whether the driver that is there can go on with it.
fn check_sizes<'p, D: Disk>(
    (platform, control, image): (&'p InProcess, &Control, &NullBackend),
    goes_on: bool,
    new: impl Fn(&'p InProcess) -> Result<D, Error>,
) {
    let region = platform.allocate(4096).unwrap();
    let mut driver = Driver::new(platform, new(platform), true);
    for size in [MIB, 2 * MIB, MIB / 2] {
        image.resize(size).unwrap();
        assert_eq!((control.resize(), control.resize()), (size, size));
        if goes_on {
            driver.good(4096, Op::Read(&region));
        }
        // The next one finds it as it is.
        driver = Driver::new(platform, new(platform), true);
        assert_eq!(driver.disk.capacity(), size);
        driver.good(size - 4096, Op::Read(&region));
        driver.good(4096, Op::Write(&region));
    }
}

fn disks_change_their_sizes(place: Place) {
    for (name, machine) in place.machines() {
        for device in DISKS {
            println!("{name}, {device}");
            let image = NullBackend::new(MIB, NullOptions::default()).unwrap();
            let (platform, control) = plugged(device, &machine, Arc::new(image.clone()));
            let disk = (&platform, &control, &image);
            match device {
                Device::VirtioBlk => {
                    check_sizes(disk, true, |p| VirtioBlk::new(p, Options::new(8)));
                }
                Device::VirtioScsi => {
                    let options = virtio_scsi::Options::new(8);
                    check_sizes(disk, true, |p| VirtioScsi::new(p, options));
                }
                Device::Pvscsi => {
                    check_sizes(disk, true, |p| Pvscsi::new(p, pvscsi::Options::new(8)));
                }
                _ => check_sizes(disk, false, |p| Ahci::new(p, AhciOptions::default())),
            }
        }
    }
}

/// Another target, as the device's owner and its driver name it.
const OTHER: Address = Address { target: 9, lun: 3 };
const ELSEWHERE: scsi::Address = scsi::Address { target: 9, lun: 3 };

fn unit() -> Arc<LogicalUnit> {
    LogicalUnit::disk(DiskOptions::new(Arc::new(image()))).unwrap()
}

fn test_unit_ready() -> Cdb {
    Cdb::new(&[0; 6]).unwrap()
}

fn attention((asc, ascq): (u8, u8)) -> impl Fn(Outcome) -> bool {
    move |outcome| {
        let Outcome::Check(Some(sense)) = outcome else { return false };
        (sense.key, sense.code) == (key::UNIT_ATTENTION, (asc, ascq))
    }
}

/// Units come, change and go; `told` gives what the driver has been told.
fn check_units<A, N: Copy + PartialEq + std::fmt::Debug>(
    (platform, bus, image): (&InProcess, &Bus, &NullBackend),
    adapter: &mut A,
    execute: impl Fn(&mut A, scsi::Address) -> Outcome,
    told: impl Fn(&mut A, &mut Vec<N>),
    [added, changed, removed]: [Option<N>; 3],
) {
    let expect = |adapter: &mut A, expected: Option<N>| {
        let mut all = Vec::new();
        wait_until(platform, || {
            told(adapter, &mut all);
            all.len() == usize::from(expected.is_some())
        });
        assert_eq!(all, Vec::from_iter(expected));
    };
    assert_eq!(execute(adapter, ELSEWHERE), Outcome::Absent);
    bus.attach(OTHER, unit()).unwrap();
    expect(adapter, added);
    assert!(attention(code::RESET)(execute(adapter, ELSEWHERE)));
    assert_eq!(execute(adapter, ELSEWHERE), Outcome::Status(0));

    let first = scsi::Address::default();
    while execute(adapter, first) != Outcome::Status(0) {}
    image.resize(2 * MIB).unwrap();
    assert_eq!(bus.resize(Address::default()), Some(2 * MIB));
    expect(adapter, changed);
    assert!(attention(code::CAPACITY_CHANGED)(execute(adapter, first)));
    assert_eq!(execute(adapter, first), Outcome::Status(0));

    bus.detach(OTHER).unwrap();
    expect(adapter, removed);
    assert_eq!(execute(adapter, ELSEWHERE), Outcome::Absent);
    assert_eq!((bus.resize(OTHER), bus.detach(OTHER).is_none()), (None, true));
}

fn units_come_and_go(place: Place) {
    for (name, machine) in place.machines() {
        println!("{name}");
        let image = NullBackend::new(MIB, NullOptions::default()).unwrap();
        let (platform, control) = plugged(Device::VirtioScsi, &machine, Arc::new(image.clone()));
        let Control::Units(bus) = control else { panic!("a bus") };
        let mut adapter = VirtioScsi::new(&platform, virtio_scsi::Options::new(8)).unwrap();
        let (asc, ascq) = code::CAPACITY_CHANGED;
        let capacity = u32::from(asc) | u32::from(ascq) << 8;
        let seen = |kind, address, reason| {
            let address = Some(address);
            Some(virtio_scsi::Event { event: kind, missed: false, address, reason })
        };
        check_units(
            (&platform, &bus, &image),
            &mut adapter,
            |adapter, at| adapter.execute(at, &test_unit_ready(), Data::None).unwrap().outcome,
            |adapter, all| adapter.events(|event| all.push(event)).unwrap(),
            [
                seen(event::TRANSPORT_RESET, ELSEWHERE, reset_reason::RESCAN),
                seen(event::PARAM_CHANGE, scsi::Address::default(), capacity),
                seen(event::TRANSPORT_RESET, ELSEWHERE, reset_reason::REMOVED),
            ],
        );

        let image = NullBackend::new(MIB, NullOptions::default()).unwrap();
        let (platform, control) = plugged(Device::Pvscsi, &machine, Arc::new(image.clone()));
        let Control::Units(bus) = control else { panic!("a bus") };
        let mut adapter = Pvscsi::new(&platform, pvscsi::Options::new(8)).unwrap();
        check_units(
            (&platform, &bus, &image),
            &mut adapter,
            |adapter, at| adapter.execute(at, &test_unit_ready(), Data::None).unwrap().outcome,
            |adapter, all| adapter.messages(|message| all.push(message)).unwrap(),
            [Some(Message::Added(ELSEWHERE)), None, Some(Message::Removed(ELSEWHERE))],
        );
    }
}

fn sata_disks_come_and_go(place: Place) {
    for (name, machine) in place.machines() {
        println!("{name}");
        let (platform, control) = plugged(Device::Ahci, &machine, Arc::new(image()));
        let Control::Ports(ports) = control else { panic!("ports") };
        let region = platform.allocate(4096).unwrap();
        let new = || Ahci::new(&platform, AhciOptions::default());
        for port in [4, 1, AHCI_PORT] {
            let mut driver = Driver::new(&platform, new(), false);
            driver.good(4096, Op::Read(&region));
            assert!(is_initial(&region, 1));
            for index in 0..6 {
                ports.detach(index).unwrap();
            }
            // Nobody is there to carry it out.
            driver.start(0, std::slice::from_ref(&region), false);
            platform.settle();
            let mut completions = Completions::new();
            let looked = driver.disk.poll(&mut completions);
            assert!(looked.is_err() || completions.is_empty(), "{completions:?}");
            assert!(new().is_err(), "there is no disk");
            let disk = paraslot_ahci::DiskOptions::new(Arc::new(image()));
            ports.attach(port.into(), disk).unwrap();
        }
        let mut driver = Driver::new(&platform, new(), true);
        driver.good(8192, Op::Read(&region));
        assert!(is_initial(&region, 2));
    }
}

in_both_places! {
    disks_change_their_sizes,
    units_come_and_go,
    sata_disks_come_and_go,
}
