//! Intel's 82540EM.
//!
//! # Register accesses
//! The adapter is driven by the register accesses that Linux's e1000 driver makes, so that a count of
//! them, or of the exits they cause, means here what it means there:
//! - frames to be sent: one write of TDT for as many as were handed over;
//! - what was sent and what arrived: none, it is seen in the descriptors;
//! - free buffers: one write of RDT for as many as have gathered;
//! - interrupt: read ICR, write IMC, read STATUS; when everything is handled, write ITR if it changes,
//!   write IMS, read STATUS. (The reads of STATUS make the writes before them arrive.) The interrupt
//!   controller is told in between, where Linux's handler returns and its poll loop begins.
//!
//! While interrupts are off no register is read.
//!
//! Descriptors are Linux's too: rings of 256; a context descriptor for each frame with a checksum or
//! segments to be filled in, and legacy descriptors for the others; pieces of up to 4096 bytes; and
//! the extra ones by which it keeps clear of the controller's errata. So are the delays (TIDV 8, TADV
//! 32, RDTR 0, RADV 8) and the adaptive interrupt throttling.
//!
//! Differences, none of which is in the part that is measured: the EEPROM is read by EERD, as
//! registers are not reached by ports and bits are not banged; the reset is a write of CTRL in the
//! memory BAR for the same reason; flow control is not negotiated; there is no watchdog that reads
//! statistics every two seconds, so that frames that are on the ring when the link goes down stay
//! there until it is back. And two that are: transmitted frames interrupt only if that was asked for
//! ([`Nic::set_transmit_interrupts`]), and free buffers wait for others before the adapter is told
//! ([`Nic::set_refill`]), where Linux tells it at the end of each poll too. Frames below 60 bytes are
//! padded by the controller, not by the driver.
//!
//! Not used: VLAN tags, jumbo frames, multicast, promiscuous mode, wake-up.

mod hardware;
mod receive;
#[cfg(test)]
mod tests;
mod throttle;
mod transmit;

pub use throttle::Throttle;

use paraslot_spec::e1000::{
    Cause, DESCRIPTOR_LEN, Rctl, Status, Tctl, VLAN_ETHERTYPE, registers, rxcsum, thresholds,
};

use crate::{Accesses, Arrival, DmaRegion, Error, Nic, Offers, Platform, Task};
use hardware::{GONE, Hardware};
use receive::Receive;
use throttle::Throttling;
use transmit::Transmit;

/// Descriptors of either ring.
const RING: u16 = 256;
/// TIPG for copper: IPGT 8, IPGR1 8, IPGR2 6 (13.4.34).
const GAPS: u32 = 8 | 8 << 10 | 6 << 20;
/// TCTL.CT.
const COLLISIONS: u32 = 15;
/// TCTL.COLD, for full duplex.
const COLLISION_DISTANCE: u32 = 63;
/// TIDV and TADV, in units of 1.024 µs.
const TRANSMIT_DELAY: u32 = 8;
const TRANSMIT_DELAY_MOST: u32 = 32;
/// RDTR and RADV.
const RECEIVE_DELAY: u32 = 0;
const RECEIVE_DELAY_MOST: u32 = 8;
/// TXDCTL: descriptors are written back one by one.
const WRITE_BACK: u32 = thresholds::GRAN | 1 << 16;
/// Causes of an interrupt that are always enabled.
const CAUSES: Cause = Cause::RXT0.union(Cause::RXDMT0).union(Cause::RXSEQ).union(Cause::LSC);

/// How an adapter is to be driven.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The platform's number of the interrupt to use.
    pub interrupt: u8,
    /// Have it fill in the checksums of what is sent, and check those of what is received.
    pub checksum: bool,
    /// Have it segment.
    pub segmentation: bool,
    /// How often it may interrupt.
    pub throttle: Throttle,
    /// Have it remove the frame check sequence of what is received. Linux leaves it there and ignores
    /// it.
    pub strip_fcs: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interrupt: 0,
            checksum: true,
            segmentation: true,
            throttle: Throttle::Adaptive,
            strip_fcs: false,
        }
    }
}

