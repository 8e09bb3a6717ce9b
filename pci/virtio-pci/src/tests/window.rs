//! The BAR through configuration space.

use paraslot_pci::PciDevice;
use paraslot_spec::pci::header;
use paraslot_spec::virtio::{Status, pci};

use super::guest::{COPY, Guest};
use crate::layout::{BAR_SIZE, COMMON, DEVICE, ISR, NOTIFY};
use crate::offsets;

struct Window {
    at: u16,
}

impl Window {
    fn new(guest: &mut Guest) -> Self {
        Self { at: guest.structure(pci::cfg_type::PCI).unwrap().at }
    }

    fn aim(&self, guest: &mut Guest, bar: u8, offset: u64, len: u32) {
        guest.set_config(self.at + 4, &[bar]);
        guest.set_config(self.at + 8, &u32::try_from(offset).unwrap().to_le_bytes());
        guest.set_config(self.at + 12, &len.to_le_bytes());
    }

    fn read(&self, guest: &mut Guest, offset: u64, len: u32) -> Vec<u8> {
        self.aim(guest, 0, offset, len);
        guest.config(self.at + pci::PCI_CFG_DATA, len as usize)
    }

    fn write(&self, guest: &mut Guest, offset: u64, data: &[u8]) {
        self.aim(guest, 0, offset, u32::try_from(data.len()).unwrap());
        guest.set_config(self.at + pci::PCI_CFG_DATA, data);
    }
}

// pci.cfg-access.2, pci.cfg-access.3: a driver needs nothing but configuration space.
#[test]
fn a_device_can_be_driven_through_the_window() {
    let mut guest = Guest::new();
    // Memory need not even be decoded.
    guest.command(paraslot_spec::pci::Command::BUS_MASTER);
    let window = Window::new(&mut guest);
    window.write(&mut guest, COMMON + offsets::QUEUE_SELECT, &[1, 0]);
    assert_eq!(window.read(&mut guest, COMMON + offsets::QUEUE_SELECT, 2), [1, 0]);
    assert_eq!(window.read(&mut guest, COMMON + offsets::QUEUE_SIZE, 2), [4, 0]);
    assert_eq!(window.read(&mut guest, COMMON + offsets::DEVICE_STATUS, 1), [0]);
    window.write(&mut guest, COMMON + offsets::DEVICE_STATUS, &[3]);
    assert_eq!(guest.status(), Status::ACKNOWLEDGE | Status::DRIVER);
    window.write(&mut guest, COMMON + offsets::QUEUE_DESC, &[1, 2, 3, 4]);
    assert_eq!(window.read(&mut guest, COMMON + offsets::QUEUE_DESC, 4), [1, 2, 3, 4]);
    assert_eq!(window.read(&mut guest, DEVICE + 4, 4), [5, 6, 7, 8]);
}

#[test]
fn doorbells_and_the_isr_status_can_be_reached() {
    let (mut guest, mut ring) = Guest::running(0);
    let window = Window::new(&mut guest);
    window.write(&mut guest, NOTIFY + 4, &[1, 0]);
    let bells = &guest.function.layout().doorbells;
    assert!(bells[0].event.read().is_err() && bells[1].event.read().is_ok());
    ring.add(&COPY);
    guest.run();
    assert!(guest.ears.line());
    // Reading anything else than the data does not read the BAR.
    window.aim(&mut guest, 0, ISR, 1);
    guest.config(window.at, 16);
    assert!(guest.ears.line());
    // A read that is wider than the window's length has the bytes first.
    assert_eq!(guest.config(window.at + pci::PCI_CFG_DATA, 4), [1, 0, 0, 0]);
    assert!(!guest.ears.line());
}

#[test]
fn part_of_the_data_can_be_accessed() {
    let mut guest = Guest::new();
    let window = Window::new(&mut guest);
    window.aim(&mut guest, 0, DEVICE, 4);
    let data = window.at + pci::PCI_CFG_DATA;
    assert_eq!(guest.config(data + 2, 2), [3, 4]);
    assert_eq!(guest.config(data + 3, 1), [4]);
    // From the capability's length on, across into the data.
    assert_eq!(guest.config(data - 4, 8), [4, 0, 0, 0, 1, 2, 3, 4]);
    guest.set_config(data, &[9, 8, 7, 6]);
    guest.set_config(data + 3, &[5]);
    let writes = guest.control.writes.lock().unwrap().clone();
    assert_eq!(writes, [(0, vec![9, 8, 7, 6]), (0, vec![9, 8, 7, 5])]);
}

#[test]
fn impossible_targets_are_ignored() {
    let mut guest = Guest::new();
    let window = Window::new(&mut guest);
    let data = window.at + pci::PCI_CFG_DATA;
    for (bar, offset, len) in [
        (0, DEVICE, 0),
        (0, DEVICE, 3),
        (0, DEVICE, 8),
        (0, DEVICE, u32::MAX),
        (0, DEVICE + 1, 2),
        (0, DEVICE + 2, 4),
        (0, BAR_SIZE, 4),
        (0, u64::from(u32::MAX), 1),
        (1, DEVICE, 4),
        (5, DEVICE, 4),
        (6, DEVICE, 4),
        (255, DEVICE, 4),
    ] {
        window.aim(&mut guest, bar, offset, len);
        guest.set_config(data, &[0xee; 4]);
        // No access: the register holds what was written to it.
        assert_eq!(guest.config(data, 4), [0xee; 4]);
        assert!(guest.control.writes.lock().unwrap().is_empty());
    }
}

#[test]
fn the_rest_of_configuration_space_is_left_alone() {
    let mut guest = Guest::new();
    let window = Window::new(&mut guest);
    window.aim(&mut guest, 0, DEVICE, 4);
    // What identifies the capability is fixed.
    guest.set_config(window.at, &[0xff; 4]);
    assert_eq!(guest.config(window.at + 2, 2), [20, pci::cfg_type::PCI]);
    assert_eq!(guest.config16(header::VENDOR_ID), 0x1af4);
    assert!(guest.control.writes.lock().unwrap().is_empty());
}
