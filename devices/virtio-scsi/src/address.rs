//! How requests and events name units (5.6.6.1).

use paraslot_scsi::{Address, Bus};
use paraslot_spec::scsi::lun;
use paraslot_spec::virtio_scsi::Lun;

/// Whom a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whom {
    /// A unit, which may or may not be there.
    Unit(Address),
    /// The well-known unit REPORT LUNS.
    ReportLuns(Scope),
}

/// What a well-known unit REPORT LUNS reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The units of all targets, as this device names them.
    Device,
    /// The units of one target, which may or may not be there.
    Target(u8),
}

/// The single level LUN behind the target.
fn level([_, _, rest @ ..]: [u8; 8]) -> [u8; 8] {
    let mut level = [0; 8];
    for (to, from) in level.iter_mut().zip(rest) {
        *to = from;
    }
    level
}

/// Whom `lun` means: a unit by peripheral or flat space addressing, or a well-known unit. `None` for
/// any other form, which means nobody.
pub(crate) fn decode(lun: Lun) -> Option<Whom> {
    if lun == Lun::REPORT_LUNS {
        return Some(Whom::ReportLuns(Scope::Device));
    }
    let target = target(lun)?;
    let level = level(lun.0);
    if level == lun::WELL_KNOWN_REPORT_LUNS {
        return Some(Whom::ReportLuns(Scope::Target(target)));
    }
    lun::decode(level).map(|lun| Whom::Unit(Address { target, lun }))
}

/// The target in `lun`, whatever else is in it.
pub(crate) fn target(lun: Lun) -> Option<u8> {
    let [Lun::TARGET, target, ..] = lun.0 else { return None };
    Some(target)
}

/// The name of a unit in events and reports. LUNs are as REPORT LUNS has them: Linux takes an event's
/// to be one that it has from there.
pub(crate) fn encode(address: Address) -> Lun {
    let [first, second, ..] = lun::encode(address.lun);
    Lun([Lun::TARGET, address.target, first, second, 0, 0, 0, 0])
}

/// Whether a target has any unit.
pub(crate) fn exists(bus: &Bus, target: u8) -> bool {
    bus.addresses().iter().any(|address| address.target == target)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(target: u8, lun: u16) -> Option<Whom> {
        Some(Whom::Unit(Address { target, lun }))
    }

    // inline.scsi.6, inline.scsi.7: both addressing methods, the well-known unit, and nothing else.
    #[test]
    fn the_forms_that_mean_somebody() {
        for (bytes, whom) in [
            ([1, 0, 0, 0, 0, 0, 0, 0], unit(0, 0)),
            ([1, 0, 0x40, 0, 0, 0, 0, 0], unit(0, 0)),
            ([1, 255, 0, 255, 0, 0, 0, 0], unit(255, 255)),
            ([1, 7, 0x41, 2, 0, 0, 0, 0], unit(7, 258)),
            ([1, 7, 0x7f, 0xff, 0, 0, 0, 0], unit(7, 16383)),
            ([0xc1, 1, 0, 0, 0, 0, 0, 0], Some(Whom::ReportLuns(Scope::Device))),
            ([1, 3, 0xc1, 1, 0, 0, 0, 0], Some(Whom::ReportLuns(Scope::Target(3)))),
            // Another first byte, another bus, other methods, other well-known units, a second level.
            ([0, 0, 0, 0, 0, 0, 0, 0], None),
            ([2, 0, 0, 0, 0, 0, 0, 0], None),
            ([1, 0, 1, 0, 0, 0, 0, 0], None),
            ([1, 0, 0x80, 0, 0, 0, 0, 0], None),
            ([1, 0, 0xc0, 0, 0, 0, 0, 0], None),
            ([1, 0, 0xc1, 2, 0, 0, 0, 0], None),
            ([0xc1, 2, 0, 0, 0, 0, 0, 0], None),
            ([0xc1, 1, 0, 0, 0, 0, 0, 1], None),
            ([1, 0, 0, 0, 1, 0, 0, 0], None),
            ([1, 0, 0, 0, 0, 0, 0, 1], None),
        ] {
            assert_eq!(decode(Lun(bytes)), whom, "{bytes:x?}");
        }
    }

    #[test]
    fn every_unit_has_one_name() {
        for lun in 0..=lun::FLAT_MAX {
            assert_eq!(decode(encode(Address { target: 9, lun })), unit(9, lun));
            assert_eq!(decode(Lun::new(9, lun)), unit(9, lun));
        }
        assert_eq!(encode(Address { target: 9, lun: 255 }).0[2..4], [0, 255]);
        assert_eq!(encode(Address { target: 9, lun: 256 }).0[2..4], [0x41, 0]);
    }
}