/// The first 82540EM.
pub struct E1000<'p, P> {
    hardware: Hardware<'p, P>,
    transmit: Transmit,
    receive: Receive,
    throttling: Throttling,
    options: Options,
    address: [u8; 6],
    /// Whether the link was one of a gigabit when STATUS was read last.
    gigabit: bool,
    /// Whether the pin is connected.
    connected: bool,
    interrupts: bool,
    /// Whether causes are enabled: interrupts are on and none is being handled.
    armed: bool,
    /// Whether the handling of an interrupt has begun.
    begun: bool,
    transmit_interrupts: bool,
}

fn halves(value: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = value.to_le_bytes();
    (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]))
}

impl<'p, P: Platform> E1000<'p, P> {
    /// Sets up the first 82540EM on bus 0. Its link comes up by and by.
    ///
    /// # Errors
    /// When there is none or it cannot be set up.
    pub fn new(platform: &'p P, options: Options) -> Result<Self, Error> {
        let hardware = Hardware::new(platform)?;
        hardware.reset()?;
        let address = hardware.address()?;
        hardware.set_filters(address);
        hardware.start_link()?;
        hardware.write(registers::VET, VLAN_ETHERTYPE.into());
        let this = Self {
            transmit: Transmit::new(platform)?,
            receive: Receive::new(platform, options.strip_fcs, options.checksum)?,
            throttling: Throttling::new(options.throttle),
            hardware,
            options,
            address,
            gigabit: false,
            connected: false,
            interrupts: false,
            armed: false,
            begun: false,
            transmit_interrupts: false,
        };
        this.start_transmit();
        this.start_receive();
        Ok(this)
    }

    /// Starts the transmit unit (14.5).
    fn start_transmit(&self) {
        let write = |register, value| self.hardware.write(register, value);
        let (low, high) = halves(self.transmit.address());
        write(registers::TXDCTL, WRITE_BACK);
        write(registers::TDLEN, u32::from(RING) * DESCRIPTOR);
        write(registers::TDBAH, high);
        write(registers::TDBAL, low);
        write(registers::TDT, 0);
        write(registers::TDH, 0);
        write(registers::TIPG, GAPS);
        write(registers::TIDV, TRANSMIT_DELAY);
        write(registers::TADV, TRANSMIT_DELAY_MOST);
        let flags = Tctl::EN | Tctl::PSP | Tctl::RTLC;
        let collisions = COLLISIONS << Tctl::CT_SHIFT | COLLISION_DISTANCE << Tctl::COLD_SHIFT;
        write(registers::TCTL, flags.bits() | collisions);
    }

    /// Starts the receive unit (14.4).
    fn start_receive(&self) {
        let write = |register, value| self.hardware.write(register, value);
        let (low, high) = halves(self.receive.address());
        write(registers::RDTR, RECEIVE_DELAY);
        write(registers::RADV, RECEIVE_DELAY_MOST);
        if let Some(interval) = self.throttling.first() {
            write(registers::ITR, interval);
        }
        write(registers::RDLEN, u32::from(RING) * DESCRIPTOR);
        write(registers::RDBAH, high);
        write(registers::RDBAL, low);
        write(registers::RDT, 0);
        write(registers::RDH, 0);
        write(registers::RXCSUM, if self.options.checksum { rxcsum::TUOFL } else { 0 });
        // Buffers of 2048 bytes, legacy descriptors, no loopback: all zero.
        let strip = if self.options.strip_fcs { Rctl::SECRC } else { Rctl::empty() };
        write(registers::RCTL, (Rctl::EN | Rctl::BAM | strip).bits());
        self.hardware.ring(registers::RDT, receive::FIRST_TAIL);
    }

    /// Reads STATUS; says whether the link is up.
    fn status(&mut self) -> bool {
        let status = self.hardware.flush();
        let there = status.bits() != GONE;
        self.gigabit = there && status.contains(Status::SPEED_1000);
        there && status.contains(Status::LU)
    }

    fn causes(&self) -> Cause {
        if self.transmit_interrupts { CAUSES | Cause::TXDW } else { CAUSES }
    }

    /// Enables the causes.
    fn arm(&mut self) {
        self.hardware.write(registers::IMS, self.causes().bits());
        self.armed = true;
        self.status();
    }

