//! The worker that runs the engine.

use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex};

use paraslot_device::{DmaSpace, Progress, Source, Worker};
use vmm_sys_util::eventfd::EventFd;

use crate::engine::{Engine, Extent};
use crate::shared::{Shared, lock};

/// Does one round after the other, while there is something to do.
pub(crate) struct EngineWorker<A: DmaSpace> {
    shared: Arc<Shared>,
    engine: Arc<Mutex<Engine<A>>>,
    /// Rung by a host that turns kicks into writes to an eventfd.
    kick: EventFd,
}

impl<A: DmaSpace> EngineWorker<A> {
    pub(crate) fn new(shared: Arc<Shared>, engine: Arc<Mutex<Engine<A>>>, kick: EventFd) -> Self {
        Self { shared, engine, kick }
    }
}

impl<A: DmaSpace> Worker for EngineWorker<A> {
    fn sources(&self) -> Vec<Source> {
        let kick = Source::Event(self.kick.as_raw_fd());
        vec![self.shared.bell.source(), kick, lock(&self.engine).source()]
    }

    fn service(&mut self) -> Progress {
        self.shared.bell.answer();
        lock(&self.engine).round(Extent::Batch)
    }

    fn prepare_to_wait(&mut self) -> Progress {
        self.shared.bell.sleep_unless(|| lock(&self.engine).prepare_to_wait())
    }

    fn quiesce(&mut self) -> Progress {
        lock(&self.engine).quiesce()
    }
}
