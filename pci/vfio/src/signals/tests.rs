//! Interrupts of the guest's registers, the hardware and the host's eventfds together.

use paraslot_pci::PciDevice;
use paraslot_spec::pci::{Command, header, msi, msix};
use proptest::prelude::*;

use crate::VfioPci;
use crate::fake::{Call, Fake, FakeHost};
use crate::function::Irq;

const MSI: u16 = 0xe8;
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
        let (fake, host) = (Fake::full(), FakeHost::new());
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
    assert_eq!(guest.fake.take_calls(), [Call::Retrigger(Irq::Msix, 69)]);
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
    assert_eq!((guest.host.messages(1), guest.fake.lock().config[4] & 4), (1, 4));
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
        1 => vector.prop_map(Step::Look),
        1 => any::<bool>().prop_map(Step::Pause),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// While a vector may be sent each interrupt is one message, at once. While it may not, none is; and
    /// however many there were, they are one when it may again.
    #[test]
    fn each_interrupt_is_delivered_exactly_once(steps in proptest::collection::vec(step(), 1..60)) {
        let mut guest = Guest::new();
        let (mut on, mut all_masked, mut bus_master, mut paused) = (false, false, true, false);
        let mut masked = [true; 70];
        let mut pending = [false; 70];
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
                    paused = false;
                }
            }
            for vector in [0_u16, 1, 2, 8, 69] {
                let at = usize::from(vector);
                let open = on && !all_masked && bus_master && !paused && !masked[at];
                let expected = u64::from(open && pending[at]);
                pending[at] &= !open;
                let got = guest.host.messages(vector);
                prop_assert_eq!(got, expected, "vector {}", vector);
            }
            prop_assert!(guest.device.take_fault().is_none());
        }
    }
}
