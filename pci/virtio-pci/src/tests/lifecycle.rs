//! What the host does: function reset, pause, resume, and real threads.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use paraslot_device::{DeviceError, Executor, ThreadExecutor, ThreadOptions, Worker, WorkerHandle};
use paraslot_pci::PciDevice;
use paraslot_spec::pci::{Command, capability, express, header};
use paraslot_spec::virtio::feature::RING_RESET;
use paraslot_spec::virtio::{Status, pci::NO_VECTOR};

use super::echo::Echo;
use super::guest::{COPY, Ears, Guest, host, space};
use crate::offsets;

fn is_as_new(guest: &mut Guest) {
    assert_eq!(guest.config16(header::COMMAND), 0);
    assert!(guest.function.bars()[0].unwrap().address == 0);
    assert!(guest.status().is_empty());
    assert_eq!(guest.image().config_msix_vector.get(), NO_VECTOR);
    assert!(!guest.function.config.interrupts().msix_enabled());
    assert!(!guest.ears.line());
}

fn dirty() -> (Guest, paraslot_virtio::testing::DriverRing<super::guest::Space>) {
    let (mut guest, mut ring) = Guest::running(RING_RESET);
    guest.set_config(header::BAR0, &0xe000_0000_u32.to_le_bytes());
    guest.set16(offsets::CONFIG_MSIX_VECTOR, 1);
    ring.add(&COPY);
    guest.run();
    assert!(guest.ears.line());
    (guest, ring)
}

#[test]
fn a_reset_by_the_host_is_the_state_after_power_on() {
    let (mut guest, _) = dirty();
    guest.function.reset();
    is_as_new(&mut guest);
    assert_eq!(guest.control.workers.load(Ordering::SeqCst), 0);
    // With MSI-X enabled it is the same.
    let (mut guest, _) = dirty();
    guest.enable_msix();
    guest.function.reset();
    is_as_new(&mut guest);
}

#[test]
fn a_function_level_reset_is_a_reset() {
    let (mut guest, _) = dirty();
    let at = guest.capabilities(capability::PCI_EXPRESS)[0] + express::DEVICE_CONTROL;
    guest.set_config(at, &express::INITIATE_FLR.to_le_bytes());
    is_as_new(&mut guest);
    assert_eq!(guest.control.resets.load(Ordering::SeqCst), 2);
    // And it can be used again.
    guest.command(Command::MEMORY | Command::BUS_MASTER);
    let mut ring = guest.start(0);
    ring.add(&COPY);
    guest.run();
    assert_eq!(ring.used(), Some((0, 8)));
}

// A backend that holds on to a request keeps the reset from being acknowledged, not the host.
#[test]
fn a_reset_by_the_host_does_not_wait_for_ever() {
    let (mut guest, mut ring) = Guest::running(0);
    guest.control.gate.store(true, Ordering::SeqCst);
    ring.add(&COPY);
    guest.run();
    guest.function.reset();
    assert_eq!(guest.config16(header::COMMAND), 0);
    guest.command(Command::MEMORY | Command::BUS_MASTER);
    assert!(!guest.status().is_empty());
    guest.set_status(Status::ACKNOWLEDGE.bits());
    assert_eq!(guest.control.resets.load(Ordering::SeqCst), 1);
    guest.control.gate.store(false, Ordering::SeqCst);
    guest.run();
    assert!(guest.status().is_empty());
    assert_eq!(guest.control.resets.load(Ordering::SeqCst), 2);
    assert!(guest.ears.silent());
}

