//! Clients that die in the middle of a job, on every device.
//!
//! What is counted is the whole process's, so this has one of its own.

use std::cell::Cell;
use std::io::Write;
use std::net::Shutdown;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::Arc;

use paraslot_ahci::DiskOptions;
use paraslot_backends::block::MemoryBackend;
use paraslot_backends::net::NetBackend;
use paraslot_device::ThreadExecutor;
use paraslot_drivers::{Bdf, DmaRegion, MsiMessage, Platform};
use paraslot_protocol::{
    Completion, Device, DiskJob, Job, NetJob, Outcome, Phase, Status, Traffic,
};
use paraslot_tests::jobs::run;
use paraslot_tests::parts::Part;
use paraslot_tests::scsi::one_disk;
use paraslot_tests::served::listener;
use paraslot_vfio_user::{End, Server, Stop, VfioUser};
use paraslot_virtio_blk::VirtioBlk;
use paraslot_virtio_net::VirtioNet;
use paraslot_virtio_scsi::VirtioScsi;
use paraslot_vmm::in_process::{InProcess, Machine};
use vm_memory::{Bytes, GuestAddress};

use crate::machine::*;
use crate::net::MAC;
use crate::net::jobs::source;
use crate::place::Place;

/// A write to configuration space, of which a client that dies may have sent a part.
const MESSAGE: [u8; 36] = [
    9, 0, 10, 0, 36, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 4, 0, 0,
    0, 0, 0, 0, 0,
];

/// Where the memory begins that a machine gives to drivers.
const FIRST: u64 = 0x10_0000;

/// A machine whose connection to its device ends before some access to a register. Time is over then.
struct Doomed<'m> {
    machine: &'m InProcess,
    socket: UnixStream,
    /// Accesses that it has left.
    left: Cell<u64>,
    /// Bytes of another message that are sent before the end.
    last: usize,
    late: Cell<u64>,
}

impl Doomed<'_> {
    fn is_dead(&self) -> bool {
        self.left.get() == 0
    }

    fn access(&self) {
        if self.is_dead() {
            return;
        }
        self.left.set(self.left.get() - 1);
        if self.is_dead() {
            (&self.socket).write_all(&MESSAGE[..self.last]).unwrap();
            self.socket.shutdown(Shutdown::Both).unwrap();
        }
    }
}

impl Drop for Doomed<'_> {
    fn drop(&mut self) {
        // The server is waited for, whatever happens here.
        let _ = self.socket.shutdown(Shutdown::Both);
    }
}

impl Platform for Doomed<'_> {
    fn config_read(&self, function: Bdf, offset: u16) -> u32 {
        self.machine.config_read(function, offset)
    }
    fn config_write(&self, function: Bdf, offset: u16, value: u32) {
        self.machine.config_write(function, offset, value);
    }
    fn read8(&self, address: u64) -> u8 {
        self.access();
        self.machine.read8(address)
    }
    fn read16(&self, address: u64) -> u16 {
        self.access();
        self.machine.read16(address)
    }
    fn read32(&self, address: u64) -> u32 {
        self.access();
        self.machine.read32(address)
    }
    fn write8(&self, address: u64, value: u8) {
        self.access();
        self.machine.write8(address, value);
    }
    fn write16(&self, address: u64, value: u16) {
        self.access();
        self.machine.write16(address, value);
    }
    fn write32(&self, address: u64, value: u32) {
        self.access();
        self.machine.write32(address, value);
    }
    fn bar_space(&self) -> Range<u64> {
        self.machine.bar_space()
    }
    fn allocate(&self, len: usize) -> Option<DmaRegion> {
        self.machine.allocate(len)
    }
    fn tsc(&self) -> u64 {
        if self.is_dead() {
            self.late.set(self.late.get() + (1 << 40));
        }
        self.machine.tsc() + self.late.get()
    }
    fn tsc_hz(&self) -> u64 {
        self.machine.tsc_hz()
    }
    fn relax(&self) {
        self.machine.relax();
    }
    fn interrupt_message(&self, index: u8) -> MsiMessage {
        self.machine.interrupt_message(index)
    }
    fn connect_pin(&self, function: Bdf, index: u8) -> bool {
        self.machine.connect_pin(function, index)
    }
    fn end_of_interrupt(&self, index: u8) {
        self.machine.end_of_interrupt(index);
    }
    fn interrupts_taken(&self, index: u8) -> u64 {
        self.machine.interrupts_taken(index)
    }
    fn wait_for_interrupt(&self, index: u8, seen: u64) {
        if !self.is_dead() {
            self.machine.wait_for_interrupt(index, seen);
        }
    }
    fn phase(&self, phase: Phase) {
        self.machine.phase(phase);
    }
}

/// What is open and mapped in this process, and its threads, when so many machines were built: the memory of
/// each stays mapped.
fn held(machines: usize) -> [usize; 3] {
    let entries = |path: &str| std::fs::read_dir(path).unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = maps.lines().filter(|line| line.ends_with("(deleted)")).count();
    [entries("/proc/self/fd"), mapped - machines, entries("/proc/self/task")]
}

/// Waits until no more than that is held: threads that were joined, and what a worker had that is not wanted any
/// more, may be there a little longer.
fn wait_for(most: [usize; 3], machines: usize) {
    let mut now = held(machines);
    for _ in 0..20_000 {
        if now.iter().zip(most).all(|(now, most)| *now <= most) {
            return;
        }
        std::thread::yield_now();
        now = held(machines);
    }
    panic!("{now:?} of {most:?}");
}

/// A machine whose client is dead, and all memory that its driver was given.
struct Late {
    machine: InProcess,
    memory: Vec<u8>,
}