    /// Disables all causes.
    fn disarm(&mut self) {
        self.hardware.write(registers::IMC, u32::MAX);
        self.armed = false;
        self.status();
    }
}

/// [`DESCRIPTOR_LEN`], for registers.
const DESCRIPTOR: u32 = 16;
const _: () = assert!(DESCRIPTOR as usize == DESCRIPTOR_LEN);

impl<P: Platform> Nic for E1000<'_, P> {
    fn address(&self) -> [u8; 6] {
        self.address
    }

    fn link_up(&mut self) -> bool {
        self.status()
    }

    fn offers(&self) -> Offers {
        Offers {
            checksum: self.options.checksum,
            segmentation: self.options.segmentation,
            large_receive: false,
        }
    }

    fn depth(&self) -> u16 {
        transmit::DEPTH
    }

    fn room(&self, len: usize, task: Task) -> usize {
        self.transmit.room(len, task)
    }

    fn transmit(
        &mut self,
        tag: u16,
        frame: &DmaRegion,
        len: usize,
        task: Task,
    ) -> Result<(), Error> {
        self.offers().check(task)?;
        self.transmit.push(tag, frame, len, task)
    }

    fn kick(&mut self) -> Result<(), Error> {
        if let Some(tail) = self.transmit.tell() {
            self.hardware.ring(registers::TDT, tail);
        }
        Ok(())
    }

    fn reclaim(&mut self, done: impl FnMut(u16)) -> Result<(), Error> {
        self.transmit.reclaim(&mut self.throttling.sent, done);
        Ok(())
    }

    fn receive(&mut self, limit: u16, visit: impl FnMut(Arrival<'_>)) -> Result<u16, Error> {
        let tell = |tail| self.hardware.ring(registers::RDT, tail);
        self.receive.receive(limit, &mut self.throttling.received, tell, visit)
    }

    fn set_refill(&mut self, buffers: u16) {
        self.receive.set_refill(buffers);
    }

    fn set_interrupts(&mut self, on: bool) -> Result<(), Error> {
        if on {
            if !self.connected {
                self.hardware.connect(self.options.interrupt)?;
                self.connected = true;
            }
            // Causes that there were before interrupt now: what they are about may not have been seen.
            self.arm();
        } else {
            self.disarm();
            // One that was taken and not handled must not keep later ones away.
            self.hardware.platform.end_of_interrupt(self.options.interrupt);
        }
        self.interrupts = on;
        Ok(())
    }

    fn set_transmit_interrupts(&mut self, on: bool) {
        if self.transmit_interrupts == on {
            return;
        }
        self.transmit_interrupts = on;
        // Otherwise it takes effect when causes are enabled again.
        if self.armed {
            let register = if on { registers::IMS } else { registers::IMC };
            self.hardware.write(register, Cause::TXDW.bits());
        }
    }

    fn begin(&mut self) -> Result<bool, Error> {
        let causes = self.hardware.read(registers::ICR);
        if causes == GONE {
            return Err(Error::Protocol("its registers are gone"));
        }
        let ours = causes != 0;
        if ours {
            self.disarm();
            self.throttling.begin();
            self.begun = true;
        }
        self.hardware.platform.end_of_interrupt(self.options.interrupt);
        Ok(ours)
    }

    fn end(&mut self) -> Result<bool, Error> {
        if let Some(interval) = self.throttling.end(self.gigabit) {
            self.hardware.write(registers::ITR, interval);
        }
        if self.interrupts {
            self.arm();
        }
        // One may have come that nobody began to handle, as frames were looked for without it.
        if !core::mem::take(&mut self.begun) {
            self.hardware.platform.end_of_interrupt(self.options.interrupt);
        }
        // Causes that came meanwhile are kept, and interrupt now.
        Ok(false)
    }

    fn interrupt(&self) -> u8 {
        self.options.interrupt
    }

    fn accesses(&self) -> Accesses {
        self.hardware.window().accesses()
    }

    fn shutdown(&mut self) -> Result<(), Error> {
        self.disarm();
        self.hardware.disconnect();
        self.hardware.platform.end_of_interrupt(self.options.interrupt);
        (self.connected, self.interrupts) = (false, false);
        self.hardware.reset()?;
        self.transmit.forget();
        Ok(())
    }
}
