#![expect(clippy::cast_possible_truncation, reason = "numbers chosen to fit")]

use std::collections::BTreeMap;

use paraslot_spec::pci::{Command, capability, express, mechanism1};
use vm_device::bus::{MmioAddress, MmioRange, PioAddress, PioRange};
use vm_device::device_manager::{IoManager, MmioManager, PioManager};
use vm_device::{DeviceMmio, DevicePio};

use super::*;
use crate::testing::{Device, Host, MSIX_BAR, TABLE};
use crate::{BarKind, BarWindow};

const ECAM: u64 = 0xb000_0000;
const FIVE: Bdf = Bdf::root(5);
const ID: u32 = 0x1042_1af4;

/// What the host was told, which must add up.
#[derive(Default)]
struct Map {
    placed: Mutex<BTreeMap<(Bdf, u8), BarState>>,
    changes: Mutex<Vec<(u8, bool, u64)>>,
}

impl Map {
    fn take(&self) -> Vec<(u8, bool, u64)> {
        self.changes.lock().unwrap().drain(..).collect()
    }
}

impl BarObserver for Map {
    fn bar_changed(&self, bdf: Bdf, bar: u8, old: Option<BarState>, new: Option<BarState>) {
        let mut placed = self.placed.lock().unwrap();
        assert_eq!(placed.remove(&(bdf, bar)), old);
        assert_ne!(old.is_some(), new.is_some());
        if let Some(new) = new {
            assert!(new.enabled);
            placed.insert((bdf, bar), new);
        }
        let address = old.or(new).unwrap().address;
        self.changes.lock().unwrap().push((bar, new.is_some(), address));
    }
}

fn device() -> SharedDevice {
    Arc::new(Mutex::new(Device::new(&Arc::new(Host::default()))))
}

fn bus() -> (Arc<RootBus>, Arc<Map>) {
    let map = Arc::new(Map::default());
    let bus = Arc::new(RootBus::new(map.clone()));
    bus.plug(FIVE, device()).unwrap();
    (bus, map)
}

fn read(bus: &RootBus, bdf: Bdf, offset: u16) -> u32 {
    let mut data = [0xa5; 4];
    bus.config_read(bdf, offset, &mut data);
    u32::from_le_bytes(data)
}

fn write(bus: &RootBus, bdf: Bdf, offset: u16, value: u32) {
    bus.config_write(bdf, offset, &value.to_le_bytes());
}

fn pio(bus: &RootBus, offset: u16, len: usize) -> Vec<u8> {
    let mut data = vec![0xa5; len];
    bus.pio_read(PioAddress(mechanism1::ADDRESS), offset, &mut data);
    data
}

fn out(bus: &RootBus, offset: u16, data: &[u8]) {
    bus.pio_write(PioAddress(mechanism1::ADDRESS), offset, data);
}

fn select(bus: &RootBus, bdf: Bdf, register: u32) {
    let Bdf { bus: number, device, function } = bdf;
    let place = [register as u8 & 0xfc, device << 3 | function, number, 0x80];
    out(bus, 0, &place);
}

#[test]
fn a_guest_finds_the_functions() {
    let (bus, _) = bus();
    assert_eq!(bus.functions(), [Bdf::root(0), FIVE]);
    let ids: Vec<u32> = (0..32).map(|device| read(&bus, Bdf::root(device), 0)).collect();
    for (device, id) in ids.into_iter().enumerate() {
        assert_eq!(
            id,
            match device {
                0 => 0x0008_1b36,
                5 => ID,
                _ => u32::MAX,
            }
        );
    }
    // Class code of a host bridge, no BARs, no capabilities.
    assert_eq!(read(&bus, Bdf::root(0), 8), 0x0600_0000);
    write(&bus, Bdf::root(0), 0x10, u32::MAX);
    assert_eq!((read(&bus, Bdf::root(0), 0x10), read(&bus, Bdf::root(0), 0x34)), (0, 0));
}

