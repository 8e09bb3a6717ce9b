//! What network adapters are to a test that does not care which it is.

use paraslot_backends::net::NetStatistics;
use paraslot_spec::e1000::transmit;
use paraslot_tests::bench::Bench;
use paraslot_tests::port::Port;

use crate::e1000::{self, DESCRIPTORS, Ether};
use crate::net::{self, Net, RECEIVE, Setting, TRANSMIT};

/// A guest's adapter, up and running.
pub(crate) trait Adapter: Sized {
    /// Its name in messages.
    const NAME: &str;
    /// Bytes of guest memory.
    const MEMORY: usize;
    /// Short frames are padded.
    const PADS: bool;

    /// In front of `port`, with buffers to receive into.
    fn make(port: Port) -> Self;
    fn port(&self) -> &Port;
    fn bench(&mut self) -> &mut Bench;
    fn statistics(&self) -> NetStatistics;
    fn set_link(&self, up: bool);
    /// Asks for a frame to be sent, at most 60 at a time, and rings the doorbell.
    fn ask(&mut self, frame: &[u8]) -> u32;
    /// What was asked for and is done with since the last call, in order.
    fn reclaim(&mut self) -> Vec<u32>;
    /// The next frame that came; its buffer is given back.
    fn take(&mut self) -> Option<Vec<u8>>;
    /// A frame goes out and one comes in.
    fn works(&mut self);
    /// The workers, to their rest.
    fn run(&mut self);
}

impl Adapter for Net {
    const NAME: &str = "virtio-net";
    const MEMORY: usize = net::MEMORY;
    const PADS: bool = false;

    fn make(port: Port) -> Self {
        let mut this = Self::on(port, Setting::default());
        this.supply(RECEIVE, 32, 1600);
        this.notify(RECEIVE);
        Self::run(&this);
        this
    }

    fn port(&self) -> &Port {
        &self.port
    }

    fn bench(&mut self) -> &mut Bench {
        &mut self.virtio.bench
    }

    fn statistics(&self) -> NetStatistics {
        self.control.statistics()
    }

    fn set_link(&self, up: bool) {
        self.control.set_link(up);
    }

    fn ask(&mut self, frame: &[u8]) -> u32 {
        let head = self.send(frame);
        self.notify(TRANSMIT);
        head.into()
    }

    fn reclaim(&mut self) -> Vec<u32> {
        let ring = self.ring_of(TRANSMIT);
        let mut done = Vec::new();
        while let Some((head, written)) = ring.used() {
            assert_eq!(written, 0);
            done.push(head.into());
        }
        done
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let arrived = self.arrived()?;
        self.supply(RECEIVE, arrived.chains.len() as u64, 1600);
        self.notify(RECEIVE);
        Some(arrived.bytes)
    }

    fn works(&mut self) {
        Self::works(self);
    }

    fn run(&mut self) {
        Self::run(self);
    }
}

impl Adapter for Ether {
    const NAME: &str = "e1000";
    const MEMORY: usize = e1000::MEMORY;
    const PADS: bool = true;

    fn make(port: Port) -> Self {
        Self::on(port)
    }

    fn port(&self) -> &Port {
        &self.port
    }

    fn bench(&mut self) -> &mut Bench {
        &mut self.bench
    }

    fn statistics(&self) -> NetStatistics {
        self.control.statistics()
    }

    fn set_link(&self, up: bool) {
        self.control.set_link(up);
    }

    fn ask(&mut self, frame: &[u8]) -> u32 {
        let index = self.send(frame);
        self.kick();
        index
    }

    fn reclaim(&mut self) -> Vec<u32> {
        let mut done = Vec::new();
        while self.clean != self.tail && self.status(self.clean) == transmit::DD {
            done.push(self.clean);
            self.clean = (self.clean + 1) % DESCRIPTORS;
        }
        done
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        let mut bytes = self.arrived()?.bytes;
        // As the wire pads them.
        assert!(bytes.len() >= 60);
        while bytes.len() > 14 && bytes.last() == Some(&0) {
            bytes.pop();
        }
        Some(bytes)
    }

    fn works(&mut self) {
        Self::works(self);
    }

    fn run(&mut self) {
        Self::run(self);
        // The cable, when it is plugged in, makes itself felt after a while.
        while let Some(next) = self.bench.clock.next() {
            self.bench.clock.advance(next);
            Self::run(self);
        }
    }
}
