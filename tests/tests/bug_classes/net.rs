//! A driver of virtio-net behind the PCI transport, on the bench.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use paraslot_spec::virtio;
use paraslot_spec::virtio::pci::cfg_type;
use paraslot_spec::virtio_net::{ControlHeader, HashHeader, Header, feature};
use paraslot_tests::bench::Bench;
use paraslot_tests::port::Port;
use paraslot_virtio::testing::{Buffer, DriverRing};
use paraslot_virtio_net::{Control, Options, VirtioNet};
use paraslot_virtio_pci::VirtioPci;
use zerocopy::{FromBytes, IntoBytes};

use crate::virtio::{Space, Virtio};

/// Bytes of guest memory.
pub(crate) const MEMORY: usize = 1 << 20;
/// Where the rings of queue `n` are: at this, and `n` times [`RING_LEN`].
pub(crate) const RINGS: u64 = 0x1000;
pub(crate) const RING_LEN: u64 = 0x2000;
/// Frames to be sent, commands and indirect tables: one place for each.
pub(crate) const PLACES: u64 = 0x4_0000;
pub(crate) const PLACE_LEN: u64 = 0x1000;
/// Buffers to receive into, and how many there are.
pub(crate) const BUFFERS: u64 = 0x8_0000;
pub(crate) const BUFFER_LEN: u64 = 0x1000;
pub(crate) const MOST_BUFFERS: u64 = 128;

/// The receive and the transmit queue of the first pair.
pub(crate) const RECEIVE: u16 = 0;
pub(crate) const TRANSMIT: u16 = 1;

/// What the device is made of, and what its driver does not want of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    pub(crate) pairs: u16,
    pub(crate) queue_size: u16,
    /// Features that are not negotiated.
    pub(crate) without: u64,
}

impl Default for Setting {
    /// One pair of queues of 64, and everything but EVENT_IDX, so that anything may interrupt.
    fn default() -> Self {
        Self { pairs: 1, queue_size: 64, without: virtio::feature::EVENT_IDX }
    }
}

/// A frame that the device has given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) header: HashHeader,
    pub(crate) bytes: Vec<u8>,
    /// Chains that it fills: head, and bytes said to be written.
    pub(crate) chains: Vec<(u16, u32)>,
}

/// A guest with all queues set up.
pub(crate) struct Net {
    pub(crate) virtio: Virtio,
    pub(crate) port: Port,
    pub(crate) control: Control,
    pub(crate) rings: Vec<DriverRing<Space>>,
    pub(crate) features: u64,
    pub(crate) setting: Setting,
    place: u64,
    buffer: u64,
    /// Chains that are available to receive, by queue and head.
    supplied: Vec<(u16, u16, Vec<Buffer>)>,
}

impl Deref for Net {
    type Target = Virtio;

    fn deref(&self) -> &Virtio {
        &self.virtio
    }
}

impl DerefMut for Net {
    fn deref_mut(&mut self) -> &mut Virtio {
        &mut self.virtio
    }
}

impl Net {
    pub(crate) fn new(setting: Setting) -> Self {
        Self::on(Port::new(setting.pairs), setting)
    }

    /// With a port of one's own.
    pub(crate) fn on(port: Port, setting: Setting) -> Self {
        let mut control = None;
        let bench = Bench::timed(MEMORY, |host, clock| {
            let options = Options {
                queue_pairs: setting.pairs,
                queue_size: setting.queue_size,
                clock: Arc::new(clock),
                ..Options::default()
            };
            let device = VirtioNet::new(Arc::new(port.clone()), &options).expect("it can be");
            control = Some(device.control());
            VirtioPci::new(device, host).expect("it fits")
        });
        let mut this = Self {
            virtio: Virtio::new(bench),
            port,
            control: control.expect("a device was made"),
            rings: Vec::new(),
            features: 0,
            setting,
            place: 0,
            buffer: 0,
            supplied: Vec::new(),
        };
        this.start();
        this
    }

    /// Brings the device up with all queues, and empty rings.
    pub(crate) fn start(&mut self) {
        self.bench.enable();
        self.agree();
        for queue in 0..self.queues() {
            self.enable(queue);
        }
        self.set_status(0xf);
        assert_eq!(self.status().bits(), 0xf);
        self.run();
    }

