//! MSI and MSI-X (PCI 3.0, 6.8), and the pin (2.2.6).

use paraslot_spec::pci::{Command, capability, msi, msix};

use super::Function;
use crate::{Error, MsiMessage, Platform, Window};

/// The way in which a function that knows several raises its interrupts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Signal {
    /// MSI-X; if the function has none, MSI; if it has none either, its pin: Linux's choice.
    #[default]
    Best,
    /// MSI.
    Msi,
    /// The pin INTA#.
    Pin,
}

/// A function's MSI-X table, enabled.
pub struct Msix<'p, P> {
    function: Function<'p, P>,
    capability: u16,
    table: Window<'p, P>,
    vectors: u16,
}

impl<'p, P: Platform> Msix<'p, P> {
    /// Enables MSI-X, all vectors masked. `None` if the function has no such capability.
    ///
    /// # Errors
    /// When the table does not lie in a BAR.
    pub fn new(function: Function<'p, P>) -> Result<Option<Self>, Error> {
        let Some(capability) = function.capability(capability::MSI_X) else { return Ok(None) };
        let vectors = (function.read16(capability + msix::CONTROL) & msix::TABLE_SIZE) + 1;
        let table = function.read32(capability + msix::TABLE);
        let bar = function.bar(u8::try_from(table & 7).unwrap_or(u8::MAX))?;
        let offset = u64::from(table & !7);
        let len = msix::ENTRY_LEN * u64::from(vectors);
        if offset.checked_add(len).is_none_or(|end| end > bar.size) {
            return Err(Error::Protocol("an MSI-X table outside its BAR"));
        }
        let table = Window::new(function.platform(), bar.address + offset, len);
        let this = Self { function, capability, table, vectors };
        this.control(msix::ENABLE | msix::FUNCTION_MASK);
        for vector in 0..vectors {
            this.table.write32(msix::ENTRY_LEN * u64::from(vector) + 12, msix::VECTOR_MASKED);
        }
        this.control(msix::ENABLE);
        Ok(Some(this))
    }

    /// Sets the two writable bits of message control, the upper half of the capability's first word.
    fn control(&self, bits: u16) {
        self.function.write32(self.capability, u32::from(bits) << 16);
    }

    /// Vectors that the function has.
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    /// Has a vector send `message`, and unmasks it.
    ///
    /// # Errors
    /// When there is no such vector.
    pub fn set(&self, vector: u16, message: MsiMessage) -> Result<(), Error> {
        if vector >= self.vectors {
            return Err(Error::Unsupported("so many MSI-X vectors"));
        }
        let entry = msix::ENTRY_LEN * u64::from(vector);
        let [a, b, c, d, e, f, g, h] = message.address.to_le_bytes();
        self.table.write32(entry + 12, msix::VECTOR_MASKED);
        self.table.write32(entry, u32::from_le_bytes([a, b, c, d]));
        self.table.write32(entry + 4, u32::from_le_bytes([e, f, g, h]));
        self.table.write32(entry + 8, message.data);
        self.table.write32(entry + 12, 0);
        Ok(())
    }

    /// Masks or unmasks a vector; without effect where there is no such vector.
    pub fn set_masked(&self, vector: u16, masked: bool) {
        let control = if masked { msix::VECTOR_MASKED } else { 0 };
        self.table.write32(msix::ENTRY_LEN * u64::from(vector) + 12, control);
    }
}

/// Has the function's only (or first) interrupt send `message`, by MSI-X if it has that, else by MSI.
///
/// # Errors
/// When it has neither, or its MSI cannot carry the message.
pub fn route<P: Platform>(function: Function<'_, P>, message: MsiMessage) -> Result<(), Error> {
    match Msix::new(function)? {
        Some(msix) => msix.set(0, message),
        None => route_msi(function, message),
    }
}

/// Has the function's only (or first) interrupt send `message`, by MSI.
///
/// # Errors
/// When it has none, or it cannot carry the message.
pub fn route_msi<P: Platform>(function: Function<'_, P>, message: MsiMessage) -> Result<(), Error> {
    let capability = function
        .capability(capability::MSI)
        .ok_or(Error::Unsupported("message-signalled interrupts"))?;
    let control = function.read16(capability + msi::CONTROL);
    let [a, b, c, d, e, f, g, h] = message.address.to_le_bytes();
    let high = u32::from_le_bytes([e, f, g, h]);
    let wide = control & msi::ADDRESS_64 != 0;
    if message.data > u32::from(u16::MAX) || (high != 0 && !wide) {
        return Err(Error::Unsupported("the interrupt's message"));
    }
    let set_control = |bits: u16| function.write32(capability, u32::from(bits) << 16);
    // One vector; disabled while its message changes.
    set_control(0);
    function.write32(capability + msi::ADDRESS, u32::from_le_bytes([a, b, c, d]));
    if wide {
        function.write32(capability + msi::ADDRESS_HIGH, high);
        function.write32(capability + msi::DATA_64, message.data);
    } else {
        // The data follows the 32-bit address.
        function.write32(capability + msi::ADDRESS_HIGH, message.data);
    }
    if control & msi::MASKABLE != 0 {
        // Without the upper address half everything after it lies 4 bytes lower.
        let mask = if wide { msi::MASK_64 } else { msi::MASK_64 - 4 };
        function.write32(capability + mask, 0);
    }
    set_control(msi::ENABLE);
    Ok(())
}

/// How a function's only interrupt reaches the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// By a message.
    Message,
    /// By the pin, whose handling has an end.
    Pin,
}

/// Has the function's only (or first) interrupt raise interrupt `index`. That there is no way is an error
/// only if a certain one was asked for: without interrupts a device can still be polled.
pub(crate) fn connect<P: Platform>(
    function: Function<'_, P>,
    index: u8,
    signal: Signal,
) -> Result<Option<Way>, Error> {
    // Somebody else may have had it interrupt in another way.
    silence(function);
    let message = function.platform().interrupt_message(index);
    match signal {
        Signal::Best => match route(function, message) {
            Ok(()) => Ok(Some(Way::Message)),
            Err(Error::Unsupported(_)) => Ok(route_pin(function, index).ok().map(|()| Way::Pin)),
            Err(error) => Err(error),
        },
        Signal::Msi => route_msi(function, message).map(|()| Some(Way::Message)),
        Signal::Pin => route_pin(function, index).map(|()| Some(Way::Pin)),
    }
}

/// Has the function send no messages, by MSI-X or MSI: while it can, it does not assert its pin.
pub fn silence<P: Platform>(function: Function<'_, P>) {
    for id in [capability::MSI_X, capability::MSI] {
        if let Some(capability) = function.capability(id) {
            // Message control is the upper half, the rest is read-only.
            function.write32(capability, 0);
        }
    }
}

/// Has the function's pin INTA# raise interrupt `index`, and lets the function assert it.
///
/// # Errors
/// When the platform does not know where the pin leads.
pub fn route_pin<P: Platform>(function: Function<'_, P>, index: u8) -> Result<(), Error> {
    if !function.platform().connect_pin(function.bdf(), index) {
        return Err(Error::Unsupported("an interrupt pin that leads anywhere"));
    }
    function.set_command(function.command() - Command::INTX_DISABLE);
    Ok(())
}
