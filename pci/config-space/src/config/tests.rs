#![expect(clippy::cast_possible_truncation, reason = "numbers chosen to fit")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use paraslot_spec::pci::{Command, capability, express, header, msi, msix, pm};
use proptest::prelude::*;

use super::*;
use crate::testing::{Host, MSIX_BAR, TABLE, VECTORS, build, builder, function, memory};
use crate::{ConfigSpaceBuilder, MsixLayout, ROM_BAR};

const ALL: Command = Command::IO.union(Command::MEMORY).union(Command::BUS_MASTER);

fn enabled(config: &ConfigSpace) -> Vec<u8> {
    let bars = config.bars();
    (0..7).filter(|bar| bars[usize::from(*bar)].is_some_and(|bar| bar.enabled)).collect()
}

fn place(config: &mut ConfigSpace, bar: u8, address: u64) {
    let at = register_of(bar);
    let _ = config.write_u32(at, address as u32);
    if config.bar_specs()[usize::from(bar)].unwrap().kind == BarKind::Memory64 {
        let _ = config.write_u32(at + 4, (address >> 32) as u32);
    }
}

fn place_all(config: &mut ConfigSpace) {
    place(config, 0, 0xe000_0000);
    place(config, 1, 0xc000);
    place(config, 2, 0x12_3456_4000);
    place(config, 4, 0x80_0000_0000);
    place(config, ROM_BAR, 0xf000_0001);
}

#[test]
fn the_header_is_as_built() {
    let (config, _) = function();
    let bytes: Vec<u8> = (0..64).map(|at| config.read_u8(at)).collect();
    assert_eq!(bytes[..16], [0xf4, 0x1a, 0x42, 0x10, 0, 0, 0x10, 0, 3, 5, 0x80, 1, 0, 0, 0, 0]);
    let bars: Vec<u32> = (0..6).map(|bar| config.read_u32(0x10 + 4 * bar)).collect();
    assert_eq!(bars, [0, 1, 0xc, 0, 4, 0]);
    assert_eq!(bytes[0x28..0x34], [0, 0, 0, 0, 0x34, 0x12, 0x78, 0x56, 0, 0, 0, 0]);
    assert_eq!(bytes[0x34..], [0x40, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]);
}

/// 6.2.5.1: all ones written, the size is read back. OpenVMM 985e668a4: the upper half of a 64-bit BAR
/// takes part.
#[test]
fn bars_tell_their_size() {
    let (mut config, _) = function();
    let mut size = |at: u16| {
        let _ = config.write_u32(at, u32::MAX);
        let read = config.read_u32(at);
        let _ = config.write_u32(at, 0);
        read
    };
    assert_eq!(size(0x10), 0xffff_f000);
    assert_eq!(size(0x14), 0xffff_ffe1);
    assert_eq!((size(0x18), size(0x1c)), (0xffff_c00c, 0xffff_ffff));
    assert_eq!((size(0x20), size(0x24)), (0x0000_0004, 0xffff_fff8));
    assert_eq!(size(header::ROM), 0xffff_0001);
}

#[test]
fn bars_go_where_they_are_written() {
    let (mut config, _) = function();
    place_all(&mut config);
    let addresses = config.bars().map(|bar| bar.map(|bar| bar.address));
    assert_eq!(
        addresses,
        [
            Some(0xe000_0000),
            Some(0xc000),
            Some(0x12_3456_4000),
            None,
            Some(0x80_0000_0000),
            None,
            Some(0xf000_0000)
        ]
    );
    // One half at a time, and the high half by bytes: accesses of any width.
    let _ = config.write_u32(0x18, 0x0001_0000);
    assert_eq!(config.bars()[2].unwrap().address, 0x12_0001_0000);
    let _ = config.write(0x1d, &[0xab]);
    assert_eq!(config.bars()[2].unwrap().address, 0xab12_0001_0000);
    // Both halves and the next BAR in one access.
    let _ = config.write(0x18, &[0, 0x40, 0, 0, 2, 0, 0, 0, 0xff, 0xff]);
    assert_eq!(config.bars()[2].unwrap().address, 0x2_0000_4000);
}

