//! What the adapter is told at first.

use super::super::{Coalescing, Moderation};
use paraslot_spec::vmxnet3::{
    COALESCE_ADAPT, COALESCE_DISABLED, COALESCE_RBC, COALESCE_STATIC, Features, IC_DISABLE_ALL,
    IML_ADAPTIVE, IML_NONE, REVISION_1, RSS_HASH_FUNC_TOEPLITZ, RxMode, gos,
};

use super::*;

#[test]
fn everything_is_set_up() {
    let (fake, model) = machine(Fault::None);
    let mut nic = adapter(&fake, Options { interrupt: 5, ..Options::default() });
    assert_eq!((nic.address(), nic.link_up(), nic.depth()), (MAC, true, 511));
    assert_eq!((nic.revision(), nic.signalling()), (3, Signalling::MsiX));
    let offers = Offers { checksum: true, segmentation: true, large_receive: true };
    assert_eq!((nic.offers(), nic.receive_queues(), nic.interrupt()), (offers, 1, 5));

    let shared = model.shared(&fake);
    let misc = shared.dev_read.misc;
    assert_eq!(misc.driver_info.gos.get(), gos::BITS_64);
    assert_eq!(misc.driver_info.vmxnet3_rev_spt.get(), REVISION_1);
    assert_eq!(misc.driver_info.upt_ver_spt.get(), 1);
    assert_eq!(misc.upt_features.get(), (Features::RXCSUM | Features::LRO).bits());
    assert_eq!((misc.mtu.get(), misc.max_num_rx_sg.get()), (1500, 18));
    assert_eq!((misc.num_tx_queues, misc.num_rx_queues, misc.queue_desc_len.get()), (1, 1, 512));
    assert!(misc.queue_desc_pa.get().is_multiple_of(128));
    let interrupts = shared.dev_read.intr_conf;
    assert_eq!((interrupts.auto_mask, interrupts.num_intrs, interrupts.event_intr_idx), (1, 2, 0));
    assert_eq!(interrupts.mod_levels[..3], [IML_ADAPTIVE, IML_ADAPTIVE, 0]);
    assert_eq!(interrupts.intr_ctrl.get(), IC_DISABLE_ALL);
    let filters = shared.dev_read.rx_filter_conf;
    assert_eq!(filters.rx_mode.get(), (RxMode::UCAST | RxMode::BCAST).bits());
    assert!(filters.vf_table[0].get() == 1 && filters.vf_table[1..].iter().all(|word| *word == 0));
    assert_eq!((filters.mf_table_len.get(), shared.dev_read.rss_conf_desc.conf_pa.get()), (0, 0));

    let conf = model.transmit_conf(&fake).conf;
    let sizes = [conf.tx_ring_size, conf.data_ring_size, conf.comp_ring_size];
    assert_eq!(sizes.map(|size| size.get()), [512; 3]);
    assert_eq!((conf.tx_data_ring_desc_size.get(), conf.intr_idx), (128, 1));
    let conf = model.receive_conf(&fake, 0).conf;
    assert_eq!(conf.rx_ring_size.map(|size| size.get()), [1024, 256]);
    assert_eq!((conf.comp_ring_size.get(), conf.rx_data_ring_desc_size.get()), (1280, 128));
    assert_eq!(conf.intr_idx, 0);
    for base in [conf.rx_ring_base_pa[0], conf.rx_ring_base_pa[1], conf.comp_ring_base_pa] {
        assert!(base.get() != 0 && base.get().is_multiple_of(512));
    }
    // All buffers are there but the one that tells a full ring from an empty one.
    assert_eq!((model.owned(&fake, 0, 0), model.owned(&fake, 0, 1)), (1023, 255));
    assert_eq!(model.next_buffer(&fake, 0, 0).unwrap().2 & 0xffff, 1522);
    assert_eq!(model.next_buffer(&fake, 0, 1).unwrap().2 & 0xffff, 1 << 14 | 4096);

    // Both vectors send the message; no interrupt comes.
    let table = model.table.borrow();
    let entry = |vector: u64| [0, 4, 8, 12].map(|at| table.get(&(16 * vector + at)).copied());
    assert_eq!(entry(0), [Some(0xfee0_0000), Some(0), Some(5), Some(0)]);
    assert_eq!(entry(1), entry(0));
    assert_eq!(entry(2), [None, None, None, Some(1)]);
    assert_eq!(config(&fake, MSIX) >> 30, 0b10);
    assert!(pin_is_off(&fake) && model.masked.borrow().iter().all(|masked| *masked));
}

