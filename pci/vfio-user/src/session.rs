//! One client: its messages, and what they do.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use vmm_sys_util::eventfd::EventFd;

use crate::connection::{End, Message, Reply, Wait, receive, send};
use crate::function::Served;
use crate::irqs;
use crate::memory::{DmaError, Range, Shared};
use crate::migration;
use crate::regions::{self, Windows};
use crate::server::Stop;
use crate::signals::Signals;
use crate::sys::{self, For};
use crate::version::{Capabilities, Version};
use crate::wire::{
    DmaMap, DmaUnmap, Fields, MAX_DATA, RegionAccess, command, device, dma, flags, irq, put, put64,
    region,
};

/// What goes on beside the client's messages.
struct Watch<'s> {
    stop: &'s Stop,
    signals: &'s Signals,
    /// Written when the client has taken memory away.
    lost: Arc<EventFd>,
    /// Written by the client, or the kernel in its name, to unmask the pin.
    unmask: Option<EventFd>,
}

impl Wait for Watch<'_> {
    fn wait(&mut self, socket: &UnixStream, what: For) -> Result<(), End> {
        loop {
            let mut sources = vec![
                (socket.as_raw_fd(), what),
                (self.stop.as_raw_fd(), For::Input),
                (self.lost.as_raw_fd(), For::Input),
            ];
            sources.extend(self.unmask.iter().map(|event| (event.as_raw_fd(), For::Input)));
            let ready = sys::wait(&sources, -1)?;
            let is_ready = |index: usize| ready.get(index).is_some_and(|ready| *ready);
            if is_ready(1) {
                return Err(End::Stopped);
            }
            if is_ready(2) {
                return Err(End::MemoryLost);
            }
            if let Some(event) = self.unmask.as_ref().filter(|_| is_ready(3))
                && event.read().is_ok()
            {
                self.signals.mask_pin(false);
            }
            if is_ready(0) {
                return Ok(());
            }
        }
    }
}

/// A connection.
pub(crate) struct Session<'s> {
    socket: UnixStream,
    served: &'s mut Served,
    signals: &'s Signals,
    memory: &'s Shared,
    windows: &'s Windows,
    watch: Watch<'s>,
    /// What the client can do, once it has said so.
    client: Option<Capabilities>,
}

