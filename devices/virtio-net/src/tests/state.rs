//! Saved in one device, restored in another.

use std::time::Duration;

use paraslot_backends::net::Offloads;
use paraslot_backends::net::testing::Packet;
use paraslot_device::state::testing::mutate;
use paraslot_device::state::{Value, save_part};
use paraslot_device::{SavedState, StateError};
use paraslot_spec::virtio_net::{
    ack, announce, class, guest_offloads, hash_type, mac, mq, notf_coal, rx, status, vlan,
};
use serde_json::json;

use super::coalescing::{get, set, set_queue};
use super::filters::tables;
use super::steering::{KEY, rss, set_pairs};
use super::*;

const GROUP: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];
const OWN: [u8; 6] = [0x02, 0, 0, 0, 0, 0x77];

/// A device's state, and its queues'.
#[derive(Clone, Debug, PartialEq)]
struct Saved {
    device: SavedState,
    queues: Vec<Option<Value>>,
}

impl Saved {
    /// All of it in one tree.
    fn tree(&self) -> Value {
        json!({ "device": save_part(&self.device).unwrap(), "queues": self.queues })
    }

    fn from_tree(tree: &Value) -> Option<Self> {
        let device = serde_json::from_value(tree.get("device")?.clone()).ok()?;
        let queues = serde_json::from_value(tree.get("queues")?.clone()).ok()?;
        Some(Self { device, queues })
    }
}

impl Nic {
    /// Has the workers stop, as for a pause, and saves everything.
    fn save(&mut self) -> Saved {
        let Self { device, lanes, .. } = self;
        for lane in lanes.iter_mut().flatten() {
            assert_eq!(lane.worker.quiesce(), Progress::Idle);
        }
        let save = || {
            let queues = (0..).zip(&*lanes).map(|(index, lane)| {
                let worker = &*lane.as_ref()?.worker;
                Some(VirtioDevice::<Space>::save_queue(device, index, worker).unwrap())
            });
            Saved { queues: queues.collect(), device: VirtioDevice::<Space>::save(device).unwrap() }
        };
        let saved = save();
        assert_eq!(saved, save(), "saving changes nothing");
        saved
    }

    /// Goes on in a device that is built anew, on the same rings and with the same backend.
    fn restore(&mut self, options: &Options, saved: &Saved) -> Result<(), StateError> {
        let backend = self.device.shared.backend.clone();
        let lanes = std::mem::take(&mut self.lanes);
        let lanes: Vec<_> =
            lanes.into_iter().map(|lane| lane.map(|lane| (lane.ring, lane.posted))).collect();

        let options = Options { clock: Arc::new(self.clock.clone()), ..options.clone() };
        self.device = VirtioNet::new(backend, &options).unwrap();
        self.control = self.device.control();
        self.signals = Arc::new(CountingSignals::default());
        let device: &mut dyn VirtioDevice<Space> = &mut self.device;
        device.attach(self.signals.clone());
        device.reset();
        if !device.accept_features(self.features) {
            return Err(StateError::impossible("features"));
        }
        device.restore(&saved.device)?;
        for (lane, (index, state)) in lanes.into_iter().zip((0..).zip(&saved.queues)) {
            let Some(((ring, posted), state)) = lane.zip(state.as_ref()) else {
                self.lanes.push(None);
                continue;
            };
            let queue = ring.queue(self.features);
            let worker = device.restore_queue(index, queue.queue, state)?;
            self.lanes.push(Some(Lane {
                ring,
                worker,
                interrupt: queue.interrupt,
                signals: queue.signals,
                bus_master: queue.bus_master,
                posted,
            }));
        }
        Ok(())
    }

    fn move_to(&mut self, options: &Options) -> Result<(), StateError> {
        let saved = self.save();
        self.restore(options, &saved)?;
        assert_eq!(self.save().queues, saved.queues, "what was restored is what was saved");
        Ok(())
    }

