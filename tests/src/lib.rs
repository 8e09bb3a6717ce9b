//! What the tests that span crates share.

pub mod bench;
pub mod cdbs;
pub mod frames;
pub mod fuzz;
pub mod image;
pub mod jobs;
pub mod memory;
pub mod moving;
pub mod parts;
pub mod peer;
pub mod port;
pub mod scripts;
pub mod scsi;
pub mod segments;
pub mod served;
pub mod targets;
pub mod traffic;
pub mod wire;
