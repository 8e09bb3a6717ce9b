//! The interrupt gate under a model checker: all interleavings with up to three preemptions, and all
//! that the memory model allows in them.

use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use loom::thread;

#[expect(dead_code, reason = "the model needs part of it")]
#[path = "../src/gate.rs"]
mod gate;

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU32, Ordering};

    pub(crate) fn relax(_looks: u64) {
        loom::thread::yield_now();
    }
}

use gate::{Gate, Position};

fn model(run: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(run);
}

/// A guest that on each message looks at what the workers have done.
#[derive(Default)]
struct Guest {
    done: [AtomicU32; 2],
    seen: [AtomicU32; 2],
}

impl Guest {
    fn message(&self) {
        for (done, seen) in self.done.iter().zip(&self.seen) {
            seen.fetch_max(done.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn work(&self, worker: usize, gate: &Gate) {
        self.done[worker].store(1, Ordering::Relaxed);
        gate.raise(|| self.message());
    }
}

fn open(gate: &Gate, guest: &Guest) {
    if gate.turn(Position::Open) {
        guest.message();
    }
}

fn masked() -> Gate {
    let gate = Gate::new();
    assert!(!gate.turn(Position::Masked));
    gate
}

/// Two workers raise a masked interrupt while it is unmasked: whichever message is the last one, the
/// guest then sees what both have done.
#[test]
fn nothing_raised_is_lost_when_the_gate_opens() {
    model(|| {
        let (gate, guest) = (Arc::new(masked()), Arc::new(Guest::default()));
        let workers = [0, 1].map(|worker| {
            let (gate, guest) = (gate.clone(), guest.clone());
            thread::spawn(move || guest.work(worker, &gate))
        });
        open(&gate, &guest);
        for worker in workers {
            worker.join().unwrap();
        }
        assert_eq!(guest.seen.each_ref().map(|seen| seen.load(Ordering::Relaxed)), [1, 1]);
        assert!(!gate.pending());
    });
}

/// A worker raises an open interrupt while it is masked and unmasked again.
#[test]
fn nothing_raised_is_lost_when_the_gate_closes_and_opens() {
    model(|| {
        let (gate, guest) = (Arc::new(masked()), Arc::new(Guest::default()));
        open(&gate, &guest);
        let worker = {
            let (gate, guest) = (gate.clone(), guest.clone());
            thread::spawn(move || guest.work(0, &gate))
        };
        assert!(!gate.turn(Position::Masked));
        open(&gate, &guest);
        worker.join().unwrap();
        assert_eq!(guest.seen[0].load(Ordering::Relaxed), 1);
    });
}

/// Once closing returns, no message is sent; and what was sent before is over.
#[test]
fn nothing_is_sent_through_a_closed_gate() {
    for position in [Position::Masked, Position::Off] {
        model(move || {
            let gate = Arc::new(masked());
            assert!(!gate.turn(Position::Open));
            let closed = Arc::new(AtomicBool::new(false));
            let sent = Arc::new(AtomicU32::new(0));
            let worker = {
                let (gate, closed, sent) = (gate.clone(), closed.clone(), sent.clone());
                thread::spawn(move || {
                    gate.raise(|| {
                        assert!(!closed.load(Ordering::SeqCst));
                        sent.store(1, Ordering::Relaxed);
                    });
                })
            };
            assert!(!gate.turn(position));
            closed.store(true, Ordering::SeqCst);
            let before = sent.load(Ordering::Relaxed);
            worker.join().unwrap();
            assert_eq!(sent.load(Ordering::Relaxed), before);
            // Sent, or pending, or dropped since off: never two of them.
            let pending = u32::from(gate.pending());
            if position == Position::Masked {
                assert_eq!(before + pending, 1);
            } else {
                assert_eq!(pending, 0);
            }
        });
    }
}
