//! The machine for Linux, with small kernels that look at one thing each.

mod common;

use std::io::Write;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use common::kernel::{APIC_SPURIOUS, BUTTON, IO_APIC_DATA, IO_APIC_SELECT, Kernel, Screen};
use common::{LIMIT, kvm};
use paraslot_device::{ManualExecutor, MsiMessage};
use paraslot_pci::Bdf;
use paraslot_vmm::{LINUX_CPUS_MAX, LinuxConfig, LinuxEnd, LinuxImage, LinuxVm, Path, VmError};

fn config(cpus: u8, path: Path) -> LinuxConfig {
    LinuxConfig { memory_bytes: 32 << 20, cpus, path, vcpu_cpus: Vec::new() }
}

/// A machine with an empty screen.
fn machine(cpus: u8, path: Path) -> (LinuxVm, Screen) {
    let screen = Screen::default();
    (LinuxVm::new(&config(cpus, path), Box::new(screen.clone())).unwrap(), screen)
}

fn load(vm: &mut LinuxVm, kernel: Kernel) {
    let file = kernel.file();
    vm.load(&LinuxImage { kernel: file.path(), initrd: None, command_line: "" }).unwrap();
}

fn run(vm: &mut LinuxVm, kernel: Kernel) -> LinuxEnd {
    load(vm, kernel);
    vm.run(Some(LIMIT)).unwrap()
}

#[test]
fn a_kernel_powers_off_or_resets() {
    if !kvm() {
        return;
    }
    for path in [Path::Event, Path::Trap] {
        let (mut vm, screen) = machine(1, path);
        let end = run(&mut vm, Kernel::new().say("once").reset());
        assert_eq!((end, screen.take()), (LinuxEnd::Reset, b"once".to_vec()));
        vm.reset().unwrap();
        let end = run(&mut vm, Kernel::new().say("more").power_off());
        assert_eq!((end, screen.take()), (LinuxEnd::PowerOff, b"more".to_vec()));
        assert_eq!(vm.handle().exits().port_writes, 4 + 1 + 4 + 1);
    }
}

#[test]
fn a_kernel_gets_its_command_line_and_ram_disk() {
    if !kvm() {
        return;
    }
    let file = Kernel::new().say_what_was_loaded().power_off().file();
    let (mut vm, screen) = machine(1, Path::Event);
    let disk: Vec<u8> =
        (0..5000_u32).map(|index| b'a' + u8::try_from(index % 26).unwrap()).collect();
    let command_line = "console=ttyS0 ".repeat(100);
    let image =
        LinuxImage { kernel: file.path(), initrd: Some(&disk), command_line: &command_line };
    vm.load(&image).unwrap();
    assert_eq!(vm.run(Some(LIMIT)).unwrap(), LinuxEnd::PowerOff);
    assert_eq!(screen.take(), [command_line.as_bytes(), &disk].concat());
}

#[test]
fn what_is_typed_arrives_whole() {
    if !kvm() {
        return;
    }
    let (mut vm, screen) = machine(1, Path::Event);
    let mut line: Vec<u8> =
        (0..1000_u32).map(|index| b'0' + u8::try_from(index % 10).unwrap()).collect();
    line.push(b'\n');
    vm.handle().input(&line);
    assert_eq!(run(&mut vm, Kernel::new().echo().power_off()), LinuxEnd::PowerOff);
    assert_eq!(screen.take(), line);
}

/// A console that answers, on the thread that it is written on.
struct Answering(Sender<u8>);

