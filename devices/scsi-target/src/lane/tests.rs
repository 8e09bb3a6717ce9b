//! Tests of lanes.

mod commands;
mod orders;
mod plans;
mod random;
mod rig;
mod sleep;
mod swap;
mod units;