    /// Moves to a device that was built in the same way.
    pub(super) fn move_house(&mut self) {
        let Nic { device, control, .. } = &*self;
        let shared = &device.shared;
        let options = Options {
            queue_pairs: shared.limits.pairs,
            queue_size: device.queue_sizes[0],
            link_up: control.link(),
            ..Options::default()
        };
        let saved = self.save();
        self.restore(&options, &saved).unwrap();
        assert_eq!(self.save(), saved, "what was restored is what was saved");
    }
}

fn impossible(result: Result<(), StateError>) -> bool {
    matches!(result, Err(StateError::Impossible(_)))
}

/// A driver that has set up everything that can be.
fn busy_nic(options: &Options) -> Nic {
    let mut nic = Nic::with(options, ALL);
    let mut command = |class, command, data: &[u8]| {
        assert_eq!(nic.command(class, command, data), ack::OK, "{class} {command}");
    };
    let too_many = vec![GROUP; usize::from(options.max_filter_entries) + 1];
    command(class::RX, rx::ALLUNI, &[0]);
    command(class::RX, rx::NOBCAST, &[1]);
    command(class::MAC, mac::TABLE_SET, &tables(&[PEER, [2; 6]], &too_many));
    command(class::MAC, mac::ADDR_SET, &OWN);
    for id in [4095u16, 7, 64] {
        command(class::VLAN, vlan::ADD, &id.to_le_bytes());
    }
    let offloads = feature::GUEST_CSUM | feature::GUEST_TSO6;
    command(class::GUEST_OFFLOADS, guest_offloads::SET, &offloads.to_le_bytes());
    let scaling = rss(hash_type::ALL, &[2, 0, 1, 2], 1, 3, &KEY);
    command(class::MQ, mq::RSS_CONFIG, &scaling);
    set(&mut nic, notf_coal::RX_SET, 8, 100);
    set(&mut nic, notf_coal::TX_SET, 9, 200);
    assert_eq!(set_queue(&mut nic, 4, 10, 300), ack::OK);
    assert!(nic.control.announce());
    nic
}

/// The same with a frame that waits for buffers.
fn full_nic(options: &Options) -> Nic {
    let mut nic = busy_nic(options);
    nic.port.push(0, &frame_to(OWN, 600));
    nic.run();
    nic
}

/// A state that was stored when its layout was new is still restored.
#[test]
fn the_first_version_is_read() {
    let stored = include_str!("../../tests/fixtures/state/virtio-net-1.json");
    let stored = Saved::from_tree(&serde_json::from_str(stored).unwrap()).unwrap();
    let options = options(3);
    let mut nic = full_nic(&options);
    nic.save();
    nic.restore(&options, &stored).unwrap();
    assert_eq!(config(&nic.device).mac, OWN);
    assert_eq!(get(&mut nic, 4), Some((10, 300)));
    nic.post(1, 1, 2048);
    nic.run();
    assert_eq!(nic.got(1).unwrap().frame, frame_to(OWN, 600));
}

#[test]
#[ignore = "writes the stored state anew"]
fn store_the_first_version() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/state/virtio-net-1.json");
    std::fs::write(path, full_nic(&options(3)).save().tree().to_string() + "\n").unwrap();
}

