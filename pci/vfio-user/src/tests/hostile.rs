//! A client that sends anything.

use std::os::fd::AsFd;

use proptest::prelude::*;
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::connection::End;
use crate::testing::{Bench, Raw, event, memory};
use crate::wire::{HEADER_LEN, Header, command, region};

/// What a field may hold.
const VALUES: [u64; 12] = [
    0,
    1,
    2,
    4,
    0x1000,
    0x1001,
    0x4000,
    0x7fff_ffff,
    0xffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_ffff_f000,
    u64::MAX,
];

/// The server is there for the next client, and what it serves is what it was.
fn is_well(bench: &Bench) {
    let mut client = bench.client();
    assert_eq!(client.read(region::CONFIG, 0, 4), [0x34, 0x12, 0x78, 0x56]);
}

// lvu 75a0ac2, 3602ad8, b646559, 353fee1, c5acc06; vfio 669eb6b, 3935919.
#[test]
fn every_command_with_every_value_in_every_field() {
    let bench = Bench::new();
    let file = memory(0x10000);
    let mut client = bench.client();
    for command in 0..20 {
        for fields in 0..7 {
            for value in VALUES {
                for rest in [0, 1] {
                    let mut payload: Vec<u8> =
                        (0..6).flat_map(|_| u32::to_le_bytes(rest * 16)).collect();
                    if let Some(place) = payload.get_mut(fields * 4..) {
                        let value = value.to_le_bytes();
                        let len = place.len().min(value.len());
                        place[..len].copy_from_slice(&value[..len]);
                    }
                    let header = Header { command, ..Header::default() };
                    client.send(header, &payload, &[file.as_fd()][..usize::from(fields % 2 == 0)]);
                    match client.receive() {
                        Ok((header, _, _)) => assert_eq!(header.command, command),
                        // A read of too much; nothing else ends a connection.
                        Err(End::Closed | End::Socket(_)) => {
                            assert_eq!(command, command::REGION_READ);
                            assert!(matches!(bench.end(), End::Protocol(_)));
                            client = bench.client();
                        }
                        Err(end) => panic!("{end}"),
                    }
                }
            }
        }
    }
    drop(client);
    is_well(&bench);
}

// CVE-2022-0669 and its like: descriptors that nobody asked for.
#[test]
fn surplus_descriptors_cost_the_command() {
    let bench = Bench::new();
    let mut client = bench.client();
    let event = event();
    for (fds, errno) in [(16, 0), (17, libc::E2BIG), (40, libc::E2BIG), (253, libc::E2BIG)] {
        let header = Header { id: 5, command: command::RESET, size: 16, ..Header::default() };
        let fds = vec![std::os::fd::AsRawFd::as_raw_fd(&event); fds];
        client.0.send_with_fds(&[header.bytes().as_slice()], &fds).unwrap();
        let (header, _, _) = client.receive().unwrap();
        assert_eq!(header.error, u32::try_from(errno).unwrap(), "{}", fds.len());
    }
    assert_eq!(client.read(region::CONFIG, 0, 2), [0x34, 0x12]);
}

#[derive(Clone, Debug)]
struct Sent {
    command: u16,
    flags: u32,
    payload: Vec<u8>,
    fds: usize,
    /// How much less, or more, the header says.
    off: i64,
}

fn sent() -> impl Strategy<Value = Sent> {
    let field = prop_oneof![
        4 => proptest::sample::select(VALUES.to_vec()),
        2 => 0..64_u64,
        1 => any::<u64>(),
    ];
    let payload = proptest::collection::vec((field, any::<bool>()), 0..7).prop_map(|fields| {
        let mut payload = Vec::new();
        for (value, wide) in fields {
            let value = value.to_le_bytes();
            payload.extend(&value[..if wide { 8 } else { 4 }]);
        }
        payload
    });
    let off = prop_oneof![9 => Just(0), 1 => -8..8_i64];
    let flags = prop_oneof![8 => Just(0), 1 => Just(1 << 4), 1 => any::<u32>()];
    (1..20_u16, flags, payload, 0..4_usize, off)
        .prop_map(|(command, flags, payload, fds, off)| Sent { command, flags, payload, fds, off })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn any_messages_cost_the_connection_at_most(list in proptest::collection::vec(sent(), 1..24), versioned in any::<bool>()) {
        let bench = Bench::new();
        let (file, event) = (memory(0x10000), event());
        let client = if versioned { bench.client() } else { Raw(bench.connect()) };
        for Sent { command, flags, payload, fds, off } in list {
            let size = i64::try_from(HEADER_LEN + payload.len()).unwrap() + off;
            let size = u32::try_from(size).unwrap_or(0);
            let mut bytes = Header { id: 1, command, size, flags, error: 0 }.bytes();
            bytes.extend(payload);
            let fd = if command == command::DMA_MAP { file.as_fd() } else { crate::sys::borrow(&event) };
            // It fails when the server has ended the connection.
            if crate::sys::send(&client.0, &bytes, &vec![fd; fds]).is_err() {
                break;
            }
        }
        drop(client);
        let end = bench.end();
        prop_assert!(matches!(end, End::Closed | End::Protocol(_)), "{end}");
        is_well(&bench);
    }
}