#[test]
fn absent_functions_read_ones_and_take_no_writes() {
    let (bus, map) = bus();
    for bdf in [Bdf::root(6), Bdf { function: 1, ..FIVE }, Bdf { bus: 1, ..FIVE }] {
        write(&bus, bdf, 4, 7);
        for len in 0..=8 {
            let mut data = vec![0; len];
            bus.config_read(bdf, 0, &mut data);
            assert!(data.iter().all(|byte| *byte == 0xff));
        }
    }
    assert!(map.take().is_empty());
}

#[test]
fn addresses_are_checked() {
    let (bus, _) = bus();
    assert_eq!(bus.plug(FIVE, device()), Err(PlugError::Taken(FIVE)));
    for bdf in [Bdf::root(32), Bdf { function: 8, ..FIVE }] {
        assert_eq!(bus.plug(bdf, device()), Err(PlugError::Address(bdf)));
    }
    assert_eq!(Bdf { bus: 1, device: 31, function: 2 }.to_string(), "01:1f.2");
}

#[test]
fn an_unplugged_function_is_gone() {
    let (bus, map) = bus();
    write(&bus, FIVE, 0x10, 0xe000_0000);
    write(&bus, FIVE, 4, Command::MEMORY.bits().into());
    assert_eq!(map.take(), [(0, true, 0xe000_0000)]);
    let device = bus.unplug(FIVE).unwrap();
    assert_eq!(map.take(), [(0, false, 0xe000_0000)]);
    assert_eq!((read(&bus, FIVE, 0), bus.unplug(FIVE).is_none()), (u32::MAX, true));
    assert!(bus.function(FIVE).is_none());
    // The function itself noticed nothing, and goes back as it was.
    assert!(device.lock().unwrap().bars()[0].unwrap().enabled);
    bus.plug(Bdf::root(9), device).unwrap();
    assert_eq!(map.take(), [(0, true, 0xe000_0000)]);
    assert_eq!(read(&bus, Bdf::root(9), 0), ID);
}

/// An access that found the function before it was unplugged does nothing to it afterwards.
#[test]
fn a_late_access_to_an_unplugged_function_is_dropped() {
    let (bus, map) = bus();
    let late = bus.slot(FIVE).unwrap();
    bus.unplug(FIVE);
    late.access(FIVE, &*map, |_| unreachable!());
}

/// 6.2.1: the header type tells whether to look for functions 1 to 7.
#[test]
fn the_header_type_tells_of_other_functions() {
    let (bus, _) = bus();
    let header_type = |bdf| read(&bus, bdf, 0xc) >> 16 & 0xff;
    assert_eq!(header_type(FIVE), 0);
    let other = Bdf { function: 3, ..FIVE };
    bus.plug(other, device()).unwrap();
    assert_eq!((header_type(FIVE), header_type(other), header_type(Bdf::root(0))), (0x80, 0x80, 0));
    for (offset, len, index) in [(0xe, 1, 0), (0xd, 2, 1), (0xe, 2, 0), (0, 64, 0xe), (7, 8, 7)] {
        let mut data = vec![0; len];
        bus.config_read(FIVE, offset, &mut data);
        assert_eq!(data[index], 0x80, "{len} bytes at {offset:#x}");
    }
    let mut data = [0; 2];
    bus.config_read(FIVE, 0xf, &mut data);
    assert_eq!(data, [0, 0]);
    bus.unplug(other);
    assert_eq!(header_type(FIVE), 0);
}

