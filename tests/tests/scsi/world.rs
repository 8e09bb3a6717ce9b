//! Images, and the units on them.

use std::io;
use std::sync::{Arc, LazyLock};

use paraslot_backends::block::{BlockBackend, BlockInfo, BlockQueue, MemoryBackend, MemoryOptions};
use paraslot_scsi::{CdromOptions, DiskOptions, LogicalUnit};

/// Bytes of memory for the data of a command, and more.
pub(crate) const MEMORY: usize = 1 << 20;
/// Bytes beside the data of a command that are looked at, too.
pub(crate) const GUARD: usize = 4096;
/// What memory holds that nobody has written.
pub(crate) const CANARY: u8 = 0xc5;
/// Bytes of a disk's block.
pub(crate) const BLOCK: usize = 512;
/// Blocks of the disk.
pub(crate) const BLOCKS: u64 = 4096;
/// The same, as commands have it.
pub(crate) const END: u32 = 4096;

/// What [`image`] holds, which says of every byte where it is.
static CONTENTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
    (0..BLOCK * 4096).map(|at| (at / BLOCK * 7 + at % 251).to_le_bytes()[0]).collect()
});

/// The contents of so many blocks from `lba` on, as they are at first.
pub(crate) fn original(lba: usize, blocks: usize) -> &'static [u8] {
    &CONTENTS[lba * BLOCK..(lba + blocks) * BLOCK]
}

/// Blocks that are not what the image holds at first.
pub(crate) fn fresh(blocks: usize) -> Vec<u8> {
    (0..blocks * BLOCK).map(|at| (at / 3 + at / BLOCK).to_le_bytes()[0] ^ 0xff).collect()
}

/// An image with a volatile cache that can do all that there is.
pub(crate) fn image() -> MemoryBackend {
    image_of(MemoryOptions::default())
}

pub(crate) fn image_of(options: MemoryOptions) -> MemoryBackend {
    let options = MemoryOptions { volatile_cache: true, id: "SERIAL-0001".into(), ..options };
    MemoryBackend::from_contents(&CONTENTS, options).expect("memory")
}

/// What is on an image.
pub(crate) fn on(image: &MemoryBackend, lba: usize, blocks: usize) -> Vec<u8> {
    let mut data = vec![0; blocks * BLOCK];
    image.read_at((lba * BLOCK) as u64, &mut data).expect("inside the image");
    data
}

/// A disk.
pub(crate) fn disk(backend: impl BlockBackend + 'static) -> Arc<LogicalUnit> {
    let mut options = DiskOptions::new(Arc::new(backend));
    options.identity.world_wide_name = Some(0x5000_1234_5678_9abc);
    LogicalUnit::disk(options).expect("a disk")
}

/// A drive with this disc in it.
pub(crate) fn drive(medium: Option<Arc<dyn BlockBackend>>) -> Arc<LogicalUnit> {
    LogicalUnit::cdrom(CdromOptions::new(medium)).expect("a drive")
}

/// An image that says something else of itself than it is.
pub(crate) struct Claims<B, F>(pub(crate) B, pub(crate) F);

impl<B: BlockBackend, F: Fn(&mut BlockInfo) + Send + Sync> BlockBackend for Claims<B, F> {
    fn info(&self) -> BlockInfo {
        let mut info = self.0.info();
        self.1(&mut info);
        info
    }

    fn open_queue(&self, depth: u32) -> io::Result<Box<dyn BlockQueue>> {
        self.0.open_queue(depth)
    }
}
