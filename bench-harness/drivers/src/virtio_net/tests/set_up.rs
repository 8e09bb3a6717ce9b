//! Setting it up, and resetting its queues.

use super::*;

#[test]
fn it_is_set_up_with_all_receive_buffers_and_one_vector_for_each_queue() {
    let machine = Machine::new(USUAL | 1 << 34, 4);
    let mut adapter = VirtioNet::new(&machine, OPTIONS).unwrap();
    assert_eq!(adapter.features(), USUAL);
    assert_eq!(adapter.address(), [0x52, 0x54, 0, 1, 2, 3]);
    assert_eq!((adapter.mtu(), adapter.max_pairs()), (Some(1500), 4));
    assert!(adapter.link_up() && !adapter.announcement_wanted());
    let offers = Offers { checksum: true, segmentation: true, large_receive: true };
    assert_eq!((adapter.offers(), adapter.depth()), (offers, 128));
    {
        let device = machine.device.borrow();
        assert_eq!((device.accepted, device.status), (USUAL, RUNNING));
        assert_eq!(device.config_vector, u16::MAX);
        let set_up: Vec<(usize, u16, u16)> = (0..)
            .zip(&device.queues)
            .filter(|(_, queue)| queue.enabled)
            .map(|(index, queue)| (index, queue.size, queue.vector))
            .collect();
        // The control queue comes behind all pairs, and nobody waits for its interrupts.
        assert_eq!(set_up, [(0, 256, 0), (1, 256, 1), (8, 16, u16::MAX)]);
    }
    assert_eq!(
        (machine.message(0), machine.message(1), machine.message(2)),
        (Some(0), Some(0), None)
    );
    assert_eq!(machine.doorbells(), [0]);
    let buffers: Vec<_> = core::iter::from_fn(|| machine.next(0)).collect();
    assert_eq!(buffers.len(), 256);
    for chain in &buffers {
        let [buffer] = chain.buffers[..] else { panic!("{chain:?}") };
        // The frame behind the header starts at a multiple of 16.
        assert!(buffer.write && buffer.len == 1536 && (buffer.address + 12) % 16 == 0);
    }
    machine.device.borrow_mut().config[6] = 2;
    assert!(!adapter.link_up() && adapter.announcement_wanted());
    adapter.shutdown().unwrap();
    assert_eq!(machine.device.borrow().status, 0);
}

#[test]
fn fewer_features_queues_and_vectors_do_too() {
    let machine = Machine::new(feature::VERSION_1, 1);
    machine.set_vectors(0);
    let mut adapter = adapter(&machine, OPTIONS);
    let address = adapter.address();
    assert_eq!(address[0], 2, "an address of its own choice");
    assert_eq!((adapter.offers(), adapter.mtu()), (Offers::default(), None));
    assert!(adapter.link_up());
    let buffer = machine.next(0).unwrap().buffers[0];
    assert_eq!(buffer.len, 12 + 1500 + 14 + 8);
    assert_eq!(adapter.set_interrupts(true), Err(Error::Unsupported("MSI-X")));
    assert!(
        machine
            .device
            .borrow()
            .queues
            .iter()
            .all(|queue| queue.vector == u16::MAX || !queue.enabled)
    );
    // With fewer vectors than queues, one serves all.
    let machine = Machine::new(USUAL, 2);
    machine.set_vectors(3);
    let pairs = Options { pairs: 2, ..OPTIONS };
    self::adapter(&machine, pairs);
    assert!(machine.device.borrow().queues[..4].iter().all(|queue| queue.vector == 0));
    // The last one is for changes of the configuration, if those are wanted.
    let options = Options { config_interrupt: Some(5), ..OPTIONS };
    self::adapter(&machine, options);
    assert_eq!(machine.device.borrow().config_vector, 2);
    assert_eq!((machine.message(2), machine.message(1)), (Some(5), Some(0)));
    machine.set_vectors(1);
    assert_eq!(failure(&machine, options), Error::Unsupported("so many vectors"));
    // An address of the driver's is made known, where that can be done.
    let machine = Machine::new(USUAL & !net::MAC, 1);
    let adapter = self::adapter(&machine, OPTIONS);
    let mut command = vec![1, 1];
    command.extend(adapter.address());
    assert_eq!(machine.state.borrow().commands, [(command, 0)]);
}

