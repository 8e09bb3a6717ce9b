//! What a driver finds before it does anything.

use std::sync::Arc;

use paraslot_device::{DeviceError, ManualExecutor};
use paraslot_pci::{BarKind, PciDevice};
use paraslot_spec::pci::{capability, header, msix};
use paraslot_spec::virtio::{feature, pci};
use paraslot_virtio::DeviceConfig;

use super::echo::{CONFIG, Echo, NEEDED, OPTIONAL, SIZES};
use super::guest::{Ears, Guest, host, space};
use crate::VirtioPci;
use crate::queues::QueueSlot;

// pci.discovery.1, pci.discovery.2, pci.discovery.4, pci.discovery.5, pci.discovery.6
#[test]
fn it_is_a_modern_virtio_device() {
    for (device_type, class) in [(1, 0x02_0000), (2, 0x01_0000), (8, 0x01_0000), (0x3f, 0xff_0000)]
    {
        let mut guest = Guest::with(Echo { device_type, ..Echo::new() });
        assert_eq!(guest.config16(header::VENDOR_ID), 0x1af4);
        assert_eq!(guest.config16(header::DEVICE_ID), 0x1040 + device_type);
        assert!(guest.config(header::REVISION_ID, 1)[0] >= 1);
        assert!(guest.config16(header::SUBSYSTEM_ID) >= 0x40);
        let code = guest.config(header::CLASS_CODE, 3);
        assert_eq!(u32::from_le_bytes([code[0], code[1], code[2], 0]), class);
    }
}

// pci.general.1
#[test]
fn it_is_a_pci_express_function_with_power_management() {
    let mut guest = Guest::new();
    for id in [capability::POWER_MANAGEMENT, capability::PCI_EXPRESS, capability::MSI_X] {
        assert_eq!(guest.capabilities(id).len(), 1);
    }
    assert_eq!(guest.config(header::INTERRUPT_PIN, 1), [1]);
    let layout = guest.function.layout();
    assert!(layout.intx && layout.windows.is_empty());
    assert_eq!((layout.msix_vectors, layout.msi_vectors), (3, 0));
}

// pci.common.1, pci.common.2, pci.notification.1, pci.isr.1, pci.devcfg.1, pci.cfg-access.1,
// pci.caps.1, pci.caps.3
#[test]
fn every_structure_is_there_once_and_in_the_bar() {
    let mut guest = Guest::new();
    let bar = guest.function.layout().bars[0].unwrap();
    assert_eq!((bar.kind, bar.prefetchable), (BarKind::Memory64, false));
    assert_eq!(guest.capabilities(capability::VENDOR).len(), 5);
    let types = pci::cfg_type::COMMON..=pci::cfg_type::PCI;
    let mut places = Vec::new();
    for cfg_type in types {
        let structure = guest.structure(cfg_type).unwrap();
        let more = matches!(cfg_type, pci::cfg_type::NOTIFY | pci::cfg_type::PCI);
        assert_eq!(structure.cap_len, if more { 20 } else { 16 });
        if cfg_type != pci::cfg_type::PCI {
            assert!(structure.bar == 0 && structure.length > 0);
            assert!(structure.offset + structure.length <= bar.size);
            assert_eq!(structure.offset % 4096, 0);
            places.push(structure.offset);
        }
    }
    places.dedup();
    assert_eq!(places.len(), 4);
    let device = guest.structure(pci::cfg_type::DEVICE).unwrap();
    assert_eq!(device.length, CONFIG.len() as u64);
    assert_eq!(guest.structure(pci::cfg_type::COMMON).unwrap().length, 64);
}

#[test]
fn a_device_without_configuration_has_no_structure_for_it() {
    let config = Arc::new(DeviceConfig::new(&[]));
    let mut guest = Guest::with(Echo { config, ..Echo::new() });
    assert_eq!(guest.structure(pci::cfg_type::DEVICE), None);
}

// pci.notification.2, pci.notification.3, pci.notification.4, pci.notification.5,
// pci.notification.6
#[test]
fn each_queue_has_a_doorbell_in_the_notification_structure() {
    for sizes in [vec![4], vec![4; 3], vec![4; 1024]] {
        let count = sizes.len();
        let mut guest = Guest::with(Echo { sizes, ..Echo::new() });
        assert_eq!(usize::from(guest.image().num_queues.get()), count);
        let notify = guest.structure(pci::cfg_type::NOTIFY).unwrap();
        let at = notify.at + pci::NOTIFY_OFF_MULTIPLIER;
        let multiplier = u32::from_le_bytes(guest.config(at, 4).try_into().unwrap());
        assert!(multiplier.is_power_of_two() && multiplier >= 2);
        assert_eq!(notify.offset % 2, 0);
        for queue in 0..count {
            guest.select(u16::try_from(queue).unwrap());
            let place = u64::from(guest.image().queue_notify_off.get()) * u64::from(multiplier);
            assert!(place + 2 <= notify.length);
            let doorbell = &guest.function.layout().doorbells[queue];
            assert_eq!((doorbell.bar, doorbell.offset), (notify.bar, notify.offset + place));
            assert_eq!((doorbell.len, doorbell.value), (0, None));
        }
    }
}