impl Write for Answering {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        bytes.iter().for_each(|byte| self.0.send(*byte).unwrap());
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Runs a kernel, and calls `answer` when it has said something.
fn converse(
    cpus: u8,
    kernel: Kernel,
    answer: impl FnOnce(&paraslot_vmm::LinuxHandle) + Send,
) -> LinuxEnd {
    let (said, heard) = channel();
    let mut vm = LinuxVm::new(&config(cpus, Path::Event), Box::new(Answering(said))).unwrap();
    let handle = vm.handle();
    thread::scope(|scope| {
        scope.spawn(move || {
            heard.recv_timeout(LIMIT).unwrap();
            answer(&handle);
        });
        run(&mut vm, kernel)
    })
}

#[test]
fn the_power_button_is_seen() {
    if !kvm() {
        return;
    }
    let kernel = Kernel::new().say("?").until(BUTTON, 1).power_off();
    assert_eq!(converse(1, kernel, |handle| handle.power_button()), LinuxEnd::PowerOff);
}

#[test]
fn a_machine_is_stopped_wherever_its_cpus_are() {
    if !kvm() {
        return;
    }
    // Running, and halted with interrupts off; the second vCPU waits to be started.
    for kernel in [Kernel::new().say("?").hang(), Kernel::new().say("?").halt()] {
        for cpus in [1, 2] {
            let end = converse(cpus, kernel.clone(), |handle| handle.stop());
            assert_eq!(end, LinuxEnd::Stopped);
        }
    }
    // A machine that was stopped before it runs does not.
    let (mut vm, screen) = machine(1, Path::Event);
    vm.handle().stop();
    assert_eq!(run(&mut vm, Kernel::new().say("no").power_off()), LinuxEnd::Stopped);
    assert_eq!(vm.run(Some(LIMIT)).unwrap(), LinuxEnd::PowerOff);
    assert_eq!(screen.take(), b"no");
}

#[test]
fn a_kernel_that_hangs_or_faults_is_an_error_that_says_where() {
    if !kvm() {
        return;
    }
    let (mut vm, _) = machine(2, Path::Event);
    load(&mut vm, Kernel::new().hang());
    let limit = Duration::from_millis(50);
    let error = vm.run(Some(limit)).unwrap_err();
    let VmError::Timeout { limit: said, registers } = error else { panic!("{error}") };
    assert_eq!((said, registers.rip), (limit, 0x10_0000));

    vm.reset().unwrap();
    load(&mut vm, Kernel::new().undefined());
    let error = vm.run(Some(LIMIT)).unwrap_err();
    let VmError::Shutdown(registers) = error else { panic!("{error}") };
    assert_eq!(registers.rip, 0x10_0000);

    vm.reset().unwrap();
    assert_eq!(run(&mut vm, Kernel::new().power_off()), LinuxEnd::PowerOff);
}

#[test]
fn the_second_cpu_is_started_by_the_first() {
    if !kvm() {
        return;
    }
    let (mut vm, screen) = machine(2, Path::Event);
    for _ in 0..3 {
        // As after power-on it waits, even if it ran before.
        assert_eq!(run(&mut vm, Kernel::new().second_powers_off().halt()), LinuxEnd::PowerOff);
        assert_eq!(screen.take(), b"A");
        vm.reset().unwrap();
    }
}

// Linux without EFI resets a machine of reduced hardware there.
#[test]
fn the_reset_vector_resets_the_machine() {
    if !kvm() {
        return;
    }
    let (mut vm, _) = machine(2, Path::Event);
    let kernel = Kernel::new().second_goes_to_the_reset_vector().halt();
    assert_eq!(run(&mut vm, kernel), LinuxEnd::Reset);
}

#[test]
fn a_reset_forgets_what_the_guest_has_set() {
    if !kvm() {
        return;
    }
    const SCRATCH: u16 = 0x3f8 + 7;
    let look = |kernel: Kernel| {
        let kernel = kernel.read32(APIC_SPURIOUS).say_read();
        let kernel = kernel.write32(IO_APIC_SELECT, 0x10).read32(IO_APIC_DATA).say_read();
        kernel.in8(SCRATCH).say_read()
    };
    let (mut vm, screen) = machine(1, Path::Event);
    vm.handle().input(b"lost");
    let kernel = look(Kernel::new())
        .write32(APIC_SPURIOUS, 0x1f0)
        .write32(IO_APIC_SELECT, 0x10)
        .write32(IO_APIC_DATA, 0x1_0055)
        .out8(SCRATCH, 0x77);
    assert_eq!(run(&mut vm, look(kernel).reset()), LinuxEnd::Reset);
    let said = screen.take();
    let (before, after) = said.split_at(12);
    assert_ne!(before[..4], after[..4]);
    assert_ne!(before[4..8], after[4..8]);
    assert_ne!(before[8], after[8]);
    vm.reset().unwrap();
    assert_eq!(
        run(&mut vm, look(Kernel::new()).in8(0x3fd).say_read().power_off()),
        LinuxEnd::PowerOff
    );
    let said = screen.take();
    let (again, status) = said.split_at(12);
    assert_eq!((&again[..9], status[0] & 1), (&before[..9], 0));
}

#[test]
fn a_pin_of_hardware_is_asserted_and_acknowledged_by_eventfds() {
    if !kvm() {
        return;
    }
    let (said, heard) = channel();
    let mut vm = LinuxVm::new(&config(1, Path::Event), Box::new(Answering(said))).unwrap();
    let host = |bdf| vm.host(bdf, Arc::new(ManualExecutor::new()));
    // Devices 2 and 6 share pin 22.
    let (one, other, silent) = (host(Bdf::root(2)), host(Bdf::root(6)), host(Bdf::root(10)));
    let events = one.intx.eventfds().unwrap();
    let others = other.intx.eventfds().unwrap();
    let again = one.intx.eventfds().unwrap();
    load(&mut vm, Kernel::new().route(22).say("?").take_interrupts());
    let handle = vm.handle();
    let hear = || heard.recv_timeout(LIMIT).unwrap();
    let wait = |event: &vmm_sys_util::eventfd::EventFd| {
        // It is not blocking.
        (0..).find_map(|_| {
            thread::yield_now();
            event.read().ok()
        })
    };
    thread::scope(|scope| {
        let running = scope.spawn(|| vm.run(Some(LIMIT)).unwrap());
        assert_eq!(hear(), b'?');
        for event in [&events.assert, &again.assert, &others.assert] {
            event.write(1).unwrap();
            assert_eq!(hear(), b'I');
            // All on the pin hear of it.
            wait(&events.acknowledged).unwrap();
            wait(&others.acknowledged).unwrap();
        }
        // A function that goes leaves the pin to the others.
        drop((events, again, one));
        others.assert.write(1).unwrap();
        assert_eq!(hear(), b'I');
        wait(&others.acknowledged).unwrap();
        // A level interrupts until it falls, whichever function's it is.
        silent.intx.set_level(true);
        assert_eq!((hear(), hear()), (b'I', b'I'));
        drop(silent);
        handle.stop();
        assert_eq!(running.join().unwrap(), LinuxEnd::Stopped);
    });
}

#[test]
fn the_trap_path_has_no_eventfds_for_devices() {
    if !kvm() {
        return;
    }
    let (vm, _) = machine(1, Path::Trap);
    let host = vm.host(Bdf::root(2), Arc::new(ManualExecutor::new()));
    assert!(host.intx.eventfds().is_none());
    assert!(host.msi.event(0).is_none());
}

#[test]
fn interrupt_numbers_of_functions_that_are_gone_are_used_again() {
    if !kvm() {
        return;
    }
    let (mut vm, _) = machine(1, Path::Event);
    // More than there are numbers.
    for _ in 0..65 {
        let host = vm.host(Bdf::root(2), Arc::new(ManualExecutor::new()));
        for vector in 0..64 {
            let message = MsiMessage { address: 0xfee0_0000, data: 0x41 };
            host.msi.update(vector, message, false);
            assert!(host.msi.event(vector).is_some());
        }
    }
    // Nothing went wrong meanwhile.
    assert_eq!(run(&mut vm, Kernel::new().power_off()), LinuxEnd::PowerOff);
}

#[test]
fn what_cannot_be_had_is_refused() {
    if !kvm() {
        return;
    }
    for cpus in [0, LINUX_CPUS_MAX + 1] {
        assert!(LinuxVm::new(&config(cpus, Path::Event), Box::new(Screen::default())).is_err());
    }
    let (mut vm, _) = machine(1, Path::Event);
    let file = Kernel::new().power_off().file();
    let kernel = file.path();
    let disk = vec![0; 32 << 20];
    for (image, says) in [
        (LinuxImage { kernel, initrd: Some(&disk), command_line: "" }, "do not fit"),
        (LinuxImage { kernel, initrd: None, command_line: &"x".repeat(3000) }, "command line"),
        (LinuxImage { kernel, initrd: None, command_line: "a\0b" }, "command line"),
        (LinuxImage { kernel: "/".as_ref(), initrd: None, command_line: "" }, "/: "),
        (LinuxImage { kernel: "/dev/zero".as_ref(), initrd: None, command_line: "" }, "neither"),
    ] {
        let error = vm.load(&image).unwrap_err().to_string();
        assert!(error.contains(says) && error.lines().count() == 1, "{error}");
    }
    assert_eq!(run(&mut vm, Kernel::new().power_off()), LinuxEnd::PowerOff);
}

#[test]
fn kvm_s_vfio_device_is_there_where_kvm_has_it() {
    if !kvm() {
        return;
    }
    let (vm, _) = machine(1, Path::Event);
    match vm.vfio() {
        Ok(_) => {}
        Err(error) => assert!(matches!(error, VmError::Kvm { .. }), "{error}"),
    }
}

/// The PC/AT interrupt controllers, which the tables say are not there, would keep what they are told
/// until a guest that does not know of them enables interrupts: at the latest the next one after a reset.
#[test]
fn no_interrupt_gathers_where_nobody_looks() {
    const INTERRUPTS: u16 = 0x3f9;
    const TRANSMITTER_EMPTY: u8 = 2;
    const IDENTIFICATION: u16 = 0x3fa;
    const REQUESTS: [u16; 2] = [0x20, 0xa0];
    if !kvm() {
        return;
    }
    let (mut vm, screen) = machine(1, Path::Event);
    vm.handle().power_button();
    let raised = (0..20).fold(Kernel::new(), |kernel, _| {
        let kernel = kernel.out8(INTERRUPTS, 0).in8(IDENTIFICATION);
        kernel.out8(INTERRUPTS, TRANSMITTER_EMPTY)
    });
    let kernel = REQUESTS.into_iter().fold(raised, |kernel, port| kernel.in8(port).say_read());
    assert_eq!(run(&mut vm, kernel.power_off()), LinuxEnd::PowerOff);
    let said = screen.take();
    assert_eq!((said[0], said[4]), (0, 0));
}
