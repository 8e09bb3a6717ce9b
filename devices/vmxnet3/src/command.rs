//! Commands.

use std::mem::offset_of;

use paraslot_device::{DmaSpace, Memory};
use paraslot_spec::vmxnet3::{
    CmdInfo, CoalesceScheme, DEVICE_VMXNET3, DISABLE_ADAPTIVE_RING, DSDevRead, DriverShared,
    Features, IntrConf, LINK_SPEED_SHIFT, LINK_UP, MiscConf, QueueStatus, REVISION_3, REVISION_ID,
    RxFilterConf, RxMode, RxQueueDesc, TxQueueDesc, VFT_SIZE, VariableLenConfDesc, command,
    interrupt,
};
use vm_memory::{Bytes, GuestAddress};
use zerocopy::{IntoBytes, little_endian};

use crate::activate::{
    self, Intrs, Refused, Terms, read, read_multicast, read_rss, read_variable, rx_desc, tx_desc,
};
use crate::device::Vmxnet3;
use crate::irq::Scheme;
use crate::shared::lock;
use crate::state::Active;

/// A command is not known, or could not be carried out.
const FAILED: u32 = u32::MAX;
const DONE: u32 = 0;
/// Mb/s that the link is said to have, as on VMware's hosts.
const SPEED: u32 = 10_000;
/// Bytes of a transmit data ring's entry that are enough for all headers that are looked at.
const TXDATA_DESC_SIZE: u32 = 256;
/// Ranges that a driver may register.
const MOST_REGIONS: u16 = 256;

/// Offsets in `DriverShared`.
const READ_AT: usize = offset_of!(DriverShared, dev_read);
const FEATURES_AT: usize =
    READ_AT + offset_of!(DSDevRead, misc) + offset_of!(MiscConf, upt_features);
const FILTER_AT: usize = READ_AT + offset_of!(DSDevRead, rx_filter_conf);
const INTR_AT: usize = READ_AT + offset_of!(DSDevRead, intr_conf);
const RSS_AT: usize = READ_AT + offset_of!(DSDevRead, rss_conf_desc);
const INFO_AT: usize = offset_of!(DriverShared, cmd_info);

fn done(right: bool) -> u32 {
    if right { DONE } else { FAILED }
}

impl<A: DmaSpace> Vmxnet3<A> {
    /// Carries out a command; returns what CMD reads then.
    pub(crate) fn command(&mut self, command: u32) -> u32 {
        let [a, b, c, d, e, f] = self.registers.permanent;
        let revision_3 = self.registers.revision >= REVISION_3;
        match command {
            command::ACTIVATE_DEV => self.activate(),
            command::QUIESCE_DEV => {
                self.deactivate();
                DONE
            }
            command::RESET_DEV => {
                self.initialise();
                DONE
            }
            command::UPDATE_RX_MODE => done(self.update(update_rx_mode).is_some()),
            command::UPDATE_MAC_FILTERS => done(self.update(update_mac_filters).is_some()),
            command::UPDATE_VLAN_FILTERS => done(self.update(update_vlan_filters).is_some()),
            command::UPDATE_RSSIDT => done(self.update(update_rss).is_some()),
            command::UPDATE_IML => done(self.update_levels().is_some()),
            command::UPDATE_FEATURE => done(self.update_features().is_some()),
            // There is nothing that could wake the guest.
            command::UPDATE_PMCFG => DONE,
            command::SET_COALESCE if revision_3 => done(self.set_coalesce().is_some()),
            command::GET_COALESCE if revision_3 => done(self.get_coalesce().is_some()),
            command::REGISTER_MEMREGS if revision_3 => done(self.register_memory().is_some()),
            command::GET_QUEUE_STATUS => done(self.write_queues(write_status).is_some()),
            command::GET_STATS => done(self.write_stats().is_some()),
            command::GET_LINK if self.shared.link_up() => LINK_UP | SPEED << LINK_SPEED_SHIFT,
            command::GET_LINK => 0,
            command::GET_PERM_MAC_LO => u32::from_le_bytes([a, b, c, d]),
            command::GET_PERM_MAC_HI => u16::from_le_bytes([e, f]).into(),
            command::GET_DID_LO => DEVICE_VMXNET3.into(),
            command::GET_DID_HI => REVISION_ID.into(),
            command::GET_DEV_EXTRA_INFO => 0,
            // Masked when they are raised: that spares the driver a write to a register.
            command::GET_CONF_INTR => {
                interrupt::IT_AUTO | interrupt::IMM_AUTO << interrupt::IMM_SHIFT
            }
            command::GET_ADAPTIVE_RING_INFO => DISABLE_ADAPTIVE_RING,
            command::GET_TXDATA_DESC_SIZE if revision_3 => TXDATA_DESC_SIZE,
            _ => FAILED,
        }
    }

