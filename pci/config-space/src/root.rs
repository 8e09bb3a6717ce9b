//! The root bus (being written).

/// Bus, device, function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bdf {
    /// Bus, 0 for the root bus.
    pub bus: u8,
    /// Device, 0 to 31.
    pub device: u8,
    /// Function, 0 to 7.
    pub function: u8,
}

/// The root bus.
pub struct RootBus {}

/// One BAR of one function, as a device on a bus of addresses.
pub struct BarWindow {}