#[test]
fn what_the_driver_has_set_up_goes_along() {
    let options = options(3);
    let mut nic = busy_nic(&options);
    let saved = nic.save();
    let before = config(&nic.device);
    nic.restore(&options, &saved).unwrap();
    assert_eq!(nic.save(), saved);
    assert_eq!(config(&nic.device), before);
    assert_eq!((before.mac, before.status.get()), (OWN, status::LINK_UP | status::ANNOUNCE));
    assert_eq!(nic.signals.config_changes(), 0);
    // The backend knows of it.
    assert_eq!((nic.port.accepted(), nic.port.active()), (Offloads::CHECKSUM | Offloads::TSO6, 3));
    assert_eq!(get(&mut nic, 0), Some((8, 100)));
    assert_eq!(get(&mut nic, 3), Some((9, 200)));
    assert_eq!(get(&mut nic, 4), Some((10, 300)));
    // And it is in force: a frame without a hash goes to pair 1, if the driver wants it.
    (0..3).for_each(|pair| nic.post(pair, 8, 2048));
    let mut got = |to| {
        nic.port.push(0, &frame_to(to, 60));
        nic.run();
        assert!(nic.got(0).is_none() && nic.got(2).is_none());
        nic.got(1).is_some()
    };
    assert_eq!(
        [OWN, MAC, [2; 6], GROUP, [0xff; 6]].map(&mut got),
        [true, false, true, true, false]
    );
    assert_eq!(nic.command(class::ANNOUNCE, announce::ACK, &[]), ack::OK);
    assert_eq!(config(&nic.device).status.get(), status::LINK_UP);
    // A driver that begins anew finds the device as it was built.
    nic.restart(ALL);
    assert_eq!(config(&nic.device).mac, MAC);
}

/// Queues that never ran and such that were reset, too.
#[test]
fn it_can_move_at_any_stage() {
    let options = options(3);
    let mut nic = Nic::with(&options, ALL);
    assert_eq!(set_pairs(&mut nic, 3), ack::OK);
    nic.stop(2);
    nic.stop(5);
    nic.move_to(&options).unwrap();
    assert_eq!(nic.port.active(), 1);
    // What came in between is not for the driver (5.1.9.5.6.2).
    nic.port.push(1, &frame(60));
    nic.start(2);
    assert_eq!(nic.port.active(), 3);
    nic.post(1, 1, 2048);
    nic.run();
    assert_eq!((nic.got(1), nic.statistics().receive_errors), (None, 1));

    nic.lanes.iter_mut().for_each(|lane| *lane = None);
    VirtioDevice::<Space>::reset(&mut nic.device);
    let saved = nic.save();
    nic.features = 0;
    nic.restore(&options, &saved).unwrap();
    assert_eq!(nic.save(), saved);
}

/// Frames that wait for buffers are received, once and as they were.
#[test]
fn frames_that_wait_go_along() {
    let options = options(3);
    let mut nic = Nic::with(&options, ALL & !(feature::CTRL_RX | feature::CTRL_VLAN));
    // Too long for what there is.
    nic.post(0, 2, 1024);
    let packet = Packet::tcp4(&[7; 5000]);
    nic.port.push_with(0, &packet.unfinished(), packet.cut_offload(1448));
    nic.run();
    assert_eq!((nic.got(0), nic.port.waiting(0)), (None, 0));
    let unmoved = nic.save();
    assert_eq!(
        unmoved.queues[0].as_ref().unwrap().pointer("/inbox/0/segmentation/size"),
        Some(&json!(1448))
    );
    nic.move_to(&options).unwrap();
    nic.post(0, 4, 1024);
    let got = nic.receive().unwrap();
    assert_eq!((got.frame, got.header.header.gso_size.get()), (packet.unfinished(), 1448));

    // For another queue than the one that they came by.
    let scaling = rss(hash_type::ALL, &[1, 2], 2, 3, &KEY);
    assert_eq!(nic.command(class::MQ, mq::RSS_CONFIG, &scaling), ack::OK);
    let packets = [b"one", b"two"].map(|data| Packet::tcp6(data));
    packets.iter().for_each(|packet| nic.port.push(0, &packet.finished()));
    nic.run();
    for _ in 0..2 {
        nic.move_to(&options).unwrap();
        nic.run();
    }
    nic.post(1, 2, 2048);
    nic.post(2, 2, 2048);
    nic.run();
    let got: Vec<Got> = (0..4).filter_map(|at| nic.got(1 + at % 2)).collect();
    let frames: Vec<_> = got.iter().map(|got| got.frame.clone()).collect();
    assert_eq!(frames, packets.each_ref().map(|packet| packet.finished()));
    assert!(got.iter().all(|got| got.header.hash_value.get() != 0));
    assert_eq!(nic.statistics().received_frames, 2);
}

