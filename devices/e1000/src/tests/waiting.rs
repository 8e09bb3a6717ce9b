//! The backend is asked to wake the worker only for what the worker can use then: a descriptor that
//! stays readable would keep it running otherwise (crosvm 28a9d2b70: busy for want of buffers).

use std::io;

use paraslot_backends::net::{Frame, NetError, NetInfo, NetReceiver, NetSender, Offloads};
use paraslot_backends::net::{Received, Room};
use paraslot_device::{Progress, Sources};

use super::*;

/// Which halves of a port have been asked to wake the worker: the sender, the receiver.
type Asked = Arc<[AtomicBool; 2]>;

struct Watched(ScriptedNet, Asked);

struct Watch<T: ?Sized>(Box<T>, Asked);

impl NetBackend for Watched {
    fn info(&self) -> NetInfo {
        self.0.info()
    }
    fn set_receive_offloads(&self, accepted: Offloads) -> io::Result<()> {
        self.0.set_receive_offloads(accepted)
    }
    fn set_queues(&self, pairs: u16) -> io::Result<()> {
        self.0.set_queues(pairs)
    }
    fn open_sender(&self, queue: u16) -> io::Result<Box<dyn NetSender>> {
        Ok(Box::new(Watch(self.0.open_sender(queue)?, self.1.clone())))
    }
    fn open_receiver(&self, queue: u16) -> io::Result<Box<dyn NetReceiver>> {
        Ok(Box::new(Watch(self.0.open_receiver(queue)?, self.1.clone())))
    }
}

fn asked(flag: &AtomicBool, progress: Progress) -> Progress {
    flag.store(progress == Progress::Idle, Ordering::SeqCst);
    progress
}

impl NetSender for Watch<dyn NetSender> {
    fn send(&mut self, frame: &Frame<'_>) -> Result<(), NetError> {
        self.1[0].store(false, Ordering::SeqCst);
        self.0.send(frame)
    }
    fn commit(&mut self) {
        self.0.commit();
    }
    fn sources(&self) -> Sources {
        self.0.sources()
    }
    fn prepare_to_wait(&mut self) -> Progress {
        asked(&self.1[0], self.0.prepare_to_wait())
    }
    fn stop_waiting(&mut self) {
        self.1[0].store(false, Ordering::SeqCst);
        self.0.stop_waiting();
    }
}

impl NetReceiver for Watch<dyn NetReceiver> {
    fn receive(&mut self, room: Room<'_>) -> Result<Option<Received>, NetError> {
        self.1[1].store(false, Ordering::SeqCst);
        self.0.receive(room)
    }
    fn sources(&self) -> Sources {
        self.0.sources()
    }
    fn prepare_to_wait(&mut self) -> Progress {
        asked(&self.1[1], self.0.prepare_to_wait())
    }
    fn stop_waiting(&mut self) {
        self.1[1].store(false, Ordering::SeqCst);
        self.0.stop_waiting();
    }
}

fn machine() -> (Machine, impl Fn() -> [bool; 2]) {
    let flags = Asked::default();
    let (backend, host) = ScriptedNet::new(1);
    let mut machine = Machine::with(Watched(backend, flags.clone()), host);
    machine.start();
    (machine, move || [0, 1].map(|half: usize| flags[half].load(Ordering::SeqCst)))
}

#[test]
fn nobody_is_asked_for_what_cannot_be_used() {
    type Change = fn(&mut Machine);
    let pairs: [(Change, Change); 4] = [
        (|machine| machine.control.set_link(false), |machine| machine.control.set_link(true)),
        (|machine| machine.command(pci::Command::MEMORY), Machine::enable),
        (
            |machine| {
                machine.write(RCTL, 0);
                machine.write(TCTL, 0);
            },
            |machine| {
                machine.write(RCTL, (Rctl::EN | Rctl::SECRC).bits());
                machine.write(TCTL, Tctl::EN.bits());
            },
        ),
        (|machine| machine.nic.pause().unwrap(), |machine| machine.nic.resume().unwrap()),
    ];
    let (mut machine, asked) = machine();
    assert_eq!(asked(), [false, true]);
    machine.host.set_room(0, Some(0));
    machine.fill(TX_DATA, &frame(60));
    machine.transmit(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE)]);
    assert_eq!(asked(), [true, true]);
    for (number, (off, on)) in pairs.into_iter().enumerate() {
        off(&mut machine);
        machine.run();
        assert_eq!(asked(), [false, false], "{number}");
        on(&mut machine);
        machine.run();
        assert_eq!(asked(), [true, true], "{number}");
    }
}

#[test]
fn a_receiver_without_buffers_is_not_asked() {
    let (mut machine, asked) = machine();
    for _ in 0..15 {
        machine.arrive(&frame(60));
    }
    assert_eq!(asked(), [false, false]);
    machine.clean();
    machine.run();
    assert_eq!(asked(), [false, true]);
    // A ring that cannot be read is as good as empty, with a frame there or without.
    machine.write(RDBAH, 5);
    machine.host.push(0, &frame(60));
    machine.run();
    assert_eq!(asked(), [false, false]);
    assert_eq!(machine.host.waiting(0), 1);
}
