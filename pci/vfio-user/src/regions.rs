//! Regions: what they are, and accesses to them.

use std::fs::File;

use paraslot_pci::{BarKind, BarSpec, Layout};

use crate::connection::Reply;
use crate::function::{CONFIG_LEN, Served};
use crate::signals::Signals;
use crate::sys;
use crate::wire::{Fields, RegionAccess, io_fd, put, put64, region};

/// Files of the pages that clients may map, read-only, by BAR.
pub(crate) struct Windows(Vec<Window>);

struct Window {
    bar: u8,
    offset: u64,
    len: u64,
    file: File,
}

impl Windows {
    /// The pages of `layout` that a region's one file can have: where they are in the BAR is where they are
    /// in the file. One that the kernel does not open again is left out; it is read by messages.
    pub(crate) fn new(layout: &Layout) -> Self {
        let mut windows = Vec::<Window>::new();
        for window in &layout.windows {
            let taken = windows.iter().any(|other| other.bar == window.bar);
            let in_place = window.offset == window.page.file_offset();
            if let (false, true, Ok(file)) = (taken, in_place, sys::read_only(window.page.file())) {
                let (bar, offset, len) = (window.bar, window.offset, window.page.len() as u64);
                windows.push(Window { bar, offset, len, file });
            }
        }
        Self(windows)
    }
}

fn bar_spec(layout: &Layout, index: u32) -> Option<(u8, BarSpec)> {
    let bar = u8::try_from(index).ok()?;
    let spec = layout.bars.get(usize::from(bar)).copied().flatten()?;
    Some((bar, spec))
}

/// Answers GET_REGION_INFO.
pub(crate) fn info(layout: &Layout, windows: Option<&Windows>, payload: &[u8]) -> Option<Reply> {
    let mut fields = Fields(payload);
    let argsz = fields.u32()?;
    fields.u32()?;
    let index = fields.u32()?;
    // The whole of the fixed part is asked for, whatever is needed of it.
    if index >= region::COUNT || argsz < region::INFO_LEN {
        return None;
    }
    let (size, mut flags) = match (index, bar_spec(layout, index)) {
        (region::CONFIG, _) => (CONFIG_LEN, region::READ | region::WRITE),
        (region::ROM, Some((_, spec))) => (spec.size, region::READ),
        (_, Some((_, spec))) => (spec.size, region::READ | region::WRITE),
        _ => (0, 0),
    };
    let window = windows.and_then(|Windows(list)| {
        list.iter().find(|window| u32::from(window.bar) == index && window.len <= size)
    });
    let mut capabilities = Vec::new();
    let mut first = 0;
    if let Some(window) = window {
        flags |= region::MMAP | region::CAPS;
        first = region::INFO_LEN;
        capabilities.extend(region::CAP_SPARSE_MMAP.to_le_bytes());
        capabilities.extend(1_u16.to_le_bytes());
        put(&mut capabilities, [0, 1, 0]);
        put64(&mut capabilities, [window.offset, window.len]);
    }
    let needed = region::INFO_LEN + u32::try_from(capabilities.len()).unwrap_or(0);
    let mut reply = Reply::empty();
    put(&mut reply.payload, [needed, flags, index, first]);
    put64(&mut reply.payload, [size, 0]);
    if let Some(window) = window.filter(|_| argsz >= needed) {
        reply.payload.extend(capabilities);
        match window.file.try_clone() {
            Ok(file) => reply.fds.push(file.into()),
            Err(_) => return Some(Reply::error(libc::EMFILE)),
        }
    }
    Some(reply)
}

