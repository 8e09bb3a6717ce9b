//! Doorbells, windows, interrupts and BARs, counted exit by exit.

mod common;

use std::sync::{Arc, Mutex};

use common::device::{BAR_LEN, Rings, TestDevice, at};
use common::program::Program;
use common::{LIMIT, kvm, machine};
use paraslot_device::ManualExecutor;
use paraslot_pci::Bdf;
use paraslot_protocol::{Phase, port};
use paraslot_spec::pci::{Command, header, msix};
use paraslot_vmm::{Exits, Path, Run, Vm};

/// Where the device is, and where the programs put its BARs.
const SLOT: u8 = 3;
const BAR: u32 = 0xd000_0000;
const ELSEWHERE: u32 = 0xd123_4000;
const PORTS: u16 = 0x1000;

/// The local APIC: its spurious vector register, and the request register with vector 0x41.
const APIC_SPURIOUS: u32 = 0xfee0_00f0;
const APIC_REQUESTS: u32 = 0xfee0_0220;
const VECTOR: u32 = 0x41;
const REQUEST: u32 = 1 << (VECTOR % 32);

fn with_device(path: Path) -> (Vm, Rings) {
    let mut vm = machine(path);
    let host = vm.host(Bdf::root(SLOT), Arc::new(ManualExecutor::new()));
    let (device, rings) = TestDevice::new(&host);
    vm.plug(Bdf::root(SLOT), Arc::new(Mutex::new(device))).unwrap();
    (vm, rings)
}

fn run(vm: &mut Vm, program: Program) -> Run {
    vm.load(&program.image(), "").unwrap();
    let run = vm.run(LIMIT, &mut |_| ()).unwrap();
    assert_eq!(run.exit_code, 0, "the step that failed");
    run
}

/// BARs placed and decoding, bus mastering on, measurement begun.
fn ready() -> Program {
    let command = Command::IO | Command::MEMORY | Command::BUS_MASTER;
    Program::new()
        .config_write(SLOT, header::BAR0, BAR)
        .config_write(SLOT, header::BAR0 + 4, PORTS.into())
        .config_write(SLOT, header::COMMAND, command.bits().into())
        .phase(Phase::Measure)
}

fn exits(run: &Run) -> Exits {
    run.measured.unwrap().exits
}

#[test]
fn doorbells_exit_on_the_trap_path_alone() {
    if !kvm() {
        return;
    }
    let program = || {
        ready()
            .times(5, |program| program.write32(BAR + at::DOORBELL, 1))
            .times(3, |program| program.write32(BAR + at::DOORBELL_7, 7))
            .write8(BAR + at::DOORBELL_ANY, 1)
            .write16(BAR + at::DOORBELL_ANY, 1)
            .write32(BAR + at::DOORBELL_ANY, 1)
            .phase(Phase::Done)
    };
    let (mut vm, rings) = with_device(Path::Event);
    assert_eq!(exits(&run(&mut vm, program())), Exits::default());
    assert_eq!(rings.take(), [5, 3, 3, 0]);

    let (mut vm, rings) = with_device(Path::Trap);
    let expected = Exits { mmio_writes: 11, ..Exits::default() };
    assert_eq!(exits(&run(&mut vm, program())), expected);
    assert_eq!(rings.take(), [5, 3, 3, 0]);
}

#[test]
fn other_widths_and_values_are_no_doorbells() {
    if !kvm() {
        return;
    }
    for path in [Path::Event, Path::Trap] {
        let (mut vm, rings) = with_device(path);
        let program = ready()
            .write16(BAR + at::DOORBELL, 0x1111)
            .read32(BAR + at::SCRATCH)
            .expect(0x1111)
            .write32(BAR + at::DOORBELL_7, 8)
            .read32(BAR + at::SCRATCH)
            .expect(8)
            .phase(Phase::Done);
        let expected = Exits { mmio_writes: 2, mmio_reads: 2, ..Exits::default() };
        assert_eq!(exits(&run(&mut vm, program)), expected);
        assert_eq!(rings.take(), [0; 4]);
    }
}

#[test]
fn doorbells_among_ports_are_no_different() {
    if !kvm() {
        return;
    }
    let program = || {
        let rung = ready().write32(0x9000, 0x6666_5555).out_words(PORTS, 0x9000, 2);
        rung.out32(PORTS + 4, 0xabcd).in32(PORTS + 4).expect(0xabcd).phase(Phase::Done)
    };
    for (path, rung) in [(Path::Event, 0), (Path::Trap, 2)] {
        let (mut vm, rings) = with_device(path);
        let exits = exits(&run(&mut vm, program()));
        assert_eq!(exits, Exits { port_writes: 1 + rung, port_reads: 1, ..Exits::default() });
        assert_eq!(rings.take(), [0, 0, 0, 2]);
    }
}

