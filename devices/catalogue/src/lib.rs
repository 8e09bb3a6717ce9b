//! The catalogue: what there is to know of each device before choosing one.
//!
//! Each device has an [`Entry`], written beside the code: who made it, which systems bring a driver, what is
//! implemented and what is not, its limits and registers, what each door to it looks like, and when another is
//! the better choice. What a device says of itself is not written down but asked of a live one ([`live`]), and
//! what it costs comes from a record of measurements ([`costs`]). All three are a [`Sheet`], which answers the
//! ten questions that people ask of a device, as text for a terminal, Markdown, JSON, or a page with all devices
//! side by side ([`render`]).
//!
//! ```
//! use paraslot_catalogue::{Sheet, find, render};
//!
//! let entry = find("pvscsi").ok_or("no such device")?;
//! let sheet = Sheet::of(entry)?;
//! assert_eq!((sheet.live.picture.vendor, sheet.live.picture.device), (0x15ad, 0x07c0));
//! assert!(render::markdown(&sheet).starts_with("# pvscsi"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Entries are checked against live devices: features against what a guest is offered, registers against what
//! reads and writes of them do. What no register tells (a driver's history, advice) is the author's word.

pub mod costs;
mod document;
mod doors;
mod entry;
pub mod live;
mod records;
pub mod render;
mod sheet;

pub use entry::{
    Access, Attack, Block, Boot, Door, Driver, Entry, Evidence, Family, Feature, InBox, Instead,
    Kind, Limit, Operations, Register, Report, Security, State,
};
pub use sheet::Sheet;

/// All entries: disks, then networks; in either the paravirtual ones first.
pub fn entries() -> &'static [&'static Entry] {
    &[
        &records::virtio_blk::ENTRY,
        &records::virtio_scsi::ENTRY,
        &records::pvscsi::ENTRY,
        &records::ahci::ENTRY,
        &records::virtio_net::ENTRY,
        &records::vmxnet3::ENTRY,
        &records::e1000::ENTRY,
    ]
}

/// The entry of that name.
pub fn find(name: &str) -> Option<&'static Entry> {
    entries().iter().find(|entry| entry.name == name).copied()
}

#[cfg(test)]
mod tests;
