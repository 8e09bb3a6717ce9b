//! Frames to be sent.

use paraslot_protocol::traffic::{self, Flow, SEGMENT_SIZE, TCP_HEADERS, TRANSPORT};
use paraslot_protocol::{NetJob, PATTERN_STEP, pattern_base};

use super::super::Failure;

use crate::{Arrival, DmaRegion, Known, Nic, Offers, Platform, Task};

/// Frames with the adapter at most.
pub(super) const MAX_TAGS: usize = 256;
/// Memory for frames that is used even if a batch takes less, in bytes.
const MEMORY: usize = 4 << 20;
/// Bytes that are summed at a time.
const CHUNK: usize = 512;

/// The one's complement sum of what is in `pieces` from byte `from` on, carried on from `start`.
pub(super) fn sum(start: u16, pieces: &[DmaRegion], from: usize) -> u16 {
    let mut chunk = [0; CHUNK];
    let (mut sum, mut filled, mut skip) = (start, 0, from);
    for piece in pieces {
        let mut at = skip.min(piece.len());
        skip -= at;
        while at < piece.len() {
            let len = (piece.len() - at).min(CHUNK - filled);
            let Some(room) = chunk.get_mut(filled..filled + len) else { break };
            piece.copy_out(at, room);
            (at, filled) = (at + len, filled + len);
            // A chunk is even, so that words stay words.
            if filled == CHUNK {
                sum = traffic::sum(sum, &chunk);
                filled = 0;
            }
        }
    }
    traffic::sum(sum, chunk.get(..filled).unwrap_or_default())
}

/// A transport checksum as it is sent: 0 would say that there is none.
fn sent_checksum(sum: u16) -> u16 {
    if sum == u16::MAX { u16::MAX } else { !sum }
}

/// A buffer for each tag, with a frame in it, and which of them are free.
///
/// They are placed so that the payload begins at a multiple of 8 bytes, and an odd number of cache
/// lines apart.
pub(super) struct Frames {
    memory: DmaRegion,
    stride: usize,
    /// Where in its place a tag's region begins, and where in that the frame does.
    pad: usize,
    headroom: usize,
    /// Bytes of a frame, and of its headers.
    len: usize,
    header_len: usize,
    frame_size: u32,
    verify: bool,
    offers: Offers,
    task: Task,
    /// The pseudo header's sum, of frames whose checksum is made here.
    software: Option<u16>,
    free: [u16; MAX_TAGS],
    free_count: usize,
    count: usize,
}

impl Frames {
    /// Frames of a job and a flow, as many as the adapter takes, but no fewer than a batch.
    pub(super) fn new<P: Platform, N: Nic>(
        platform: &P,
        nic: &N,
        job: &NetJob,
        flow: Flow,
    ) -> Result<Self, Failure> {
        let len = usize::try_from(job.frame_size).map_err(|_| Failure::Unfit("frame_size"))?;
        let header_len = traffic::header_len(job.frame_size);
        let headroom = nic.headroom();
        let pad = (headroom + header_len).next_multiple_of(8) - (headroom + header_len);
        let stride = 64 * ((pad + headroom + len).div_ceil(64) | 1);
        let batch = usize::from(job.batch);
        let count = usize::from(nic.depth()).min(MAX_TAGS).min((MEMORY / stride).max(batch));
        if count < batch {
            return Err(Failure::Unfit("batch"));
        }
        let memory = platform.allocate(stride * count).ok_or(Failure::Unfit("batch"))?;
        let offers = nic.offers();
        let mut this = Self {
            memory,
            stride,
            pad,
            headroom,
            len,
            header_len,
            frame_size: job.frame_size,
            verify: job.verify,
            offers,
            task: Task::None,
            software: None,
            free: [0; MAX_TAGS],
            free_count: 0,
            count,
        };
        let mut headers = flow.headers(job.frame_size);
        let field = TRANSPORT + traffic::checksum_offset(job.frame_size);
        let [a, b] = [field, field + 1].map(|at| headers.get(at).copied().unwrap_or(0));
        this.task = match this.checksum_task() {
            task if traffic::is_segmented(job.frame_size) => task,
            task if job.verify => task,
            _ => Task::None,
        };
        if job.verify && this.task == Task::None {
            this.software = Some(u16::from_be_bytes([a, b]));
        } else if !job.verify && this.task == Task::None {
            // No checksum at all, which UDP allows.
            headers.iter_mut().skip(field).take(2).for_each(|byte| *byte = 0);
        }
        for tag in (0..count).rev().filter_map(|tag| u16::try_from(tag).ok()) {
            let region = this.region(tag);
            region.copy_in(headroom, headers.get(..header_len).unwrap_or_default());
            this.give_back(tag);
        }
        Ok(this)
    }

    /// What is to be done to a frame that holds the pseudo header's sum, if the adapter does it.
    fn checksum_task(&self) -> Task {
        if traffic::is_segmented(self.frame_size) {
            return Task::Segment { size: SEGMENT_SIZE };
        }
        if !self.offers.checksum {
            return Task::None;
        }
        let place = |at: usize| u16::try_from(at).unwrap_or(0);
        let (start, offset) = (TRANSPORT, traffic::checksum_offset(self.frame_size));
        Task::Checksum { start: place(start), offset: place(offset) }
    }

    /// The tag's buffer, the headroom included.
    pub(super) fn region(&self, tag: u16) -> DmaRegion {
        let at = self.stride * usize::from(tag) + self.pad;
        self.memory.part(at, self.headroom + self.len)
    }