#[test]
fn the_set_up_is_linuxs() {
    let (fake, model) = machine(Fault::None);
    adapter(&fake, Options::default());
    let commands = core::mem::take(&mut *model.commands.borrow_mut());
    assert_eq!(
        commands,
        [
            command::RESET_DEV,
            command::GET_CONF_INTR,
            command::GET_TXDATA_DESC_SIZE,
            command::ACTIVATE_DEV,
            command::UPDATE_RX_MODE,
            command::UPDATE_VLAN_FILTERS,
            command::UPDATE_MAC_FILTERS,
        ]
    );
    let trace = model.take_trace();
    let activated = WriteVd(registers::CMD, command::ACTIVATE_DEV);
    let at = trace.iter().position(|access| *access == activated).unwrap();
    let expected = [
        ReadVd(registers::CMD),
        WritePt(imr(0), 1),
        WritePt(imr(1), 1),
        WritePt(registers::RXPROD, 1023),
        WritePt(registers::RXPROD2, 255),
        WriteVd(registers::CMD, command::UPDATE_RX_MODE),
    ];
    assert_eq!(trace[at + 1..][..expected.len()], expected);
}

#[test]
fn the_newest_revision_that_both_know_is_used() {
    for (offered, wanted, revision) in
        [(0b111, 3, 3), (0b111, 2, 2), (0b111, 1, 1), (0b011, 3, 2), (0b001, 3, 1), (0b1101, 2, 1)]
    {
        let (fake, model) = machine(Fault::None);
        model.revisions.set(offered);
        model.data_size.set(256);
        let nic = adapter(&fake, Options { revision: wanted, ..Options::default() });
        assert_eq!((nic.revision(), model.revision.get()), (revision, 1 << (revision - 1)));
        // Data rings for what arrives, and of other sizes than 128, are of revision 3.
        let new = revision == 3;
        let size = if new { 256 } else { 128 };
        assert_eq!(model.transmit_conf(&fake).conf.tx_data_ring_desc_size.get(), size);
        let conf = model.receive_conf(&fake, 0).conf;
        assert_eq!(conf.rx_data_ring_desc_size.get(), if new { 128 } else { 0 });
        assert_eq!(conf.rx_data_ring_base_pa.get() != 0, new);
    }
}

#[test]
fn entries_of_the_data_ring_are_as_the_adapter_likes_them_if_they_can_be() {
    for (answer, size) in [
        (0, 128),
        (64, 128),
        (128, 128),
        (192, 192),
        (200, 128),
        (2048, 2048),
        (2112, 128),
        (0x0080_0100, 256),
        (u32::MAX, 128),
    ] {
        let (fake, model) = machine(Fault::None);
        model.data_size.set(answer);
        adapter(&fake, Options::default());
        let conf = model.transmit_conf(&fake).conf;
        assert_eq!(conf.tx_data_ring_desc_size.get(), size, "{answer:#x}");
    }
}

#[test]
fn options_say_what_is_used() {
    let (fake, model) = machine(Fault::None);
    let options = Options {
        checksum: false,
        segmentation: false,
        large_receive: false,
        ..Options::default()
    };
    let mut nic = adapter(&fake, options);
    assert_eq!(nic.offers(), Offers::default());
    let misc = model.shared(&fake).dev_read.misc;
    assert_eq!((misc.upt_features.get(), misc.max_num_rx_sg.get()), (0, 0));
    let (region, _) = traffic_frame(&fake, 64);
    for task in [Task::Checksum { start: 34, offset: 6 }, Task::Segment { size: 10 }] {
        let refused = Err(Error::Request("the task was not offered"));
        assert_eq!(nic.transmit(0, &region, 64, task), refused);
    }
    // Checksums are not looked at.
    assert!(model.arrive(&fake, 0, &[7; 60], RIGHT));
    assert_eq!(received(&mut nic, 9), [(vec![7; 60], 1, Known::Nothing)]);

    for options in [
        Options { revision: 0, ..Options::default() },
        Options { revision: 4, ..Options::default() },
        Options { receive_queues: 0, ..Options::default() },
        Options { receive_queues: 9, ..Options::default() },
        Options { moderation: Moderation::Level(0), ..Options::default() },
        Options { moderation: Moderation::Level(8), ..Options::default() },
        Options { mtu: 59, ..Options::default() },
        Options { mtu: 9001, ..Options::default() },
        Options { address: Some([1; 6]), ..Options::default() },
        Options { address: Some([0; 6]), ..Options::default() },
    ] {
        let refused = Vmxnet3::new(&fake, options).err();
        assert!(matches!(refused, Some(Error::Request(_))), "{options:?}");
    }
}

