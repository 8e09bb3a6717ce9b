//! The freestanding guest: boots by PVH, runs one job, reports, and ends.
//!
//! Everything here runs at CPL 3 with all memory mapped at its physical address; `boot.s` sees to
//! that. There is one CPU and one thread.
#![no_std]
#![no_main]

mod boot;
mod checks;
mod clock;
mod console;
mod interrupts;
mod libc;
mod machine;
mod memory;
mod pci;
mod port;
mod start_info;

use core::fmt::Write;

use paraslot_drivers::workload;
use paraslot_protocol::{Job, Outcome, Status};

use console::Text;
use machine::Machine;
use start_info::StartInfo;

/// Entered from `boot.s` with the address of PVH's start info.
#[unsafe(no_mangle)]
extern "C" fn main(start_info: u32) -> ! {
    // SAFETY: the address is the loader's, and nothing has been written to memory yet.
    let outcome = match unsafe { StartInfo::read(start_info) } {
        Some(info) => run(&info),
        None => {
            console::line(format_args!("the loader gave no PVH start info"));
            Outcome::failed(Status::BadJob)
        }
    };
    finish(&outcome)
}

fn run(info: &StartInfo) -> Outcome {
    let text = info.command_line();
    if let Some(check) = checks::named(text) {
        return checks::run(check, &Machine::new(info, 0));
    }
    let job: Job = match text.parse() {
        Ok(job) => job,
        Err(error) => {
            console::line(format_args!("{error}"));
            return Outcome::failed(Status::BadJob);
        }
    };
    let machine = Machine::new(info, job.tsc_hz());
    let mut outcome = Outcome::default();
    if let Err(failure) = workload::run_into(&machine, job, &mut outcome) {
        console::line(format_args!("{failure}"));
    }
    outcome
}

fn finish(outcome: &Outcome) -> ! {
    console::outcome(outcome);
    exit(outcome.status())
}

fn exit(status: Status) -> ! {
    loop {
        port::write32(paraslot_protocol::port::EXIT, status as u32);
    }
}

/// Reports that the guest itself failed, and ends it. A failure on the way there ends it at once.
fn crash(reason: core::fmt::Arguments<'_>) -> ! {
    use core::sync::atomic::{AtomicBool, Ordering};
    static CRASHED: AtomicBool = AtomicBool::new(false);
    if CRASHED.swap(true, Ordering::Relaxed) {
        exit(Status::Crashed);
    }
    console::line(reason);
    finish(&Outcome::failed(Status::Crashed))
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    let mut text = Text::new();
    // Text that does not fit is cut.
    let _ = write!(text, "{}", info.message());
    match info.location() {
        Some(at) => crash(format_args!("{}:{}: {}", at.file(), at.line(), text.as_str())),
        None => crash(format_args!("{}", text.as_str())),
    }
}
