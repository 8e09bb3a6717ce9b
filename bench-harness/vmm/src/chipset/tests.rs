use std::io::{self, Write};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;
use vm_device::DevicePio;
use vm_device::bus::PioAddress;
use vmm_sys_util::eventfd::EventFd;

use super::console::QUEUE_MAX;
use super::*;

const DATA: u16 = 0;
const IER: u16 = 1;
const IIR: u16 = 2;
const MCR: u16 = 4;
const LSR: u16 = 5;
const RECEIVE: u8 = 1;
const DATA_READY: u8 = 1;
const LOOPBACK: u8 = 1 << 4;

/// A console that can be read.
#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        lock(&self.0).extend(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn serial() -> (Serial, Console) {
    let console = Console::default();
    (Serial::new(Box::new(console.clone())).unwrap(), console)
}

fn read(device: &dyn DevicePio, offset: u16) -> u8 {
    let mut byte = [0];
    device.pio_read(PioAddress(0), offset, &mut byte);
    byte[0]
}

fn write(device: &dyn DevicePio, offset: u16, value: u8) {
    device.pio_write(PioAddress(0), offset, &[value]);
}

fn fired(event: &EventFd) -> bool {
    event.read().is_ok()
}

/// Reads as Linux's 8250 driver does in an interrupt: while there is data, `limit` bytes at most.
fn receive(serial: &Serial, limit: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < limit && read(serial, LSR) & DATA_READY != 0 {
        bytes.push(read(serial, DATA));
    }
    bytes
}

#[test]
fn what_the_guest_sends_reaches_the_console() {
    let (serial, console) = serial();
    b"hello".iter().for_each(|byte| write(&serial, DATA, *byte));
    serial.flush();
    assert_eq!(*lock(&console.0), b"hello");
    assert_eq!(read(&serial, LSR) & 0x60, 0x60);
}

#[test]
fn typed_bytes_arrive_in_order_with_interrupts() {
    let (serial, _) = serial();
    let typed: Vec<u8> = (0..10_000u32).map(|number| number.to_le_bytes()[0]).collect();
    serial.input(&typed);
    assert!(!fired(serial.interrupt()));
    write(&serial, IER, RECEIVE);

    // A handler that leaves off in the middle has to be called again.
    let mut received = Vec::new();
    while fired(serial.interrupt()) {
        while read(&serial, IIR) & 1 == 0 {
            received.extend(receive(&serial, 250));
        }
    }
    assert_eq!(received, typed);
    assert_eq!(read(&serial, LSR) & DATA_READY, 0);

    serial.input(b"x");
    assert!(fired(serial.interrupt()));
    assert_eq!(receive(&serial, 2), b"x");
}

#[test]
fn input_is_bounded() {
    let (serial, _) = serial();
    (0..40).for_each(|_| serial.input(&[b'a'; 4096]));
    // One is in the UART.
    assert_eq!(receive(&serial, usize::MAX).len(), 65_536 + 1);
    serial.input(b"again");
    assert_eq!(receive(&serial, usize::MAX), b"again");
}

#[test]
fn loopback_neither_sends_nor_loses() {
    let (serial, console) = serial();
    write(&serial, MCR, LOOPBACK);
    serial.input(b"typed");
    write(&serial, DATA, b'l');
    assert_eq!(receive(&serial, 10), b"l");
    write(&serial, MCR, 0);
    assert_eq!(receive(&serial, 10), b"typed");
    serial.flush();
    assert!(lock(&console.0).is_empty());
}

/// A console that answers each byte.
struct Answering(Arc<Mutex<Option<Arc<Serial>>>>);

