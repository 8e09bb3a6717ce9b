//! Network adapters: frames held in the port, frames asked for, interrupts held back.

use std::mem::offset_of;
use std::time::Duration;

use paraslot_device::ManualExecutor;
use paraslot_spec::e1000::{Ctrl, Rctl, Tctl, registers};
use paraslot_spec::virtio_net::{Coalesce, class, notf_coal};
use paraslot_spec::vmxnet3::{DriverShared, command};
use paraslot_tests::bench::Bench;
use paraslot_tests::port::{Fate, Port};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;

use super::{SEEDS, bus_master};
use crate::e1000::Ether;
use crate::net::{Net, RECEIVE, TRANSMIT, frame};
use crate::nic::Adapter;
use crate::support::{Random, differences, function_level_reset};
use crate::vmxnet3::{self, Vmx};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    DeviceReset,
    FunctionLevelReset,
    HostReset,
    Pause,
    BusMasterOff,
    Drop,
    /// Of the receiver, or the receive queue, alone.
    ReceiveOff,
    TransmitOff,
    /// Both, with nothing forgotten.
    Quiesce,
}

/// What only one kind of adapter can do.
trait Ends: Adapter {
    const ENDINGS: &[Ending];
    /// Holds interrupts back, at random.
    fn hold_back(&mut self, random: &mut Random);
    /// Ends it, up to the acknowledgement.
    fn end(&mut self, ending: Ending);
    /// Brings up what was reset or turned off.
    fn begin(&mut self, ending: Ending);
    fn into_bench(self) -> Bench;
}

impl Ends for Net {
    const ENDINGS: &[Ending] = &[
        Ending::DeviceReset,
        Ending::FunctionLevelReset,
        Ending::HostReset,
        Ending::Pause,
        Ending::BusMasterOff,
        Ending::Drop,
        Ending::ReceiveOff,
        Ending::TransmitOff,
    ];

    fn hold_back(&mut self, random: &mut Random) {
        let coal = Coalesce {
            max_packets: u32::try_from(random.below(8)).expect("small").into(),
            max_usecs: u32::try_from(random.below(200)).expect("small").into(),
        };
        let command = [notf_coal::RX_SET, notf_coal::TX_SET][usize::from(random.one_in(2))];
        assert_eq!(self.command(class::NOTF_COAL, command, coal.as_bytes()), 0);
    }

    fn end(&mut self, ending: Ending) {
        match ending {
            Ending::DeviceReset => self.set_status(0),
            Ending::FunctionLevelReset => self.function_level_reset(),
            Ending::HostReset => self.bench.device.reset(),
            Ending::ReceiveOff | Ending::TransmitOff => {
                let queue = if ending == Ending::ReceiveOff { RECEIVE } else { TRANSMIT };
                self.virtio.reset_queue(queue);
                for _ in 0..4 {
                    let _ = self.bench.executor.step_all();
                }
                return assert!(self.queue_is_reset());
            }
            other => panic!("{other:?} is every device's"),
        }
        for _ in 0..4 {
            let _ = self.bench.executor.step_all();
        }
        assert!(self.status().is_empty(), "{ending:?} is not acknowledged");
    }

    fn begin(&mut self, ending: Ending) {
        match ending {
            Ending::ReceiveOff => self.start_anew(RECEIVE),
            Ending::TransmitOff => self.start_anew(TRANSMIT),
            _ => self.start(),
        }
    }

    fn into_bench(self) -> Bench {
        self.virtio.bench
    }
}

impl Ends for Ether {
    const ENDINGS: &[Ending] = &[
        Ending::DeviceReset,
        Ending::HostReset,
        Ending::Pause,
        Ending::BusMasterOff,
        Ending::Drop,
        Ending::ReceiveOff,
        Ending::TransmitOff,
    ];

    fn hold_back(&mut self, random: &mut Random) {
        let registers = [registers::ITR, registers::RDTR, registers::RADV, registers::TIDV];
        let register = registers[usize::try_from(random.below(4)).expect("small")];
        self.set(register, u32::try_from(random.below(500)).expect("small"));
    }

