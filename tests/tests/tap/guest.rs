//! The guest: a stack on a card, and the loop that runs both.

use std::time::Duration;

use paraslot_drivers::{Nic, Platform};
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::AnySocket;
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

use super::card::{Card, Tally};
use super::machine::{GUEST, Host, MAC};

/// How long anything may take before the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How an application got on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// It waits for the network.
    Waits,
    /// It did something, which the stack has to see to.
    Did,
    /// It is through.
    Done,
}

pub(crate) struct Guest<'p, N> {
    card: Card<'p, N>,
    stack: Interface,
    sockets: SocketSet<'static>,
    host: &'p Host,
    start: std::time::Instant,
}

impl<'p, N: Nic> Guest<'p, N> {
    /// A stack on `nic`, which drives the adapter of `host`.
    pub(crate) fn new(host: &'p Host, nic: N, interrupts: bool) -> Self {
        let mut card = Card::new(&host.machine, nic, interrupts);
        let start = std::time::Instant::now();
        while !card.link_up() {
            assert!(start.elapsed() < PATIENCE, "no link");
            host.machine.relax();
        }
        assert_eq!(card.address(), MAC);
        let mut config = Config::new(EthernetAddress(MAC).into());
        config.random_seed = 1;
        let mut stack = Interface::new(config, &mut card, Instant::ZERO);
        stack.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(GUEST.into(), 24)).expect("room for one");
        });
        Self { card, stack, sockets: SocketSet::new(Vec::new()), host, start }
    }

    /// Adds a socket.
    pub(crate) fn add<T: AnySocket<'static>>(&mut self, socket: T) -> SocketHandle {
        self.sockets.add(socket)
    }

    /// A socket, and the stack.
    pub(crate) fn socket<T: AnySocket<'static>>(
        &mut self,
        handle: SocketHandle,
    ) -> (&mut T, &mut Interface) {
        (self.sockets.get_mut(handle), &mut self.stack)
    }

    pub(crate) fn tally(&self) -> Tally {
        self.card.tally
    }

    fn now(&self) -> Instant {
        let micros = self.start.elapsed().as_micros();
        Instant::from_micros(i64::try_from(micros).expect("not that long"))
    }

    /// Runs the stack and an application, which does `what`, until that is through.
    pub(crate) fn run(
        &mut self,
        what: &str,
        mut application: impl FnMut(&mut SocketSet<'static>) -> Step,
    ) {
        let start = std::time::Instant::now();
        loop {
            if start.elapsed() > PATIENCE {
                let seen = (self.host.statistics)();
                panic!("{what}: stuck: {seen:?} {:?}", self.card);
            }
            self.card.look();
            self.stack.poll(self.now(), &mut self.card, &mut self.sockets);
            self.card.kick();
            match application(&mut self.sockets) {
                Step::Waits if !self.card.has_work() => self.card.wait(),
                Step::Waits | Step::Did => {}
                Step::Done => break,
            }
        }
        // What the application did last.
        self.stack.poll(self.now(), &mut self.card, &mut self.sockets);
        self.card.kick();
    }
}
