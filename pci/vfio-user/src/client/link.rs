//! Requests and their answers.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::ClientError;
use super::lent::{Attendant, Lender, Nothing};
use crate::channel::{self, Channel, Gone};
use crate::connection::{End, Message};
use crate::sys;
use crate::version::{Capabilities, Version};
use crate::wire::{
    Fields, HEADER_LEN, RegionAccess, command, dma, feature, flags, io_fd, irq, put, put64, region,
};

/// How long a server may take for anything.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// Regions, kinds of interrupts, doorbells and areas beyond these are not looked at.
const MOST_AREAS: u32 = 64;

/// A connection to a server.
pub(crate) struct Link {
    channel: Arc<Channel>,
    server: Capabilities,
    /// Does what the server asks for.
    lender: Arc<dyn Lender>,
}

/// An answer.
pub(crate) struct Answer {
    pub(crate) payload: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
}

/// What a server says of a region.
#[derive(Debug, Default)]
pub(crate) struct RegionInfo {
    pub(crate) size: u64,
    /// Added to an area's offset, it is where that is in the file.
    pub(crate) file_offset: u64,
    pub(crate) file: Option<OwnedFd>,
    /// Offset and length of what can be mapped.
    pub(crate) areas: Vec<(u64, u64)>,
}

/// A place that an eventfd stands for.
#[derive(Debug)]
pub(crate) struct IoFd {
    pub(crate) offset: u64,
    pub(crate) len: u8,
    pub(crate) value: Option<u64>,
    pub(crate) event: OwnedFd,
}

pub(super) const MALFORMED: ClientError = ClientError::Malformed;

impl Link {
    /// Agrees on a version.
    pub(crate) fn new(socket: UnixStream) -> Result<Self, ClientError> {
        let channel = Arc::new(Channel::new(socket, Box::new(channel::Nothing)));
        let mut link = Self { channel, server: Capabilities::default(), lender: Arc::new(Nothing) };
        let proposal = Version::proposal();
        let answer = link.request(command::VERSION, &proposal.bytes(), &[])?;
        let version = Version::parse(&answer.payload).ok_or(MALFORMED)?;
        if version.major != proposal.major || version.minor > proposal.minor {
            return Err(MALFORMED);
        }
        link.server = version.capabilities;
        Ok(link)
    }

    /// Has `lender` do what the server asks for, from the next request on; returns who is to do it when there is no
    /// request.
    pub(super) fn lend(&mut self, lender: Arc<dyn Lender>) -> Result<Attendant, ClientError> {
        self.lender = lender.clone();
        Ok(Attendant::new(self.channel.clone(), lender)?)
    }

    /// Bytes that the server takes or gives in a message.
    pub(super) fn max_data(&self) -> usize {
        self.server.max_data
    }

