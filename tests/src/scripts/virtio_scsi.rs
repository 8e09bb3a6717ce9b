//! virtio-scsi behind the PCI transport: commands on two queues, task management, events, sizes that
//! change, and units that come and go.

use std::mem::offset_of;
use std::sync::Arc;

use paraslot_backends::block::testing::{Gate, GatedBackend};
use paraslot_backends::block::{BlockBackend, MemoryBackend, MemoryOptions};
use paraslot_scsi::{Address, Bus, BusOptions, CdromOptions, DiskOptions, Initiator, LogicalUnit};
use paraslot_spec::scsi::opcode;
use paraslot_spec::virtio::pci::cfg_type;
use paraslot_spec::virtio::split::{DESC_F_INDIRECT, DESC_F_NEXT, DESC_F_WRITE, Descriptor};
use paraslot_spec::virtio_scsi::{
    AnRequest, CONTROL_QUEUE, Config, EVENT_QUEUE, FIRST_REQUEST_QUEUE, Lun, RequestHeader,
    TmfRequest, control,
};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use super::virtio::Transport;
use crate::bench::Bench;
use crate::fuzz::{Backing, Input, Script};

/// Request queues that the target's device has.
pub const REQUEST_QUEUES: u16 = 2;
const QUEUES: u16 = FIRST_REQUEST_QUEUE + REQUEST_QUEUES;
const SIZE: u16 = 16;
/// Rings of queue `n`, and its indirect table, at this times `n` plus one.
const QUEUE: u64 = 0x1000;
const AVAIL: u64 = 0x400;
const USED: u64 = 0x600;
const INDIRECT: u64 = 0x800;
/// What the device reads of requests, what it writes, and data.
const FRONTS: u64 = 0x8000;
const BACKS: u64 = 0xa000;
const DATA: u64 = 0x1_0000;

/// Bytes of each disk.
const DISK: u64 = 1 << 20;
/// The unit that comes and goes.
const SPARE: Address = Address { target: 1, lun: 0 };

/// Commands that are worth a try.
const COMMANDS: [u8; 32] = [
    opcode::TEST_UNIT_READY,
    opcode::REQUEST_SENSE,
    opcode::INQUIRY,
    opcode::MODE_SELECT_6,
    opcode::MODE_SENSE_6,
    opcode::START_STOP_UNIT,
    opcode::PREVENT_ALLOW_MEDIUM_REMOVAL,
    opcode::READ_CAPACITY_10,
    opcode::READ_6,
    opcode::READ_10,
    opcode::READ_12,
    opcode::READ_16,
    opcode::WRITE_10,
    opcode::WRITE_16,
    opcode::VERIFY_10,
    opcode::VERIFY_16,
    opcode::WRITE_AND_VERIFY_10,
    opcode::SYNCHRONIZE_CACHE_10,
    opcode::WRITE_SAME_10,
    opcode::WRITE_SAME_16,
    opcode::UNMAP,
    opcode::READ_TOC_PMA_ATIP,
    opcode::GET_CONFIGURATION,
    opcode::GET_EVENT_STATUS_NOTIFICATION,
    opcode::READ_DISC_INFORMATION,
    opcode::MODE_SELECT_10,
    opcode::MODE_SENSE_10,
    opcode::PERSISTENT_RESERVE_IN,
    opcode::PERSISTENT_RESERVE_OUT,
    opcode::COMPARE_AND_WRITE,
    opcode::SERVICE_ACTION_IN_16,
    opcode::REPORT_LUNS,
];

/// The units behind the adapter: a disk whose operations are held, a drive, and a disk that comes and
/// goes.
pub struct Units {
    bus: Bus,
    gate: Gate,
    disk: Arc<LogicalUnit>,
    drive: Arc<LogicalUnit>,
    spare: Arc<LogicalUnit>,
}

fn image() -> Arc<dyn BlockBackend> {
    Arc::new(MemoryBackend::new(DISK, MemoryOptions::default()).expect("memory"))
}

impl Units {
    /// The units, on a bus of their own.
    pub fn new() -> Self {
        let image_held = MemoryBackend::new(DISK, MemoryOptions::default()).expect("memory");
        let held = GatedBackend::new(image_held);
        let gate = held.gate();
        let bus = Bus::new(BusOptions {
            initiator: Initiator("fuzz".into()),
            max_target: 255,
            max_lun: 16383,
            autosense: true,
        });
        let disk = |image| LogicalUnit::disk(DiskOptions::new(image)).expect("options are right");
        let drive = CdromOptions::new(Some(image()));
        let units = Self {
            bus,
            gate,
            disk: disk(Arc::new(held)),
            drive: LogicalUnit::cdrom(drive).expect("options are right"),
            spare: disk(image()),
        };
        let at = |lun| Address { target: 0, lun };
        units.bus.attach(at(0), units.disk.clone()).expect("it is free");
        units.bus.attach(at(1), units.drive.clone()).expect("it is free");
        units
    }