#[test]
fn the_command_register_gates_decoding() {
    let (mut config, _) = function();
    place_all(&mut config);
    assert!(enabled(&config).is_empty());
    let _ = config.set_command(Command::IO);
    assert_eq!(enabled(&config), [1]);
    let _ = config.set_command(Command::MEMORY);
    assert_eq!(enabled(&config), [0, 2, 4, 6]);
    // The ROM has a bit of its own as well (6.2.5.2).
    place(&mut config, ROM_BAR, 0xf000_0000);
    assert_eq!(enabled(&config), [0, 2, 4]);
    let _ = config.set_command(ALL);
    assert_eq!(enabled(&config), [0, 1, 2, 4]);
}

/// QEMU 29c6e6df49 and 07ceaf9880: the end of a BAR must not overflow.
#[test]
fn unusable_addresses_do_not_decode() {
    let (mut config, _) = function();
    let _ = config.set_command(ALL);
    assert!(enabled(&config).is_empty(), "address 0 is no address");
    // While being sized with decoding on, as some guests do.
    for bar in [0, 1, 2, 4, ROM_BAR] {
        place(&mut config, bar, u64::MAX);
        assert!(enabled(&config).is_empty(), "BAR {bar}");
    }
    place(&mut config, 0, 0xffff_e000);
    place(&mut config, 1, 0xffe0);
    place(&mut config, 2, u64::MAX - 0x7fff);
    place(&mut config, 4, 0xffff_fff0_0000_0000);
    place(&mut config, ROM_BAR, 0xfffe_0001);
    assert_eq!(enabled(&config), [0, 1, 2, 4, 6]);
    place(&mut config, 1, 0x1_0000);
    assert_eq!(enabled(&config), [0, 2, 4, 6], "beyond the I/O space");
}

#[test]
fn d3hot_switches_the_function_off_and_d0_on_again() {
    let (mut config, host) = function();
    place_all(&mut config);
    assert!(config.set_command(ALL).bus_master_on);
    config.interrupts().set_intx(true);
    assert!(host.level());
    let bus_master = config.bus_master();

    let off = Written { bus_master_off: true, ..Written::default() };
    assert_eq!(config.control(capability::POWER_MANAGEMENT, pm::CONTROL, 3), off);
    assert_eq!((enabled(&config), bus_master.enabled(), host.level()), (vec![], false, false));
    let control = config.find(capability::POWER_MANAGEMENT) + pm::CONTROL;
    assert_eq!(config.read_u16(control), 3 | pm::NO_SOFT_RESET);
    // Configuration space works in D3hot; what it says takes effect in D0.
    place(&mut config, 0, 0xd000_0000);
    assert!(!config.set_command(ALL).bus_master_on);

    assert!(config.control(capability::POWER_MANAGEMENT, pm::CONTROL, 0).bus_master_on);
    assert_eq!((enabled(&config), bus_master.enabled()), (vec![0, 1, 2, 4, 6], true));
    assert_eq!((host.level(), config.bars()[0].unwrap().address), (true, 0xd000_0000));
}

/// PCI Power Management 1.2, 3.2.4: a state that is not supported is not entered.
#[test]
fn unsupported_power_states_are_ignored() {
    let (mut config, _) = function();
    let control = config.find(capability::POWER_MANAGEMENT) + pm::CONTROL;
    for kept in [0, 3] {
        let _ = config.write_u16(control, kept);
        for state in [1, 2] {
            let _ = config.write_u16(control, state | 0xfffc);
            assert_eq!(config.read_u16(control), kept | pm::NO_SOFT_RESET);
        }
    }
}

