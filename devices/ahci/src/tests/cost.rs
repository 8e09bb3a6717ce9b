//! What a driver like Linux's pays: its register accesses, counted, with the reads served by the
//! page that the host maps over ABAR.

use std::cell::Cell;

use super::*;

struct Driver {
    machine: Machine,
    page: Arc<SharedPage>,
    exits: Cell<u32>,
}

impl Driver {
    fn read(&self, offset: u32) -> u32 {
        self.page.words()[offset as usize / 4].load(Ordering::Acquire)
    }

    fn write(&mut self, offset: u32, value: u32) {
        self.exits.set(self.exits.get() + 1);
        self.machine.write(offset, value);
    }

    fn issue(&mut self, tag: u32) {
        let at = port_base(0);
        self.write(at + port::SACT, 1 << tag);
        self.write(at + port::CI, 1 << tag);
    }

    /// The interrupt handler; returns the tags that are still active.
    fn interrupt(&mut self) -> u32 {
        let at = port_base(0);
        let pending = self.read(host::IS);
        assert_eq!(pending, 1);
        let causes = self.read(at + port::IS);
        self.write(at + port::IS, causes);
        assert_eq!(causes, PortInterrupt::SDBS.bits());
        let active = self.read(at + port::SACT);
        self.write(host::IS, pending);
        active
    }
}

fn driver() -> Driver {
    let machine = Machine::with_msi(numbered());
    let page = machine.ahci.layout().windows[0].page.clone();
    Driver { machine, page, exits: Cell::new(0) }
}

#[test]
fn a_queued_command_at_depth_1_costs_four_writes_and_one_interrupt() {
    let mut driver = driver();
    for round in 0..10 {
        let tag = round % 32;
        let fis = queued(command::READ_FPDMA_QUEUED, tag, u64::from(round), 1);
        driver.machine.prepare(tag, &fis, &[Prd::new(data_at(tag), 512)], 0);
        driver.issue(tag);
        driver.machine.run();
        assert_eq!(driver.machine.interrupts.messages(), round as usize + 1);
        assert_eq!(driver.interrupt(), 0);
        assert_eq!(driver.exits.take(), 4);
    }
}

#[test]
fn a_batch_of_32_shares_its_interrupt() {
    let mut driver = driver();
    for tag in 0..32 {
        let fis = queued(command::READ_FPDMA_QUEUED, tag, u64::from(tag), 1);
        driver.machine.prepare(tag, &fis, &[Prd::new(data_at(tag), 512)], 0);
        driver.issue(tag);
    }
    driver.machine.run();
    assert_eq!(driver.interrupt(), 0);
    assert_eq!((driver.machine.interrupts.messages(), driver.exits.get()), (1, 2 * 32 + 2));
}
