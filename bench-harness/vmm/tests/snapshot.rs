//! Machines that are saved while they stand still, and go on as others.

mod common;

use std::fs;
use std::path::Path as FilePath;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::device::TestDevice;
use common::kernel::{BUTTON, Kernel, Screen};
use common::program::Program;
use common::{LIMIT, kvm, machine};
use paraslot_device::ManualExecutor;
use paraslot_pci::Bdf;
use paraslot_protocol::{Phase, port};
use paraslot_spec::pci::mechanism1;
use paraslot_vmm::{
    LinuxConfig, LinuxEnd, LinuxImage, LinuxVm, Path, Snapshot, SnapshotError, Vm, VmConfig,
    VmError,
};
use tempfile::{TempDir, tempdir};

/// Runs a machine to its first mark, where it stands still.
fn to_the_mark(vm: &mut Vm) {
    let handle = vm.handle();
    let ended = vm.run(LIMIT, &mut |_| handle.suspend());
    assert!(matches!(ended, Err(VmError::Suspended)), "{ended:?}");
}

/// A machine that stands still at a mark of `program`, saved.
fn saved_at_the_mark(program: Program) -> (Vm, TempDir) {
    let mut vm = machine(Path::Event);
    vm.load(&program.image(), "").unwrap();
    to_the_mark(&mut vm);
    let directory = tempdir().unwrap();
    vm.save(directory.path()).unwrap();
    (vm, directory)
}

fn open(directory: &TempDir) -> Snapshot {
    Snapshot::open(directory.path()).unwrap()
}

/// Another machine that is as the one that was saved.
fn restored(directory: &TempDir, path: Path) -> Vm {
    let mut vm = machine(path);
    vm.restore(&open(directory)).unwrap();
    vm
}

/// A configuration access is two ports; a guest may be between them. What it has said, in memory and in
/// registers, goes along.
#[test]
fn a_guest_goes_on_between_two_accesses() {
    if !kvm() {
        return;
    }
    const WORD: u32 = 0x20_0000;
    let bridge = 0x0008_1b36;
    let program = Program::new()
        .out8(port::CONSOLE, b'a')
        .write32(WORD, 0x1234_5678)
        .out32(mechanism1::ADDRESS, mechanism1::ENABLE)
        .phase(Phase::Measure)
        .in32(mechanism1::DATA)
        .expect(bridge)
        .read32(WORD)
        .expect(0x1234_5678)
        .out8(port::CONSOLE, b'b')
        .phase(Phase::Done);
    let (mut first, directory) = saved_at_the_mark(program);
    let snapshot = open(&directory);
    assert_eq!((snapshot.memory_bytes(), snapshot.cpus()), (64 << 20, 1));
    assert_eq!(snapshot.functions(), [Bdf::root(0)]);
    for path in [Path::Event, Path::Trap] {
        // Any number of machines may go on from it, and the one that was saved, too.
        let mut vm = restored(&directory, path);
        let mut marks = Vec::new();
        let run = vm.run(LIMIT, &mut |phase| marks.push(phase)).unwrap();
        assert_eq!((run.exit_code, run.console, marks), (0, b"ab".to_vec(), vec![Phase::Done]));
    }
    let run = first.run(LIMIT, &mut |_| ()).unwrap();
    assert_eq!((run.exit_code, run.console), (0, b"ab".to_vec()));
}

