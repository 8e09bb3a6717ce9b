//! What devices write is in the dirty bitmap of guest memory, so that a live migration copies it.

use std::io;
use std::io::Write;
use std::sync::{Arc, Mutex};

use paraslot_backends::block::{
    BlockBackend, BlockCompletion, BlockInfo, BlockQueue, BlockRequest, Engine, FileBackend,
    FileOptions,
};
use paraslot_backends::net::testing::ScriptedNet;
use paraslot_backends::net::testing::namespace::{Namespace, in_namespace};
use paraslot_backends::net::{NetBackend, TapBackend, TapOptions, Wire, WireOptions};
use paraslot_device::{Clock, DmaSpace, Host, Sources};
use paraslot_pci::PciDevice;
use paraslot_protocol::traffic::Flow;
use paraslot_protocol::{Access, Completion, Device, DiskJob, Job, NetJob, Status, Traffic};
use paraslot_tests::frames::HERE;
use paraslot_tests::image::patterned;
use paraslot_tests::jobs::run;
use paraslot_tests::moving::{Moves, Moving};
use paraslot_tests::parts;
use paraslot_tests::traffic::finished;

use crate::disks::{self, DISKS, SLOT};
use crate::networks::{self, NETWORKS};
use crate::watched::{GRAIN, Grains, Watched};

/// Moments of a job at which its machine moves.
const MOMENTS: u64 = 12;
const CAPACITY: usize = 1 << 20;
/// Most places where a device writes what is there already: the second halves of virtio-scsi's responses, zeroes
/// all of them; what e1000 has in the place of a frame's CRC; the flags of rings that are not used (virtio
/// 2.7.10.1). What a job moves is many more.
const UNCHANGED: usize = 64;

/// What is behind a device.
pub(crate) enum Behind {
    Disk(Arc<dyn BlockBackend>),
    Network(Arc<dyn NetBackend>),
}

impl Behind {
    /// The device that `device` names, over it.
    pub(crate) fn device<A: DmaSpace>(
        &self,
        device: Device,
        clock: Arc<dyn Clock>,
        host: Host<A>,
    ) -> Box<dyn PciDevice> {
        match self {
            Self::Disk(backend) => parts::disk(device, backend.clone(), host),
            Self::Network(port) => parts::network(device, port.clone(), HERE, clock, host).0,
        }
    }
}

/// What is behind a job's device, anew each time.
pub(crate) type Fresh = Box<dyn Fn() -> Behind>;

/// For each device a job that has it write to memory, of so many operations.
pub(crate) fn loads(operations: u64) -> impl Iterator<Item = (Job, Fresh)> {
    let disks = DISKS.into_iter().map(move |device| {
        let job = disks::job(device, Access::RandomRead, Completion::Interrupt);
        let behind: Fresh = Box::new(|| Behind::Disk(Arc::new(patterned(CAPACITY))));
        (DiskJob { operations, ..job }.into(), behind)
    });
    let networks = NETWORKS.into_iter().map(move |device| {
        let job = networks::job(device, Traffic::Request, Completion::Interrupt, 1514);
        let job = NetJob { operations, ..job };
        let behind: Fresh = Box::new(move || far_end(&job));
        (job.into(), behind)
    });
    disks.chain(networks)
}

/// How a job went.
pub(crate) struct Course {
    operations: u64,
    /// What was marked, and what the device has changed, and the driver.
    pub(crate) marked: Grains,
    pub(crate) changed: Grains,
    pub(crate) driver: Grains,
}

/// Runs a job on a machine that may move in the course of it, after rounds in which its memory was copied
/// while it ran.
pub(crate) fn course(job: impl Into<Job>, behind: Behind, moves: Moves) -> Course {
    let job = job.into();
    let (device, context) = (job.device(), format!("{job}, {moves:?}"));
    // One step at a time for adapters, so that they move in the middle of their work, too.
    let rounds = matches!(behind, Behind::Network(_)).then_some(1);
    let watched = Watched::new(rounds);
    let (host, clock) = (watched.host(SLOT), watched.machine.clock());
    let (ledger, mut built) = (watched.ledger.clone(), false);
    let build = Box::new(move || {
        let mut ledger = ledger.lock().unwrap();
        // Another is built when the first was paused, saved and thrown away.
        if std::mem::replace(&mut built, true) {
            ledger.migrate();
        }
        behind.device(device, clock.clone(), host(ledger.space()))
    });
    let moving = Arc::new(Mutex::new(Moving::new(build, moves)));
    watched.machine.plug_shared(SLOT, moving.clone()).unwrap();
    let outcome = run(&watched, job);
    let header = &outcome.header;
    assert_eq!((outcome.status(), header.errors.get()), (Status::Ok, 0), "{context}");
    assert_eq!((header.lost.get(), header.reordered.get()), (0, 0), "{context}");
    assert_eq!(watched.machine.stray_interrupts(), 0, "{context}");
    let operations = moving.lock().unwrap().operations();
    let mut ledger = watched.ledger();
    ledger.close();
    let [marked, changed, driver] = ledger.grains();
    let idle: Vec<_> = marked.difference(&changed).collect();
    assert!(idle.len() <= UNCHANGED, "{context}: marked, and nothing new in them: {idle:?}");
    Course { operations, marked, changed, driver }
}

