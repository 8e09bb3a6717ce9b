//! Two executors: threads, and by hand.

mod manual;
mod threads;

pub use manual::ManualExecutor;
pub use threads::{ThreadExecutor, ThreadOptions, pin_thread, pin_to};