    /// Their bus.
    pub fn bus(&self) -> Bus {
        self.bus.clone()
    }
}

impl Default for Units {
    fn default() -> Self {
        Self::new()
    }
}

impl Backing for Units {
    fn act(&mut self, input: &mut Input<'_>) {
        match input.u8() % 16 {
            0 | 1 => {
                let _ = self.bus.attach(SPARE, self.spare.clone());
            }
            2 | 3 => {
                let _ = self.bus.detach(SPARE);
            }
            4 => {
                self.disk.resize();
            }
            5 => {
                let _ = self.drive.change_medium((input.u8() & 1 == 0).then(image));
            }
            6 => self.gate.deafen(input.u8() & 1 == 0),
            _ => self.gate.act(input),
        }
    }

    fn settle(&mut self) {
        self.gate.settle();
    }
}

/// Drives all queues of a virtio-scsi device, wrongly.
#[derive(Default)]
pub struct VirtioScsiScript {
    transport: Transport,
    avail_idx: [u16; QUEUES as usize],
    requests: u64,
}

/// A buffer of a chain: address, length, and whether the device writes it.
type Buffer = (u64, u32, bool);

fn base(queue: u16) -> u64 {
    QUEUE * (u64::from(queue) + 1)
}

fn lun(input: &mut Input<'_>) -> Lun {
    match input.u8() % 16 {
        0..7 => Lun::new(0, 0),
        7..10 => Lun::new(0, 1),
        10..12 => Lun::new(SPARE.target, SPARE.lun),
        12 => Lun::new(0, 2),
        13 => Lun::REPORT_LUNS,
        14 => Lun([1, input.u8() % 4, 0xc1, 1, 0, 0, 0, 0]),
        _ => Lun(input.bytes()),
    }
}

impl VirtioScsiScript {
    /// A place for what the device reads, and one for what it writes.
    fn frame(&mut self) -> (u64, u64) {
        let slot = self.requests % 16;
        self.requests += 1;
        (FRONTS + 0x200 * slot, BACKS + 0x200 * slot)
    }

    /// Makes a chain available, right but for what the input makes wrong.
    fn add(&mut self, bench: &Bench, input: &mut Input<'_>, queue: u16, buffers: &[Buffer]) {
        let shape = input.u8();
        let (rings, slot) = (base(queue), usize::from(queue));
        let index = self.avail_idx[slot];
        // Direct chains share the table, so they overwrite each other's descriptors now and then.
        let first = if shape & 1 == 0 { 0 } else { index % 8 };
        let (table, start) = if shape & 2 == 0 { (rings, first) } else { (rings + INDIRECT, 0) };
        for (at, &(addr, len, writes)) in (start..).zip(buffers) {
            let last = at + 1 - start == u16::try_from(buffers.len()).expect("few");
            let next = if last { 0 } else { DESC_F_NEXT };
            let mut descriptor = Descriptor {
                addr: U64::new(addr),
                len: U32::new(len),
                flags: U16::new(next | if writes { DESC_F_WRITE } else { 0 }),
                next: U16::new((at + 1) % SIZE),
            };
            // One field in eight descriptors or so is anything.
            match input.u8() {
                0..6 => descriptor.addr = U64::new(input.interesting()),
                6..14 => descriptor.len = U32::new(input.u32() % 0x2000),
                14..18 => descriptor.len = U32::new(input.u32()),
                18..24 => descriptor.flags = U16::new(input.u16()),
                24..28 => descriptor.next = U16::new(input.u16()),
                _ => {}
            }
            bench.poke(table + 16 * u64::from(at % 64), descriptor.as_bytes());
        }
        if table != rings {
            let head = Descriptor {
                addr: U64::new(table),
                len: U32::new(16 * u32::try_from(buffers.len()).expect("few")),
                flags: U16::new(DESC_F_INDIRECT),
                next: U16::new(0),
            };
            bench.poke(rings + 16 * u64::from(first), head.as_bytes());
        }
        let head = if shape & 0x1c == 0 { u16::from(input.u8()) } else { first };
        bench.poke(rings + AVAIL + 4 + 2 * u64::from(index % SIZE), &head.to_le_bytes());
        let step = if shape & 0xe0 == 0 { input.u16() % 4 } else { 1 };
        self.avail_idx[slot] = index.wrapping_add(step);
        bench.poke(rings + AVAIL + 2, &self.avail_idx[slot].to_le_bytes());
    }

