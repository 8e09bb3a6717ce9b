//! The ways from an initiator to a unit. Every test takes all that there are.

use std::sync::Arc;

use paraslot_scsi::{Address, Bus, BusOptions, Initiator as Name, LogicalUnit};

use crate::initiator::{HERE, Initiator};

/// A way.
pub(crate) trait Way {
    /// Whether the transport sends sense data along with CHECK CONDITION.
    const AUTOSENSE: bool = true;

    /// Has initiators, each with its own bus, see these units. Their attentions after power-on are
    /// pending.
    fn with<const N: usize>(
        units: &[(Address, Arc<LogicalUnit>)],
        test: impl FnOnce([&mut dyn Initiator; N]),
    );
}

/// A bus of the `index`th initiator with these units.
pub(crate) fn bus(index: usize, units: &[(Address, Arc<LogicalUnit>)]) -> Bus {
    let bus = Bus::new(BusOptions {
        initiator: Name(format!("initiator {index}")),
        max_target: 15,
        max_lun: 1023,
        autosense: true,
    });
    for (address, unit) in units {
        bus.attach(*address, unit.clone()).expect("a free place");
    }
    bus
}

/// One initiator and one unit, whose attentions have been reported.
pub(crate) fn one<W: Way>(unit: &Arc<LogicalUnit>, test: impl FnOnce(&mut dyn Initiator)) {
    W::with(&[(HERE, unit.clone())], |[it]| {
        it.attentions();
        test(it);
    });
}

/// The same with two who share it.
pub(crate) fn two<W: Way>(
    unit: &Arc<LogicalUnit>,
    test: impl FnOnce(&mut dyn Initiator, &mut dyn Initiator),
) {
    W::with(&[(HERE, unit.clone())], |[one, other]| {
        one.attentions();
        other.attentions();
        test(one, other);
    });
}

/// Tests of these names, each for every way that reaches a bus.
macro_rules! on_every_way {
    ($($name:ident),+ $(,)?) => {
        $crate::ways::on_way!(lane, $crate::lane::OnLane, $($name),+);
        $crate::ways::on_way!(virtio_scsi, $crate::drivers::ByVirtioScsi, $($name),+);
        $crate::ways::on_way!(pvscsi, $crate::drivers::ByPvscsi, $($name),+);
    };
}

/// Tests of these names, each also for a drive behind AHCI.
macro_rules! on_every_way_to_a_drive {
    ($($name:ident),+ $(,)?) => {
        $crate::ways::on_every_way!($($name),+);
        $crate::ways::on_way!(atapi, $crate::atapi::ByAtapi, $($name),+);
    };
}

macro_rules! on_way {
    ($module:ident, $way:ty, $($name:ident),+) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    super::$name::<$way>();
                }
            )+
        }
    };
}

pub(crate) use {on_every_way, on_every_way_to_a_drive, on_way};
