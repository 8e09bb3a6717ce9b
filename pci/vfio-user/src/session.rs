//! One client: its messages, and what they do.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use vmm_sys_util::eventfd::EventFd;

use crate::channel::{Aside, Channel, Gone};
use crate::connection::{End, Message, Reply};
use crate::function::Served;
use crate::irqs;
use crate::memory::{DmaError, Range, Remote, Shared};
use crate::migration;
use crate::regions::{self, Windows};
use crate::server::Stop;
use crate::signals::Signals;
use crate::version::{Capabilities, Version};
use crate::wire::{
    DmaMap, DmaUnmap, Fields, MAX_DATA, RegionAccess, command, device, dma, flags, irq, put, put64,
    region,
};

/// What goes on beside the client's messages.
struct Watch {
    stop: Arc<EventFd>,
    signals: Arc<Signals>,
    /// Written when the client has taken memory away.
    lost: Arc<EventFd>,
    /// Written by the client, or the kernel in its name, to unmask the pin.
    unmask: Mutex<Option<Arc<EventFd>>>,
}

impl Watch {
    fn unmask(&self) -> Option<Arc<EventFd>> {
        self.unmask.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set_unmask(&self, event: Option<Arc<EventFd>>) {
        *self.unmask.lock().unwrap_or_else(PoisonError::into_inner) = event;
    }
}

impl Aside for Arc<Watch> {
    fn events(&self) -> Vec<Arc<EventFd>> {
        let mut events = vec![self.stop.clone(), self.lost.clone()];
        events.extend(self.unmask());
        events
    }

    fn written(&self, index: usize, event: &EventFd) -> Result<(), End> {
        match index {
            0 => return Err(End::Stopped),
            1 => return Err(End::MemoryLost),
            _ => {
                if event.read().is_ok() {
                    self.signals.mask_pin(false);
                }
            }
        }
        Ok(())
    }
}

/// A connection.
pub(crate) struct Session<'s> {
    channel: Arc<Channel>,
    served: &'s mut Served,
    signals: &'s Signals,
    memory: &'s Shared,
    windows: &'s Windows,
    watch: Arc<Watch>,
    /// What the client can do, once it has said so.
    client: Option<Capabilities>,
    /// How its memory is accessed that comes without a file.
    remote: Option<Arc<Remote>>,
    patience: Duration,
}

impl<'s> Session<'s> {
    pub(crate) fn new(
        socket: UnixStream,
        served: &'s mut Served,
        signals: &'s Arc<Signals>,
        memory: &'s Shared,
        windows: &'s Windows,
        (stop, patience): (&Stop, Duration),
    ) -> std::io::Result<Self> {
        let lost = Arc::new(EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK)?);
        let (stop, unmask) = (stop.event(), Mutex::default());
        let watch = Arc::new(Watch { stop, signals: signals.clone(), lost, unmask });
        let channel = Arc::new(Channel::new(socket, Box::new(watch.clone())));
        let (client, remote) = (None, None);
        Ok(Self { channel, served, signals, memory, windows, watch, client, remote, patience })
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
        let gone = |Gone| self.channel.take_end();
        let Message { header, payload, fds, too_many_fds } =
            self.channel.command().map_err(gone)?;
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
        // A client that does not read is waited for as long as nobody else has something to ask of it.
        let sent = self.channel.send(answer, &reply.payload, &fds, None);
        sent.map_err(|Gone| self.channel.take_end())
    }

    fn version(&mut self, payload: &[u8]) -> Result<Reply, End> {
        let proposal = Version::parse(payload).ok_or(End::Protocol("a malformed version"))?;
        let answer = proposal.answer().ok_or(End::Protocol("another major version"))?;
        self.client = Some(proposal.capabilities);
        let max_data = proposal.capabilities.max_data;
        self.remote = Remote::new(self.channel.clone(), max_data, self.patience).map(Arc::new);
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
                // Not held meanwhile: the function may access memory, and who waits for that looks at it.
                let mut unmask = self.watch.unmask();
                let set = irqs::set(self.served, self.signals, &mut unmask, payload, fds);
                self.watch.set_unmask(unmask);
                match set {
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
        match (fd, &self.remote) {
            (Some(fd), _) => self.memory.map(range, fd, &self.watch.lost),
            (None, Some(remote)) => self.memory.map_remote(range, remote),
            (None, None) => Err(DmaError::NoFile),
        }
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

impl Drop for Session<'_> {
    /// Whoever waits for the client waits no more.
    fn drop(&mut self) {
        self.channel.end(End::Closed);
    }
}
