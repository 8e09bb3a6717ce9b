//! Functions that come and go.

mod common;

use std::sync::{Arc, Mutex};

use common::device::{Rings, TestDevice, at};
use common::kernel::{Kernel, Screen};
use common::{LIMIT, kvm};
use paraslot_device::ManualExecutor;
use paraslot_pci::{Bdf, PciDevice};
use paraslot_spec::pci::{Command, header};
use paraslot_vmm::{Exits, LinuxConfig, LinuxEnd, LinuxImage, LinuxVm, Path, VmError};

const SLOT: Bdf = Bdf::root(3);
/// Its configuration space, and where its BARs are put.
const CONFIG: u32 = 0xe000_0000 + (3 << 15);
const BAR: u32 = 0xd000_0000;
const PORTS: u16 = 0x1000;

/// A machine with an empty screen.
fn machine(path: Path) -> (LinuxVm, Screen) {
    let screen = Screen::default();
    let config = LinuxConfig { memory_bytes: 32 << 20, cpus: 1, path, vcpu_cpus: Vec::new() };
    (LinuxVm::new(&config, Box::new(screen.clone())).unwrap(), screen)
}

fn run(vm: &mut LinuxVm, kernel: Kernel) {
    let file = kernel.power_off().file();
    vm.load(&LinuxImage { kernel: file.path(), initrd: None, command_line: "" }).unwrap();
    assert_eq!(vm.run(Some(LIMIT)).unwrap(), LinuxEnd::PowerOff);
}

fn device(vm: &LinuxVm) -> (TestDevice, Rings) {
    TestDevice::new(&vm.handle().host(SLOT, Arc::new(ManualExecutor::new())))
}

/// Its BARs where they belong, and decoding.
fn placed() -> [(u16, u32); 3] {
    let command = Command::IO | Command::MEMORY;
    let bar = header::BAR0;
    [(bar, BAR), (bar + 4, PORTS.into()), (header::COMMAND, command.bits().into())]
}

fn place(kernel: Kernel) -> Kernel {
    placed()
        .into_iter()
        .fold(kernel, |kernel, (at, value)| kernel.write32(CONFIG + u32::from(at), value))
}

/// Rings each doorbell in memory.
fn ring(kernel: Kernel) -> Kernel {
    let kernel = kernel.write32(BAR + at::DOORBELL, 1);
    kernel.write32(BAR + at::DOORBELL_7, 7).write32(BAR + at::DOORBELL_ANY, 1)
}

/// Nothing of it answers, KVM has nothing of it, and it stands still.
#[test]
fn a_function_that_is_gone_is_reached_by_nothing() {
    if !kvm() {
        return;
    }
    for path in [Path::Event, Path::Trap] {
        let (mut vm, screen) = machine(path);
        let (bdf, handle) = (SLOT, vm.handle());
        let (device, rings) = device(&vm);
        vm.plug(bdf, Arc::new(Mutex::new(device))).unwrap();
        run(&mut vm, ring(place(Kernel::new())).write32(BAR + at::WINDOW, 41));
        assert_eq!(rings.take(), [1, 1, 1, 0]);
        assert!(!rings.is_paused());

        let function = handle.unplug(bdf).unwrap().unwrap();
        assert!(rings.is_paused());
        assert_eq!(Arc::strong_count(&function), 1, "nobody else has it");
        let before = handle.exits();
        let read = [CONFIG, BAR + at::SCRATCH, BAR + at::WINDOW, BAR + at::MSIX];
        let kernel = ring(Kernel::new()).in8(PORTS + 4).say_read();
        let kernel = read.into_iter().fold(kernel, |kernel, at| kernel.read32(at).say_read());
        run(&mut vm, place(kernel));
        let said = screen.take();
        assert_eq!((said[0], &said[4..]), (0xff, &[0xff; 16][..]));
        assert_eq!(rings.take(), [0; 4]);
        let exits = handle.exits() - before;
        let expected = Exits { mmio_reads: 4, mmio_writes: 6, port_reads: 1, ..exits };
        assert_eq!(exits, expected, "each access comes here");

        // Another takes its place, and has nothing of it.
        let (another, others) = self::device(&vm);
        handle.plug(bdf, Arc::new(Mutex::new(another))).unwrap();
        let look = |kernel: Kernel| kernel.read32(BAR + at::WINDOW).say_read();
        run(&mut vm, ring(place(look(Kernel::new()))));
        assert_eq!((screen.take(), rings.take()), (vec![0xff; 4], [0; 4]));
        assert_eq!(others.take(), [1, 1, 1, 0]);
        run(&mut vm, look(Kernel::new()));
        assert_eq!(screen.take(), [0; 4]);
        drop(function);
    }
}

