//! The function's BARs: what they are, and which pages of them a host may map.

use paraslot_device::page::PAGE_SIZE;
use paraslot_pci::{BarKind, BarSpec, MsixLayout};
use paraslot_spec::pci::{bar, header, msix};

use crate::capabilities::{CONFIG_LEN, dword};
use crate::function::RegionInfo;

const PAGE: u64 = PAGE_SIZE as u64;
/// Type field of a memory BAR (6.2.5.1).
const MEMORY_TYPE: u32 = 0b11 << 1;

/// The BARs, from the types in configuration space and the sizes of the regions.
pub(crate) fn bars(
    config: &[u8; CONFIG_LEN],
    regions: &[RegionInfo; 6],
) -> Result<[Option<BarSpec>; 6], String> {
    let mut bars = [None; 6];
    let mut upper_half = false;
    for (index, (slot, region)) in (0_u16..).zip(bars.iter_mut().zip(regions)) {
        if std::mem::take(&mut upper_half) {
            if region.size != 0 {
                return Err(format!("BAR {index} is the upper half of a 64-bit one, and a region"));
            }
            continue;
        }
        let size = region.size;
        if size == 0 {
            continue;
        }
        let value = dword(config, header::BAR0 + 4 * index);
        let kind = match (value & bar::IO != 0, value & MEMORY_TYPE) {
            (true, _) => BarKind::Io,
            (_, 0) => BarKind::Memory32,
            (_, bar::MEMORY_64) => BarKind::Memory64,
            _ => return Err(format!("BAR {index} is of an unknown type, {value:#x}")),
        };
        let (least, most) = match kind {
            BarKind::Io => (4, 256),
            BarKind::Memory64 => (16, 1 << 63),
            _ => (16, 1 << 31),
        };
        if !size.is_power_of_two() || !(least..=most).contains(&size) {
            return Err(format!("BAR {index} cannot have {size:#x} bytes"));
        }
        upper_half = kind == BarKind::Memory64;
        if upper_half && index == 5 {
            return Err("BAR 5 is a 64-bit one, and has no upper half".to_owned());
        }
        let prefetchable = kind != BarKind::Io && value & bar::PREFETCHABLE != 0;
        *slot = Some(BarSpec { kind, size, prefetchable });
    }
    Ok(bars)
}

/// Where the MSI-X table and the pending bits are: BAR, first byte, and the one behind the last.
pub(crate) fn structures(layout: &MsixLayout) -> [(u8, u64, u64); 2] {
    let vectors = u64::from(layout.vectors);
    let place = |(bar, at): (u8, u32), len: u64| (bar, u64::from(at), u64::from(at) + len);
    [place(layout.table, vectors * msix::ENTRY_LEN), place(layout.pba, vectors.div_ceil(64) * 8)]
}

/// Whether the MSI-X structures are where they can be: in memory BARs, and apart.
pub(crate) fn check_msix(layout: &MsixLayout, bars: &[Option<BarSpec>; 6]) -> Result<(), String> {
    let structures = structures(layout);
    for (name, (index, start, end)) in ["table", "pending bits"].into_iter().zip(structures) {
        let spec = bars.get(usize::from(index)).copied().flatten();
        let fits = spec.is_some_and(|spec| spec.kind != BarKind::Io && end <= spec.size);
        if !fits {
            return Err(format!("its MSI-X {name} would be at {start:#x} of BAR {index}"));
        }
    }
    let [(table_bar, table, table_end), (pba_bar, pba, pba_end)] = structures;
    if table_bar == pba_bar && table < pba_end && pba < table_end {
        return Err("its MSI-X table and pending bits overlap".to_owned());
    }
    Ok(())
}

/// Offset and length of the pages of a BAR that can be mapped: whole pages, without any that hold part
/// of an MSI-X structure.
pub(crate) fn windows(
    index: u8,
    spec: BarSpec,
    region: &RegionInfo,
    msix: Option<&MsixLayout>,
) -> Vec<(u64, u64)> {
    if spec.kind == BarKind::Io {
        return Vec::new();
    }
    let down = |at: u64| at - at % PAGE;
    let structures = msix.map(structures).into_iter().flatten();
    let mut holes: Vec<_> = structures
        .filter(|(bar, ..)| *bar == index)
        .map(|(_, start, end)| (down(start), end.next_multiple_of(PAGE)))
        .collect();
    // What is mapped is taken out as well, should areas overlap.
    let mut windows = Vec::new();
    for (offset, len) in &region.mappable {
        let Some(end) = offset.checked_add(*len) else { continue };
        let Some(start) = offset.checked_next_multiple_of(PAGE) else { continue };
        let end = down(end.min(spec.size));
        holes.sort_unstable();
        let mut at = start;
        for (from, to) in &holes {
            if at < (*from).min(end) {
                windows.push((at, (*from).min(end) - at));
            }
            at = at.max(*to);
        }
        if at < end {
            windows.push((at, end - at));
        }
        if start < end {
            holes.push((start, end));
        }
    }
    windows.sort_unstable();
    windows
}

#[cfg(test)]
mod tests;
