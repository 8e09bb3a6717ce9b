//! An image that holds what the workloads expect.

use std::sync::LazyLock;

use paraslot_backends::block::{MemoryBackend, MemoryOptions};
use paraslot_protocol::{PATTERN_BLOCK, PATTERN_STEP, pattern_base};

/// An image in memory of `capacity` bytes (at most 2 MiB), as the harness fills it, with a volatile
/// write cache.
pub fn patterned(capacity: usize) -> MemoryBackend {
    static CONTENTS: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let mut contents = Vec::new();
        for offset in (0..2 << 20).step_by(PATTERN_BLOCK) {
            let mut word = pattern_base(offset, 0);
            for _ in 0..PATTERN_BLOCK / 8 {
                contents.extend(word.to_le_bytes());
                word = word.wrapping_add(PATTERN_STEP);
            }
        }
        contents
    });
    let options = MemoryOptions { volatile_cache: true, ..MemoryOptions::default() };
    MemoryBackend::from_contents(&CONTENTS[..capacity], options).expect("memory")
}
