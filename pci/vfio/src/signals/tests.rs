//! Interrupts of the guest's registers, the hardware and the host's eventfds together.

use paraslot_pci::PciDevice;
use paraslot_spec::pci::{Command, header, msi, msix};
use proptest::prelude::*;

use crate::VfioPci;
use crate::fake::{Call, Fake, FakeHost};
use crate::function::Irq;

const MSI: u16 = 0x48;
const MSIX: u16 = 0xa0;
const ON: u16 = Command::MEMORY.union(Command::BUS_MASTER).bits();
const TABLE: u64 = 0x1000;
const PENDING: u64 = 0x2008;

struct Guest {
    device: VfioPci<()>,
    fake: Fake,
    host: FakeHost,
}

impl Guest {
    fn new() -> Self {
        Self::of(Fake::full())
    }
    /// With MSI that the hardware cannot mask.
    fn without_mask() -> Self {
        let fake = Fake::full();
        fake.lock().set(MSI + msi::CONTROL, &msi::ADDRESS_64.to_le_bytes());
        Self::of(fake)
    }
    fn of(fake: Fake) -> Self {
        let host = FakeHost::new();
        let device = fake.open(&host).unwrap();
        fake.take_calls();
        let mut guest = Self { device, fake, host };
        guest.config(header::COMMAND, ON);
        guest
    }
    fn config(&mut self, at: u16, value: u16) {
        self.device.config_write(at, &value.to_le_bytes());
    }
    fn mask(&mut self, vector: u16, masked: bool) {
        let at = TABLE + 16 * u64::from(vector);
        self.device.bar_write(4, at, &(0xfee0_0000_u64 + u64::from(vector) * 16).to_le_bytes());
        let [d0, d1] = vector.to_le_bytes();
        self.device.bar_write(4, at + 8, &[d0, d1, 0, 0, masked.into(), 0, 0, 0]);
    }
    fn pending(&mut self, vector: u16) -> bool {
        let mut byte = [0];
        self.device.bar_read(4, PENDING + u64::from(vector / 8), &mut byte);
        byte[0] & (1 << (vector % 8)) != 0
    }
}

#[test]
fn an_open_vector_is_wired_to_the_host() {
    let mut guest = Guest::new();
    guest.config(MSIX + msix::CONTROL, msix::ENABLE);
    let calls = guest.fake.take_calls();
    // All vectors at once: Linux before 6.5 cannot add any later.
    assert_eq!(calls[calls.len() - 2..], [Call::Disable(Irq::Intx), Call::Enable(Irq::Msix, 70)]);
    guest.mask(69, false);
    assert_eq!(guest.fake.take_calls(), [Call::Retrigger(Irq::Msix, 69, 1)]);
    assert_eq!(guest.host.told(69).unwrap().0.address, 0xfee0_0000 + 69 * 16);
    assert!(guest.fake.raise(69));
    assert_eq!(guest.host.messages(69), 1);
    // Nothing here has to run for the next one either.
    assert!(guest.fake.raise(69) && guest.fake.raise(69));
    assert_eq!((guest.host.messages(69), guest.pending(69)), (2, false));
}

#[test]
fn a_masked_vector_is_pending_and_sent_once() {
    let mut guest = Guest::new();
    guest.config(MSIX + msix::CONTROL, msix::ENABLE);
    guest.mask(3, false);
    guest.mask(3, true);
    assert!(!guest.pending(3));
    assert!(guest.fake.raise(3) && guest.fake.raise(3) && guest.fake.raise(64));
    assert_eq!((guest.pending(3), guest.pending(4), guest.pending(64)), (true, false, true));
    assert_eq!((guest.host.messages(3), guest.pending(3)), (0, true));
    guest.mask(3, false);
    assert_eq!((guest.host.messages(3), guest.pending(3)), (1, false));
    // The function's mask, and bus mastering, hold all of them.
    guest.config(MSIX + msix::CONTROL, msix::ENABLE | msix::FUNCTION_MASK);
    assert!(guest.fake.raise(3));
    guest.config(header::COMMAND, Command::MEMORY.bits());
    guest.config(MSIX + msix::CONTROL, msix::ENABLE);
    assert_eq!((guest.host.messages(3), guest.pending(3)), (0, true));
    guest.config(header::COMMAND, ON);
    assert_eq!((guest.host.messages(3), guest.host.messages(64)), (1, 0));
}