#[test]
fn windows_are_read_without_exits_and_written_with() {
    if !kvm() {
        return;
    }
    let program = || {
        ready()
            .read32(BAR + at::WINDOW)
            .expect(0)
            .write32(BAR + at::WINDOW, 41)
            .times(5, |program| program.read32(BAR + at::WINDOW).expect(42))
            .phase(Phase::Done)
    };
    for (path, mmio_reads) in [(Path::Event, 0), (Path::Trap, 6)] {
        let (mut vm, _) = with_device(path);
        let expected = Exits { mmio_writes: 1, mmio_reads, ..Exits::default() };
        assert_eq!(exits(&run(&mut vm, program())), expected);
    }
}

/// MSI-X vector 0 set to [`VECTOR`], local APIC on.
fn vectored(program: Program, bar: u32) -> Program {
    let capability = 0x40;
    let table = bar + at::MSIX;
    program
        .write32(APIC_SPURIOUS, 0x1ff)
        .config_write(SLOT, capability, u32::from(msix::ENABLE) << 16)
        .write32(table, 0xfee0_0000)
        .write32(table + 4, 0)
        .write32(table + 8, VECTOR)
        .write32(table + 12, 0)
}

#[test]
fn messages_arrive_on_either_path() {
    if !kvm() {
        return;
    }
    for (path, messages) in [(Path::Event, None), (Path::Trap, Some(1))] {
        let (mut vm, _) = with_device(path);
        let program = vectored(ready(), BAR)
            .read32(APIC_REQUESTS)
            .expect(0)
            .write32(BAR + at::RAISE, 1)
            .until(APIC_REQUESTS, REQUEST)
            .phase(Phase::Done);
        assert_eq!(run(&mut vm, program).measured.unwrap().messages, messages);
    }
}

#[test]
fn a_message_that_changes_arrives_as_what_it_is_now() {
    if !kvm() {
        return;
    }
    for path in [Path::Event, Path::Trap] {
        let (mut vm, _) = with_device(path);
        let table = BAR + at::MSIX;
        let program = vectored(ready(), BAR)
            // Raised while it is masked, it waits.
            .write32(table + 12, 1)
            .write32(BAR + at::RAISE, 1)
            .write32(table + 8, VECTOR + 1)
            .read32(APIC_REQUESTS)
            .expect(0)
            .write32(table + 12, 0)
            .until(APIC_REQUESTS, REQUEST << 1)
            .read32(APIC_REQUESTS)
            .expect(REQUEST << 1)
            // And without masking it first, which drivers should but need not do.
            .write32(table + 8, VECTOR + 2)
            .write32(BAR + at::RAISE, 1)
            .until(APIC_REQUESTS, REQUEST << 2)
            .read32(APIC_REQUESTS)
            .expect(REQUEST << 1 | REQUEST << 2);
        run(&mut vm, program);
    }
}

#[test]
fn intx_reaches_its_pin() {
    if !kvm() {
        return;
    }
    const IO_APIC_SELECT: u32 = 0xfec0_0000;
    const IO_APIC_DATA: u32 = 0xfec0_0010;
    const LEVEL: u32 = 1 << 15;
    let redirection = 0x10 + 2 * (20 + u32::from(SLOT % 4));
    for path in [Path::Event, Path::Trap] {
        let (mut vm, _) = with_device(path);
        let program = ready()
            .write32(APIC_SPURIOUS, 0x1ff)
            .write32(IO_APIC_SELECT, redirection + 1)
            .write32(IO_APIC_DATA, 0)
            .write32(IO_APIC_SELECT, redirection)
            .write32(IO_APIC_DATA, VECTOR | LEVEL)
            .read32(APIC_REQUESTS)
            .expect(0)
            .write32(BAR + at::INTX, 1)
            .until(APIC_REQUESTS, REQUEST)
            .write32(BAR + at::INTX, 0);
        run(&mut vm, program);
    }
}

