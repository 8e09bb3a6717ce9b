//! Devices behind a vfio-user server, with the drivers that know nothing of it: all that is asked of a function
//! in the machine's own process, and what serving adds.

#[path = "../in_process/controls.rs"]
mod controls;
#[path = "../in_process/counts.rs"]
mod counts;
#[path = "../in_process/e1000/mod.rs"]
mod e1000;
#[path = "../in_process/errors.rs"]
mod errors;
#[path = "../in_process/hostile.rs"]
mod hostile;
mod killed;
#[path = "../in_process/lifecycle.rs"]
mod lifecycle;
#[path = "../in_process/limits.rs"]
mod limits;
#[path = "../in_process/machine.rs"]
mod machine;
#[path = "../in_process/net/mod.rs"]
mod net;
mod place;
#[path = "../in_process/removal.rs"]
mod removal;
#[path = "../in_process/requests.rs"]
mod requests;
#[path = "../in_process/scsi_counts.rs"]
mod scsi_counts;
mod serving;
#[path = "../in_process/tasks.rs"]
mod tasks;
mod unshared;
#[path = "../in_process/vmxnet3/mod.rs"]
mod vmxnet3;
#[path = "../in_process/workloads.rs"]
mod workloads;
