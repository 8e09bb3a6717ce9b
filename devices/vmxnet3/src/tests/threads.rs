//! On threads, with doorbells as a hypervisor rings them: no wake-up is lost.

use std::sync::atomic::fence;
use std::time::Instant;

use paraslot_backends::net::{Wire, WireOptions};
use paraslot_device::{ThreadExecutor, ThreadOptions};

use super::*;

/// Packets each way.
const PACKETS: u32 = 3000;

/// A driver of one queue each way that rings only if it must, as Linux's does, and polls.
struct Poller {
    nic: Vmxnet3<Space>,
    memory: Space,
    bell: EventFd,
}

impl Poller {
    fn word(&self, place: u64) -> u32 {
        u32::from_le(self.memory.load(GuestAddress(place), Ordering::Acquire).unwrap())
    }

    fn set(&self, place: u64, value: u32) {
        self.memory.store(value.to_le(), GuestAddress(place), Ordering::Release).unwrap();
    }

    fn vd(&mut self, register: u64, value: u32) -> u32 {
        self.nic.bar_write(VD_BAR, register, &value.to_le_bytes());
        let mut data = [0; 4];
        self.nic.bar_read(VD_BAR, register, &mut data);
        u32::from_le_bytes(data)
    }
}

#[test]
fn packets_go_round_and_none_is_left_behind() {
    // The setup is made by the other driver, and taken over.
    let setup = Setup { mode: RxMode::PROMISC, messages: false, ..Setup::default() };
    let mut machine = Machine::off(setup);
    let shared = machine.prepare();
    let port = Wire::loopback(WireOptions { frames: 8, ..WireOptions::default() }).unwrap();
    let executor = Arc::new(ThreadExecutor::new("vmxnet3", &ThreadOptions::default()).unwrap());
    let (nic, memory, _board) = build(port, Options::new(MAC), executor);
    let bell = nic.layout().doorbells.iter().find(|bell| bell.offset == TXPROD).unwrap();
    let bell = bell.event.try_clone().unwrap();
    let mut poller = Poller { nic, memory, bell };
    let mut image = vec![0; 0x10_0000];
    machine.memory.read_slice(&mut image, GuestAddress(0)).unwrap();
    poller.memory.write_slice(&image, GuestAddress(0)).unwrap();
    poller.memory.write_slice(shared.as_bytes(), GuestAddress(SHARED)).unwrap();
    let command = pci::Command::MEMORY | pci::Command::BUS_MASTER;
    poller.nic.config_write(pci::header::COMMAND, &command.bits().to_le_bytes());
    poller.vd(DSAL, SHARED as u32);
    assert_eq!(poller.vd(CMD, command::ACTIVATE_DEV), 0);
    let (mut tx, mut tx_done) = (Side::new(TX_RINGS, RING), Side::new(TX_RINGS + 0x2000, RING));
    let (mut rx, mut rx_done) =
        (Side::new(RX_RINGS_AT, RING), Side::new(RX_RINGS_AT + 0x2000, 2 * RING));
    let give = |poller: &Poller, rx: &mut Side| {
        poller
            .memory
            .write_slice(&buffer(0, 0, rx.next).to_le_bytes(), GuestAddress(rx.at()))
            .unwrap();
        poller.set(rx.at() + 8, 2048 | if rx.lap { rxd::GEN } else { 0 });
        rx.step();
    };
    for _ in 1..RING {
        give(&poller, &mut rx);
    }
    let threshold = QUEUES + offset_of!(TxQueueDesc, ctrl.tx_threshold) as u64;
    let asks = QUEUES + 256 + offset_of!(RxQueueDesc, ctrl.update_rx_prod) as u64;
    let (mut queued, mut completed, mut received, mut rings) = (0u32, 0u32, 0u32, 0u32);
    let mut restored = 0;
    let start = Instant::now();
    while received < PACKETS {
        let before = (queued, completed, received);
        // In bursts of different lengths, so that the worker goes to sleep now and then.
        let burst = 1 + queued % 7;
        if queued < PACKETS && queued - completed + burst < RING && queued - received < 40 {
            for _ in 0..burst {
                let mut bytes = frame(60);
                bytes[20..24].copy_from_slice(&queued.to_le_bytes());
                let place = TX_DATA + 64 * u64::from(tx.next);
                poller.memory.write_slice(&bytes, GuestAddress(place)).unwrap();
                poller.memory.write_slice(&place.to_le_bytes(), GuestAddress(tx.at())).unwrap();
                poller.set(tx.at() + 12, ALONE);
                poller.set(tx.at() + 8, 60 | if tx.lap { txd::GEN } else { 0 });
                tx.step();
                queued += 1;
                fence(Ordering::SeqCst);
                if poller.word(threshold) <= 1 {
                    poller.bell.write(1).unwrap();
                    rings += 1;
                }
            }
        }
        while (poller.word(tx_done.at() + 12) & COMP_GEN != 0) == tx_done.lap {
            tx_done.step();
            completed += 1;
        }
        while (poller.word(rx_done.at() + 12) & COMP_GEN != 0) == rx_done.lap {
            let index = poller.word(rx_done.at()) & COMP_IDX;
            assert_eq!(poller.word(buffer(0, 0, index) + 20), received);
            rx_done.step();
            received += 1;
            give(&poller, &mut rx);
            fence(Ordering::SeqCst);
            if poller.word(asks) & 0xff != 0 {
                poller.nic.bar_write(PT_BAR, RXPROD, &rx.next.to_le_bytes());
            }
        }
        if received / 500 != restored {
            // What was rung for before the state was saved is seen; nothing is sent twice.
            restored = received / 500;
            poller.nic.pause().unwrap();
            let saved = poller.nic.save().unwrap();
            poller.nic.restore(&saved).unwrap();
            poller.nic.resume().unwrap();
        }
        if before == (queued, completed, received) {
            std::thread::yield_now();
            // Not a measure of time: a bound on a test that hangs.
            assert!(start.elapsed() < Duration::from_secs(60), "{queued} {completed} {received}");
        }
    }
    assert!(completed <= queued && queued >= PACKETS && rings >= 1);
    assert_eq!(poller.vd(CMD, command::QUIESCE_DEV), 0);
    poller.nic.pause().unwrap();
}