#[test]
fn bus_mastering_drives_the_gate() {
    let (mut config, _) = function();
    let gate = config.bus_master();
    assert!(!gate.enabled());
    assert!(config.set_command(Command::BUS_MASTER).bus_master_on);
    assert!(!config.set_command(Command::BUS_MASTER).bus_master_on, "it was on");
    assert!(gate.enabled());
    let _ = config.set_command(Command::empty());
    assert!(!gate.enabled());
    let _ = config.set_command(Command::BUS_MASTER);
    config.reset();
    assert!(!gate.enabled());
}

#[test]
fn capabilities_are_linked_in_order() {
    let (config, _) = function();
    let ids: Vec<u8> = config.walk().into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, [0x09, 0x01, 0x05, 0x11, 0x10]);
    let mut builder = ConfigSpaceBuilder::new(crate::testing::IDENTITY);
    let first = builder.capability(0x09, &[1; 5], &[]);
    let second = builder.capability(0x12, &[2; 6], &[0xff]);
    assert_eq!((first, second), (0x40, 0x48), "double words, rounded up");
    let host = Arc::new(Host::default());
    let mut config = builder.build(host.clone(), host);
    let _ = config.write(0x40, &[0xff; 16]);
    assert_eq!(config.read_u32(0x40), 0x0101_4809);
    assert_eq!(config.read_u32(0x48), 0x02ff_0012);
}

#[test]
fn a_function_without_capabilities_says_so() {
    let host = Arc::new(Host::default());
    let mut config =
        ConfigSpaceBuilder::new(crate::testing::IDENTITY).build(host.clone(), host.clone());
    assert_eq!((config.read_u16(header::STATUS), config.walk()), (0, vec![]));
    assert_eq!(config.read_u8(header::INTERRUPT_PIN), 0);
    config.interrupts().set_intx(true);
    assert!(!host.level());
    assert_eq!(config.read_u16(header::STATUS), 0);
    // Nor does it react where other functions have their capabilities.
    let _ = config.write(0x40, &[0xff; 0xc0]);
    assert!((0x40..0x100).all(|at| config.read_u8(at) == 0));
    assert!(config.bars().iter().all(Option::is_none));
}

