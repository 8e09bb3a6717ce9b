//! Whatever a guest does, nothing panics, and a reset brings the adapter back.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
pub(super) enum Step {
    Write { offset: u64, data: Vec<u8> },
    Read { offset: u64, len: usize },
    Order { command: u32, words: Vec<u32> },
    Rings { pages: (u32, u32), state: u64 },
    Messages(u32),
    State { offset: u64, value: u32 },
    Memory { at: u64, data: Vec<u8> },
    Request { bytes: Vec<(usize, u8)>, cdb: Vec<u8>, flags: u32, len: u64, data: u64 },
    Elements(Vec<(u64, u32, u32)>),
    Run,
    Release(usize),
    BusMaster(bool),
    Plug(u8),
    Reset,
    Pause,
}

fn any_address() -> impl Strategy<Value = u64> {
    prop_oneof![
        6 => (0u64..0x8000).prop_map(|at| DATA + at * 2),
        1 => Just(MEMORY as u64 - 100),
        // Back into the device's own structures.
        1 => Just(STATE),
        1 => Just(REQUESTS),
        1 => Just(LISTS),
        1 => any::<u64>(),
    ]
}

pub(super) fn any_step() -> impl Strategy<Value = Step> {
    let offset = prop_oneof![
        4 => prop::sample::select(
            crate::registers::REGISTERS.iter().map(|register| u64::from(register.offset)).collect::<Vec<_>>()
        ),
        1 => 0u64..0x9000,
    ];
    let bytes = prop::collection::vec(any::<u8>(), 1..9);
    let cdb = prop_oneof![
        4 => (prop::sample::select(vec![0x28u8, 0x2a, 0x88, 0x8a, 0x12, 0, 0x35, 0x25]), any::<u8>())
            .prop_map(|(opcode, count)| vec![opcode, 0, 0, 0, 0, count, 0, 0, count % 16, 0]),
        1 => prop::collection::vec(any::<u8>(), 0..17),
    ];
    let index = prop_oneof![0u32..4, any::<u32>()];
    let places = prop::sample::select(vec![0u64, 4, 8, 12, 16, 20, 24, 128, 132, 136]);
    prop_oneof![
        2 => (offset.clone(), bytes.clone()).prop_map(|(offset, data)| Step::Write { offset, data }),
        1 => (offset, 1usize..9).prop_map(|(offset, len)| Step::Read { offset, len }),
        3 => (0u32..13, prop::collection::vec(index.clone(), 0..7))
            .prop_map(|(command, words)| Step::Order { command, words }),
        1 => ((0u32..40, 0u32..40), any_address())
            .prop_map(|(pages, state)| Step::Rings { pages, state }),
        1 => (0u32..20).prop_map(Step::Messages),
        1 => (places, index).prop_map(|(offset, value)| Step::State { offset, value }),
        1 => (any_address(), bytes).prop_map(|(at, data)| Step::Memory { at, data }),
        8 => (
            prop::collection::vec((0usize..128, any::<u8>()), 0..3),
            cdb,
            0u32..64,
            prop_oneof![4 => (0u64..32).prop_map(|n| n * 512), 1 => any::<u64>()],
            any_address(),
        )
            .prop_map(|(bytes, cdb, flags, len, data)| Step::Request { bytes, cdb, flags, len, data }),
        1 => prop::collection::vec((any_address(), prop_oneof![0u32..4096, any::<u32>()], 0u32..3), 0..8)
            .prop_map(Step::Elements),
        4 => Just(Step::Run),
        2 => (0usize..4).prop_map(Step::Release),
        1 => any::<bool>().prop_map(Step::BusMaster),
        1 => (0u8..3).prop_map(Step::Plug),
        1 => Just(Step::Reset),
        1 => Just(Step::Pause),
    ]
}

impl Machine {
    pub(super) fn step(&mut self, step: Step, gate: &Gate) {
        match step {
            Step::Write { offset, data } => self.device.bar_write(0, offset, &data),
            Step::Read { offset, len } => self.device.bar_read(0, offset, &mut vec![0; len]),
            Step::Order { command, words } => {
                self.order(command, words.as_bytes());
            }
            Step::Rings { pages, state } => {
                let mut setup = self.setup(8);
                setup.request_pages.set(pages.0);
                setup.completion_pages.set(pages.1);
                if state % 3 == 0 {
                    setup.state_page.set(state >> 12);
                }
                self.order(command::SETUP_RINGS, setup.as_bytes());
            }
            Step::Messages(pages) => {
                let mut setup = SetupMsgRing::default();
                setup.pages.set(pages);
                self.order(command::SETUP_MSG_RING, setup.as_bytes());
            }
            Step::State { offset, value } => self.set_state(offset, value),
            Step::Memory { at, data } => {
                let _ = self.memory.write_slice(&data, GuestAddress(at));
            }
            Step::Request { bytes, cdb, flags, len, data } => {
                let mut request = request(u64::from(self.produced) + 1, &cdb);
                request.flags.set(flags);
                request.data_len.set(len);
                request.data_address.set(if flags & 1 == 0 { data } else { LISTS });
                for (at, byte) in bytes {
                    request.as_mut_bytes()[at] = byte;
                }
                let producer = self.state(state::REQUEST_PRODUCER);
                self.place(REQUESTS + u64::from(producer % ENTRIES) * 128, &request);
                self.set_state(state::REQUEST_PRODUCER, producer.wrapping_add(1));
                self.write(register::KICK_RW_IO, 0);
            }
            Step::Elements(elements) => self.elements(LISTS, &elements),
            Step::Run => {
                self.executor.run(100);
            }
            Step::Release(count) => gate.release(count),
            Step::BusMaster(on) => {
                let mut command = pci::Command::MEMORY;
                command.set(pci::Command::BUS_MASTER, on);
                self.enable(command);
            }
            Step::Plug(target) => {
                if self.bus.detach(at(target)).is_none() {
                    let _ = self.bus.attach(at(target), unit(numbered()));
                }
            }
            Step::Reset => self.device.reset(),
            Step::Pause => {
                if self.device.pause().is_ok() {
                    self.device.resume().unwrap();
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_panics_and_a_reset_brings_it_back(steps in prop::collection::vec(any_step(), 1..60)) {
        let backend = GatedBackend::new(numbered());
        let gate = backend.gate();
        let bus = bus();
        bus.attach(at(0), unit(backend)).unwrap();
        let manual = ManualExecutor::new();
        let options = Options { patience: Duration::ZERO, ..Options::default() };
        let mut machine =
            Machine::on_executor(bus, options, manual.clone(), Arc::new(manual));
        machine.start(Mode::Msix);
        for step in steps {
            machine.step(step, &gate);
        }
        gate.open();
        machine.run();
        machine.device.reset();
        machine.run();
        let _ = machine.bus.detach(at(0));
        machine.bus.attach(at(0), unit(numbered())).unwrap();
        machine.start(Mode::Intx);
        machine.wait_ready(0);
        let completion = machine.carry_out(&read10(1, 7, 1));
        prop_assert_eq!(completion.host_status.get(), 0);
        prop_assert_eq!(machine.bytes(data_at(1), 8), 7u64.to_le_bytes());
        prop_assert!(machine.level());
    }
}