    /// Negotiates what the setting says.
    pub(crate) fn agree(&mut self) {
        let without = self.setting.without;
        self.features = self.virtio.agree(|offered| offered & !without);
        self.rings = (0..self.queues()).map(|queue| self.new_ring(queue)).collect();
        self.supplied.clear();
    }

    /// Sets up a queue as its ring is.
    pub(crate) fn enable(&mut self, queue: u16) {
        let ring = &self.rings[usize::from(queue)];
        let places = [ring.descriptor_table(), ring.avail_ring(), ring.used_ring()];
        self.virtio.enable_queue(queue, self.setting.queue_size, places);
    }

    /// A queue starts anew, with an empty ring.
    pub(crate) fn start_anew(&mut self, queue: u16) {
        self.rings[usize::from(queue)] = self.new_ring(queue);
        self.supplied.retain(|(of, ..)| *of != queue);
        self.enable(queue);
    }

    fn new_ring(&self, queue: u16) -> DriverRing<Space> {
        self.virtio.ring(RINGS + u64::from(queue) * RING_LEN, self.setting.queue_size)
    }

    pub(crate) fn has(&self, feature: u64) -> bool {
        self.features & feature != 0
    }

    /// Queues in all.
    pub(crate) fn queues(&self) -> u16 {
        self.control_queue() + u16::from(self.has(feature::CTRL_VQ))
    }

    pub(crate) fn control_queue(&self) -> u16 {
        if self.has(feature::MQ | feature::RSS) { 2 * self.setting.pairs } else { 2 }
    }

    pub(crate) fn header_len(&self) -> u32 {
        if self.has(feature::HASH_REPORT) { 20 } else { 12 }
    }

    pub(crate) fn run(&self) {
        assert!(self.bench.executor.run(1000), "the workers do not come to rest");
    }

    pub(crate) fn ring_of(&mut self, queue: u16) -> &mut DriverRing<Space> {
        &mut self.rings[usize::from(queue)]
    }

    /// The next place for something small. There are 64 of them.
    pub(crate) fn place(&mut self) -> u64 {
        self.place += 1;
        PLACES + self.place % 64 * PLACE_LEN
    }

    /// Makes a chain available to receive into.
    pub(crate) fn supply_chain(&mut self, queue: u16, chain: &[Buffer]) -> u16 {
        let head = self.ring_of(queue).add(chain);
        self.supplied.push((queue, head, chain.to_vec()));
        head
    }

    /// Makes `count` buffers of `len` bytes available.
    pub(crate) fn supply(&mut self, queue: u16, count: u64, len: u32) {
        for _ in 0..count {
            let address = BUFFERS + self.buffer % MOST_BUFFERS * BUFFER_LEN;
            self.buffer += 1;
            self.supply_chain(queue, &[Buffer::writable(address, len)]);
        }
    }

    /// Makes a frame available to be sent, with its header at the start of the same buffer.
    pub(crate) fn send_on(&mut self, queue: u16, header: Header, frame: &[u8]) -> u16 {
        let place = self.place();
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(usize::try_from(self.header_len()).expect("small"), 0);
        bytes.extend_from_slice(frame);
        self.bench.poke(place, &bytes);
        let len = u32::try_from(bytes.len()).expect("small");
        self.ring_of(queue).add(&[Buffer::readable(place, len)])
    }

    pub(crate) fn send(&mut self, frame: &[u8]) -> u16 {
        self.send_on(TRANSMIT, Header::default(), frame)
    }

    /// Carries out a command; returns how it went.
    pub(crate) fn command(&mut self, class: u8, command: u8, data: &[u8]) -> u8 {
        let place = self.place();
        let mut bytes = ControlHeader::new(class, command).as_bytes().to_vec();
        bytes.extend_from_slice(data);
        self.bench.poke(place, &bytes);
        self.bench.poke(place + PLACE_LEN / 2, &[0xee]);
        let len = u32::try_from(bytes.len()).expect("small");
        let queue = self.control_queue();
        let answer = Buffer::writable(place + PLACE_LEN / 2, 1);
        let head = self.ring_of(queue).add(&[Buffer::readable(place, len), answer]);
        self.notify(queue);
        self.run();
        assert_eq!(self.ring_of(queue).used(), Some((head, 1)));
        let mut answer = [0];
        self.bench.peek(place + PLACE_LEN / 2, &mut answer);
        answer[0]
    }

