//! With workers on threads: no wake-up is lost.

use std::time::{Duration, Instant};

use paraslot_backends::block::{Engine, FileBackend, FileOptions};
use paraslot_device::{ThreadExecutor, ThreadOptions};
use paraslot_spec::ahci::{ATAPI_COMMAND, SIGNATURE_ATAPI};
use paraslot_spec::ata::packet::features;

use super::packet::{drive, options};
use super::*;

/// Waits for what must come; the limit is there to fail rather than hang.
fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "it did not come");
        std::thread::yield_now();
    }
}

#[test]
fn every_command_completes() {
    for busy_poll in [Duration::ZERO, Duration::from_micros(20)] {
        let options = ThreadOptions { busy_poll, ..ThreadOptions::default() };
        let executor = Arc::new(ThreadExecutor::new("ahci-test", &options).unwrap());
        let (ahci, memory, interrupts) = build(Options::new([disk(numbered())]), executor.clone());
        let mut machine = Machine::around((ahci, memory, interrupts), ManualExecutor::new());
        enable(&mut machine.ahci);
        machine.write(host::GHC, Ghc::IE.bits());
        machine.set(port::CLB, LIST as u32);
        machine.set(port::FB, FIS as u32);
        machine.command_on(PortCommand::FRE);
        wait_until(|| machine.get(port::TFD) == 0x150);
        machine.set(port::SERR, u32::MAX);
        machine.command_on(PortCommand::ST);
        for round in 0..2000u32 {
            let tag = round % 32;
            let fis = queued(command::READ_FPDMA_QUEUED, tag, u64::from(round), 1);
            machine.prepare(tag, &fis, &[Prd::new(data_at(tag), 512)], 0);
            machine.issue_queued(1 << tag);
            wait_until(|| machine.get(port::SACT) == 0);
            let data = machine.bytes(data_at(tag), 4);
            assert_eq!(data, round.to_le_bytes());
            if round % 100 == 0 {
                machine.ahci.pause().unwrap();
                machine.ahci.resume().unwrap();
            }
        }
        machine.ahci.reset();
        assert_eq!(machine.get(port::CMD), 0x4_0006);
        drop(machine);
    }
}

// The disc's completions come by the lane's descriptor, those of the ATA side by none at all; and what
// is aborted half-way is over all the same.
#[test]
fn every_packet_completes() {
    const BLOCKS: u32 = 64;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("disc.iso");
    let contents: Vec<u8> = (0..BLOCKS).flat_map(|block| [block as u8; 2048]).collect();
    std::fs::write(&path, contents).unwrap();
    for busy_poll in [Duration::ZERO, Duration::from_micros(20)] {
        let engine = Engine::Threads;
        let file = FileOptions { read_only: true, engine, ..FileOptions::new(&path) };
        let medium: Arc<dyn BlockBackend> = Arc::new(FileBackend::open(&file).unwrap());
        let unit = drive(Some(medium.clone()));
        let thread_options = ThreadOptions { busy_poll, ..ThreadOptions::default() };
        let executor = Arc::new(ThreadExecutor::new("ahci-test", &thread_options).unwrap());
        let (ahci, memory, interrupts) = build(options(unit.clone()), executor.clone());
        let mut machine = Machine::around((ahci, memory, interrupts), ManualExecutor::new());
        enable(&mut machine.ahci);
        machine.set(port::CLB, LIST as u32);
        machine.set(port::FB, FIS as u32);
        machine.command_on(PortCommand::FRE);
        wait_until(|| machine.get(port::SIG) == SIGNATURE_ATAPI);
        wait_until(|| machine.get(port::TFD) & 0x80 == 0);
        machine.set(port::SERR, u32::MAX);
        machine.command_on(PortCommand::ST);
        let send = |machine: &mut Machine, cdb: &[u8]| {
            let fis =
                RegisterH2d { features: features::DMA, ..RegisterH2d::command(command::PACKET) };
            machine.prepare(0, &fis, &[Prd::new(data_at(0), 2048)], header::ATAPI);
            machine.fill(table_at(0) + ATAPI_COMMAND, &[0; 12]);
            machine.fill(table_at(0) + ATAPI_COMMAND, cdb);
            machine.set(port::CI, 1);
        };
        let stop = |machine: &mut Machine| {
            machine.command_off(PortCommand::ST);
            wait_until(|| !machine.has(PortCommand::CR));
            machine.set(port::IS, u32::MAX);
            machine.command_on(PortCommand::ST);
        };
        // TEST UNIT READY, until there is nothing more that the drive has to tell.
        let ready = |machine: &mut Machine| loop {
            send(machine, &[0]);
            wait_until(|| {
                machine.get(port::CI) == 0 || machine.causes().contains(PortInterrupt::TFES)
            });
            if machine.get(port::CI) == 0 {
                break;
            }
            stop(machine);
        };
        ready(&mut machine);
        for round in 0..500u32 {
            let block = round % BLOCKS;
            send(&mut machine, &[0x28, 0, 0, 0, 0, block as u8, 0, 0, 1]);
            if round % 7 == 0 {
                stop(&mut machine);
                continue;
            }
            wait_until(|| machine.get(port::CI) == 0);
            assert_eq!(machine.bytes(data_at(0), 2048), [block as u8; 2048], "round {round}");
            if round % 100 == 50 {
                machine.ahci.pause().unwrap();
                machine.ahci.resume().unwrap();
            }
            if round % 100 == 0 {
                unit.change_medium(Some(medium.clone())).unwrap();
                ready(&mut machine);
            }
        }
        machine.ahci.reset();
        assert_eq!(machine.get(port::CMD), 0x4_0006);
        drop(machine);
    }
}
