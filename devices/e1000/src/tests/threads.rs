//! With the worker on a thread: no wake-up is lost.

use std::time::Instant;

use paraslot_device::{ThreadExecutor, ThreadOptions};

use super::*;

/// Waits for what must come; the limit is there to fail rather than hang.
fn wait_until(mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "it did not come");
        std::thread::yield_now();
    }
}

fn machine(busy_poll: Duration) -> Machine {
    let options = ThreadOptions { busy_poll, ..ThreadOptions::default() };
    let executor = Arc::new(ThreadExecutor::new("e1000-test", &options).unwrap());
    let (backend, host) = ScriptedNet::new(1);
    let (nic, memory, line) = build(backend, Options::new(MAC), executor);
    let control = nic.control();
    let (executor, clock) = Default::default();
    let mut machine =
        Machine { nic, memory, executor, host, clock, line, control, tdt: 0, rdt: 0, cleaned: 0 };
    machine.enable();
    machine.start();
    machine
}

const POLLS: [Duration; 2] = [Duration::ZERO, Duration::from_micros(20)];

#[test]
fn every_frame_comes_with_its_interrupt() {
    for (busy_poll, delay) in POLLS.into_iter().zip([0, 1]) {
        let mut machine = machine(busy_poll);
        machine.write(RDTR, delay);
        machine.write(TIDV, delay);
        machine.write(ITR, delay * 40);
        machine.write(IMS, (Cause::RXT0 | Cause::TXDW).bits());
        for round in 0..600usize {
            let bytes = frame(60 + round % 1000);
            machine.fill(TX_DATA, &bytes);
            let len = bytes.len() as u16;
            let descriptor = TransmitDescriptor::legacy(TX_DATA, len, ALONE | transmit::IDE);
            machine.put(&[descriptor]);
            let restores = round % 100 == 50;
            if restores {
                machine.nic.pause().unwrap();
            }
            machine.write(TDT, machine.tdt);
            if restores {
                // What was rung for before the state was saved is seen.
                let saved = machine.nic.save().unwrap();
                machine.nic.restore(&saved).unwrap();
                machine.nic.resume().unwrap();
            }
            let mut causes = Cause::empty();
            while !causes.contains(Cause::TXDW) {
                wait_until(|| machine.level());
                causes |= machine.causes();
            }
            assert_eq!(machine.one_sent(), bytes);
            machine.host.push(0, &bytes);
            causes = Cause::empty();
            while !causes.contains(Cause::RXT0) {
                wait_until(|| machine.level());
                causes |= machine.causes();
            }
            assert_eq!(machine.clean().unwrap().0, bytes);
            if round % 100 == 0 {
                machine.nic.pause().unwrap();
                machine.nic.resume().unwrap();
            }
        }
    }
}

// Both sides run dry all the time: descriptors by the guest, room by the backend.
#[test]
fn neither_side_is_forgotten_when_the_other_is_slow() {
    for busy_poll in POLLS {
        let mut machine = machine(busy_poll);
        machine.host.set_room(0, Some(1));
        let mut sent = 0;
        let mut received = 0;
        for round in 0..150usize {
            for at in 0..20 {
                machine.host.push(0, &frame(60 + at));
            }
            machine.fill(TX_DATA, &frame(60));
            machine.put(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE); 10]);
            machine.write(TDT, machine.tdt);
            wait_until(|| {
                machine.host.set_room(0, Some(3));
                sent += machine.sent().len();
                sent == (round + 1) * 10
            });
            wait_until(|| {
                received += std::iter::from_fn(|| machine.clean()).count();
                received == (round + 1) * 20
            });
        }
    }
}

// Resets, links and bus mastering come and go while frames do.
#[test]
fn resets_under_load_are_silent() {
    let mut machine = machine(Duration::from_micros(20));
    for round in 0..60 {
        for _ in 0..100 {
            machine.host.push(0, &frame(1000));
        }
        machine.fill(TX_DATA, &frame(60));
        machine.put(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE); 15]);
        machine.write(TDT, machine.tdt);
        machine.write(IMS, u32::MAX);
        if round % 3 == 0 {
            wait_until(|| machine.done(0));
        }
        match round % 4 {
            0 => machine.write(CTRL, Ctrl::RST.bits()),
            1 => machine.nic.reset(),
            2 => machine.command(pci::Command::MEMORY),
            _ => machine.nic.pause().unwrap(),
        }
        let rings = machine.bytes(TX_RING, 0x2_0000);
        let (sent, rises) = (machine.statistics().sent_frames, machine.rises());
        for _ in 0..50 {
            std::thread::yield_now();
        }
        assert_eq!(machine.bytes(TX_RING, 0x2_0000), rings);
        assert_eq!((machine.statistics().sent_frames, machine.rises()), (sent, rises));
        if round % 4 == 3 {
            machine.nic.resume().unwrap();
        }
        machine.enable();
        machine.write(CTRL, Ctrl::RST.bits());
        machine.transmit_ring(TX_RING, RING);
        machine.write(TCTL, (Tctl::EN | Tctl::PSP).bits());
        machine.receive_ring(RX_RING, RING);
        machine.write(RCTL, (Rctl::EN | Rctl::SECRC).bits());
        machine.give(RING - 1);
    }
    let received = machine.statistics().received_frames;
    wait_until(|| {
        machine.clean();
        machine.host.waiting(0) == 0
    });
    assert!(machine.statistics().received_frames >= received);
}
