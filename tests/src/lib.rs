//! What the tests that span crates share.

pub mod bench;
pub mod fuzz;
pub mod image;
pub mod memory;
pub mod scripts;
pub mod targets;
