//! What is written down of a device.

use paraslot_device::DeviceError;
use paraslot_pci::PciDevice;
use serde::Serialize;

/// Whether the guest's driver knows that there is no hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// It does, and works together with the back-end.
    Paravirtual,
    /// It takes the device for a piece of hardware.
    Emulated,
}

/// What it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Disks.
    Disk,
    /// Networks.
    Network,
}

/// One device.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// Its name, as on a command line.
    pub name: &'static str,
    /// Paravirtual or emulated.
    pub family: Family,
    /// What it is for.
    pub kind: Kind,
    /// What it is, in a few words.
    pub title: &'static str,
    /// What it is and what for, in a few sentences.
    pub summary: &'static str,
    /// Who made it, and when.
    pub history: &'static str,
    /// What says how it has to behave.
    pub specification: &'static str,
    /// The crate that it is in.
    pub package: &'static str,
    /// Systems with a driver.
    pub drivers: &'static [Driver],
    /// What it can start.
    pub boot: Boot,
    /// What it can do, and what it cannot.
    pub features: &'static [Feature],
    /// How much of it.
    pub limits: &'static [Limit],
    /// Its registers.
    pub registers: &'static [Block],
    /// What can be done to it while a guest uses it.
    pub operations: Operations,
    /// What it exposes.
    pub security: Security,
    /// How a VMM makes one, in Rust.
    pub constructor: &'static str,
    /// What others call it.
    pub elsewhere: &'static [Door],
    /// When to choose another.
    pub instead: &'static [Instead],
    /// Makes one with everything on that it can have.
    #[serde(skip)]
    pub make: fn() -> Result<Box<dyn PciDevice>, DeviceError>,
}

/// A system's driver.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Driver {
    /// The system.
    pub system: &'static str,
    /// The driver's name there.
    pub driver: &'static str,
    /// The first version that had it, for this interface of the device.
    pub since: &'static str,
    /// Whether the system comes with it.
    pub in_box: InBox,
    /// What else there is to know; may be empty.
    pub note: &'static str,
}

/// Where a driver comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum InBox {
    /// The system has it, its installer too.
    Installer,
    /// The installed system has it.
    System,
    /// It is to be fetched.
    Extra,
    /// There is none.
    Nobody,
}

/// What it can start, a sentence each.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Boot {
    /// By which firmware a guest boots from it.
    pub firmware: &'static str,
    /// Whether from a network.
    pub pxe: &'static str,
    /// Whether as a CD-ROM drive.
    pub cdrom: &'static str,
    /// Whether a guest that comes from VMware finds it.
    pub from_vmware: &'static str,
}

/// What a device makes of a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does what the specification says.
    Implemented,
    /// A driver can have it, and nothing comes of it.
    Accepted,
    /// A driver is told that it is not there.
    Refused,
}

/// A feature.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Feature {
    /// Its name, as the specification writes it.
    pub name: &'static str,
    /// What the device makes of it.
    pub state: State,
    /// What it is, and on what it depends here or why it is not there.
    pub note: &'static str,
    /// How a guest sees whether it is there.
    #[serde(skip)]
    pub evidence: Evidence,
}

/// How a guest sees whether a feature is there. A test asks a live device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// A bit of virtio's device features (VIRTIO 1.4, 2.2).
    VirtioBit(u8),
    /// Bits of a register of 32 bits.
    Bits {
        /// The BAR.
        bar: u8,
        /// Offset in it.
        offset: u64,
        /// The bits that tell.
        mask: u32,
        /// What they are if it is there.
        value: u32,
    },
    /// What a register reads after a command was written to another; both of 32 bits.
    Answer {
        /// The BAR.
        bar: u8,
        /// Where the command goes.
        command: u64,
        /// The command.
        write: u32,
        /// Where the answer is.
        answer: u64,
        /// The bits that tell.
        mask: u32,
        /// What they are if it is there.
        value: u32,
    },
    /// A capability with that ID.
    Capability(u8),
    /// Nothing that could be read.
    Told,
}