/// Neither lost nor sent twice.
#[test]
fn a_frame_that_the_backend_was_too_busy_for_is_sent() {
    let mut nic = Nic::new(PLAIN);
    nic.port.set_room(0, Some(1));
    let heads = [60, 61, 62].map(|len| nic.queue_frame(0, Header::default(), &frame(len)));
    nic.run();
    assert_eq!(nic.sent(0), [frame(60)]);
    nic.move_to(&options(1)).unwrap();
    nic.run();
    nic.port.set_room(0, None);
    nic.run();
    assert_eq!(nic.sent(0), [frame(61), frame(62)]);
    let used = [(); 4].map(|()| nic.lane(1).ring.used().map(|used| used.0));
    assert_eq!(used, [Some(heads[0]), Some(heads[1]), Some(heads[2]), None]);
}

/// What is held back is told at a pause; without bus mastering, by whoever goes on.
#[test]
fn held_notifications_are_told() {
    for bus_mastering in [true, false] {
        let mut nic = Nic::new(ALL & !(feature::CTRL_RX | feature::CTRL_VLAN));
        set(&mut nic, notf_coal::RX_SET, 10, 100);
        set(&mut nic, notf_coal::TX_SET, 10, 100);
        nic.post(0, 8, 2048);
        nic.port.push(0, &frame(60));
        nic.send(Header::default(), &frame(60));
        assert_eq!((nic.interrupts(0), nic.interrupts(1)), (0, 0));
        if !bus_mastering {
            for lane in nic.lanes.iter().flatten() {
                lane.bus_master.set(false);
            }
        }
        let saved = nic.save();
        let told = usize::from(bus_mastering);
        assert_eq!((nic.interrupts(0), nic.interrupts(1)), (told, told));
        nic.restore(&options(1), &saved).unwrap();
        nic.run();
        assert_eq!((nic.interrupts(0), nic.interrupts(1)), (0, 0));
        nic.clock.advance(Duration::from_micros(100));
        nic.run();
        assert_eq!((nic.interrupts(0), nic.interrupts(1)), (1 - told, 1 - told));
    }
}

/// Whether the link is up goes along, whatever the destination's was, and the driver has nothing to be told.
#[test]
fn the_link_goes_along() {
    for (from, to) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut nic = Nic::with(&Options { link_up: from, ..options(1) }, ALL);
        nic.run();
        nic.move_to(&Options { link_up: to, ..options(1) }).unwrap();
        let shown = config(&nic.device).status.get();
        assert_eq!((shown, nic.control.link()), (u16::from(from), from));
        assert_eq!(nic.signals.config_changes(), 0);
    }
}

/// What came while the link was down is lost wherever it comes up.
#[test]
fn what_is_stale_stays_so() {
    let mut nic = Nic::with(&Options { link_up: false, ..options(1) }, PLAIN);
    nic.post(0, 4, 2048);
    nic.run();
    nic.port.push(0, &frame(60));
    nic.move_to(&options(1)).unwrap();
    nic.control.set_link(true);
    nic.run();
    assert_eq!((nic.got(0), nic.statistics().receive_errors), (None, 1));
    nic.port.push(0, &frame(61));
    assert_eq!(nic.receive().unwrap().frame, frame(61));
}

/// A chain that has broken its queue is nobody's, and the queue stays broken.
#[test]
fn broken_queues_are_carried() {
    let mut nic = Nic::new(ALL);
    nic.post_chain(0, &[11]);
    nic.port.push(0, &frame(60));
    let question = nic.readable(&[0, 0, 1]);
    nic.lane(2).ring.add(&[question]);
    nic.run();
    assert_eq!(nic.resets(), 2);
    nic.move_to(&options(1)).unwrap();
    nic.post(0, 4, 2048);
    nic.send(Header::default(), &frame(60));
    assert_eq!((nic.got(0), nic.resets(), nic.sent(0).len()), (None, 0, 1));
}

