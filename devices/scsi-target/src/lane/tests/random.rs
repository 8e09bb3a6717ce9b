//! Whatever comes in whatever order: each command ends once, each function ends, and not before its
//! commands have.

use std::collections::BTreeMap;

use paraslot_backends::block::testing::{Gate, GatedBackend, GuestPages};
use paraslot_device::dma::Direction;
use proptest::prelude::*;

use super::rig::{HERE, bus, image, round, unit};
use crate::command::{Completion, Outcome};
use crate::lane::Lane;
use crate::plan::{Compare, Plan};
use crate::{Bus, Function, Response, Ticket};

/// Bytes of guest memory that each command has to itself.
const ROOM: u64 = 2048;
const DEPTH: u32 = 6;

#[derive(Clone, Copy, Debug)]
enum Action {
    /// On this lane, a plan of this kind.
    Submit(usize, u8),
    Round(usize),
    Release(usize),
    Deafen(bool),
    /// Ordered on this bus.
    Manage(usize, u8),
    /// Its unit goes, and comes back.
    Swap(usize),
    /// It is dropped, and another is opened.
    Replace(usize),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        8 => (0..3_usize, 0..8_u8).prop_map(|(lane, kind)| Action::Submit(lane, kind)),
        6 => (0..3_usize).prop_map(Action::Round),
        6 => (1..4_usize).prop_map(Action::Release),
        1 => any::<bool>().prop_map(Action::Deafen),
        3 => (0..2_usize, 0..8_u8).prop_map(|(bus, kind)| Action::Manage(bus, kind)),
        1 => (0..2_usize).prop_map(Action::Swap),
        1 => (0..3_usize).prop_map(Action::Replace),
    ]
}

/// A command, and what is known of it.
struct Known {
    lane: usize,
    ended: bool,
    /// What its memory held when it was reported as ended by somebody else.
    last: Option<Vec<u8>>,
}

struct World {
    gate: Gate,
    guest: GuestPages,
    /// Lanes 0 and 1 are on the first, lane 2 is on the second.
    buses: [Bus; 2],
    lanes: [Lane; 3],
    commands: BTreeMap<u64, Known>,
    /// With the commands that must end before them.
    tickets: Vec<(Ticket, Vec<u64>)>,
}

fn bus_of(lane: usize) -> usize {
    lane / 2
}

impl World {
    fn new() -> Self {
        let gated = GatedBackend::new(image());
        let gate = gated.gate();
        let unit = unit(gated);
        let buses = ["one", "two"].map(bus);
        for bus in &buses {
            bus.attach(HERE, unit.clone()).unwrap();
        }
        let lanes = [0, 1, 2].map(|lane| buses[bus_of(lane)].open_lane(DEPTH).unwrap());
        Self {
            gate,
            guest: GuestPages::new(1 << 20),
            buses,
            lanes,
            commands: BTreeMap::new(),
            tickets: Vec::new(),
        }
    }

    fn submit(&mut self, lane: usize, kind: u8) {
        let token = self.commands.len() as u64;
        let at = token * ROOM;
        if self.lanes[lane].in_flight() >= DEPTH as usize {
            return;
        }
        self.guest.write(at, &[0x40; 2048]);
        let (offset, len) = (token % 4 * 512, 512);
        let direction = if kind == 0 { Direction::FromDevice } else { Direction::ToDevice };
        let data = self.guest.buffers(&[(at, 1024)], direction);
        let plan = match kind {
            0 => Plan::Read { offset, len: 1024 },
            1 => Plan::Write { offset, len: 1024, fua: false },
            2 => Plan::Verify { offset, len: 512 * 1024, compare: Compare::Nothing },
            3 => Plan::WriteSame { offset, len: 600 * 1024, fua: true },
            4 => {
                let ranges = (0..12).map(|number| (number * 512, 512)).collect();
                Plan::Unmap { ranges, zero: token.is_multiple_of(2) }
            }
            5 | 6 => Plan::CompareAndWrite { offset, len, fua: false },
            _ => {
                let nexuses = self.buses[bus_of(lane)].unit(HERE).unwrap().nexuses();
                Plan::Abort(nexuses)
            }
        };
        self.lanes[lane].begin_at(HERE, token, token % 4, data, plan);
        self.commands.insert(token, Known { lane, ended: false, last: None });
    }

