//! Ports that fail: gone, busy, out of buffers, with frames that are too long. Each frame is counted,
//! none is lost that need not be, and traffic goes on afterwards. And the units of SCSI host adapters.
//!
//! CVE-2026-16457's kind of livelock, QEMU abe300d9d8 (a leak on the way out of an error), crosvm
//! 28a9d2b70 (a loop without receive buffers).

mod scsi;

use paraslot_backends::net::{NetStatistics, Offload};
use paraslot_device::Progress;
use paraslot_tests::port::{Carried, Fate, Port};

use crate::e1000::Ether;
use crate::net::{Net, frame};
use crate::nic::Adapter;
use crate::vmxnet3::Vmx;

/// Frames that came, apart from those of before.
fn since(before: NetStatistics, nic: &impl Adapter) -> NetStatistics {
    let mut now = nic.statistics();
    now.sent_frames -= before.sent_frames;
    now.received_frames -= before.received_frames;
    now
}

fn sending<A: Adapter>() {
    type Count = fn(&NetStatistics) -> u64;
    let cases: [(Fate, Count); 5] = [
        (Fate::Down, |counts| counts.send_down),
        (Fate::NoBuffers, |counts| counts.send_no_buffers),
        (Fate::TooLong, |counts| counts.send_invalid),
        (Fate::Invalid, |counts| counts.send_invalid),
        (Fate::Failed, |counts| counts.send_errors),
    ];
    for (fate, count) in cases {
        let mut nic = A::make(Port::new(1));
        nic.works();
        nic.reclaim();
        let before = nic.statistics();
        nic.port().set_fate(fate);
        let asked: Vec<u32> = (0..5).map(|index| nic.ask(&frame(100 + index))).collect();
        nic.run();
        assert_eq!(nic.reclaim(), asked, "{}, {fate:?}: not given back", A::NAME);
        let counts = since(before, &nic);
        assert_eq!((count(&counts), counts.sent_frames), (5, 0), "{}, {fate:?}", A::NAME);
        assert!(nic.port().take_sent().is_empty());
        nic.works();
    }
}

// Each frame that could not be sent costs itself, and the guest nothing.
#[test]
fn virtio_net_counts_what_its_port_does_not_send() {
    sending::<Net>();
}

#[test]
fn e1000_counts_what_its_port_does_not_send() {
    sending::<Ether>();
}

#[test]
fn vmxnet3_counts_what_its_port_does_not_send() {
    sending::<Vmx>();
}

fn busy<A: Adapter>() {
    let mut nic = A::make(Port::new(1));
    nic.works();
    nic.reclaim();
    let before = nic.statistics();
    nic.port().set_fate(Fate::Busy);
    let frames: Vec<Vec<u8>> = (0..20).map(|index| frame(100 + index)).collect();
    let asked: Vec<u32> = frames.iter().map(|frame| nic.ask(frame)).collect();
    nic.run();
    assert!(nic.reclaim().is_empty(), "{}: given back before it was sent", A::NAME);
    let counts = since(before, &nic);
    assert!(counts.send_busy >= 1 && counts.sent_frames == 0, "{}: {counts:?}", A::NAME);
    // It rests, rather than ask again and again.
    let calls = nic.port().calls();
    for _ in 0..10 {
        assert_eq!(nic.bench().executor.step_all(), Progress::Idle, "{}", A::NAME);
    }
    assert!(nic.port().calls() <= calls + 20, "{}", A::NAME);
    // Frames come in all the while.
    nic.port().deliver(&frame(333));
    nic.run();
    assert_eq!(nic.take(), Some(frame(333)), "{}", A::NAME);
    nic.port().set_fate(Fate::Through);
    nic.run();
    assert_eq!(nic.reclaim(), asked, "{}", A::NAME);
    let sent: Vec<Vec<u8>> = nic.port().take_sent().into_iter().map(|sent| sent.bytes).collect();
    assert!(sent == frames, "{}: lost, twice or out of order", A::NAME);
    nic.works();
}

// Busy alone leaves the frame with the device: it goes later, once, in its place.
#[test]
fn virtio_net_waits_for_a_busy_port() {
    busy::<Net>();
}