    /// Starts. A device that is active already starts anew (CVE-2015-8567: nothing is left of before).
    fn activate(&mut self) -> u32 {
        self.deactivate();
        match self.try_activate() {
            Ok(()) => {
                self.shared.ring_all();
                DONE
            }
            Err(refused) => refused as u32,
        }
    }

    fn try_activate(&mut self) -> Result<(), Refused> {
        let memory = self.dma.memory().ok_or(Refused::Memory)?;
        let [low, high] = self.registers.address;
        self.registers.epoch = self.registers.epoch.wrapping_add(1);
        let terms = Terms {
            shared: u64::from(high) << 32 | u64::from(low),
            revision: self.registers.revision,
            epoch: self.registers.epoch,
            scheme: self.registers.scheme,
        };
        let (active, auto_mask) = activate::activate(&memory, &terms)?;
        self.shared.irq.configure(auto_mask, &active.policies());
        self.set_backend(&active);
        self.shared.change().active = Some(active);
        Ok(())
    }

    /// Changes what an active device has set up, between two rounds of work.
    fn update<R>(
        &mut self,
        change: impl FnOnce(&mut Active, &Memory<A>) -> Option<R>,
    ) -> Option<R> {
        let mut state = self.shared.change();
        let memory = self.dma.memory()?;
        let result = change(state.active.as_mut()?, &memory);
        drop(state);
        self.shared.ring_all();
        result
    }

    fn update_levels(&mut self) -> Option<()> {
        let policies = self.update(|active, memory| {
            let conf: IntrConf = read(memory, at(active, INTR_AT))?;
            active.levels = Intrs::new(&conf)?.levels;
            Some(active.policies())
        })?;
        self.shared.hold(self.shared.irq.moderate(&policies));
        Some(())
    }

    fn update_features(&mut self) -> Option<()> {
        let offloads = self.update(|active, memory| {
            let features: little_endian::U64 = read(memory, at(active, FEATURES_AT))?;
            let features = Features::from_bits_truncate(features.get());
            if !features.contains(Features::RSS) {
                active.rss = None;
            } else if active.rss.is_none() {
                update_rss_of(active, memory)?;
            }
            active.features = features;
            Some(active.offloads())
        })?;
        let _ = self.backend.set_receive_offloads(offloads);
        Some(())
    }

    fn set_coalesce(&mut self) -> Option<()> {
        let scheme = self.update(|active, memory| {
            let CmdInfo { var_conf } = read(memory, at(active, INFO_AT))?;
            let scheme: CoalesceScheme = read_variable(memory, &var_conf)?;
            active.scheme = Scheme::of(&scheme)?;
            Some((active.scheme, active.policies()))
        });
        let (scheme, policies) = scheme?;
        self.registers.scheme = scheme;
        self.shared.hold(self.shared.irq.moderate(&policies));
        Some(())
    }

    fn get_coalesce(&mut self) -> Option<()> {
        self.update(|active, memory| {
            let CmdInfo { var_conf } = read(memory, at(active, INFO_AT))?;
            let told = active.scheme.told();
            let whole = u64::from(var_conf.conf_len.get()) >= size_of_val(&told) as u64;
            let place = GuestAddress(var_conf.conf_pa.get());
            let right = whole && var_conf.conf_ver.get() == 1;
            right.then(|| memory.write_slice(told.as_bytes(), place).ok())?
        })
    }

    /// The driver tells where its rings and buffers are. All memory is within reach anyway.
    fn register_memory(&mut self) -> Option<()> {
        self.update(|active, memory| {
            let CmdInfo { var_conf } = read(memory, at(active, INFO_AT))?;
            let regions: [little_endian::U16; 4] = read_variable(memory, &var_conf)?;
            (regions[0].get() <= MOST_REGIONS).then_some(())
        })
    }