#[test]
fn a_guest_is_suspended_wherever_it_is() {
    if !kvm() {
        return;
    }
    // Before it runs, and while it does not exit.
    let mut vm = machine(Path::Event);
    vm.load(&Program::new().phase(Phase::Measure).hang().image(), "").unwrap();
    vm.handle().suspend();
    assert!(matches!(vm.run(LIMIT, &mut |_| ()), Err(VmError::Suspended)));
    let (marked, is_marked) = channel();
    let handle = vm.handle();
    thread::scope(|scope| {
        scope.spawn(move || {
            is_marked.recv_timeout(LIMIT).unwrap();
            handle.suspend();
        });
        let ended = vm.run(LIMIT, &mut |_| marked.send(()).unwrap());
        assert!(matches!(ended, Err(VmError::Suspended)), "{ended:?}");
    });
    // A guest that ends by itself has ended.
    let mut vm = machine(Path::Event);
    vm.load(&Program::new().image(), "").unwrap();
    assert_eq!(vm.run(LIMIT, &mut |_| ()).unwrap().exit_code, 0);
}

/// After an exit for a port access the instruction is not over for KVM.
#[test]
fn a_guest_that_has_ended_or_timed_out_is_saved_too() {
    if !kvm() {
        return;
    }
    let mut vm = machine(Path::Event);
    let program = Program::new().exit(7).out8(port::CONSOLE, b'x').exit(8);
    vm.load(&program.image(), "").unwrap();
    assert_eq!(vm.run(LIMIT, &mut |_| ()).unwrap().exit_code, 7);
    let directory = tempdir().unwrap();
    vm.save(directory.path()).unwrap();
    let run = restored(&directory, Path::Event).run(LIMIT, &mut |_| ()).unwrap();
    assert_eq!((run.exit_code, run.console), (8, b"x".to_vec()));

    let mut vm = machine(Path::Event);
    vm.load(&Program::new().until(0x20_0000, 1).image(), "").unwrap();
    let ended = vm.run(Duration::from_millis(1), &mut |_| ());
    assert!(matches!(ended, Err(VmError::Timeout { .. })));
    let directory = tempdir().unwrap();
    vm.save(directory.path()).unwrap();
    let mut vm = restored(&directory, Path::Event);
    vm_memory::Bytes::write_obj(&**vm.memory(), 1_u32, vm_memory::GuestAddress(0x20_0000)).unwrap();
    assert_eq!(vm.run(LIMIT, &mut |_| ()).unwrap().exit_code, 0);
}

