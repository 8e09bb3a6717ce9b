//! The drivers against the device models, in this process. The same tests, with [`place`] another, are run with
//! the models behind a vfio-user server by the tests of that name.

mod controls;
mod counts;
mod e1000;
mod errors;
mod hostile;
mod lifecycle;
mod limits;
mod machine;
mod net;
mod place;
mod removal;
mod requests;
mod scsi_counts;
mod tasks;
mod vmxnet3;
mod workloads;
