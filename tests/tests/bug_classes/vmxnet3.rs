//! A driver of vmxnet3, on the bench.

use std::sync::Arc;

use paraslot_backends::net::NetStatistics;
use paraslot_spec::pci::{capability, msix};
use paraslot_spec::vmxnet3::registers::{
    CMD, DSAH, DSAL, IMR, RXPROD, RXPROD2, STRIDE, TXPROD, UVRS, VRRS,
};
use paraslot_spec::vmxnet3::{
    COMP_GEN, COMP_IDX, DriverShared, Features, MSIX_BAR, PT_BAR, REV1_MAGIC, REVISION_3,
    RxCompDesc, RxDesc, RxQueueDesc, TxCompDesc, TxDesc, TxQueueDesc, UPT_VERSION_1, VD_BAR,
    command, rcd, rxd, txd,
};
use paraslot_tests::bench::Bench;
use paraslot_tests::port::{Fate, Port};
use paraslot_vmxnet3::{Control, Options, Vmxnet3};
use zerocopy::{FromBytes, IntoBytes};

use crate::net::frame;
use crate::nic::Adapter;
use crate::support::find_capability;

/// Bytes of guest memory.
pub(crate) const MEMORY: usize = 1 << 20;
pub(crate) const SHARED: u64 = 0x1000;
/// The descriptors of the transmit queue, and of the receive queue behind it.
pub(crate) const QUEUES: u64 = 0x2000;
/// The rings: to be sent, sent, both to receive into, received.
pub(crate) const SEND_RING: u64 = 0x4000;
pub(crate) const SENT_RING: u64 = 0x5000;
pub(crate) const RECEIVE_RINGS: [u64; 2] = [0x6000, 0x7000];
pub(crate) const RECEIVED_RING: u64 = 0x8000;
/// Descriptors of each ring, and half as many as there are of what was received.
pub(crate) const DESCRIPTORS: u32 = 64;
pub(crate) const RING_LEN: u64 = 16 * DESCRIPTORS as u64;
/// Packets to be sent: one place for each of as many as there are descriptors.
pub(crate) const PLACES: u64 = 0x4_0000;
pub(crate) const PLACE_LEN: u64 = 0x1000;
/// Receive buffers, of as many bytes, those of the second ring behind those of the first.
pub(crate) const BUFFERS: u64 = 0x8_0000;
pub(crate) const BUFFER_LEN: u64 = 0x800;
/// Interrupts: of sending, receiving and events.
const INTERRUPTS: u8 = 3;

/// What the flags of a packet's last descriptor have: the end, and a wish for a completion.
pub(crate) const LAST: u32 = txd::EOP | txd::CQ;

/// A ring as a driver keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Side {
    base: u64,
    size: u32,
    pub(crate) next: u32,
    pub(crate) lap: bool,
}

impl Side {
    pub(crate) fn new(base: u64, size: u32) -> Self {
        Self { base, size, next: 0, lap: true }
    }

    pub(crate) fn at(&self) -> u64 {
        self.base + 16 * u64::from(self.next)
    }

    pub(crate) fn step(&mut self) {
        self.next = (self.next + 1) % self.size;
        self.lap ^= self.next == 0;
    }
}

/// A packet that was received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrived {
    pub(crate) bytes: Vec<u8>,
    pub(crate) completions: Vec<RxCompDesc>,
}

/// What the driver asks for.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    pub(crate) shared: DriverShared,
    pub(crate) tx: TxQueueDesc,
    pub(crate) rx: RxQueueDesc,
}