/// XSA-128: of what the guest writes to its MSI registers nothing gets to the hardware's.
#[test]
fn msi_has_one_vector_and_a_mask() {
    let mut guest = Guest::new();
    let mut control = [0; 2];
    guest.device.config_read(MSI + msi::CONTROL, &mut control);
    assert_eq!(u16::from_le_bytes(control), msi::ADDRESS_64 | msi::MASKABLE);
    guest.fake.take_calls();
    guest.device.config_write(MSI + msi::ADDRESS, &0xfee0_1000_u64.to_le_bytes());
    guest.device.config_write(MSI + msi::DATA_64, &[0x55, 0x40, 0xff, 0xff]);
    guest.config(MSI + msi::CONTROL, 0xffff);
    assert_eq!(guest.fake.take_calls(), [Call::Disable(Irq::Intx), Call::Enable(Irq::Msi, 1)]);
    let message = guest.host.told(0).unwrap().0;
    assert_eq!((message.address, message.data), (0xfee0_1000, 0x4055));
    assert!(guest.fake.raise(0) && guest.host.messages(0) == 1);
    guest.device.config_write(MSI + msi::MASK_64, &[1]);
    assert!(guest.fake.raise(0));
    let mut pending = [0];
    guest.device.config_read(MSI + msi::PENDING_64, &mut pending);
    assert_eq!((pending, guest.host.messages(0)), ([1], 0));
    guest.device.config_write(MSI + msi::MASK_64, &[0]);
    assert_eq!(guest.host.messages(0), 1);
    guest.config(MSI + msi::CONTROL, 0);
    let calls = guest.fake.take_calls();
    let end = &calls[calls.len() - 3..];
    assert_eq!(end, [Call::Disable(Irq::Msi), Call::Enable(Irq::Intx, 1), Call::UnmaskBy]);
}

/// Between mask and trigger hardware that has no mask sends its message to nobody, so the guest, whose
/// mask that would be, is offered none: it masks in its own way, and has what comes.
#[test]
fn msi_that_hardware_cannot_mask_has_no_mask() {
    let mut guest = Guest::without_mask();
    guest.config(MSI + msi::CONTROL, 0xffff);
    let mut registers = [0; 24];
    guest.device.config_read(MSI, &mut registers);
    assert_eq!(registers[2..4], (msi::ADDRESS_64 | msi::ENABLE).to_le_bytes());
    guest.fake.take_calls();
    // What would be the mask is a register of nobody's.
    guest.device.config_write(MSI + msi::MASK_64, &[1, 0, 0, 0]);
    assert_eq!(guest.fake.take_calls(), []);
    assert!(guest.fake.raise(0) && guest.host.messages(0) == 1);
    guest.device.config_read(MSI, &mut registers);
    assert_eq!(registers[16..], [0; 8]);
}

/// CH 3e3008f36 (a lost interrupt): such hardware may send a message while its trigger is changed.
/// Whatever closes the vector leaves one behind.
#[test]
fn msi_without_a_mask_is_sent_once_when_it_opens_again() {
    let mut guest = Guest::without_mask();
    guest.config(MSI + msi::CONTROL, msi::ENABLE);
    assert_eq!(guest.host.messages(0), 0);
    guest.config(header::COMMAND, Command::MEMORY.bits());
    // The hardware's message gets lost here.
    assert_eq!(guest.host.messages(0), 0);
    guest.config(header::COMMAND, ON);
    assert_eq!(guest.host.messages(0), 1);
    guest.config(0x44, 3);
    guest.config(0x44, 0);
    assert_eq!(guest.host.messages(0), 1);
    guest.device.pause().unwrap();
    assert_eq!(guest.host.messages(0), 0);
    guest.device.resume().unwrap();
    assert_eq!(guest.host.messages(0), 1);
}

