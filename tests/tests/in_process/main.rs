//! The drivers against the device models, in this process.

mod controls;
mod counts;
mod e1000;
mod errors;
mod hostile;
mod lifecycle;
mod limits;
mod machine;
mod net;
mod removal;
mod requests;
mod scsi_counts;
mod tasks;
mod vmxnet3;
mod workloads;
