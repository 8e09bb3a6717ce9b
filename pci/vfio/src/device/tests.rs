use paraslot_spec::pci::{capability, express, msix};
use proptest::prelude::*;
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::*;
use crate::fake::{Call, Fake, FakeHost, express_capability, msix_capability};

fn open(fake: &Fake) -> VfioPci<()> {
    fake.open(&FakeHost::new()).unwrap()
}

fn read<const N: usize>(device: &mut VfioPci<()>, at: u16) -> [u8; N] {
    let mut data = [0xa5; N];
    device.config_read(at, &mut data);
    data
}

fn refused(fake: &Fake) -> String {
    let error = fake.open(&FakeHost::new()).err().expect("refused");
    // Nothing but reads and the command register before it is known to be suited.
    assert_eq!(fake.take_calls(), []);
    error.to_string()
}

#[test]
fn the_guest_sees_the_function_as_one_of_its_root_bus() {
    let fake = Fake::full();
    fake.lock().config[usize::from(header::HEADER_TYPE)] = 0x80;
    fake.lock().config[0xc0] = 0x77;
    let mut device = open(&fake);
    assert_eq!(read(&mut device, 0), [0x86, 0x80, 0xd3, 0x10]);
    assert_eq!(read(&mut device, 4), [0, 0, 0x10, 0, 3, 0, 0, 2, 0, 0, 0, 0]);
    assert_eq!(
        read(&mut device, 0x10),
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xc, 0, 0, 0]
    );
    assert_eq!(read(&mut device, 0x2c), [0x86, 0x80, 0x1f, 0xa0]);
    assert_eq!((read(&mut device, 0x3d), read(&mut device, 0xc0)), ([1], [0x77]));
    assert_eq!(read(&mut device, 0x100), [0; 8]);
    let mut list = Vec::new();
    let mut at = read::<1>(&mut device, 0x34)[0];
    while at != 0 {
        let [id, next] = read(&mut device, at.into());
        list.push((at, id));
        at = next;
    }
    assert_eq!(list, [(0x40, 1), (0x48, 5), (0x60, 0x10), (0xa0, 0x11)]);
    let layout = device.layout();
    assert_eq!((layout.msix_vectors, layout.msi_vectors, layout.intx), (70, 1, true));
    let windows: Vec<_> = layout.direct.iter().map(|window| (window.bar, window.offset)).collect();
    assert_eq!(windows, [(0, 0), (4, 0), (4, 0x3000)]);
    assert_eq!(fake.lock().mapped, [(0, 0, 0x4000), (4, 0, 0x1000), (4, 0x3000, 0x1000)]);
}

/// XSA-126 (CVE-2015-2756): of the command register bus mastering alone gets through, and decoding stays
/// on, so that no access of the guest's is one that the hardware does not answer.
#[test]
fn of_the_command_register_bus_mastering_gets_through() {
    let fake = Fake::full();
    fake.lock().config[5] = 0x05;
    let mut device = open(&fake);
    let host = || u16::from_le_bytes(fake.lock().config[4..6].try_into().unwrap());
    // What the host has set stays (SERR), but for INTX_DISABLE.
    assert_eq!(host(), 0x0103);
    device.config_write(4, &[0xff, 0xff]);
    assert_eq!((host(), read(&mut device, 4)), (0x0107, [0x47, 0x05]));
    device.config_write(4, &[0x00, 0x00]);
    assert_eq!((host(), read(&mut device, 4)), (0x0103, [0, 0]));
    device.config_write(4, &[0x04]);
    assert_eq!(host(), 0x0107);
    // Asleep it does not access memory; the hardware itself stays awake.
    device.config_write(0x44, &[3]);
    assert_eq!((host(), fake.lock().config[0x44]), (0x0103, 0));
    device.config_write(0x44, &[0]);
    assert_eq!(host(), 0x0107);
    drop(device);
    assert_eq!(host(), 0x0103);
}

#[test]
fn the_interrupt_status_is_the_hardwares() {
    let fake = Fake::full();
    let mut device = open(&fake);
    assert_eq!(read(&mut device, 6), [0x10, 0]);
    fake.lock().config[6] |= 0x08;
    assert_eq!((read(&mut device, 6), read(&mut device, 4)), ([0x18, 0], [0, 0, 0x18, 0]));
    assert_eq!(read(&mut device, 7), [0]);
}