/// A limit.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Limit {
    /// Of what.
    pub name: &'static str,
    /// How much, with the unit.
    pub value: &'static str,
    /// Why, or on what it depends; may be empty.
    pub note: &'static str,
    /// Where a guest reads it, and what it reads there, if it does.
    #[serde(skip)]
    pub evidence: Option<Report>,
}

/// A number that a device with everything on tells of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The BAR.
    pub bar: u8,
    /// Offset in it.
    pub offset: u64,
    /// Bytes.
    pub width: u8,
    /// Where the number starts in them, and how many bits it has.
    pub bits: (u8, u8),
    /// What it is.
    pub value: u64,
}

/// Registers that belong together.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Block {
    /// What they are.
    pub name: &'static str,
    /// The BAR.
    pub bar: u8,
    /// Where in it the block begins.
    pub base: u64,
    /// How many blocks there are, and how far apart, in bytes.
    pub repeated: Option<(u16, u64)>,
    /// Whether the registers take values only after features have been negotiated (virtio).
    #[serde(skip)]
    pub negotiated: bool,
    /// The registers.
    pub registers: &'static [Register],
}

/// A register.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Register {
    /// Its name, as the specification writes it.
    pub name: &'static str,
    /// Offset in the block.
    pub offset: u64,
    /// Bytes.
    pub width: u8,
    /// What reads and writes do.
    pub access: Access,
    /// What it is for, and what an access brings about.
    pub effect: &'static str,
}

/// What a guest's reads and writes of a register do to its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Access {
    /// Reads; writes are ignored.
    #[serde(rename = "R")]
    Read,
    /// Some bits at least keep what is written.
    #[serde(rename = "RW")]
    ReadWrite,
    /// Reads; ones that are written clear bits.
    #[serde(rename = "RW1C")]
    WriteOneToClear,
    /// Reads; ones that are written set bits, which the device clears.
    #[serde(rename = "RW1S")]
    WriteOneToSet,
    /// Reading clears it.
    #[serde(rename = "RC")]
    ReadToClear,
    /// A write is a command; reads do not give it back.
    #[serde(rename = "W")]
    Write,
}

impl Access {
    /// As it is abbreviated.
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "R",
            Self::ReadWrite => "RW",
            Self::WriteOneToClear => "RW1C",
            Self::WriteOneToSet => "RW1S",
            Self::ReadToClear => "RC",
            Self::Write => "W",
        }
    }
}

/// What can be done to a device while its guest uses it, a sentence each.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Operations {
    /// Whether it comes and goes as a whole.
    pub hotplug: &'static str,
    /// What comes, goes or changes behind it: units, discs, a link, a size.
    pub changes: &'static str,
    /// How it is reset, by guest and host.
    pub reset: &'static str,
    /// What becomes of it in a snapshot.
    pub snapshot: &'static str,
    /// And in a migration.
    pub migration: &'static str,
    /// Whether it can be behind an IOMMU of the guest's.
    pub viommu: &'static str,
    /// How it is held back.
    pub limits: &'static str,
}

/// What it exposes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Security {
    /// What a guest can reach.
    pub surface: &'static str,
    /// What a guest can cost its host, at most.
    pub footprint: &'static str,
    /// Fuzz targets that have it.
    pub fuzz: &'static [&'static str],
    /// Mistakes in other implementations that were made public.
    pub others: &'static [Attack],
}

/// A mistake in another implementation.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Attack {
    /// Its number.
    pub id: &'static str,
    /// Whose, and what.
    pub what: &'static str,
}

/// A way to a device.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Door {
    /// Whose.
    pub name: &'static str,
    /// What to write.
    pub text: &'static str,
}

/// A reason for another device.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Instead {
    /// When.
    pub when: &'static str,
    /// Which.
    pub choose: &'static str,
}