/// crosvm 078ef31b7, CH 3e3008f36: an interrupt lost when a guest goes on. Hardware that is no bus master
/// may drop its messages, so each vector in use is sent one, and a masked one is pending.
#[test]
fn the_end_of_a_pause_sends_each_vector_in_use_once() {
    let mut guest = Guest::new();
    guest.config(MSIX + msix::CONTROL, msix::ENABLE);
    guest.mask(1, false);
    guest.mask(2, false);
    guest.mask(2, true);
    guest.device.pause().unwrap();
    guest.device.resume().unwrap();
    assert_eq!([0, 1, 2].map(|vector| guest.host.messages(vector)), [0, 1, 0]);
    assert_eq!([0, 1, 2].map(|vector| guest.pending(vector)), [false, false, true]);
    guest.mask(2, false);
    assert_eq!(guest.host.messages(2), 1);
    guest.device.resume().unwrap();
    assert_eq!([1, 2].map(|vector| guest.host.messages(vector)), [0, 0]);
}

/// vmxnet3 CVE-2015-8567 (what is done again leaks): of a guest that enables and disables, or opens
/// and closes, nothing is left.
#[test]
fn enabling_again_and_again_costs_nothing_more() {
    let mut guest = Guest::new();
    for vector in 0..70 {
        guest.mask(vector, false);
    }
    for _ in 0..200 {
        for control in [msix::ENABLE, msix::ENABLE | msix::FUNCTION_MASK, 0] {
            guest.config(MSIX + msix::CONTROL, control);
            // MSI-X and the pin, off and on, and the pin's acknowledgement; or 70 triggers at once.
            assert!(guest.fake.take_calls().len() <= 3);
        }
    }
    // One for each vector, and one to see whether there are any.
    assert_eq!(guest.host.asked(), 71);
    guest.config(MSIX + msix::CONTROL, msix::ENABLE);
    guest.fake.take_calls();
    for at in [(header::COMMAND, ON & !4), (header::COMMAND, ON), (0x44, 3), (0x44, 0)] {
        guest.config(at.0, at.1);
        let calls = guest.fake.take_calls();
        let change = calls.iter().find(|call| matches!(call, Call::Retrigger(..)));
        assert_eq!((calls.len(), change), (2, Some(&Call::Retrigger(Irq::Msix, 0, 70))));
    }
}

/// Part of what came is a pending bit already, part of it is not: one message, whatever opens the vector.
#[test]
fn what_is_raised_again_after_a_look_is_one_message() {
    let all = msix::ENABLE | msix::FUNCTION_MASK;
    let raise_look_raise = |guest: &mut Guest| {
        assert!(guest.fake.raise(1) && guest.pending(1) && guest.fake.raise(1));
        assert_eq!(guest.host.messages(1), 0);
    };
    let mut guest = Guest::new();
    guest.config(MSIX + msix::CONTROL, msix::ENABLE);
    guest.mask(1, false);
    for (at, closed, open) in [
        (header::COMMAND, Command::MEMORY.bits(), ON),
        (0x44, 3, 0),
        (MSIX + msix::CONTROL, all, msix::ENABLE),
    ] {
        guest.config(at, closed);
        raise_look_raise(&mut guest);
        guest.config(at, open);
        assert_eq!(guest.host.messages(1), 1, "{at:#x}");
    }
    guest.mask(1, true);
    raise_look_raise(&mut guest);
    guest.mask(1, false);
    assert_eq!(guest.host.messages(1), 1);

    guest.config(MSIX + msix::CONTROL, 0);
    guest.config(MSI + msi::CONTROL, msi::ENABLE);
    guest.config(MSI + msi::MASK_64, 1);
    let mut pending = [0];
    assert!(guest.fake.raise(0));
    guest.device.config_read(MSI + msi::PENDING_64, &mut pending);
    assert!(guest.fake.raise(0));
    guest.config(MSI + msi::MASK_64, 0);
    assert_eq!((pending, guest.host.messages(0)), ([1], 1));
}

