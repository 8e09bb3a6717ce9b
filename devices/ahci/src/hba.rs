//! The HBA as such: generic host control, and the interrupt that all ports share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use paraslot_device::{DeviceError, SharedPage};
use paraslot_pci::Interrupts;
use paraslot_spec::ahci::{Cap, Ghc, PORT_SIZE, PORTS, host, port_base};

use crate::port::Port;
use crate::registers::{Bank, CAP, HOST, find};

/// What the vCPUs' accesses and the ports' workers share.
///
/// Locks are taken in the order port, then generic registers.
pub(crate) struct Hba {
    pub(crate) ports: Vec<Arc<Port>>,
    pub(crate) irq: Arc<Irq>,
    page: Arc<SharedPage>,
}

/// The generic host control registers and the interrupt.
pub(crate) struct Irq {
    generic: Mutex<Generic>,
    interrupts: Arc<Interrupts>,
}

struct Generic {
    bank: Bank,
    /// Ports with a cause that is enabled: PxIS & PxIE is not 0.
    asserting: u32,
    /// Ports that have not finished the reset that GHC.HR asked for.
    resetting: u32,
    /// GHC.HR is being written: the ports are still being told.
    telling: bool,
    line: bool,
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Irq {
    fn new(page: Arc<SharedPage>, ports: usize, interrupts: Arc<Interrupts>) -> Self {
        let mut bank = Bank::new(page, 0);
        for register in &HOST {
            bank.set(register.offset, register.reset);
        }
        let last = u32::try_from(ports.saturating_sub(1)).unwrap_or(u32::MAX) & Cap::NP;
        bank.set(host::CAP, CAP | last);
        bank.set(host::PI, u32::MAX >> (31 - last));
        let generic = Generic { bank, asserting: 0, resetting: 0, telling: false, line: false };
        Self { generic: Mutex::new(generic), interrupts }
    }

    /// Port `port` began or ceased to assert its interrupt.
    pub(crate) fn assert(&self, port: u32, asserted: bool) {
        let mut generic = lock(&self.generic);
        let bit = bit(port);
        if asserted {
            generic.asserting |= bit;
            let pending = generic.bank.get(host::IS);
            generic.bank.set(host::IS, pending | bit);
            self.signal(&mut generic, pending & bit == 0);
        } else {
            // IS stays until it is cleared by writing a one (3.1.3).
            generic.asserting &= !bit;
        }
    }

    /// Port `port` is done with the HBA reset.
    pub(crate) fn port_reset_done(&self, port: u32) {
        let mut generic = lock(&self.generic);
        generic.resetting &= !bit(port);
        generic.finish_reset();
    }

    /// Brings the line to where IS and GHC.IE say; sends a message if there is news and both are set.
    fn signal(&self, generic: &mut Generic, news: bool) {
        let enabled = generic.bank.get(host::GHC) & Ghc::IE.bits() != 0;
        let level = enabled && generic.bank.get(host::IS) != 0;
        if generic.line != level {
            generic.line = level;
            self.interrupts.set_intx(level);
        }
        if news && level {
            self.interrupts.trigger_msi();
        }
    }

    /// Writes IS. A port that still asserts its interrupt sets its bit again at once; while any bit
    /// remains the function sends another message, since it will send none for those that stay set.
    fn write_is(&self, value: u32) {
        let mut generic = lock(&self.generic);
        let old = generic.bank.get(host::IS);
        let new = (old & !value) | generic.asserting;
        generic.bank.set(host::IS, new);
        self.signal(&mut generic, old & value != 0);
    }

    /// Writes GHC's interrupt enable.
    fn write_ghc(&self, value: u32, lanes: u32) {
        let mut generic = lock(&self.generic);
        let old = generic.bank.get(host::GHC);
        let keep = old & Ghc::HR.bits();
        let new = find(&HOST, host::GHC)
            .map_or(old, |register| register.written(old, value & !Ghc::HR.bits(), lanes) | keep);
        generic.bank.set(host::GHC, new);
        self.signal(&mut generic, !old & new & Ghc::IE.bits() != 0);
    }

    /// Starts an HBA reset on behalf of all `ports`; says whether there is none under way already.
    fn begin_reset(&self, ports: u32) -> bool {
        let mut generic = lock(&self.generic);
        if generic.bank.get(host::GHC) & Ghc::HR.bits() != 0 {
            return false;
        }
        generic.resetting = ports;
        generic.telling = true;
        generic.asserting = 0;
        generic.bank.set(host::IS, 0);
        generic.bank.set(host::GHC, (Ghc::AE | Ghc::HR).bits());
        self.signal(&mut generic, false);
        true
    }

    fn end_telling(&self) {
        let mut generic = lock(&self.generic);
        generic.telling = false;
        // What a port latched before it was told is forgotten too.
        let asserting = generic.asserting;
        generic.bank.set(host::IS, asserting);
        generic.finish_reset();
    }

    /// GHC.IE and IS.
    pub(crate) fn saved(&self) -> (bool, u32) {
        let generic = lock(&self.generic);
        let enabled = generic.bank.get(host::GHC) & Ghc::IE.bits() != 0;
        (enabled, generic.bank.get(host::IS))
    }

    /// Takes GHC.IE and IS over, and which ports assert their interrupts or have not finished an HBA
    /// reset. What was to be sent has been.
    pub(crate) fn restore(&self, enabled: bool, pending: u32, asserting: u32, resetting: u32) {
        let mut generic = lock(&self.generic);
        let mut control = Ghc::AE;
        control.set(Ghc::IE, enabled);
        control.set(Ghc::HR, resetting != 0);
        (generic.asserting, generic.resetting) = (asserting, resetting);
        generic.bank.set(host::IS, pending);
        generic.bank.set(host::GHC, control.bits());
        self.signal(&mut generic, false);
    }

    /// Forgets everything, an HBA reset under way included.
    fn power_on(&self) {
        let mut generic = lock(&self.generic);
        generic.asserting = 0;
        generic.resetting = 0;
        generic.telling = false;
        generic.bank.set(host::IS, 0);
        generic.bank.set(host::GHC, Ghc::AE.bits());
        self.signal(&mut generic, false);
    }
}

impl Generic {
    fn finish_reset(&mut self) {
        if self.resetting == 0 && !self.telling {
            self.bank.change(host::GHC, 0, Ghc::HR.bits());
        }
    }
}

pub(crate) fn bit(port: u32) -> u32 {
    1u32.checked_shl(port).unwrap_or(0)
}

impl Hba {
    /// An HBA of so many ports, without devices.
    pub(crate) fn new(ports: usize, interrupts: Arc<Interrupts>) -> Result<Self, DeviceError> {
        let count = u8::try_from(ports).unwrap_or(u8::MAX);
        let len = usize::try_from(port_base(count)).unwrap_or(usize::MAX);
        let page = Arc::new(SharedPage::new(len).map_err(DeviceError::Worker)?);
        let irq = Arc::new(Irq::new(page.clone(), ports, interrupts));
        let ports = (0..count)
            .map(|index| Port::new(page.clone(), index).map(Arc::new))
            .collect::<Result<_, _>>()
            .map_err(DeviceError::Worker)?;
        Ok(Self { ports, irq, page })
    }

