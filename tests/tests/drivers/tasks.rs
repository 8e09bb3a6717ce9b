//! Task management with requests in flight, and what is left afterwards. Who is told what, and when, is
//! seen to for each function elsewhere; here it is the drivers', on machines of all kinds.

use std::collections::BTreeMap;

use paraslot_backends::block::MemoryBackend;
use paraslot_backends::block::testing::{Gate, GatedBackend};
use paraslot_drivers::{Completions, Disk, Error, Failed, Op, pvscsi, virtio_scsi};
use paraslot_protocol::Device;
use paraslot_vmm::in_process::InProcess;

use crate::machine::*;
use crate::place::{Place, in_both_places};

/// What a driver can have done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    /// End this request.
    Abort(u16),
    /// End all of the disk's.
    AbortAll,
    /// The same, and reset the disk.
    ResetDisk,
    /// Reset the target, or all there are.
    ResetBus,
    /// Reset the adapter.
    ResetAdapter,
}

const ORDERS: [Order; 7] = [
    Order::Abort(0),
    Order::Abort(2),
    Order::Abort(3),
    Order::AbortAll,
    Order::ResetDisk,
    Order::ResetBus,
    Order::ResetAdapter,
];

trait Manage: Disk {
    /// Says whether there is such a function.
    fn order(&mut self, order: Order, completions: &mut Completions) -> Result<bool, Error>;
}

impl Manage for virtio_scsi::VirtioScsi<'_, InProcess> {
    fn order(&mut self, order: Order, _: &mut Completions) -> Result<bool, Error> {
        use virtio_scsi::{Function, Response};
        let function = match order {
            Order::Abort(tag) => Function::AbortTask(tag),
            Order::AbortAll => Function::AbortTaskSet,
            Order::ResetDisk => Function::LogicalUnitReset,
            Order::ResetBus => Function::NexusReset,
            Order::ResetAdapter => return Ok(false),
        };
        assert_eq!(self.manage(function)?, Response::Complete);
        Ok(true)
    }
}

impl Manage for pvscsi::Pvscsi<'_, InProcess> {
    fn order(&mut self, order: Order, completions: &mut Completions) -> Result<bool, Error> {
        match order {
            Order::Abort(tag) => self.abort(tag)?,
            Order::AbortAll => return Ok(false),
            Order::ResetDisk => self.reset_device(),
            Order::ResetBus => self.reset_bus(),
            Order::ResetAdapter => self.reset_adapter(completions)?,
        }
        Ok(true)
    }
}

/// Where the writes go, in blocks of 4 KiB.
const PLACE: u64 = 100;

fn check<'p, D: Manage>(
    platform: &'p InProcess,
    new: impl Fn(&'p InProcess) -> Result<D, Error>,
    gate: &Gate,
    image: &MemoryBackend,
    interrupts: bool,
) {
    gate.open();
    let mut driver = Driver::new(platform, new(platform), interrupts);
    let regions = regions(platform, 4);
    let mut base = 0;
    for order in ORDERS {
        // What is to be written, another thing each time, and what is there.
        base += 1 << 32;
        for (index, region) in (0..).zip(&regions) {
            region.fill_pattern(0, 4096, base + (index << 8), 3);
        }
        let before = on_image(image, PLACE * 4096, 4 * 4096);
        gate.close();
        driver.start(PLACE, &regions, true);
        crate::net::wait_until(platform, || gate.held() == 4);
        let mut completions = Completions::new();
        let known = driver.disk.order(order, &mut completions).unwrap();
        // It is over: who was to end has ended, and the backend has nothing of it.
        driver.disk.poll(&mut completions).unwrap();
        let ended = match order {
            _ if !known => vec![],
            Order::Abort(tag) => vec![tag],
            _ => vec![0, 1, 2, 3],
        };
        assert_eq!((completions.len(), gate.held()), (ended.len(), 4 - ended.len()), "{order:?}");
        gate.open();
        crate::net::wait_until(platform, || {
            driver.disk.poll(&mut completions).unwrap();
            completions.len() == 4
        });
        let results: BTreeMap<_, _> =
            completions.as_slice().iter().map(|done| (done.tag, done.result)).collect();
        let expected = |tag| if ended.contains(&tag) { Err(Failed::Aborted) } else { Ok(()) };
        assert!(results.into_iter().eq((0..4).map(|tag| (tag, expected(tag)))), "{order:?}");
        // What was ended has written nothing, and the rest all of it.
        for (tag, region) in (0..).zip(&regions) {
            let at = usize::from(tag) * 4096;
            let mut wanted = before[at..at + 4096].to_vec();
            if !ended.contains(&tag) {
                region.read_bytes(0, &mut wanted);
            }
            assert!(on_image(image, PLACE * 4096 + at as u64, 4096) == wanted, "{order:?}, {tag}");
        }
        // Interrupts for these may have come while nobody waited for any.
        driver.catch_up();
        // The tags are free again, and everything works, whatever the disk has to say first.
        driver.good(7 * 4096, Op::Read(&regions[1]));
        assert!(is_initial(&regions[1], 7), "{order:?}");
        driver.good(0, Op::Flush);
    }
    assert_eq!(platform.stray_interrupts(), 0);
}

fn what_is_in_flight_ends_and_the_disk_goes_on(place: Place) {
    for (name, machine) in place.machines() {
        for interrupts in [false, true] {
            println!("{name}, interrupts {interrupts}");
            let gated = |device| {
                let image = image();
                let backend = GatedBackend::new(image.clone());
                let gate = backend.gate();
                gate.open();
                (plugged(device, &machine, backend), gate, image)
            };
            let (platform, gate, image) = gated(Device::VirtioScsi);
            let options = virtio_scsi::Options::new(4);
            let new = |platform| virtio_scsi::VirtioScsi::new(platform, options);
            check(&platform, new, &gate, &image, interrupts);
            let (platform, gate, image) = gated(Device::Pvscsi);
            for threshold in [false, true] {
                let options = pvscsi::Options { threshold, ..pvscsi::Options::new(4) };
                let new = |platform| pvscsi::Pvscsi::new(platform, options);
                check(&platform, new, &gate, &image, interrupts);
            }
        }
    }
}

in_both_places! {
    what_is_in_flight_ends_and_the_disk_goes_on,
}