impl Default for Setup {
    fn default() -> Self {
        let mut shared = DriverShared::default();
        shared.magic = REV1_MAGIC.into();
        let read = &mut shared.dev_read;
        read.misc.driver_info.vmxnet3_rev_spt = 1.into();
        read.misc.driver_info.upt_ver_spt = UPT_VERSION_1.into();
        read.misc.upt_features = Features::RXCSUM.bits().into();
        read.misc.queue_desc_pa = QUEUES.into();
        read.misc.queue_desc_len = 512.into();
        read.misc.mtu = 1500.into();
        read.misc.max_num_rx_sg = 18.into();
        (read.misc.num_tx_queues, read.misc.num_rx_queues) = (1, 1);
        read.intr_conf.num_intrs = INTERRUPTS;
        read.intr_conf.event_intr_idx = 2;
        // Everything: promiscuous, and all groups.
        read.rx_filter_conf.rx_mode = 0x1f.into();
        let mut tx = TxQueueDesc::default();
        tx.conf.tx_ring_base_pa = SEND_RING.into();
        tx.conf.comp_ring_base_pa = SENT_RING.into();
        tx.conf.tx_ring_size = DESCRIPTORS.into();
        tx.conf.comp_ring_size = DESCRIPTORS.into();
        let mut rx = RxQueueDesc::default();
        rx.conf.rx_ring_base_pa = RECEIVE_RINGS.map(Into::into);
        rx.conf.comp_ring_base_pa = RECEIVED_RING.into();
        rx.conf.rx_ring_size = [DESCRIPTORS.into(); 2];
        rx.conf.comp_ring_size = (2 * DESCRIPTORS).into();
        rx.conf.intr_idx = 1;
        Self { shared, tx, rx }
    }
}

/// A guest with one queue in each direction.
pub(crate) struct Vmx {
    pub(crate) bench: Bench,
    pub(crate) port: Port,
    pub(crate) control: Control,
    /// The next descriptor to be filled, and the next completion, of those to be sent.
    pub(crate) tail: Side,
    pub(crate) clean: Side,
    /// The next descriptors to be filled of both receive rings, and the next completion.
    pub(crate) give: [Side; 2],
    pub(crate) next: Side,
    place: u64,
}

impl Vmx {
    pub(crate) fn new() -> Self {
        Self::on(Port::new(1))
    }

    /// With a port of one's own.
    pub(crate) fn on(port: Port) -> Self {
        let mut this = Self::idle(port);
        this.start();
        this
    }

    /// A device that was not activated yet.
    pub(crate) fn idle(port: Port) -> Self {
        let mut control = None;
        let bench = Bench::timed(MEMORY, |host, clock| {
            let options = Options { clock: Arc::new(clock), ..Options::default() };
            let device = Vmxnet3::new(Arc::new(port.clone()), options, host).expect("it can be");
            control = Some(device.control());
            device
        });
        let send = Side::new(SEND_RING, DESCRIPTORS);
        let mut this = Self {
            bench,
            port,
            control: control.expect("a device was made"),
            tail: send,
            clean: send,
            give: [send; 2],
            next: send,
            place: 0,
        };
        this.switch_on();
        this
    }

    pub(crate) fn vd(&mut self, register: u64, value: u32) {
        self.bench.write32(VD_BAR, register, value);
    }

    pub(crate) fn pt(&mut self, register: u64, value: u32) {
        self.bench.write32(PT_BAR, register, value);
    }

    /// Gives a command; returns how it ended.
    pub(crate) fn order(&mut self, command: u32) -> u32 {
        self.vd(CMD, command);
        self.bench.read32(VD_BAR, CMD)
    }

    pub(crate) fn run(&self) {
        assert!(self.bench.executor.run(1000), "the worker does not come to rest");
    }

    /// BARs, bus mastering and messages.
    fn switch_on(&mut self) {
        self.bench.enable();
        for vector in 0..u64::from(INTERRUPTS) {
            self.bench.device.bar_write(MSIX_BAR, 16 * vector, &[0; 16]);
        }
        let at = find_capability(&mut self.bench, capability::MSI_X);
        self.bench.device.config_write(at + msix::CONTROL, &msix::ENABLE.to_le_bytes());
    }

    /// Resets the device and brings it up: all receive descriptors are the device's.
    pub(crate) fn start(&mut self) {
        assert_eq!(self.start_with(&Setup::default()), 0, "not activated");
    }

