//! A machine that boots Linux, and a script in it.
//!
//! The script is run by `sh -e`, after [`prelude.sh`](../scripts/prelude.sh), which has what scripts
//! use to talk to the test: facts, which the test gets when the run is over; marks, at which the script
//! waits until the test has answered; and the kernel's complaints, which are judged in the end.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use paraslot_backends::block::BlockBackend;
use paraslot_device::{Host, ThreadExecutor, ThreadOptions};
use paraslot_pci::{Bdf, SharedDevice};
use paraslot_testbed::{Lines, QUICK, said};
use paraslot_vmm::{Exits, LinuxConfig, LinuxEnd, LinuxHandle, LinuxImage, LinuxVm, Path};
use vm_memory::GuestMemoryMmap;

use crate::complaints::{self, Allowed};
use crate::world::World;

/// What every script starts with.
const PRELUDE: &str = include_str!("scripts/prelude.sh");

/// The kernel says nothing on the console, where it would cut the script's lines in two, unless it dies;
/// then it does not hang.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=1 panic=-1 oops=panic";

/// How long a guest may run. It is for one that hangs.
const LIMIT: Duration = Duration::from_secs(1200);

/// What devices get from the machine.
pub(crate) type GuestHost = Host<Arc<GuestMemoryMmap>>;

/// What the guest is to do at a mark: called with the mark's word while the script waits; what it
/// returns is what the script gets.
pub(crate) type OnMark<'a> = dyn FnMut(&str, &LinuxHandle) -> String + Send + 'a;

/// How a machine is to be.
pub(crate) struct Shape {
    pub(crate) memory_mib: u64,
    pub(crate) cpus: u8,
    pub(crate) path: Path,
}

impl Default for Shape {
    fn default() -> Self {
        Self { memory_mib: 256, cpus: 1, path: Path::Event }
    }
}

/// What is to be booted.
pub(crate) struct Boot<'a> {
    /// Scripts, one after the other.
    pub(crate) scripts: &'a [&'a str],
    /// More for the kernel's command line. The scripts see `NAME=VALUE` as variables.
    pub(crate) append: &'a str,
    /// Boot the bzImage rather than the ELF file.
    pub(crate) bzimage: bool,
    /// How the run is to end.
    pub(crate) end: LinuxEnd,
    /// What the kernel may complain about beyond what it always may.
    pub(crate) allowed: &'a [Allowed],
    pub(crate) on_mark: &'a mut OnMark<'a>,
}

/// What a guest has told.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) facts: BTreeMap<String, String>,
    /// Exits of this run.
    pub(crate) exits: Exits,
}

impl Report {
    /// A fact that the script was to tell.
    pub(crate) fn fact<T: FromStr>(&self, key: &str) -> T {
        let Some(value) = self.facts.get(key) else { panic!("no fact {key} in {:?}", self.facts) };
        value.parse().unwrap_or_else(|_| panic!("fact {key} is {value:?}"))
    }
}

/// A machine that boots Linux, any number of times.
pub(crate) struct Machine<'a> {
    world: &'a World,
    vm: LinuxVm,
    executor: Arc<ThreadExecutor>,
    console: Receiver<Event>,
    sender: Sender<Event>,
}

impl<'a> Machine<'a> {
    pub(crate) fn new(world: &'a World, shape: &Shape) -> Self {
        let (sender, console) = channel();
        let config = LinuxConfig {
            memory_bytes: shape.memory_mib << 20,
            cpus: shape.cpus,
            path: shape.path,
            vcpu_cpus: Vec::new(),
        };
        let lines = sender.clone();
        // Between runs nobody listens.
        let wire = Lines::new(move |line| drop(lines.send(Event::Line(line))));
        let vm = LinuxVm::new(&config, Box::new(wire)).expect("a machine");
        // The processor that polling would save the guest is the guest's.
        let options =
            ThreadOptions { threads: 2, busy_poll: Duration::ZERO, ..ThreadOptions::default() };
        let executor = Arc::new(ThreadExecutor::new("device", &options).expect("threads"));
        Self { world, vm, executor, console, sender }
    }