/// Neighbours are changed by one call, and what has not changed by none.
#[test]
fn vectors_that_change_apart_are_changed_apart() {
    let mut guest = Guest::new();
    guest.config(MSIX + msix::CONTROL, msix::ENABLE | msix::FUNCTION_MASK);
    guest.fake.take_calls();
    for vector in [3, 4, 5, 9, 69] {
        guest.mask(vector, false);
    }
    assert_eq!(guest.fake.take_calls(), []);
    assert!([4, 8, 9].into_iter().all(|vector| guest.fake.raise(vector)));
    guest.config(MSIX + msix::CONTROL, msix::ENABLE);
    let runs = [(3, 3), (9, 1), (69, 1)].map(|(at, len)| Call::Retrigger(Irq::Msix, at, len));
    assert_eq!(guest.fake.take_calls(), runs);
    let sent = [3, 4, 5, 8, 9, 69].map(|vector| guest.host.messages(vector));
    assert_eq!(sent, [0, 1, 0, 0, 1, 0]);
}

/// CH 3402bc076 (one refusal and the machine is down): the function goes on, and whoever has plugged
/// it in can find out.
#[test]
fn what_the_kernel_refuses_is_told_from_outside() {
    let guest = Guest::new();
    let (faults, fake, host) = (guest.device.faults(), guest.fake, guest.host);
    let mut device: Box<dyn PciDevice> = Box::new(guest.device);
    assert!(faults.take().is_none() && faults.count() == 0);
    fake.lock().refuses = true;
    device.config_write(MSIX + msix::CONTROL, &msix::ENABLE.to_le_bytes());
    device.config_write(MSIX + msix::CONTROL, &msix::ENABLE.to_le_bytes());
    assert!(faults.take().unwrap().to_string().starts_with("VFIO cannot turn interrupts on"));
    assert!(faults.take().is_none() && faults.count() >= 2);
    // Each write of the guest's is one more attempt.
    fake.lock().refuses = false;
    device.config_write(MSIX + msix::CONTROL, &msix::ENABLE.to_le_bytes());
    device.bar_write(4, TABLE, &[0; 16]);
    fake.lock().refuses = true;
    device.bar_write(4, TABLE + 12, &[1]);
    assert!(faults.take().unwrap().to_string().contains("trigger"));
    assert!(fake.raise(0) && host.messages(0) == 1);
    fake.lock().refuses = false;
    drop(device);
    assert!(faults.take().is_none());
}

#[test]
fn the_pin_is_asserted_until_it_is_acknowledged() {
    let mut guest = Guest::new();
    guest.fake.set_level(true);
    assert_eq!(guest.host.asserted(), 1);
    // Acknowledged with the cause still there: again.
    guest.host.acknowledge();
    guest.fake.poll();
    assert_eq!(guest.host.asserted(), 1);
    guest.fake.set_level(false);
    guest.host.acknowledge();
    guest.fake.poll();
    assert_eq!(guest.host.asserted(), 0);
    // Held while it is disabled, or the function is asleep; what it wants then is seen afterwards.
    for (at, off, on) in [
        (header::COMMAND, ON | Command::INTX_DISABLE.bits(), ON),
        (0x44, 3, 0),
        (MSIX + 2, msix::ENABLE, 0),
    ] {
        guest.config(at, off);
        guest.fake.set_level(true);
        assert_eq!(guest.host.asserted(), 0);
        guest.config(at, on);
        assert_eq!(guest.host.asserted(), 1);
        guest.fake.set_level(false);
        guest.host.acknowledge();
        guest.fake.poll();
    }
}

#[test]
fn nothing_is_raised_or_lost_in_a_pause() {
    let mut guest = Guest::new();
    guest.config(MSIX + msix::CONTROL, msix::ENABLE);
    guest.mask(1, false);
    guest.device.pause().unwrap();
    guest.device.pause().unwrap();
    assert_eq!(guest.fake.lock().config[4] & 4, 0);
    assert!(guest.fake.raise(1));
    assert!(!guest.pending(1));
    assert_eq!(guest.host.messages(1), 0);
    guest.device.resume().unwrap();
    assert_eq!(guest.fake.lock().config[4] & 4, 4);
    assert!(guest.host.messages(1) >= 1);
    assert!(guest.fake.raise(1));
    assert_eq!(guest.host.messages(1), 1);
    // The pin likewise.
    guest.config(MSIX + msix::CONTROL, 0);
    guest.device.pause().unwrap();
    guest.fake.set_level(true);
    assert_eq!(guest.host.asserted(), 0);
    guest.device.resume().unwrap();
    assert_eq!(guest.host.asserted(), 1);
}

