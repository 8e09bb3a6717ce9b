//! A driver of virtio-scsi behind the PCI transport, on the bench.

use std::collections::HashMap;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use paraslot_scsi::Bus;
use paraslot_spec::scsi::opcode;
use paraslot_spec::virtio;
use paraslot_spec::virtio::split::DESC_F_INDIRECT;
use paraslot_spec::virtio_scsi::{
    CONTROL_QUEUE, EVENT_QUEUE, FIRST_REQUEST_QUEUE, Lun, RequestHeader, ResponseHeader,
    TmfRequest, control, response, tmf,
};
use paraslot_tests::bench::Bench;
use paraslot_virtio::testing::{Buffer, DriverRing};
use paraslot_virtio_pci::VirtioPci;
use paraslot_virtio_scsi::{Options, VirtioScsi};
use zerocopy::{FromBytes, IntoBytes};

use crate::scsi::{
    ANSWER, Command, DATA, Done, Hba, LIST, MEMORY, PLACE_LEN, PLACES, Pending, SENSE, Way, blocks,
    free_place,
};
use crate::virtio::{Space, Virtio};

/// Where the rings of queue `n` are: at this, and `n` times [`RING_LEN`].
pub(crate) const RINGS: u64 = 0x1000;
pub(crate) const RING_LEN: u64 = 0x2000;
/// The queue of requests.
pub(crate) const REQUESTS: u16 = FIRST_REQUEST_QUEUE;
/// Bytes of a request and of its answer, sense data included.
pub(crate) const FRONT_LEN: u32 = 19 + 32;
pub(crate) const ANSWER_LEN: u32 = 12 + SENSE;
/// Descriptors of the longest chain.
const LONGEST: u64 = 1024;
/// Of a task management function, behind the places of requests.
const MANAGEMENT: u64 = PLACES + 16 * PLACE_LEN;

/// A guest with the control, the event and one request queue.
pub(crate) struct VirtioHba {
    pub(crate) virtio: Virtio,
    pub(crate) rings: Vec<DriverRing<Space>>,
    queue_size: u16,
    pending: HashMap<u16, Pending>,
    tag: u64,
}

impl Deref for VirtioHba {
    type Target = Virtio;

    fn deref(&self) -> &Virtio {
        &self.virtio
    }
}

impl DerefMut for VirtioHba {
    fn deref_mut(&mut self) -> &mut Virtio {
        &mut self.virtio
    }
}

impl VirtioHba {
    pub(crate) fn with(bus: Bus, queue_size: u16) -> Self {
        let options = Options { queue_size, ..Options::default() };
        let device = VirtioScsi::new(bus, &options).expect("options are right");
        let bench = Bench::new(MEMORY, |host| VirtioPci::new(device, host).expect("it fits"));
        let virtio = Virtio::new(bench);
        let mut this =
            Self { virtio, rings: Vec::new(), queue_size, pending: HashMap::new(), tag: 0 };
        this.begin();
        this
    }

    /// Brings the device up with all that it offers but EVENT_IDX, and all queues with empty rings.
    pub(crate) fn begin(&mut self) {
        self.bench.enable();
        self.virtio.agree(|offered| offered & !virtio::feature::EVENT_IDX);
        self.rings = [CONTROL_QUEUE, EVENT_QUEUE, REQUESTS]
            .map(|queue| self.virtio.ring(RINGS + u64::from(queue) * RING_LEN, self.queue_size))
            .into();
        self.pending.clear();
        for queue in [CONTROL_QUEUE, EVENT_QUEUE, REQUESTS] {
            self.enable(queue);
        }
        self.set_status(0xf);
        assert_eq!(self.status().bits(), 0xf);
    }

    /// Sets up a queue as its ring is.
    pub(crate) fn enable(&mut self, queue: u16) {
        let ring = self.ring_of(queue);
        let places = [ring.descriptor_table(), ring.avail_ring(), ring.used_ring()];
        let size = self.queue_size;
        self.virtio.enable_queue(queue, size, places);
    }

    pub(crate) fn ring_of(&mut self, queue: u16) -> &mut DriverRing<Space> {
        &mut self.rings[usize::from(queue)]
    }

    /// The chain of a command in its next place: what is read, the data, and where the answer goes.
    pub(crate) fn chain(&mut self, command: &Command) -> (Vec<Buffer>, u64) {
        self.tag += 1;
        let place = PLACES + self.free() * PLACE_LEN;
        let header = RequestHeader {
            lun: Lun::new(command.target, command.lun.into()),
            id: self.tag.into(),
            ..RequestHeader::default()
        };
        let mut front = header.as_bytes().to_vec();
        front.extend_from_slice(&command.cdb);
        front.resize(usize::try_from(FRONT_LEN).expect("small"), 0);
        self.bench.poke(place, &front);
        let data = |writable| {
            command.data.iter().map(move |&(address, len)| Buffer { address, len, writable })
        };
        let mut chain = vec![Buffer::readable(place, FRONT_LEN)];
        if command.way == Way::Out {
            chain.extend(data(false));
        }
        chain.push(Buffer::writable(place + ANSWER, ANSWER_LEN));
        if command.way == Way::In {
            chain.extend(data(true));
        }
        (chain, place)
    }

