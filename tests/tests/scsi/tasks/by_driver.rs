//! By the drivers.

use paraslot_backends::block::BlockBackend;
use paraslot_drivers::{Completions, Disk, Error, Failed, Op, pvscsi, virtio_scsi};
use paraslot_scsi::Response;
use paraslot_vmm::in_process::InProcess;

use super::{APART, Answer, COMPLETE, Fate, Order, Queues, THERE, Tasks, place};
use crate::drivers::{ByPvscsi, ByVirtioScsi, Driven, machine};
use crate::ways::bus;
use crate::world::{BLOCK, disk};

/// Has a driver carry out a function for its disk.
trait Manage {
    /// See [`Tasks::says_when`].
    const SAYS_WHEN: bool;

    fn manage(&mut self, order: Order) -> Answer;
}

impl Manage for virtio_scsi::VirtioScsi<'_, InProcess> {
    const SAYS_WHEN: bool = true;

    fn manage(&mut self, order: Order) -> Answer {
        use virtio_scsi::Function;
        let function = match order {
            Order::Abort(tag) => Function::AbortTask(tag),
            Order::AbortSet => Function::AbortTaskSet,
            Order::ClearSet => Function::ClearTaskSet,
            Order::ResetUnit => Function::LogicalUnitReset,
            Order::ResetNexus => Function::NexusReset,
            Order::Query(tag) => Function::QueryTask(tag),
            Order::QuerySet => Function::QueryTaskSet,
            Order::ResetBus => return Answer::None,
        };
        match self.manage(function) {
            Ok(virtio_scsi::Response::Complete) => COMPLETE,
            Ok(virtio_scsi::Response::Succeeded) => Answer::Done(Response::Succeeded),
            Err(Error::Timeout(_)) => Answer::Waits,
            other => panic!("{other:?}"),
        }
    }
}

impl Manage for pvscsi::Pvscsi<'_, InProcess> {
    /// A status that no driver looks at would say.
    const SAYS_WHEN: bool = false;

    fn manage(&mut self, order: Order) -> Answer {
        match order {
            Order::Abort(tag) if self.abort(tag).is_err() => return Answer::None,
            Order::Abort(_) => {}
            Order::ResetUnit => self.reset_device(),
            Order::ResetBus => self.reset_bus(),
            _ => return Answer::None,
        }
        // When the register has been written it is over, if all goes well.
        COMPLETE
    }
}

impl<A: Disk + Manage> Tasks for Driven<'_, A> {
    fn begin(&mut self, tag: u16, lba: u32, writes: bool) {
        let region = self.memory.part(place(tag), BLOCK);
        let op = if writes { Op::Write(&region) } else { Op::Read(&region) };
        self.adapter.submit(tag, u64::from(lba) * BLOCK as u64, op).expect("a free tag");
        self.adapter.kick().expect("a device");
        self.machine.settle();
    }

    fn told(&mut self) -> Vec<(u16, Fate)> {
        let mut completions = Completions::new();
        self.adapter.poll(&mut completions).expect("a device that behaves");
        let fate = |result| match result {
            Ok(()) => Fate::Done,
            Err(Failed::Aborted) => Fate::Aborted,
            Err(_) => Fate::Failed,
        };
        completions.as_slice().iter().map(|one| (one.tag, fate(one.result))).collect()
    }

    fn work(&mut self) {
        self.machine.settle();
    }

    fn order(&mut self, order: Order) -> Answer {
        self.adapter.manage(order)
    }

    fn says_when(&self) -> bool {
        A::SAYS_WHEN
    }

    // pvscsi's driver takes a reset to be over when the register write is.
    fn gives_up(&self) -> bool {
        !A::SAYS_WHEN
    }

    fn answer(&mut self) -> Option<Answer> {
        None
    }

    fn memory(&mut self, tag: u16) -> Vec<u8> {
        let mut data = vec![0; APART];
        self.memory.read_bytes(place(tag), &mut data);
        data
    }

    fn fill(&mut self, tag: u16, data: &[u8]) {
        self.memory.write_bytes(place(tag), data);
    }
}

impl Queues for ByVirtioScsi {
    fn with(backend: impl BlockBackend + 'static, test: impl FnOnce(&mut dyn Tasks)) {
        let bus = bus(0, &[(THERE, disk(backend))]);
        let machine = machine::<virtio_scsi::VirtioScsi<'_, InProcess>>(&bus);
        test(&mut Driven::<'_, virtio_scsi::VirtioScsi<'_, InProcess>>::new(&machine, bus));
    }
}

impl Queues for ByPvscsi {
    fn with(backend: impl BlockBackend + 'static, test: impl FnOnce(&mut dyn Tasks)) {
        let bus = bus(0, &[(THERE, disk(backend))]);
        let machine = machine::<pvscsi::Pvscsi<'_, InProcess>>(&bus);
        test(&mut Driven::<'_, pvscsi::Pvscsi<'_, InProcess>>::new(&machine, bus));
    }
}
