//! The registers, and bringing a controller up and down (3.1, 7.6).

use paraslot_spec::nvme::{
    CLASS_CODE, COMPLETION_ENTRY_SHIFT, Cap, Csts, REGISTERS_BAR, SUBMISSION_ENTRY_SHIFT, aqa, cc,
    head_doorbell, register, tail_doorbell,
};
use paraslot_spec::pci::Command;

use super::Options;
use super::queue::Pair;
use crate::error::wait_until;
use crate::pci::{Function, Msix, Signal, functions, route_msi, route_pin, silence};
use crate::{Accesses, Error, Platform, Window};

/// The least time that enabling and disabling get, in milliseconds, whatever the controller promises:
/// in an emulated machine it may be slower than it thinks.
const READY_MS: u64 = 5000;
/// How long a shutdown may take, in milliseconds.
const SHUTDOWN_MS: u64 = 10_000;

/// How interrupts reach the platform.
enum Way<'p, P> {
    /// By vectors of MSI-X.
    Vectors(Msix<'p, P>),
    /// By MSI's only message.
    Message,
    /// By the pin.
    Pin,
}

/// A controller's function and registers.
pub(super) struct Controller<'p, P> {
    pub(super) platform: &'p P,
    function: Function<'p, P>,
    window: Window<'p, P>,
    pub(super) cap: Cap,
    pub(super) version: u32,
    stride: u64,
    options: Options,
    /// None, if it cannot interrupt.
    way: Option<Way<'p, P>>,
}

impl<'p, P: Platform> Controller<'p, P> {
    /// The first controller on bus 0, disabled.
    pub(super) fn new(platform: &'p P, options: Options) -> Result<Self, Error> {
        let function = functions(platform).find(|function| function.class() == CLASS_CODE);
        let function = function.ok_or(Error::NotFound)?;
        function.enable()?;
        let bar = function.bar(REGISTERS_BAR)?;
        let window = Window::new(platform, bar.address, bar.size);
        let mut this = Self {
            platform,
            function,
            window,
            cap: Cap(0),
            version: 0,
            stride: 4,
            options,
            way: None,
        };
        this.read_capabilities()?;
        this.disable()?;
        // Somebody else may have had it interrupt in another way.
        silence(function);
        this.way = this.route()?;
        if !matches!(this.way, Some(Way::Vectors(_))) {
            this.write(register::INTMS, u32::MAX);
        }
        Ok(this)
    }

    fn read_capabilities(&mut self) -> Result<(), Error> {
        let low = u64::from(self.read(register::CAP));
        let cap = Cap(low | u64::from(self.read(register::CAP + 4)) << 32);
        self.version = self.read(register::VS);
        if cap == Cap(u64::MAX) || self.version == u32::MAX {
            return Err(Error::Protocol("its registers read as ones"));
        }
        if cap.0 & Cap::CSS_NVM == 0 {
            return Err(Error::Unsupported("the NVM command set"));
        }
        if cap.min_page() > 4096 {
            return Err(Error::Unsupported("pages of 4 KiB"));
        }
        // The admin queues' sizes have a limit of their own, which the driver's are far below (3.1.8).
        if cap.max_queue_entries() < 2 {
            return Err(Error::Protocol("its queues have no room"));
        }
        self.stride = cap.doorbell_stride();
        if head_doorbell(self.options.queues, self.stride) + 4 > self.window.len() {
            return Err(Error::Protocol("its doorbells are outside its BAR"));
        }
        self.cap = cap;
        Ok(())
    }

