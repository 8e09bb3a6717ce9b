//! Vital product data (SPC-4, 7.8; SBC-3).

use paraslot_spec::scsi::vpd::{
    HEADER, block_characteristics, block_limits, designator, extended_inquiry, page, provisioning,
};

use super::block::{MAX_TRANSFER, max_compare};
use super::context::{cap16, cap32, len16, put};
use super::inquiry::{padded, peripheral};
use super::unmap::MAX_UNMAP_BYTES;
use super::write_same::MAX_WRITE_SAME;
use crate::plan::MAX_UNMAP;
use crate::unit::{Kind, LogicalUnit};

/// A page's code, and what makes it, without its header; `None` if this unit has no such page.
type Page = (u8, fn(&LogicalUnit) -> Option<Vec<u8>>);

/// All pages, in the order of their codes.
const PAGES: [Page; 7] = [
    (page::SUPPORTED, |unit| Some(supported(unit))),
    (page::SERIAL, serial),
    (page::IDENTIFICATION, |unit| Some(identification(unit))),
    (page::EXTENDED_INQUIRY, |unit| Some(extended_inquiry(unit))),
    (page::BLOCK_LIMITS, block_limits),
    (page::BLOCK_CHARACTERISTICS, block_characteristics),
    (page::PROVISIONING, provisioning),
];

/// The page with this code, with its header, if there is one.
pub(super) fn page(unit: &LogicalUnit, code: u8) -> Option<Vec<u8>> {
    let (_, make) = PAGES.iter().find(|(other, _)| *other == code)?;
    let body = make(unit)?;
    let [high, low] = len16(&body);
    let mut page = vec![peripheral(unit), code, high, low];
    page.extend(body);
    Some(page)
}

fn supported(unit: &LogicalUnit) -> Vec<u8> {
    let there = |&&(code, make): &&Page| code == page::SUPPORTED || make(unit).is_some();
    PAGES.iter().filter(there).map(|(code, _)| *code).collect()
}

fn serial(unit: &LogicalUnit) -> Option<Vec<u8>> {
    let serial = &unit.identity.serial;
    (!serial.is_empty()).then(|| serial.clone().into_bytes())
}

/// Names by which the unit is told from all others: none, if it was given none.
fn identification(unit: &LogicalUnit) -> Vec<u8> {
    let identity = &unit.identity;
    let mut body = Vec::new();
    let mut push = |set: u8, kind: u8, name: &[u8]| {
        let len = u8::try_from(name.len()).unwrap_or(u8::MAX);
        body.extend([set, designator::LOGICAL_UNIT | kind, 0, len]);
        body.extend(name.iter().take(len.into()));
    };
    if let Some(name) = identity.world_wide_name {
        push(designator::BINARY, designator::NAA, &name.to_be_bytes());
    }
    if !identity.serial.is_empty() {
        let mut name = padded::<8>(&identity.vendor).to_vec();
        name.extend(padded::<16>(&identity.product));
        name.extend(identity.serial.bytes());
        push(designator::ASCII, designator::T10, &name);
    }
    body
}

/// A page of this PAGE LENGTH that is all zeroes but for fields, each at its place in the page.
fn filled(len: u16, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut body = vec![0; len.into()];
    for (at, value) in fields {
        put(&mut body, at.saturating_sub(HEADER), value);
    }
    body
}

/// Every command is taken as a simple one (SAM-5, 8.6).
fn extended_inquiry(unit: &LogicalUnit) -> Vec<u8> {
    use extended_inquiry::{CACHE, LEN, SIMPSUP, TASK_ATTRIBUTES, V_SUP};
    let cache = if unit.info.volatile_cache { V_SUP } else { 0 };
    filled(LEN, &[(TASK_ATTRIBUTES, &[SIMPSUP]), (CACHE, &[cache])])
}

fn block_limits(unit: &LogicalUnit) -> Option<Vec<u8>> {
    use block_limits as field;
    if unit.kind != Kind::Disk {
        return None;
    }
    let shift = unit.shift();
    let granularity = cap16((unit.info.physical_block >> shift).into());
    let (unmap, descriptors, unmap_granularity) = if unit.thin() {
        let granularity = unit.info.discard_granularity.max(unit.block_size()) >> shift;
        (cap32(MAX_UNMAP_BYTES >> shift), cap32(MAX_UNMAP as u64), granularity)
    } else {
        (0, 0, 0)
    };
    let alignment = if unmap_granularity == 0 { 0 } else { field::UGAVALID };
    Some(filled(
        field::LEN,
        &[
            (field::FLAGS, &[field::WSNZ]),
            (field::MAX_COMPARE_AND_WRITE, &[max_compare(unit)]),
            (field::GRANULARITY, &granularity.to_be_bytes()),
            (field::MAX_TRANSFER, &cap32(MAX_TRANSFER >> shift).to_be_bytes()),
            (field::MAX_UNMAP_BLOCKS, &unmap.to_be_bytes()),
            (field::MAX_UNMAP_DESCRIPTORS, &descriptors.to_be_bytes()),
            (field::UNMAP_GRANULARITY, &unmap_granularity.to_be_bytes()),
            (field::UNMAP_ALIGNMENT, &alignment.to_be_bytes()),
            (field::MAX_WRITE_SAME, &(MAX_WRITE_SAME >> shift).to_be_bytes()),
        ],
    ))
}

fn block_characteristics(unit: &LogicalUnit) -> Option<Vec<u8>> {
    use block_characteristics::{FLAGS, FUAB, LEN, NON_ROTATING, ROTATION};
    (unit.kind == Kind::Disk)
        .then(|| filled(LEN, &[(ROTATION, &NON_ROTATING.to_be_bytes()), (FLAGS, &[FUAB])]))
}

fn provisioning(unit: &LogicalUnit) -> Option<Vec<u8>> {
    use provisioning as field;
    if unit.kind != Kind::Disk {
        return None;
    }
    let mut flags = 0;
    let mut kind = field::TYPE_FULL;
    if unit.thin() {
        flags |= field::LBPU;
        kind = field::TYPE_THIN;
    }
    if unit.info.write_zeroes_unmap {
        flags |= field::LBPWS | field::LBPWS10 | field::LBPRZ;
    }
    Some(filled(field::LEN, &[(field::FLAGS, &[flags]), (field::TYPE, &[kind])]))
}