#[test]
fn an_adapter_that_was_built_otherwise_refuses() {
    let here = options(3);
    let others: [(&str, Options); 6] = [
        ("address", Options { mac: PEER, ..here.clone() }),
        ("MTU", Options { mtu: Some(1400), ..here.clone() }),
        ("speed", Options { speed: Some(10), ..here.clone() }),
        ("pairs", Options { queue_pairs: 2, ..here.clone() }),
        ("tables", Options { max_filter_entries: 1, ..here.clone() }),
        ("features", Options { features: !feature::CTRL_VLAN, ..here.clone() }),
    ];
    for (what, options) in others {
        let mut nic = busy_nic(&here);
        assert!(impossible(nic.move_to(&options)), "{what}");
    }
}

/// One field that is not what a driver can have brought about is enough: tables that are too long,
/// queues that are not there. CVE-2013-4149, CVE-2013-4150, CVE-2014-0182.
#[test]
fn impossible_states_are_refused() {
    let here = options(3);
    let everything = busy_nic(&here).save();
    // A driver that could set nothing up.
    let nothing = Nic::with(&here, feature::MAC | feature::MTU).save();
    let driver = |field: &str| format!("/device/state/driver/{field}");
    let cases = [
        (true, driver("offloads"), json!(feature::GUEST_CSUM | feature::CSUM)),
        (false, driver("offloads"), json!(feature::GUEST_CSUM)),
        (true, driver("filter/mac"), json!(null)),
        (true, driver("filter/mac"), json!("020000000078")),
        (false, driver("filter/mac"), json!("020000000077")),
        (false, driver("filter/modes/promisc"), json!(true)),
        (false, driver("filter/modes/nobcast"), json!(true)),
        (true, driver("filter/unicast/entries"), json!("0200000000")),
        (true, driver("filter/unicast/entries"), json!("020000000000".repeat(65))),
        (false, driver("filter/unicast/entries"), json!("020000000000")),
        (false, driver("filter/multicast"), json!("overflow")),
        (true, driver("filter/vlans"), json!([4096])),
        (true, driver("filter/vlans"), json!([7, 7])),
        (false, driver("filter/vlans"), json!([7])),
        (true, driver("steering"), json!({ "automatic": { "pairs": 4 } })),
        (true, driver("steering"), json!({ "automatic": { "pairs": 0 } })),
        (false, driver("steering"), json!({ "automatic": { "pairs": 2 } })),
        (true, driver("steering/rss/table/1"), json!(3)),
        (true, driver("steering/rss/table"), json!([0, 1, 2])),
        (true, driver("steering/rss/table"), json!([])),
        (true, driver("steering/rss/table"), json!(vec![0; 256])),
        (true, driver("steering/rss/unclassified"), json!(3)),
        (false, driver("steering"), json!({ "rss": { "table": [0], "unclassified": 0 } })),
        (true, driver("hashing/types"), json!(0)),
        (true, driver("hashing/types"), json!(1 << 9)),
        (true, driver("hashing/key"), json!("")),
        (true, driver("hashing/key"), json!("00".repeat(41))),
        (false, driver("hashing"), json!({ "types": 1, "key": "00" })),
        (true, driver("coalesce/0/queue"), json!(6)),
        (false, driver("coalesce_receive/max_usecs"), json!(1)),
        (
            false,
            driver("coalesce"),
            json!([{ "queue": 0, "coalesce": { "max_packets": 1, "max_usecs": 1 } }]),
        ),
        (true, "/device/state/started".into(), json!([0, 1, 2, 3, 4, 5, 6, 7])),
        (true, "/device/state/started".into(), json!([0, 0, 1, 2, 3, 4, 5, 6])),
        (true, "/device/state/started".into(), json!([0, 1, 2, 3, 4, 5])),
        (false, "/device/state/started".into(), json!([0, 1, 2])),
        (true, "/device/state/mac".into(), json!("525400123457")),
        (true, "/queues/0/stale".into(), json!(4097)),
        (true, "/queues/0/queue/in_flight".into(), json!([1])),
        (true, "/queues/1/queue/in_flight".into(), json!([1])),
        (true, "/queues/6/queue/in_flight".into(), json!([1])),
    ];
    for (everything_set, path, value) in cases {
        let saved = if everything_set { &everything } else { &nothing };
        let mut tree = saved.tree();
        let (parent, name) = path.rsplit_once('/').unwrap();
        match tree.pointer_mut(parent).unwrap() {
            Value::Array(values) => values[name.parse::<usize>().unwrap()] = value.clone(),
            Value::Object(fields) => drop(fields.insert(name.into(), value.clone())),
            other => panic!("{path}: {other}"),
        }
        let features = if everything_set { ALL } else { feature::MAC | feature::MTU };
        let mut nic = Nic::with(&here, features);
        let result = nic.restore(&here, &Saved::from_tree(&tree).unwrap());
        assert!(impossible(result), "{path}: {value}");
        // And the adapter is as it was built.
        nic.lanes.clear();
        VirtioDevice::<Space>::reset(&mut nic.device);
        assert_eq!((config(&nic.device).mac, config(&nic.device).status.get()), (MAC, 1), "{path}");
    }
}