#[test]
fn the_observer_hears_of_every_move() {
    let (bus, map) = bus();
    write(&bus, FIVE, 0x10, 0xe000_0000);
    write(&bus, FIVE, 0x14, 0xc000);
    assert!(map.take().is_empty(), "nothing decodes");
    write(&bus, FIVE, 4, 3);
    assert_eq!(map.take(), [(0, true, 0xe000_0000), (1, true, 0xc000)]);
    write(&bus, FIVE, 0x10, 0xe000_0000);
    assert!(map.take().is_empty(), "not a change");
    write(&bus, FIVE, 0x10, 0xd000_0000);
    assert_eq!(map.take(), [(0, false, 0xe000_0000), (0, true, 0xd000_0000)]);
    // Sized while it decodes.
    write(&bus, FIVE, 0x10, u32::MAX);
    write(&bus, FIVE, 0x10, 0xd000_0000);
    assert_eq!(map.take(), [(0, false, 0xd000_0000), (0, true, 0xd000_0000)]);
    // A 64-bit BAR moves through a place of one new and one old half.
    write(&bus, FIVE, 0x18, 0x4000);
    write(&bus, FIVE, 0x1c, 0x1);
    assert_eq!(map.take(), [(2, true, 0x4000), (2, false, 0x4000), (2, true, 0x1_0000_4000)]);
    // Two that move at once: both go before either comes.
    let both: Vec<u8> =
        [0xe000_0000_u32, 0xc100].iter().flat_map(|bar| bar.to_le_bytes()).collect();
    bus.config_write(FIVE, 0x10, &both);
    assert_eq!(
        map.take(),
        [(0, false, 0xd000_0000), (1, false, 0xc000), (0, true, 0xe000_0000), (1, true, 0xc100)]
    );
    write(&bus, FIVE, 4, 0);
    assert_eq!(map.take().len(), 3);
}

#[test]
fn the_observer_hears_of_resets() {
    let (bus, map) = bus();
    let place = || {
        write(&bus, FIVE, 0x10, 0xe000_0000);
        write(&bus, FIVE, 4, 2);
        assert_eq!(map.take(), [(0, true, 0xe000_0000)]);
    };
    place();
    let mut pointer = read(&bus, FIVE, 0x34) as u16 & 0xff;
    while read(&bus, FIVE, pointer) as u8 != capability::PCI_EXPRESS {
        pointer = (read(&bus, FIVE, pointer) >> 8) as u16 & 0xff;
    }
    write(&bus, FIVE, pointer + express::DEVICE_CONTROL, express::INITIATE_FLR.into());
    assert_eq!(map.take(), [(0, false, 0xe000_0000)], "function level reset");
    place();
    select(&bus, FIVE, 0);
    bus.reset();
    assert_eq!((map.take(), pio(&bus, 0, 4)), (vec![(0, false, 0xe000_0000)], vec![0; 4]));
    place();
    bus.function(FIVE).unwrap().lock().unwrap().reset();
    assert!(map.take().is_empty());
    bus.refresh(FIVE);
    assert_eq!(map.take(), [(0, false, 0xe000_0000)]);
}

/// The observer is called with the function unlocked.
#[test]
fn the_observer_may_use_the_function() {
    struct Reader(std::sync::OnceLock<SharedDevice>, Mutex<Vec<u64>>);
    impl BarObserver for Reader {
        fn bar_changed(&self, _: Bdf, bar: u8, _: Option<BarState>, _: Option<BarState>) {
            let bars = self.0.get().unwrap().try_lock().unwrap().bars();
            self.1.lock().unwrap().push(bars[usize::from(bar)].unwrap().address);
        }
    }
    let reader = Arc::new(Reader(Default::default(), Mutex::default()));
    let bus = RootBus::new(reader.clone());
    bus.plug(FIVE, reader.0.get_or_init(device).clone()).unwrap();
    write(&bus, FIVE, 4, 2);
    write(&bus, FIVE, 0x10, 0xe000_0000);
    assert_eq!(*reader.1.lock().unwrap(), [0xe000_0000]);
}

