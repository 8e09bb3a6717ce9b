//! Resets in the middle of a frame (bug-test letter L).

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use paraslot_backends::net::{
    Frame, NetError, NetInfo, NetReceiver, NetSender, Offloads, Received, Room,
};
use paraslot_device::{Progress, Sources, ThreadExecutor, ThreadOptions};

use super::*;

/// A port that stands still in the middle of a frame, either way, until it is told to go on.
#[derive(Clone)]
struct Stalling {
    entered: SyncSender<()>,
    go: Arc<Mutex<Receiver<()>>>,
}

impl Stalling {
    /// Stands still; says whether there is anybody left to tell it to go on.
    fn stall(&self) -> bool {
        let go = self.go.lock().unwrap_or_else(PoisonError::into_inner);
        self.entered.send(()).is_ok() && go.recv().is_ok()
    }
}

impl NetBackend for Stalling {
    fn info(&self) -> NetInfo {
        NetInfo { queues: 1, mtu: None, native: Offloads::empty() }
    }
    fn set_receive_offloads(&self, _accepted: Offloads) -> io::Result<()> {
        Ok(())
    }
    fn set_queues(&self, _pairs: u16) -> io::Result<()> {
        Ok(())
    }
    fn open_sender(&self, _queue: u16) -> io::Result<Box<dyn NetSender>> {
        Ok(Box::new(self.clone()))
    }
    fn open_receiver(&self, _queue: u16) -> io::Result<Box<dyn NetReceiver>> {
        Ok(Box::new(self.clone()))
    }
}

impl NetSender for Stalling {
    fn send(&mut self, _frame: &Frame<'_>) -> Result<(), NetError> {
        self.stall();
        Ok(())
    }
    fn commit(&mut self) {}
    fn sources(&self) -> Sources {
        Sources::new()
    }
    fn prepare_to_wait(&mut self) -> Progress {
        Progress::Idle
    }
}

impl NetReceiver for Stalling {
    fn receive(&mut self, room: Room<'_>) -> Result<Option<Received>, NetError> {
        let Room::Host(room) = room else { return Err(NetError::Invalid) };
        if !self.stall() {
            return Ok(None);
        }
        room[..100].copy_from_slice(&frame(100));
        Ok(Some(Received { len: 100, offload: Offload::default() }))
    }
    fn sources(&self) -> Sources {
        Sources::new()
    }
    fn prepare_to_wait(&mut self) -> Progress {
        Progress::Idle
    }
}

/// Has `start` bring a frame under way, and `end` end that while the worker is in the middle of it:
/// `end` is not to return before the worker is out of it, and nothing is to happen afterwards.
fn end_in_the_middle(start: fn(&mut Machine), end: fn(&mut E1000<Space>)) {
    let (entered, has_entered) = sync_channel(0);
    let (let_go, go) = sync_channel(0);
    let backend = Stalling { entered, go: Arc::new(Mutex::new(go)) };
    let executor = ThreadExecutor::new("e1000-test", &ThreadOptions::default()).unwrap();
    let (_, host) = ScriptedNet::new(1);
    let (nic, memory, line) = build(backend, Options::new(MAC), Arc::new(executor));
    let control = nic.control();
    let (executor, clock) = Default::default();
    let mut machine =
        Machine { nic, memory, executor, host, clock, line, control, tdt: 0, rdt: 0, cleaned: 0 };
    machine.enable();
    start(&mut machine);
    has_entered.recv().unwrap();
    let [begun, over] = [const { AtomicBool::new(false) }; 2];
    let early = std::thread::scope(|scope| {
        let Machine { nic, .. } = &mut machine;
        let ending = scope.spawn(|| {
            begun.store(true, Ordering::SeqCst);
            end(nic);
            over.store(true, Ordering::SeqCst);
        });
        while !begun.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        let early = (0..100).any(|_| {
            std::thread::sleep(Duration::from_micros(50));
            over.load(Ordering::SeqCst)
        });
        let_go.send(()).unwrap();
        // The rest of the round, if the worker begins another frame in it.
        while !ending.is_finished() {
            if has_entered.try_recv().is_ok() {
                let_go.send(()).unwrap();
            }
            std::thread::yield_now();
        }
        early
    });
    let rings = |machine: &Machine| machine.bytes(TX_RING, 0x2_0000);
    let before = rings(&machine);
    drop(has_entered);
    drop(let_go);
    for _ in 0..100 {
        std::thread::yield_now();
    }
    assert_eq!(rings(&machine), before);
    drop(machine);
    assert!(!early, "over while the worker was in the middle of a frame");
}

// A reset, bus mastering taken away, reception switched off, and a new ring: silence from then on.
#[test]
fn what_ends_reception_waits_for_the_frame_being_received() {
    let ends: [fn(&mut E1000<Space>); 5] = [
        |nic| nic.bar_write(MEMORY_BAR, CTRL.into(), &Ctrl::RST.bits().to_le_bytes()),
        |nic| nic.bar_write(MEMORY_BAR, RCTL.into(), &[0; 4]),
        |nic| nic.bar_write(MEMORY_BAR, RDLEN.into(), &[0; 4]),
        |nic| nic.config_write(pci::header::COMMAND, &[2, 0]),
        PciDevice::reset,
    ];
    for end in ends {
        end_in_the_middle(
            |machine| {
                machine.receive_ring(RX_RING, RING);
                machine.write(RCTL, Rctl::EN.bits());
                machine.give(RING - 1);
            },
            end,
        );
    }
}

#[test]
fn what_ends_transmission_waits_for_the_frame_being_sent() {
    let ends: [fn(&mut E1000<Space>); 5] = [
        |nic| nic.bar_write(MEMORY_BAR, CTRL.into(), &Ctrl::RST.bits().to_le_bytes()),
        |nic| nic.bar_write(MEMORY_BAR, TCTL.into(), &[0; 4]),
        |nic| nic.bar_write(MEMORY_BAR, TDLEN.into(), &[0; 4]),
        |nic| nic.config_write(pci::header::COMMAND, &[2, 0]),
        PciDevice::reset,
    ];
    for end in ends {
        end_in_the_middle(
            |machine| {
                machine.transmit_ring(TX_RING, RING);
                machine.write(TCTL, Tctl::EN.bits());
                machine.put(&[TransmitDescriptor::legacy(TX_DATA, 60, ALONE); 3]);
                machine.write(TDT, 3);
            },
            end,
        );
    }
}