#[test]
fn its_address_can_be_another() {
    let (fake, model) = machine(Fault::None);
    let other = [0x02, 0xa, 0xb, 0xc, 0xd, 0xe];
    let address = || {
        let registers = model.registers.borrow();
        (registers[&registers::MACL], registers[&registers::MACH])
    };
    let mut nic = adapter(&fake, Options { address: Some(other), ..Options::default() });
    assert_eq!((nic.address(), address()), (other, (0x0c0b_0a02, 0x0e0d)));
    nic.set_address(MAC).unwrap();
    assert_eq!((nic.address(), address()), (MAC, (0x3322_1102, 0x5544)));
    assert!(matches!(nic.set_address([3; 6]), Err(Error::Request(_))));
    assert_eq!((nic.address(), address()), (MAC, (0x3322_1102, 0x5544)));
}

#[test]
fn several_queues_have_rss() {
    let (fake, model) = machine(Fault::None);
    let nic = adapter(&fake, Options { receive_queues: 3, ..Options::default() });
    assert_eq!(nic.receive_queues(), 3);
    let read = model.shared(&fake).dev_read;
    assert_eq!((read.misc.num_rx_queues, read.misc.queue_desc_len.get()), (3, 1024));
    assert!(Features::from_bits_retain(read.misc.upt_features.get()).contains(Features::RSS));
    assert_eq!((read.rss_conf_desc.conf_ver.get(), read.rss_conf_desc.conf_len.get()), (1, 176));
    let rss = model.rss(&fake);
    assert_eq!((rss.hash_type.get(), rss.hash_func.get()), (0xf, RSS_HASH_FUNC_TOEPLITZ));
    assert_eq!((rss.hash_key_size.get(), rss.ind_table_size.get()), (40, 32));
    assert!(rss.ind_table[..32].iter().zip((0..3).cycle()).all(|(entry, queue)| *entry == queue));
    // Their own rings, and doorbells.
    let mut bases: Vec<u64> = (0..3)
        .map(|queue| model.receive_conf(&fake, queue).conf)
        .flat_map(|conf| [conf.rx_ring_base_pa[0], conf.rx_ring_base_pa[1], conf.comp_ring_base_pa])
        .map(|base| base.get())
        .collect();
    bases.sort_unstable();
    bases.dedup();
    assert_eq!(bases.len(), 9);
    let trace = model.take_trace();
    for queue in 0..3 {
        let at = registers::STRIDE * queue;
        assert!(trace.contains(&WritePt(registers::RXPROD + at, 1023)));
        assert!(trace.contains(&WritePt(registers::RXPROD2 + at, 255)));
    }
}

#[test]
fn vectors_are_as_asked_for_and_as_there_are() {
    for (vectors, available, receive, transmit, count) in [
        (Vectors::Directions, 25, [0, 0], 1, 2),
        (Vectors::Directions, 2, [0, 0], 1, 2),
        (Vectors::Directions, 1, [0, 0], 0, 1),
        (Vectors::Shared, 25, [0, 0], 0, 1),
        (Vectors::Each, 25, [0, 1], 2, 3),
        (Vectors::Each, 3, [0, 1], 2, 3),
        (Vectors::Each, 2, [0, 0], 1, 2),
        (Vectors::Each, 1, [0, 0], 0, 1),
    ] {
        let (fake, model) = machine_with(available, true);
        adapter(&fake, Options { vectors, receive_queues: 2, ..Options::default() });
        let queue = |queue| model.receive_conf(&fake, queue).conf.intr_idx;
        assert_eq!([queue(0), queue(1)], receive, "{vectors:?} {available}");
        assert_eq!(model.transmit_conf(&fake).conf.intr_idx, transmit, "{vectors:?} {available}");
        let conf = model.shared(&fake).dev_read.intr_conf;
        assert_eq!(conf.num_intrs, count, "{vectors:?} {available}");
    }
}

#[test]
fn the_adapter_and_the_options_decide_how_interrupts_come() {
    use Signalling::{Msi, MsiX, Pin};
    for (vectors, msi, liked, wanted, signalling) in [
        (25, true, interrupt::IT_AUTO, MsiX, MsiX),
        (25, true, interrupt::IT_MSIX, MsiX, MsiX),
        (25, true, interrupt::IT_MSI, MsiX, Msi),
        (25, true, interrupt::IT_INTX, MsiX, Pin),
        (25, true, interrupt::IT_AUTO, Msi, Msi),
        (25, true, interrupt::IT_AUTO, Pin, Pin),
        (0, true, interrupt::IT_AUTO, MsiX, Msi),
        (0, false, interrupt::IT_AUTO, MsiX, Pin),
        (25, false, interrupt::IT_MSI, MsiX, Pin),
    ] {
        let (fake, model) = machine_with(vectors, msi);
        model.conf_intr.set(liked);
        // What another driver has left on.
        fake.functions.borrow_mut().get_mut(&(SLOT, 0)).unwrap().words[MSI / 4] |= 1 << 16;
        let options = Options { signalling: wanted, receive_queues: 2, ..Options::default() };
        let nic = adapter(&fake, options);
        assert_eq!(nic.signalling(), signalling);
        // Only MSI-X is for more than one queue, or interrupt.
        assert_eq!(nic.receive_queues(), if signalling == MsiX { 2 } else { 1 });
        let conf = model.shared(&fake).dev_read.intr_conf;
        assert_eq!(conf.num_intrs, if signalling == MsiX { 2 } else { 1 });
        assert_eq!(config(&fake, MSIX) >> 31 != 0, signalling == MsiX);
        if msi {
            assert_eq!(config(&fake, MSI) >> 16 & 1 != 0, signalling == Msi);
        }
        assert!(pin_is_off(&fake));
    }
}