/// KVM has room for a thousand doorbells on a bus; three of each function's are in memory.
#[test]
fn functions_that_have_gone_take_no_room() {
    if !kvm() {
        return;
    }
    let (mut vm, _) = machine(Path::Event);
    let handle = vm.handle();
    for _ in 0..340 {
        let (mut device, rings) = device(&vm);
        // As a guest has left it, so that the doorbells are KVM's from the start.
        for (at, value) in placed() {
            device.config_write(at, &value.to_le_bytes());
        }
        handle.plug(SLOT, Arc::new(Mutex::new(device))).unwrap();
        drop(handle.unplug(SLOT).unwrap().unwrap());
        assert_eq!(rings.take(), [0; 4]);
    }
    let (device, rings) = device(&vm);
    handle.plug(SLOT, Arc::new(Mutex::new(device))).unwrap();
    run(&mut vm, ring(place(Kernel::new())));
    assert_eq!(rings.take(), [1, 1, 1, 0]);
}

#[test]
fn what_comes_while_the_machine_stands_still_does_so_too() {
    if !kvm() {
        return;
    }
    let (mut vm, screen) = machine(Path::Event);
    let directory = tempfile::tempdir().unwrap();
    vm.save(&directory.path().join("saved")).unwrap();
    let (device, rings) = device(&vm);
    vm.handle().plug(SLOT, Arc::new(Mutex::new(device))).unwrap();
    assert!(rings.is_paused());
    run(&mut vm, Kernel::new().read32(CONFIG).say_read());
    assert!(!rings.is_paused());
    assert_eq!(screen.take(), 0x5678_1234_u32.to_le_bytes());
}

#[test]
fn functions_come_and_go_while_it_runs() {
    if !kvm() {
        return;
    }
    let identity = || Kernel::new().read32(CONFIG);
    let (mut vm, screen) = machine(Path::Event);
    let (bdf, handle) = (SLOT, vm.handle());
    let (device, _) = TestDevice::new(&vm.host(bdf, Arc::new(ManualExecutor::new())));
    handle.plug(bdf, Arc::new(Mutex::new(device))).unwrap();
    assert!(matches!(
        handle.plug(bdf, handle.unplug(Bdf::root(0)).unwrap().unwrap()),
        Err(VmError::Plug(_))
    ));
    run(&mut vm, identity().say_read());
    assert_eq!(screen.take(), 0x5678_1234_u32.to_le_bytes());
    assert!(handle.unplug(bdf).unwrap().is_some());
    assert!(handle.unplug(bdf).unwrap().is_none());
    run(&mut vm, identity().say_read());
    assert_eq!(screen.take(), [0xff; 4]);
}

#[test]
fn a_bar_s_window_goes_with_its_function() {
    if !kvm() {
        return;
    }
    let (mut vm, screen) = machine(Path::Event);
    let bdf = SLOT;
    let (device, _) = TestDevice::new(&vm.host(bdf, Arc::new(ManualExecutor::new())));
    vm.plug(bdf, Arc::new(Mutex::new(device))).unwrap();
    let look = |kernel: Kernel| kernel.read32(BAR + at::WINDOW).say_read();
    let kernel = Kernel::new().write32(CONFIG + 0x10, BAR).write32(CONFIG + 4, 2);
    run(&mut vm, look(kernel.write32(BAR + at::WINDOW, 41)));
    assert_eq!(screen.take(), 42_u32.to_le_bytes());
    let device = vm.handle().unplug(bdf).unwrap().unwrap();
    run(&mut vm, look(Kernel::new()));
    assert_eq!(screen.take(), [0xff; 4]);
    // It decodes as before, when it is back.
    vm.plug(bdf, device).unwrap();
    run(&mut vm, look(Kernel::new()));
    assert_eq!(screen.take(), 42_u32.to_le_bytes());
    // And not after a reset.
    vm.reset().unwrap();
    run(&mut vm, look(Kernel::new()));
    assert_eq!(screen.take(), [0xff; 4]);
}