#[test]
fn a_paused_function_is_silent_and_forgets_nothing() {
    let (mut guest, mut ring) = Guest::running(0);
    let first = ring.add(&COPY);
    guest.control.gate.store(true, Ordering::SeqCst);
    guest.run();
    guest.control.gate.store(false, Ordering::SeqCst);
    // What is in flight is finished first.
    guest.function.pause().unwrap();
    assert_eq!(ring.used(), Some((first, 8)));
    assert!(guest.executor.is_empty());
    assert_eq!(guest.isr(), 1);
    guest.ears.silent();

    let second = ring.add(&COPY);
    guest.ring_doorbell(0);
    guest.run();
    guest.control.signals().config_changed();
    guest.control.signals().needs_reset();
    guest.function.pause().unwrap();
    assert!(guest.ears.silent() && ring.used().is_none());

    guest.function.resume().unwrap();
    guest.function.resume().unwrap();
    // The driver hears now of the changes, and its request is served.
    assert_eq!(guest.isr(), 2);
    guest.run();
    assert_eq!(ring.used(), Some((second, 8)));
    assert_eq!(guest.isr(), 1);
    assert_eq!(guest.control.starts.load(Ordering::SeqCst), 2);
}

#[test]
fn a_pause_that_fails_changes_nothing() {
    let (mut guest, mut ring) = Guest::running(RING_RESET);
    guest.control.gate.store(true, Ordering::SeqCst);
    ring.add(&COPY);
    guest.run();
    assert!(matches!(guest.function.pause(), Err(DeviceError::Busy(_))));
    // Both queues go on, the busy one and the quiet one.
    assert_eq!(guest.executor.len(), 2);
    ring.add(&COPY);
    guest.run();
    assert_eq!(guest.control.taken.load(Ordering::SeqCst), 2);
    guest.control.signals().config_changed();
    assert_eq!(guest.isr(), 2);
    guest.control.gate.store(false, Ordering::SeqCst);
    guest.run();
    assert_eq!(ring.used_idx(), 2);
    guest.function.pause().unwrap();
    assert!(guest.executor.is_empty());
}

// What a driver does while the function is paused takes effect, as far as it is silent.
#[test]
fn a_queue_that_is_started_while_paused_runs_after_resume() {
    let mut guest = Guest::new();
    guest.function.pause().unwrap();
    let mut ring = guest.start(0);
    ring.add(&COPY);
    guest.run();
    assert_eq!((ring.used(), guest.executor.len()), (None, 0));
    guest.function.resume().unwrap();
    guest.run();
    assert_eq!(ring.used(), Some((0, 8)));
    // A reset while paused needs nobody to wait for.
    guest.function.pause().unwrap();
    guest.set_status(0);
    assert!(guest.status().is_empty());
    assert_eq!(guest.control.workers.load(Ordering::SeqCst), 0);
    guest.function.resume().unwrap();
    assert!(guest.executor.is_empty());
}

#[test]
fn a_queue_reset_that_is_under_way_completes_before_a_pause() {
    let (mut guest, mut ring) = Guest::running(RING_RESET);
    guest.control.gate.store(true, Ordering::SeqCst);
    ring.add(&COPY);
    guest.run();
    guest.select(0);
    guest.set16(offsets::QUEUE_RESET, 1);
    assert!(matches!(guest.function.pause(), Err(DeviceError::Busy(_))));
    assert_eq!(guest.image().queue_reset.get(), 1);
    guest.control.gate.store(false, Ordering::SeqCst);
    guest.function.pause().unwrap();
    assert_eq!(guest.image().queue_reset.get(), 0);
    guest.function.resume().unwrap();
    assert_eq!(guest.executor.len(), 1);
}

/// Steps its workers by hand, and counts how often they are woken.
#[derive(Default)]
struct Waking {
    executor: paraslot_device::ManualExecutor,
    wakes: Arc<AtomicUsize>,
}

struct WakingHandle(Box<dyn WorkerHandle>, Arc<AtomicUsize>);

impl Executor for Waking {
    fn spawn(&self, name: &str, worker: Box<dyn Worker>) -> io::Result<Box<dyn WorkerHandle>> {
        let handle = self.executor.spawn(name, worker)?;
        Ok(Box::new(WakingHandle(handle, self.wakes.clone())))
    }
}