impl<'s> Session<'s> {
    pub(crate) fn new(
        socket: UnixStream,
        served: &'s mut Served,
        signals: &'s Signals,
        memory: &'s Shared,
        windows: &'s Windows,
        stop: &'s Stop,
    ) -> std::io::Result<Self> {
        let lost = Arc::new(EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK)?);
        let watch = Watch { stop, signals, lost, unmask: None };
        Ok(Self { socket, served, signals, memory, windows, watch, client: None })
    }

    /// Serves the client until its end.
    pub(crate) fn run(&mut self) -> End {
        loop {
            if let Err(end) = self.turn() {
                return end;
            }
        }
    }

    /// One message.
    fn turn(&mut self) -> Result<(), End> {
        // Looked at before each message, so that a client that is never silent is stopped as well.
        self.watch.wait(&self.socket, For::Input)?;
        let Message { header, payload, fds, too_many_fds } =
            receive(&self.socket, &mut self.watch)?;
        if header.flags & flags::TYPE != flags::COMMAND {
            return Err(End::Protocol("a message that is no command"));
        }
        let reply = if too_many_fds {
            Reply::error(libc::E2BIG)
        } else {
            match (header.command, self.client) {
                (command::VERSION, None) => self.version(&payload)?,
                (_, None) => return Err(End::Protocol("a command before the version")),
                (command, Some(client)) => self.command(command, client, &payload, fds)?,
            }
        };
        if header.flags & flags::NO_REPLY != 0 {
            return Ok(());
        }
        let answer = reply.header(header);
        let fds: Vec<_> = reply.fds.iter().map(AsFd::as_fd).collect();
        send(&self.socket, &mut self.watch, answer, &reply.payload, &fds)
    }

    fn version(&mut self, payload: &[u8]) -> Result<Reply, End> {
        let proposal = Version::parse(payload).ok_or(End::Protocol("a malformed version"))?;
        let answer = proposal.answer().ok_or(End::Protocol("another major version"))?;
        self.client = Some(proposal.capabilities);
        Ok(Reply::of(answer.bytes()))
    }

    fn command(
        &mut self,
        command: u16,
        client: Capabilities,
        payload: &[u8],
        fds: Vec<OwnedFd>,
    ) -> Result<Reply, End> {
        let malformed = || Reply::error(libc::EINVAL);
        let reply = match command {
            command::DMA_MAP => Some(match self.map(payload, fds) {
                Ok(()) => Reply::empty(),
                Err(error) => Reply::error(error.errno()),
            }),
            command::DMA_UNMAP => return self.unmap(payload),
            command::GET_INFO => {
                let mut reply = Vec::new();
                let flags = device::RESET | device::PCI;
                put(&mut reply, [16, flags, region::COUNT, irq::COUNT]);
                (payload.len() >= 16).then(|| Reply::of(reply))
            }
            command::GET_REGION_INFO => {
                let windows = client.read_only_mmap.then_some(self.windows);
                regions::info(self.served.layout(), windows, payload)
            }
            command::GET_REGION_IO_FDS => {
                regions::io_fds(self.served.layout(), client.max_msg_fds, payload)
            }
            command::GET_IRQ_INFO => irqs::info(self.served.layout(), payload).map(Reply::of),
            command::SET_IRQS => {
                let unmask = &mut self.watch.unmask;
                match irqs::set(self.served, self.signals, unmask, payload, fds) {
                    Ok(()) => Some(Reply::empty()),
                    Err(errno) => Some(Reply::error(errno)),
                }
            }
            command::REGION_READ => Some(self.read(payload)?),
            command::REGION_WRITE => Some(self.write(payload)?),
            command::REGION_WRITE_MULTI => regions::write_multi(self.served, self.signals, payload)
                .map(|done| {
                    let mut reply = Vec::new();
                    put64(&mut reply, [done]);
                    Reply::of(reply)
                }),
            command::DEVICE_FEATURE => {
                Some(migration::feature(self.served, self.memory, self.signals, payload))
            }
            command::MIG_DATA_READ => Some(migration::read(self.served, payload)),
            command::MIG_DATA_WRITE => Some(migration::write(self.served, payload)),
            // Whatever flags were advertised: Cloud Hypervisor sends it when they say that it does nothing.
            command::RESET => {
                self.served.reset(self.signals)?;
                Some(Reply::empty())
            }
            _ => Some(Reply::error(libc::EOPNOTSUPP)),
        };
        Ok(reply.unwrap_or_else(malformed))
    }

    fn map(&mut self, payload: &[u8], fds: Vec<OwnedFd>) -> Result<(), DmaError> {
        let map = DmaMap::parse(payload).ok_or(DmaError::Malformed)?;
        let range = Range::new(map)?;
        let mut fds = fds.into_iter();
        let (fd, none) = (fds.next(), fds.next());
        if none.is_some() {
            return Err(DmaError::Malformed);
        }
        self.memory.map(range, fd, &self.watch.lost)
    }

    /// When the answer is sent, the function accesses that memory no more. A request that fails has its own
    /// payload for an answer too: there are clients that wait for one whatever the header says.
    fn unmap(&mut self, payload: &[u8]) -> Result<Reply, End> {
        let Some(DmaUnmap { flags, address, size }) = DmaUnmap::parse(payload) else {
            return Ok(Reply::error(libc::EINVAL));
        };
        let echo = payload.get(..DmaUnmap::LEN).unwrap_or_default().to_vec();
        let refuse = |error: DmaError| Reply { errno: error.errno(), ..Reply::of(echo.clone()) };
        let which = match flags {
            0 => Some((address, size)),
            dma::UNMAP_ALL => None,
            _ => return Ok(refuse(DmaError::Malformed)),
        };
        if which.is_some_and(|(address, size)| !self.memory.has(address, size)) {
            return Ok(refuse(DmaError::Missing));
        }
        let memory = self.memory;
        match self.served.quiet(|| memory.unmap(which))? {
            Ok(()) => Ok(Reply::of(echo)),
            Err(error) => Ok(refuse(error)),
        }
    }

    fn read(&mut self, payload: &[u8]) -> Result<Reply, End> {
        let mut fields = Fields(payload);
        let Some(access) = RegionAccess::parse(&mut fields) else {
            return Ok(Reply::error(libc::EINVAL));
        };
        let count = usize::try_from(access.count).unwrap_or(usize::MAX);
        if count > MAX_DATA {
            return Err(End::Protocol("a read of more than was agreed upon"));
        }
        let mut reply = Vec::with_capacity(16 + count);
        access.put(&mut reply);
        let head = reply.len();
        reply.resize(head + count, 0xff);
        if let Some(data) = reply.get_mut(head..) {
            regions::read(self.served, access, data);
        }
        Ok(Reply::of(reply))
    }

    fn write(&mut self, payload: &[u8]) -> Result<Reply, End> {
        let mut fields = Fields(payload);
        let Some(access) = RegionAccess::parse(&mut fields) else {
            return Ok(Reply::error(libc::EINVAL));
        };
        let count = usize::try_from(access.count).unwrap_or(usize::MAX);
        // An access is always answered, or who made it might wait for ever: one whose data is missing is of
        // no bytes.
        let mut answer = RegionAccess { count: 0, ..access };
        if let Some(data) = fields.rest().get(..count) {
            regions::write(self.served, self.signals, access, data);
            answer = access;
        }
        let mut reply = Vec::new();
        answer.put(&mut reply);
        Ok(Reply::of(reply))
    }
}
