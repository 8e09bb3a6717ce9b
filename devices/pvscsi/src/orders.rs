//! What the commands of the command register do.

use paraslot_device::DmaSpace;
use paraslot_scsi::{Address, Function, Status};
use paraslot_spec::pvscsi::{
    AbortCmd, Config, ConfigController, ConfigHeader, ResetDevice, command_status, config,
    host_status,
};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::IntoBytes;
use zerocopy::little_endian::U16;

use crate::command::Order;
use crate::device::Pvscsi;
use crate::engine::Extent;
use crate::request::lun_of;
use crate::shared::lock;

impl<A: DmaSpace> Pvscsi<A> {
    /// Carries out a command, before the register write that completes it is over.
    pub(crate) fn carry_out(&mut self, order: Order) {
        let done = match order {
            Order::AdapterReset => self.reset_adapter(),
            Order::SetupRings => {
                let descriptor = self.commands.descriptor();
                descriptor.is_some_and(|setup| lock(&self.engine).set_up_rings(&setup))
            }
            Order::ResetBus => self.reset_units(Function::ResetAll, None),
            Order::ResetDevice(reset) => self.reset_device(&reset),
            Order::Abort(abort) => self.abort(&abort),
            Order::Config(config) => self.show_config(&config),
            Order::SetupMsgRing(setup) => lock(&self.engine).set_up_messages(&setup),
            Order::SetupReqCall(setup) => {
                let wanted = setup.enable.get() != 0;
                lock(&self.engine).use_threshold(wanted);
                return self.commands.set_status(wanted.into());
            }
            Order::GetMaxTargets => {
                let targets = self.targets();
                return self.commands.set_status(targets);
            }
        };
        let status = if done { command_status::SUCCEEDED } else { command_status::FAILED };
        self.commands.set_status(status);
    }

    pub(crate) fn targets(&self) -> u32 {
        u32::from(self.bus.limits().target) + 1
    }

    /// Ends all requests, resets all units and forgets the rings. The driver finds in the completion
    /// ring what ended in time, and hears nothing of anything that comes after.
    fn reset_adapter(&mut self) -> bool {
        let done = self.manage([Function::ResetAll], Extent::AllQuietly);
        lock(&self.engine).forget();
        self.shared.irq.forget(false);
        done
    }

    fn reset_device(&mut self, reset: &ResetDevice) -> bool {
        let target = u8::try_from(reset.target.get()).ok();
        let (Some(target), Some(lun)) = (target, lun_of(reset.lun)) else { return false };
        let address = Address { target, lun };
        if self.bus.unit(address).is_none() {
            return false;
        }
        self.reset_units(Function::LogicalUnitReset(address), Some(address))
    }

    /// Linux's driver believes that a reset ended what it was to end, whatever the status says, and
    /// issues the same requests again: a completion that came later would end the wrong one.
    fn reset_units(&self, function: Function, unit: Option<Address>) -> bool {
        let done = self.manage([function], Extent::All);
        if !done {
            lock(&self.engine).give_up(unit);
        }
        done
    }

    /// A request that is not there has ended already, and the driver been told.
    fn abort(&mut self, abort: &AbortCmd) -> bool {
        let Ok(target) = u8::try_from(abort.target.get()) else { return false };
        let tag = abort.context.get();
        let address = lock(&self.engine).find(tag, target);
        let function = address.map(|address| Function::AbortTask { address, tag });
        self.manage(function, Extent::All)
    }

    /// Writes a configuration page.
    fn show_config(&mut self, config: &Config) -> bool {
        let Some(memory) = lock(&self.engine).memory() else { return false };
        let at = GuestAddress(config.completion.get());
        let controller = u64::from(config::address::CONTROLLER) << 32;
        if config.page.get() != config::CONTROLLER || config.address.get() != controller {
            let mut header = ConfigHeader::default();
            header.page = config.page;
            header.words.set(words::<ConfigHeader>());
            header.host_status.set(host_status::INVPARAM);
            header.scsi_status.set((Status::CheckCondition as u8).into());
            let _ = memory.write_slice(header.as_bytes(), at);
            return false;
        }
        let mut page = ConfigController::default();
        page.header.page = config.page;
        page.header.words.set(words::<ConfigController>());
        put(&mut page.manufacturer, "Paraslot");
        put(&mut page.hardware_version, "2");
        put(&mut page.firmware_version, env!("CARGO_PKG_VERSION"));
        page.phys.set(self.targets());
        memory.write_slice(page.as_bytes(), at).is_ok()
    }
}

/// Words of a page.
fn words<T>() -> u16 {
    u16::try_from(size_of::<T>() / 4).unwrap_or(u16::MAX)
}

/// `text` as UTF-16.
fn put(field: &mut [U16], text: &str) {
    for (to, from) in field.iter_mut().zip(text.encode_utf16()) {
        to.set(from);
    }
}
