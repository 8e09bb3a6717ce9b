//! Control commands.

use super::*;

#[test]
fn commands_are_laid_out_as_the_specification_says() {
    type Command = fn(&mut VirtioNet<'_, Machine>) -> Result<(), Error>;
    const COALESCE: Coalesce = Coalesce { max_packets: U32::new(5), max_usecs: U32::new(0x1_0002) };
    const RSS: Rss<'_> = Rss {
        hash_types: 0x102,
        table: &[0, 1, 0, 1],
        unclassified: 1,
        transmit_queues: 2,
        key: &[7, 8, 9],
    };
    const ONE: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const TWO: [u8; 6] = [3, 0, 0, 0, 0, 2];
    let commands: [(u64, Command, &[u8]); 16] = [
        (net::CTRL_RX, |nic| nic.set_receive_mode(rx::PROMISC, true), &[0, 0, 1]),
        (net::CTRL_RX, |nic| nic.set_receive_mode(rx::ALLMULTI, false), &[0, 1, 0]),
        (net::CTRL_RX_EXTRA, |nic| nic.set_receive_mode(rx::NOBCAST, true), &[0, 5, 1]),
        (
            net::CTRL_RX,
            |nic| nic.set_mac_table(&[ONE], &[TWO, TWO]),
            &[1, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 3, 0, 0, 0, 0, 2, 3, 0, 0, 0, 0, 2],
        ),
        (net::CTRL_RX, |nic| nic.set_mac_table(&[], &[]), &[1, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
        (net::CTRL_MAC_ADDR, |nic| nic.set_address(ONE), &[1, 1, 2, 0, 0, 0, 0, 1]),
        (net::CTRL_VLAN, |nic| nic.set_vlan(0x123, true), &[2, 0, 0x23, 1]),
        (net::CTRL_VLAN, |nic| nic.set_vlan(0x123, false), &[2, 1, 0x23, 1]),
        (net::GUEST_ANNOUNCE, |nic| nic.acknowledge_announcement(), &[3, 0]),
        (net::MQ, |nic| nic.set_pairs(1), &[4, 0, 1, 0]),
        (
            net::RSS,
            |nic| nic.set_rss(&RSS),
            &[4, 1, 2, 1, 0, 0, 3, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 2, 0, 3, 7, 8, 9],
        ),
        (
            net::HASH_REPORT,
            |nic| nic.set_hashes(0x102, &[7, 8, 9]),
            &[4, 2, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 7, 8, 9],
        ),
        (
            net::CTRL_GUEST_OFFLOADS,
            |nic| nic.set_guest_offloads(net::GUEST_CSUM | net::GUEST_USO4),
            &[5, 0, 2, 0, 0, 0, 0, 0, 0x40, 0],
        ),
        (net::NOTF_COAL, |nic| nic.set_coalescing(true, COALESCE), &[6, 0, 5, 0, 0, 0, 2, 0, 1, 0]),
        (
            net::NOTF_COAL,
            |nic| nic.set_coalescing(false, COALESCE),
            &[6, 1, 5, 0, 0, 0, 2, 0, 1, 0],
        ),
        (
            net::VQ_NOTF_COAL,
            |nic| nic.set_queue_coalescing(3, COALESCE),
            &[6, 2, 3, 0, 0, 0, 5, 0, 0, 0, 2, 0, 1, 0],
        ),
    ];
    let accept = Options { accept: ALL, ..OPTIONS };
    for (needed, command, bytes) in commands {
        let machine = Machine::new(ALL, 1);
        let mut adapter = adapter(&machine, accept);
        assert_eq!(command(&mut adapter), Ok(()));
        assert_eq!(machine.state.borrow().commands, [(bytes.to_vec(), 0)]);
        assert_eq!(machine.doorbells(), [2]);
        for (ack, more, refused) in [(1, 0, true), (2, 0, false), (0, 1, false), (255, 0, false)] {
            machine.state.borrow_mut().answer = Answer::Ack(ack, more);
            let result = command(&mut adapter);
            assert_eq!(matches!(result, Err(Error::Unsupported(_))), refused, "{result:?}");
            assert_eq!(matches!(result, Err(Error::Protocol(_))), !refused);
        }
        let machine = Machine::new(ALL & !needed, 1);
        let mut adapter = self::adapter(&machine, accept);
        assert!(matches!(command(&mut adapter), Err(Error::Unsupported(_))));
        assert_eq!(machine.state.borrow().commands, []);
    }
    let machine = Machine::new(ALL & !net::CTRL_VQ, 1);
    let result = adapter(&machine, accept).set_receive_mode(rx::PROMISC, true);
    assert!(matches!(result, Err(Error::Unsupported(_))));
}

#[test]
fn what_a_command_asks_for_is_read_back() {
    let machine = Machine::new(USUAL, 1);
    let mut adapter = adapter(&machine, OPTIONS);
    let coalesce =
        Coalesce { max_packets: U32::new(0x0403_0201), max_usecs: U32::new(0x0807_0605) };
    assert_eq!(adapter.queue_coalescing(1), Ok(coalesce));
    assert_eq!(machine.state.borrow().commands, [(vec![6, 3, 1, 0, 0, 0], 8)]);
    machine.state.borrow_mut().answer = Answer::Ack(1, 0);
    assert!(matches!(adapter.queue_coalescing(1), Err(Error::Unsupported(_))));
}

#[test]
fn a_command_that_is_not_answered_is_the_last() {
    let machine = Machine::new(USUAL, 1);
    let mut adapter = adapter(&machine, OPTIONS);
    machine.state.borrow_mut().answer = Answer::Nothing;
    assert_eq!(adapter.set_address([2; 6]), Err(Error::Timeout("a control command")));
    assert_eq!(adapter.address(), [0x52, 0x54, 0, 1, 2, 3]);
    machine.state.borrow_mut().answer = Answer::Ack(0, 0);
    assert_eq!(adapter.set_address([2; 6]), Err(Error::Busy));
    // What does not fit is not sent.
    let machine = Machine::new(USUAL, 1);
    let mut adapter = self::adapter(&machine, OPTIONS);
    assert!(matches!(adapter.set_mac_table(&[[0; 6]; 600], &[]), Err(Error::Request(_))));
    assert!(matches!(
        adapter.set_hashes(1, &[0; 256]),
        Err(Error::Unsupported(_) | Error::Request(_))
    ));
    assert_eq!(adapter.set_mac_table(&[[0; 6]; 500], &[]), Ok(()));
    let rss = Rss { hash_types: 0, table: &[0; 3], unclassified: 0, transmit_queues: 1, key: &[] };
    assert!(matches!(adapter.set_rss(&rss), Err(Error::Request(_))));
}
