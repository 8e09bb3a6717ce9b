//! With workers on threads: no wake-up is lost.

use std::time::{Duration, Instant};

use paraslot_device::{ThreadExecutor, ThreadOptions};

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
        let mut machine = Machine { ahci, memory, executor: ManualExecutor::new(), interrupts };
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
        assert_eq!(machine.get(port::CMD), 6);
        drop(machine);
    }
}
