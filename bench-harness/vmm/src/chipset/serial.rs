//! A 16550A at COM1.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use vm_device::DevicePio;
use vm_device::bus::{PioAddress, PioAddressOffset};
use vm_superio::Trigger;
use vm_superio::serial::{NoEvents, Serial as Uart, SerialState as UartState};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::console::{Console, PATIENCE};
use super::{COM1, lock};
use crate::VmError;
use crate::snapshot::SnapshotError;

/// What may be typed before the guest reads it; more is dropped.
const INPUT_MAX: usize = 64 << 10;

/// The data register, or half of the divisor.
const DATA: u16 = 0;

/// The UART's interrupt.
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// The port's registers, and what was typed and not read.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SerialState {
    divisor: [u8; 2],
    interrupt_enable: u8,
    interrupt_identification: u8,
    line_control: u8,
    line_status: u8,
    modem_control: u8,
    modem_status: u8,
    scratch: u8,
    #[serde(with = "hex")]
    fifo: Vec<u8>,
    #[serde(with = "hex")]
    input: Vec<u8>,
}

struct Port {
    uart: Uart<Line, NoEvents, Vec<u8>>,
    /// Bytes that the UART has room for when it has none.
    fifo: usize,
    /// What was typed and is not in the UART yet.
    input: VecDeque<u8>,
}

impl Port {
    fn new(interrupt: &EventFd) -> io::Result<Self> {
        let uart = Uart::new(Line(interrupt.try_clone()?), Vec::new());
        let fifo = uart.fifo_capacity();
        Ok(Self { uart, fifo, input: VecDeque::new() })
    }

    /// Gives the UART the next byte, if it has none.
    ///
    /// It gets one at a time: it takes "data available" out of its interrupt identification whenever
    /// a byte is read, so a guest that stops in the middle of a full FIFO would never be told of the
    /// rest. So each byte raises the interrupt anew.
    fn feed(&mut self) {
        if self.uart.fifo_capacity() == self.fifo
            && let Some(byte) = self.input.front()
            // In loopback mode it takes none.
            && let Ok(1) = self.uart.enqueue_raw_bytes(&[*byte])
        {
            self.input.pop_front();
        }
    }
}

/// The serial port.
///
/// What the guest sends goes to the console by way of a thread. The console may answer from there: no
/// lock is held that [`Serial::input`] needs. It may also stop reading: the guest does not wait for it
/// for long.
pub(crate) struct Serial {
    port: Mutex<Port>,
    console: Console,
    interrupt: EventFd,
}

impl Serial {
    /// A serial port that writes what the guest sends to `console`.
    pub(crate) fn new(console: Box<dyn Write + Send>) -> Result<Self, VmError> {
        Self::with_patience(console, PATIENCE)
    }

    pub(super) fn with_patience(
        console: Box<dyn Write + Send>,
        patience: Duration,
    ) -> Result<Self, VmError> {
        let failed = |error| VmError::Kvm { what: "make the serial port's eventfd", error };
        let interrupt = EventFd::new(EFD_NONBLOCK).map_err(failed)?;
        let port = Mutex::new(Port::new(&interrupt).map_err(failed)?);
        let console = Console::new(console, patience).map_err(VmError::Thread)?;
        Ok(Self { port, console, interrupt })
    }

    /// Signalled for each interrupt.
    pub(crate) fn interrupt(&self) -> &EventFd {
        &self.interrupt
    }

    /// Types `bytes`. What the guest has not read is kept up to 64 KiB, the rest is dropped.
    pub(crate) fn input(&self, bytes: &[u8]) {
        let mut port = lock(&self.port);
        let room = INPUT_MAX.saturating_sub(port.input.len());
        port.input.extend(bytes.iter().take(room));
        port.feed();
    }

    /// Waits until what the guest sent has reached the console, or the console does not take it.
    pub(crate) fn flush(&self) {
        self.console.flush();
    }

    /// Its state. Changes nothing.
    pub(crate) fn save(&self) -> SerialState {
        let port = lock(&self.port);
        let uart = port.uart.state();
        SerialState {
            divisor: [uart.baud_divisor_low, uart.baud_divisor_high],
            interrupt_enable: uart.interrupt_enable,
            interrupt_identification: uart.interrupt_identification,
            line_control: uart.line_control,
            line_status: uart.line_status,
            modem_control: uart.modem_control,
            modem_status: uart.modem_status,
            scratch: uart.scratch,
            fifo: uart.in_buffer,
            input: port.input.iter().copied().collect(),
        }
    }

    /// Takes a state over. Its interrupt is raised anew if there is a reason for it.
    pub(crate) fn restore(&self, state: &SerialState) -> Result<(), SnapshotError> {
        let [baud_divisor_low, baud_divisor_high] = state.divisor;
        let uart = UartState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable: state.interrupt_enable,
            interrupt_identification: state.interrupt_identification,
            line_control: state.line_control,
            line_status: state.line_status,
            modem_control: state.modem_control,
            modem_status: state.modem_status,
            scratch: state.scratch,
            in_buffer: state.fifo.clone(),
        };
        if state.input.len() > INPUT_MAX {
            return Err(SnapshotError::mismatch("more was typed than is kept"));
        }
        let failed = || SnapshotError::mismatch("the serial port cannot be like that");
        let line = Line(self.interrupt.try_clone().map_err(|_| failed())?);
        let uart = Uart::from_state(&uart, line, NoEvents, Vec::new()).map_err(|_| failed())?;
        let mut port = lock(&self.port);
        port.uart = uart;
        port.input = state.input.iter().copied().collect();
        port.feed();
        Ok(())
    }

    /// As after power-on; what was typed is gone.
    pub(crate) fn reset(&self) -> Result<(), VmError> {
        let failed = |error| VmError::Kvm { what: "make the serial port's eventfd", error };
        *lock(&self.port) = Port::new(&self.interrupt).map_err(failed)?;
        Ok(())
    }
}

/// The register that byte `index` of an access at `offset` falls on.
fn register(offset: u16, index: usize) -> Option<u8> {
    let register = u16::try_from(index).ok()?.checked_add(offset)?;
    u8::try_from(register).ok().filter(|_| register < COM1.1)
}

impl DevicePio for Serial {
    // A wider access is one of each byte, as on a bus that is eight bits wide.
    fn pio_read(&self, _base: PioAddress, offset: PioAddressOffset, data: &mut [u8]) {
        let mut port = lock(&self.port);
        for (index, byte) in data.iter_mut().enumerate() {
            let register = register(offset, index);
            *byte = register.map_or(0xff, |register| port.uart.read(register));
            if register.map(u16::from) == Some(DATA) {
                port.feed();
            }
        }
    }

    fn pio_write(&self, _base: PioAddress, offset: PioAddressOffset, data: &[u8]) {
        let sent = {
            let mut port = lock(&self.port);
            for (index, byte) in data.iter().enumerate() {
                if let Some(register) = register(offset, index) {
                    // It can fail to write to a vector or an eventfd: it cannot.
                    let _ = port.uart.write(register, *byte);
                }
            }
            // It may have left loopback mode.
            port.feed();
            std::mem::take(port.uart.writer_mut())
        };
        if !sent.is_empty() {
            self.console.send(&sent);
        }
    }
}