impl Write for Answering {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(serial) = &*lock(&self.0) {
            serial.input(b"ok");
        }
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_console_may_answer() {
    let own = Arc::new(Mutex::new(None));
    let serial = Arc::new(Serial::new(Box::new(Answering(own.clone()))).unwrap());
    *lock(&own) = Some(serial.clone());
    write(&*serial, DATA, b'?');
    serial.flush();
    assert_eq!(receive(&serial, 10), b"ok");
    *lock(&own) = None;
}

/// A console that takes a byte for each that may pass, and fails when nobody lets any more pass.
struct Gate(mpsc::Receiver<()>, Console);

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.1.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_console_that_nobody_reads_stops_no_guest() {
    let (open, gate) = mpsc::channel();
    let console = Console::default();
    let shut = Box::new(Gate(gate, console.clone()));
    let serial = Serial::with_patience(shut, Duration::from_millis(20)).unwrap();
    // More than twice what is kept, so that some is lost however little was taken at first.
    let sent = 2 * QUEUE_MAX + 4096;
    (0..sent).for_each(|_| write(&serial, DATA, b'a'));
    assert!(lock(&console.0).is_empty());

    // Read again, it goes on.
    (0..3).for_each(|_| open.send(()).unwrap());
    while lock(&console.0).len() < QUEUE_MAX {
        serial.flush();
    }
    write(&serial, DATA, b'b');
    while lock(&console.0).last() != Some(&b'b') {
        serial.flush();
    }
    assert!(lock(&console.0).len() < sent);

    // Closed, it takes nothing, and nobody waits.
    drop(open);
    (0..sent).for_each(|_| write(&serial, DATA, b'c'));
    serial.flush();
    assert_eq!(lock(&console.0).last(), Some(&b'b'));
}

/// A console that is full every other time.
struct Hesitant(bool, Console);

impl Write for Hesitant {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 = !self.0;
        if self.0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.1.write(&bytes[..bytes.len().min(3)])
    }
    fn flush(&mut self) -> io::Result<()> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

#[test]
fn a_console_that_takes_a_little_loses_nothing() {
    let console = Console::default();
    let serial = Serial::new(Box::new(Hesitant(false, console.clone()))).unwrap();
    b"all of this".iter().for_each(|byte| write(&serial, DATA, *byte));
    serial.flush();
    assert_eq!(*lock(&console.0), b"all of this");
    // What is left when the port goes is written, too.
    write(&serial, DATA, b'!');
    drop(serial);
    assert_eq!(*lock(&console.0), b"all of this!");
}

#[test]
fn wide_accesses_are_one_of_each_byte() {
    let (serial, console) = serial();
    serial.pio_write(PioAddress(COM1.0), 7, &[0x5a, 1]);
    let mut data = [0; 4];
    serial.pio_read(PioAddress(COM1.0), 7, &mut data);
    assert_eq!(data, [0x5a, 0xff, 0xff, 0xff]);
    serial.pio_write(PioAddress(COM1.0), DATA, b"a\0");
    serial.flush();
    assert_eq!(*lock(&console.0), b"a");
}

#[test]
fn reset_forgets_input_and_settings() {
    let (serial, _) = serial();
    write(&serial, IER, RECEIVE);
    serial.input(b"gone");
    assert!(fired(serial.interrupt()));
    serial.reset().unwrap();
    assert_eq!(receive(&serial, 10), b"");
    assert_eq!(read(&serial, IER), 0);
    write(&serial, IER, RECEIVE);
    serial.input(b"x");
    assert!(fired(serial.interrupt()));
}

#[test]
fn power_off_and_reset_are_asked_for() {
    let power = Power::default();
    assert_eq!(power.take_request(), None);
    write(&power, SLEEP_CONTROL - POWER.0, 1 << 5 | 5 << 2);
    assert_eq!(power.take_request(), Some(Request::PowerOff));
    assert_eq!(power.take_request(), None);
    write(&power, RESET - POWER.0, RESET_VALUE);
    assert_eq!(power.take_request(), Some(Request::Reset));

    // The first counts.
    write(&power, RESET - POWER.0, RESET_VALUE);
    write(&power, SLEEP_CONTROL - POWER.0, 1 << 5 | 5 << 2);
    assert_eq!(power.take_request(), Some(Request::Reset));
    assert_eq!(power.take_request(), None);

    write(&power, RESET - POWER.0, RESET_VALUE);
    power.clear();
    assert_eq!(power.take_request(), None);
}

#[test]
fn other_values_do_nothing() {
    let power = Power::default();
    // Other sleep types, no SLP_EN, what Linux writes to the status, other reset values, wider.
    (0..8).filter(|kind| *kind != 5).for_each(|kind| write(&power, 0, 1 << 5 | kind << 2));
    write(&power, 0, 5 << 2);
    write(&power, SLEEP_STATUS - POWER.0, 0xff);
    (0..=u8::MAX).filter(|value| *value != RESET_VALUE).for_each(|value| write(&power, 2, value));
    power.pio_write(PioAddress(POWER.0), 2, &[RESET_VALUE, 0]);
    power.pio_write(PioAddress(POWER.0), 2, &[]);
    power.pio_write(PioAddress(POWER.0), u16::MAX, &[RESET_VALUE]);
    assert_eq!(power.take_request(), None);
    // Never asleep, so no WAK_STS either.
    assert_eq!(read(&power, SLEEP_STATUS - POWER.0), 0);
}

#[test]
fn the_power_button_is_told_once() {
    let events = Events::new().unwrap();
    assert_eq!(read(&events, 0), 0);
    events.press_power_button();
    assert!(fired(events.interrupt()));
    assert_eq!(read(&events, 0), POWER_BUTTON);
    assert_eq!(read(&events, 0), 0);
    events.press_power_button();
    events.clear();
    assert_eq!(read(&events, 0), 0);
}

proptest! {
    #[test]
    fn no_access_is_too_strange(
        accesses in vec((0..3usize, any::<u16>(), vec(any::<u8>(), 0..9), any::<bool>()), 0..200),
        near in any::<bool>(),
    ) {
        let (serial, _) = serial();
        let (power, events) = (Power::default(), Events::new().unwrap());
        let devices: [&dyn DevicePio; 3] = [&serial, &power, &events];
        for (device, offset, mut data, out) in accesses {
            let offset = if near { offset % 8 } else { offset };
            if out {
                devices[device].pio_write(PioAddress(0), offset, &data);
            } else {
                devices[device].pio_read(PioAddress(0), offset, &mut data);
            }
            serial.input(&data);
            events.press_power_button();
        }
        // Whatever was set, a driver that starts anew can receive.
        serial.reset().unwrap();
        serial.input(b"x");
        prop_assert_eq!(receive(&serial, 2), b"x");
        power.clear();
        prop_assert_eq!(power.take_request(), None);
        prop_assert_eq!(read(&events, 0) & !POWER_BUTTON, 0);
    }
}