impl Late {
    fn of(machine: InProcess) -> Self {
        let len = machine.allocate(4096).unwrap().physical(0) - FIRST;
        let mut late = Self { machine, memory: vec![0; usize::try_from(len).unwrap()] };
        late.memory = late.now();
        late
    }

    fn now(&self) -> Vec<u8> {
        let memory = self.machine.host(SLOT).memory;
        let mut bytes = vec![0; self.memory.len()];
        memory.read_slice(&mut bytes, GuestAddress(FIRST)).unwrap();
        bytes
    }
}

/// Has clients die at every so many of the accesses that the job makes to registers, and at each of the last;
/// now before a message and now inside one.
fn check<P: Part>(job: impl Into<Job> + Copy, step: usize, part: P) {
    // Nobody connects there.
    let (_, listener) = listener();
    let executor = Arc::new(ThreadExecutor::new("served", &Place::Served.threads()).unwrap());
    let make = |host| part.make_served(host).map(|(function, _)| function);
    let mut server = Server::new(listener, executor, make).unwrap();
    let stop = Stop::new().unwrap();
    let mut machines = 0;
    // The machine before and its memory, which nobody writes to any more.
    let mut late: Option<Late> = None;
    let mut most = None;
    let mut one = |accesses: u64| -> (Outcome, u64) {
        let machine = Machine { interrupt_events: false, ..events(Place::Served.threaded()) };
        let machine = InProcess::new(&machine).unwrap();
        machines += 1;
        let (here, there) = UnixStream::pair().unwrap();
        let (outcome, left, end) = std::thread::scope(|scope| {
            let serves = scope.spawn(|| server.serve(there, &stop).unwrap());
            let socket = here.try_clone().unwrap();
            let function = VfioUser::new(here, machine.host(SLOT)).unwrap();
            machine.plug(SLOT, function).unwrap();
            let last = usize::try_from(accesses % 36 * 7).unwrap() % MESSAGE.len();
            let left = Cell::new(accesses);
            let doomed = Doomed { machine: &machine, socket, left, last, late: Cell::new(0) };
            let outcome = run(&doomed, job);
            let left = doomed.left.get();
            drop(machine.unplug(SLOT));
            drop(doomed);
            (outcome, left, serves.join().unwrap())
        });
        assert!(matches!(end, End::Closed), "{end}");
        // When the server says that a connection has ended, it has been cleared away.
        if let Some(late) = late.replace(Late::of(machine)) {
            assert!(late.now() == late.memory, "written to after the end, before {accesses}");
            drop(late);
            wait_for(*most.get_or_insert_with(|| held(machines)), machines);
        }
        (outcome, left)
    };
    let well = |(outcome, left): (Outcome, u64)| {
        assert_eq!((outcome.status(), outcome.header.errors.get()), (Status::Ok, 0));
        u64::MAX - left
    };
    // The job takes about so many. Those while it runs are few, and among the last.
    let all = well(one(u64::MAX));
    let places: Vec<u64> = (1..all - LAST).step_by(step).chain(all - LAST..all).collect();
    let deaths = places.iter().filter(|accesses| one(**accesses).1 == 0).count();
    // A job that has fewer accesses, by chance of its threads, is over before its client would have died.
    assert!(deaths >= places.len() / 2, "{deaths} of {}, {all} accesses", places.len());
    well(one(u64::MAX));
}

/// Accesses at the end of a job, before each of which a client dies.
const LAST: u64 = 12;

const DISK: DiskJob = DiskJob {
    completion: Completion::Interrupt,
    depth: 16,
    operations: 48,
    ..crate::workloads::JOB
};

/// Frames arrive all the time.
const NETWORK: NetJob = NetJob {
    traffic: Traffic::Receive,
    completion: Completion::Interrupt,
    batch: 16,
    operations: 48,
    ..crate::net::jobs::JOB
};

fn killed_at_every_access() {
    let image = || -> Arc<MemoryBackend> { Arc::new(image()) };
    let disk = |device| DiskJob { device, ..DISK };
    let options = Default::default();
    check(disk(Device::VirtioBlk), 5, VirtioBlk::new(image(), &options).unwrap());
    let adapter = VirtioScsi::new(one_disk(image()), &Default::default()).unwrap();
    check(disk(Device::VirtioScsi), 7, adapter);
    check(disk(Device::Pvscsi), 17, (one_disk(image()), paraslot_pvscsi::Options::default()));
    let options = paraslot_ahci::Options::new([DiskOptions::new(image())]);
    check(disk(Device::Ahci), 5, options);

    let frames = || -> Arc<dyn NetBackend> { Arc::new(source(NETWORK.frame_size, false)) };
    let network = |device| NetJob { device, ..NETWORK };
    let options = paraslot_virtio_net::Options { mac: MAC, ..Default::default() };
    check(network(Device::VirtioNet), 7, VirtioNet::new(frames(), &options).unwrap());
    check(network(Device::E1000), 43, (frames(), paraslot_e1000::Options::new(MAC)));
    check(network(Device::Vmxnet3), 5, (frames(), paraslot_vmxnet3::Options::new(MAC)));
}

/// What a client that is killed leaves behind: nothing. lvu 0b722b7, c42ac84.
#[test]
fn nothing_is_left_of_clients_that_die_in_the_middle_of_a_job() {
    const ALONE: &str = "PARASLOT_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return killed_at_every_access();
    }
    let name = "killed::nothing_is_left_of_clients_that_die_in_the_middle_of_a_job";
    let output = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--test-threads=1", "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{complained}");
}