    fn command(&mut self, bench: &mut Bench, input: &mut Input<'_>, queue: u16) {
        let (front, back) = self.frame();
        let id = u64::from(input.u8() % 8);
        let task_attr = input.u8() % 5;
        let lun = lun(input);
        let header = RequestHeader { lun, id: id.into(), task_attr, ..RequestHeader::default() };
        let opcode = match input.u8() {
            250.. => input.u8(),
            index => COMMANDS[usize::from(index) % COMMANDS.len()],
        };
        let mut cdb = [0; 32];
        cdb[0] = opcode;
        // Block addresses and lengths that are small, in whatever field they are.
        for _ in 0..4 {
            let at = usize::from(input.u8() % 16);
            if at != 0 {
                cdb[at] = if at < 2 { input.u8() } else { input.u8() % 32 };
            }
        }
        bench.poke(front, header.as_bytes());
        bench.poke(front + header.as_bytes().len() as u64, &cdb);
        let mut buffers: Vec<Buffer> = vec![(front, 51, false)];
        let kind = input.u8();
        let writes = kind & 1 == 0;
        let data = (0..usize::from(kind >> 1) % 5)
            .map(|index| (DATA + index as u64 * 0x1000, 512 * (1 + u32::from(kind >> 4)), !writes));
        if writes {
            buffers.extend(data);
            buffers.push((back, 108, true));
            let list = usize::from(input.u8() % 40);
            bench.poke(DATA, input.slice(list));
        } else {
            buffers.push((back, 108, true));
            buffers.extend(data);
        }
        self.add(bench, input, queue, &buffers);
    }

    fn control(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        let (front, back) = self.frame();
        let kind = input.u8();
        let lun = lun(input);
        let (read, write) = if kind & 3 == 0 {
            let kind = if kind & 4 == 0 { control::AN_QUERY } else { control::AN_SUBSCRIBE };
            let request = AnRequest { kind: kind.into(), lun, event_requested: input.u32().into() };
            bench.poke(front, request.as_bytes());
            (16, 5)
        } else {
            let request = TmfRequest {
                kind: control::TMF.into(),
                subtype: u32::from(kind >> 2).wrapping_rem(9).into(),
                lun,
                id: u64::from(input.u8() % 8).into(),
            };
            bench.poke(front, request.as_bytes());
            (24, 1)
        };
        self.add(bench, input, CONTROL_QUEUE, &[(front, read, false), (back, write, true)]);
    }

    /// The driver sets a size.
    fn resize(&self, bench: &mut Bench, input: &mut Input<'_>) {
        let (bar, device) = self.transport.place(cfg_type::DEVICE);
        let kind = input.u8();
        let (field, usual) = if kind & 1 == 0 {
            (offset_of!(Config, sense_size), 96)
        } else {
            (offset_of!(Config, cdb_size), 32)
        };
        let size = match kind >> 1 {
            0..64 => usual,
            64..96 => u32::from(input.u8()),
            _ => input.u32(),
        };
        bench.device.bar_write(bar, device + field as u64, &size.to_le_bytes());
    }
}

impl Script for VirtioScsiScript {
    fn look(&mut self, bench: &mut Bench) {
        self.transport = Transport::find(bench);
    }

    fn bring_up(&mut self, bench: &mut Bench) {
        self.avail_idx = Default::default();
        self.transport.begin(bench, |offered| offered);
        for queue in 0..QUEUES {
            let rings = base(queue);
            bench.poke(rings + AVAIL, &[0; 64]);
            self.transport.queue(bench, queue, SIZE, [rings, rings + AVAIL, rings + USED]);
        }
        self.transport.start(bench);
    }

    fn request(&mut self, bench: &mut Bench, input: &mut Input<'_>) {
        let queue = match input.u8() % 16 {
            0..3 => {
                self.control(bench, input);
                CONTROL_QUEUE
            }
            3 => {
                let (_, back) = self.frame();
                self.add(bench, input, EVENT_QUEUE, &[(back, 16, true)]);
                EVENT_QUEUE
            }
            4 => return self.resize(bench, input),
            other => {
                let queue = FIRST_REQUEST_QUEUE + u16::from(other) % REQUEST_QUEUES;
                self.command(bench, input, queue);
                queue
            }
        };
        self.transport.notify(bench, queue);
    }

    fn register(&mut self, input: &mut Input<'_>) -> (u8, u64) {
        self.transport.register(input)
    }

    fn budget(&self) -> u64 {
        // A queue's worth of chains, each of at most a queue's worth of descriptors (or a maximal
        // indirect table), each resolved once, and each with as many pieces of a response; and the
        // rings.
        64 * 1024
    }
}
