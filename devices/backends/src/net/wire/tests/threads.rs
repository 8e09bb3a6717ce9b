//! Two sides at once.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;

use paraslot_device::Progress;
use paraslot_device::dma::Direction;
use paraslot_spec::net::protocol;

use super::{frame, receive, send};
use crate::net::testing::{Bell, GuestPages, Packet};
use crate::net::{
    Frame, NetBackend, NetError, NetSender, Offloads, Room, Wire, WireOptions, WireStatistics,
};

// A guest that changes a frame while it is sent does not get past the checks: what is checked is the
// copy (FreeBSD-SA-24:17 and others: read twice).
#[test]
fn headers_are_checked_where_they_cannot_change() {
    const PROTOCOL: u64 = 14 + 9;
    let port = Wire::loopback(WireOptions::default()).unwrap();
    let mut receiver = port.open_receiver(0).unwrap();
    port.set_receive_offloads(Offloads::all()).unwrap();
    let mut sender = port.open_sender(0).unwrap();
    let guest = GuestPages::new(1 << 14);
    let packet = Packet::tcp4(&[7; 100]);
    guest.write(0, &packet.unfinished());
    let body = guest.buffers(&[(0, packet.unfinished().len())], Direction::ToDevice);
    let frame = Frame { head: &[], body: &body, offload: packet.cut_offload(50) };
    let done = AtomicBool::new(false);
    let mut results = [0; 2];
    thread::scope(|scope| {
        scope.spawn(|| {
            for value in [protocol::UDP, protocol::TCP].into_iter().cycle() {
                guest.write(PROTOCOL, &[value]);
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let mut room = [0; 200];
        // Until both have been seen often.
        while results.iter().any(|count| *count < 2000) {
            match sender.send(&frame) {
                Ok(()) => {
                    sender.commit();
                    let received = receiver.receive(Room::Host(&mut room)).unwrap().unwrap();
                    let fits = received.offload.check_headers(&room, received.len);
                    // Or the other thread would go on for ever.
                    done.store(fits.is_err(), Ordering::Relaxed);
                    fits.unwrap();
                    results[0] += 1;
                }
                Err(NetError::Invalid) => results[1] += 1,
                Err(error) => panic!("{error}"),
            }
        }
        done.store(true, Ordering::Relaxed);
    });
}

/// Sends `count` numbered frames of several lengths in batches, and sleeps when there is no room.
fn send_all(mut sender: Box<dyn NetSender>, count: u32, batch: u32) {
    let bell = Bell::new(sender.sources());
    let mut number = 0;
    while number < count {
        let len = 60 + usize::try_from(number % 7).unwrap() * 200;
        match send(&mut *sender, &frame(number, len)) {
            Ok(()) => {
                number += 1;
                if number % batch == 0 {
                    sender.commit();
                }
            }
            Err(NetError::Busy) if sender.prepare_to_wait() == Progress::Idle => bell.wait(),
            Err(NetError::Busy) => {}
            Err(error) => panic!("{error}"),
        }
    }
    sender.commit();
}

// No wake-up is lost between two threads that sleep whenever they can: a minute without one fails.
#[test]
fn two_threads_wake_each_other() {
    const COUNT: u32 = 5000;
    for (frames, batch) in [(1, 1), (3, 1), (4, 3), (64, 16)] {
        let port = Wire::loopback(WireOptions { frames, ..WireOptions::default() }).unwrap();
        let mut receiver = port.open_receiver(0).unwrap();
        let sender = port.open_sender(0).unwrap();
        thread::scope(|scope| {
            scope.spawn(move || send_all(sender, COUNT, batch));
            let bell = Bell::new(receiver.sources());
            let mut number = 0;
            while number < COUNT {
                let Some(bytes) = receive(&mut *receiver) else {
                    if receiver.prepare_to_wait() == Progress::Idle {
                        bell.wait();
                    }
                    continue;
                };
                let len = 60 + usize::try_from(number % 7).unwrap() * 200;
                assert!(bytes == frame(number, len), "out of order, lost or twice: {number}");
                number += 1;
            }
        });
        let delivered = COUNT.into();
        assert_eq!(port.statistics(), WireStatistics { delivered, dropped: 0 });
    }
}

// The number of queues changes all the time, and every frame arrives once, in its sender's order. It
// changes again only when frames have arrived since, so that it does not make up for a lost wake-up.
#[test]
fn queues_change_hands_under_way() {
    const COUNT: u32 = 5000;
    let options = WireOptions { queues: 2, frames: 8, ..WireOptions::default() };
    let (one, other) = Wire::new(options).unwrap();
    let (seen, done) = (AtomicU32::new(0), AtomicBool::new(false));
    let receivers = [0, 1].map(|queue| other.open_receiver(queue).unwrap());
    let senders = [0, 1].map(|queue| one.open_sender(queue).unwrap());
    thread::scope(|scope| {
        let workers = receivers.map(|mut receiver| {
            let (seen, done) = (&seen, &done);
            scope.spawn(move || {
                let bell = Bell::new(receiver.sources());
                let mut taken = vec![];
                while !done.load(Ordering::Acquire) {
                    if let Some(bytes) = receive(&mut *receiver) {
                        taken.push(u32::from_be_bytes(bytes[..4].try_into().unwrap()));
                        seen.fetch_add(1, Ordering::AcqRel);
                    } else if receiver.prepare_to_wait() == Progress::Idle
                        && !done.load(Ordering::Acquire)
                    {
                        bell.wait();
                    }
                }
                taken
            })
        });
        for (index, mut sender) in (0..).zip(senders) {
            // Frame numbers tell who sent them.
            scope.spawn(move || {
                let bell = Bell::new(sender.sources());
                let mut number = 0;
                while number < COUNT {
                    match send(&mut *sender, &frame(number * 2 + index, 60)) {
                        Ok(()) => {
                            sender.commit();
                            number += 1;
                        }
                        Err(_) if sender.prepare_to_wait() == Progress::Idle => bell.wait(),
                        Err(_) => {}
                    }
                }
            });
        }
        let mut pairs = [1, 2].into_iter().cycle();
        let mut before = 0;
        while before < 2 * COUNT {
            let now = seen.load(Ordering::Acquire);
            if now > before {
                before = now;
                other.set_queues(pairs.next().unwrap()).unwrap();
            }
            thread::yield_now();
        }
        done.store(true, Ordering::Release);
        other.set_queues(2).unwrap();
        let taken = workers.map(|worker| worker.join().unwrap());
        for own in &taken {
            for sender in 0..2 {
                let numbers = own.iter().filter(|number| *number % 2 == sender);
                assert!(numbers.is_sorted_by(|a, b| a < b), "out of order");
            }
        }
        let mut all = taken.concat();
        all.sort_unstable();
        assert!(all.into_iter().eq(0..2 * COUNT), "lost or twice");
    });
    assert_eq!(one.statistics(), WireStatistics { delivered: u64::from(2 * COUNT), dropped: 0 });
}