    /// The registers as the guest reads them.
    pub(crate) fn page(&self) -> &Arc<SharedPage> {
        &self.page
    }

    /// Writes the lanes `lanes` of the register at `offset` of ABAR.
    pub(crate) fn write(&self, offset: u32, value: u32, lanes: u32) {
        let value = value & lanes;
        match offset {
            host::GHC => {
                if value & Ghc::HR.bits() == 0 {
                    self.irq.write_ghc(value, lanes);
                } else {
                    self.reset();
                }
            }
            host::IS => self.irq.write_is(value),
            _ => {
                let Some(from_ports) = offset.checked_sub(PORTS) else { return };
                let index = usize::try_from(from_ports / PORT_SIZE).unwrap_or(usize::MAX);
                if let Some(port) = self.ports.get(index) {
                    port.write(&self.irq, from_ports % PORT_SIZE, value, lanes);
                }
            }
        }
    }

    /// HBA reset (10.4.3). GHC.HR reads one until the last command that is with a backend has come
    /// back: only then can no more data land in guest memory.
    fn reset(&self) {
        let all = (0..).zip(&self.ports).fold(0, |all, (index, _)| all | bit(index));
        if !self.irq.begin_reset(all) {
            return;
        }
        for port in &self.ports {
            port.reset(&self.irq, false);
        }
        self.irq.end_telling();
    }

    /// The state after power-on. What is with a backend then is waited for by the ports.
    pub(crate) fn power_on(&self) {
        for port in &self.ports {
            port.reset(&self.irq, true);
        }
        self.irq.power_on();
    }
}