    /// Free tags.
    pub(super) fn free_count(&self) -> usize {
        self.free_count
    }

    /// Tags that are not free.
    pub(super) fn in_flight(&self) -> usize {
        self.count - self.free_count
    }

    /// How many frames could be handed over now.
    pub(super) fn room<N: Nic>(&self, nic: &N) -> usize {
        self.free_count.min(nic.room(self.len, self.task))
    }

    pub(super) fn take(&mut self) -> Option<u16> {
        self.free_count = self.free_count.checked_sub(1)?;
        self.free.get(self.free_count).copied()
    }

    pub(super) fn give_back(&mut self, tag: u16) {
        if let Some(place) = self.free.get_mut(self.free_count) {
            *place = tag;
            self.free_count += 1;
        }
    }

    /// Makes the tag's frame number `number`, and sends it.
    pub(super) fn send<N: Nic>(
        &self,
        nic: &mut N,
        tag: u16,
        number: u64,
        stamp: u64,
    ) -> Result<(), Failure> {
        let region = self.region(tag);
        let payload = self.headroom + self.header_len;
        region.write64(payload + traffic::NUMBER, number);
        region.write64(payload + traffic::STAMP, stamp);
        if self.verify {
            let start = payload + traffic::PATTERN;
            let base = pattern_base(number, 0).wrapping_add(PATTERN_STEP.wrapping_mul(2));
            region.fill_pattern(start, region.len() - start, base, PATTERN_STEP);
            if let Some(pseudo) = self.software {
                self.fill_in_checksum(&region, pseudo);
            }
        }
        Ok(nic.transmit(tag, &region, self.len, self.task)?)
    }

    fn set_checksum(&self, region: &DmaRegion, value: u16) {
        let field = self.headroom + TRANSPORT + traffic::checksum_offset(self.frame_size);
        region.copy_in(field, &value.to_be_bytes());
    }

    fn fill_in_checksum(&self, region: &DmaRegion, pseudo: u16) {
        self.set_checksum(region, pseudo);
        let sum = sum(0, core::slice::from_ref(region), self.headroom + TRANSPORT);
        self.set_checksum(region, sent_checksum(sum));
    }

    /// Puts what has arrived into the tag's buffer, addressed to its sender, and returns what is to
    /// be done to it. `pseudo` is its pseudo header's sum. It is as long as the job's frames.
    pub(super) fn answer(&self, tag: u16, arrival: &Arrival<'_>, pseudo: u16) -> Task {
        let region = self.region(tag);
        let mut at = self.headroom;
        for piece in arrival.pieces {
            let len = piece.len().min(region.len() - at);
            region.copy_from(at, piece, 0, len);
            at += len;
        }
        let mut headers = [0; TCP_HEADERS];
        let Some(headers) = headers.get_mut(..self.header_len) else { return Task::None };
        region.copy_out(self.headroom, headers);
        // Hardware addresses, IP addresses, and ports; no sum changes by that.
        for (first, len) in [(0, 6), (traffic::IP + 12, 4), (TRANSPORT, 2)] {
            if let Some((one, other)) = headers
                .get_mut(first..first + 2 * len)
                .and_then(|pair| pair.split_at_mut_checked(len))
            {
                one.swap_with_slice(other);
            }
        }
        region.copy_in(self.headroom, headers);
        let segmented = traffic::is_segmented(self.frame_size);
        match (arrival.checksum, self.checksum_task()) {
            (Known::Partial, Task::None) => {
                self.fill_in_checksum(&region, pseudo);
                Task::None
            }
            (Known::Right | Known::Nothing, task) if segmented => {
                self.set_checksum(&region, pseudo);
                task
            }
            (Known::Partial, task) => task,
            (Known::Right | Known::Nothing, _) => Task::None,
        }
    }

    /// Sends the tag's frame as it is.
    pub(super) fn send_as_is<N: Nic>(
        &self,
        nic: &mut N,
        tag: u16,
        task: Task,
    ) -> Result<(), Failure> {
        Ok(nic.transmit(tag, &self.region(tag), self.len, task)?)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec;
    use std::vec::Vec;

    use super::*;
    use crate::testing::Fake;

    #[test]
    fn a_sum_is_the_same_however_the_bytes_are_cut() {
        let region = Fake::new().allocate(1600).unwrap();
        region.fill_pattern(0, 1600, 0x1234_5678_9abc_def0, PATTERN_STEP);
        let mut bytes = vec![0; 1600];
        region.copy_out(0, &mut bytes);
        for (from, len) in [(0, 1600), (34, 1566), (35, 1565), (34, 511), (0, 1), (7, 0)] {
            let expected = traffic::sum(5, &bytes[from..from + len]);
            for piece in [1, 2, 3, 64, 511, 512, 513, 1600] {
                let pieces: Vec<DmaRegion> = (0..from + len)
                    .step_by(piece)
                    .map(|at| region.part(at, piece.min(from + len - at)))
                    .collect();
                assert_eq!(sum(5, &pieces, from), expected, "{from} {len} {piece}");
            }
        }
    }

    // RFC 768: a checksum that comes out as zero is sent as all ones, since zero says that there is
    // none.
    #[test]
    fn no_checksum_is_sent_as_zero() {
        assert_eq!(sent_checksum(u16::MAX), u16::MAX);
        assert_eq!(sent_checksum(0), u16::MAX);
        assert_eq!(sent_checksum(0x1234), 0xedcb);
    }
}
