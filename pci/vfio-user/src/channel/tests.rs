use super::*;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::wire::flags;
use vmm_sys_util::eventfd::EFD_NONBLOCK;

const LIMIT: Duration = Duration::from_secs(30);

fn pair() -> (Arc<Channel>, Arc<Channel>) {
    let (here, there) = UnixStream::pair().unwrap();
    let channel = |socket| Arc::new(Channel::new(socket, Box::new(Nothing)));
    (channel(here), channel(there))
}

/// Answers with what was asked.
fn echo(message: &Message) -> Option<(Header, Vec<u8>)> {
    let flags = flags::REPLY;
    Some((Header { flags, ..message.header }, message.payload.clone()))
}

/// Answers commands until the end.
fn serve(channel: &Channel) {
    while let Ok(message) = channel.command() {
        let (header, payload) = echo(&message).unwrap();
        if channel.send(header, &payload, &[], None).is_err() {
            break;
        }
    }
}

#[test]
fn many_threads_ask_and_each_has_its_own_answer() {
    let (here, there) = pair();
    std::thread::scope(|scope| {
        scope.spawn(|| serve(&there));
        let askers: Vec<_> = (0..6_u8)
            .map(|thread| {
                let here = &here;
                scope.spawn(move || {
                    for round in 0..200_u8 {
                        let len = usize::from(round) * 7;
                        let mut payload = vec![thread ^ round; len];
                        payload.extend([thread, round]);
                        let answer = here.request(11, &payload, LIMIT).unwrap();
                        assert_eq!(answer.payload, payload);
                    }
                })
            })
            .collect();
        askers.into_iter().for_each(|asker| asker.join().unwrap());
        here.end(End::Closed);
    });
    assert!(matches!(there.take_end(), End::Closed));
}

