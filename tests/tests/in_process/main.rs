//! The drivers against the device models, in this process.

mod counts;
mod errors;
mod hostile;
mod lifecycle;
mod machine;
mod requests;
mod workloads;
