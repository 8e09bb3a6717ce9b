//! Offsets of the registers in both BARs, in bytes, and the commands.

/// In the PT BAR: IMR, interrupt mask of interrupt 0: 1 masks, 0 lets through. The next interrupt's
/// is [`STRIDE`] further.
pub const IMR: u64 = 0x000;
/// In the PT BAR: TXPROD, index of the next descriptor that the driver will fill in transmit queue
/// 0's ring. The next queue's is [`STRIDE`] further.
pub const TXPROD: u64 = 0x600;
/// In the PT BAR: RXPROD, the same for the first ring of receive queue 0.
pub const RXPROD: u64 = 0x800;
/// In the PT BAR: RXPROD2, the same for the second ring of receive queue 0.
pub const RXPROD2: u64 = 0xa00;
/// From a register to the next of the same kind, in bytes.
pub const STRIDE: u64 = 8;

/// In the VD BAR: VRRS, revisions: reading tells those offered, a bit each; writing the bit selects.
/// What was selected outlives [`command::RESET_DEV`].
pub const VRRS: u64 = 0x00;
/// In the VD BAR: UVRS, versions of UPT, likewise.
pub const UVRS: u64 = 0x08;
/// In the VD BAR: DSAL, physical address of [`DriverShared`](super::DriverShared), bits 31:0.
pub const DSAL: u64 = 0x10;
/// In the VD BAR: DSAH, bits 63:32 of the address.
pub const DSAH: u64 = 0x18;
/// In the VD BAR: CMD: writing gives a [`command`], reading tells how the last one ended.
pub const CMD: u64 = 0x20;
/// In the VD BAR: MACL, bytes 0 to 3 of the station address, the first in bits 7:0.
pub const MACL: u64 = 0x28;
/// In the VD BAR: MACH, bytes 4 and 5 of the station address, in bits 15:0.
pub const MACH: u64 = 0x30;
/// In the VD BAR: ICR, interrupt cause: of INTx alone, 1 while it is asserted. Reading clears it.
pub const ICR: u64 = 0x38;
/// In the VD BAR: ECR, event cause: writing ones clears the [`Events`](super::Events).
pub const ECR: u64 = 0x40;

/// Values of [`CMD`].
pub mod command {
    /// First of the commands that make the device do something.
    pub const FIRST_SET: u32 = 0xcafe_0000;
    /// Read [`DriverShared`](crate::vmxnet3::DriverShared) and start. Ends with 0, or an error.
    pub const ACTIVATE_DEV: u32 = FIRST_SET;
    /// Stop all queues.
    pub const QUIESCE_DEV: u32 = FIRST_SET + 1;
    /// Reset.
    pub const RESET_DEV: u32 = FIRST_SET + 2;
    /// Read the receive mode again.
    pub const UPDATE_RX_MODE: u32 = FIRST_SET + 3;
    /// Read the multicast table again.
    pub const UPDATE_MAC_FILTERS: u32 = FIRST_SET + 4;
    /// Read the VLAN table again.
    pub const UPDATE_VLAN_FILTERS: u32 = FIRST_SET + 5;
    /// Read RSS's indirection table again.
    pub const UPDATE_RSSIDT: u32 = FIRST_SET + 6;
    /// Read the interrupts' moderation levels again.
    pub const UPDATE_IML: u32 = FIRST_SET + 7;
    /// Read the power management configuration again.
    pub const UPDATE_PMCFG: u32 = FIRST_SET + 8;
    /// Read the features again.
    pub const UPDATE_FEATURE: u32 = FIRST_SET + 9;
    /// Load a plug-in, of passthrough.
    pub const LOAD_PLUGIN: u32 = FIRST_SET + 11;
    /// Set interrupt coalescing, from [`CmdInfo`](crate::vmxnet3::CmdInfo). Revision 3.
    pub const SET_COALESCE: u32 = FIRST_SET + 14;
    /// Register the memory that rings and buffers are in. Revision 3.
    pub const REGISTER_MEMREGS: u32 = FIRST_SET + 15;
    /// Set what RSS hashes of UDP and ESP. Revision 4.
    pub const SET_RSS_FIELDS: u32 = FIRST_SET + 16;

    /// First of the commands that are questions.
    pub const FIRST_GET: u32 = 0xf00d_0000;
    /// Write all queues' [`QueueStatus`](crate::vmxnet3::QueueStatus).
    pub const GET_QUEUE_STATUS: u32 = FIRST_GET;
    /// Write all queues' statistics.
    pub const GET_STATS: u32 = FIRST_GET + 1;
    /// The link: [`LINK_UP`](crate::vmxnet3::LINK_UP) and the speed.
    pub const GET_LINK: u32 = FIRST_GET + 2;
    /// The permanent station address, bytes 0 to 3, as in MACL.
    pub const GET_PERM_MAC_LO: u32 = FIRST_GET + 3;
    /// The permanent station address, bytes 4 and 5, as in MACH.
    pub const GET_PERM_MAC_HI: u32 = FIRST_GET + 4;
    /// The device's identity: its device ID.
    pub const GET_DID_LO: u32 = FIRST_GET + 5;
    /// The device's identity: its revision ID.
    pub const GET_DID_HI: u32 = FIRST_GET + 6;
    /// More about the device; nothing is known of it but 0.
    pub const GET_DEV_EXTRA_INFO: u32 = FIRST_GET + 7;
    /// The interrupts' kind and mask mode: [`interrupt`](crate::vmxnet3::interrupt).
    pub const GET_CONF_INTR: u32 = FIRST_GET + 8;
    /// Whether the device changes rings by itself:
    /// [`DISABLE_ADAPTIVE_RING`](crate::vmxnet3::DISABLE_ADAPTIVE_RING).
    pub const GET_ADAPTIVE_RING_INFO: u32 = FIRST_GET + 9;
    /// Bytes of a transmit data ring's entry that the device likes best, in bits 15:0. Revision 3.
    pub const GET_TXDATA_DESC_SIZE: u32 = FIRST_GET + 10;
    /// Write the present coalescing to where [`CmdInfo`](crate::vmxnet3::CmdInfo) says. Revision 3.
    pub const GET_COALESCE: u32 = FIRST_GET + 11;
    /// What RSS hashes of UDP and ESP. Revision 4.
    pub const GET_RSS_FIELDS: u32 = FIRST_GET + 12;
}
