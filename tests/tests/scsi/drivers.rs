//! By the drivers of virtio-scsi and pvscsi, over the devices.

use std::sync::Arc;
use std::time::Duration;

use paraslot_drivers::scsi::{self as driver, Outcome};
use paraslot_drivers::{DmaRegion, Error, Platform, pvscsi, virtio_scsi};
use paraslot_pci::Bdf;
use paraslot_scsi::{Address, Bus, LogicalUnit, Sense, Status};
use paraslot_virtio_pci::VirtioPci;
use paraslot_vmm::in_process::{InProcess, Machine, Run};

use crate::initiator::{Data, End, Ended, Initiator};
use crate::ways::{Way, bus};
use crate::world::{CANARY, GUARD, MEMORY, disk, image};

/// Where the adapter is plugged in.
const SLOT: Bdf = Bdf::root(3);
/// Commands in flight.
pub(crate) const DEPTH: u16 = 16;

/// What the drivers have in common.
pub(crate) trait Adapter<'p>: Sized {
    /// Plugs the device in.
    fn plug(machine: &InProcess, bus: Bus);

    /// Sets the driver up.
    fn start(machine: &'p InProcess) -> Self;

    /// Has a command carried out.
    fn execute(
        &mut self,
        address: driver::Address,
        cdb: &driver::Cdb,
        data: driver::Data<'_>,
    ) -> Result<driver::Ended, Error>;
}

impl<'p> Adapter<'p> for virtio_scsi::VirtioScsi<'p, InProcess> {
    fn plug(machine: &InProcess, bus: Bus) {
        let options = paraslot_virtio_scsi::Options::default();
        let device = paraslot_virtio_scsi::VirtioScsi::new(bus, &options).expect("a device");
        let function = VirtioPci::new(device, machine.host(SLOT)).expect("a function");
        machine.plug(SLOT, function).expect("a free slot");
    }

    fn start(machine: &'p InProcess) -> Self {
        Self::new(machine, virtio_scsi::Options::new(DEPTH)).expect("a disk at target 0")
    }

    fn execute(
        &mut self,
        address: driver::Address,
        cdb: &driver::Cdb,
        data: driver::Data<'_>,
    ) -> Result<driver::Ended, Error> {
        self.execute(address, cdb, data)
    }
}

impl<'p> Adapter<'p> for pvscsi::Pvscsi<'p, InProcess> {
    fn plug(machine: &InProcess, bus: Bus) {
        // Nobody else runs the worker while a register is written, so more patience would not help.
        let patience = Duration::from_millis(5);
        let options = paraslot_pvscsi::Options { patience, ..Default::default() };
        let device = paraslot_pvscsi::Pvscsi::new(bus, options, machine.host(SLOT));
        machine.plug(SLOT, device.expect("a device")).expect("a free slot");
    }

    fn start(machine: &'p InProcess) -> Self {
        Self::new(machine, pvscsi::Options::new(DEPTH)).expect("a disk at target 0")
    }

    fn execute(
        &mut self,
        address: driver::Address,
        cdb: &driver::Cdb,
        data: driver::Data<'_>,
    ) -> Result<driver::Ended, Error> {
        self.execute(address, cdb, data)
    }
}

/// An adapter, and memory for the data of commands.
pub(crate) struct Driven<'p, A> {
    pub(crate) adapter: A,
    pub(crate) machine: &'p InProcess,
    bus: Bus,
    pub(crate) memory: DmaRegion,
}

impl<'p, A: Adapter<'p>> Driven<'p, A> {
    pub(crate) fn new(machine: &'p InProcess, bus: Bus) -> Self {
        let memory = machine.allocate(MEMORY).expect("memory");
        Self { adapter: A::start(machine), machine, bus, memory }
    }
}

/// A machine whose adapter sees the bus.
pub(crate) fn machine<'p, A: Adapter<'p>>(bus: &Bus) -> InProcess {
    if bus.unit(Address::default()).is_none() {
        bus.attach(Address::default(), disk(image())).expect("a free place");
    }
    let machine = InProcess::new(&Machine::new(4 * MEMORY, Run::Stepped(None))).expect("memory");
    A::plug(&machine, bus.clone());
    machine
}

