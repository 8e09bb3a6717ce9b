//! What a server has, as a bus and a guest need it.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use paraslot_device::{DmaSpace, Doorbell, SharedPage};
use paraslot_pci::{BarKind, BarSpec, ROM_BAR, ReadWindow};
use paraslot_spec::pci::{Command, bar, header};
use vm_memory::{GuestMemory, GuestMemoryBackend, GuestMemoryRegion};

use super::ClientError;
use super::lent::{Attendant, Lent};
use super::link::{Link, RegionInfo};
use crate::sys;
use crate::wire::region;

/// Bytes of conventional configuration space.
pub(super) const CONFIG_LEN: usize = 256;

/// The low byte of the command register, among what is read or written from `offset` on.
pub(super) fn command_in(offset: u16, data: &mut [u8]) -> Option<&mut u8> {
    data.get_mut(usize::from(header::COMMAND.checked_sub(offset)?))
}

pub(super) fn with_bus_master(byte: u8, on: bool) -> u8 {
    let [bit, _] = Command::BUS_MASTER.bits().to_le_bytes();
    if on { byte | bit } else { byte & !bit }
}

pub(super) fn read_config(link: &mut Link) -> Result<[u8; CONFIG_LEN], ClientError> {
    let mut config = [0; CONFIG_LEN];
    link.read(region::CONFIG, 0, &mut config)?;
    Ok(config)
}

pub(super) fn copy(config: &[u8; CONFIG_LEN], at: u16, data: &mut [u8]) {
    for (index, place) in (usize::from(at)..).zip(data) {
        *place = config.get(index).copied().unwrap_or(0);
    }
}

pub(super) fn word(config: &[u8; CONFIG_LEN], at: u16) -> u16 {
    let mut bytes = [0; 2];
    copy(config, at, &mut bytes);
    u16::from_le_bytes(bytes)
}

pub(super) fn dword(config: &[u8; CONFIG_LEN], at: u16) -> u32 {
    let mut bytes = [0; 4];
    copy(config, at, &mut bytes);
    u32::from_le_bytes(bytes)
}

/// Sizes the BARs, as firmware does: what stays zero when ones are written is the size.
pub(super) fn specs(
    link: &mut Link,
    region_size: impl Fn(u8) -> u64,
) -> Result<[Option<BarSpec>; 7], ClientError> {
    let mut size = |at: u16| -> Result<(u32, u32), ClientError> {
        let mut before = [0; 4];
        link.read(region::CONFIG, at.into(), &mut before)?;
        link.write(region::CONFIG, at.into(), &u32::MAX.to_le_bytes())?;
        let mut ones = [0; 4];
        link.read(region::CONFIG, at.into(), &mut ones)?;
        link.write(region::CONFIG, at.into(), &before)?;
        Ok((u32::from_le_bytes(before), u32::from_le_bytes(ones)))
    };
    let mut specs = [None; 7];
    let mut upper_half = false;
    for (index, slot) in (0_u8..).zip(&mut specs) {
        if std::mem::take(&mut upper_half) {
            continue;
        }
        let register =
            if index == ROM_BAR { header::ROM } else { header::BAR0 + 4 * u16::from(index) };
        let (before, ones) = size(register)?;
        if ones == 0 {
            continue;
        }
        let kind = match index {
            ROM_BAR => BarKind::Rom,
            _ if before & bar::IO != 0 => BarKind::Io,
            _ if before & bar::MEMORY_64 != 0 => BarKind::Memory64,
            _ => BarKind::Memory32,
        };
        let (flags, high) = match kind {
            BarKind::Io if ones >> 16 == 0 => (bar::IO_FLAGS, 0xffff_ffff_ffff_0000),
            BarKind::Io => (bar::IO_FLAGS, u64::from(u32::MAX) << 32),
            BarKind::Memory32 => (bar::MEMORY_FLAGS, u64::from(u32::MAX) << 32),
            BarKind::Memory64 if index < 5 => {
                upper_half = true;
                (bar::MEMORY_FLAGS, u64::from(size(register + 4)?.1) << 32)
            }
            BarKind::Memory64 => {
                return Err(ClientError::Unsuited("its BAR 5 is a 64-bit one"));
            }
            BarKind::Rom => (0x7ff, u64::from(u32::MAX) << 32),
        };
        let size = (high | u64::from(ones & !flags)).wrapping_neg();
        if !size.is_power_of_two() || size != region_size(index) {
            return Err(ClientError::Unsuited("its BARs are not what its regions are"));
        }
        let memory = matches!(kind, BarKind::Memory32 | BarKind::Memory64);
        let prefetchable = memory && before & bar::PREFETCHABLE != 0;
        *slot = Some(BarSpec { kind, size, prefetchable });
    }
    Ok(specs)
}

/// The doorbells of a BAR. A place outside of it is none.
pub(super) fn doorbells(link: &mut Link, bar: u8, size: u64) -> Result<Vec<Doorbell>, ClientError> {
    if size == 0 {
        return Ok(Vec::new());
    }
    let list = link.io_fds(bar.into())?;
    let bells = list.into_iter().filter_map(|place| {
        let end = place.offset.checked_add(place.len.max(1).into())?;
        let event = sys::eventfd(place.event).filter(|_| end <= size)?;
        Some(Doorbell { bar, offset: place.offset, len: place.len, value: place.value, event })
    });
    Ok(bells.collect())
}

/// The pages that may be read without asking.
pub(super) fn windows(regions: Vec<RegionInfo>) -> Result<Vec<ReadWindow>, ClientError> {
    let mut windows = Vec::new();
    for (bar, info) in (0_u8..6).zip(regions) {
        let Some(file) = info.file else { continue };
        for (offset, len) in info.areas {
            let end = offset.checked_add(len).ok_or(ClientError::Malformed)?;
            let at = info.file_offset.checked_add(offset).ok_or(ClientError::Malformed)?;
            let len = usize::try_from(len).map_err(|_| ClientError::Malformed)?;
            if end > info.size {
                return Err(ClientError::Malformed);
            }
            let file = File::from(file.try_clone()?);
            let page = Arc::new(SharedPage::of_other(file, at, len)?);
            windows.push(ReadWindow { bar, offset, page });
        }
    }
    Ok(windows)
}

/// Gives the server all of the guest's memory: what is in files to be mapped, the rest to be read and written by
/// messages. Returns who answers these, if there are any to be answered.
pub(super) fn share<A: DmaSpace>(
    link: &mut Link,
    memory: &A,
) -> Result<Option<Attendant>, ClientError> {
    let now = memory.memory();
    let physical = now.physical_memory();
    let physical = physical.ok_or(ClientError::Unsuited("guest memory is behind an IOMMU"))?;
    let range = |start: u64, len: u64| Some(start..start.checked_add(len)?);
    let ranges = physical.iter().filter_map(|part| range(part.start_addr().0, part.len()));
    let attendant = if physical.iter().all(|part| part.file_offset().is_some()) {
        None
    } else {
        Some(link.lend(Arc::new(Lent::new(memory.clone(), ranges.collect())))?)
    };
    for part in physical.iter() {
        let (start, len) = (part.start_addr().0, part.len());
        let mapped = match part.file_offset() {
            Some(file) => link.dma_map(start, len, Some(file.file().as_fd()), file.start()),
            None => link.dma_map(start, len, None, 0),
        };
        match mapped {
            Err(ClientError::Refused { errno: libc::EOPNOTSUPP, .. })
                if part.file_offset().is_none() =>
            {
                return Err(ClientError::NoFile(start));
            }
            mapped => mapped?,
        }
    }
    Ok(attendant)
}