/// Whole in the course of nothing, and then at moments of the job.
fn everywhere(job: impl Into<Job>, behind: impl Fn() -> Behind) {
    let job = job.into();
    let stayed = course(job, behind(), Moves::PauseBefore(u64::MAX));
    let (marked, changed) = (stayed.marked.len(), stayed.changed.len());
    let operations = stayed.operations;
    println!("{job}: {operations} operations, {marked} marked, {changed} changed");
    assert!(operations > 20 && changed > 0, "{job}");
    for moment in 0..MOMENTS {
        course(job, behind(), Moves::Before(operations * (2 * moment + 1) / (2 * MOMENTS)));
    }
}

#[test]
fn a_disk_migrates_while_it_works() {
    for device in DISKS {
        for (access, completion, verify) in [
            (Access::RandomRead, Completion::Interrupt, true),
            (Access::RandomWrite, Completion::Interrupt, true),
            // None of it is read back: it is the driver's memory that is read alone.
            (Access::RandomWrite, Completion::Poll, false),
        ] {
            let job = DiskJob { verify, ..disks::job(device, access, completion) };
            everywhere(job, || Behind::Disk(Arc::new(patterned(CAPACITY))));
        }
    }
}

/// What is at the other end for a job's traffic.
pub(crate) fn far_end(job: &NetJob) -> Behind {
    let there = match job.traffic {
        Traffic::Request => {
            return Behind::Network(Arc::new(Wire::loopback(WireOptions::default()).unwrap()));
        }
        Traffic::Transmit => 0,
        Traffic::Receive | Traffic::Respond => job.operations + 20,
    };
    let (backend, port) = ScriptedNet::new(1);
    let flow = Flow { source: HERE, destination: HERE };
    (0..there).for_each(|number| port.push(0, &finished(flow, number, job.frame_size)));
    Behind::Network(Arc::new(backend))
}

/// What arrives comes by a copy.
#[test]
fn an_adapter_migrates_while_it_works() {
    for device in NETWORKS {
        for (traffic, completion, frame) in [
            (Traffic::Transmit, Completion::Interrupt, 64),
            (Traffic::Receive, Completion::Interrupt, 1514),
            (Traffic::Request, Completion::Interrupt, 200),
            (Traffic::Respond, Completion::Poll, 64),
        ] {
            let job = networks::job(device, traffic, completion, frame);
            everywhere(job, || far_end(&job));
        }
    }
}

/// A backend whose operations are over when they have been committed, so that what it writes is written in
/// a step of its device's.
struct Prompt<B>(B);

impl<B: BlockBackend> BlockBackend for Prompt<B> {
    fn info(&self) -> BlockInfo {
        self.0.info()
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        Ok(Box::new(PromptQueue { inner: self.0.open_queue(depth)?, depth, done: Vec::new() }))
    }
}

struct PromptQueue {
    inner: Box<dyn BlockQueue>,
    depth: u32,
    done: Vec<BlockCompletion>,
}

impl BlockQueue for PromptQueue {
    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        if self.in_flight() >= self.depth as usize {
            return Err(request);
        }
        self.inner.submit(request)
    }

    fn commit(&mut self) {
        self.inner.commit();
        while self.inner.in_flight() != 0 {
            self.inner.complete(&mut self.done);
            std::thread::yield_now();
        }
    }

    fn complete(&mut self, completions: &mut Vec<BlockCompletion>) {
        completions.append(&mut self.done);
    }

    fn sources(&self) -> Sources {
        self.inner.sources()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.done.len()
    }
}

/// The kernel writes to guest memory by itself: from the page cache, or around it.
#[test]
fn what_the_kernel_reads_from_a_file_is_marked() {
    let mut tried = Vec::new();
    for (engine, direct) in [
        (Engine::Threads, false),
        (Engine::Threads, true),
        (Engine::IoUring, false),
        (Engine::IoUring, true),
    ] {
        for device in DISKS {
            for access in [Access::RandomRead, Access::RandomWrite] {
                let mut file = tempfile::NamedTempFile::new().unwrap();
                let mut contents = vec![0; CAPACITY];
                patterned(CAPACITY).read_at(0, &mut contents).unwrap();
                file.write_all(&contents).unwrap();
                let options = FileOptions { engine, direct, ..FileOptions::new(file.path()) };
                // Not every host has io_uring, nor every file system direct access.
                let backend = match FileBackend::open(&options) {
                    Ok(backend) if backend.engine() == engine => backend,
                    Ok(_) => continue,
                    Err(error) => {
                        println!("skipped {engine:?}, direct {direct}: {error}");
                        continue;
                    }
                };
                let job = disks::job(device, access, Completion::Interrupt);
                let backend = Behind::Disk(Arc::new(Prompt(backend)));
                course(job, backend, Moves::PauseBefore(u64::MAX));
                tried.push((engine, direct));
            }
        }
    }
    assert!(tried.contains(&(Engine::Threads, false)));
}

/// The kernel puts what arrives where the device says.
#[test]
fn what_the_kernel_receives_is_marked() {
    fn receive(namespace: &Namespace, device: Device) {
        let tap = TapBackend::open(&TapOptions::default()).unwrap();
        let interface = namespace.interface(tap.name());
        interface.disable_ipv6();
        interface.up();
        let job = networks::job(device, Traffic::Receive, Completion::Interrupt, 1514);
        let (far, flow) = (interface.packets(), Flow { source: HERE, destination: HERE });
        for number in 0..job.operations + 20 {
            far.send(&Default::default(), &finished(flow, number, job.frame_size)).unwrap();
        }
        let tap = Behind::Network(Arc::new(tap));
        let course = course(job, tap, Moves::PauseBefore(u64::MAX));
        assert!(course.changed.len() > 40 * 1500 / GRAIN, "{device}");
    }
    in_namespace(|namespace| NETWORKS.into_iter().for_each(|device| receive(namespace, device)));
}
