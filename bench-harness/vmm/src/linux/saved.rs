//! A machine that stands still, as a directory.

use std::path;

use vmm_sys_util::eventfd::EventFd;

use super::LinuxVm;
use crate::chipset::{COM1_GSI, ChipsetState, EVENTS_GSI};
use crate::snapshot::{
    self, BoardState, CpuState, MachineState, Processor, Snapshot, SnapshotError,
};
use crate::{VmError, probe};

impl LinuxVm {
    /// Saves the machine between two runs, of which the last was stopped. `directory` is made if need
    /// be, and must not have a snapshot; only this user may read it. A machine that has been saved stays
    /// as it is until it is run again, its devices included: they touch neither memory nor what is behind
    /// them.
    ///
    /// # Errors
    /// [`VmError::Snapshot`] when a function cannot be paused or saved, the guest is a hypervisor itself,
    /// or the files cannot be written; others when KVM refuses. The machine can go on then.
    pub fn save(&mut self, directory: &path::Path) -> Result<(), VmError> {
        self.check_whole()?;
        snapshot::save(directory, &self.shared.memory, &self.shared.bus, || self.gather())
    }

    fn gather(&self) -> Result<MachineState, VmError> {
        let shared = &self.shared;
        shared.interrupts.flush()?;
        for (event, number) in self.own_interrupts() {
            shared.interrupts.flush_event(event, number)?;
        }
        let kvm = probe::open()?;
        let first = &self.cpus.first().ok_or(VmError::Poisoned)?.cpu.fd;
        let cpus = self.cpus.iter().map(|vcpu| CpuState::save(&kvm, &shared.vm, &vcpu.cpu.fd));
        let cpus = cpus.collect::<Result<_, _>>()?;
        let board = ChipsetState {
            serial: shared.serial.save(),
            events: shared.events.save(),
            request: shared.power.save(),
        };
        Ok(MachineState {
            version: snapshot::VERSION,
            memory_bytes: snapshot::memory_bytes(&shared.memory),
            bus: shared.bus.save()?,
            board: BoardState::Linux(board),
            clock: snapshot::read_clock(&shared.vm)?,
            processor: Processor::new(&self.leaves, first),
            cpus,
            chips: snapshot::save_chips(&shared.vm)?,
        })
    }

    fn own_interrupts(&self) -> [(&EventFd, u32); 2] {
        [(self.shared.serial.interrupt(), COM1_GSI), (self.shared.events.interrupt(), EVENTS_GSI)]
    }

    /// Has a machine that was just made, and has its functions, be as the one that was saved: with as
    /// much memory, as many vCPUs, and functions of the same kind and options in the same places, over
    /// what the others were over, such as the same disks, as they were left. The
    /// [`Path`](crate::Path) may be another. The next run goes on.
    ///
    /// The guest does not see the time that has passed: its clocks go on from where they were.
    ///
    /// # Errors
    /// [`VmError::Snapshot`] when the snapshot is not of such a machine, or of none; others when KVM does
    /// not take it. The machine is then of no use any more.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), VmError> {
        self.check_whole()?;
        let (state, shared) = (&snapshot.state, &self.shared);
        let BoardState::Linux(board) = &state.board else {
            return Err(SnapshotError::mismatch("it is of another kind of machine").into());
        };
        let (saved, here) = (state.cpus.len(), self.cpus.len());
        if saved != here {
            let what = format!("it is of a machine with {saved} vCPUs, not {here}");
            return Err(SnapshotError::mismatch(what).into());
        }
        snapshot::check_processor(&state.processor, &self.leaves)?;
        shared.bus.check(&state.bus)?;
        shared.bus.pause()?;
        snapshot.restore_memory(&shared.memory)?;
        let kvm = probe::open()?;
        for (index, (vcpu, saved)) in self.cpus.iter().zip(&state.cpus).enumerate() {
            state.processor.set_frequency(&vcpu.cpu.fd)?;
            saved.restore(&kvm, &shared.vm, &vcpu.cpu.fd, index == 0)?;
        }
        snapshot::restore_clock(&shared.vm, state.clock)?;
        snapshot::restore_chips(&shared.vm, &state.chips)?;
        let ChipsetState { serial, events, request } = board;
        shared.serial.restore(serial)?;
        shared.events.restore(*events);
        shared.power.restore(*request);
        shared.bus.restore(&state.bus)?;
        shared.interrupts.set_pins()
    }
}
