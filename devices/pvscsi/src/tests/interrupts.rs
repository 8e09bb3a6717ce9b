//! Interrupts in all three modes, counted.

use super::*;

fn machine(mode: Mode) -> Machine {
    let bus = bus();
    bus.attach(at(0), unit(numbered())).unwrap();
    let mut machine = Machine::off(bus);
    machine.start(mode);
    machine.wait_ready(0);
    machine.write(register::INTR_STATUS, u32::MAX);
    machine.interrupts.rises.store(0, Ordering::SeqCst);
    machine
}

// Linux's handler for messages (pvscsi_isr) touches no register: the causes stay, and each batch sends a
// message all the same.
#[test]
fn each_batch_sends_one_message_whatever_the_causes() {
    for mode in [Mode::Msi, Mode::Msix] {
        let mut machine = machine(mode);
        for round in 1..=5 {
            for context in 1..=4 {
                machine.put(&read10(context, 0, 1));
            }
            machine.run();
            assert_eq!(machine.messages_sent(), round, "{mode:?}");
            assert_eq!(machine.reap().len(), 4);
        }
        assert_eq!(machine.read(register::INTR_STATUS), Intr::CMPL_0.bits());
        assert!(!machine.level());
    }
}

#[test]
fn the_line_follows_the_causes_and_their_mask() {
    let mut machine = machine(Mode::Intx);
    assert!(!machine.level());
    for round in 1..=3 {
        machine.carry_out(&read10(1, 0, 1));
        assert!(machine.level());
        // pvscsi_shared_isr: one read, which needs no exit, and one write.
        let page = machine.device.layout().windows[0].page.clone();
        assert_eq!(machine.device.layout().windows[0].offset, 0x1000);
        let status = u32::from_le(page.words()[3].load(Ordering::Acquire));
        assert_eq!(status, machine.read(register::INTR_STATUS));
        assert_eq!(status, Intr::CMPL_0.bits());
        machine.write(register::INTR_STATUS, status);
        assert_eq!(page.words()[3].load(Ordering::Acquire), 0);
        assert!(!machine.level());
        assert_eq!(machine.interrupts.rises.load(Ordering::SeqCst), round);
    }
    machine.write(register::INTR_MASK, 0);
    machine.carry_out(&read10(1, 0, 1));
    assert!(!machine.level());
    machine.write(register::INTR_MASK, Intr::MSG_0.bits());
    assert!(!machine.level());
    machine.write(register::INTR_MASK, Intr::all().bits());
    assert!(machine.level());
    machine.write(register::INTR_MASK, 0);
    assert!(!machine.level());
    assert_eq!(machine.messages_sent(), 0);
}

#[test]
fn a_message_that_was_masked_is_sent_when_it_is_not_any_more() {
    for mode in [Mode::Msi, Mode::Msix] {
        let mut machine = machine(mode);
        machine.write(register::INTR_MASK, 0);
        machine.carry_out(&read10(1, 0, 1));
        machine.carry_out(&read10(1, 0, 1));
        assert_eq!(machine.messages_sent(), 0);
        machine.write(register::INTR_MASK, Intr::CMPL_0.bits());
        assert_eq!(machine.messages_sent(), 1);
        // Once.
        machine.write(register::INTR_MASK, Intr::all().bits());
        assert_eq!(machine.messages_sent(), 1);
        machine.write(register::INTR_STATUS, u32::MAX);
        machine.write(register::INTR_MASK, 0);
        machine.write(register::INTR_MASK, Intr::all().bits());
        assert_eq!(machine.messages_sent(), 1);
    }
}

#[test]
fn completions_are_there_before_their_interrupt() {
    struct Look {
        memory: std::sync::OnceLock<Space>,
        seen: std::sync::Mutex<Vec<u32>>,
    }
    impl MsiSink for Look {
        fn update(&self, _vector: u16, _message: MsiMessage, _masked: bool) {}
        fn trigger(&self, _vector: u16) {
            let at = GuestAddress(STATE + state::COMPLETION_PRODUCER);
            let produced = self.memory.get().unwrap().read_obj(at).unwrap();
            self.seen.lock().unwrap().push(produced);
        }
        fn event(&self, _vector: u16) -> Option<EventFd> {
            None
        }
    }
    let look = Arc::new(Look { memory: Default::default(), seen: Default::default() });
    let mut machine = Machine::off(bus());
    let host = Host {
        memory: machine.memory.clone(),
        msi: look.clone(),
        intx: machine.interrupts.clone(),
        executor: Arc::new(machine.executor.clone()),
    };
    let _ = look.memory.set(machine.memory.clone());
    machine.device = Pvscsi::new(machine.bus.clone(), Options::default(), host).unwrap();
    machine.start(Mode::Msix);
    for round in 1..=3 {
        machine.carry_out(&read10(1, 0, 1));
        assert_eq!(look.seen.lock().unwrap().last(), Some(&round));
    }
}

// A driver that uses messages leaves the causes set, and the pin must not tell of them when a reset has
// taken the messages away.
#[test]
fn the_pin_stays_quiet_when_messages_go() {
    for mode in [Mode::Msi, Mode::Msix] {
        let mut machine = machine(mode);
        machine.carry_out(&read10(1, 0, 1));
        assert_eq!(machine.read(register::INTR_STATUS), Intr::CMPL_0.bits());
        machine.device.reset();
        machine.start(mode);
        machine.wait_ready(0);
        machine.carry_out(&read10(1, 0, 1));
        let Machine { device, interrupts, .. } = machine;
        drop(device);
        assert_eq!(interrupts.rises.load(Ordering::SeqCst), 0, "{mode:?}");
    }
}