fn status(code: u8) -> Status {
    let all = [
        Status::Good,
        Status::CheckCondition,
        Status::ConditionMet,
        Status::Busy,
        Status::ReservationConflict,
        Status::TaskSetFull,
        Status::AcaActive,
        Status::TaskAborted,
    ];
    all.into_iter().find(|status| *status as u8 == code).expect("a status of SAM-5")
}

impl<'p, A: Adapter<'p>> Initiator for Driven<'p, A> {
    fn execute(&mut self, address: Address, cdb: &[u8], data: Data<'_>) -> Ended {
        // A command cannot have a buffer of no bytes, but none.
        let (len, into, region) = match data {
            Data::None | Data::In(0) | Data::Out([]) => (0, false, None),
            Data::In(len) => {
                self.memory.write_bytes(0, &vec![CANARY; len + GUARD]);
                (len, true, Some(self.memory.part(0, len)))
            }
            Data::Out(bytes) => {
                self.memory.write_bytes(0, bytes);
                (bytes.len(), false, Some(self.memory.part(0, bytes.len())))
            }
        };
        let place = match &region {
            None => driver::Data::None,
            Some(region) if into => driver::Data::In(region),
            Some(region) => driver::Data::Out(region),
        };
        let Address { target, lun } = address;
        let cdb = driver::Cdb::new(cdb).expect("a command of 1 to 16 bytes");
        let ended = self.adapter.execute(driver::Address { target, lun }, &cdb, place);
        let driver::Ended { outcome, moved } = ended.expect("a driver and a device in accord");
        let moved = usize::try_from(moved).expect("small");
        assert!(moved <= len);
        let end = match outcome {
            Outcome::Status(code) => End::Status(status(code)),
            Outcome::Check(sense) => {
                let sense = sense.expect("sense data that can be read");
                assert!(!sense.deferred);
                let (asc, ascq) = sense.code;
                let driver::Sense { key, information, specific, .. } = sense;
                End::Check(Sense { key, asc, ascq, information, specific })
            }
            Outcome::Absent => End::Absent,
            Outcome::Aborted => End::Aborted,
            Outcome::Failed => End::Overrun,
            Outcome::Busy => panic!("the device is not busy with one command"),
        };
        let mut bytes = Vec::new();
        if into {
            bytes.resize(len + GUARD, 0);
            self.memory.read_bytes(0, &mut bytes);
            let good = matches!(end, End::Status(_));
            let beyond = if good { moved } else { len };
            assert!(bytes[beyond..].iter().all(|byte| *byte == CANARY), "{cdb:02x?}: beyond");
        }
        bytes.truncate(moved);
        Ended { end, moved, data: bytes }
    }

    fn work(&mut self) {
        self.machine.settle();
    }

    fn bus(&self) -> Option<&Bus> {
        Some(&self.bus)
    }
}

macro_rules! way {
    ($(#[$doc:meta])* $name:ident, $driver:ty) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl Way for $name {
            fn with<const N: usize>(
                units: &[(Address, Arc<LogicalUnit>)],
                test: impl FnOnce([&mut dyn Initiator; N]),
            ) {
                let machines: [(InProcess, Bus); N] = std::array::from_fn(|index| {
                    let bus = bus(index, units);
                    (machine::<$driver>(&bus), bus)
                });
                let mut these = machines
                    .each_ref()
                    .map(|(machine, bus)| Driven::<'_, $driver>::new(machine, bus.clone()));
                // A driver that starts resets what it sees, of which the others' devices hear.
                these.iter_mut().for_each(Initiator::work);
                test(these.each_mut().map(|one| one as &mut dyn Initiator));
            }
        }
    };
}

way!(
    /// By virtio-scsi over PCI.
    ByVirtioScsi,
    virtio_scsi::VirtioScsi<'_, InProcess>
);
way!(
    /// By pvscsi.
    ByPvscsi,
    pvscsi::Pvscsi<'_, InProcess>
);