    /// The next frame that a queue was given, if there is one.
    pub(crate) fn arrived_on(&mut self, queue: u16) -> Option<Arrived> {
        let header_len = usize::try_from(self.header_len()).expect("small");
        let (mut chains, mut bytes) = (Vec::new(), Vec::new());
        let mut buffers = 1;
        while chains.len() < buffers {
            let (head, written) = self.ring_of(queue).used()?;
            let found = self.supplied.iter().position(|(of, at, _)| (*of, *at) == (queue, head));
            let (_, _, chain) = self.supplied.remove(found.expect("it was available"));
            let mut left = usize::try_from(written).expect("small");
            for buffer in chain {
                let len = left.min(usize::try_from(buffer.len).expect("small"));
                let mut part = vec![0; len];
                self.bench.peek(buffer.address, &mut part);
                bytes.append(&mut part);
                left -= len;
            }
            assert_eq!(left, 0, "more than there was room for");
            chains.push((head, written));
            if chains.len() == 1 && self.has(feature::MRG_RXBUF) {
                let header = Header::read_from_prefix(&bytes).expect("a header").0;
                buffers = usize::from(header.num_buffers.get());
            }
        }
        let mut header = [0; size_of::<HashHeader>()];
        header[..header_len].copy_from_slice(&bytes[..header_len]);
        let header = HashHeader::read_from_bytes(&header).expect("its size");
        bytes.drain(..header_len);
        Some(Arrived { header, bytes, chains })
    }

    pub(crate) fn arrived(&mut self) -> Option<Arrived> {
        self.arrived_on(RECEIVE)
    }

    /// The configuration.
    pub(crate) fn config(&mut self) -> [u8; 12] {
        let (bar, offset) = self.place_of(cfg_type::DEVICE);
        let mut config = [0; 12];
        self.bench.device.bar_read(bar, offset, &mut config);
        config
    }

    /// The device works: a frame goes out, and one comes in, on the first pair.
    pub(crate) fn works(&mut self) {
        self.port.set_fate(paraslot_tests::port::Fate::Through);
        self.run();
        while self.rings[usize::from(TRANSMIT)].used().is_some() {}
        while self.arrived().is_some() {}
        self.port.record(true);
        self.port.take_sent();
        let out = frame(200);
        let head = self.send(&out);
        self.notify(TRANSMIT);
        self.run();
        assert_eq!(self.ring_of(TRANSMIT).used(), Some((head, 0)), "nothing is sent");
        let sent = self.port.take_sent();
        assert!(sent.len() == 1 && sent[0].bytes == out, "something else is sent");
        if self.supplied.iter().filter(|(queue, ..)| *queue == RECEIVE).count() < 2 {
            self.supply(RECEIVE, 4, 1600);
            self.notify(RECEIVE);
        }
        let frame = frame(300);
        self.port.deliver(&frame);
        self.run();
        let arrived = self.arrived().expect("nothing is received");
        assert!(arrived.bytes == frame, "something else is received");
    }

    /// What is available to receive into on a queue, or has come: heads and buffers.
    pub(crate) fn supplied_chains(&self, queue: u16) -> Vec<(u16, Vec<Buffer>)> {
        let chains = self.supplied.iter().filter(|(of, ..)| *of == queue);
        chains.map(|(_, head, chain)| (*head, chain.clone())).collect()
    }
}

/// A broadcast of `len` bytes, each of which says where it is; different for each length.
pub(crate) fn frame(len: usize) -> Vec<u8> {
    let mut frame: Vec<u8> =
        (0..len).map(|at| paraslot_tests::frames::payload_byte(at + 7 * len)).collect();
    let header = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 2, 0x88, 0xb5];
    for (byte, of_header) in frame.iter_mut().zip(header) {
        *byte = of_header;
    }
    frame
}
