//! A machine that stands still, as a directory.

use std::path;

use super::Vm;
use crate::snapshot::{
    self, BoardState, CpuState, MachineState, Processor, Snapshot, SnapshotError,
};
use crate::{VmError, probe};

impl Vm {
    /// Saves the machine between two runs, that is, before the first, or after one that was suspended or
    /// timed out. `directory` is made if need be, and must not have a snapshot; only this user may read
    /// it. A machine that has been saved stays as it is until it is run again, its devices included: they
    /// touch neither memory nor what is behind them.
    ///
    /// # Errors
    /// [`VmError::Snapshot`] when a function cannot be paused or saved, or the files cannot be written;
    /// others when KVM refuses. The machine can go on then.
    pub fn save(&mut self, directory: &path::Path) -> Result<(), VmError> {
        let cpu = &mut self.vcpu_mut()?.cpu;
        cpu.finish_instruction()?;
        let bus = cpu.bus.clone();
        snapshot::save(directory, &self.memory, &bus, || self.gather())
    }

    fn gather(&self) -> Result<MachineState, VmError> {
        self.interrupts.flush()?;
        let kvm = probe::open()?;
        let cpu = &self.vcpu.as_ref().ok_or(VmError::Poisoned)?.cpu;
        Ok(MachineState {
            version: snapshot::VERSION,
            memory_bytes: snapshot::memory_bytes(&self.memory),
            bus: cpu.bus.save()?,
            board: BoardState::Measuring(self.ports.save()),
            clock: snapshot::read_clock(&self.vm)?,
            processor: Processor::new(&self.leaves, &cpu.fd),
            cpus: vec![CpuState::save(&kvm, &self.vm, &cpu.fd)?],
            chips: snapshot::save_chips(&self.vm)?,
        })
    }

    /// Has a machine that was just made, and has its functions, be as the one that was saved. Functions
    /// of the same kind and options are to be in the same places, over what the others were over: the
    /// same disks, as they were left. The [`Path`](crate::Path) may be another. The next run goes on.
    ///
    /// The guest does not see the time that has passed.
    ///
    /// # Errors
    /// [`VmError::Snapshot`] when the snapshot is not of such a machine, or of none; others when KVM does
    /// not take it. The machine is then of no use any more.
    pub fn restore(&mut self, snapshot: &Snapshot) -> Result<(), VmError> {
        let state = &snapshot.state;
        let ([saved], BoardState::Measuring(ports)) = (&state.cpus[..], &state.board) else {
            return Err(SnapshotError::mismatch("it is of another kind of machine").into());
        };
        snapshot::check_processor(&state.processor, &self.leaves)?;
        let cpu = &self.vcpu.as_ref().ok_or(VmError::Poisoned)?.cpu;
        cpu.bus.check(&state.bus)?;
        cpu.bus.pause()?;
        snapshot.restore_memory(&self.memory)?;
        state.processor.set_frequency(&cpu.fd)?;
        saved.restore(&probe::open()?, &self.vm, &cpu.fd, true)?;
        snapshot::restore_clock(&self.vm, state.clock)?;
        snapshot::restore_chips(&self.vm, &state.chips)?;
        self.ports.restore(ports)?;
        cpu.bus.restore(&state.bus)?;
        self.interrupts.set_pins()
    }
}
