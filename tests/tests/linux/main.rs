//! Debian's stock kernel on the devices: drivers that were not written with them in mind bind, the
//! data is intact, and the kernel has nothing to complain about.
//!
//! Linux needs a KVM that runs guest kernels on hardware. Where the host's does, the tests run there;
//! elsewhere each runs itself once more in the [test bed](paraslot_testbed), a machine in software
//! emulation that has such a KVM. Where there is neither, each test says why and passes; with `CI` set
//! in the environment, on a host that can install Debian's packages, it fails.

mod complaints;
mod disks;
mod guest;
mod networks;
mod plugging;
mod world;