    /// Sends a request and waits for its answer.
    pub(crate) fn request(
        &mut self,
        command: u16,
        payload: &[u8],
        fds: &[BorrowedFd<'_>],
    ) -> Result<Answer, ClientError> {
        let request = (command, payload, fds);
        let lender = &*self.lender;
        let answer =
            self.channel.request_and_serve(request, LIMIT, &|message| lender.answer(message));
        let answer = answer.map_err(|Gone| match self.channel.take_end() {
            End::Protocol(_) => MALFORMED,
            end => ClientError::Connection(end),
        });
        let Message { header, payload, fds, .. } = answer?;
        if header.flags & flags::ERROR != 0 {
            let errno = i32::try_from(header.error).unwrap_or(libc::EIO);
            return Err(ClientError::Refused { command, errno });
        }
        Ok(Answer { payload, fds })
    }

    /// How many regions and kinds of interrupts there are.
    pub(crate) fn device_info(&mut self) -> Result<(u32, u32), ClientError> {
        let mut request = Vec::new();
        put(&mut request, [16, 0, 0, 0]);
        let answer = self.request(command::GET_INFO, &request, &[])?;
        let mut fields = Fields(&answer.payload);
        let mut field = || fields.u32().ok_or(MALFORMED);
        let (_, flags, regions, irqs) = (field()?, field()?, field()?, field()?);
        if flags & crate::wire::device::PCI == 0 || regions < region::COUNT - 1 {
            return Err(ClientError::Unsuited("it is no PCI function"));
        }
        Ok((regions, irqs))
    }

    pub(crate) fn region_info(&mut self, index: u32) -> Result<RegionInfo, ClientError> {
        let mut argsz = region::INFO_LEN;
        loop {
            let mut request = Vec::new();
            put(&mut request, [argsz, 0, index, 0]);
            put64(&mut request, [0, 0]);
            let Answer { payload, fds } = self.request(command::GET_REGION_INFO, &request, &[])?;
            let mut fields = Fields(&payload);
            let mut field = || fields.u32().ok_or(MALFORMED);
            let (needed, flags, _, first) = (field()?, field()?, field()?, field()?);
            let size = fields.u64().ok_or(MALFORMED)?;
            let file_offset = fields.u64().ok_or(MALFORMED)?;
            let more = region::INFO_LEN + 16 + MOST_AREAS * 16;
            if needed > argsz && needed <= more {
                argsz = needed;
                continue;
            }
            let mut info = RegionInfo { size, file_offset, ..RegionInfo::default() };
            if flags & region::MMAP != 0 && flags & region::CAPS != 0 {
                info.areas = areas(&payload, first);
                info.file = fds.into_iter().next();
            }
            return Ok(info);
        }
    }

    pub(crate) fn io_fds(&mut self, index: u32) -> Result<Vec<IoFd>, ClientError> {
        let argsz = io_fd::HEAD_LEN + MOST_AREAS * io_fd::ENTRY_LEN;
        let mut request = Vec::new();
        put(&mut request, [argsz, 0, index, 0]);
        let answer = self.request(command::GET_REGION_IO_FDS, &request, &[]);
        // A server need not have them.
        let Answer { payload, fds } = match answer {
            Err(ClientError::Refused { .. }) => return Ok(Vec::new()),
            answer => answer?,
        };
        let mut fields = Fields(&payload);
        let mut field = || fields.u32().ok_or(MALFORMED);
        let (_, _, _, count) = (field()?, field()?, field()?, field()?);
        let mut list = Vec::new();
        for _ in 0..count.min(MOST_AREAS) {
            let (Some(offset), Some(len)) = (fields.u64(), fields.u64()) else { break };
            let (Some(fd), Some(kind)) = (fields.u32(), fields.u32()) else { break };
            let (Some(flags), Some(_), Some(value)) = (fields.u32(), fields.u32(), fields.u64())
            else {
                break;
            };
            let fd = usize::try_from(fd).ok().and_then(|fd| fds.get(fd));
            let event = fd.and_then(|fd| fd.try_clone().ok());
            if let (io_fd::IOEVENTFD, Some(event), Ok(len)) = (kind, event, u8::try_from(len)) {
                let value = (flags & io_fd::DATAMATCH != 0).then_some(value);
                list.push(IoFd { offset, len, value, event });
            }
        }
        Ok(list)
    }

    /// How many interrupts of a kind there are.
    pub(crate) fn irqs(&mut self, index: u32) -> Result<u32, ClientError> {
        let mut request = Vec::new();
        put(&mut request, [16, 0, index, 0]);
        let answer = self.request(command::GET_IRQ_INFO, &request, &[])?;
        let mut fields = Fields(&answer.payload);
        let mut last = None;
        for _ in 0..4 {
            last = fields.u32();
        }
        last.ok_or(MALFORMED)
    }

    /// What is done with interrupts, with eventfds or without.
    pub(crate) fn set_irqs(
        &mut self,
        flags: u32,
        index: u32,
        start: u16,
        count: u16,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(), ClientError> {
        let mut request = Vec::new();
        put(&mut request, [20, flags, index, start.into(), count.into()]);
        self.request(command::SET_IRQS, &request, fds).map(|_| ())
    }

    /// Gives interrupts eventfds, as many to a message as the server takes. None takes them away.
    pub(crate) fn assign(
        &mut self,
        index: u32,
        start: u16,
        events: &[Option<BorrowedFd<'_>>],
    ) -> Result<(), ClientError> {
        let most = self.server.max_msg_fds.clamp(1, sys::MAX_FDS);
        let flags = irq::DATA_EVENTFD | irq::ACTION_TRIGGER;
        let mut start = start;
        for run in events.chunk_by(|one, next| one.is_some() == next.is_some()) {
            for part in run.chunks(most) {
                let fds: Vec<_> = part.iter().flatten().copied().collect();
                let count = u16::try_from(part.len()).unwrap_or(u16::MAX);
                self.set_irqs(flags, index, start, count, &fds)?;
                start = start.saturating_add(count);
            }
        }
        Ok(())
    }

    pub(crate) fn read(
        &mut self,
        region: u32,
        offset: u64,
        data: &mut [u8],
    ) -> Result<(), ClientError> {
        let most = self.server.max_data.max(1);
        let mut offset = offset;
        for part in data.chunks_mut(most) {
            let count = u32::try_from(part.len()).map_err(|_| MALFORMED)?;
            let mut request = Vec::with_capacity(HEADER_LEN);
            RegionAccess { offset, region, count }.put(&mut request);
            let answer = self.request(command::REGION_READ, &request, &[])?;
            let data = answer.payload.get(16..).filter(|data| data.len() == part.len());
            part.copy_from_slice(data.ok_or(MALFORMED)?);
            offset = offset.wrapping_add(count.into());
        }
        Ok(())
    }

    pub(crate) fn write(
        &mut self,
        region: u32,
        offset: u64,
        data: &[u8],
    ) -> Result<(), ClientError> {
        let most = self.server.max_data.max(1);
        let mut offset = offset;
        for part in data.chunks(most) {
            let count = u32::try_from(part.len()).map_err(|_| MALFORMED)?;
            let mut request = Vec::with_capacity(HEADER_LEN + part.len());
            RegionAccess { offset, region, count }.put(&mut request);
            request.extend_from_slice(part);
            self.request(command::REGION_WRITE, &request, &[])?;
            offset = offset.wrapping_add(count.into());
        }
        Ok(())
    }

    pub(crate) fn dma_map(
        &mut self,
        address: u64,
        size: u64,
        file: Option<BorrowedFd<'_>>,
        offset: u64,
    ) -> Result<(), ClientError> {
        let mut request = Vec::new();
        put(&mut request, [32, dma::READ | dma::WRITE]);
        put64(&mut request, [offset, address, size]);
        self.request(command::DMA_MAP, &request, file.as_slice()).map(|_| ())
    }

    /// Whether the server has the states of migration, and can move the function.
    pub(crate) fn migration(&mut self) -> Result<(bool, bool), ClientError> {
        let mut has = |flags: u32| {
            let mut request = Vec::new();
            put(&mut request, [16, flags | feature::GET]);
            match self.request(command::DEVICE_FEATURE, &request, &[]) {
                Ok(_) => Ok(true),
                Err(ClientError::Refused { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        };
        Ok((has(feature::DEVICE_STATE)?, has(feature::MIGRATION)?))
    }

    /// Has the function go to a state of migration.
    pub(crate) fn set_state(&mut self, state: u32) -> Result<(), ClientError> {
        let mut request = Vec::new();
        put(&mut request, [16, feature::DEVICE_STATE | feature::SET, state, 0]);
        self.request(command::DEVICE_FEATURE, &request, &[]).map(|_| ())
    }

    /// The state of a function that is in the state STOP_COPY.
    pub(crate) fn read_state(&mut self, most: usize) -> Result<Vec<u8>, ClientError> {
        let mut state = Vec::new();
        loop {
            let len = u32::try_from(self.server.max_data.min(1 << 16)).map_err(|_| MALFORMED)?;
            let mut request = Vec::new();
            put(&mut request, [len.saturating_add(8), len]);
            let answer = self.request(command::MIG_DATA_READ, &request, &[])?;
            let mut fields = Fields(&answer.payload);
            let (_, size) = (fields.u32(), fields.u32().ok_or(MALFORMED)?);
            let data = usize::try_from(size).ok().and_then(|size| fields.rest().get(..size));
            state.extend_from_slice(data.ok_or(MALFORMED)?);
            if size < len {
                return Ok(state);
            }
            if state.len() > most {
                return Err(MALFORMED);
            }
        }
    }

    /// Gives a function that is in the state RESUMING its state.
    pub(crate) fn write_state(&mut self, state: &[u8]) -> Result<(), ClientError> {
        for part in state.chunks(self.server.max_data.clamp(1, 1 << 16)) {
            let len = u32::try_from(part.len()).map_err(|_| MALFORMED)?;
            let mut request = Vec::new();
            put(&mut request, [8, len]);
            request.extend_from_slice(part);
            self.request(command::MIG_DATA_WRITE, &request, &[])?;
        }
        Ok(())
    }

    pub(crate) fn reset(&mut self) -> Result<(), ClientError> {
        self.request(command::RESET, &[], &[]).map(|_| ())
    }
}

impl Drop for Link {
    /// The attendant may have the connection for a while yet.
    fn drop(&mut self) {
        self.channel.end(End::Closed);
    }
}

/// The areas of a region that can be mapped, by the capabilities behind its description.
pub(super) fn areas(payload: &[u8], first: u32) -> Vec<(u64, u64)> {
    let (mut list, mut at) = (Vec::new(), first);
    // Each is behind the one before, so the walk ends.
    while at >= region::INFO_LEN {
        let bytes = usize::try_from(at).ok().and_then(|at| payload.get(at..));
        let mut fields = Fields(bytes.unwrap_or_default());
        let (Some(id), Some(_), Some(next)) = (fields.u16(), fields.u16(), fields.u32()) else {
            break;
        };
        if id == region::CAP_SPARSE_MMAP {
            let count = fields.u32().unwrap_or(0);
            fields.u32();
            for _ in 0..count.min(MOST_AREAS) {
                let (Some(offset), Some(len)) = (fields.u64(), fields.u64()) else { break };
                list.push((offset, len));
            }
        }
        if next <= at {
            break;
        }
        at = next;
    }
    list
}
