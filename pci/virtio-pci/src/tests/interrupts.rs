//! ISR status, INTx, MSI-X.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use paraslot_spec::pci::{Command, Status as PciStatus, capability, header, msix};
use paraslot_spec::virtio::pci::NO_VECTOR;

use super::guest::{COPY, Guest};
use crate::layout::ISR;
use crate::offsets::{CONFIG_MSIX_VECTOR, QUEUE_MSIX_VECTOR};
use crate::signals::{QueueInterrupt, Signals};
use paraslot_device::Interrupt;
use paraslot_device::interrupt::NoInterrupts;
use paraslot_virtio::testing::DriverRing;

fn wants_intx(guest: &mut Guest) -> bool {
    guest.config16(header::STATUS) & PciStatus::INTERRUPT.bits() != 0
}

fn serve(guest: &mut Guest, ring: &mut DriverRing<super::guest::Space>) {
    let head = ring.add(&COPY);
    guest.run();
    assert_eq!(ring.used(), Some((head, 8)));
}

// pci.isr.2, pci.isr.3, pci.isr.4, pci.isr.5, split.used-suppress.3
#[test]
fn without_msix_the_isr_status_drives_the_pin() {
    let (mut guest, mut ring) = Guest::running(0);
    assert!(!guest.ears.line() && !wants_intx(&mut guest));
    serve(&mut guest, &mut ring);
    assert!(guest.ears.line() && wants_intx(&mut guest));
    // Reading next to it does not clear it, nor does writing it.
    guest.read(ISR + 1, 1);
    guest.write(ISR, &[0xff]);
    assert!(guest.ears.line());
    guest.control.signals().config_changed();
    assert_eq!(guest.read(ISR, 4), [3, 0, 0, 0]);
    assert!(!guest.ears.line() && !wants_intx(&mut guest));
    assert_eq!(guest.isr(), 0);
    // With INTX_DISABLE the line stays low, and the status register tells all the same.
    guest.command(Command::MEMORY | Command::BUS_MASTER | Command::INTX_DISABLE);
    guest.control.signals().config_changed();
    assert!(!guest.ears.line() && wants_intx(&mut guest));
    guest.command(Command::MEMORY | Command::BUS_MASTER);
    assert!(guest.ears.line());
    assert_eq!(guest.isr(), 2);
    assert!(!guest.ears.line());
}

// pci.msix.4, pci.msix.5, pci.msix.6, pci.msix.8, pci.used-notify.1, pci.config-notify.1
#[test]
fn any_event_can_be_mapped_to_any_vector() {
    let (mut guest, mut ring) = Guest::running(0);
    guest.enable_msix();
    guest.select(0);
    for vector in [0, 1, 2, NO_VECTOR, 1] {
        guest.set16(QUEUE_MSIX_VECTOR, vector);
        assert_eq!(guest.get16(QUEUE_MSIX_VECTOR), vector);
        serve(&mut guest, &mut ring);
        let expected: &[u16] = if vector == NO_VECTOR { &[] } else { &[vector] };
        assert_eq!(guest.ears.messages(), expected);
        // The ISR status says nothing of queues then.
        assert_eq!(guest.isr(), 0);
    }
    guest.set16(QUEUE_MSIX_VECTOR, NO_VECTOR);
    for vector in [2, 0, 1, NO_VECTOR] {
        guest.set16(CONFIG_MSIX_VECTOR, vector);
        assert_eq!(guest.get16(CONFIG_MSIX_VECTOR), vector);
        guest.control.signals().config_changed();
        let expected: &[u16] = if vector == NO_VECTOR { &[] } else { &[vector] };
        assert_eq!(guest.ears.messages(), expected);
        // pci.isr.2: with MSI-X too.
        assert_eq!(guest.isr(), 2);
    }
    assert!(!guest.ears.line() && !wants_intx(&mut guest));
}

