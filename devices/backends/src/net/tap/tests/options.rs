//! Opening interfaces, by name and by descriptor, and what is said when that fails.

use std::fs::OpenOptions;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use super::super::{DEVICE, TAP_QUEUES_MAX, TapBackend, TapError, TapOptions, sys, sys::flag};
use super::frames::{Ends, GUEST, GUEST_MAC, Guest, HOST, PORT};
use super::interface::{datagram, socket};
use crate::net::testing::namespace::in_namespace;
use crate::net::{NetBackend, Offload};

fn error(options: &TapOptions) -> TapError {
    let error = TapBackend::open(options).err().expect("an error");
    assert!(!error.to_string().contains('\n'), "{error}");
    error
}

/// Persistent, as an administrator makes it; it goes with the namespace.
fn persist(name: &str, flags: u32) {
    let fd = sys::open().unwrap();
    sys::set_interface(fd.as_fd(), name, flags).unwrap();
    sys::set_persistent(fd.as_fd()).unwrap();
}

#[test]
fn names_are_checked() {
    let long = "a".repeat(16);
    for name in ["", ".", "..", "a/b", "a b", "a:b", "a%s", "%d%d", "%", "ä", "a\0", &long] {
        let error = error(&TapOptions::new(name));
        assert!(matches!(error, TapError::Name { .. }), "{name:?}: {error}");
    }
    for queues in [0, TAP_QUEUES_MAX + 1, u16::MAX] {
        let error = error(&TapOptions { queues, ..TapOptions::default() });
        assert!(error.to_string().ends_with("choose 1 to 256"), "{error}");
    }
}

#[test]
fn an_interface_is_created_and_goes_again() {
    in_namespace(|namespace| {
        let open = |name: &str| TapBackend::open(&TapOptions::new(name)).unwrap();
        let first = TapBackend::open(&TapOptions::default()).unwrap();
        let second = TapBackend::open(&TapOptions::default()).unwrap();
        assert_eq!((first.name(), second.name()), ("paraslot0", "paraslot1"));
        drop(first);
        assert_eq!(TapBackend::open(&TapOptions::default()).unwrap().name(), "paraslot0");
        assert_eq!(open("fifteen-letters").name(), "fifteen-letters");
        assert_eq!(open("a%db").name(), "a0b");
        let info = second.info();
        assert_eq!((info.queues, info.mtu), (1, Some(1500)));
        // A queue that is open keeps it.
        let sender = second.open_sender(0).unwrap();
        drop(second);
        let error = error(&TapOptions::new("paraslot1"));
        assert!(error.to_string().contains("paraslot1 is in use"), "{error}");
        drop(sender);
        open("paraslot1");
        let most = TapOptions { queues: TAP_QUEUES_MAX, ..TapOptions::default() };
        assert_eq!(TapBackend::open(&most).unwrap().info().queues, 256);
        let lo = namespace.interface("lo").hardware_address();
        assert_eq!(lo, [0; 6]);
    });
}

#[test]
fn one_that_exists_is_attached_to() {
    in_namespace(|namespace| {
        persist("single", flag::TAP | flag::NO_PI);
        persist("multi", flag::TAP | flag::NO_PI | flag::MULTI_QUEUE);
        persist("tun", 1 | flag::NO_PI);
        namespace.interface("single").set_mtu(9000);
        namespace.interface("multi").set_mtu(1280);
        for _ in 0..2 {
            let single = TapBackend::open(&TapOptions::new("single")).unwrap();
            assert_eq!((single.info().queues, single.info().mtu), (1, Some(9000)));
            // For one queue, one that can have several will do.
            let multi = TapBackend::open(&TapOptions::new("multi")).unwrap();
            assert_eq!((multi.info().queues, multi.info().mtu), (1, Some(1280)));
        }
        let two = |name| TapOptions { queues: 2, ..TapOptions::new(name) };
        assert_eq!(TapBackend::open(&two("multi")).unwrap().info().queues, 2);
        let line = error(&two("single")).to_string();
        assert!(line.contains("`ip tuntap add dev single mode tap multi_queue`"), "{line}");
        for name in ["lo", "tun"] {
            let line = error(&TapOptions::new(name)).to_string();
            assert!(line.contains("is no TAP interface for 1 queue"), "{line}");
        }
    });
}

