//! Cloud Hypervisor's client.

use std::os::fd::AsRawFd;

use vfio_user::Client;

use crate::connection::End;
use crate::testing::{Bench, PBA, VECTORS, count, event, memory, reg, until, word_at};
use crate::wire::{irq, region};

const CONFIG: u32 = region::CONFIG;

#[test]
fn it_finds_the_function() {
    let bench = Bench::new();
    let mut client = Client::new(&bench.path).unwrap();
    let sizes: Vec<_> = (0..9).map(|index| client.region(index).unwrap().size).collect();
    assert_eq!(sizes, [0x4000, 0, 16, 0x1000, 0, 0, 0, 4096, 0]);
    // It would map a page both ways.
    assert!((0..9).all(|index| client.region(index).unwrap().sparse_areas.is_empty()));
    assert!(!client.resettable(), "it reads the flag the other way round");
    client.reset().unwrap();
    let irqs: Vec<_> = (0..5).map(|index| client.get_irq_info(index).unwrap().count).collect();
    assert_eq!(irqs, [1, 1, u32::from(VECTORS), 0, 0]);
    let mut id = [0; 4];
    client.region_read(CONFIG, 0, &mut id).unwrap();
    assert_eq!(id, [0x34, 0x12, 0x78, 0x56]);
    let mut all = [0; 4096];
    client.region_read(CONFIG, 0, &mut all).unwrap();
    // It sizes BARs by configuration space.
    client.region_write(CONFIG, 0x10, &[0xff; 8]).unwrap();
    let mut size = [0; 8];
    client.region_read(CONFIG, 0x10, &mut size).unwrap();
    assert_eq!(u64::from_le_bytes(size), !0x3fff | 4);
    // It waits for the data of whatever it reads.
    let mut nowhere = [0; 8];
    client.region_read(8, u64::MAX, &mut nowhere).unwrap();
    assert_eq!(nowhere, [0xff; 8]);
    client.shutdown().unwrap();
    assert!(matches!(bench.end(), End::Closed));
}

#[test]
fn it_has_memory_and_interrupts() {
    let bench = Bench::new();
    for _ in 0..3 {
        let mut client = Client::new(&bench.path).unwrap();
        let file = memory(1 << 20);
        client.dma_map(0x1_0000, 0, 0x1_0000, file.as_raw_fd()).unwrap();
        client.dma_map(0, 0x10_0000, 0x1_0000, file.as_raw_fd()).unwrap();
        let events: Vec<_> = (0..VECTORS).map(|_| event()).collect();
        let fds: Vec<_> = events.iter().map(AsRawFd::as_raw_fd).collect();
        let assign = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;
        for (start, fds) in (0..).step_by(16).zip(fds.chunks(16)) {
            let count = u32::try_from(fds.len()).unwrap();
            client.set_irqs(irq::MSIX, assign, start, count, fds).unwrap();
        }
        client.region_write(CONFIG, 4, &[0x06, 0]).unwrap();
        for vector in 0..VECTORS {
            client.region_write(0, reg::RAISE, &vector.to_le_bytes()).unwrap();
            assert_eq!(count(&events[usize::from(vector)]), 1);
        }
        let mut pending = [1; 8];
        client.region_read(0, PBA, &mut pending).unwrap();
        assert_eq!(pending, [0; 8]);
        client.region_write(0, reg::TARGET, &0x10_0008_u64.to_le_bytes()).unwrap();
        until("memory is written", || word_at(&file, 8) > 10);
        client.dma_unmap(0x10_0000, 0x1_0000).unwrap();
        let last = word_at(&file, 8);
        // It takes no notice of errors, and waits for the payload.
        client.dma_unmap(0x10_0000, 0x1_0000).unwrap();
        client.set_irqs(irq::MSIX, irq::DATA_NONE | irq::ACTION_TRIGGER, 0, 0, &[]).unwrap();
        client.region_write(0, reg::RAISE, &[0]).unwrap();
        assert_eq!((count(&events[0]), word_at(&file, 8)), (0, last));
        drop(client);
        assert!(matches!(bench.end(), End::Closed));
    }
}
