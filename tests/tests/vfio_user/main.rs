//! Devices behind a vfio-user server, with the drivers that know nothing of it.

mod disks;
mod networks;
mod served;
