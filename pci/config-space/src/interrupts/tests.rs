use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use paraslot_device::interrupt::NoInterrupts;
use paraslot_spec::pci::{Command, capability, header, msi, msix};
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;
use crate::testing::{Host, IDENTITY, MSIX_BAR, PENDING, TABLE, VECTORS, build, function};
use crate::{ConfigSpace, ConfigSpaceBuilder};

const MESSAGE: MsiMessage = MsiMessage { address: 0x1_fee0_1000, data: 0x4041 };

fn msix_control(config: &mut ConfigSpace, control: u16) {
    let _ = config.control(capability::MSI_X, msix::CONTROL, control);
}

fn entry(vector: u16) -> u64 {
    TABLE + 16 * u64::from(vector)
}

fn set_message(config: &mut ConfigSpace, vector: u16, message: MsiMessage) {
    assert!(config.msix_write(MSIX_BAR, entry(vector), &message.address.to_le_bytes()));
    assert!(config.msix_write(MSIX_BAR, entry(vector) + 8, &message.data.to_le_bytes()));
}

fn set_mask(config: &mut ConfigSpace, vector: u16, masked: bool) {
    assert!(config.msix_write(MSIX_BAR, entry(vector) + 12, &u32::from(masked).to_le_bytes()));
}

fn pending(config: &ConfigSpace, vector: u16) -> bool {
    let mut data = [0; 8];
    assert!(config.msix_read(MSIX_BAR, PENDING + u64::from(vector / 64) * 8, &mut data));
    u64::from_le_bytes(data) >> (vector % 64) & 1 != 0
}

/// Bus mastering on, MSI-X enabled, vector 65 open.
fn with_msix() -> (ConfigSpace, Arc<Host>) {
    let (mut config, host) = function();
    let _ = config.set_command(Command::BUS_MASTER);
    set_message(&mut config, 65, MESSAGE);
    msix_control(&mut config, msix::ENABLE);
    set_mask(&mut config, 65, false);
    (config, host)
}

fn with_msi() -> (ConfigSpace, Arc<Host>) {
    let (mut config, host) = function();
    let _ = config.set_command(Command::BUS_MASTER);
    let _ = config.control(capability::MSI, msi::ADDRESS, 0x1000);
    let _ = config.control(capability::MSI, msi::ADDRESS + 2, 0xfee0);
    let _ = config.control(capability::MSI, msi::ADDRESS_HIGH, 0x1);
    let _ = config.control(capability::MSI, msi::DATA_64, 0x4041);
    let _ = config.control(capability::MSI, msi::CONTROL, msi::ENABLE);
    (config, host)
}

#[test]
fn an_open_vector_sends_its_message() {
    let (config, host) = with_msix();
    config.interrupts().trigger_msix(65);
    config.interrupts().msix_vector(65).trigger();
    assert_eq!(host.take_messages(), [MESSAGE; 2]);
    assert!(!pending(&config, 65));
}

/// 6.8.2.9: vectors are masked after reset.
#[test]
fn vectors_are_masked_until_unmasked() {
    let (config, host) = with_msix();
    for vector in 0..VECTORS {
        assert_eq!(host.told(vector).unwrap().1, vector != 65);
        config.interrupts().trigger_msix(vector);
        assert_eq!(pending(&config, vector), vector != 65);
    }
    assert_eq!(host.take_sent(), [65]);
}

#[test]
fn vectors_that_are_not_there_do_nothing() {
    let (config, host) = with_msix();
    for vector in [VECTORS, 2048, u16::MAX] {
        config.interrupts().trigger_msix(vector);
        config.interrupts().msix_vector(vector).trigger();
    }
    assert!(host.take_sent().is_empty());
}

/// 6.8.3.4: what was raised while masked is sent, once, when that ends.
#[test]
fn pending_is_sent_on_unmask() {
    type Way = fn(&mut ConfigSpace, bool);
    let ways: [(&str, Way); 4] = [
        ("vector", |config, masked| set_mask(config, 65, masked)),
        ("function", |config, masked| {
            let mask = if masked { msix::FUNCTION_MASK } else { 0 };
            msix_control(config, msix::ENABLE | mask);
        }),
        ("bus master", |config, masked| {
            let _ = config.set_command(if masked { Command::empty() } else { Command::BUS_MASTER });
        }),
        ("D3hot", |config, masked| {
            let state = if masked { 3 } else { 0 };
            let _ = config.control(capability::POWER_MANAGEMENT, 4, state);
        }),
    ];
    for (name, way) in ways {
        let (mut config, host) = with_msix();
        way(&mut config, true);
        assert!(host.told(65).unwrap().1, "{name}");
        config.interrupts().trigger_msix(65);
        config.interrupts().trigger_msix(65);
        assert_eq!((host.take_sent(), pending(&config, 65)), (vec![], true), "{name}");
        way(&mut config, false);
        assert_eq!((host.take_messages(), pending(&config, 65)), (vec![MESSAGE], false), "{name}");
        way(&mut config, true);
        way(&mut config, false);
        assert!(host.take_sent().is_empty(), "{name}: once");
    }
}