    /// The same with any setup; returns how the activation ended.
    pub(crate) fn start_with(&mut self, setup: &Setup) -> u32 {
        self.switch_on();
        self.order(command::RESET_DEV);
        self.run();
        self.prepare(setup);
        let ended = self.order(command::ACTIVATE_DEV);
        if ended == 0 {
            for interrupt in 0..u64::from(INTERRUPTS) {
                self.pt(IMR + STRIDE * interrupt, 0);
            }
            self.run();
        }
        ended
    }

    /// Writes what the driver shares with the device, and fresh rings, full of buffers.
    pub(crate) fn prepare(&mut self, setup: &Setup) {
        for ring in [SEND_RING, SENT_RING, RECEIVE_RINGS[0], RECEIVE_RINGS[1]] {
            self.bench.poke(ring, &[0; 16 * DESCRIPTORS as usize]);
        }
        self.bench.poke(RECEIVED_RING, &[0; 32 * DESCRIPTORS as usize]);
        self.tail = Side::new(SEND_RING, DESCRIPTORS);
        self.clean = Side::new(SENT_RING, DESCRIPTORS);
        self.give = RECEIVE_RINGS.map(|ring| Side::new(ring, DESCRIPTORS));
        self.next = Side::new(RECEIVED_RING, 2 * DESCRIPTORS);
        for ring in 0..2 {
            (0..DESCRIPTORS).for_each(|_| self.give_one(ring));
        }
        self.bench.poke(SHARED, setup.shared.as_bytes());
        self.bench.poke(QUEUES, setup.tx.as_bytes());
        self.bench.poke(QUEUES + 256, setup.rx.as_bytes());
        self.vd(VRRS, REVISION_3);
        self.vd(UVRS, UPT_VERSION_1);
        self.vd(DSAL, u32::try_from(SHARED).expect("low"));
        self.vd(DSAH, 0);
    }

    /// Where a receive descriptor has its buffer.
    pub(crate) fn buffer(ring: usize, index: u32) -> u64 {
        BUFFERS + (ring as u64 * u64::from(DESCRIPTORS) + u64::from(index)) * BUFFER_LEN
    }

    /// Gives the next buffer of a receive ring.
    fn give_one(&mut self, ring: usize) {
        let len = u32::try_from(BUFFER_LEN).expect("small");
        let body = if ring == 1 { rxd::BTYPE_BODY } else { 0 };
        let address = Self::buffer(ring, self.give[ring].next);
        self.give_this(ring, address, len | body);
    }

    /// Gives any buffer; the generation is added to `flags`.
    pub(crate) fn give_this(&mut self, ring: usize, address: u64, flags: u32) {
        let side = &mut self.give[ring];
        let lap = if side.lap { rxd::GEN } else { 0 };
        let at = side.at();
        side.step();
        self.bench.poke(at, RxDesc::new(address, flags | lap).as_bytes());
    }

    /// Has each receive descriptor be what `choose` makes of its ring and index: address and flags.
    /// For a device that has taken none yet.
    pub(crate) fn give_all(&mut self, choose: impl Fn(usize, u32) -> (u64, u32)) {
        self.give = RECEIVE_RINGS.map(|ring| Side::new(ring, DESCRIPTORS));
        for ring in 0..2 {
            for index in 0..DESCRIPTORS {
                let (address, flags) = choose(ring, index);
                self.give_this(ring, address, flags);
            }
        }
        self.pt(RXPROD, self.give[0].next);
        self.pt(RXPROD2, self.give[1].next);
    }

    /// Puts a packet of these descriptors at the tail, the first one's generation last.
    pub(crate) fn put(&mut self, descriptors: &[TxDesc]) -> u32 {
        let first = self.tail;
        for descriptor in descriptors {
            let lap = if self.tail.lap { txd::GEN } else { 0 };
            let len = descriptor.len.get() & !txd::GEN | lap;
            let descriptor = TxDesc { len: len.into(), ..*descriptor };
            self.bench.poke(self.tail.at(), descriptor.as_bytes());
            self.tail.step();
        }
        first.next
    }

    /// Tells the device of what was put.
    pub(crate) fn kick(&mut self) {
        self.pt(TXPROD, self.tail.next);
    }

    /// The next place for a packet.
    pub(crate) fn place(&mut self) -> u64 {
        self.place += 1;
        PLACES + self.place % u64::from(DESCRIPTORS) * PLACE_LEN
    }