/// Frames that wait are looked at, for more of them than any inbox holds, and for what cannot arrive.
#[test]
fn impossible_frames_are_refused() {
    let frame = |bytes: &str, report: u16, value: u32| json!({ "bytes": bytes, "checksum_valid": false, "hash": value, "hash_report": report });
    let short = "00".repeat(13);
    let fit = "00".repeat(14);
    let long = "00".repeat(65_558);
    let longest = "00".repeat(65_557);
    let cases = [
        (vec![frame(&fit, 0, 0); 256], true),
        (vec![frame(&fit, 0, 0); 257], false),
        (vec![frame(&short, 0, 0)], false),
        (vec![frame(&long, 0, 0)], false),
        (vec![frame(&longest, 0, 0); 3], true),
        (vec![frame(&longest, 0, 0); 4], false),
        (vec![frame(&fit, 9, 0)], true),
        (vec![frame(&fit, 10, 0)], false),
        (vec![frame(&fit, 0, 1)], false),
    ];
    for (inbox, possible) in cases {
        let mut nic = Nic::new(ALL);
        let mut saved = nic.save();
        let queue = saved.queues[0].as_mut().unwrap().as_object_mut().unwrap();
        queue.insert("inbox".into(), json!(inbox));
        let result = nic.restore(&options(1), &saved);
        assert_eq!(result.is_ok(), possible, "{result:?}");
        if possible {
            nic.run();
            let waiting = nic.save().queues[0].as_ref().unwrap().get("inbox").cloned();
            assert_eq!(waiting, Some(json!(inbox)));
        }
    }
}

/// A state that has been tampered with is refused, or is one that the device works with, and that can
/// be saved and restored in turn.
#[test]
fn tampered_states_do_no_harm() {
    let here = options(3);
    let saved = full_nic(&here).save();
    assert!(saved.queues[2].as_ref().unwrap().get("inbox").is_some());
    let mut taken = 0;
    for seed in 0..1500 {
        let mut tree = saved.tree();
        mutate(&mut tree, seed);
        if seed % 4 == 0 {
            mutate(&mut tree, seed + 1_000_000);
        }
        let Some(tampered) = Saved::from_tree(&tree) else { continue };
        let mut nic = Nic::with(&here, ALL);
        if nic.restore(&here, &tampered).is_err() {
            continue;
        }
        taken += 1;
        nic.lanes.resize_with(7, || None);
        nic.run();
        nic.move_house();
        (0..3).filter(|pair| nic.lanes[2 * pair].is_some()).for_each(|pair| {
            nic.port.push(u16::try_from(pair).unwrap(), &frame_to(OWN, 60));
        });
        nic.clock.advance(Duration::from_millis(30));
        nic.run();
        nic.move_house();
    }
    assert!(taken > 20, "{taken} of them were possible");
}