#[test]
fn what_cannot_be_set_up_is_refused_and_the_device_told() {
    for options in [
        Options { size: 100, ..OPTIONS },
        Options { size: 2048, ..OPTIONS },
        Options { pairs: 0, ..OPTIONS },
        Options { pairs: 9, ..OPTIONS },
        Options { buffer: 127, ..OPTIONS },
        Options { buffer: 65537, ..OPTIONS },
        // A frame that was never segmented would fill more than 64.
        Options { buffer: 1024, ..OPTIONS },
    ] {
        let error = failure(&Machine::new(USUAL, 1), options);
        assert!(matches!(error, Error::Request(_)), "{options:?}");
    }
    let unsupported: [(u64, Options); 4] = [
        (USUAL & !feature::VERSION_1, OPTIONS),
        (USUAL & !net::MQ, Options { pairs: 2, ..OPTIONS }),
        (USUAL, Options { pairs: 3, ..OPTIONS }),
        (USUAL & !feature::INDIRECT_DESC, Options { layout: Layout::Indirect, ..OPTIONS }),
    ];
    for (offered, options) in unsupported {
        let machine = Machine::new(offered, 2);
        assert!(matches!(failure(&machine, options), Error::Unsupported(_)), "{options:?}");
        assert_eq!(machine.device.borrow().status & FAILED, FAILED);
    }
    // A device that says what cannot be.
    for (at, bytes) in [(0, [1, 0]), (8, [0, 0]), (8, [1, 0x80]), (10, [67, 0])] {
        let machine = Machine::new(USUAL, 1);
        machine.device.borrow_mut().config[at..at + 2].copy_from_slice(&bytes);
        assert!(matches!(failure(&machine, OPTIONS), Error::Protocol(_)), "{at}");
        assert_eq!(machine.device.borrow().status & FAILED, FAILED);
    }
    let machine = Machine::new(USUAL, 1);
    machine.fake.memory.set(1 << 16);
    assert_eq!(failure(&machine, OPTIONS), Error::NoMemory);
    assert_eq!(failure_on_empty_bus(), Error::NotFound);
}

fn failure_on_empty_bus() -> Error {
    VirtioNet::new(&crate::testing::Fake::new(), OPTIONS).err().unwrap()
}

#[test]
fn queues_are_reset_and_full_of_buffers_again() {
    let machine = Machine::new(USUAL, 2);
    let mut adapter = adapter(&machine, Options { pairs: 2, ..OPTIONS });
    let (region, _) = region(&machine, 0, 60);
    let mut bytes = plain(1);
    bytes.extend(frame(60));
    adapter.set_interrupts(true).unwrap();
    for _ in 0..3 {
        for tag in 0..100 {
            adapter.transmit(tag, &region, 60, Task::None).unwrap();
        }
        adapter.kick().unwrap();
        machine.deliver(0, &bytes, |_| {});
        adapter.reset_queues().unwrap();
        assert!(machine.device.borrow().queues[..4].iter().all(|queue| queue.enabled));
        assert_eq!(
            (received(&mut adapter).unwrap().len(), reclaimed(&mut adapter).unwrap().len()),
            (0, 0)
        );
        let interrupts = machine.fake.interrupts.get();
        for queue in [0, 2] {
            assert_eq!(machine.available(queue), 256);
            machine.deliver(queue, &bytes, |_| {});
        }
        assert_eq!(received(&mut adapter).unwrap().len(), 2);
        assert_eq!(machine.fake.interrupts.get(), interrupts);
    }
    let machine = Machine::new(USUAL & !feature::RING_RESET, 1);
    let result = self::adapter(&machine, OPTIONS).reset_queues();
    assert!(matches!(result, Err(Error::Unsupported(_))));
}
