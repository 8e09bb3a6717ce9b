//! Devices that lie, in their registers and in memory: jobs end, one way or another.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use paraslot_drivers::{Bdf, DmaRegion, MsiMessage, Platform};
use paraslot_protocol::{Access, Completion, DiskJob, Phase, Status};
use paraslot_tests::jobs::run;
use paraslot_vmm::in_process::InProcess;

use crate::machine::*;
use crate::place::{Place, in_both_places};

/// A machine whose device lies now and then: what is read from its registers, and what it has written
/// to memory.
pub(crate) struct Lying {
    machine: InProcess,
    regions: RefCell<Vec<DmaRegion>>,
    random: Cell<u64>,
    /// One in this many register reads is a lie.
    registers: u64,
    /// At one in this many looks something is written to memory.
    memory: u64,
}

impl Lying {
    /// A machine of which one in `registers` and one in `memory` are lies, the same for each `seed`.
    pub(crate) fn new(machine: InProcess, seed: u64, registers: u64, memory: u64) -> Self {
        let (regions, random) = (RefCell::default(), Cell::new(seed << 20 | 1));
        Self { machine, regions, random, registers, memory }
    }

    /// A number below `bound`.
    fn below(&self, bound: u64) -> u64 {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 16) % bound
    }

    fn lie(&self, truth: u32) -> u32 {
        if self.below(self.registers) != 0 {
            return truth;
        }
        match self.below(4) {
            0 => 0,
            1 => u32::MAX,
            2 => truth ^ 1 << self.below(32),
            _ => u32::try_from(self.below(1 << 32)).unwrap(),
        }
    }

    fn scribble(&self) {
        if self.below(self.memory) != 0 {
            return;
        }
        let regions = self.regions.borrow();
        let Some(region) = regions.get(usize::try_from(self.below(4)).unwrap()) else { return };
        let at = self.below(region.len() as u64 / 2) * 2;
        let value = u16::try_from(self.below(1 << 16)).unwrap();
        region.write16(
            usize::try_from(at).unwrap(),
            if value & 1 == 0 { value } else { value & 0xff },
        );
    }
}

impl Platform for Lying {
    fn config_read(&self, function: Bdf, offset: u16) -> u32 {
        self.lie(self.machine.config_read(function, offset))
    }
    fn config_write(&self, function: Bdf, offset: u16, value: u32) {
        self.machine.config_write(function, offset, value);
    }
    fn read8(&self, address: u64) -> u8 {
        self.lie(self.machine.read8(address).into()).to_le_bytes()[0]
    }
    fn read16(&self, address: u64) -> u16 {
        let [low, high, ..] = self.lie(self.machine.read16(address).into()).to_le_bytes();
        u16::from_le_bytes([low, high])
    }
    fn read32(&self, address: u64) -> u32 {
        self.lie(self.machine.read32(address))
    }
    fn write8(&self, address: u64, value: u8) {
        self.machine.write8(address, value);
    }
    fn write16(&self, address: u64, value: u16) {
        self.machine.write16(address, value);
    }
    fn write32(&self, address: u64, value: u32) {
        self.machine.write32(address, value);
    }
    fn bar_space(&self) -> Range<u64> {
        self.machine.bar_space()
    }
    fn allocate(&self, len: usize) -> Option<DmaRegion> {
        let region = self.machine.allocate(len)?;
        self.regions.borrow_mut().push(region.clone());
        Some(region)
    }
    fn tsc(&self) -> u64 {
        self.machine.tsc()
    }
    fn tsc_hz(&self) -> u64 {
        self.machine.tsc_hz()
    }
    fn relax(&self) {
        self.machine.relax();
        self.scribble();
    }
    fn interrupt_message(&self, index: u8) -> MsiMessage {
        self.machine.interrupt_message(index)
    }
    fn interrupts_taken(&self, index: u8) -> u64 {
        self.machine.interrupts_taken(index)
    }
    fn wait_for_interrupt(&self, index: u8, seen: u64) {
        self.machine.wait_for_interrupt(index, seen);
        self.scribble();
    }
    fn phase(&self, phase: Phase) {
        self.machine.phase(phase);
    }
}

fn outcomes(place: Place, registers: u64, memory: u64) -> Vec<Status> {
    let mut all = Vec::new();
    for seed in place.some(1..=60_u64) {
        for device in DISKS {
            let lying =
                Lying::new(plugged(device, &place.stepped(), image()), seed, registers, memory);
            let even = seed % 2 == 0;
            let job = DiskJob {
                device,
                access: if seed % 4 < 2 { Access::RandomRead } else { Access::RandomWrite },
                completion: if even { Completion::Poll } else { Completion::Interrupt },
                block_size: 4096,
                depth: 16,
                span: CAPACITY,
                warm_up_ms: 0,
                measure_ms: 1000,
                operations: 400,
                verify: true,
                seed,
                tsc_hz: 0,
            };
            all.push(run(&lying, job).status());
        }
    }
    all
}

pub(crate) fn has(outcomes: &[Status], status: Status) -> bool {
    outcomes.contains(&status)
}

// No panic, no endless loop: each job ends, and the lies do show.
fn lying_registers_do_no_harm(place: Place) {
    let often = outcomes(place, 5, u64::MAX);
    assert!(has(&often, Status::NoDevice) && !has(&often, Status::Crashed));
    let seldom = outcomes(place, 150, u64::MAX);
    assert!(has(&seldom, Status::Ok) && has(&seldom, Status::NoDevice));
}

fn memory_written_at_random_does_no_harm(place: Place) {
    let outcomes = outcomes(place, u64::MAX, 2);
    let bad = outcomes.iter().filter(|status| **status != Status::Ok).count();
    assert!(bad > 5 && has(&outcomes, Status::Corrupt), "{outcomes:?}");
    assert!(!has(&outcomes, Status::Crashed));
}

in_both_places! {
    lying_registers_do_no_harm,
    memory_written_at_random_does_no_harm,
}
