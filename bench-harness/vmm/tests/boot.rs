//! The guest image on our machine.

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::device::TestDevice;
use common::program::Program;
use common::{check, kvm, machine, said};
use paraslot_device::ManualExecutor;
use paraslot_pci::Bdf;
use paraslot_protocol::{Phase, Status};
use paraslot_vmm::{Exits, Path, Vm, VmConfig, VmError};
use vm_memory::GuestMemoryBackend;

#[test]
fn the_image_boots_every_time() {
    if !kvm() {
        return;
    }
    for round in 0..20 {
        let mut vm = machine(if round % 2 == 0 { Path::Event } else { Path::Trap });
        vm.load(paraslot_guest::IMAGE, "quiet check=boot").unwrap();
        let mut phases = Vec::new();
        let run = vm.run(common::LIMIT, &mut |phase| phases.push(phase)).unwrap();
        assert_eq!(run.exit_code, 0, "{:?}", said(&run.console));
        let (lines, status) = said(&run.console);
        assert_eq!(status, Some(Status::Ok));
        let hz = format!("tsc {} Hz, ", vm.tsc_hz());
        assert!(vm.tsc_hz() == 0 || lines[0].starts_with(&hz), "{lines:?}");
        assert_eq!(lines[1..], ["00:00.0 1b36:0008"]);
        assert_eq!(phases, [Phase::WarmUp, Phase::Measure, Phase::Done]);
        // Nothing happens between the last two.
        assert_eq!(run.measured.unwrap().exits, Exits::default());
    }
}

#[test]
fn the_guest_s_checks_of_itself_pass() {
    if !kvm() {
        return;
    }
    for name in ["memory", "interrupt", "sleep"] {
        let run = check(Path::Event, name).unwrap();
        assert_eq!(said(&run.console).1, Some(Status::Ok), "{name}: {:?}", said(&run.console).0);
        assert_eq!(run.exit_code, 0, "{name}");
    }
}

#[test]
fn a_pin_interrupts_the_guest_until_it_is_served() {
    if !kvm() {
        return;
    }
    // Every pin, on either path.
    for (slot, path) in [(1, Path::Event), (2, Path::Trap), (7, Path::Event), (24, Path::Trap)] {
        let mut vm = machine(path);
        let host = vm.host(Bdf::root(slot), Arc::new(ManualExecutor::new()));
        let (device, _) = TestDevice::new(&host);
        vm.plug(Bdf::root(slot), Arc::new(Mutex::new(device))).unwrap();
        vm.load(paraslot_guest::IMAGE, "check=pin").unwrap();
        let run = vm.run(common::LIMIT, &mut |_| ()).unwrap();
        assert_eq!(said(&run.console), (vec![], Some(Status::Ok)), "slot {slot}");
    }
}

#[test]
fn a_guest_s_exception_or_panic_is_reported() {
    if !kvm() {
        return;
    }
    for (name, says) in [("exception", "exception 6, error code 0x0, at 0x2b:"), ("panic", "asked")]
    {
        let run = check(Path::Event, name).unwrap();
        let (lines, status) = said(&run.console);
        assert!(lines.len() == 1 && lines[0].contains(says), "{lines:?}");
        assert_eq!((status, run.exit_code), (Some(Status::Crashed), Status::Crashed as u32));
    }
}

#[test]
fn what_is_no_job_is_refused_by_the_guest() {
    if !kvm() {
        return;
    }
    let mut vm = machine(Path::Event);
    vm.load(paraslot_guest::IMAGE, "device=floppy").unwrap();
    let run = vm.run(common::LIMIT, &mut |_| ()).unwrap();
    let (lines, status) = said(&run.console);
    assert_eq!(
        (lines, status),
        (vec!["the job's device is not valid".to_owned()], Some(Status::BadJob))
    );
}

#[test]
fn a_guest_that_hangs_is_stopped() {
    if !kvm() {
        return;
    }
    let limit = Duration::from_millis(50);
    // In the guest at full speed, and in the guest without interrupts.
    let images = [(paraslot_guest::IMAGE.to_vec(), 3), (Program::new().hang().image(), 0)];
    for (image, level) in images {
        let mut vm = machine(Path::Event);
        vm.load(&image, "check=hang").unwrap();
        let error = vm.run(limit, &mut |_| ()).unwrap_err();
        let VmError::Timeout { limit: said, registers } = error else { panic!("{error}") };
        assert_eq!((said, registers.cs & 3), (limit, level), "{registers}");
        // It can be gone on with, and stopped again.
        assert!(matches!(vm.run(limit, &mut |_| ()), Err(VmError::Timeout { .. })));
    }
}

#[test]
fn a_caller_s_panic_ends_the_guest_too() {
    if !kvm() {
        return;
    }
    let mut vm = machine(Path::Event);
    vm.load(&Program::new().phase(Phase::WarmUp).hang().image(), "").unwrap();
    let run = |vm: &mut Vm| vm.run(common::LIMIT, &mut |_| panic!("as it was asked to"));
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&mut vm)));
    assert!(panicked.is_err());
    assert!(matches!(run(&mut vm), Err(VmError::Poisoned)));
}

#[test]
fn a_triple_fault_is_an_error_that_says_where() {
    if !kvm() {
        return;
    }
    let mut vm = machine(Path::Event);
    vm.load(&Program::new().undefined().image(), "").unwrap();
    let error = vm.run(common::LIMIT, &mut |_| ()).unwrap_err();
    assert!(matches!(error, VmError::Shutdown(_)), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("the guest shut down (a triple fault) at 0x8:0x1000"), "{text}");
    assert_eq!(text.lines().count(), 1);
}

#[test]
fn what_cannot_be_loaded_is_refused() {
    if !kvm() {
        return;
    }
    let mut vm = machine(Path::Trap);
    let image = Program::new().image();
    for (image, command_line) in [
        (b"not an image".as_slice(), String::new()),
        (&image[..image.len() - 1], String::new()),
        (&image, "x".repeat(5000)),
        (&image, "a\0b".to_owned()),
    ] {
        assert!(matches!(vm.load(image, &command_line), Err(VmError::Image(_))));
    }
    vm.load(&image, "").unwrap();
    assert_eq!(vm.run(common::LIMIT, &mut |_| ()).unwrap().exit_code, 0);
}

#[test]
fn impossible_memory_is_refused() {
    if !kvm() {
        return;
    }
    for memory_bytes in [0, 4096, (8 << 20) + 1, !4095] {
        let config = VmConfig::new(memory_bytes, Path::Trap);
        let error = Vm::new(&config).err().unwrap();
        assert!(matches!(error, VmError::Memory { .. }), "{error}");
    }
}

#[test]
fn memory_above_4_gib_is_where_it_should_be() {
    if !kvm() {
        return;
    }
    for shared_memory in [false, true] {
        let config = VmConfig::new(5 << 30, Path::Event);
        let config = VmConfig { vcpu_cpu: Some(0), shared_memory, ..config };
        let mut vm = Vm::new(&config).unwrap();
        // What another process would map, if it may.
        let files = vm.memory().iter().filter(|region| region.file_offset().is_some()).count();
        assert_eq!(files, if shared_memory { 2 } else { 0 });
        vm.load(paraslot_guest::IMAGE, "check=boot").unwrap();
        let run = vm.run(common::LIMIT, &mut |_| ()).unwrap();
        let (lines, _) = said(&run.console);
        // The BARs' space is the upper half of the hole below configuration space.
        assert!(lines[0].contains("bars 0xd0000000 to 0xe0000000"), "{lines:?}");
    }
}