#[test]
fn descriptors_are_taken_over() {
    in_namespace(|namespace| {
        // Whoever passes them may have used them, and may have blocking descriptors.
        let flags = flag::TAP | flag::NO_PI | flag::VNET_HDR | flag::MULTI_QUEUE;
        let fds: Vec<Arc<OwnedFd>> = (0..3)
            .map(|_| {
                let file = OpenOptions::new().read(true).write(true).open(DEVICE).unwrap();
                let fd = OwnedFd::from(file);
                sys::set_interface(fd.as_fd(), "passed", flags).unwrap();
                sys::set_header_len(fd.as_fd(), 20).unwrap();
                sys::set_offload(fd.as_fd(), 1).unwrap();
                Arc::new(fd)
            })
            .collect();
        sys::set_attached(fds[0].as_fd(), false).unwrap();
        let numbers: Vec<_> = fds.iter().map(|fd| fd.as_raw_fd()).collect();
        let host = namespace.set_up("passed", HOST);
        host.set_mtu(1300);
        host.set_neighbour(GUEST, GUEST_MAC);
        for options in [
            TapOptions { fds: fds.clone(), ..TapOptions::default() },
            TapOptions::inherited(&numbers).unwrap(),
        ] {
            let backend = TapBackend::open(&options).unwrap();
            assert_eq!(backend.name(), "passed");
            assert_eq!((backend.info().queues, backend.info().mtu), (3, Some(1300)));
            let guest = Guest::new();
            let socket = socket();
            let mut sender = backend.open_sender(2).unwrap();
            let frame = Ends::outward(host.hardware_address()).udp(b"hello", false);
            guest.send(&mut *sender, &frame, Offload::default()).unwrap();
            assert_eq!(datagram(&socket), b"hello");
            let mut receiver = backend.open_receiver(0).unwrap();
            assert!(guest.receive(&mut *receiver).unwrap().is_none());
            socket.send_to(b"answer", (GUEST, PORT)).unwrap();
            assert_eq!(guest.receive(&mut *receiver).unwrap().unwrap().0[42..], *b"answer");
            backend.set_queues(2).unwrap();
            backend.set_queues(3).unwrap();
        }
        // They are the caller's, too.
        drop(fds);
        TapBackend::open(&TapOptions::new("passed")).unwrap();
    });
}

#[test]
fn descriptors_that_will_not_do_are_refused() {
    in_namespace(|_| {
        let refused = |fds: Vec<OwnedFd>| {
            let fds = fds.into_iter().map(Arc::new).collect();
            error(&TapOptions { fds, ..TapOptions::default() }).to_string()
        };
        let queue = |name, flags| {
            let fd = sys::open().unwrap();
            sys::set_interface(fd.as_fd(), name, flags).unwrap();
            fd
        };
        let good = flag::TAP | flag::NO_PI | flag::VNET_HDR;
        let line = refused(vec![UnixDatagram::unbound().unwrap().into()]);
        assert!(line.contains("is no queue of a TAP interface"), "{line}");
        let line = refused(vec![sys::open().unwrap()]);
        assert!(line.contains("on which TUNSETIFF was done"), "{line}");
        let line = refused(vec![queue("tun%d", 1 | flag::NO_PI | flag::VNET_HDR)]);
        assert!(line.contains("open it with IFF_TAP"), "{line}");
        let line = refused(vec![queue("tap%d", flag::TAP | flag::NO_PI)]);
        assert!(line.contains("IFF_NO_PI and IFF_VNET_HDR"), "{line}");
        let line = refused(vec![queue("one", good), queue("two", good)]);
        assert!(line.contains("pass queues of one interface"), "{line}");
    });
}

// The interface of a descriptor may be in another namespace, where its name means something else.
#[test]
fn the_mtu_is_that_of_the_interface_itself() {
    in_namespace(|namespace| {
        let ours = TapBackend::open(&TapOptions::new("same")).unwrap();
        namespace.interface("same").set_mtu(1400);
        let fd = ours.queues[0].fd().try_clone_to_owned().unwrap();
        let options = TapOptions { fds: vec![Arc::new(fd)], ..TapOptions::default() };
        assert_eq!(TapBackend::open(&options).unwrap().info().mtu, Some(1400));
        // From elsewhere.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                crate::net::testing::namespace::leave().unwrap();
                assert_eq!(TapBackend::open(&options).unwrap().info().mtu, None);
                let other = TapBackend::open(&TapOptions::new("same")).unwrap();
                assert_eq!(other.info().mtu, Some(1500));
                assert_eq!(TapBackend::open(&options).unwrap().info().mtu, None);
            });
        });
    });
}

#[test]
fn errors_say_what_to_do() {
    let from = |code| std::io::Error::from_raw_os_error(code);
    for (code, advice) in [
        (libc::EACCES, "let this user read and write it"),
        (libc::ENOENT, "modprobe tun"),
        (libc::ENODEV, "modprobe tun"),
    ] {
        let line = TapError::device(from(code)).to_string();
        assert!(line.starts_with("/dev/net/tun cannot be opened: ") && line.contains(advice));
    }
    let line = TapError::interface("tap7", 1, from(libc::EPERM)).to_string();
    assert!(line.contains("`ip tuntap add dev tap7 mode tap user $USER`"), "{line}");
    let line = TapError::interface("tap7", 1, from(libc::ENFILE)).to_string();
    assert!(line.starts_with("interface tap7: it cannot be created or attached to: "), "{line}");
}
