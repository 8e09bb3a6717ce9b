use paraslot_spec::ahci::{Ghc, PortCommand, Prd, host, port, sctl};
use paraslot_spec::ata::command;
use paraslot_tests::bench::Bench;

use super::{SEEDS, Watch, backend, bus_master};
use crate::ahci::{BUSY, ERROR, Issued, MEMORY, Sata, data_at, sectors};
use crate::support::{Random, image_byte};

#[derive(Clone, Copy, Debug)]
enum Ending {
    PortStop,
    Comreset,
    HbaReset,
    HostReset,
    Pause,
    BusMasterOff,
    Drop,
}

const ENDINGS: [Ending; 7] = [
    Ending::PortStop,
    Ending::Comreset,
    Ending::HbaReset,
    Ending::HostReset,
    Ending::Pause,
    Ending::BusMasterOff,
    Ending::Drop,
];

/// Stops the port and starts it again (6.2.2), once it has stopped.
fn restart(guest: &mut Sata, watch: &Watch, random: &mut Random) {
    guest.set(port::CMD, PortCommand::FRE.bits());
    watch.until(random, || guest.get(port::CMD) & PortCommand::CR.bits() == 0);
    guest.set(port::SERR, u32::MAX);
    guest.set(port::IS, u32::MAX);
    guest.set(port::CMD, (PortCommand::FRE | PortCommand::ST).bits());
}

/// The device works: a read succeeds, though one operation in 16 does not.
fn reads_well(guest: &mut Sata, watch: &Watch, random: &mut Random) {
    watch.hold.gate.open();
    for _ in 0..20 {
        let fis = sectors(command::READ_DMA_EXT, 0, 3, 1);
        guest.prepare(0, &fis, &[Prd::new(data_at(0), 512)]);
        guest.issue(1, false);
        assert!(watch.executor.run(1000));
        if guest.get(port::TFD) & (BUSY | ERROR) == 0 {
            assert_eq!(guest.get(port::CI), 0);
            let mut data = [0; 512];
            guest.bench.peek(data_at(0), &mut data);
            assert!((3 * 512..).zip(data).all(|(at, byte)| byte == image_byte(at)));
            return;
        }
        restart(guest, watch, random);
        // After a queued command has failed its log is to be read before anything else (ACS-4).
        guest.prepare(0, &sectors(command::READ_LOG_EXT, 0, 0x10, 1), &[Prd::new(data_at(0), 512)]);
        guest.issue(1, false);
        assert!(watch.executor.run(1000));
    }
    let (command, task) = (guest.get(port::CMD), guest.get(port::TFD));
    panic!("{}: no read succeeds: {command:#x} {task:#x}", watch.what);
}

fn run(seed: u64, ending: Ending) {
    let mut random = Random::new(seed);
    let (backend, hold) = backend(seed);
    let mut guest = Sata::new(backend);
    let watch = Watch::new(&guest.bench, hold, MEMORY, format!("{ending:?}, seed {seed}"));
    let queued = random.one_in(2);
    let mut issued: Vec<Issued> = Vec::new();
    for _ in 0..random.below(40) {
        let busy = guest.get(port::CI) | guest.get(port::SACT);
        issued.retain(|issued| busy & (1 << issued.slot) != 0);
        match random.below(5) {
            0 | 1 if issued.len() < 8 => {
                let slot = (!busy).trailing_zeros();
                issued.push(guest.any_command(slot, queued, &mut random));
            }
            2 => watch.hold.gate.release(1),
            _ => watch.step(),
        }
    }
    // A command that failed holds the others back, and a reset must cope with that, too.
    let failed = guest.get(port::TFD) & ERROR != 0;
    let stopped = |guest: &mut Sata| guest.get(port::CMD) & PortCommand::CR.bits() == 0;
    match ending {
        Ending::PortStop => {
            guest.set(port::CMD, PortCommand::FRE.bits());
            watch.until(&mut random, || stopped(&mut guest));
        }
        Ending::Comreset => {
            if random.one_in(2) {
                guest.set(port::CMD, PortCommand::FRE.bits());
            }
            guest.set(port::SCTL, 0x300 | sctl::DET_COMRESET);
            watch.step();
            guest.set(port::SCTL, 0x300);
            assert_ne!(guest.get(port::TFD) & BUSY, 0);
            watch.until(&mut random, || guest.get(port::TFD) & BUSY == 0);
        }
        Ending::HbaReset => {
            guest.write(host::GHC, (Ghc::AE | Ghc::HR).bits());
            watch.until(&mut random, || guest.read(host::GHC) & Ghc::HR.bits() == 0);
        }
        Ending::HostReset => {
            let back = watch.let_go(&mut random);
            guest.bench.device.reset();
            assert!(!back || watch.hold.in_flight() == 0, "it waits for what comes back");
            watch.hold.release_every(0);
            watch.until(&mut random, || watch.hold.in_flight() == 0);
        }
        Ending::Pause => watch.pause(&mut *guest.bench.device, &mut random),
        Ending::BusMasterOff => {
            watch.bus_master_off(&mut *guest.bench.device, &data_of(&issued));
        }
        Ending::Drop => {
            let Sata { bench: Bench { device, .. } } = guest;
            drop(device);
            watch.only_data(&data_of(&issued));
            watch.until(&mut random, || watch.executor.is_empty());
            return watch.quiet();
        }
    }
    // Something to be tempted by. A port that is stopped takes none of it.
    match ending {
        Ending::Comreset => {}
        Ending::Pause | Ending::BusMasterOff => {
            let busy = guest.get(port::CI) | guest.get(port::SACT);
            guest.any_command((!busy).trailing_zeros(), queued, &mut random);
        }
        _ => guest.issue(u32::MAX, true),
    }
    watch.quiet();
    match ending {
        Ending::Pause => guest.bench.device.resume().expect("it can go on"),
        Ending::BusMasterOff => bus_master(&mut *guest.bench.device, true),
        Ending::PortStop | Ending::Comreset => {
            restart(&mut guest, &watch, &mut random);
            return reads_well(&mut guest, &watch, &mut random);
        }
        _ => {
            guest.start();
            return reads_well(&mut guest, &watch, &mut random);
        }
    }
    // What was issued ends after all, unless a command fails.
    watch.hold.gate.open();
    assert!(watch.executor.run(1000));
    let failed = failed || guest.get(port::TFD) & ERROR != 0;
    assert!(failed || guest.get(port::CI) == 0, "{}: commands were lost", watch.what);
    restart(&mut guest, &watch, &mut random);
    reads_well(&mut guest, &watch, &mut random);
}

/// Where the data of the reads among `issued` goes.
fn data_of(issued: &[Issued]) -> Vec<(u64, u32)> {
    let reads = issued.iter().filter(|issued| issued.reads());
    reads.flat_map(|issued| issued.data.clone()).collect()
}

#[test]
fn ahci_is_quiet_after_everything_that_ends_its_work() {
    for seed in 0..SEEDS {
        run(seed, ENDINGS[usize::try_from(seed % 7).expect("small")]);
    }
}