// pci.msix.1, pci.msix.2, pci.msix.3
#[test]
fn there_is_a_vector_for_each_queue_and_one_more() {
    for (queues, vectors) in [(1, 2), (2, 3), (1024, 1025)] {
        let mut guest = Guest::with(Echo { sizes: vec![2; queues], ..Echo::new() });
        let at = guest.capabilities(capability::MSI_X)[0];
        assert_eq!((guest.config16(at + msix::CONTROL) & msix::TABLE_SIZE) + 1, vectors);
        assert_eq!(guest.function.layout().msix_vectors, vectors);
        // Each can be reached, and the table touches nothing else.
        guest.enable_msix();
    }
}

// pci.common.14, CH 082fdc4d0: a queue that is not there is answered for all the same.
#[test]
fn a_queue_that_is_not_there_reads_as_nothing() {
    let mut guest = Guest::new();
    for queue in [2, 3, 0xffff] {
        guest.select(queue);
        for offset in (0..64).step_by(2) {
            guest.set_common(crate::offsets::QUEUE_SIZE + offset % 40, &[1, 0]);
        }
        guest.select(queue);
        let image = guest.image();
        assert_eq!((image.queue_size.get(), image.queue_enable.get()), (0, 0));
        assert_eq!((image.queue_desc.get(), image.queue_reset.get()), (0, 0));
        assert_eq!(image.queue_msix_vector.get(), pci::NO_VECTOR);
    }
}

// pci.common.15
#[test]
fn queue_sizes_are_those_of_the_device() {
    let mut guest = Guest::new();
    for (queue, size) in (0..).zip(SIZES) {
        guest.select(queue);
        assert_eq!(guest.get16(crate::offsets::QUEUE_SIZE), size);
    }
}

// basic.reserved-bits.1, basic.reserved-bits.10, pci.common.3
#[test]
fn the_offer_is_the_device_s_and_the_transport_s() {
    let mut guest = Guest::new();
    let own = NEEDED | OPTIONAL | feature::EVENT_IDX | feature::INDIRECT_DESC;
    assert_eq!(guest.offered(), own | feature::VERSION_1 | feature::RING_RESET);
    for select in [2, 3, 0xffff_ffff] {
        guest.set32(crate::offsets::DEVICE_FEATURE_SELECT, select);
        assert_eq!(guest.get32(crate::offsets::DEVICE_FEATURE), 0);
    }
}

// basic.features.1, basic.features.4
#[test]
fn impossible_devices_are_refused() {
    let long = Arc::new(DeviceConfig::new(&[0; 4097]));
    let unserved = |bit: u64| Echo { features: NEEDED | bit, ..Echo::new() };
    for echo in [
        Echo { device_type: 0, ..Echo::new() },
        Echo { device_type: 0x40, ..Echo::new() },
        Echo { sizes: vec![], ..Echo::new() },
        Echo { sizes: vec![4; 1025], ..Echo::new() },
        Echo { sizes: vec![4, 0], ..Echo::new() },
        Echo { sizes: vec![4, 6], ..Echo::new() },
        Echo { config: long, ..Echo::new() },
        unserved(feature::RING_PACKED),
        unserved(feature::IN_ORDER),
        unserved(feature::ACCESS_PLATFORM),
        unserved(feature::SR_IOV),
        unserved(feature::NOTIFICATION_DATA),
        unserved(1 << 41),
        unserved(1 << 49),
        unserved(1 << 24),
    ] {
        let ears = Arc::new(Ears::default());
        let host = host(&space(), Arc::new(ManualExecutor::new()), &ears);
        assert!(matches!(VirtioPci::new(echo, host), Err(DeviceError::Config(_))));
    }
}

#[test]
fn the_footprint_is_as_documented() {
    type Space = super::guest::Space;
    assert!(size_of::<VirtioPci<Space, Echo>>() - size_of::<Echo>() <= 2048);
    assert!(size_of::<QueueSlot>() + size_of::<paraslot_device::Doorbell>() <= 96);
    assert!(size_of::<paraslot_virtio::Queue<Space>>() <= 192);
}