#[test]
fn e1000_waits_for_a_busy_port() {
    busy::<Ether>();
}

#[test]
fn vmxnet3_waits_for_a_busy_port() {
    busy::<Vmx>();
}

fn receiving<A: Adapter>() {
    for (fate, too_long) in [
        (Fate::TooLong, true),
        (Fate::Down, false),
        (Fate::NoBuffers, false),
        (Fate::Invalid, false),
        (Fate::Failed, false),
    ] {
        let mut nic = A::make(Port::new(1));
        nic.works();
        let before = nic.statistics();
        for index in 0..5 {
            nic.port().fail_receive(0, fate);
            nic.port().deliver(&frame(200 + index));
        }
        nic.run();
        for index in 0..5 {
            assert_eq!(nic.take(), Some(frame(200 + index)), "{}, {fate:?}", A::NAME);
        }
        let counts = since(before, &nic);
        let lost = if too_long { counts.received_too_long } else { counts.receive_errors };
        assert_eq!((lost, counts.received_frames), (5, 5), "{}, {fate:?}: {counts:?}", A::NAME);
        nic.works();
    }
}

#[test]
fn virtio_net_goes_on_after_a_receive_that_failed() {
    receiving::<Net>();
}

#[test]
fn e1000_goes_on_after_a_receive_that_failed() {
    receiving::<Ether>();
}

#[test]
fn vmxnet3_goes_on_after_a_receive_that_failed() {
    receiving::<Vmx>();
}

/// Frames that nobody can want: nothing of them is seen, and each is counted once.
fn nonsense<A: Adapter>() {
    let mut nic = A::make(Port::new(1));
    nic.works();
    let before = nic.statistics();
    // Longer than an Ethernet's and all buffers; then shorter than a header, which a port promises not
    // to deliver.
    for bytes in [frame(1700), frame(20_000), frame(65_557), frame(13), frame(1), Vec::new()] {
        nic.port().deliver_to(0, Carried { bytes, offload: Offload::default() });
        nic.port().deliver(&frame(150));
        nic.run();
        assert_eq!(nic.take(), Some(frame(150)), "{}", A::NAME);
        assert_eq!(nic.take(), None, "{}", A::NAME);
    }
    let counts = since(before, &nic);
    let lost = counts.received_too_long + counts.receive_errors;
    assert_eq!((lost, counts.received_frames), (6, 6), "{}: {counts:?}", A::NAME);
    nic.works();
}

// CVE-2012-6075: a frame that is longer than the guest has been promised is lost, and its buffers are
// left alone.
#[test]
fn virtio_net_loses_frames_that_fit_nothing() {
    nonsense::<Net>();
}

#[test]
fn e1000_loses_frames_that_fit_nothing() {
    nonsense::<Ether>();
}

#[test]
fn vmxnet3_loses_frames_that_fit_nothing() {
    nonsense::<Vmx>();
}

fn link<A: Adapter>(keeps: bool) {
    let mut nic = A::make(Port::new(1));
    nic.works();
    nic.reclaim();
    for round in 0..3 {
        nic.set_link(false);
        nic.run();
        let asked = nic.ask(&frame(120 + round));
        nic.port().deliver(&frame(220 + round));
        nic.run();
        assert!(nic.port().take_sent().is_empty() && nic.take().is_none(), "{}", A::NAME);
        assert_eq!(nic.reclaim().is_empty(), keeps, "{}", A::NAME);
        nic.set_link(true);
        nic.run();
        if keeps {
            assert_eq!(nic.reclaim(), [asked], "{}", A::NAME);
        }
        nic.works();
        nic.reclaim();
    }
}

#[test]
fn virtio_net_sends_and_receives_nothing_while_the_link_is_down() {
    link::<Net>(false);
}

#[test]
fn e1000_sends_and_receives_nothing_while_the_link_is_down() {
    link::<Ether>(true);
}

#[test]
fn vmxnet3_sends_and_receives_nothing_while_the_link_is_down() {
    link::<Vmx>(false);
}