    /// Writes something to each queue's descriptor.
    fn write_queues(
        &mut self,
        write: impl FnOnce(&Active, &Memory<A>) -> Option<()>,
    ) -> Option<()> {
        // Between two rounds of work.
        let state = self.shared.change();
        // QEMU eedeeeffd4: what is not active has no queue descriptors.
        let (active, memory) = (state.active.as_ref()?, self.dma.memory()?);
        write(active, &memory)
    }

    fn write_stats(&mut self) -> Option<()> {
        let shared = self.shared.clone();
        self.write_queues(|active, memory| {
            for index in 0..active.tx.len() {
                let place = tx_desc(active.queues, index) + offset_of!(TxQueueDesc, stats) as u64;
                let stats = shared.statistics.transmit(index).transmitted();
                memory.write_slice(stats.as_bytes(), GuestAddress(place)).ok()?;
            }
            for index in 0..active.rx.len() {
                let place = rx_desc(active.queues, active.tx.len(), index);
                let place = place + offset_of!(RxQueueDesc, stats) as u64;
                let stats = shared.statistics.receive(index).received();
                memory.write_slice(stats.as_bytes(), GuestAddress(place)).ok()?;
            }
            Some(())
        })
    }
}

/// Where something in `DriverShared` is, which does not wrap: all of it was read.
fn at(active: &Active, offset: usize) -> u64 {
    active.shared.wrapping_add(offset as u64)
}

fn update_rx_mode<A: DmaSpace>(active: &mut Active, memory: &Memory<A>) -> Option<()> {
    let place = at(active, FILTER_AT + offset_of!(RxFilterConf, rx_mode));
    let mode: little_endian::U32 = read(memory, place)?;
    active.filter.mode = RxMode::from_bits_truncate(mode.get());
    Some(())
}

fn update_mac_filters<A: DmaSpace>(active: &mut Active, memory: &Memory<A>) -> Option<()> {
    let len: little_endian::U16 =
        read(memory, at(active, FILTER_AT + offset_of!(RxFilterConf, mf_table_len)))?;
    let address: little_endian::U64 =
        read(memory, at(active, FILTER_AT + offset_of!(RxFilterConf, mf_table_pa)))?;
    read_multicast(memory, address.get(), len.get(), &mut active.filter).then_some(())
}

fn update_vlan_filters<A: DmaSpace>(active: &mut Active, memory: &Memory<A>) -> Option<()> {
    let table: [little_endian::U32; VFT_SIZE] =
        read(memory, at(active, FILTER_AT + offset_of!(RxFilterConf, vf_table)))?;
    active.filter.set_vlans(table.map(|word| word.get()));
    Some(())
}

/// Reads receive-side scaling anew, if it is on.
fn update_rss<A: DmaSpace>(active: &mut Active, memory: &Memory<A>) -> Option<()> {
    if active.rss.is_some() { update_rss_of(active, memory) } else { None }
}

fn update_rss_of<A: DmaSpace>(active: &mut Active, memory: &Memory<A>) -> Option<()> {
    let desc: VariableLenConfDesc = read(memory, at(active, RSS_AT))?;
    active.rss = Some(read_rss(memory, &desc, active.rx.len())?);
    Some(())
}

/// Tells which queues have stopped, and why.
fn write_status<A: DmaSpace>(active: &Active, memory: &Memory<A>) -> Option<()> {
    let write = |place: u64, stopped: Option<u32>| {
        let mut status = QueueStatus::default();
        status.stopped = stopped.is_some().into();
        status.error = stopped.unwrap_or(0).into();
        memory.write_slice(status.as_bytes(), GuestAddress(place)).ok()
    };
    for (index, queue) in active.tx.iter().enumerate() {
        let place = tx_desc(active.queues, index) + offset_of!(TxQueueDesc, status) as u64;
        write(place, lock(queue).stopped())?;
    }
    for (index, queue) in active.rx.iter().enumerate() {
        let place = rx_desc(active.queues, active.tx.len(), index);
        write(place + offset_of!(RxQueueDesc, status) as u64, lock(queue).stopped())?;
    }
    Some(())
}