// pci.msix.9, CH 3b431afba: a vector that is not there is not mapped, and nothing comes of it.
#[test]
fn a_vector_that_is_not_there_reads_back_as_none() {
    let (mut guest, mut ring) = Guest::running(0);
    guest.enable_msix();
    guest.select(0);
    for vector in [3, 0x7ff, 0xfffe] {
        for register in [QUEUE_MSIX_VECTOR, CONFIG_MSIX_VECTOR] {
            guest.set16(register, 1);
            guest.set16(register, vector);
            assert_eq!(guest.get16(register), NO_VECTOR);
        }
        serve(&mut guest, &mut ring);
        guest.control.signals().config_changed();
        assert!(guest.ears.silent());
    }
}

// pci.msix.7
#[test]
fn a_reset_unmaps_all_vectors() {
    let (mut guest, _) = Guest::running(0);
    guest.enable_msix();
    guest.set16(CONFIG_MSIX_VECTOR, 0);
    for queue in [0, 1] {
        guest.select(queue);
        guest.set16(QUEUE_MSIX_VECTOR, 1);
    }
    guest.set_status(0);
    guest.run();
    assert_eq!(guest.get16(CONFIG_MSIX_VECTOR), NO_VECTOR);
    for queue in [0, 1] {
        guest.select(queue);
        assert_eq!(guest.get16(QUEUE_MSIX_VECTOR), NO_VECTOR);
    }
}

#[test]
fn msix_can_be_enabled_and_disabled_under_a_running_queue() {
    let (mut guest, mut ring) = Guest::running(0);
    guest.select(0);
    guest.set16(QUEUE_MSIX_VECTOR, 1);
    guest.enable_msix();
    serve(&mut guest, &mut ring);
    assert_eq!(guest.ears.messages(), [1]);
    assert!(!guest.ears.line());
    guest.disable_msix();
    serve(&mut guest, &mut ring);
    assert!(guest.ears.messages().is_empty() && guest.ears.line());
    // The pin goes low, and high again with what is still in the ISR status.
    guest.enable_msix();
    assert!(!guest.ears.line() && !wants_intx(&mut guest));
    guest.disable_msix();
    assert!(guest.ears.line() && wants_intx(&mut guest));
    assert_eq!(guest.isr(), 1);
}

#[test]
fn a_masked_vector_is_pending_until_it_is_unmasked() {
    let (mut guest, mut ring) = Guest::running(0);
    guest.select(0);
    guest.set16(QUEUE_MSIX_VECTOR, 2);
    guest.enable_msix();
    let at = guest.capabilities(capability::MSI_X)[0];
    let masked = msix::ENABLE | msix::FUNCTION_MASK;
    guest.set_config(at + msix::CONTROL, &masked.to_le_bytes());
    serve(&mut guest, &mut ring);
    assert!(guest.ears.silent());
    let place = guest.config(at + msix::PBA, 4);
    let pending = u64::from(u32::from_le_bytes(place.try_into().unwrap()) & !7);
    assert_eq!(guest.read(pending, 1), [1 << 2]);
    guest.set_config(at + msix::CONTROL, &msix::ENABLE.to_le_bytes());
    assert_eq!(guest.ears.messages(), [2]);
    assert_eq!(guest.read(pending, 1), [0]);
}

// A reader of the ISR status and a queue that raises it, at once: neither an interrupt without the
// line nor the line without a cause is left over.
#[test]
fn the_pin_agrees_with_the_isr_status_across_threads() {
    use super::guest::{Ears, host, space};
    use paraslot_device::ManualExecutor;
    let ears = Arc::new(Ears::default());
    let mut host = host(&space(), Arc::new(ManualExecutor::new()), &ears);
    host.msi = Arc::new(NoInterrupts);
    let function = crate::VirtioPci::new(super::echo::Echo::new(), host).unwrap();
    let signals: Arc<Signals> = function.signals.clone();
    let interrupt = QueueInterrupt::new(signals.clone(), NO_VECTOR);
    std::thread::scope(|scope| {
        let raiser = scope.spawn(|| (0..20_000).for_each(|_| interrupt.trigger()));
        while !raiser.is_finished() {
            signals.take_isr();
        }
    });
    signals.take_isr();
    assert!(!ears.line.load(Ordering::SeqCst));
    interrupt.trigger();
    assert!(ears.line.load(Ordering::SeqCst));
}
