//! The guest's checks of itself: `check=NAME` in place of a job.

use paraslot_drivers::{Bdf, Error, Platform, Window, pci};
use paraslot_protocol::{Outcome, Phase, Status};

use crate::boot::{self, DEVICE_VECTORS};
use crate::console;
use crate::machine::Machine;

/// The check that a command line asks for.
pub(crate) fn named(command_line: &str) -> Option<&str> {
    command_line.split_ascii_whitespace().find_map(|word| word.strip_prefix("check="))
}

/// Runs it.
pub(crate) fn run(name: &str, machine: &Machine) -> Outcome {
    match name {
        "boot" => boot(machine),
        "memory" => memory(machine),
        "sleep" => sleep(machine),
        "interrupt" => interrupt(machine),
        "pin" => pin(machine).unwrap_or_else(|error| {
            console::line(format_args!("{error}"));
            Outcome::failed(Status::NoDevice)
        }),
        "exception" => exception(),
        "panic" => panic!("as it was asked to"),
        "hang" => loop {
            machine.relax();
        },
        _ => {
            console::line(format_args!("no check is called {name}"));
            Outcome::failed(Status::BadJob)
        }
    }
}

fn passed(ok: bool) -> Outcome {
    Outcome::failed(if ok { Status::Ok } else { Status::DeviceError })
}

/// Says what the machine is like.
fn boot(machine: &Machine) -> Outcome {
    let bars = machine.bar_space();
    console::line(format_args!(
        "tsc {} Hz, bars {:#x} to {:#x}, image {:#x} to {:#x}",
        machine.tsc_hz(),
        bars.start,
        bars.end,
        boot::image().start,
        boot::image().end
    ));
    for device in 0..32 {
        let id = machine.config_read(Bdf { bus: 0, device, function: 0 }, 0);
        if id != u32::MAX {
            console::line(format_args!("00:{device:02x}.0 {:04x}:{:04x}", id & 0xffff, id >> 16));
        }
    }
    machine.phase(Phase::WarmUp);
    machine.phase(Phase::Measure);
    machine.phase(Phase::Done);
    passed(true)
}

/// Allocates until there is no more, and uses all of it.
fn memory(machine: &Machine) -> Outcome {
    const LEN: usize = 1 << 20;
    let mut ok = true;
    let mut allocated = 0u64;
    let mut previous = None;
    while let Some(region) = machine.allocate(LEN) {
        ok &= region.read64(0) == 0 && region.read64(LEN - 8) == 0;
        region.fill_pattern(0, LEN, allocated, 1);
        ok &= region.matches_pattern(0, LEN, allocated, 1);
        let address = region.physical(0);
        ok &= address % 4096 == 0 && previous.is_none_or(|previous| address > previous);
        previous = Some(address);
        allocated += 1;
    }
    console::line(format_args!("{allocated} MiB"));
    passed(ok && allocated != 0)
}

/// Waits for an interrupt that never comes.
fn sleep(machine: &Machine) -> Outcome {
    let start = machine.tsc();
    machine.wait_for_interrupt(0, 0);
    let waited = machine.tsc() - start;
    // Nothing about the upper bound can be asserted on a busy host.
    passed(waited >= machine.tsc_hz() && machine.interrupts_taken(0) == 0)
}

/// Raises interrupt `index` by its own message, through the local APIC's command register.
fn raise(machine: &Machine, index: u8) {
    const COMMAND_LOW: u64 = 0xfee0_0300;
    const SELF: u32 = 0b01 << 18;
    machine.write32(COMMAND_LOW, SELF | machine.interrupt_message(index).data);
}

/// Raises each interrupt by its own message.
fn interrupt(machine: &Machine) -> Outcome {
    let mut ok = true;
    for index in 0..DEVICE_VECTORS {
        for round in 0..3 {
            ok &= machine.interrupts_taken(index) == round;
            raise(machine, index);
            machine.wait_for_interrupt(index, round);
            ok &= machine.interrupts_taken(index) == round + 1;
        }
    }
    passed(ok)
}

/// Raises an interrupt by the pin of a device with two registers, as QEMU's `edu` has them: what is
/// written to the one asserts the pin, and to the other takes that back.
fn pin(machine: &Machine) -> Result<Outcome, Error> {
    const VENDOR: u16 = 0x1234;
    const RAISE: u64 = 0x60;
    const ACKNOWLEDGE: u64 = 0x64;
    const INDEX: u8 = 3;
    const OTHER: u8 = 2;
    let function = pci::functions(machine)
        .find(|function| function.vendor() == VENDOR)
        .ok_or(Error::NotFound)?;
    function.enable()?;
    let bar = function.bar(0)?;
    let registers = Window::new(machine, bar.address, bar.size);
    pci::route_pin(function, INDEX)?;
    let mut ok = !machine.connect_pin(function.bdf(), 16);
    for round in 0..3 {
        let taken = 2 * round;
        ok &= machine.interrupts_taken(INDEX) == taken;
        registers.write32(RAISE, 1);
        machine.wait_for_interrupt(INDEX, taken);
        ok &= machine.interrupts_taken(INDEX) == taken + 1;
        // While it is being handled it does not come again, but messages do, and the timer: it ends
        // this wait.
        raise(machine, OTHER);
        machine.wait_for_interrupt(OTHER, round);
        ok &= machine.interrupts_taken(OTHER) == round + 1;
        if round == 0 {
            machine.wait_for_interrupt(OTHER, round + 1);
        }
        ok &= machine.interrupts_taken(INDEX) == taken + 1;
        // It is still asserted.
        machine.end_of_interrupt(INDEX);
        machine.wait_for_interrupt(INDEX, taken + 1);
        ok &= machine.interrupts_taken(INDEX) == taken + 2;
        registers.write32(ACKNOWLEDGE, 1);
        machine.end_of_interrupt(INDEX);
    }
    raise(machine, OTHER);
    machine.wait_for_interrupt(OTHER, 3);
    ok &= machine.interrupts_taken(INDEX) == 6;
    Ok(passed(ok))
}

fn exception() -> Outcome {
    // SAFETY: it does not come back.
    unsafe { core::arch::asm!("ud2", options(noreturn)) }
}
