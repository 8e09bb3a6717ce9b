//! Registers, in the memory that BAR 5 (ABAR) decodes.

use bitflags::bitflags;

/// Class code of an AHCI HBA (2.1.5): mass storage, SATA, AHCI 1.0.
pub const CLASS_CODE: [u8; 3] = [0x01, 0x06, 0x01];
/// The BAR that decodes the registers (2.1.11).
pub const ABAR: u8 = 5;
/// Most ports that an HBA can have.
pub const MAX_PORTS: usize = 32;
/// Most command slots that a port can have.
pub const MAX_SLOTS: usize = 32;
/// VS of an HBA that complies with 1.3.1 (3.1.5).
pub const VERSION_1_3_1: u32 = 0x0001_0301;

/// Offsets of the generic host control registers, in bytes (3.1). All are 32 bits wide.
pub mod host {
    /// HBA capabilities: [`super::Cap`] (3.1.1).
    pub const CAP: u32 = 0x00;
    /// Global HBA control: [`super::Ghc`] (3.1.2).
    pub const GHC: u32 = 0x04;
    /// Interrupt status, one bit a port, cleared by writing ones (3.1.3).
    pub const IS: u32 = 0x08;
    /// Ports implemented, one bit a port (3.1.4).
    pub const PI: u32 = 0x0c;
    /// Version (3.1.5).
    pub const VS: u32 = 0x10;
    /// Command completion coalescing control (3.1.6).
    pub const CCC_CTL: u32 = 0x14;
    /// Command completion coalescing ports (3.1.7).
    pub const CCC_PORTS: u32 = 0x18;
    /// Enclosure management location (3.1.8).
    pub const EM_LOC: u32 = 0x1c;
    /// Enclosure management control (3.1.9).
    pub const EM_CTL: u32 = 0x20;
    /// HBA capabilities extended: [`super::Cap2`] (3.1.10).
    pub const CAP2: u32 = 0x24;
    /// BIOS/OS handoff control and status (3.1.11).
    pub const BOHC: u32 = 0x28;
    /// First byte after the generic host control registers.
    pub const END: u32 = 0x2c;
}

/// Offset of port 0's registers (3.3).
pub const PORTS: u32 = 0x100;
/// Bytes of registers of one port (3.3).
pub const PORT_SIZE: u32 = 0x80;

/// Offset of a port's registers in ABAR, for a port below [`MAX_PORTS`].
pub const fn port_base(port: u8) -> u32 {
    PORTS + port as u32 * PORT_SIZE
}

/// Offsets of a port's registers from its base, in bytes (3.3). All are 32 bits wide.
pub mod port {
    /// Command list base address, 1 KiB aligned (3.3.1).
    pub const CLB: u32 = 0x00;
    /// Its upper half (3.3.2).
    pub const CLBU: u32 = 0x04;
    /// Received FIS base address, 256-byte aligned (3.3.3).
    pub const FB: u32 = 0x08;
    /// Its upper half (3.3.4).
    pub const FBU: u32 = 0x0c;
    /// Interrupt status: [`super::PortInterrupt`] (3.3.5).
    pub const IS: u32 = 0x10;
    /// Interrupt enable: [`super::PortInterrupt`] (3.3.6).
    pub const IE: u32 = 0x14;
    /// Command and status: [`super::PortCommand`] (3.3.7).
    pub const CMD: u32 = 0x18;
    /// Task file data: status in bits 7:0, error in bits 15:8 (3.3.8).
    pub const TFD: u32 = 0x20;
    /// Signature of the device (3.3.9).
    pub const SIG: u32 = 0x24;
    /// SStatus (3.3.10): [`super::ssts`].
    pub const SSTS: u32 = 0x28;
    /// SControl (3.3.11): [`super::sctl`].
    pub const SCTL: u32 = 0x2c;
    /// SError (3.3.12): [`super::PortError`].
    pub const SERR: u32 = 0x30;
    /// SActive, one bit a tag, set by writing ones (3.3.13).
    pub const SACT: u32 = 0x34;
    /// Command issue, one bit a slot, set by writing ones (3.3.14).
    pub const CI: u32 = 0x38;
    /// SNotification (3.3.15).
    pub const SNTF: u32 = 0x3c;
    /// FIS-based switching control (3.3.16).
    pub const FBS: u32 = 0x40;
    /// Device sleep (3.3.17).
    pub const DEVSLP: u32 = 0x44;
}

