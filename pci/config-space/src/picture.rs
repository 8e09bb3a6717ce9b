//! Configuration space, read back: who a function is, and its capabilities in words.
//!
//! [`Picture::of`] takes the bytes as they are, whoever they are from: a model's, a served function's, or
//! those that a host's sysfs shows of its hardware. Nothing in them is believed; a list that leads in a circle
//! ends there, and says so.

mod extended;
mod standard;

use serde::Serialize;

use paraslot_spec::pci::{Status, header};

/// Conventional configuration space, in bytes.
const CONVENTIONAL: usize = 256;
/// Where the extended capabilities begin (PCI Express Base 5.0, 7.6.2).
const EXTENDED: u16 = 0x100;
/// Extended capabilities that there is room for: each takes 4 bytes at least.
const MOST_EXTENDED: usize = (4096 - 256) / 4;
/// Conventional ones.
const MOST: usize = (CONVENTIONAL - header::END as usize) / 4;

/// What a function's configuration space says of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Picture {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Subsystem vendor ID; 0 in a header that has none.
    pub subsystem_vendor: u16,
    /// Subsystem ID, likewise.
    pub subsystem: u16,
    /// Base class, sub-class, programming interface.
    pub class: [u8; 3],
    /// Revision ID.
    pub revision: u8,
    /// Header type: 0 for a function, 1 for a bridge.
    pub header_type: u8,
    /// Whether the device has more functions than this.
    pub multifunction: bool,
    /// The INTx pin, A to D.
    pub pin: Option<char>,
    /// The capabilities, in the order of their list, extended ones last.
    pub capabilities: Vec<Capability>,
    /// What is wrong with the lists.
    pub faults: Vec<ListFault>,
    /// Bytes that there were to be read. Linux shows 64 of hardware to whoever is not root, and then there
    /// are no capabilities to be seen.
    pub seen: usize,
}

/// A capability.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capability {
    /// Where it is, in configuration space.
    pub offset: u16,
    /// Its ID: of the extended ones if it is behind 0x100.
    pub id: u16,
    /// Its name; empty for an ID that this does not know.
    pub name: &'static str,
    /// What it says, a fact each.
    pub facts: Vec<String>,
}

/// A capability list that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
pub enum ListFault {
    /// A pointer leads into the header.
    #[error("capability list leads into the header, to {0:#x}")]
    IntoHeader(u16),
    /// A pointer leads back to where the list has been.
    #[error("capability list does not end: it comes back to {0:#x}")]
    Endless(u16),
    /// An extended capability's pointer leads out of extended configuration space.
    #[error("extended capability list leads out of its place, to {0:#x}")]
    OutOfPlace(u16),
}

impl Picture {
    /// What `config`, from configuration space's first byte on, says. What is beyond its end reads as zeroes.
    pub fn of(config: &[u8]) -> Self {
        let kind = byte(config, header::HEADER_TYPE);
        let header_type = kind & 0x7f;
        let subsystem = |at| if header_type == 0 { word(config, at) } else { 0 };
        let mut faults = Vec::new();
        let list = walk(config).unwrap_or_else(|(list, fault)| {
            faults.push(fault);
            list
        });
        let mut capabilities: Vec<Capability> =
            list.iter().map(|at| standard::read(config, *at)).collect();
        let list = walk_extended(config).unwrap_or_else(|(list, fault)| {
            faults.push(fault);
            list
        });
        capabilities.extend(list.iter().map(|at| extended::read(config, *at)));
        let class = header::CLASS_CODE;
        Self {
            vendor: word(config, header::VENDOR_ID),
            device: word(config, header::DEVICE_ID),
            subsystem_vendor: subsystem(header::SUBSYSTEM_VENDOR_ID),
            subsystem: subsystem(header::SUBSYSTEM_ID),
            class: [byte(config, class + 2), byte(config, class + 1), byte(config, class)],
            revision: byte(config, header::REVISION_ID),
            header_type,
            multifunction: kind & 0x80 != 0,
            pin: match byte(config, header::INTERRUPT_PIN) {
                pin @ 1..=4 => Some(char::from(b'A' + pin - 1)),
                _ => None,
            },
            capabilities,
            faults,
            seen: config.len(),
        }
    }
}

/// The offsets of the conventional capabilities, in the order of their list.
///
/// # Errors
/// Those up to the pointer that makes no sense, and what is wrong with it.
pub fn walk(config: &[u8]) -> Result<Vec<u16>, (Vec<u16>, ListFault)> {
    let mut list = Vec::new();
    if word(config, header::STATUS) & Status::CAPABILITIES.bits() == 0 {
        return Ok(list);
    }
    let mut pointer = byte(config, header::CAPABILITIES);
    loop {
        // The two low bits are reserved (6.7).
        let at = u16::from(pointer & !3);
        // What cannot be read does not lead on.
        if at == 0 || usize::from(at) >= config.len() {
            return Ok(list);
        }
        if at < header::END {
            return Err((list, ListFault::IntoHeader(at)));
        }
        if list.contains(&at) || list.len() >= MOST {
            return Err((list, ListFault::Endless(at)));
        }
        list.push(at);
        pointer = byte(config, at.saturating_add(1));
    }
}

/// The same of the extended ones (PCI Express Base 5.0, 7.6.3).
fn walk_extended(config: &[u8]) -> Result<Vec<u16>, (Vec<u16>, ListFault)> {
    let mut list = Vec::new();
    let mut at = EXTENDED;
    loop {
        let head = dword(config, at);
        // Neither does one whose place reads as ones, as from a bus without extended configuration space.
        if head == 0 || head == u32::MAX {
            return Ok(list);
        }
        list.push(at);
        let [.., low, high] = head.to_le_bytes();
        let next = (u16::from_le_bytes([low, high]) >> 4) & !3;
        if next == 0 {
            return Ok(list);
        }
        if !(EXTENDED..4096).contains(&next) {
            return Err((list, ListFault::OutOfPlace(next)));
        }
        if list.contains(&next) || list.len() >= MOST_EXTENDED {
            return Err((list, ListFault::Endless(next)));
        }
        at = next;
    }
}

fn byte(bytes: &[u8], at: u16) -> u8 {
    bytes.get(usize::from(at)).copied().unwrap_or(0)
}

fn word(bytes: &[u8], at: u16) -> u16 {
    u16::from_le_bytes([byte(bytes, at), byte(bytes, at.saturating_add(1))])
}

fn dword(bytes: &[u8], at: u16) -> u32 {
    u32::from(word(bytes, at)) | (u32::from(word(bytes, at.saturating_add(2))) << 16)
}

#[cfg(test)]
mod tests;