    /// Connects the interrupts. That there is no way is an error only if a certain one was asked for:
    /// without interrupts the disk can still be polled.
    fn route(&self) -> Result<Option<Way<'p, P>>, Error> {
        let Options { interrupt, signal, queues, .. } = self.options;
        let message = self.platform.interrupt_message(interrupt);
        let by_message = || route_msi(self.function, message).map(|()| Way::Message);
        let by_pin = || route_pin(self.function, interrupt).map(|()| Way::Pin);
        match signal {
            Signal::Best => {
                if let Some(msix) = Msix::new(self.function)? {
                    for queue in 1..=queues {
                        msix.set(vector(msix.vectors(), queue), message)?;
                    }
                    return Ok(Some(Way::Vectors(msix)));
                }
                match by_message() {
                    Ok(way) => Ok(Some(way)),
                    Err(Error::Unsupported(_)) => Ok(by_pin().ok()),
                    Err(error) => Err(error),
                }
            }
            Signal::Msi => by_message().map(Some),
            Signal::Pin => by_pin().map(Some),
        }
    }

    /// The vector of a pair of queues.
    pub(super) fn vector(&self, queue: u16) -> u16 {
        match &self.way {
            Some(Way::Vectors(msix)) => vector(msix.vectors(), queue),
            // There is one.
            _ => 0,
        }
    }

    fn read(&self, register: u64) -> u32 {
        self.window.read32(register)
    }

    fn write(&self, register: u64, value: u32) {
        self.window.write32(register, value);
    }

    fn write64(&self, register: u64, value: u64) {
        let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
        self.write(register, u32::from_le_bytes([a, b, c, d]));
        self.write(register + 4, u32::from_le_bytes([e, f, g, h]));
    }

    fn status(&self) -> Csts {
        Csts::from_bits_retain(self.read(register::CSTS))
    }

    /// Looks until the status is `wanted`, for at most so many milliseconds. One that is gone is not
    /// waited for.
    fn wait_status(
        &self,
        milliseconds: u64,
        what: &'static str,
        wanted: impl Fn(Csts) -> bool,
    ) -> Result<Csts, Error> {
        let gone = Csts::from_bits_retain(u32::MAX);
        let mut status = Csts::empty();
        wait_until(self.platform, milliseconds, what, || {
            status = self.status();
            status == gone || wanted(status)
        })?;
        if status == gone { Err(Error::Protocol("its registers read as ones")) } else { Ok(status) }
    }

    /// Waits until the controller is ready, or is no more, for as long as it says that it may take
    /// (CAP.TO) but not less than [`READY_MS`].
    fn wait_ready(&self, ready: bool) -> Result<(), Error> {
        let limit = self.cap.timeout_ms().max(READY_MS);
        // One that has failed will not be ready any more.
        let failed = |status: Csts| ready && status.contains(Csts::CFS);
        let status = self.wait_status(limit, "controller ready", |status| {
            status.contains(Csts::RDY) == ready || failed(status)
        })?;
        match failed(status) {
            true => Err(Error::Protocol("it says that it has failed")),
            false => Ok(()),
        }
    }

    /// Resets it (7.3.2): afterwards it touches no memory.
    pub(super) fn disable(&self) -> Result<(), Error> {
        let configuration = self.read(register::CC);
        if configuration & cc::ENABLE != 0 {
            // Taking EN away from one that is not ready yet is not defined (3.1.5). One that never
            // gets there needs it all the same.
            let _ = self.wait_ready(true);
            self.write(register::CC, configuration & !(cc::ENABLE | cc::SHUTDOWN));
        }
        self.wait_ready(false)
    }

    /// Enables it with these admin queues (7.6.1): pages of 4 KiB, the NVM command set, round robin.
    pub(super) fn enable(&self, admin: &Pair) -> Result<(), Error> {
        let size = u32::from(admin.entries() - 1);
        self.write(register::AQA, size << aqa::COMPLETION_SHIFT | size);
        self.write64(register::ASQ, admin.submissions());
        self.write64(register::ACQ, admin.completions());
        let sizes = u32::from(SUBMISSION_ENTRY_SHIFT) << cc::SUBMISSION_SHIFT
            | u32::from(COMPLETION_ENTRY_SHIFT) << cc::COMPLETION_SHIFT;
        self.write(register::CC, sizes | cc::ENABLE);
        self.wait_ready(true)
    }

    /// Shuts it down (7.6.2), and resets it.
    pub(super) fn shut_down(&self) -> Result<(), Error> {
        let configuration = self.read(register::CC);
        if configuration & cc::ENABLE == 0 {
            // One that was reset need not complete a shutdown.
            return self.wait_ready(false);
        }
        self.write(register::CC, configuration & !cc::SHUTDOWN | cc::SHUTDOWN_NORMAL);
        let complete = self.wait_status(SHUTDOWN_MS, "shutdown", |status| {
            status.contains(Csts::SHUT_DOWN) && !status.contains(Csts::SHUTTING_DOWN)
        });
        self.disable()?;
        complete.map(|_| ())
    }

    /// Tells of commands.
    pub(super) fn ring_tail(&self, queue: u16, tail: u16) {
        self.write(tail_doorbell(queue, self.stride), tail.into());
        self.count_doorbell(queue);
    }

    /// Tells of completions that were taken.
    pub(super) fn ring_head(&self, queue: u16, head: u16) {
        self.write(head_doorbell(queue, self.stride), head.into());
        self.count_doorbell(queue);
    }

    fn count_doorbell(&self, queue: u16) {
        if queue != 0 {
            self.window.count_doorbell();
        }
    }

    /// Whether it can interrupt.
    pub(super) fn can_interrupt(&self) -> bool {
        self.way.is_some()
    }

    /// Lets it interrupt, or not. Vectors of MSI-X are left alone: queues say whether they interrupt,
    /// and the admin queue's vector was never unmasked, unless there is no other.
    pub(super) fn mask(&self, masked: bool) {
        match &self.way {
            Some(Way::Message | Way::Pin) => {
                self.write(if masked { register::INTMS } else { register::INTMC }, 1);
            }
            Some(Way::Vectors(_)) | None => {}
        }
    }

    /// The handling of an interrupt is over; it matters to the pin alone.
    pub(super) fn end_of_interrupt(&self) {
        if matches!(self.way, Some(Way::Pin)) {
            self.platform.end_of_interrupt(self.options.interrupt);
        }
    }

    /// Lets the pin go.
    pub(super) fn disconnect(&self) {
        if matches!(self.way, Some(Way::Pin)) {
            self.function.set_command(self.function.command() | Command::INTX_DISABLE);
            self.end_of_interrupt();
        }
    }

    pub(super) fn accesses(&self) -> Accesses {
        self.window.accesses()
    }
}

/// The vector of a pair of queues among so many, of which the first is the admin queue's.
fn vector(vectors: u16, queue: u16) -> u16 {
    match vectors {
        0 | 1 => 0,
        vectors => 1 + (queue - 1) % (vectors - 1),
    }
}