/// Answers GET_REGION_IO_FDS, with as many descriptors as the client takes.
pub(crate) fn io_fds(layout: &Layout, max_fds: usize, payload: &[u8]) -> Option<Reply> {
    let mut fields = Fields(payload);
    let argsz = fields.u32()?;
    let flags = fields.u32()?;
    let index = fields.u32()?;
    if index >= region::COUNT || flags != 0 || argsz < io_fd::HEAD_LEN {
        return None;
    }
    let port = bar_spec(layout, index).is_some_and(|(_, spec)| spec.kind == BarKind::Io);
    let bells = layout.doorbells.iter().filter(|bell| u32::from(bell.bar) == index);
    let bells: Vec<_> = bells.take(max_fds.min(sys::MAX_FDS)).collect();
    let count = u32::try_from(bells.len()).unwrap_or(0);
    let needed = io_fd::HEAD_LEN + count * io_fd::ENTRY_LEN;
    let mut reply = Reply::empty();
    put(&mut reply.payload, [needed, 0, index, count]);
    if argsz < needed {
        return Some(reply);
    }
    for (fd_index, bell) in (0_u32..).zip(bells) {
        let mut flags = if port { io_fd::PIO } else { 0 };
        if bell.value.is_some() {
            flags |= io_fd::DATAMATCH;
        }
        put64(&mut reply.payload, [bell.offset, bell.len.into()]);
        put(&mut reply.payload, [fd_index, io_fd::IOEVENTFD, flags, 0]);
        put64(&mut reply.payload, [bell.value.unwrap_or(0)]);
        match sys::borrow(&bell.event).try_clone_to_owned() {
            Ok(fd) => reply.fds.push(fd),
            Err(_) => return Some(Reply::error(libc::EMFILE)),
        }
    }
    Some(reply)
}

/// The part of an access that lies in a region of `size` bytes.
fn inside(offset: u64, len: usize, size: u64) -> usize {
    usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX).min(len)
}

/// Reads a region. What is not there reads as ones.
pub(crate) fn read(served: &mut Served, access: RegionAccess, data: &mut [u8]) {
    data.fill(0xff);
    let RegionAccess { offset, region, .. } = access;
    if region == region::CONFIG {
        let there = inside(offset, data.len(), CONFIG_LEN);
        if let (Ok(offset), Some(data)) = (u16::try_from(offset), data.get_mut(..there)) {
            served.device().config_read(offset, data);
        }
    } else if let Some((bar, spec)) = bar_spec(served.layout(), region) {
        let there = inside(offset, data.len(), spec.size);
        if let Some(data) = data.get_mut(..there).filter(|data| !data.is_empty()) {
            served.device().bar_read(bar, offset, data);
        }
    }
}

/// Writes a region. What is not there takes nothing.
pub(crate) fn write(served: &mut Served, signals: &Signals, access: RegionAccess, data: &[u8]) {
    let RegionAccess { offset, region, .. } = access;
    if region == region::CONFIG {
        let there = inside(offset, data.len(), CONFIG_LEN);
        if let (Ok(offset), Some(data)) = (u16::try_from(offset), data.get(..there))
            && !data.is_empty()
        {
            served.config_write(offset, data, signals);
        }
    } else if let Some((bar, spec)) = bar_spec(served.layout(), region) {
        let there = inside(offset, data.len(), spec.size);
        if let Some(data) = data.get(..there).filter(|data| !data.is_empty()) {
            served.device().bar_write(bar, offset, data);
        }
    }
}

/// Does the writes of REGION_WRITE_MULTI, up to the first that makes no sense; says how many it did.
pub(crate) fn write_multi(served: &mut Served, signals: &Signals, payload: &[u8]) -> Option<u64> {
    let mut fields = Fields(payload);
    let count = fields.u64()?;
    let mut done = 0;
    while done < count {
        let Some(access) = RegionAccess::parse(&mut fields) else { break };
        let Some(data) = fields.u64().map(u64::to_le_bytes) else { break };
        let len = usize::try_from(access.count).unwrap_or(usize::MAX);
        let Some(data) = data.get(..len) else { break };
        write(served, signals, access, data);
        done += 1;
    }
    Some(done)
}