#[test]
fn doorbells_and_windows_move_with_their_bar() {
    if !kvm() {
        return;
    }
    let (mut vm, rings) = with_device(Path::Event);
    let program = ready()
        .phase(Phase::Done)
        .write32(BAR + at::WINDOW, 1)
        .config_write(SLOT, header::BAR0, ELSEWHERE)
        .phase(Phase::Measure)
        .write32(ELSEWHERE + at::DOORBELL, 1)
        .read32(ELSEWHERE + at::WINDOW)
        .expect(2)
        .phase(Phase::Done)
        // Nothing is left behind.
        .write32(BAR + at::DOORBELL, 1)
        .read32(BAR + at::WINDOW)
        .expect(u32::MAX);
    assert_eq!(exits(&run(&mut vm, program)), Exits::default());
    assert_eq!(rings.take(), [1, 0, 0, 0]);

    // Not decoding, then decoding again.
    let decode = |on: bool| {
        let command = if on { Command::MEMORY } else { Command::empty() };
        move |program: Program| program.config_write(SLOT, header::COMMAND, command.bits().into())
    };
    let program = decode(false)(Program::new())
        .write32(ELSEWHERE + at::DOORBELL, 1)
        .read32(ELSEWHERE + at::WINDOW)
        .expect(u32::MAX);
    let program = decode(true)(program)
        .phase(Phase::Measure)
        .write32(ELSEWHERE + at::DOORBELL, 1)
        .read32(ELSEWHERE + at::WINDOW)
        .expect(2)
        .phase(Phase::Done);
    assert_eq!(exits(&run(&mut vm, program)), Exits::default());
    assert_eq!(rings.take(), [1, 0, 0, 0]);
}

/// Sizing a BAR moves it to the top of the address space and back, over the local APIC and the like.
#[test]
fn a_bar_that_is_sized_while_it_decodes_comes_back() {
    if !kvm() {
        return;
    }
    let (mut vm, rings) = with_device(Path::Event);
    let program = ready()
        .config_write(SLOT, header::BAR0, u32::MAX)
        .config_read(SLOT, header::BAR0)
        .expect(!(BAR_LEN - 1))
        .config_write(SLOT, header::BAR0, BAR)
        .write32(BAR + at::DOORBELL, 1)
        .write32(BAR + at::WINDOW, 1)
        .read32(BAR + at::WINDOW)
        .expect(2);
    run(&mut vm, program);
    assert_eq!(rings.take(), [1, 0, 0, 0]);
}

#[test]
fn a_bar_over_memory_or_another_bar_harms_nobody() {
    if !kvm() {
        return;
    }
    const OTHER: u8 = 4;
    for path in [Path::Event, Path::Trap] {
        let (mut vm, rings) = with_device(path);
        let host = vm.host(Bdf::root(OTHER), Arc::new(ManualExecutor::new()));
        let (device, other_rings) = TestDevice::new(&host);
        vm.plug(Bdf::root(OTHER), Arc::new(Mutex::new(device))).unwrap();
        let memory = 0x20_0000;
        let program = ready()
            // Memory stays memory.
            .config_write(SLOT, header::BAR0, memory)
            .write32(memory + at::WINDOW, 5)
            .read32(memory + at::WINDOW)
            .expect(5)
            .config_write(SLOT, header::BAR0, BAR)
            // The one that was there first wins, until it goes.
            .config_write(OTHER, header::BAR0, BAR)
            .config_write(OTHER, header::COMMAND, Command::MEMORY.bits().into())
            .write32(BAR + at::DOORBELL, 1)
            .config_write(SLOT, header::BAR0, ELSEWHERE)
            .write32(BAR + at::DOORBELL, 1)
            .write32(BAR + at::DOORBELL, 1);
        run(&mut vm, program);
        assert_eq!((rings.take(), other_rings.take()), ([1, 0, 0, 0], [2, 0, 0, 0]));
    }
}

#[test]
fn where_nothing_is_reads_as_ones() {
    if !kvm() {
        return;
    }
    let (mut vm, _) = with_device(Path::Event);
    let program = Program::new()
        .phase(Phase::Measure)
        .read32(0xd000_0000)
        .expect(u32::MAX)
        .write32(0xd000_0000, 0)
        .in32(0x1234)
        .expect(u32::MAX)
        .out32(0x1234, 0)
        // Configuration space: no function, and the other mechanism.
        .config_read(31, 0)
        .expect(u32::MAX)
        .read32(0xe000_0000 + (u32::from(SLOT) << 15))
        .expect(0x5678_1234)
        .read32(0xe000_0000 + (31 << 15))
        .expect(u32::MAX)
        .phase(Phase::Done);
    let expected =
        Exits { mmio_reads: 3, mmio_writes: 1, port_reads: 2, port_writes: 2, others: 0 };
    assert_eq!(exits(&run(&mut vm, program)), expected);
}

#[test]
fn repeated_port_accesses_are_taken_apart() {
    if !kvm() {
        return;
    }
    let (mut vm, _) = with_device(Path::Trap);
    let program = ready()
        .write32(0x9000, 0x6c6c_6568)
        .write8(0x9004, b'o')
        .out_string(port::CONSOLE, 0x9000, 5)
        .out32(PORTS + 4, 0x1234_abcd)
        .in_words(PORTS + 4, 0x9100, 2)
        .read32(0x9100)
        .expect(0xabcd_abcd);
    assert_eq!(run(&mut vm, program).console, b"hello");
}
