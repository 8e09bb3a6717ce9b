//! Register layouts and constants of every device's guest interface.
//!
//! Data only, `no_std`, one item per register or structure with its section cited, shared by the
//! device models and the front-end drivers. Integers in structures are little-endian unless said
//! otherwise; reserved fields are private and zero.
//!
//! Sources: PCI Local Bus 3.0 and PCI Express Base 5.0 for [`pci`]; Virtual I/O Device 1.4 for
//! [`virtio`], [`virtio_blk`] and [`virtio_net`]; Serial ATA AHCI 1.3.1 for [`ahci`]; ATA/ATAPI
//! Command Set 4 for [`ata`]; SAM-5, SPC-4, SBC-3 and MMC-6 for [`scsi`]; Intel's PCI/PCI-X Family of
//! Gigabit Ethernet Controllers Software Developer's Manual for [`e1000`]; IEEE 802.3 and the RFCs named
//! there for [`net`]; NVM Express base specification 1.4 for [`nvme`]. For [`pvscsi`] and [`vmxnet3`]
//! there is what VMware's own drivers say.
#![no_std]

pub mod ahci;
pub mod ata;
pub mod e1000;
pub mod net;
pub mod nvme;
pub mod pci;
pub mod pvscsi;
pub mod scsi;
pub mod virtio;
pub mod virtio_blk;
pub mod virtio_net;
pub mod virtio_scsi;
pub mod vmxnet3;