    fn end(&mut self, ending: Ending) {
        match ending {
            Ending::DeviceReset => self.set(registers::CTRL, Ctrl::RST.bits()),
            Ending::HostReset => self.bench.device.reset(),
            Ending::ReceiveOff => {
                let rctl = self.get(registers::RCTL);
                self.set(registers::RCTL, rctl & !Rctl::EN.bits());
            }
            Ending::TransmitOff => {
                let tctl = self.get(registers::TCTL);
                self.set(registers::TCTL, tctl & !Tctl::EN.bits());
            }
            other => panic!("{other:?} is every device's, or none of this"),
        }
    }

    fn begin(&mut self, _ending: Ending) {
        self.start();
    }

    fn into_bench(self) -> Bench {
        self.bench
    }
}

impl Ends for Vmx {
    const ENDINGS: &[Ending] = &[
        Ending::DeviceReset,
        Ending::FunctionLevelReset,
        Ending::HostReset,
        Ending::Pause,
        Ending::BusMasterOff,
        Ending::Drop,
        Ending::Quiesce,
    ];

    fn hold_back(&mut self, random: &mut Random) {
        // Levels of moderation, the adaptive one among them.
        let level = u8::try_from(random.below(9)).expect("small");
        let levels = offset_of!(DriverShared, dev_read.intr_conf.mod_levels) as u64;
        self.bench.poke(vmxnet3::SHARED + levels, &[level; 3]);
        assert_eq!(self.order(command::UPDATE_IML), 0);
    }

    fn end(&mut self, ending: Ending) {
        match ending {
            Ending::DeviceReset => drop(self.order(command::RESET_DEV)),
            Ending::FunctionLevelReset => function_level_reset(&mut self.bench),
            Ending::HostReset => self.bench.device.reset(),
            Ending::Quiesce => assert_eq!(self.order(command::QUIESCE_DEV), 0),
            other => panic!("{other:?} is every device's, or none of this"),
        }
    }

    fn begin(&mut self, _ending: Ending) {
        self.start();
    }

    fn into_bench(self) -> Bench {
        self.bench
    }
}

/// What can be seen from outside of the adapter.
#[derive(PartialEq, Eq)]
struct Seen {
    memory: Vec<u8>,
    calls: u64,
    interrupts: (u64, u64),
}

fn look(bench: &Bench, port: &Port, len: usize) -> Seen {
    let mut memory = vec![0; len];
    bench.memory.inner().read_slice(&mut memory, GuestAddress(0)).expect("it is there");
    let interrupts = (bench.interrupts.messages(), bench.interrupts.edges());
    Seen { memory, calls: port.calls(), interrupts }
}

/// Lets the workers run and time pass: nothing comes of it.
fn quiet(bench: &Bench, port: &Port, len: usize, ending: Ending, what: &str) {
    bench.memory.take_accesses();
    let before = look(bench, port, len);
    for _ in 0..3 {
        assert!(bench.executor.run(1000), "{what}: no rest");
        bench.clock.advance(Duration::from_millis(50));
    }
    let after = look(bench, port, len);
    let changed = differences(&before.memory, &after.memory);
    assert!(changed.is_empty(), "{what}: memory was written: {changed:x?}");
    assert_eq!(before.calls, after.calls, "{what}: the port was used");
    assert_eq!(bench.memory.take_accesses(), 0, "{what}: memory was looked at");
    assert_eq!(before.interrupts.0, after.interrupts.0, "{what}: a message");
    // A pin is no access to memory: what was held back may still be told.
    if ending != Ending::BusMasterOff {
        assert_eq!(before.interrupts.1, after.interrupts.1, "{what}: interrupt");
    }
}

