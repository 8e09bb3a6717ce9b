//! A device that copies what it reads to where it may write, when it is allowed to finish.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use paraslot_device::dma::Direction;
use paraslot_device::{DeviceError, DmaBuffers, Memory, Progress, Source, Worker};
use paraslot_spec::virtio::feature;
use paraslot_virtio::{DeviceConfig, Queue, Segment, TransportSignals, VirtioDevice};

use super::guest::Space;

/// A feature of the device's own, which it must have.
pub(crate) const NEEDED: u64 = 1 << 0;
/// One that it can do without.
pub(crate) const OPTIONAL: u64 = 1 << 51;
pub(crate) const SIZES: [u16; 2] = [8, 4];
pub(crate) const CONFIG: [u8; 12] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

/// What a test sees and decides of an echo device.
#[derive(Default)]
pub(crate) struct Control {
    /// Requests stay in flight while this is set.
    pub(crate) gate: AtomicBool,
    /// Starting a queue fails while this is set.
    pub(crate) refuse_start: AtomicBool,
    /// Requests that were taken from a queue.
    pub(crate) taken: AtomicUsize,
    /// Requests whose data was written: what a backend does to guest memory.
    pub(crate) finished: AtomicUsize,
    pub(crate) starts: AtomicUsize,
    pub(crate) resets: AtomicUsize,
    /// Requests that were in flight when their worker was dropped.
    pub(crate) lost: AtomicUsize,
    /// Workers alive.
    pub(crate) workers: AtomicUsize,
    pub(crate) accepted: AtomicU64,
    pub(crate) writes: Mutex<Vec<(u64, Vec<u8>)>>,
    pub(crate) signals: Mutex<Option<Arc<dyn TransportSignals>>>,
}

impl Control {
    pub(crate) fn signals(&self) -> Arc<dyn TransportSignals> {
        self.signals.lock().unwrap().clone().unwrap()
    }
}

pub(crate) struct Echo {
    pub(crate) control: Arc<Control>,
    pub(crate) config: Arc<DeviceConfig>,
    pub(crate) device_type: u16,
    pub(crate) features: u64,
    pub(crate) sizes: Vec<u16>,
}

impl Echo {
    pub(crate) fn new() -> Self {
        Self {
            control: Arc::default(),
            config: Arc::new(DeviceConfig::new(&CONFIG)),
            device_type: 2,
            features: NEEDED | OPTIONAL | feature::EVENT_IDX | feature::INDIRECT_DESC,
            sizes: SIZES.to_vec(),
        }
    }
}

impl VirtioDevice<Space> for Echo {
    fn device_type(&self) -> u16 {
        self.device_type
    }

    fn features(&self) -> u64 {
        self.features
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.sizes
    }

    fn config(&self) -> &Arc<DeviceConfig> {
        &self.config
    }

    fn write_config(&mut self, offset: u64, data: &[u8]) {
        self.control.writes.lock().unwrap().push((offset, data.to_vec()));
    }

    fn attach(&mut self, signals: Arc<dyn TransportSignals>) {
        *self.control.signals.lock().unwrap() = Some(signals);
    }

    fn accept_features(&mut self, features: u64) -> bool {
        self.control.accepted.store(features, Ordering::SeqCst);
        features & NEEDED != 0
    }

    fn start_queue(
        &mut self,
        _index: u16,
        queue: Queue<Space>,
    ) -> Result<Box<dyn Worker>, DeviceError> {
        if self.control.refuse_start.load(Ordering::SeqCst) {
            return Err(DeviceError::Config("refused".into()));
        }
        self.control.starts.fetch_add(1, Ordering::SeqCst);
        self.control.workers.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(EchoWorker { queue, held: VecDeque::new(), control: self.control.clone() }))
    }

    fn reset(&mut self) {
        // The transport's promise.
        assert_eq!(self.control.workers.load(Ordering::SeqCst), 0);
        assert_eq!(self.control.lost.load(Ordering::SeqCst), 0);
        self.control.resets.fetch_add(1, Ordering::SeqCst);
    }
}

struct EchoWorker {
    queue: Queue<Space>,
    held: VecDeque<(u16, DmaBuffers, DmaBuffers)>,
    control: Arc<Control>,
}

impl EchoWorker {
    fn buffers(
        memory: &Memory<Space>,
        segments: &[Segment],
        direction: Direction,
    ) -> Option<DmaBuffers> {
        let list = segments.iter().map(|s| (s.address, s.len as usize));
        memory.buffers(list, direction).ok()
    }

    fn take(&mut self) -> Progress {
        let Some(memory) = self.queue.dma().memory() else { return Progress::Idle };
        let Ok(Some(chain)) = self.queue.pop(&memory) else { return Progress::Idle };
        let source = Self::buffers(&memory, &chain.readable, Direction::ToDevice);
        let target = Self::buffers(&memory, &chain.writable, Direction::FromDevice);
        let Some((source, target)) = source.zip(target) else {
            self.queue.fail();
            return Progress::Idle;
        };
        self.control.taken.fetch_add(1, Ordering::SeqCst);
        self.held.push_back((chain.head, source, target));
        Progress::More
    }

    fn finish(&mut self) -> Progress {
        if self.control.gate.load(Ordering::SeqCst) {
            return Progress::Idle;
        }
        let Some((head, source, target)) = self.held.pop_front() else { return Progress::Idle };
        let mut data = vec![0; source.len().min(target.len())];
        source.copy_to(&mut data);
        let written = target.copy_from(&data);
        self.control.finished.fetch_add(1, Ordering::SeqCst);
        if let Some(memory) = self.queue.dma().memory() {
            self.queue.push_used(&memory, head, u32::try_from(written).unwrap());
            self.queue.notify(&memory);
        }
        Progress::More
    }
}

impl Worker for EchoWorker {
    fn sources(&self) -> Vec<Source> {
        vec![self.queue.source()]
    }

    fn service(&mut self) -> Progress {
        self.take().or(self.finish())
    }

    fn prepare_to_wait(&mut self) -> Progress {
        let Some(memory) = self.queue.dma().memory() else { return Progress::Idle };
        if self.queue.enable_notifications(&memory) { Progress::More } else { Progress::Idle }
    }

    fn quiesce(&mut self) -> Progress {
        let _ = self.finish();
        if self.held.is_empty() { Progress::Idle } else { Progress::More }
    }
}

impl Drop for EchoWorker {
    fn drop(&mut self) {
        self.control.lost.fetch_add(self.held.len(), Ordering::SeqCst);
        self.control.workers.fetch_sub(1, Ordering::SeqCst);
    }
}
