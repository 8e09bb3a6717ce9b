//! A driver of pvscsi, on the bench.

use std::collections::HashMap;
use std::time::Duration;

use paraslot_pvscsi::{Options, Pvscsi};
use paraslot_scsi::Bus;
use paraslot_spec::pci::{capability, msix};
use paraslot_spec::pvscsi::{
    CompletionDescriptor, Intr, MEMORY_BAR, MSIX_TABLE, RequestDescriptor, RequestFlags,
    ResetDevice, SG_CHAIN, SetupMsgRing, SetupRings, SgElement, command, host_status, register,
    state,
};
use paraslot_tests::bench::Bench;
use zerocopy::{FromBytes, IntoBytes};

use crate::scsi::{
    ANSWER, Command, DATA, Done, Hba, LIST, MEMORY, PLACE_LEN, PLACES, Pending, SENSE, Way,
    free_place,
};
use crate::support::find_capability;

/// The state page, and the only page of each ring.
pub(crate) const STATE: u64 = 0x1000;
pub(crate) const REQUESTS: u64 = 0x2000;
pub(crate) const COMPLETIONS: u64 = 0x3000;
pub(crate) const MESSAGES: u64 = 0x4000;
/// Where long lists are.
const LISTS: u64 = 0xa_0000;
/// Entries of the request and the completion ring.
pub(crate) const REQUEST_ENTRIES: u32 = 32;
pub(crate) const COMPLETION_ENTRIES: u32 = 128;

/// A guest with all rings.
pub(crate) struct PvHba {
    pub(crate) bench: Bench,
    pub(crate) produced: u32,
    pub(crate) consumed: u32,
    tag: u64,
    pending: HashMap<u64, Pending>,
}

impl PvHba {
    pub(crate) fn write(&mut self, register: u32, value: u32) {
        self.bench.write32(MEMORY_BAR, register.into(), value);
    }

    /// Gives a command with its descriptor; returns what became of it.
    pub(crate) fn order(&mut self, command: u32, descriptor: &[u8]) -> u32 {
        self.write(register::COMMAND, command);
        for word in descriptor.chunks_exact(4) {
            let word = u32::from_le_bytes(word.try_into().expect("four bytes"));
            self.write(register::COMMAND_DATA, word);
        }
        self.bench.read32(MEMORY_BAR, register::COMMAND_STATUS.into())
    }

    pub(crate) fn setup() -> SetupRings {
        let mut setup = SetupRings::default();
        setup.request_pages.set(1);
        setup.completion_pages.set(1);
        setup.state_page.set(STATE >> 12);
        setup.request_ring[0].set(REQUESTS >> 12);
        setup.completion_ring[0].set(COMPLETIONS >> 12);
        setup
    }

