//! What the server's function has written to guest memory, for a live migration.

use vm_memory::{
    GuestAddressSpace, GuestMemory, GuestMemoryBackend, GuestMemoryRegion, GuestUsize,
};

use super::link::{Link, MALFORMED};
use super::{ClientError, VfioUser};
use crate::connection::End;
use crate::version::PAGE;
use crate::wire::{Fields, command, feature, put, put64};

/// Bytes of bits that are asked for at a time: those of 2 GiB.
const MOST: usize = 1 << 16;

impl<A: GuestAddressSpace> VfioUser<A> {
    /// Has the server note what the function writes to guest memory from now on, unless it does so already
    /// (VFIO's DMA logging). To be had before the first copy of memory is made. Nobody else notes it: the
    /// server writes to memory that it has mapped. (What it writes by messages, to memory that is in no file, that
    /// memory's own bitmap knows of as well.)
    ///
    /// # Errors
    /// [`ClientError::Refused`] by a server that cannot, or not now; the function goes on. All others as for
    /// every command: it is lost.
    pub fn log_writes(&mut self) -> Result<(), ClientError> {
        let ranges = self.ranges();
        self.told(|link| {
            let count = u32::try_from(ranges.len()).map_err(|_| MALFORMED)?;
            let mut request = Vec::new();
            let argsz = count.saturating_mul(16).saturating_add(24);
            put(&mut request, [argsz, feature::LOGGING_START | feature::SET]);
            put64(&mut request, [PAGE]);
            put(&mut request, [count, 0]);
            ranges.iter().for_each(|&(start, len)| put64(&mut request, [start, len]));
            link.request(command::DEVICE_FEATURE, &request, &[]).map(drop)
        })
    }

    /// Has it stop to note that.
    ///
    /// # Errors
    /// As for [`log_writes`](Self::log_writes).
    pub fn forget_writes(&mut self) -> Result<(), ClientError> {
        self.told(|link| {
            let mut request = Vec::new();
            put(&mut request, [8, feature::LOGGING_STOP | feature::SET]);
            link.request(command::DEVICE_FEATURE, &request, &[]).map(drop)
        })
    }

    /// What the function has written since the last call, as guest physical addresses and lengths in bytes,
    /// whole pages each. The last of it is there when the function is paused.
    ///
    /// # Errors
    /// As for [`log_writes`](Self::log_writes), and refused while nothing is noted. What was written is not
    /// known then: all of memory may have been.
    pub fn take_dirty(&mut self) -> Result<Vec<(u64, usize)>, ClientError> {
        let ranges = self.ranges();
        self.told(|link| {
            let mut dirty = Vec::new();
            let words = MOST.min(link.max_data()) as u64 / 8;
            let most = words.max(1) * 64 * PAGE;
            for (start, len) in ranges {
                let mut done = 0;
                while done < len {
                    let now = most.min(len - done);
                    report(link, start + done, now, &mut dirty)?;
                    done += now;
                }
            }
            Ok(dirty)
        })
    }

    /// The memory that the server has.
    fn ranges(&self) -> Vec<(u64, GuestUsize)> {
        let memory = self.memory.memory();
        let physical = memory.physical_memory().into_iter().flat_map(GuestMemoryBackend::iter);
        physical.map(|region| (region.start_addr().0, region.len())).collect()
    }

    /// Asks the server for something that it may refuse.
    fn told<R>(
        &mut self,
        ask: impl FnOnce(&mut Link) -> Result<R, ClientError>,
    ) -> Result<R, ClientError> {
        let gone = || ClientError::Connection(End::Closed);
        if self.lost {
            return Err(gone());
        }
        match ask(&mut self.link) {
            Err(error) if !matches!(error, ClientError::Refused { .. }) => {
                self.with(|_| Err::<(), _>(error));
                Err(gone())
            }
            answer => answer,
        }
    }
}

/// Adds the pages of `len` bytes from `start` on that were written.
fn report(
    link: &mut Link,
    start: u64,
    len: u64,
    dirty: &mut Vec<(u64, usize)>,
) -> Result<(), ClientError> {
    let bytes = len.div_ceil(PAGE).div_ceil(64) * 8;
    let argsz = u32::try_from(bytes).ok().and_then(|bytes| bytes.checked_add(32));
    let mut request = Vec::new();
    let flags = feature::LOGGING_REPORT | feature::GET;
    put(&mut request, [argsz.ok_or(MALFORMED)?, flags]);
    put64(&mut request, [start, len, PAGE]);
    let answer = link.request(command::DEVICE_FEATURE, &request, &[])?;
    let mut fields = Fields(&answer.payload);
    fields.u64();
    let told = [fields.u64(), fields.u64(), fields.u64()];
    let bits = usize::try_from(bytes).ok().and_then(|bytes| fields.rest().get(..bytes));
    let bits = bits.filter(|_| told == [Some(start), Some(len), Some(PAGE)]).ok_or(MALFORMED)?;
    let set = |(byte, bits): (u64, &u8)| {
        let bits = *bits;
        (0..8).filter(move |bit| bits >> bit & 1 != 0).map(move |bit| byte * 8 + bit)
    };
    let page_size = usize::try_from(PAGE).map_err(|_| MALFORMED)?;
    for page in (0..).zip(bits).flat_map(set).take_while(|page| *page < len.div_ceil(PAGE)) {
        let address = start + page * PAGE;
        match dirty.last_mut() {
            Some((last, len)) if *last + *len as u64 == address => *len += page_size,
            _ => dirty.push((address, page_size)),
        }
    }
    Ok(())
}