    fn manage(&mut self, by: usize, kind: u8) {
        let tag = u64::from(kind % 4);
        let function = match kind {
            0 | 1 => Function::AbortTask { address: HERE, tag },
            2 => Function::AbortTaskSet(HERE),
            3 => Function::ClearTaskSet(HERE),
            4 => Function::LogicalUnitReset(HERE),
            5 => Function::NexusReset { target: 0 },
            6 => Function::ResetAll,
            _ => Function::QueryTaskSet(HERE),
        };
        let everyone = matches!(
            function,
            Function::ClearTaskSet(_) | Function::LogicalUnitReset(_) | Function::ResetAll
        );
        let concerned = self.pending(|token, lane| match function {
            Function::AbortTask { tag, .. } => token % 4 == tag && bus_of(lane) == by,
            Function::QueryTaskSet(_) => false,
            _ => everyone || bus_of(lane) == by,
        });
        self.tickets.push((self.buses[by].manage(function, None), concerned));
    }

    fn pending(&self, concerned: impl Fn(u64, usize) -> bool) -> Vec<u64> {
        let commands = self.commands.iter();
        commands
            .filter(|(token, known)| !known.ended && concerned(**token, known.lane))
            .map(|(token, _)| *token)
            .collect()
    }

    fn swap(&mut self, bus: usize) {
        let concerned = self.pending(|_, lane| bus_of(lane) == bus);
        let unit = self.buses[bus].unit(HERE).unwrap();
        let ticket = self.buses[bus].detach(HERE).unwrap();
        self.buses[bus].attach(HERE, unit).unwrap();
        self.tickets.push((ticket, concerned));
    }

    fn replace(&mut self, lane: usize) {
        self.lanes[lane] = self.buses[bus_of(lane)].open_lane(DEPTH).unwrap();
        for known in self.commands.values_mut().filter(|known| known.lane == lane) {
            known.ended = true;
        }
    }

    fn round(&mut self, lane: usize) {
        for completion in round(&mut self.lanes[lane]) {
            self.note(lane, completion);
        }
    }

    fn note(&mut self, lane: usize, completion: Completion) {
        let token = completion.token;
        let known = self.commands.get_mut(&token).expect("a command of ours");
        assert_eq!(known.lane, lane);
        assert!(!known.ended, "command {token} ended twice");
        known.ended = true;
        if matches!(completion.outcome, Outcome::Aborted | Outcome::Reset) {
            known.last = Some(self.guest.read(token * ROOM, 2048));
        }
    }

    fn check(&self) {
        for (ticket, concerned) in &self.tickets {
            if ticket.response().is_some() {
                let ended = |token| self.commands.get(token).is_some_and(|known| known.ended);
                assert!(concerned.iter().all(ended), "a response before its commands");
            }
        }
        for (token, known) in &self.commands {
            if let Some(last) = &known.last {
                let now = self.guest.read(token * ROOM, 2048);
                assert!(now == *last, "written after the report of {token}");
            }
        }
    }

    fn finish(&mut self) {
        self.gate.open();
        for _ in 0..1000 {
            (0..3).for_each(|lane| self.round(lane));
            if self.lanes.iter_mut().all(|lane| !lane.prepare_to_wait() && lane.in_flight() == 0) {
                break;
            }
        }
        self.check();
        assert!(self.lanes.iter().all(|lane| lane.in_flight() == 0), "something never ends");
        assert!(self.commands.values().all(|known| known.ended), "something was lost");
        for (ticket, _) in &self.tickets {
            let response = ticket.response().expect("a function that never ends");
            assert!(matches!(response, Response::Complete | Response::Succeeded));
        }
        assert_eq!(self.gate.held(), 0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // QEMU 35e4e96c4d, 6910f04aa6, be2c42b97c: ends that meet.
    #[test]
    fn everything_ends_once(actions in prop::collection::vec(action(), 1..120)) {
        let mut world = World::new();
        for action in actions {
            match action {
                Action::Submit(lane, kind) => world.submit(lane, kind),
                Action::Round(lane) => world.round(lane),
                Action::Release(count) => world.gate.release(count),
                Action::Deafen(deaf) => world.gate.deafen(deaf),
                Action::Manage(bus, kind) => world.manage(bus, kind),
                Action::Swap(bus) => world.swap(bus),
                Action::Replace(lane) => world.replace(lane),
            }
            world.check();
        }
        world.finish();
    }
}