    /// Makes so many heads available that all lead to one chain, the longest there is, in a table that
    /// ends beyond memory so that no lookup serves two descriptors: a read of 511 sectors.
    pub(crate) fn longest_chains(&mut self, target: u8, heads: u16) {
        let table = MEMORY as u64 - LONGEST * 16;
        let mut command = Command::new(blocks(opcode::READ_10, 0, 511), Way::In, &[]);
        command.data = (0..LONGEST - 2).map(|index| (DATA + index % 2 * 256, 256)).collect();
        command.target = target;
        let (chain, _) = self.chain(&command);
        let ring = self.ring_of(REQUESTS);
        ring.set_table(table, &chain);
        for head in 0..heads {
            // One more entry than memory has, which the chain does not reach.
            let len = u32::try_from(16 * (LONGEST + 1)).expect("small");
            ring.set_descriptor(head, table, len, DESC_F_INDIRECT, 0);
            ring.publish(head);
        }
    }

    /// A task management function for the first unit of a target; returns its answer's place.
    pub(crate) fn manage(&mut self, subtype: u32, target: u8, id: u64) -> u64 {
        let request = TmfRequest {
            kind: control::TMF.into(),
            subtype: subtype.into(),
            lun: Lun::new(target, 0),
            id: id.into(),
        };
        self.bench.poke(MANAGEMENT, request.as_bytes());
        self.bench.poke(MANAGEMENT + ANSWER, &[0xee]);
        let len = u32::try_from(size_of::<TmfRequest>()).expect("small");
        let chain = [Buffer::readable(MANAGEMENT, len), Buffer::writable(MANAGEMENT + ANSWER, 1)];
        self.ring_of(CONTROL_QUEUE).add(&chain);
        self.virtio.notify(CONTROL_QUEUE);
        MANAGEMENT + ANSWER
    }
}

impl Hba for VirtioHba {
    const NAME: &str = "virtio-scsi";

    fn make(bus: Bus, _patience: Duration) -> Self {
        Self::with(bus, 64)
    }

    fn bench(&mut self) -> &mut Bench {
        &mut self.virtio.bench
    }

    fn into_bench(self) -> Bench {
        self.virtio.bench
    }

    fn start(&mut self) {
        self.bench.enable();
        self.virtio.reset();
        self.begin();
        self.run();
    }

    fn free(&self) -> u64 {
        free_place(self.pending.values())
    }

    fn put(&mut self, command: &Command) -> Pending {
        let (chain, place) = self.chain(command);
        // A long chain is in a table, and every other one is.
        let indirect = chain.len() > 4 || self.tag.is_multiple_of(2);
        let ring = self.ring_of(REQUESTS);
        let head =
            if indirect { ring.add_indirect(place + LIST, &chain) } else { ring.add(&chain) };
        let answer = (place + ANSWER, ANSWER_LEN.into());
        let pending = Pending { tag: self.tag, command: command.clone(), answer };
        assert!(self.pending.insert(head, pending.clone()).is_none());
        pending
    }

    fn kick(&mut self) {
        self.virtio.notify(REQUESTS);
    }

    fn take(&mut self) -> Option<Done> {
        let (head, written) = self.ring_of(REQUESTS).used()?;
        let pending = self.pending.remove(&head).expect("given back once");
        let mut bytes = vec![0; usize::try_from(ANSWER_LEN).expect("small")];
        self.bench.peek(pending.answer.0, &mut bytes);
        let (answer, sense) = ResponseHeader::read_from_prefix(&bytes).expect("long enough");
        let sense = &sense[..usize::try_from(answer.sense_len.get()).expect("small")];
        // What is said of the data, and what the ring says, is the same.
        let len = pending.command.len();
        let moved = len - u64::from(answer.residual.get());
        let data = if pending.command.way == Way::In { moved } else { 0 };
        assert_eq!(u64::from(written), u64::from(ANSWER_LEN) + data, "{pending:?}");
        let status = match answer.response {
            response::OK => Ok(answer.status),
            other => Err(other.into()),
        };
        let (sense, answered) = (sense.to_vec(), ANSWER_LEN.into());
        Some(Done { tag: pending.tag, status, moved, sense, answered })
    }

    fn own(&self) -> Vec<(u64, u64)> {
        let used = |ring: &DriverRing<Space>| (ring.used_ring(), ring.end() - ring.used_ring());
        self.rings.iter().map(used).collect()
    }

    fn reset_unit(&mut self, target: u8) {
        let place = self.manage(tmf::LOGICAL_UNIT_RESET, target, 0);
        self.run();
        assert!(self.ring_of(CONTROL_QUEUE).used().is_some());
        let mut answer = [0];
        self.bench.peek(place, &mut answer);
        assert_eq!(answer, [response::FUNCTION_COMPLETE]);
    }
}