/// What the guest may write, and nothing else: every bit of the header, of MSI, MSI-X, power
/// management and PCI Express.
#[test]
fn read_only_bits_stay() {
    let (mut config, _) = function();
    let (reset, capabilities): (Vec<u8>, _) =
        ((0..256).map(|at| config.read_u8(at)).collect(), config.walk());
    let mut writable = [0_u8; 256];
    let mut allow = |at: u16, mask: &[u8]| {
        writable[usize::from(at)..][..mask.len()].copy_from_slice(mask);
    };
    allow(0x04, &[0x47, 0x05]);
    allow(0x0c, &[0xff]);
    allow(0x11, &[0xf0, 0xff, 0xff, 0xe0, 0xff, 0xff, 0xff]);
    allow(0x19, &[0xc0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    allow(0x24, &[0xf8, 0xff, 0xff, 0xff]);
    allow(0x30, &[0x01, 0x00, 0xff, 0xff]);
    allow(0x3c, &[0xff]);
    for (at, id) in capabilities {
        match id {
            0x09 => allow(at + 3, &[0xf0]),
            capability::POWER_MANAGEMENT => allow(at + 4, &[0x03]),
            capability::MSI => {
                allow(at + msi::CONTROL, &[0x01]);
                allow(at + msi::ADDRESS, &[0xfc, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
                allow(at + msi::DATA_64, &[0xff, 0xff]);
                allow(at + msi::MASK_64, &[0x01]);
            }
            capability::MSI_X => allow(at + msix::CONTROL, &[0x00, 0xc0]),
            capability::PCI_EXPRESS => {
                allow(at + express::DEVICE_CONTROL, &[0x1f, 0x78]);
                allow(at + 0x28, &[0x10]);
            }
            _ => unreachable!(),
        }
    }
    for pattern in [0xff, 0x00, 0x55, 0xaa] {
        for at in 0..256_u16 {
            let _ = config.write(at, &[pattern]);
            let expected = reset[usize::from(at)] & !writable[usize::from(at)]
                | pattern & writable[usize::from(at)];
            let power = config.find(capability::POWER_MANAGEMENT) + pm::CONTROL;
            // Only D0 (0) and D3hot (3) are taken; 0x55 and 0xaa leave D0.
            let expected = if at == power && pattern & 3 != 3 { 0x08 } else { expected };
            assert_eq!(config.read_u8(at), expected, "{pattern:#x} at {at:#x}");
        }
    }
    config.reset();
    assert!((0..256).all(|at| config.read_u8(at) == reset[usize::from(at)]));
}

/// Every offset and width, and both ends of the range.
#[test]
fn every_access_is_answered() {
    let (mut config, _) = function();
    place_all(&mut config);
    let bytes: Vec<u8> = (0..256).map(|at| config.read_u8(at)).collect();
    for offset in (0..4200).chain([u16::MAX - 1, u16::MAX]) {
        for len in 0..=16 {
            let mut data = vec![0xa5; len];
            config.read(offset, &mut data);
            for (index, byte) in data.iter().enumerate() {
                let expected = bytes.get(usize::from(offset) + index).copied().unwrap_or(0);
                assert_eq!(*byte, expected, "{len} bytes at {offset:#x}");
            }
        }
    }
    for offset in (0..4200).chain([u16::MAX - 1, u16::MAX]) {
        for len in [0, 1, 2, 3, 4, 7, 8, 16] {
            let _ = config.write(offset, &vec![0xff; len]);
            let _ = config.write(offset, &vec![0x00; len]);
        }
    }
    assert_eq!(config.read_u32(0), 0x1042_1af4);
}

/// Extended configuration space has no capabilities.
#[test]
fn extended_space_is_empty() {
    let (mut config, _) = function();
    let _ = config.write(0xfe, &[0xff; 64]);
    assert_eq!((config.read_u32(0x100), config.read_u32(0xffc)), (0, 0));
}

/// PCI Express 5.0, 7.5.3.4: the bit reads 0, and a write of 1 asks for the reset.
#[test]
fn function_level_reset_is_reported() {
    let (mut config, _) = function();
    let control = config.find(capability::PCI_EXPRESS) + express::DEVICE_CONTROL;
    let capabilities = config.read_u32(control - 4);
    assert_ne!(capabilities & express::FUNCTION_LEVEL_RESET, 0);
    assert_eq!(config.read_u16(control), 0x2810);
    assert!(config.write_u16(control, 0xa810).function_reset);
    assert_eq!(config.read_u16(control), 0x2810);
    assert!(!config.write_u16(control, 0x2810).function_reset);
    assert!(config.write(control + 1, &[0x80]).function_reset);
    assert!(config.write(control - 2, &[0, 0, 0, 0x80]).function_reset);
    assert!(!config.write(control, &[0x80]).function_reset);
    assert_eq!(config.read_u16(control) & express::INITIATE_FLR, 0);
}

#[test]
fn layout_tells_what_was_built() {
    let (config, _) = function();
    let layout = config.layout();
    assert_eq!((layout.msix_vectors, layout.msi_vectors, layout.intx), (VECTORS, 1, true));
    assert_eq!(layout.bars, config.bar_specs());
    assert_eq!(layout.bars[4].unwrap().size, 32 << 30);
    assert!(layout.doorbells.is_empty() && layout.windows.is_empty());
}

/// Mistakes of the device's author are found when it is constructed, not by a guest.
#[test]
fn impossible_functions_are_refused() {
    let refused = |make: &dyn Fn(ConfigSpaceBuilder) -> ConfigSpaceBuilder| {
        let attempt = AssertUnwindSafe(|| make(ConfigSpaceBuilder::new(crate::testing::IDENTITY)));
        assert!(catch_unwind(attempt).is_err());
    };
    let bar = memory;
    let msix = |vectors, table, pba| MsixLayout { vectors, table, pba };
    let finish = |builder: ConfigSpaceBuilder| {
        let host = Arc::new(Host::default());
        let _ = builder.clone().build(host.clone(), host);
        builder
    };
    refused(&|b| b.bar(0, bar(BarKind::Memory32, 0x1001)));
    refused(&|b| b.bar(0, bar(BarKind::Memory32, 8)));
    refused(&|b| b.bar(0, bar(BarKind::Io, 512)));
    refused(&|b| b.bar(0, bar(BarKind::Rom, 0x1000)));
    refused(&|b| b.bar(6, bar(BarKind::Memory32, 0x1000)));
    refused(&|b| b.bar(5, bar(BarKind::Memory64, 0x1000)));
    refused(&|b| b.bar(0, bar(BarKind::Memory64, 0x1000)).bar(1, bar(BarKind::Memory32, 0x1000)));
    refused(&|b| b.bar(1, bar(BarKind::Memory32, 0x1000)).bar(0, bar(BarKind::Memory64, 0x1000)));
    refused(&|mut b| {
        b.capability(9, &[0; 190], &[]);
        b.capability(9, &[0; 8], &[]);
        b
    });
    refused(&|b| b.msi().msi());
    refused(&|b| b.msix(msix(0, (0, 0), (0, 0x800))));
    refused(&|b| b.msix(msix(2049, (0, 0), (0, 0x800))));
    refused(&|b| b.msix(msix(1, (0, 4), (0, 0x800))));
    refused(&|b| finish(b.msix(msix(1, (0, 0), (0, 0x800)))));
    let with = |b: ConfigSpaceBuilder, layout| {
        finish(b.bar(0, bar(BarKind::Memory32, 0x1000)).msix(layout))
    };
    refused(&|b| with(b, msix(257, (0, 0), (0, 0x800))));
    refused(&|b| with(b, msix(4, (0, 0), (0, 0x38))));
    refused(&|b| with(b, msix(4, (0, 0), (0, 0x1000))));
    with(ConfigSpaceBuilder::new(crate::testing::IDENTITY), msix(4, (0, 0), (0, 0x40)));
}

#[derive(Clone, Debug)]
enum Step {
    Write(u16, Vec<u8>),
    Table(u64, Vec<u8>),
    Raise(u16),
    Intx(bool),
    Reset,
}

fn step() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![4 => 0..256_u16, 2 => 4..8_u16, 1 => 0..4096_u16];
    let byte = prop_oneof![Just(0_u8), Just(0xff), Just(0x80), any::<u8>()];
    let data = prop::collection::vec(byte, 1..=8);
    prop_oneof![
        8 => (offset, data.clone()).prop_map(|(at, data)| Step::Write(at, data)),
        4 => (0..0x480_u64, data).prop_map(|(at, data)| Step::Table(TABLE + at, data)),
        4 => (0..VECTORS + 2).prop_map(Step::Raise),
        2 => any::<bool>().prop_map(Step::Intx),
        1 => Just(Step::Reset),
    ]
}

proptest! {
    /// Whatever a guest does: no panic, an honest host ([`Host`] checks what it is told), and
    /// registers that agree with one another.
    #[test]
    fn any_guest(steps in prop::collection::vec(step(), 1..200)) {
        let host = Arc::new(Host::default());
        let mut config = build(&host);
        let list = config.walk();
        let mut wanted = false;
        for step in steps {
            match step {
                Step::Write(at, data) => {
                    let was = config.bus_master().enabled();
                    let written = config.write(at, &data);
                    let now = config.bus_master().enabled();
                    prop_assert_eq!(written.bus_master_on, now && !was);
                    prop_assert_eq!(written.bus_master_off, was && !now);
                    if written.function_reset {
                        config.reset();
                        wanted = false;
                    }
                }
                Step::Table(at, data) => {
                    let inside = at < TABLE + 16 * u64::from(VECTORS);
                    prop_assert_eq!(config.msix_write(MSIX_BAR, at, &data), inside);
                }
                Step::Raise(vector) => {
                    config.interrupts().trigger_msix(vector);
                    config.interrupts().trigger_msi();
                }
                Step::Intx(asserted) => {
                    config.interrupts().set_intx(asserted);
                    wanted = asserted;
                }
                Step::Reset => {
                    config.reset();
                    wanted = false;
                }
            }
            prop_assert_eq!(config.read_u32(0), 0x1042_1af4);
            prop_assert_eq!(&config.walk(), &list);
            let command = Command::from_bits_truncate(config.read_u16(header::COMMAND));
            let awake = config.read_u16(config.find(capability::POWER_MANAGEMENT) + pm::CONTROL) & 3 == 0;
            let bus_master = awake && command.contains(Command::BUS_MASTER);
            prop_assert_eq!(config.bus_master().enabled(), bus_master);
            let status = config.read_u16(header::STATUS);
            prop_assert_eq!(status & 8 != 0, wanted);
            let msix_on = config.read_u16(config.find(capability::MSI_X) + msix::CONTROL) & msix::ENABLE != 0;
            let msi_on = config.read_u16(config.find(capability::MSI) + msi::CONTROL) & msi::ENABLE != 0;
            let interrupts = config.interrupts();
            prop_assert_eq!(interrupts.msix_enabled(), msix_on);
            prop_assert_eq!(interrupts.msi_enabled(), msi_on && !msix_on);
            let held = !awake || msix_on || msi_on || command.contains(Command::INTX_DISABLE);
            prop_assert_eq!(host.level(), wanted && !held);
            prop_assert_eq!(config.intx_allowed(), !held);
            for bar in config.bars().into_iter().flatten() {
                let decodes = match bar.kind {
                    BarKind::Io => command.contains(Command::IO),
                    _ => command.contains(Command::MEMORY),
                };
                prop_assert!(!bar.enabled || (decodes && awake && bar.address % bar.size == 0));
            }
        }
    }
}

#[test]
fn the_builder_can_be_used_twice() {
    let host = Arc::new(Host::default());
    let builder = builder();
    let mut one = builder.clone().build(host.clone(), host.clone());
    let other = builder.build(host.clone(), host);
    let _ = one.set_command(ALL);
    assert!(one.bus_master().enabled() && !other.bus_master().enabled());
}

#[test]
fn a_function_may_keep_the_places_of_another() {
    let host = Arc::new(Host::default());
    let mut builder = ConfigSpaceBuilder::new(crate::testing::IDENTITY)
        .read_only(0x40, &[0x55; 0xc0])
        .place(0xc8)
        .power_management()
        .place(0xa0);
    // A PCI Express capability that cannot reset the function.
    builder.capability(capability::PCI_EXPRESS, &[0; 0x12], &[0, 0, 0, 0, 0, 0, 0xff, 0xff]);
    builder.capability(capability::VENDOR, &[4, 1], &[]);
    let mut config = builder.build(host.clone(), host);
    assert_eq!(config.walk(), [(0xc8, 0x01), (0xa0, 0x10), (0xb4, 0x09)]);
    assert_eq!((config.read_u8(0x40), config.read_u32(0xfc)), (0x55, 0x5555_5555));
    let written = config.write_u16(0xa0 + express::DEVICE_CONTROL, 0xffff);
    assert!(!written.function_reset);
    assert_eq!(config.read_u16(0xa0 + express::DEVICE_CONTROL), 0xffff);
    let _ = config.write_u32(0x40, 0);
    assert_eq!(config.read_u32(0x40), 0x5555_5555);
}