/// Every offset and width, the end of the function's space included.
#[test]
fn configuration_accesses_of_any_kind() {
    let (bus, _) = bus();
    for offset in (0..300).chain(4080..4200).chain([u16::MAX]) {
        for len in 0..=16 {
            let mut data = vec![0xa5; len];
            bus.config_read(FIVE, offset, &mut data);
            for (at, byte) in (usize::from(offset)..).zip(&data) {
                assert!(at < 256 || *byte == if at < 4096 { 0 } else { 0xff });
            }
            bus.config_write(FIVE, offset, &data);
        }
    }
    assert_eq!(read(&bus, FIVE, 0), ID);
}

/// PCI 3.0, 3.2.2.3.2.
#[test]
fn mechanism_1_address() {
    let (bus, _) = bus();
    assert_eq!(pio(&bus, 0, 4), [0; 4]);
    out(&bus, 0, &[0xff; 4]);
    assert_eq!(pio(&bus, 0, 4), [0xfc, 0xff, 0xff, 0x80], "reserved bits read zero");
    select(&bus, FIVE, 0x2c);
    assert_eq!(pio(&bus, 0, 4), [0x2c, 0x28, 0, 0x80]);
    assert_eq!((pio(&bus, 1, 1), pio(&bus, 2, 2)), (vec![0x28], vec![0, 0x80]));
    assert_eq!(pio(&bus, 3, 4), [0x80, 0xff, 0xff, 0xff]);
    // Only 32-bit accesses write it; 0xcf9 may be someone's reset register.
    out(&bus, 1, &[6]);
    out(&bus, 0, &[0, 0]);
    out(&bus, 0, &[0; 8]);
    out(&bus, 2, &[0; 4]);
    out(&bus, 3, &[1]);
    assert_eq!(pio(&bus, 0, 4), [0x2c, 0x28, 0, 0x80]);
}

#[test]
fn mechanism_1_data() {
    let (bus, _) = bus();
    select(&bus, FIVE, 0);
    let id = ID.to_le_bytes();
    for lane in 0..4_u16 {
        for len in 0..=usize::from(4 - lane) {
            assert_eq!(pio(&bus, 4 + lane, len), id[usize::from(lane)..][..len]);
        }
    }
    assert_eq!(pio(&bus, 6, 4), [id[2], id[3], 0xff, 0xff], "beyond the ports");
    assert_eq!(pio(&bus, 8, 2), [0xff, 0xff]);
    select(&bus, FIVE, 0x3c);
    out(&bus, 4, &[0x0b]);
    assert_eq!(read(&bus, FIVE, 0x3c), 0x010b);
    select(&bus, FIVE, 0x10);
    out(&bus, 6, &[0x12, 0xe0]);
    out(&bus, 5, &[0x30]);
    out(&bus, 7, &[0xe1, 0xff, 0xff]);
    assert_eq!((read(&bus, FIVE, 0x10), read(&bus, FIVE, 0x14)), (0xe112_3000, 1));
    // Not enabled: no configuration cycles.
    out(&bus, 0, &[0x10, 0x28, 0, 0]);
    assert_eq!(pio(&bus, 4, 4), [0xff; 4]);
    out(&bus, 4, &[0; 4]);
    assert_eq!(read(&bus, FIVE, 0x10), 0xe112_3000);
    select(&bus, Bdf::root(6), 0);
    assert_eq!(pio(&bus, 4, 2), [0xff; 2]);
}

