//! What accesses to registers do, beyond what the table says.

use paraslot_device::DmaSpace;
use paraslot_spec::e1000::registers::*;
use paraslot_spec::e1000::{Cause, Ctrl, CtrlExt, Mdic, Rctl, phy, statistics};

use crate::device::E1000;
use crate::registers::{find, transmit_share};
use crate::shared::{Shared, lock};

impl<A: DmaSpace> E1000<A> {
    /// Reads the register at `offset`.
    pub(crate) fn read(&mut self, offset: u32) -> u32 {
        let Shared { bank, irq, .. } = &*self.shared;
        match offset {
            ICR => irq.take(),
            // Write only, says the manual; the hardware shows the causes, and drivers look.
            ICS => irq.causes(),
            IMS => irq.mask(),
            ITR => irq.interval(),
            STATUS => self.shared.status(),
            CTRL_DUP => bank.get(CTRL),
            EECD => self.eeprom.eecd(),
            statistics::FIRST..statistics::END => self.shared.statistics.read(offset),
            _ => bank.get(offset),
        }
    }

    /// Writes the lanes `lanes` of the register at `offset`; `value` is zero elsewhere.
    pub(crate) fn write(&mut self, offset: u32, value: u32, lanes: u32) {
        let Shared { bank, irq, bell, .. } = &*self.shared;
        let merged = |old: u32| old & !lanes | value;
        // Whether the worker has to set its timer.
        let put_off = match offset {
            TDT => {
                bank.set(TDT, merged(bank.get(TDT)) & INDEX);
                return bell.ring();
            }
            RDT => {
                bank.set(RDT, merged(bank.get(RDT)) & INDEX);
                return self.shared.refilled();
            }
            ICR => {
                irq.clear(value);
                false
            }
            IMC => {
                irq.mask_out(value);
                false
            }
            ICS => irq.raise(value),
            IMS => irq.unmask(value),
            ITR => irq.set_interval(merged(irq.interval()) & DELAY),
            CTRL | CTRL_DUP => return self.write_ctrl(merged(bank.get(CTRL))),
            CTRL_EXT => return self.write_ctrl_ext(value, lanes),
            EECD => return self.eeprom.write_eecd(merged(self.eeprom.eecd())),
            EERD => {
                let value = merged(bank.get(EERD));
                return bank.set(EERD, self.eeprom.read(value));
            }
            MDIC => return self.write_mdic(merged(bank.get(MDIC)), lanes),
            _ => return self.write_table(offset, value, lanes),
        };
        if put_off {
            bell.ring();
        }
    }

    /// A register that keeps what is written to it, and what follows from that.
    fn write_table(&mut self, offset: u32, value: u32, lanes: u32) {
        let Some(register) = find(offset) else { return };
        let bank = &self.shared.bank;
        let mut new = register.written(bank.get(offset), value, lanes);
        match offset {
            RCTL => {
                let mut engine = lock(&self.engine);
                bank.set(RCTL, new);
                if new & Rctl::EN.bits() == 0 {
                    engine.receive().restart();
                }
            }
            // Once transmission is switched off, nothing is sent any more.
            TCTL => {
                let _engine = lock(&self.engine);
                bank.set(TCTL, new);
            }
            RDBAL | RDBAH | RDLEN | RDH => {
                let mut engine = lock(&self.engine);
                bank.set(offset, new);
                engine.receive().restart();
            }
            TDBAL | TDBAH | TDLEN | TDH => {
                let mut engine = lock(&self.engine);
                bank.set(offset, new);
                engine.transmit().restart();
            }
            RDTR | TIDV => {
                bank.set(offset, new);
                if value & FLUSH != 0 {
                    self.flush(offset);
                }
                return;
            }
            _ => {
                if offset == PBA {
                    let receive = new & register.writable;
                    new = receive | transmit_share(receive);
                }
                return bank.set(offset, new);
            }
        }
        self.shared.bell.ring();
    }

    /// Raises at once the interrupt that is being delayed.
    fn flush(&self, offset: u32) {
        let mut engine = lock(&self.engine);
        let (delay, cause) = if offset == RDTR {
            (engine.receive().delay(), Cause::RXT0)
        } else {
            (engine.transmit().delay(), Cause::TXDW)
        };
        if delay.cancel() && self.shared.irq.raise(cause.bits()) {
            self.shared.bell.ring();
        }
    }

    fn write_ctrl(&mut self, value: u32) {
        let ctrl = Ctrl::from_bits_truncate(value);
        if ctrl.contains(Ctrl::RST) {
            return self.initialise(false);
        }
        self.shared.bank.set(CTRL, ctrl.bits());
        let changed = self.shared.phy(|phy| {
            let before = phy.link();
            phy.hold(ctrl.contains(Ctrl::PHY_RST));
            phy.link() != before
        });
        if changed {
            self.shared.link_changed();
        }
    }

    fn write_ctrl_ext(&mut self, value: u32, lanes: u32) {
        let Some(register) = find(CTRL_EXT) else { return };
        let bank = &self.shared.bank;
        bank.set(CTRL_EXT, register.written(bank.get(CTRL_EXT), value, lanes));
        if value & CtrlExt::EE_RST.bits() != 0 {
            self.shared.load_address(self.eeprom.address());
        }
    }

    /// An operation on the PHY, done at once (13.4.7). It starts when the byte with the opcode is
    /// written.
    fn write_mdic(&mut self, value: u32, lanes: u32) {
        let mut kept = value & (Mdic::DATA | Mdic::REGISTER | Mdic::PHY);
        kept |= value & (Mdic::WRITE | Mdic::READ | Mdic::INTERRUPT).bits();
        let [_, _, _, opcode] = lanes.to_le_bytes();
        if opcode == 0 {
            return self.shared.bank.set(MDIC, kept);
        }
        let operation = Mdic::from_bits_truncate(value) & (Mdic::READ | Mdic::WRITE);
        let [number, ..] = ((value & Mdic::REGISTER) >> Mdic::REGISTER_SHIFT).to_le_bytes();
        let [data_low, data_high, ..] = value.to_le_bytes();
        let here = (value & Mdic::PHY) >> Mdic::PHY_SHIFT == phy::ADDRESS;
        let mut changed = false;
        if here && operation == Mdic::READ {
            let data = self.shared.phy(|phy| phy.read(number));
            kept = kept & !Mdic::DATA | u32::from(data);
        } else if here && operation == Mdic::WRITE {
            let data = u16::from_le_bytes([data_low, data_high]);
            changed = self.shared.phy(|phy| phy.write(number, data));
        } else {
            kept |= Mdic::ERROR.bits();
        }
        self.shared.bank.set(MDIC, kept | Mdic::READY.bits());
        if changed {
            self.shared.link_changed();
        }
        if value & Mdic::INTERRUPT.bits() != 0 && self.shared.irq.raise(Cause::MDAC.bits()) {
            self.shared.bell.ring();
        }
    }
}