fn run<A: Ends>(seed: u64, ending: Ending) {
    let what = format!("{}, {ending:?}, seed {seed}", A::NAME);
    let mut random = Random::new(seed);
    let port = Port::new(1);
    let mut nic = A::make(port.clone());
    let (mut asked, mut done) = (Vec::new(), Vec::new());
    let mut frames = 0;
    for _ in 0..random.below(40) {
        frames += 1;
        match random.below(9) {
            0 | 1 if asked.len() < 40 => {
                asked.push(nic.ask(&frame(60 + frames)));
            }
            2 | 3 => port.deliver(&frame(60 + frames)),
            4 => port.set_fate(if random.one_in(3) { Fate::Through } else { Fate::Busy }),
            5 => nic.bench().clock.advance(Duration::from_micros(random.below(100))),
            6 if random.one_in(3) => nic.hold_back(&mut random),
            7 => drop(nic.take()),
            _ => {
                let _ = nic.bench().executor.step_all();
            }
        }
        done.extend(nic.reclaim());
    }
    match ending {
        Ending::Pause => nic.bench().device.pause().expect("nothing is ever in flight"),
        Ending::BusMasterOff => bus_master(&mut *nic.bench().device, false),
        Ending::Drop => {
            let Bench { memory, executor, clock, interrupts, device } = nic.into_bench();
            drop(device);
            let left = Gone { memory, executor, clock, interrupts };
            return left.check(&port, A::MEMORY, &what);
        }
        _ => nic.end(ending),
    }
    // Something to be tempted by.
    port.set_fate(Fate::Through);
    for _ in 0..3 {
        port.deliver(&frame(1000));
    }
    if asked.len() < 50 {
        asked.push(nic.ask(&frame(1001)));
    }
    match ending {
        Ending::ReceiveOff => {
            let waiting = port.waiting();
            let before = look(nic.bench(), &port, A::MEMORY);
            nic.run();
            let after = look(nic.bench(), &port, A::MEMORY);
            assert_eq!(port.waiting(), waiting, "{what}: frames were taken");
            let buffers = usize::try_from(crate::net::BUFFERS).expect("small");
            let same = before.memory[buffers..] == after.memory[buffers..];
            assert!(same, "{what}: buffers were written");
        }
        Ending::TransmitOff => {
            port.take_sent();
            nic.run();
            assert!(port.take_sent().is_empty(), "{what}: sent");
        }
        _ => quiet(nic.bench(), &port, A::MEMORY, ending, &what),
    }
    match ending {
        Ending::Pause => nic.bench().device.resume().expect("it can go on"),
        Ending::BusMasterOff => bus_master(&mut *nic.bench().device, true),
        _ => {
            port.drain();
            nic.begin(ending);
            // What had come before the queue was there is not for it.
            nic.run();
            return nic.works();
        }
    }
    // What was asked for is done after all, once and in order.
    nic.run();
    done.extend(nic.reclaim());
    assert_eq!(done, asked, "{what}: frames were lost");
    while nic.take().is_some() {
        nic.run();
    }
    nic.works();
}

/// What is left of a bench without its device.
struct Gone {
    memory: std::sync::Arc<paraslot_tests::memory::WatchedMemory>,
    executor: ManualExecutor,
    clock: paraslot_device::ManualClock,
    interrupts: std::sync::Arc<paraslot_tests::bench::Counter>,
}

impl Gone {
    fn check(&self, port: &Port, len: usize, what: &str) {
        let bytes = || {
            let mut memory = vec![0; len];
            self.memory.inner().read_slice(&mut memory, GuestAddress(0)).expect("it is there");
            memory
        };
        self.memory.take_accesses();
        let (before, calls, messages) = (bytes(), port.calls(), self.interrupts.messages());
        port.deliver(&frame(1000));
        port.set_fate(Fate::Through);
        for _ in 0..3 {
            assert!(self.executor.run(100), "{what}");
            self.clock.advance(Duration::from_millis(50));
        }
        assert!(self.executor.is_empty() && port.open_halves() == 0, "{what}: something is left");
        assert!(bytes() == before && self.memory.take_accesses() == 0, "{what}: memory");
        assert_eq!((port.calls(), self.interrupts.messages()), (calls, messages), "{what}");
        assert!(!self.interrupts.asserted(), "{what}: the pin is asserted");
    }
}

fn all<A: Ends>() {
    let endings = A::ENDINGS.len() as u64;
    for seed in 0..SEEDS {
        run::<A>(seed, A::ENDINGS[usize::try_from(seed % endings).expect("small")]);
    }
}

#[test]
fn virtio_net_is_quiet_after_everything_that_ends_its_work() {
    all::<Net>();
}

#[test]
fn e1000_is_quiet_after_everything_that_ends_its_work() {
    all::<Ether>();
}

// CVE-2016-6833: doorbells of a device that was stopped or reset are rung, too.
#[test]
fn vmxnet3_is_quiet_after_everything_that_ends_its_work() {
    all::<Vmx>();
}