#[test]
fn a_reset_of_the_guests_is_one_of_the_functions() {
    let fake = Fake::full();
    let mut device = open(&fake);
    device.config_write(4, &[0x06]);
    device.config_write(0xa2, &msix::ENABLE.to_le_bytes());
    fake.take_calls();
    device.config_write(0x60 + express::DEVICE_CONTROL, &express::INITIATE_FLR.to_le_bytes());
    let calls = fake.take_calls();
    let command = Call::Write(Region::Config, 4, vec![0x03, 0]);
    // The reset may have made it a bus master again.
    let off = [command.clone(), Call::Disable(Irq::Msix), Call::Reset, command.clone()];
    assert_eq!(calls, [&off[..], &[Call::Enable(Irq::Intx, 1), Call::UnmaskBy]].concat());
    assert_eq!((read(&mut device, 4), read(&mut device, 0xa2)), ([0, 0], [69, 0]));
    drop(device);
    let calls = fake.take_calls();
    assert_eq!(calls[calls.len() - 2..], [Call::Reset, command]);
    assert_eq!(fake.lock().config[4] & 4, 0);

    // One that cannot be reset does not say that it can.
    let fake = Fake::full();
    fake.lock().has_reset = false;
    let mut device = open(&fake);
    assert_eq!(read::<4>(&mut device, 0x64)[3] & 0x10, 0);
    device.config_write(4, &[0x06]);
    device.config_write(0x60 + express::DEVICE_CONTROL, &express::INITIATE_FLR.to_le_bytes());
    assert_eq!(read(&mut device, 4), [6, 0]);
    device.reset();
    assert_eq!((read(&mut device, 4), fake.lock().config[4]), ([0, 0], 3));
}

/// The chain leads past what is left out, be it the first, in the middle, or the last.
#[test]
fn the_chain_leads_past_what_is_left_out() {
    let (vpd, vendor) = ([0x03, 0, 0, 0], |len: u8| [capability::VENDOR, 0, len, 7]);
    let fake = Fake::new();
    fake.lock().capabilities(&[
        (0xd0, &vpd),
        (0x80, &vendor(8)),
        (0x50, &vpd),
        (0xc0, &vendor(6)),
        (0x40, &vpd),
    ]);
    let mut device = open(&fake);
    assert_eq!(read(&mut device, 0x34), [0x80]);
    assert_eq!(read(&mut device, 0x80), [9, 0xc0, 8, 7]);
    assert_eq!(read(&mut device, 0xc0), [9, 0, 6, 7]);
    let none = Fake::new();
    none.lock().capabilities(&[(0xd0, &vpd)]);
    let mut device = open(&none);
    assert_eq!((read(&mut device, 0x34), read(&mut device, 6)), ([0], [0, 0]));
}

/// A guest whose functions would find no memory, or another's.
#[test]
fn memory_that_is_not_mapped_is_an_error() {
    let memory = || {
        let ranges = [(GuestAddress(0), 0x2000), (GuestAddress(0x10_0000), 0x1000)];
        Arc::new(GuestMemoryMmap::<()>::from_ranges(&ranges).unwrap())
    };
    let (memory, other) = (memory(), memory());
    let space = crate::iommu::tests::space(None);
    let nowhere = "ffffffff:ff:1f.7".parse().unwrap();
    let open = || {
        let Host { msi, intx, executor, .. } = FakeHost::new().host();
        let host = Host { memory: memory.clone(), msi, intx, executor };
        VfioPci::open(nowhere, &space, host).err().unwrap()
    };
    let missing = |error| match error {
        VfioError::NotMapped { start, bytes } => (start, bytes),
        error => panic!("{error}"),
    };
    assert_eq!(missing(open()), (0, 0x2000));
    space.map_memory(&other).unwrap();
    assert_eq!(missing(open()), (0, 0x2000));
    for start in [0, 0x10_0000] {
        space.unmap_region(GuestAddress(start)).unwrap();
    }
    space.map_memory(&memory).unwrap();
    assert!(matches!(open(), VfioError::NoFunction(_)));
    space.unmap_region(GuestAddress(0x10_0000)).unwrap();
    assert_eq!(missing(open()), (0x10_0000, 0x1000));
    assert!(open().to_string().contains("map_memory"));
}

