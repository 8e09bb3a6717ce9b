//! The drivers against the device models: in this process, and the same tests with the models behind a vfio-user
//! server, of which the drivers know nothing. What serving adds is in `serving` and `killed`.

mod controls;
mod counts;
mod e1000;
mod errors;
mod hostile;
mod killed;
mod lifecycle;
mod limits;
mod machine;
mod net;
mod place;
mod removal;
mod requests;
mod scsi_counts;
mod serving;
mod tasks;
mod unshared;
mod vmxnet3;
mod workloads;