bitflags! {
    /// CAP, HBA capabilities (3.1.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Cap: u32 {
        /// SXS: external SATA.
        const SXS = 1 << 5;
        /// EMS: enclosure management.
        const EMS = 1 << 6;
        /// CCCS: command completion coalescing.
        const CCCS = 1 << 7;
        /// PSC: partial state capable.
        const PSC = 1 << 13;
        /// SSC: slumber state capable.
        const SSC = 1 << 14;
        /// PMD: PIO data-in of more than one block per data request.
        const PMD = 1 << 15;
        /// FBSS: FIS-based switching.
        const FBSS = 1 << 16;
        /// SPM: port multipliers.
        const SPM = 1 << 17;
        /// SAM: AHCI mode only, no legacy task file interface.
        const SAM = 1 << 18;
        /// SCLO: command list override.
        const SCLO = 1 << 24;
        /// SAL: activity LED.
        const SAL = 1 << 25;
        /// SALP: aggressive link power management.
        const SALP = 1 << 26;
        /// SSS: staggered spin-up.
        const SSS = 1 << 27;
        /// SMPS: mechanical presence switch.
        const SMPS = 1 << 28;
        /// SSNTF: SNotification register.
        const SSNTF = 1 << 29;
        /// SNCQ: native command queuing.
        const SNCQ = 1 << 30;
        /// S64A: 64-bit addresses.
        const S64A = 1 << 31;
    }
}

impl Cap {
    /// NP: number of ports, minus one.
    pub const NP: u32 = 0x1f;
    /// NCS: number of command slots, minus one.
    pub const NCS: u32 = 0x1f << 8;
    /// Shift of NCS.
    pub const NCS_SHIFT: u32 = 8;
    /// ISS: fastest interface speed, as in SStatus's SPD.
    pub const ISS: u32 = 0xf << 20;
    /// Shift of ISS.
    pub const ISS_SHIFT: u32 = 20;
}

bitflags! {
    /// GHC, global HBA control (3.1.2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ghc: u32 {
        /// HR: writing one resets the HBA; reads one until that is done.
        const HR = 1 << 0;
        /// IE: interrupt enable.
        const IE = 1 << 1;
        /// MRSM: MSI reverted to a single message.
        const MRSM = 1 << 2;
        /// AE: AHCI enable.
        const AE = 1 << 31;
    }
}

bitflags! {
    /// CAP2, HBA capabilities extended (3.1.10).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Cap2: u32 {
        /// BOH: BIOS/OS handoff.
        const BOH = 1 << 0;
        /// NVMP: NVMHCI present.
        const NVMP = 1 << 1;
        /// APST: automatic partial to slumber transitions.
        const APST = 1 << 2;
        /// SDS: device sleep.
        const SDS = 1 << 3;
    }
}

bitflags! {
    /// PxIS and PxIE, a port's interrupt causes (3.3.5, 3.3.6).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PortInterrupt: u32 {
        /// DHRS: a D2H register FIS with the interrupt bit came.
        const DHRS = 1 << 0;
        /// PSS: a PIO setup FIS with the interrupt bit came and its data was moved.
        const PSS = 1 << 1;
        /// DSS: a DMA setup FIS with the interrupt bit came.
        const DSS = 1 << 2;
        /// SDBS: a set device bits FIS with the interrupt bit came.
        const SDBS = 1 << 3;
        /// UFS: an unknown FIS came; follows PxSERR.DIAG.F.
        const UFS = 1 << 4;
        /// DPS: a PRD entry with its interrupt bit was used up.
        const DPS = 1 << 5;
        /// PCS: the connection changed; follows PxSERR.DIAG.X.
        const PCS = 1 << 6;
        /// DMPS: the mechanical presence switch moved.
        const DMPS = 1 << 7;
        /// PRCS: the PhyRdy signal changed; follows PxSERR.DIAG.N.
        const PRCS = 1 << 22;
        /// IPMS: a FIS came from a wrong port multiplier port.
        const IPMS = 1 << 23;
        /// OFS: more data than the PRD table has room for.
        const OFS = 1 << 24;
        /// INFS: interface error, not fatal.
        const INFS = 1 << 26;
        /// IFS: interface error, fatal.
        const IFS = 1 << 27;
        /// HBDS: data error at the host bus.
        const HBDS = 1 << 28;
        /// HBFS: an address that the host bus does not know.
        const HBFS = 1 << 29;
        /// TFES: the device set ERR in its status.
        const TFES = 1 << 30;
        /// CPDS: cold presence detect changed.
        const CPDS = 1 << 31;
    }
}

impl PortInterrupt {
    /// Bits that only follow another register and cannot be cleared here.
    pub const DERIVED: Self = Self::UFS.union(Self::PCS).union(Self::PRCS);
}