#[test]
fn registers_are_the_hardwares_in_natural_widths() {
    let fake = Fake::full();
    let mut device = open(&fake);
    fake.lock().reads.clear();
    fake.take_calls();
    device.bar_write(0, 0x101, &[1, 2, 3, 4, 5, 6, 7, 8]);
    let widths = fake.take_calls().into_iter().map(|call| match call {
        Call::Write(Region::Bar(0), at, data) => (at, data.len()),
        call => panic!("{call:?}"),
    });
    let widths = widths.collect::<Vec<_>>();
    assert_eq!(widths, [(0x101, 1), (0x102, 2), (0x104, 4), (0x108, 1)]);
    let mut data = [0; 8];
    device.bar_read(0, 0x101, &mut data);
    assert_eq!(data, [1, 2, 3, 4, 5, 6, 7, 8]);
    device.bar_read(0, 0x3ffc, &mut data);
    assert_eq!(data, [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    for (bar, at) in [(0, 0x4000), (0, u64::MAX), (1, 0), (3, 0), (5, 0), (6, 0), (255, 0)] {
        device.bar_read(bar, at, &mut data);
        assert_eq!(data, [0xff; 8]);
        device.bar_write(bar, at, &data);
    }
    assert_eq!(fake.take_calls(), []);
}

/// XSA-164: accesses at, over and behind the ends of the MSI-X table.
#[test]
fn the_msix_structures_are_not_the_hardwares() {
    let fake = Fake::full();
    let mut device = open(&fake);
    fake.take_calls();
    for at in (0xff0..0x1470).chain(0x1ff8..0x2028) {
        for len in [1, 2, 4, 8, 16, 64] {
            device.bar_write(4, at, &[0xff; 64][..len]);
        }
    }
    for call in fake.take_calls() {
        let Call::Write(Region::Bar(4), at, data) = &call else { continue };
        let end = at + data.len() as u64;
        assert!(end <= 0x1000 || *at >= 0x1460 && end <= 0x2008 || *at >= 0x2018, "{call:?}");
    }
    let mut entry = [0; 16];
    device.bar_read(4, 0x1000 + 69 * 16, &mut entry);
    assert_eq!(entry, [0xfc, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1, 0, 0, 0]);
}

#[test]
fn a_host_without_eventfds_is_told_so() {
    let fake = Fake::full();
    let host =
        Host { msi: Arc::new(paraslot_device::interrupt::NoInterrupts), ..FakeHost::new().host() };
    let error = VfioPci::new(Box::new(fake.clone()), host).err().unwrap();
    assert!(matches!(error, VfioError::NoEventFds));
    // With messages the pin can be done without; with the pin alone it cannot.
    let without = FakeHost::without_pin();
    let mut device = fake.open(&without).unwrap();
    assert!(!device.layout().intx && read::<1>(&mut device, 0x3d) == [0]);
    let fake = Fake::new();
    fake.lock().config[usize::from(header::INTERRUPT_PIN)] = 1;
    fake.lock().irqs = [1, 0, 0];
    assert!(matches!(fake.open(&without).err(), Some(VfioError::NoEventFds)));
    assert!(fake.open(&FakeHost::new()).unwrap().layout().intx);
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_done() {
    let hostile = |change: fn(&mut crate::fake::Hardware)| {
        let fake = Fake::full();
        change(&mut fake.lock());
        refused(&fake)
    };
    assert!(hostile(|fake| fake.config[14] = 1).contains("bridge"));
    assert!(hostile(|fake| fake.config.fill(0xff)).contains("does not answer"));
    assert!(hostile(|fake| fake.config.truncate(64)).contains("no whole configuration space"));
    assert!(hostile(|fake| fake.config[0x41] = 0x40).contains("does not end"));
    assert!(hostile(|fake| fake.irqs[2] = 8).contains("of its 70 MSI-X vectors VFIO has 8"));
    assert!(hostile(|fake| fake.regions[4].size = 0x1000).contains("table"));
    assert!(hostile(|fake| fake.set(0xa0 + msix::PBA, &[4, 0x10, 0, 0])).contains("overlap"));
    assert!(
        hostile(|fake| fake.set(0xa0 + msix::TABLE, &[0xfc, 0xff, 0xff, 0xff])).contains("table")
    );
    assert!(hostile(|fake| fake.regions[0].size = 3).contains("BAR 0"));
}

#[derive(Clone, Debug)]
enum Access {
    Config(u16, Vec<u8>),
    ConfigRead(u16, usize),
    Bar(u8, u64, Vec<u8>),
    BarRead(u8, u64, usize),
    Reset,
    Pause,
    Resume,
}

fn access() -> impl Strategy<Value = Access> {
    let data = || proptest::collection::vec(any::<u8>(), 0..20);
    let near = prop_oneof![
        0_u64..0x40,
        0xff0_u64..0x1480,
        0x1ff0_u64..0x2030,
        0x3ff0_u64..0x4010,
        any::<u64>()
    ];
    let offset = prop_oneof![0_u16..0x110, Just(0xa2), Just(4), Just(0xea), any::<u16>()];
    prop_oneof![
        6 => (offset.clone(), data()).prop_map(|(at, data)| Access::Config(at, data)),
        2 => (offset, 0_usize..20).prop_map(|(at, len)| Access::ConfigRead(at, len)),
        6 => (0_u8..8, near.clone(), data()).prop_map(|(bar, at, data)| Access::Bar(bar, at, data)),
        2 => (0_u8..8, near, 0_usize..20).prop_map(|(bar, at, len)| Access::BarRead(bar, at, len)),
        1 => Just(Access::Reset),
        1 => Just(Access::Pause),
        1 => Just(Access::Resume),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    /// XSA-126, XSA-128, XSA-164: whatever the guest does, the hardware sees its registers, bus mastering,
    /// interrupts turned on and off, and resets; and never configuration space or MSI-X structures.
    #[test]
    fn nothing_else_reaches_the_hardware(accesses in proptest::collection::vec(access(), 0..60)) {
        let fake = Fake::full();
        let mut device = open(&fake);
        fake.take_calls();
        fake.lock().reads.clear();
        for access in accesses {
            match access {
                Access::Config(at, data) => device.config_write(at, &data),
                Access::ConfigRead(at, len) => device.config_read(at, &mut vec![0; len]),
                Access::Bar(bar, at, data) => device.bar_write(bar, at, &data),
                Access::BarRead(bar, at, len) => device.bar_read(bar, at, &mut vec![0; len]),
                Access::Reset => device.reset(),
                Access::Pause => device.pause().unwrap(),
                Access::Resume => device.resume().unwrap(),
            }
            let calls = fake.take_calls();
            // Three vectors' worth of bytes at most, or all of them in runs; a reset; a kind off, and on.
            prop_assert!(calls.len() <= 40, "{} calls", calls.len());
            for call in calls {
                match &call {
                    Call::Write(Region::Config, at, data) => {
                        prop_assert!(*at == 4 && (*data == [3, 0] || *data == [7, 0]), "{:?}", call);
                    }
                    Call::Write(Region::Bar(4), at, data) => {
                        let end = at + data.len() as u64;
                        let apart = end <= 0x1000 || *at >= 0x1460 && end <= 0x2008 || *at >= 0x2018;
                        prop_assert!(apart, "{:?}", call);
                    }
                    // The fake checks ranges, vectors and the order of enabling.
                    _ => {}
                }
            }
            let reads = std::mem::take(&mut fake.lock().reads);
            prop_assert!(reads.iter().all(|(region, at, _)| *region != Region::Config || [4, 6].contains(at)));
            let [low, high] = read(&mut device, 4);
            let command = Command::from_bits_retain(u16::from_le_bytes([low, high]));
            let awake = read::<1>(&mut device, 0x44)[0] & 3 == 0;
            let on = fake.lock().config[4] & 4 != 0;
            prop_assert!(!on || (command.contains(Command::BUS_MASTER) && awake));
            prop_assert!(device.faults().take().is_none());
        }
    }

    /// OV 985e668a4, crosvm e892738ed, QEMU 29c6e6df49: any function is opened or refused, in a line.
    #[test]
    fn any_function_is_answered(
        bytes in proptest::collection::vec(any::<u8>(), 256), sizes: [u64; 6], shifts: [u8; 6],
        plain: bool, table: (u8, u32), vectors in 1_u16..2049,
    ) {
        let fake = Fake::new();
        {
            let mut hardware = fake.lock();
            hardware.config[0x10..].copy_from_slice(&bytes[0x10..]);
            for (index, (size, shift)) in sizes.into_iter().zip(shifts).enumerate() {
                let size = if plain { 1_u64.checked_shl(shift.into()).unwrap_or(0) } else { size };
                hardware.regions[index].size = size;
                hardware.regions[index].mappable = vec![(0, size), (sizes[0], sizes[1])];
            }
            hardware.irqs = [1, 1, 70];
            let bar = u32::from(table.0 & 7);
            let msix = msix_capability(vectors, (0, (table.1 & !7) | bar), (1, table.1 & 0xff8));
            hardware.capabilities(&[(0x40, &msix), (0x60, &express_capability())]);
        }
        if let Err(error) = fake.open(&FakeHost::new()) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}

#[test]
fn a_function_without_anything_is_one_too() {
    let fake = Fake::new();
    fake.lock().capabilities(&[(0x40, &[capability::VENDOR, 0, 4, 9])]);
    let mut device = open(&fake);
    assert_eq!((device.layout().msix_vectors, device.layout().intx), (0, false));
    device.config_write(4, &[0xff, 0xff]);
    device.pause().unwrap();
    device.reset();
    device.resume().unwrap();
    assert_eq!(read(&mut device, 0x40), [9, 0, 4, 9]);
    assert_eq!(fake.lock().config[4], 0);
}
