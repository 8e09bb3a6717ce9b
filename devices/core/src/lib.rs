//! What every device model stands on.
//!
//! A device gets all it needs from its host as values: guest memory ([`dma`]), interrupts
//! ([`interrupt`]), and someone to run its queues ([`worker`]). It starts no thread and does no
//! blocking I/O of its own accord; register accesses and [`worker::Worker::service`] move a state
//! machine, and backends complete later. The same model can thus be stepped by hand in a test, run
//! by a fuzzer without threads, or run on threads of its own in production.

pub mod bell;
pub mod clock;
pub mod dma;
pub mod doorbell;
pub mod executor;
pub mod interrupt;
pub mod page;
pub mod register;
pub mod runner;
pub mod state;
pub mod worker;

use std::sync::Arc;

pub use bell::Bell;
pub use clock::{Clock, ManualClock, SystemClock, Timer};
pub use dma::{BusMaster, Dma, DmaBuffers, DmaError, DmaSpace, Memory};
pub use doorbell::Doorbell;
pub use executor::{ManualExecutor, ThreadExecutor, ThreadOptions};
pub use interrupt::{Interrupt, IntxEventFds, IntxLine, MsiMessage, MsiSink};
pub use page::{HostPages, SharedPage};
pub use runner::Runner;
pub use state::{SavedState, StateError};
pub use worker::{Executor, Progress, Source, Sources, Worker, WorkerHandle};

/// What a host gives a device when it constructs it.
#[derive(Clone)]
pub struct Host<A> {
    /// Guest memory, not yet gated by bus mastering; the device's configuration space adds the gate.
    pub memory: A,
    /// Where the device's MSI and MSI-X messages go.
    pub msi: Arc<dyn MsiSink>,
    /// The function's INTx pin.
    pub intx: Arc<dyn IntxLine>,
    /// Who runs the device's workers.
    pub executor: Arc<dyn Executor>,
}

/// Why a device could not do what its host asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// A worker could not be started.
    #[error("cannot start a worker: {0}")]
    Worker(#[source] std::io::Error),
    /// Requests in flight did not finish in the time allowed.
    #[error("requests still in flight after {0:?}")]
    Busy(std::time::Duration),
    /// The device was configured in a way it cannot serve.
    #[error("{0}")]
    Config(String),
    /// A backend could not be opened for a queue.
    #[error("backend: {0}")]
    Backend(#[source] std::io::Error),
}
