//! The bus as a lane knows it.

use std::sync::Arc;

use crate::bus::{Address, Port};
use crate::nexus::Nexus;

/// A unit, and what the lane has of it.
pub(super) struct Unit {
    pub(super) nexus: Arc<Nexus>,
    /// Commands under way.
    pub(super) commands: usize,
    /// The queue to its medium, and which medium that is.
    pub(super) queue: Option<(u64, usize)>,
    /// It is not on the bus any more.
    gone: bool,
}

/// A copy of the bus's inventory, which is made anew when the bus has another one. Units are known by
/// a number, which is theirs until they are gone and their commands have ended.
#[derive(Default)]
pub(super) struct View {
    generation: Option<u64>,
    units: Vec<Option<Unit>>,
    /// Where they are, in order.
    addresses: Vec<(Address, usize)>,
    last: Option<(Address, usize)>,
    /// Units that are gone and still in `units`.
    gone: usize,
}

impl View {
    /// The number of the unit at `address`.
    pub(super) fn find(&mut self, port: &Port, address: Address) -> Option<usize> {
        self.refresh(port);
        if let Some((last, number)) = self.last
            && last == address
        {
            return Some(number);
        }
        let at = self.addresses.binary_search_by_key(&address, |entry| entry.0).ok()?;
        self.last = self.addresses.get(at).copied();
        self.last.map(|(_, number)| number)
    }

    /// Whether there is any unit at this target, as of the last [`find`](Self::find).
    pub(super) fn has_target(&self, target: u8) -> bool {
        self.addresses.iter().any(|(address, _)| address.target == target)
    }

    pub(super) fn get(&self, number: usize) -> Option<&Unit> {
        self.units.get(number)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut Unit> {
        self.units.get_mut(number)?.as_mut()
    }

    /// Copies the inventory if it is another one.
    pub(super) fn refresh(&mut self, port: &Port) {
        if self.generation == Some(port.generation()) {
            return;
        }
        let (generation, there) = port.view();
        self.generation = Some(generation);
        self.last = None;
        self.addresses.clear();
        for unit in self.units.iter_mut().flatten() {
            if !unit.gone && !there.iter().any(|nexus| Arc::ptr_eq(nexus, &unit.nexus)) {
                unit.gone = true;
                self.gone += 1;
            }
        }
        for nexus in there {
            let known = self.units.iter().position(|unit| {
                unit.as_ref().is_some_and(|unit| Arc::ptr_eq(&unit.nexus, &nexus))
            });
            let address = nexus.address;
            let number = known.unwrap_or_else(|| self.add(nexus));
            self.addresses.push((address, number));
        }
    }

    fn add(&mut self, nexus: Arc<Nexus>) -> usize {
        let unit = Some(Unit { nexus, commands: 0, queue: None, gone: false });
        if let Some(number) = self.units.iter().position(Option::is_none) {
            self.units[number] = unit;
            return number;
        }
        self.units.push(unit);
        self.units.len() - 1
    }

    /// Takes out a unit that is gone and has no commands any more.
    pub(super) fn reap(&mut self) -> Option<Unit> {
        if self.gone == 0 {
            return None;
        }
        let over = |unit: &mut Unit| unit.gone && unit.commands == 0;
        let unit = self.units.iter_mut().find_map(|unit| unit.take_if(over))?;
        self.gone -= 1;
        Some(unit)
    }
}