// Each end sends more than the sockets hold, at the same time, from several threads, and answers the other's.
#[test]
fn two_ends_that_send_much_do_not_wait_for_each_other_for_ever() {
    let (here, there) = pair();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = [&here, &there];
        let all: Vec<_> = ends
            .into_iter()
            .flat_map(|end| {
                (0..2_u8).map(move |thread| {
                    scope.spawn(move || {
                        for round in 0..10 {
                            let payload = vec![thread + round; 1 << 20];
                            let answer =
                                end.request_and_serve((12, &payload, &[]), LIMIT, &echo).unwrap();
                            assert!(answer.payload == payload);
                        }
                    })
                })
            })
            .collect();
        // Whoever is done first leaves the other's commands to these.
        for end in ends {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    if !end.serve_what_came(LIMIT, &echo).unwrap() {
                        std::thread::yield_now();
                    }
                }
            });
        }
        all.into_iter().for_each(|one| one.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn commands_are_done_one_after_another_whoever_does_them() {
    let (here, there) = pair();
    let (busy, next) = (AtomicBool::new(false), AtomicU32::new(0));
    let in_turn = |message: &Message| {
        assert!(!busy.swap(true, Ordering::SeqCst), "two at a time");
        let number = u32::from(message.header.id);
        assert_eq!(next.fetch_add(1, Ordering::SeqCst), number);
        std::thread::yield_now();
        busy.store(false, Ordering::SeqCst);
        None
    };
    std::thread::scope(|scope| {
        let (in_turn, next, there) = (&in_turn, &next, &there);
        for _ in 0..3 {
            scope.spawn(move || {
                while next.load(Ordering::SeqCst) < 500 {
                    let _ = there.serve_what_came(LIMIT, in_turn).unwrap();
                }
            });
        }
        for id in 0..500 {
            here.send(Header { id, command: 11, ..Header::default() }, &[], &[], None).unwrap();
        }
    });
}

#[test]
fn whoever_waits_hears_of_the_end() {
    let (here, there) = pair();
    std::thread::scope(|scope| {
        let here = &here;
        let waiting: Vec<_> = (0..3)
            .map(|index| {
                scope.spawn(move || match index {
                    0 => here.command().map(drop),
                    _ => here.request(11, &[], LIMIT).map(drop),
                })
            })
            .collect();
        for _ in 0..2 {
            there.command().unwrap();
        }
        there.end(End::Closed);
        for one in waiting {
            assert_eq!(one.join().unwrap(), Err(Gone));
        }
    });
    assert!(matches!(here.take_end(), End::Closed));
    assert_eq!(here.request(11, &[], LIMIT).map(drop), Err(Gone));
    assert_eq!(here.serve_what_came(LIMIT, &echo), Err(Gone));
}

#[test]
fn who_is_not_answered_ends_the_connection() {
    let (here, there) = pair();
    let soon = Duration::from_millis(20);
    assert_eq!(here.request(11, &[], soon).map(drop), Err(Gone));
    assert!(matches!(here.take_end(), End::Silent));
    // Nobody reads what is sent.
    let (here, other) = pair();
    assert_eq!(here.request(12, &vec![0; 1 << 20], soon).map(drop), Err(Gone));
    assert!(matches!(here.take_end(), End::Silent));
    drop((there, other));
}

// One that has ever more to ask for, and does not answer.
#[test]
fn who_asks_instead_of_answering_is_not_served_for_ever() {
    for waits in [true, false] {
        let (here, there) = pair();
        std::thread::scope(|scope| {
            let there = &there;
            scope.spawn(move || {
                let ask = Header { command: 11, ..Header::default() };
                while there.send(ask, &[], &[], None).is_ok() {}
            });
            let (mut served, quiet) = (0, |_: &Message| None);
            if waits {
                let soon = Duration::from_millis(20);
                let asked = here.request_and_serve((12, &[], &[]), soon, &quiet);
                assert_eq!(asked.map(drop), Err(Gone));
                assert!(matches!(here.take_end(), End::Silent));
            } else {
                // It comes back now and then.
                while served < 1000 {
                    served += u32::from(here.serve_what_came(LIMIT, &quiet).unwrap());
                }
            }
            there.end(End::Closed);
        });
    }
}

// What has come by then is left.
#[test]
fn who_has_asked_for_much_has_not_answered() {
    let (here, there) = pair();
    for id in 0..200 {
        there.send(Header { id, command: 11, ..Header::default() }, &[], &[], None).unwrap();
    }
    let (soon, served) = (Duration::from_millis(20), AtomicU32::new(0));
    let slow = |_: &Message| {
        if served.fetch_add(1, Ordering::Relaxed) == 0 {
            // Somebody else reads meanwhile, and does nothing out of turn.
            let nothing = |_: &Message| panic!("two at a time");
            assert_eq!(here.serve_what_came(LIMIT, &nothing), Ok(false));
            std::thread::sleep(soon);
        }
        None
    };
    assert_eq!(here.request_and_serve((12, &[], &[]), soon, &slow).map(drop), Err(Gone));
    assert!(matches!(here.take_end(), End::Silent));
    assert_eq!(served.into_inner(), 1);
}

/// An eventfd that ends the connection.
struct Stops(Arc<EventFd>);

impl Aside for Stops {
    fn events(&self) -> Vec<Arc<EventFd>> {
        vec![self.0.clone()]
    }

    fn written(&self, index: usize, _event: &EventFd) -> Result<(), End> {
        assert_eq!(index, 0);
        Err(End::Stopped)
    }
}

// Whatever the channel is waiting for.
#[test]
fn what_is_waited_for_beside_the_socket_is_looked_at() {
    for what in 0..4 {
        let (socket, _there) = UnixStream::pair().unwrap();
        let stop = Arc::new(EventFd::new(EFD_NONBLOCK).unwrap());
        let channel = Channel::new(socket, Box::new(Stops(stop.clone())));
        std::thread::scope(|scope| {
            let channel = &channel;
            let waits = scope.spawn(move || match what {
                0 => channel.command().map(drop),
                1 => channel.request(11, &[], LIMIT).map(drop),
                2 => channel.send(Header::default(), &vec![0; 1 << 20], &[], None),
                _ => channel.request_and_serve((11, &[], &[]), LIMIT, &echo).map(drop),
            });
            stop.write(1).unwrap();
            assert_eq!(waits.join().unwrap(), Err(Gone));
        });
        assert!(matches!(channel.take_end(), End::Stopped));
    }
}