fn snapshot_error(result: Result<(), VmError>) -> SnapshotError {
    match result {
        Err(VmError::Snapshot(error)) => *error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_of_another_machine_is_refused() {
    if !kvm() {
        return;
    }
    let (mut first, directory) = saved_at_the_mark(Program::new().phase(Phase::Measure));
    let again = snapshot_error(first.save(directory.path()));
    assert!(matches!(again, SnapshotError::Taken(_)));
    let refused = |vm: &mut Vm| match snapshot_error(vm.restore(&open(&directory))) {
        SnapshotError::Mismatch(what) => what,
        other => panic!("{other}"),
    };
    let config = VmConfig::new(32 << 20, Path::Event);
    let what = refused(&mut Vm::new(&config).unwrap());
    assert_eq!(what, "it is of a machine with 67108864 bytes of memory, not 33554432");
    let mut vm = machine(Path::Event);
    let host = vm.host(Bdf::root(3), Arc::new(ManualExecutor::new()));
    vm.plug(Bdf::root(3), Arc::new(Mutex::new(TestDevice::new(&host).0))).unwrap();
    assert_eq!(refused(&mut vm), "it has functions at 00:00.0, not at 00:00.0, 00:03.0");

    let config =
        LinuxConfig { memory_bytes: 64 << 20, cpus: 1, path: Path::Event, vcpu_cpus: Vec::new() };
    let mut linux = LinuxVm::new(&config, Box::new(Screen::default())).unwrap();
    let error = snapshot_error(linux.restore(&open(&directory)));
    assert_eq!(error.to_string(), "the snapshot does not fit: it is of another kind of machine");

    // Memory that is not as long, or not there.
    let memory = directory.path().join("memory");
    fs::File::options().write(true).open(&memory).unwrap().set_len(64 << 10).unwrap();
    assert_eq!(
        refused(&mut machine(Path::Event)),
        "memory has 65536 bytes, and the machine 67108864"
    );
    fs::remove_file(&memory).unwrap();
    let error = snapshot_error(machine(Path::Event).restore(&open(&directory)));
    assert!(matches!(error, SnapshotError::Io { .. }), "{error}");
}

#[test]
fn a_function_that_cannot_be_saved_goes_on() {
    if !kvm() {
        return;
    }
    let mut vm = machine(Path::Event);
    let host = vm.host(Bdf::root(3), Arc::new(ManualExecutor::new()));
    vm.plug(Bdf::root(3), Arc::new(Mutex::new(TestDevice::new(&host).0))).unwrap();
    vm.load(&Program::new().phase(Phase::Measure).image(), "").unwrap();
    to_the_mark(&mut vm);
    let directory = tempdir().unwrap();
    let error = snapshot_error(vm.save(directory.path()));
    assert_eq!(error.to_string(), "00:03.0: this function cannot be saved");
    assert!(Snapshot::open(directory.path()).is_err());
    assert_eq!(vm.run(LIMIT, &mut |_| ()).unwrap().exit_code, 0);
}

fn linux(cpus: u8) -> (LinuxVm, Screen) {
    let screen = Screen::default();
    let config =
        LinuxConfig { memory_bytes: 32 << 20, cpus, path: Path::Event, vcpu_cpus: Vec::new() };
    (LinuxVm::new(&config, Box::new(screen.clone())).unwrap(), screen)
}

fn load(vm: &mut LinuxVm, kernel: Kernel) {
    let file = kernel.file();
    vm.load(&LinuxImage { kernel: file.path(), initrd: None, command_line: "" }).unwrap();
}

/// Runs a machine until it has said `text`, saves it, and has another go on.
fn moved(vm: &mut LinuxVm, screen: &Screen, text: &[u8], cpus: u8) -> (LinuxVm, Screen) {
    let handle = vm.handle();
    let mut said = Vec::new();
    let screen = screen.clone();
    thread::scope(|scope| {
        scope.spawn(move || {
            while said != text {
                said.extend(screen.take());
                thread::yield_now();
            }
            handle.stop();
        });
        assert_eq!(vm.run(Some(LIMIT)).unwrap(), LinuxEnd::Stopped);
    });
    let directory = tempdir().unwrap();
    vm.save(directory.path()).unwrap();
    let (mut vm, screen) = linux(cpus);
    let snapshot = open(&directory);
    assert_eq!(snapshot.cpus(), usize::from(cpus));
    vm.restore(&snapshot).unwrap();
    (vm, screen)
}

#[test]
fn what_was_typed_and_pressed_goes_along() {
    if !kvm() {
        return;
    }
    // Typed while it waits; the button is pressed before it is saved, or after.
    for before in [false, true] {
        let (mut vm, screen) = linux(1);
        load(&mut vm, Kernel::new().say("?").echo().until(BUTTON, 1).say("!").power_off());
        if before {
            vm.handle().power_button();
        }
        let (mut vm, screen) = moved(&mut vm, &screen, b"?", 1);
        vm.handle().input(b"typed\n");
        if !before {
            vm.handle().power_button();
        }
        assert_eq!(vm.run(Some(LIMIT)).unwrap(), LinuxEnd::PowerOff);
        assert_eq!(screen.take(), b"typed\n!");
    }

    // Typed and not read.
    let (mut vm, screen) = linux(1);
    load(&mut vm, Kernel::new().say("?").until(BUTTON, 1).echo().power_off());
    vm.handle().input(b"a line\n");
    let (mut vm, screen) = moved(&mut vm, &screen, b"?", 1);
    vm.handle().power_button();
    assert_eq!(vm.run(Some(LIMIT)).unwrap(), LinuxEnd::PowerOff);
    assert_eq!(screen.take(), b"a line\n");
}

/// A machine that was moved is one like others: it is moved again, and reset.
#[test]
fn vcpus_that_run_and_that_wait_go_along() {
    if !kvm() {
        return;
    }
    let (mut vm, screen) = linux(2);
    load(&mut vm, Kernel::new().say("1").until(BUTTON, 1).second_powers_off().hang());
    let (mut vm, screen) = moved(&mut vm, &screen, b"1", 2);
    vm.handle().stop();
    assert_eq!(vm.run(Some(LIMIT)).unwrap(), LinuxEnd::Stopped);
    let (mut vm, screen) = moved(&mut vm, &screen, b"", 2);
    vm.handle().power_button();
    assert_eq!(vm.run(Some(LIMIT)).unwrap(), LinuxEnd::PowerOff);
    assert_eq!(screen.take(), b"A");
    vm.reset().unwrap();
    load(&mut vm, Kernel::new().say("again").reset());
    assert_eq!(vm.run(Some(LIMIT)).unwrap(), LinuxEnd::Reset);
    assert_eq!(screen.take(), b"again");

    let (mut other, _) = linux(1);
    let directory = tempdir().unwrap();
    vm.save(directory.path()).unwrap();
    let error = snapshot_error(other.restore(&open(&directory)));
    let text = "the snapshot does not fit: it is of a machine with 2 vCPUs, not 1";
    assert_eq!(error.to_string(), text);
}

/// A number that looks like any other each time.
fn random(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
    *seed >> 24
}

/// The same snapshot, with other text for its state.
fn altered(directory: &TempDir, text: &[u8]) -> TempDir {
    let other = tempdir().unwrap();
    fs::hard_link(directory.path().join("memory"), other.path().join("memory")).unwrap();
    fs::write(other.path().join("state.json"), text).unwrap();
    other
}

fn state(directory: &FilePath) -> Vec<u8> {
    fs::read(directory.join("state.json")).unwrap()
}

/// A snapshot is anybody's work: whatever it says, there is an error or a machine that runs.
#[test]
fn whatever_a_snapshot_says_is_refused_or_runs() {
    if !kvm() {
        return;
    }
    const CASES: u64 = 250;
    let small = || {
        let config = VmConfig::new(4 << 20, Path::Event);
        Vm::new(&config).unwrap()
    };
    let program = Program::new().phase(Phase::Measure).out8(port::CONSOLE, b'a');
    let mut vm = small();
    vm.load(&program.until(0x20_0000, 1).image(), "").unwrap();
    to_the_mark(&mut vm);
    let directory = tempdir().unwrap();
    vm.save(directory.path()).unwrap();
    let good = state(directory.path());
    let mut seed = 1;
    let (mut refused, mut ran) = (0, 0);
    for _ in 0..CASES {
        let mut text = good.clone();
        for _ in 0..=random(&mut seed) % 3 {
            let at = usize::try_from(random(&mut seed)).unwrap() % text.len();
            match random(&mut seed) % 8 {
                0 => drop(text.remove(at)),
                1 => text
                    .insert(at, b"0f1\",[]{}-"[usize::try_from(random(&mut seed) % 10).unwrap()]),
                // Digits stay digits, so that most of it is still well-formed.
                _ if text[at].is_ascii_digit() => {
                    text[at] = b'0' + u8::try_from(random(&mut seed) % 10).unwrap();
                }
                _ => text[at] = text[at].wrapping_add(1) & 0x7f,
            }
        }
        let other = altered(&directory, &text);
        let mut vm = small();
        let restored = Snapshot::open(other.path()).map_err(VmError::from);
        match restored.and_then(|snapshot| vm.restore(&snapshot)) {
            Err(_) => refused += 1,
            Ok(()) => {
                ran += 1;
                // It hangs, ends, or KVM stops it: it is a guest.
                let _ = vm.run(Duration::from_millis(2), &mut |_| ());
            }
        }
    }
    assert!(refused > 0 && ran > 0, "{refused} refused, {ran} ran");
}