#[test]
fn large_packets_have_bodies_in_the_first_ring_too() {
    for (mtu, size, head, bodies) in
        [(9000, 1056, 3072, 2), (3050, 1024, 3072, 0), (3051, 1024, 3072, 1), (60, 1024, 128, 0)]
    {
        let (fake, model) = machine(Fault::None);
        adapter(&fake, Options { mtu, ..Options::default() });
        let conf = model.receive_conf(&fake, 0).conf;
        assert_eq!(conf.rx_ring_size.map(|size| size.get()), [size, 256], "{mtu}");
        assert_eq!(model.owned(&fake, 0, 0), size - 1);
        let mut last = 0..0;
        for index in 0..2 * (1 + bodies) {
            let (_, address, word) = model.next_buffer(&fake, 0, 0).unwrap();
            let expected = if index % (1 + bodies) == 0 { head } else { 1 << 14 | 4096 };
            assert_eq!(word & 0xffff, expected, "{mtu} {index}");
            // Buffers do not overlap.
            assert!(!last.contains(&address));
            last = address..address + u64::from(word & 0x3fff);
            model.use_buffer(&fake, 0, 0);
        }
    }
}

#[test]
fn interrupts_are_moderated_as_asked_for() {
    for (moderation, level) in [
        (Moderation::Adaptive, IML_ADAPTIVE),
        (Moderation::None, IML_NONE),
        (Moderation::Level(1), 1),
        (Moderation::Level(7), 7),
    ] {
        let (fake, model) = machine(Fault::None);
        adapter(&fake, Options { moderation, ..Options::default() });
        let conf = model.shared(&fake).dev_read.intr_conf;
        assert_eq!(conf.mod_levels[..3], [level, level, 0]);
        assert!(model.scheme.get().is_none());
    }
}

#[test]
fn packets_are_gathered_as_asked_for() {
    let fixed =
        |transmit, transmitted, received| Coalescing::Static { transmit, transmitted, received };
    let with = |coalescing| Options { coalescing: Some(coalescing), ..Options::default() };
    for (coalescing, words) in [
        (Coalescing::Disabled, [COALESCE_DISABLED, 0, 0, 0]),
        (Coalescing::Adaptive, [COALESCE_ADAPT, 0, 0, 0]),
        (fixed(1, 2, 128), [COALESCE_STATIC, 1, 2, 128]),
        (Coalescing::Rate(100), [COALESCE_RBC, 100, 0, 0]),
        (Coalescing::Rate(100_000), [COALESCE_RBC, 100_000, 0, 0]),
    ] {
        let (fake, model) = machine(Fault::None);
        adapter(&fake, with(coalescing));
        let told = model.scheme.get().unwrap();
        let told = [told.mode, told.tx_depth_or_rate, told.tx_comp_depth, told.rx_depth];
        assert_eq!(told.map(|word| word.get()), words);
    }
    for impossible in [
        fixed(129, 0, 0),
        fixed(0, 129, 0),
        fixed(0, 0, 129),
        Coalescing::Rate(99),
        Coalescing::Rate(100_001),
    ] {
        let (fake, _) = machine(Fault::None);
        let refused = Some(Error::Request("the coalescing"));
        assert_eq!(Vmxnet3::new(&fake, with(impossible)).err(), refused, "{impossible:?}");
    }
    // Of revision 3 alone; and the adapter may not.
    let (fake, model) = machine(Fault::Coalesces);
    let refused = Some(Error::Unsupported("this coalescing"));
    assert_eq!(Vmxnet3::new(&fake, with(Coalescing::Adaptive)).err(), refused);
    assert!(!model.active.get());
    model.revisions.set(0b011);
    let refused = Some(Error::Unsupported("coalescing by the driver's rules"));
    assert_eq!(Vmxnet3::new(&fake, with(Coalescing::Adaptive)).err(), refused);
}
