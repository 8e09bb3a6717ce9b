//! Numbers, backends and memory for these tests.

use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use paraslot_backends::block::testing::{Gate, GatedBackend, Log, RecordingBackend};
use paraslot_backends::block::{
    BlockBackend, BlockCompletion, BlockInfo, BlockQueue, BlockRequest, MemoryBackend,
    MemoryOptions,
};
use paraslot_device::Sources;
use paraslot_spec::pci::{capability, express, header};
use paraslot_tests::bench::Bench;

/// Numbers that are the same in every run (xorshift).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 20) % bound
    }

    /// Whether one of `of` came up.
    pub(crate) fn one_in(&mut self, of: u64) -> bool {
        self.below(of) == 0
    }
}

/// Sectors of the image.
pub(crate) const SECTORS: u64 = 1024;

/// What the image holds in its byte at `offset`; never one of the values that memory is marked with.
pub(crate) fn image_byte(offset: u64) -> u8 {
    u8::try_from((offset ^ (offset >> 9)) % 0x80).expect("below 0x80")
}

/// What [`image`] holds: every byte says where it is.
pub(crate) static CONTENTS: LazyLock<Vec<u8>> =
    LazyLock::new(|| (0..SECTORS * 512).map(image_byte).collect());

/// An image in which every byte says where it is.
pub(crate) fn image() -> MemoryBackend {
    MemoryBackend::from_contents(&CONTENTS, MemoryOptions::default()).expect("memory")
}

/// All that an image holds.
pub(crate) fn contents_of(image: &MemoryBackend) -> Vec<u8> {
    let mut bytes = vec![0; CONTENTS.len()];
    image.read_at(0, &mut bytes).expect("all of it");
    bytes
}

/// Where a capability is in the configuration space.
pub(crate) fn find_capability(bench: &mut Bench, id: u8) -> u16 {
    let mut at = [0];
    bench.device.config_read(header::CAPABILITIES, &mut at);
    while at[0] != 0 {
        let mut found = [0; 2];
        bench.device.config_read(at[0].into(), &mut found);
        if found[0] == id {
            return at[0].into();
        }
        at = [found[1]];
    }
    panic!("there is no capability {id:#x}");
}

/// Starts a function level reset.
pub(crate) fn function_level_reset(bench: &mut Bench) {
    let at = find_capability(bench, capability::PCI_EXPRESS);
    let control = express::INITIATE_FLR.to_le_bytes();
    bench.device.config_write(at + express::DEVICE_CONTROL, &control);
}

/// All of guest memory.
pub(crate) fn all_memory(bench: &Bench, len: usize) -> Vec<u8> {
    let mut data = vec![0; len];
    bench.peek(0, &mut data);
    data
}

/// Where two images of memory differ: first address, length.
pub(crate) fn differences(before: &[u8], after: &[u8]) -> Vec<(usize, usize)> {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for (page, (before, after)) in before.chunks(4096).zip(after.chunks(4096)).enumerate() {
        // Most are the same, and that is quickly seen.
        if before == after {
            continue;
        }
        for (at, (old, new)) in (4096 * page..).zip(before.iter().zip(after)) {
            if old == new {
                continue;
            }
            match runs.last_mut() {
                Some((start, len)) if *start + *len == at => *len += 1,
                _ => runs.push((at, 1)),
            }
        }
    }
    runs
}

/// A test's hand on a [`held`] backend.
pub(crate) struct Hold {
    pub(crate) gate: Gate,
    pub(crate) log: Log,
    period: Arc<AtomicU32>,
}

impl Hold {
    /// Lets one operation go at every `period`th look of the device; 0 for none. So operations end
    /// while the device waits for them.
    pub(crate) fn release_every(&self, period: u32) {
        self.period.store(period, Ordering::Relaxed);
    }

    /// Operations that were submitted and not yet seen to end.
    pub(crate) fn in_flight(&self) -> usize {
        use paraslot_backends::block::testing::Event::{Completed, Submitted};
        let events = self.log.events();
        let submitted = events.iter().filter(|event| matches!(event, Submitted { .. })).count();
        submitted - events.iter().filter(|event| matches!(event, Completed { .. })).count()
    }
}

/// `inner`, which must complete in `commit`, behind a closed gate, recorded.
pub(crate) fn held(inner: impl BlockBackend + 'static) -> (Arc<dyn BlockBackend>, Hold) {
    let gated = GatedBackend::new(inner);
    let gate = gated.gate();
    let recording = RecordingBackend::new(gated);
    let (log, period) = (recording.log(), Arc::new(AtomicU32::new(0)));
    let backend = Releasing { inner: recording, gate: gate.clone(), period: period.clone() };
    (Arc::new(backend), Hold { gate, log, period })
}

struct Releasing<B> {
    inner: B,
    gate: Gate,
    period: Arc<AtomicU32>,
}

impl<B: BlockBackend> BlockBackend for Releasing<B> {
    fn info(&self) -> BlockInfo {
        self.inner.info()
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        let inner = self.inner.open_queue(depth)?;
        let (gate, period) = (self.gate.clone(), self.period.clone());
        Ok(Box::new(ReleasingQueue { inner, gate, period, looks: 0 }))
    }
}

struct ReleasingQueue {
    inner: Box<dyn BlockQueue>,
    gate: Gate,
    period: Arc<AtomicU32>,
    looks: u32,
}

impl BlockQueue for ReleasingQueue {
    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        self.inner.submit(request)
    }

    fn commit(&mut self) {
        self.inner.commit();
    }

    fn complete(&mut self, completions: &mut Vec<BlockCompletion>) {
        self.looks = self.looks.wrapping_add(1);
        let period = self.period.load(Ordering::Relaxed);
        if period != 0 && self.looks.is_multiple_of(period) {
            self.gate.release(1);
        }
        self.inner.complete(completions);
    }

    fn sources(&self) -> Sources {
        self.inner.sources()
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight()
    }
}