impl WorkerHandle for WakingHandle {
    fn wake(&self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
    fn stop(&mut self) {
        self.0.stop();
    }
    fn take(&mut self) -> Option<Box<dyn Worker>> {
        self.0.take()
    }
    fn proceed(&mut self) -> Option<Box<dyn Worker>> {
        self.0.proceed()
    }
    fn wait(&mut self, limit: Duration) -> Option<Box<dyn Worker>> {
        self.0.wait(limit)
    }
}

// A doorbell that rang while bus mastering was off woke a worker that could do nothing; it does not
// ring again.
#[test]
fn workers_are_woken_when_bus_mastering_comes_on() {
    let (ears, space, waking) = (Arc::new(Ears::default()), space(), Waking::default());
    let (executor, wakes) = (waking.executor.clone(), waking.wakes.clone());
    let echo = Echo::new();
    let control = echo.control.clone();
    let function = crate::VirtioPci::new(echo, host(&space, Arc::new(waking), &ears)).unwrap();
    let mut guest = Guest { function, control, executor, ears, space };
    guest.start(0);
    assert_eq!(wakes.load(Ordering::SeqCst), 0);
    guest.command(Command::BUS_MASTER);
    assert_eq!(wakes.load(Ordering::SeqCst), 2);
    guest.command(Command::BUS_MASTER | Command::MEMORY);
    assert_eq!(wakes.load(Ordering::SeqCst), 2);
}

/// An executor that has no room.
struct Full;

impl Executor for Full {
    fn spawn(&self, _name: &str, _worker: Box<dyn Worker>) -> io::Result<Box<dyn WorkerHandle>> {
        Err(io::Error::other("full"))
    }
}

#[test]
fn a_worker_that_cannot_be_started_costs_a_reset() {
    let (ears, space) = (Arc::new(Ears::default()), space());
    let echo = Echo::new();
    let control = echo.control.clone();
    let function = crate::VirtioPci::new(echo, host(&space, Arc::new(Full), &ears)).unwrap();
    let executor = paraslot_device::ManualExecutor::new();
    let mut guest = Guest { function, control, executor, ears, space };
    guest.start(0);
    assert!(guest.status().contains(Status::DEVICE_NEEDS_RESET));
    assert!(matches!(guest.function.fault(), Some(DeviceError::Worker(_))));
    guest.set_status(0);
    assert!(guest.status().is_empty());
    // After a pause it is the host that is told, too.
    guest.function.pause().unwrap();
    guest.start(0);
    assert!(matches!(guest.function.resume(), Err(DeviceError::Worker(_))));
    assert!(guest.status().contains(Status::DEVICE_NEEDS_RESET));
}

// The doorbell, the wake-ups and the reset on threads of their own: nothing is lost.
#[test]
fn it_runs_on_threads() {
    let (ears, space) = (Arc::new(Ears::default()), space());
    let echo = Echo::new();
    let control = echo.control.clone();
    let options = ThreadOptions { busy_poll: Duration::ZERO, ..Default::default() };
    let threads = Arc::new(ThreadExecutor::new("virtio", &options).unwrap());
    let function = crate::VirtioPci::new(echo, host(&space, threads, &ears)).unwrap();
    let executor = paraslot_device::ManualExecutor::new();
    let mut guest = Guest { function, control, executor, ears, space };
    guest.command(Command::MEMORY | Command::BUS_MASTER);
    for round in 0..20 {
        let mut ring = guest.start(if round % 2 == 0 { 0 } else { RING_RESET });
        for _ in 0..20 {
            let head = ring.add(&COPY);
            guest.ring_doorbell(0);
            let used = loop {
                if let Some(used) = ring.used() {
                    break used;
                }
                std::thread::yield_now();
            };
            assert_eq!(used, (head, 8));
        }
        guest.function.pause().unwrap();
        let head = ring.add(&COPY);
        guest.ring_doorbell(0);
        guest.function.resume().unwrap();
        while ring.used() != Some((head, 8)) {
            std::thread::yield_now();
        }
        if round % 2 == 1 {
            guest.select(0);
            guest.set16(offsets::QUEUE_RESET, 1);
            while guest.image().queue_reset.get() != 0 {
                std::thread::yield_now();
            }
        }
        guest.set_status(0);
        while !guest.status().is_empty() {
            std::thread::yield_now();
        }
        assert_eq!(guest.control.workers.load(Ordering::SeqCst), 0);
    }
}