    /// Puts a packet into memory and its descriptor at the tail.
    pub(crate) fn send(&mut self, packet: &[u8]) -> u32 {
        let place = self.place();
        self.bench.poke(place, packet);
        let len = u32::try_from(packet.len()).expect("a packet");
        self.put(&[descriptor(place, len, LAST)])
    }

    fn get<T: FromBytes>(&self, address: u64) -> T {
        let mut bytes = vec![0; size_of::<T>()];
        self.bench.peek(address, &mut bytes);
        T::read_from_bytes(&bytes).expect("its size")
    }

    /// Indices of the last descriptors of packets that are sent, since the last call.
    pub(crate) fn sent(&mut self) -> Vec<u32> {
        let mut sent = Vec::new();
        loop {
            let completion: TxCompDesc = self.get(self.clean.at());
            if (completion.gen_type.get() & COMP_GEN != 0) != self.clean.lap {
                return sent;
            }
            sent.push(completion.txd_idx.get() & COMP_IDX);
            self.clean.step();
        }
    }

    /// The next packet that was received, if there is one; its buffers are given back.
    pub(crate) fn arrived(&mut self) -> Option<Arrived> {
        let mut arrived = Arrived::default();
        loop {
            let completion: RxCompDesc = self.get(self.next.at());
            if (completion.flags.get() & COMP_GEN != 0) != self.next.lap {
                assert!(arrived.completions.is_empty(), "a packet without an end");
                return None;
            }
            self.next.step();
            let word = completion.index.get();
            let (index, ring) = (word & COMP_IDX, word >> rcd::RQID_SHIFT & rcd::RQID);
            let ring = usize::try_from(ring).expect("small");
            assert!(ring < 2 && index < DESCRIPTORS, "no such buffer");
            assert_eq!(word & rcd::SOP != 0, arrived.completions.is_empty());
            let descriptor: RxDesc = self.get(RECEIVE_RINGS[ring] + 16 * u64::from(index));
            let len = completion.len.get() & rcd::LEN;
            assert!(len <= descriptor.len.get() & rxd::LEN, "more than there was room for");
            let mut part = vec![0; usize::try_from(len).expect("small")];
            self.bench.peek(descriptor.addr.get(), &mut part);
            arrived.bytes.append(&mut part);
            arrived.completions.push(completion);
            // Those that were passed over as well.
            while self.give[ring].next != index {
                self.give_one(ring);
            }
            self.give_one(ring);
            if word & rcd::EOP != 0 {
                break;
            }
        }
        self.pt(RXPROD, self.give[0].next);
        self.pt(RXPROD2, self.give[1].next);
        Some(arrived)
    }
}

/// A descriptor of a packet to be sent.
pub(crate) fn descriptor(address: u64, len: u32, flags: u32) -> TxDesc {
    TxDesc { addr: address.into(), len: len.into(), flags: flags.into() }
}

impl Adapter for Vmx {
    const NAME: &str = "vmxnet3";
    const MEMORY: usize = MEMORY;
    const PADS: bool = false;

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
        self.sent()
    }

    fn take(&mut self) -> Option<Vec<u8>> {
        Some(self.arrived()?.bytes)
    }

    /// A packet goes out, and one comes in.
    fn works(&mut self) {
        self.port.set_fate(Fate::Through);
        Self::run(self);
        self.sent();
        while self.arrived().is_some() {
            Self::run(self);
        }
        self.port.record(true);
        self.port.take_sent();
        let out = frame(200);
        let index = self.send(&out);
        self.kick();
        Self::run(self);
        assert_eq!(self.sent(), [index], "nothing is sent");
        let sent = self.port.take_sent();
        assert!(sent.len() == 1 && sent[0].bytes == out, "something else is sent");
        let frame = frame(300);
        self.port.deliver(&frame);
        Self::run(self);
        let arrived = self.arrived().expect("nothing is received");
        assert!(arrived.bytes == frame, "something else is received");
    }

    fn run(&mut self) {
        Self::run(self);
    }
}