/// A vector opens only when nothing at all masks it.
#[test]
fn masks_add_up() {
    let (mut config, host) = with_msix();
    set_mask(&mut config, 65, true);
    msix_control(&mut config, msix::ENABLE | msix::FUNCTION_MASK);
    let _ = config.set_command(Command::empty());
    config.interrupts().trigger_msix(65);
    set_mask(&mut config, 65, false);
    msix_control(&mut config, msix::ENABLE);
    assert!(host.take_sent().is_empty());
    let _ = config.set_command(Command::BUS_MASTER);
    assert_eq!(host.take_sent(), [65]);
}

#[test]
fn what_is_raised_while_disabled_is_dropped_but_pending_is_kept() {
    let (mut config, host) = with_msix();
    config.interrupts().trigger_msix(1);
    msix_control(&mut config, 0);
    assert!(host.told(65).unwrap().1);
    config.interrupts().trigger_msix(65);
    set_mask(&mut config, 1, false);
    assert_eq!((host.take_sent(), pending(&config, 1)), (vec![], true));
    msix_control(&mut config, msix::ENABLE);
    assert_eq!(
        (host.take_sent(), pending(&config, 1), pending(&config, 65)),
        (vec![1], false, false)
    );
}

/// The host hears of a new message before it is sent, also without an unmask in between.
#[test]
fn the_host_follows_the_message() {
    let (mut config, host) = with_msix();
    let other = MsiMessage { address: 0xfee0_2000, data: 7 };
    set_message(&mut config, 65, other);
    assert_eq!(host.told(65), Some((other, false)));
    config.interrupts().trigger_msix(65);
    assert_eq!(host.take_messages(), [other]);
    // One write of 8 bytes: new data and unmask together (6.8.2: quadword accesses).
    set_mask(&mut config, 65, true);
    config.interrupts().trigger_msix(65);
    assert!(config.msix_write(MSIX_BAR, entry(65) + 8, &[9, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(host.take_messages(), [MsiMessage { data: 9, ..other }]);
}

/// Changing a route costs a host a great deal: it hears of changes only.
#[test]
fn the_host_hears_of_changes_only() {
    let (mut config, host) = with_msix();
    let updates = host.updates();
    set_mask(&mut config, 65, false);
    msix_control(&mut config, msix::ENABLE);
    let _ = config.set_command(Command::BUS_MASTER | Command::MEMORY);
    set_message(&mut config, 65, MESSAGE);
    assert_eq!(host.updates(), updates);
    // The function mask changes nothing for vectors that are masked anyway.
    msix_control(&mut config, msix::ENABLE | msix::FUNCTION_MASK);
    assert_eq!(host.updates(), updates + 1);
}

#[test]
fn the_hosts_eventfd_is_used() {
    let event = EventFd::new(EFD_NONBLOCK).unwrap();
    let host = Arc::new(Host::with_event(event.try_clone().unwrap()));
    let mut config = build(&host);
    let _ = config.set_command(Command::BUS_MASTER);
    msix_control(&mut config, msix::ENABLE);
    config.interrupts().trigger_msix(0);
    assert!(event.read().is_err());
    set_mask(&mut config, 0, false);
    assert_eq!(event.read().unwrap(), 1, "the pending one");
    config.interrupts().trigger_msix(0);
    assert_eq!((event.read().unwrap(), host.take_sent()), (1, vec![]));
    // An event that cannot be written is no reason to lose an interrupt.
    event.write(u64::MAX - 1).unwrap();
    config.interrupts().trigger_msix(0);
    assert_eq!(host.take_sent(), [0]);
}

#[test]
fn msi_sends_masks_and_pends() {
    let (mut config, host) = with_msi();
    let at = config.find(capability::MSI);
    assert!(config.interrupts().msi_enabled());
    config.interrupts().trigger_msi();
    assert_eq!(host.take_messages(), [MESSAGE]);

    let _ = config.write_u32(at + msi::MASK_64, 1);
    config.interrupts().trigger_msi();
    assert_eq!((host.take_sent(), config.read_u32(at + msi::PENDING_64)), (vec![], 1));
    let _ = config.write_u32(at + msi::PENDING_64, 0);
    assert_eq!(config.read_u32(at + msi::PENDING_64), 1, "read-only");
    let _ = config.write_u32(at + msi::MASK_64, 0);
    assert_eq!((host.take_sent(), config.read_u32(at + msi::PENDING_64)), (vec![0], 0));

    let _ = config.set_command(Command::empty());
    config.interrupts().trigger_msi();
    assert!(host.take_sent().is_empty());
    let _ = config.set_command(Command::BUS_MASTER);
    assert_eq!(host.take_sent(), [0]);

    let _ = config.write_u16(at + msi::CONTROL, 0);
    config.interrupts().trigger_msi();
    let _ = config.write_u16(at + msi::CONTROL, msi::ENABLE);
    assert_eq!((host.take_sent(), config.interrupts().msi_enabled()), (vec![], true));
}

/// Without a mask there is neither a mask nor a pending bit: what is there belongs to others.
#[test]
fn msi_without_a_mask_is_not_masked_by_what_is_behind_it() {
    let mut builder = ConfigSpaceBuilder::new(IDENTITY).place(0x50).msi_without_mask().place(0x60);
    builder.capability(capability::VENDOR, &[8, 1, 0, 0, 0, 0], &[0, 0xff]);
    let host = Arc::new(Host::default());
    let mut config = builder.build(host.clone(), Arc::new(NoInterrupts));
    let _ = config.set_command(Command::BUS_MASTER);
    let at = config.find(capability::MSI);
    let _ = config.write_u16(at + msi::DATA_64, 0x41);
    let _ = config.write_u32(at + msi::MASK_64, 0xff01_0101);
    let _ = config.write_u16(at + msi::CONTROL, u16::MAX);
    assert_eq!(config.read_u16(at + msi::CONTROL), msi::ADDRESS_64 | msi::ENABLE);
    config.interrupts().trigger_msi();
    assert_eq!(host.take_sent(), [0]);
    // Not pending, but held back all the same.
    let _ = config.set_command(Command::empty());
    config.interrupts().trigger_msi();
    assert_eq!((host.take_sent(), config.read_u32(at + msi::PENDING_64)), (vec![], 0));
    let _ = config.set_command(Command::BUS_MASTER);
    assert_eq!(host.take_sent(), [0]);
}

/// Both enabled, which software must not do (6.8): MSI-X it is, and MSI again when that ends.
#[test]
fn msix_comes_before_msi() {
    let (mut config, host) = with_msi();
    set_message(&mut config, 0, MsiMessage { address: 0xfee0_3000, data: 1 });
    set_mask(&mut config, 0, false);
    msix_control(&mut config, msix::ENABLE);
    assert_eq!(
        (config.interrupts().msix_enabled(), config.interrupts().msi_enabled()),
        (true, false)
    );
    config.interrupts().trigger_msi();
    assert!(host.take_sent().is_empty());
    config.interrupts().trigger_msix(0);
    assert_eq!(host.take_messages()[0].address, 0xfee0_3000);
    msix_control(&mut config, 0);
    config.interrupts().trigger_msi();
    assert_eq!(host.take_messages(), [MESSAGE]);
}

/// 6.2.2, 6.2.3, and 6.8.3.3: INTX_DISABLE, MSI and MSI-X keep the line quiet; the status bit tells
/// what the function wants all the same. QEMU 8e4649cac9: a legacy interrupt after MSI-X was enabled.
#[test]
fn intx_is_held_while_it_is_disabled() {
    type Way = fn(&mut ConfigSpace, bool);
    let ways: [Way; 3] = [
        |config, on| {
            let _ = config.set_command(if on { Command::INTX_DISABLE } else { Command::empty() });
        },
        |config, on| msix_control(config, if on { msix::ENABLE } else { 0 }),
        |config, on| {
            let enable = if on { msi::ENABLE } else { 0 };
            let _ = config.control(capability::MSI, msi::CONTROL, enable);
        },
    ];
    for way in ways {
        let (mut config, host) = function();
        let status = |config: &ConfigSpace| config.read_u16(header::STATUS) & 8 != 0;
        config.interrupts().set_intx(true);
        assert_eq!((host.level(), status(&config)), (true, true));
        way(&mut config, true);
        assert_eq!((host.level(), status(&config)), (false, true));
        config.interrupts().set_intx(false);
        assert!(!status(&config));
        config.interrupts().set_intx(true);
        assert_eq!((host.level(), status(&config)), (false, true));
        way(&mut config, false);
        assert_eq!((host.level(), status(&config)), (true, true));
        config.interrupts().set_intx(false);
        assert_eq!((host.level(), status(&config)), (false, false));
    }
}

#[test]
fn reset_forgets_everything() {
    let (mut config, host) = with_msix();
    config.interrupts().trigger_msix(1);
    config.interrupts().set_intx(true);
    config.reset();
    assert_eq!(
        (pending(&config, 1), host.level(), config.interrupts().msix_enabled()),
        (false, false, false)
    );
    assert!((0..VECTORS).all(|vector| host.told(vector).unwrap().1));
    config.interrupts().trigger_msix(65);
    let _ = config.set_command(Command::BUS_MASTER);
    msix_control(&mut config, msix::ENABLE);
    assert_eq!(host.told(65), Some((MsiMessage::default(), true)));
    set_mask(&mut config, 65, false);
    set_mask(&mut config, 1, false);
    assert!(host.take_sent().is_empty());
}

/// Counts what is sent, like a guest that looks at all the work done whenever it is interrupted.
#[derive(Default)]
struct Counter {
    done: AtomicU64,
    seen: AtomicU64,
    closed: AtomicBool,
}

impl MsiSink for Counter {
    fn update(&self, vector: u16, _message: MsiMessage, masked: bool) {
        if vector != 0 {
            return;
        }
        // The route is being changed.
        self.closed.store(true, Ordering::SeqCst);
        thread::sleep(Duration::from_micros(20));
        self.closed.store(masked, Ordering::SeqCst);
    }

    fn trigger(&self, _vector: u16) {
        assert!(!self.closed.load(Ordering::SeqCst));
        self.seen.fetch_max(self.done.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    fn event(&self, _vector: u16) -> Option<EventFd> {
        None
    }
}

/// Workers raise while the guest masks and unmasks in every way there is, and changes the message:
/// none is lost, and none is sent while masked or while the host changes its route.
#[test]
fn no_interrupt_is_lost_between_threads() {
    let counter = Arc::new(Counter::default());
    let mut config = crate::testing::builder().build(counter.clone(), Arc::new(Host::default()));
    let _ = config.set_command(Command::BUS_MASTER);
    msix_control(&mut config, msix::ENABLE);
    set_mask(&mut config, 0, false);
    let stop = Arc::new(AtomicBool::new(false));
    let workers = [(); 2].map(|()| {
        let (counter, stop) = (counter.clone(), stop.clone());
        let interrupt = config.interrupts().msix_vector(0);
        thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                counter.done.fetch_add(1, Ordering::SeqCst);
                interrupt.trigger();
            }
        })
    });
    for round in 0..400 {
        for masked in [true, false] {
            match round % 4 {
                0 => set_mask(&mut config, 0, masked),
                1 => {
                    let mask = if masked { msix::FUNCTION_MASK } else { 0 };
                    msix_control(&mut config, msix::ENABLE | mask);
                }
                2 => set_message(&mut config, 0, MsiMessage { data: round, ..MESSAGE }),
                _ => {
                    let on = if masked { Command::empty() } else { Command::BUS_MASTER };
                    let _ = config.set_command(on);
                }
            }
        }
    }
    stop.store(true, Ordering::SeqCst);
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!(counter.seen.load(Ordering::SeqCst), counter.done.load(Ordering::SeqCst));
}

/// Several threads with causes of their own: the line ends up as the causes say.
#[test]
fn the_line_follows_its_causes() {
    let (config, host) = function();
    let causes = Arc::new(AtomicU64::new(0));
    let threads: Vec<_> = (0..3)
        .map(|bit| {
            let (causes, interrupts) = (causes.clone(), config.interrupts().clone());
            thread::spawn(move || {
                for round in 0..2001 {
                    if round % 2 == 0 {
                        causes.fetch_or(1 << bit, Ordering::SeqCst);
                    } else {
                        causes.fetch_and(!(1 << bit), Ordering::SeqCst);
                    }
                    interrupts.update_intx(|| causes.load(Ordering::SeqCst) != 0);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    assert!(host.level());
    causes.store(0, Ordering::SeqCst);
    config.interrupts().update_intx(|| causes.load(Ordering::SeqCst) != 0);
    assert!(!host.level());
}
