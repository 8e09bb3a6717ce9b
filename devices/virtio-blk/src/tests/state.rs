//! Saved in one device, restored in another.

use paraslot_backends::block::testing::GatedBackend;
use paraslot_device::{SavedState, StateError};
use paraslot_spec::virtio_blk::{feature, request};

use super::*;

impl Disk {
    /// Has the worker stop, as for a pause.
    fn quiet(&mut self) {
        for _ in 0..1000 {
            if self.worker.quiesce() == Progress::Idle {
                return;
            }
        }
        panic!("the worker does not come to rest");
    }

    /// Goes on in a device that was just built, with another queue on the same rings.
    fn move_to(&mut self, mut device: VirtioBlk, features: u64) -> Result<(), StateError> {
        let state = VirtioDevice::<Space>::save(&self.device)?;
        let queue = VirtioDevice::<Space>::save_queue(&self.device, 0, &*self.worker)?;
        let features = features & VirtioDevice::<Space>::features(&device);
        let new = self.ring.queue(features);
        VirtioDevice::<Space>::attach(&mut device, new.signals.clone());
        assert!(VirtioDevice::<Space>::accept_features(&mut device, features));
        VirtioDevice::<Space>::restore(&mut device, &state)?;
        self.worker = device.restore_queue(0, new.queue, &queue)?;
        (self.device, self.interrupt) = (device, new.interrupt);
        (self.signals, self.bus_master) = (new.signals, new.bus_master);
        Ok(())
    }
}

/// A completion that could not be told is told by the other, once.
#[test]
fn what_could_not_be_told_is_carried() {
    let image = Arc::new(memory(8));
    let backend = GatedBackend::new(image.clone());
    let gate = backend.gate();
    gate.close();
    let mut disk = Disk::simple(backend);
    disk.ring.write(DATA, &[POISON; 1024]);
    let reading = disk.add(request::IN, 1, &[Buffer::writable(DATA, 1024)]);
    disk.run();
    assert_eq!(gate.held(), 1);
    disk.bus_master.set(false);
    gate.open();
    disk.quiet();
    assert_eq!((disk.ring.used(), disk.status(reading)), (None, NO_STATUS));

    let options = Options { queue_size: 16, ..Options::default() };
    disk.move_to(VirtioBlk::new(image, &options).unwrap(), ALL).unwrap();
    assert_eq!(disk.finish(reading), (status::OK, 1025));
    assert_eq!(disk.interrupt.count(), 1);
    assert_eq!(disk.read(1, 2), [0, 0]);
}

/// The image has grown in between: the driver is told, as of any resize (5.2.6.2).
#[test]
fn an_image_of_another_size_is_a_resize() {
    let options = Options { queue_size: 16, ..Options::default() };
    let mut disk = Disk::simple(memory(8));
    disk.quiet();
    disk.move_to(VirtioBlk::new(Arc::new(memory(8)), &options).unwrap(), ALL).unwrap();
    assert_eq!(disk.signals.config_changes(), 0);
    disk.move_to(VirtioBlk::new(Arc::new(memory(16)), &options).unwrap(), ALL).unwrap();
    assert_eq!(disk.signals.config_changes(), 1);
    assert_eq!(disk.read(15, 1), [0]);
}

#[test]
fn a_disk_that_was_built_otherwise_refuses() {
    let options = |seg_max| Options { queue_size: 16, seg_max, ..Options::default() };
    let mut disk = Disk::simple(memory(8));
    disk.quiet();
    let other = VirtioBlk::new(Arc::new(memory(8)), &options(Some(7))).unwrap();
    assert!(matches!(disk.move_to(other, ALL), Err(StateError::Impossible(_))));

    // Without CONFIG_WCE the driver relies on what the device says of its cache.
    let mut disk = Disk::new(volatile(8), &options(None), ALL & !feature::CONFIG_WCE);
    disk.quiet();
    let cached = Options { write_cache: Some(false), ..options(None) };
    let other = VirtioBlk::new(Arc::new(volatile(8)), &cached).unwrap();
    let moved = disk.move_to(other, ALL & !feature::CONFIG_WCE);
    assert!(matches!(moved, Err(StateError::Impossible(_))), "{moved:?}");
}

/// What says that requests are in flight which nobody has would leave them there for ever.
#[test]
fn chains_in_flight_must_be_accounted_for() {
    let mut disk = Disk::simple(memory(8));
    disk.quiet();
    let saved = VirtioDevice::<Space>::save_queue(&disk.device, 0, &*disk.worker).unwrap();
    for (path, value) in [
        ("/queue/in_flight", serde_json::json!([3])),
        ("/queue/in_flight", serde_json::json!([16])),
        ("/queue/in_flight", serde_json::json!([3, 3])),
    ] {
        let mut state = saved.clone();
        *state.pointer_mut(path).unwrap() = value;
        let restored = disk.device.restore_queue(0, disk.ring.queue(0).queue, &state);
        assert!(matches!(restored, Err(StateError::Impossible(_))), "{state}");
    }
    let other = SavedState { version: 2, ..VirtioDevice::<Space>::save(&disk.device).unwrap() };
    let restored = VirtioDevice::<Space>::restore(&mut disk.device, &other);
    assert!(matches!(restored, Err(StateError::Version { newest: 1, found: 2 })));
}

/// A chain that has broken its queue is nobody's, and the queue stays broken.
#[test]
fn a_broken_queue_is_carried() {
    let mut disk = Disk::simple(memory(8));
    let (header, _) = disk.frame(request::IN, 0);
    disk.ring.add(&[header]);
    disk.run();
    assert_eq!(disk.signals.resets(), 1);
    disk.quiet();
    let options = Options { queue_size: 16, ..Options::default() };
    disk.move_to(VirtioBlk::new(Arc::new(memory(8)), &options).unwrap(), ALL).unwrap();
    disk.add(request::IN, 0, &[Buffer::writable(DATA, 512)]);
    disk.run();
    assert_eq!((disk.ring.used(), disk.signals.resets()), (None, 0));
}