/// PCI Express 5.0, 7.2.2.
#[test]
fn ecam_decodes_bus_device_and_function() {
    let (bus, _) = bus();
    let far = Bdf { bus: 0xff, device: 31, function: 7 };
    bus.plug(far, device()).unwrap();
    let at = |bdf: Bdf, register: u64| {
        u64::from(bdf.bus) << 20
            | u64::from(bdf.device) << 15
            | u64::from(bdf.function) << 12
            | register
    };
    let get = |offset, len: usize| {
        let mut data = vec![0xa5; len];
        bus.mmio_read(MmioAddress(ECAM), offset, &mut data);
        data
    };
    for bdf in [FIVE, far] {
        assert_eq!(get(at(bdf, 0), 4), ID.to_le_bytes());
        assert_eq!(get(at(bdf, 2), 1), [0x42]);
        assert_eq!(get(at(bdf, 0xffe), 4), [0, 0, 0xff, 0xff]);
        bus.mmio_write(MmioAddress(ECAM), at(bdf, 0x3c), &[9]);
        assert_eq!(get(at(bdf, 0x38), 8), [0, 0, 0, 0, 9, 1, 0, 0]);
    }
    assert_eq!(get(at(Bdf { function: 1, ..FIVE }, 0), 8), [0xff; 8]);
    for offset in [1 << 28, (1 << 28) + at(FIVE, 0), u64::MAX] {
        assert_eq!(get(offset, 4), [0xff; 4]);
        bus.mmio_write(MmioAddress(ECAM), offset, &[0; 4]);
    }
}

/// All of it on vm-device's buses, as a VMM has it.
#[test]
fn on_an_io_manager() {
    let (bus, map) = bus();
    let mut manager = IoManager::new();
    let ports = PioRange::new(PioAddress(mechanism1::ADDRESS), 8).unwrap();
    manager.register_pio(ports, bus.clone()).unwrap();
    let ecam = MmioRange::new(MmioAddress(ECAM), 1 << 28).unwrap();
    manager.register_mmio(ecam, bus.clone()).unwrap();

    manager.pio_write(PioAddress(0xcf8), &0x8000_2818_u32.to_le_bytes()).unwrap();
    manager.pio_write(PioAddress(0xcfc), &0xe000_0000_u32.to_le_bytes()).unwrap();
    manager.mmio_write(MmioAddress(ECAM + (5 << 15) + 0x14), &0xc000_u32.to_le_bytes()).unwrap();
    manager.mmio_write(MmioAddress(ECAM + (5 << 15) + 4), &[3]).unwrap();
    assert_eq!(map.take(), [(1, true, 0xc000), (2, true, 0xe000_0000)]);

    for ((bdf, bar), state) in map.placed.lock().unwrap().iter() {
        let window = Arc::new(BarWindow::new(bus.function(*bdf).unwrap(), *bar));
        match state.kind {
            BarKind::Io => {
                let base = PioAddress(state.address as u16);
                manager
                    .register_pio(PioRange::new(base, state.size as u16).unwrap(), window)
                    .unwrap();
            }
            _ => {
                let base = MmioAddress(state.address);
                manager.register_mmio(MmioRange::new(base, state.size).unwrap(), window).unwrap();
            }
        }
    }
    assert_eq!(MSIX_BAR, 2);
    manager.mmio_write(MmioAddress(0xe000_0000 + TABLE + 8), &[1, 2, 3, 4]).unwrap();
    let mut data = [0; 8];
    manager.mmio_read(MmioAddress(0xe000_0000 + TABLE + 8), &mut data).unwrap();
    assert_eq!(data, [1, 2, 3, 4, 1, 0, 0, 0]);
    manager.pio_write(PioAddress(0xc01f), &[7]).unwrap();
    let mut data = [0; 2];
    manager.pio_read(PioAddress(0xc01e), &mut data).unwrap();
    assert_eq!(data, [0, 7]);
}

/// Two vCPUs at the same function's registers: the last thing that the observer heard is true.
#[test]
fn changes_are_told_in_order() {
    let (bus, map) = bus();
    write(&bus, FIVE, 4, 2);
    let threads: Vec<_> = [0xd000_0000_u32, 0xe000_0000]
        .map(|base| {
            let bus = bus.clone();
            std::thread::spawn(move || {
                for step in 0..500 {
                    write(&bus, FIVE, 0x10, base + step * 0x1000);
                }
            })
        })
        .into();
    for thread in threads {
        thread.join().unwrap();
    }
    let address = u64::from(read(&bus, FIVE, 0x10));
    assert_eq!(map.placed.lock().unwrap()[&(FIVE, 0)].address, address);
}
