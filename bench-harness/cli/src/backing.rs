//! What is behind a device that somebody else's guest uses: an image, an interface, threads.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use paraslot_backends::block::{
    BlockBackend, BlockOp, BlockRequest, FileBackend, FileOptions, LimitedBackend,
};
use paraslot_backends::limit::Limiter;
use paraslot_backends::net::{LimitedNet, NetBackend, Sink, TapBackend, TapOptions};
use paraslot_device::dma::Direction;
use paraslot_device::{DmaBuffers, ThreadExecutor, ThreadOptions};

use crate::spec::{Media, NetSpec, Request};
use crate::sys;

/// What a disk's data is in.
pub(crate) struct Drive {
    file: Arc<FileBackend>,
    /// What its guest may take of it.
    limiter: Arc<Limiter>,
    /// The image, for messages.
    name: String,
}

/// Opens what is behind a disk; `None` for what is none.
///
/// # Errors
/// When it cannot be opened, or is in use.
pub(crate) fn open_drive(request: &Request) -> anyhow::Result<Option<Arc<Drive>>> {
    let Request::Disk(spec) = request else { return Ok(None) };
    let path = spec.path.clone().context("a disk without an image")?;
    let name = path.display().to_string();
    let options = FileOptions {
        read_only: spec.read_only || spec.media == Media::Cdrom,
        ..spec.file_options(path)
    };
    let file = Arc::new(FileBackend::open(&options)?);
    Ok(Some(Arc::new(Drive { file, limiter: spec.limits.limiter(), name })))
}

impl Drive {
    /// The data, for its guest.
    pub(crate) fn backend(&self) -> Arc<dyn BlockBackend> {
        Arc::new(LimitedBackend::new(self.file.clone(), self.limiter.clone()))
    }

    /// What its guest may take of it.
    pub(crate) fn limiter(&self) -> &Arc<Limiter> {
        &self.limiter
    }

    /// The image's size in bytes, as of the last look at it.
    pub(crate) fn capacity(&self) -> u64 {
        self.file.info().capacity
    }

    /// Looks at the image's size again, and returns it in bytes.
    ///
    /// # Errors
    /// When it cannot be read, or is none that a disk can have.
    pub(crate) fn refresh(&self) -> anyhow::Result<u64> {
        Ok(self.file.refresh()?)
    }

    /// Sees to it that all that was written is durable.
    ///
    /// # Errors
    /// When it is not: some of it may be lost.
    pub(crate) fn flush(&self) -> anyhow::Result<()> {
        if self.file.info().read_only {
            return Ok(());
        }
        let failed = || format!("{}: what was written last may be lost", self.name);
        let mut queue = self.file.open_queue(1).with_context(failed)?;
        let flush = BlockRequest {
            token: 0,
            op: BlockOp::Flush,
            offset: 0,
            len: 0,
            buffers: DmaBuffers::empty(Direction::ToDevice),
        };
        if queue.submit(flush).is_err() {
            bail!(failed());
        }
        queue.commit();
        let mut completions = Vec::new();
        loop {
            queue.complete(&mut completions);
            match completions.pop() {
                Some(completion) => return completion.result.with_context(failed),
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }
}

/// Threads for a device: one for each of its queues, but no more than this host runs at once.
///
/// # Errors
/// When they cannot be started.
pub(crate) fn threads_for(
    name: &str,
    queues: Option<u16>,
    options: ThreadOptions,
) -> anyhow::Result<Arc<ThreadExecutor>> {
    let most = sys::allowed_cpus().map_or(1, |cpus| cpus.len());
    let threads = usize::from(queues.unwrap_or(1)).min(most);
    let executor = ThreadExecutor::new(name, &ThreadOptions { threads, ..options });
    Ok(Arc::new(executor.context("cannot start the device's threads")?))
}

/// An adapter's limits: for what its guest sends, and for what it receives.
pub(crate) type Limiters = [Arc<Limiter>; 2];

/// What an adapter is plugged into: a TAP interface, or something that takes every frame. With what its guest
/// may send, and what it may receive.
///
/// # Errors
/// When there is no such interface, or this process may not have it.
pub(crate) fn network(spec: &NetSpec) -> anyhow::Result<(Arc<dyn NetBackend>, Limiters)> {
    let queues = spec.queues.unwrap_or(1);
    let port: Arc<dyn NetBackend> = match spec.tap() {
        Some(name) => Arc::new(TapBackend::open(&TapOptions { queues, ..TapOptions::new(name) })?),
        None => Arc::new(Sink::new(queues)?),
    };
    let limiters = [spec.limits.limiter(), spec.limits.limiter()];
    let [sent, received] = limiters.clone();
    Ok((Arc::new(LimitedNet::new(port, sent, received)), limiters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Plugged;

    #[test]
    fn an_image_is_used_once_unless_it_is_only_read() {
        let place = tempfile::tempdir().unwrap();
        let image = place.path().join("disk.img");
        std::fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
        let open = |options: &str| {
            let spec = format!("ahci,path={}{options}", image.display());
            open_drive(&spec.parse::<Plugged>().unwrap().request)
        };
        let drive = open("").unwrap().unwrap();
        drive.flush().unwrap();
        let error = open("").err().unwrap().to_string();
        assert!(error.contains("in use"), "{error}");
        assert!(open(",readonly=on").is_err());
        drop(drive);
        let (_one, other) = (open(",readonly=on").unwrap(), open(",media=cdrom").unwrap());
        let other = other.unwrap();
        assert!(other.file.info().read_only);
        other.flush().unwrap();
    }
}