    /// What a device at this slot of the root bus is to be made with.
    pub(crate) fn host(&self, slot: u8) -> GuestHost {
        self.vm.host(Bdf::root(slot), self.executor.clone())
    }

    /// Plugs a device into a slot of the root bus. Its pin is shared by every fourth slot.
    pub(crate) fn plug(&mut self, slot: u8, make: impl FnOnce(GuestHost) -> SharedDevice) {
        let device = make(self.host(slot));
        self.vm.plug(Bdf::root(slot), device).expect("a free slot");
    }

    /// The same with a device that has its threads to itself.
    pub(crate) fn plug_apart(
        &mut self,
        slot: u8,
        make: impl FnOnce(&LinuxHandle, Bdf) -> SharedDevice,
    ) {
        let bdf = Bdf::root(slot);
        let device = make(&self.vm.handle(), bdf);
        self.vm.plug(bdf, device).expect("a free slot");
    }

    /// The disk with the tools, for this machine alone.
    pub(crate) fn tools(&self) -> Arc<dyn BlockBackend> {
        self.world.tools()
    }

    /// Back to how the machine was after power-on; disks keep their data.
    pub(crate) fn reset(&mut self) {
        self.vm.reset().expect("a reset");
    }

    /// Boots and runs the scripts. They must succeed, and the kernel must not complain.
    pub(crate) fn boot(&mut self, boot: Boot<'_>) -> Report {
        let Boot { scripts, append, bzimage, end, allowed, on_mark } = boot;
        let mut script = PRELUDE.to_owned();
        for part in scripts {
            script.push_str(part);
        }
        script.push_str(if end == LinuxEnd::Reset { "restart\n" } else { "" });
        let initrd = self.world.initrd(&script);
        let kernel = if bzimage { self.world.bzimage() } else { self.world.vmlinux() };
        let command_line = format!("{COMMAND_LINE} {QUICK} {append}");
        let image = LinuxImage { kernel, initrd: Some(&initrd), command_line: &command_line };
        self.vm.load(&image).expect("the kernel loads");
        drop(initrd);

        let handle = self.vm.handle();
        let before = handle.exits();
        let (console, start) = (&mut self.console, Instant::now());
        let (run, told) = thread::scope(|scope| {
            let watched = handle.clone();
            let watcher = scope.spawn(move || watch(console, &watched, on_mark));
            let run = self.vm.run(Some(LIMIT));
            self.sender.send(Event::End).expect("the watcher waits");
            (run, watcher.join())
        });
        println!("guest: ran for {:.1} s", start.elapsed().as_secs_f32());
        let told = told.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let run = run.expect("the guest runs");
        assert_eq!(told.status, Some(0), "the script failed; the run ended by {run:?}");
        assert_eq!(run, end, "how the run ended");
        complaints::judge(&told.complaints, allowed);
        Report { facts: told.facts, exits: handle.exits() - before }
    }
}

/// What comes out of the console.
enum Event {
    Line(String),
    /// The run is over, and its lines have come.
    End,
}

/// What a guest's console has told in one run.
#[derive(Default)]
struct Told {
    facts: BTreeMap<String, String>,
    complaints: Vec<String>,
    status: Option<i32>,
}

/// Stops the guest if whoever watches it fails: nobody would answer it.
struct StopOnPanic<'a>(&'a LinuxHandle);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

/// Listens to the console until the run is over.
fn watch(console: &mut Receiver<Event>, handle: &LinuxHandle, on_mark: &mut OnMark<'_>) -> Told {
    let _guard = StopOnPanic(handle);
    let mut told = Told::default();
    for event in console.iter() {
        let Event::Line(line) = event else { break };
        let Some((word, rest)) = said(&line) else {
            println!("guest: {line}");
            continue;
        };
        println!("guest: {word} {rest}");
        match word {
            "fact" => {
                let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
                told.facts.insert(key.into(), value.into());
            }
            "mark" => {
                let mut answer = on_mark(rest, handle);
                answer.push('\n');
                handle.input(answer.as_bytes());
            }
            "dmesg" => told.complaints.push(rest.into()),
            "exit" => told.status = rest.parse().ok(),
            _ => (),
        }
    }
    told
}
