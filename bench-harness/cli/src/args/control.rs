//! What `paraslot control` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

#[derive(Clone, Debug, Args)]
pub(crate) struct ControlArgs {
    /// The path that was given as --control.
    pub(crate) path: PathBuf,
    /// Print the answer as it came: a line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) command: Ordered,
}

/// What devices are told.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Ordered {
    /// Show the devices: their names here, sizes, links and limits.
    List,
    /// Change limits: iops and bps of a disk, fps and bps of an adapter, like iops=2K or bps=off. Those that
    /// are not given stay. What waits for its limit learns of it within a tenth of a second.
    Limit {
        /// The device.
        device: String,
        /// NAME=RATE: a number a second, with K, M or G for thousands, millions or thousand millions; or off.
        #[arg(required = true, value_name = "LIMIT")]
        limits: Vec<String>,
    },
    /// Look at the size of a disk's image again, which has grown, and tell the guest. pvscsi has no event
    /// for that: Linux looks when 1 is written to the disk's device/rescan.
    Resize {
        /// The device.
        device: String,
    },
    /// Plug a network adapter's cable in, or pull it.
    Link {
        /// The device.
        device: String,
        /// What becomes of the link.
        state: Switch,
    },
    /// Take a function out of a guest. Nothing tells the guest: have it let go first, by writing 1 to
    /// /sys/bus/pci/devices/0000:00:05.0/remove, or it is as if the hardware was pulled.
    Unplug {
        /// The device.
        device: String,
    },
    /// Put a function in, like `virtio-blk,path=disk.img,addr=5`. The guest finds it when 1 is written to its
    /// /sys/bus/pci/rescan. Paths are as the other program sees them.
    Plug {
        /// The device, as for --device.
        spec: String,
    },
}

/// What a link can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// The cable is plugged in.
    Up,
    /// It is not.
    Down,
}