    pub(crate) fn state(&self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.bench.peek(STATE + offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    pub(crate) fn set_state(&self, offset: u64, value: u32) {
        self.bench.poke(STATE + offset, &value.to_le_bytes());
    }

    /// Sets up the rings, empty, with messages on.
    pub(crate) fn begin(&mut self) {
        self.bench.enable();
        self.bench.device.bar_write(MEMORY_BAR, MSIX_TABLE.into(), &[0; 16]);
        let at = find_capability(&mut self.bench, capability::MSI_X);
        self.bench.device.config_write(at + msix::CONTROL, &msix::ENABLE.to_le_bytes());
        self.set_up();
        let mut messages = SetupMsgRing::default();
        messages.pages.set(1);
        messages.ring[0].set(MESSAGES >> 12);
        assert_eq!(self.order(command::SETUP_MSG_RING, messages.as_bytes()), 0);
        self.write(register::INTR_MASK, Intr::all().bits());
    }

    /// The request and the completion ring, empty.
    pub(crate) fn set_up(&mut self) {
        self.bench.poke(STATE, &[0; 4096]);
        (self.produced, self.consumed) = (0, 0);
        self.pending.clear();
        assert_eq!(self.order(command::SETUP_RINGS, Self::setup().as_bytes()), 0);
    }

    /// Puts any descriptor there.
    pub(crate) fn put_descriptor(&mut self, request: &RequestDescriptor) {
        let at = REQUESTS + u64::from(self.produced % REQUEST_ENTRIES) * 128;
        self.bench.poke(at, request.as_bytes());
        self.produced = self.produced.wrapping_add(1);
        self.set_state(state::REQUEST_PRODUCER, self.produced);
    }

    /// The descriptor of a command in its next place, and that place. Data in several pieces is in a
    /// list.
    pub(crate) fn describe(&mut self, command: &Command) -> (RequestDescriptor, u64) {
        self.tag += 1;
        let place = PLACES + self.free() * PLACE_LEN;
        let mut request = RequestDescriptor::default();
        request.context.set(self.tag);
        request.cdb = command.cdb;
        request.cdb_len = 16;
        request.target = command.target;
        request.lun[1] = command.lun;
        request.sense_address.set(place + ANSWER);
        request.sense_len.set(SENSE);
        request.data_len.set(command.len());
        let mut flags = match command.way {
            Way::None => RequestFlags::DIR_NONE,
            Way::In => RequestFlags::DIR_TO_HOST,
            Way::Out => RequestFlags::DIR_TO_DEVICE,
        };
        match command.data.as_slice() {
            [] => {}
            [(address, _)] => request.data_address.set(*address),
            pieces => {
                flags |= RequestFlags::SG_LIST;
                request.data_address.set(place + LIST);
                for (index, (address, len)) in (0..).zip(pieces) {
                    let mut element = SgElement::default();
                    element.address.set(*address);
                    element.len.set(*len);
                    self.bench.poke(place + LIST + 16 * index, element.as_bytes());
                }
            }
        }
        request.flags.set(flags.bits());
        (request, place)
    }

    /// Makes a list of `count` elements of kinds in turn (nothing, a byte to be read, the way to the
    /// next one, the way to the first) where there is room for 16,384; returns how many bytes it has.
    pub(crate) fn list(&self, count: u64, kinds: &[u8]) -> u64 {
        let mut bytes = 0;
        let mut all = Vec::new();
        for (index, kind) in (0..count).zip(kinds.iter().cycle()) {
            let mut element = SgElement::default();
            element.address.set(DATA + bytes);
            match kind {
                0 => {}
                1 => {
                    element.len.set(1);
                    bytes += 1;
                }
                _ => {
                    let next = if *kind == 2 { index + 1 } else { 0 };
                    element.address.set(LISTS + 16 * next);
                    element.flags.set(SG_CHAIN);
                }
            }
            all.extend_from_slice(element.as_bytes());
        }
        self.bench.poke(LISTS, &all);
        bytes
    }

    /// Puts a read by that list there.
    pub(crate) fn put_list(&mut self, sectors: u16, len: u64) {
        let (mut request, _) = self.describe(&Command::read(0, sectors, DATA));
        request.flags.set((RequestFlags::DIR_TO_HOST | RequestFlags::SG_LIST).bits());
        request.data_address.set(LISTS);
        request.data_len.set(len);
        self.put_descriptor(&request);
    }

    /// The next completion.
    pub(crate) fn completed(&mut self) -> Option<CompletionDescriptor> {
        if self.consumed == self.state(state::COMPLETION_PRODUCER) {
            return None;
        }
        let at = COMPLETIONS + u64::from(self.consumed % COMPLETION_ENTRIES) * 32;
        let mut bytes = [0; 32];
        self.bench.peek(at, &mut bytes);
        self.consumed = self.consumed.wrapping_add(1);
        self.set_state(state::COMPLETION_CONSUMER, self.consumed);
        Some(CompletionDescriptor::read_from_bytes(&bytes).expect("its size"))
    }
}

impl Hba for PvHba {
    const NAME: &str = "pvscsi";

    fn make(bus: Bus, patience: Duration) -> Self {
        let options = Options { patience, ..Options::default() };
        let bench =
            Bench::new(MEMORY, |host| Pvscsi::new(bus, options, host).expect("options are right"));
        let (produced, consumed, tag, pending) = (0, 0, 0, HashMap::new());
        let mut this = Self { bench, produced, consumed, tag, pending };
        this.begin();
        this
    }

    fn bench(&mut self) -> &mut Bench {
        &mut self.bench
    }

    fn into_bench(self) -> Bench {
        self.bench
    }

    fn start(&mut self) {
        self.bench.enable();
        self.order(command::ADAPTER_RESET, &[]);
        self.begin();
        self.run();
    }

    fn free(&self) -> u64 {
        free_place(self.pending.values())
    }

    fn put(&mut self, command: &Command) -> Pending {
        let (request, place) = self.describe(command);
        self.put_descriptor(&request);
        let answer = (place + ANSWER, SENSE.into());
        let pending = Pending { tag: self.tag, command: command.clone(), answer };
        self.pending.insert(self.tag, pending.clone());
        pending
    }

    fn kick(&mut self) {
        self.write(register::KICK_NON_RW_IO, 0);
    }

    fn take(&mut self) -> Option<Done> {
        let completion = self.completed()?;
        let tag = completion.context.get();
        let pending = self.pending.remove(&tag).expect("given back once");
        let mut sense = vec![0; usize::try_from(completion.sense_len.get()).expect("small")];
        assert!(sense.len() as u64 <= pending.answer.1);
        self.bench.peek(pending.answer.0, &mut sense);
        let status = match completion.host_status.get() {
            host_status::SUCCESS => Ok(u8::try_from(completion.scsi_status.get()).expect("a byte")),
            other => Err(other),
        };
        let (moved, answered) = (completion.data_len.get(), sense.len() as u64);
        Some(Done { tag, status, moved, sense, answered })
    }

    fn own(&self) -> Vec<(u64, u64)> {
        vec![(STATE, 4096), (COMPLETIONS, 4096), (MESSAGES, 4096)]
    }

    fn reset_unit(&mut self, target: u8) {
        let reset = ResetDevice { target: u32::from(target).into(), lun: [0; 8] };
        assert_eq!(self.order(command::RESET_DEVICE, reset.as_bytes()), 0);
        self.run();
    }
}