#[derive(Clone, Debug)]
enum Step {
    Raise(u16),
    Mask(u16, bool),
    Control(bool, bool),
    BusMaster(bool),
    Sleep(bool),
    Look(u16),
    Pause(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let vector = prop_oneof![0_u16..3, Just(8), Just(69)];
    prop_oneof![
        5 => vector.clone().prop_map(Step::Raise),
        5 => (vector.clone(), any::<bool>()).prop_map(|(vector, masked)| Step::Mask(vector, masked)),
        2 => (any::<bool>(), any::<bool>()).prop_map(|(on, masked)| Step::Control(on, masked)),
        1 => any::<bool>().prop_map(Step::BusMaster),
        1 => any::<bool>().prop_map(Step::Sleep),
        1 => vector.prop_map(Step::Look),
        1 => any::<bool>().prop_map(Step::Pause),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// While a vector may be sent each interrupt is one message, at once. While it may not, none is; and
    /// however many there were, they are one when it may again. A pause is one for each that was ever
    /// open. And what changes is what the kernel is told, in few words.
    #[test]
    fn each_interrupt_is_delivered_exactly_once(steps in proptest::collection::vec(step(), 1..60)) {
        let mut guest = Guest::new();
        let (mut on, mut all_masked, mut bus_master, mut paused) = (false, false, true, false);
        let mut awake = true;
        let mut masked = [true; 70];
        let mut pending = [false; 70];
        let mut opened = [false; 70];
        for step in steps {
            match step {
                Step::Raise(vector) => {
                    if guest.fake.lock().active != Some(Irq::Msix) {
                        continue;
                    }
                    prop_assert!(guest.fake.raise(vector.into()));
                    pending[usize::from(vector)] = true;
                }
                Step::Mask(vector, to) => {
                    guest.mask(vector, to);
                    masked[usize::from(vector)] = to;
                }
                // What a pause holds back may be dropped by disabling, so it is not tried.
                Step::Control(..) if paused => continue,
                Step::Control(enable, mask) => {
                    (on, all_masked) = (enable, mask);
                    let mask = if mask { msix::FUNCTION_MASK } else { 0 };
                    let control = if enable { msix::ENABLE | mask } else { mask };
                    guest.config(MSIX + msix::CONTROL, control);
                }
                Step::BusMaster(to) => {
                    bus_master = to;
                    let bit = if to { Command::BUS_MASTER.bits() } else { 0 };
                    guest.config(header::COMMAND, Command::MEMORY.bits() | bit);
                }
                Step::Sleep(to) => {
                    awake = !to;
                    guest.config(0x44, if to { 3 } else { 0 });
                }
                Step::Look(vector) => {
                    let seen = guest.pending(vector);
                    prop_assert!(paused || seen == pending[usize::from(vector)]);
                }
                Step::Pause(true) => {
                    guest.device.pause().unwrap();
                    paused = true;
                }
                Step::Pause(false) => {
                    guest.device.resume().unwrap();
                    if std::mem::replace(&mut paused, false) && on {
                        pending.iter_mut().zip(opened).for_each(|(pending, was)| *pending |= was);
                    }
                }
            }
            for vector in [0_u16, 1, 2, 8, 69] {
                let at = usize::from(vector);
                let allowed = on && !all_masked && bus_master && awake && !masked[at];
                let open = allowed && !paused;
                opened[at] |= allowed;
                let expected = u64::from(open && pending[at]);
                pending[at] &= !open;
                let got = guest.host.messages(vector);
                prop_assert_eq!(got, expected, "vector {}", vector);
            }
            prop_assert!(guest.device.faults().take().is_none());
            // 5 vectors of which no two runs are one, bus mastering, a kind off and another on.
            prop_assert!(guest.fake.take_calls().len() <= 8);
        }
    }
}
