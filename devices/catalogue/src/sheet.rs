//! A device's answers.

use paraslot_device::DeviceError;
use serde::Serialize;

use crate::costs::{self, Costs};
use crate::live::{self, Live};
use crate::{Block, Entry};

/// All that there is to say of a device.
#[derive(Clone, Debug, Serialize)]
pub struct Sheet {
    /// What is written down.
    #[serde(flatten)]
    pub entry: &'static Entry,
    /// What a live one says of itself, made with everything on that it can have.
    pub live: Live,
    /// What its registers hold after power-on: for each block, for each register.
    pub reset_values: Vec<Vec<u64>>,
    /// What it costs.
    pub costs: Costs,
}

impl Sheet {
    /// Asks a live device, and puts together what there is.
    ///
    /// # Errors
    /// When the device cannot be made, for want of memory or descriptors.
    pub fn of(entry: &'static Entry) -> Result<Self, DeviceError> {
        let mut function = (entry.make)()?;
        let function = function.as_mut();
        let live = Live::of(function);
        let mut hold = |block: &Block| {
            let registers = block.registers.iter();
            let mut value =
                |offset, width| live::read(function, block.bar, block.base + offset, width);
            registers.map(|register| value(register.offset, register.width)).collect()
        };
        let reset_values = entry.registers.iter().map(&mut hold).collect();
        Ok(Self { entry, live, reset_values, costs: costs::of(entry.name) })
    }
}