bitflags! {
    /// PxCMD, a port's command and status (3.3.7).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PortCommand: u32 {
        /// ST: process the command list.
        const ST = 1 << 0;
        /// SUD: spin the device up.
        const SUD = 1 << 1;
        /// POD: power the device on.
        const POD = 1 << 2;
        /// CLO: clear BSY and DRQ in PxTFD; clears itself.
        const CLO = 1 << 3;
        /// FRE: post received FISes to memory.
        const FRE = 1 << 4;
        /// MPSS: state of the mechanical presence switch.
        const MPSS = 1 << 13;
        /// FR: the FIS receive engine runs.
        const FR = 1 << 14;
        /// CR: the command list engine runs.
        const CR = 1 << 15;
        /// CPS: cold presence state.
        const CPS = 1 << 16;
        /// PMA: a port multiplier is attached.
        const PMA = 1 << 17;
        /// HPCP: hot plug capable.
        const HPCP = 1 << 18;
        /// ESP: external SATA port.
        const ESP = 1 << 21;
        /// ATAPI: the device is ATAPI, for the activity LED.
        const ATAPI = 1 << 24;
        /// DLAE: drive the LED for ATAPI devices too.
        const DLAE = 1 << 25;
        /// ALPE: aggressive link power management.
        const ALPE = 1 << 26;
        /// ASP: aggressively go to slumber rather than partial.
        const ASP = 1 << 27;
    }
}

impl PortCommand {
    /// CCS: the command slot being processed.
    pub const CCS: u32 = 0x1f << 8;
    /// Shift of CCS.
    pub const CCS_SHIFT: u32 = 8;
    /// ICC: interface power state asked for.
    pub const ICC: u32 = 0xf << 28;
    /// ICC: active, in place.
    pub const ICC_ACTIVE: u32 = 1 << 28;
}

/// Fields of PxSSTS (3.3.10).
pub mod ssts {
    /// DET: detection.
    pub const DET: u32 = 0xf;
    /// DET: nothing is attached.
    pub const DET_NONE: u32 = 0;
    /// DET: a device is there, without communication.
    pub const DET_PRESENT: u32 = 1;
    /// DET: a device is there and the link is up.
    pub const DET_ESTABLISHED: u32 = 3;
    /// DET: the Phy is off.
    pub const DET_OFFLINE: u32 = 4;
    /// SPD: negotiated speed.
    pub const SPD: u32 = 0xf << 4;
    /// SPD: generation 1, 1.5 Gb/s; the next ones follow.
    pub const SPD_GEN1: u32 = 1 << 4;
    /// SPD: generation 3, 6 Gb/s.
    pub const SPD_GEN3: u32 = 3 << 4;
    /// IPM: interface power state.
    pub const IPM: u32 = 0xf << 8;
    /// IPM: active.
    pub const IPM_ACTIVE: u32 = 1 << 8;
}

/// Fields of PxSCTL (3.3.11).
pub mod sctl {
    /// DET: detection initialisation.
    pub const DET: u32 = 0xf;
    /// DET: nothing asked for.
    pub const DET_NONE: u32 = 0;
    /// DET: COMRESET, for as long as it is written there.
    pub const DET_COMRESET: u32 = 1;
    /// DET: the Phy is to be off.
    pub const DET_OFFLINE: u32 = 4;
    /// SPD: fastest speed allowed, 0 for any.
    pub const SPD: u32 = 0xf << 4;
    /// Shift of SPD.
    pub const SPD_SHIFT: u32 = 4;
    /// IPM: power states that are not allowed.
    pub const IPM: u32 = 0xf << 8;
}

bitflags! {
    /// PxSERR, SError (3.3.12).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct PortError: u32 {
        /// ERR.I: recovered data integrity error.
        const ERR_I = 1 << 0;
        /// ERR.M: recovered communication error.
        const ERR_M = 1 << 1;
        /// ERR.T: transient data integrity error.
        const ERR_T = 1 << 8;
        /// ERR.C: persistent communication or data integrity error.
        const ERR_C = 1 << 9;
        /// ERR.P: protocol error.
        const ERR_P = 1 << 10;
        /// ERR.E: internal error.
        const ERR_E = 1 << 11;
        /// DIAG.N: PhyRdy changed.
        const DIAG_N = 1 << 16;
        /// DIAG.I: Phy internal error.
        const DIAG_I = 1 << 17;
        /// DIAG.W: COMWAKE was seen.
        const DIAG_W = 1 << 18;
        /// DIAG.B: 10B to 8B decode error.
        const DIAG_B = 1 << 19;
        /// DIAG.C: CRC error.
        const DIAG_C = 1 << 21;
        /// DIAG.H: handshake error.
        const DIAG_H = 1 << 22;
        /// DIAG.S: link sequence error.
        const DIAG_S = 1 << 23;
        /// DIAG.T: transport state transition error.
        const DIAG_T = 1 << 24;
        /// DIAG.F: unknown FIS.
        const DIAG_F = 1 << 25;
        /// DIAG.X: COMINIT was seen, a device was exchanged.
        const DIAG_X = 1 << 26;
    }
}

/// PxSIG of an ATA device.
pub const SIGNATURE_ATA: u32 = 0x0000_0101;
/// PxSIG of an ATAPI device.
pub const SIGNATURE_ATAPI: u32 = 0xeb14_0101;
/// PxSIG before a device has sent its signature.
pub const SIGNATURE_NONE: u32 = 0xffff_ffff;
