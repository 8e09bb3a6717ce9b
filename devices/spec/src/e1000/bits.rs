//! What the bits of the registers mean (13.4).

use bitflags::bitflags;

bitflags! {
    /// CTRL, device control (13.4.1).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Ctrl: u32 {
        /// FD: full duplex.
        const FD = 1 << 0;
        /// PRIOR: receiving does not take precedence over transmitting.
        const PRIOR = 1 << 2;
        /// LRST: link reset, of controllers with a SerDes.
        const LRST = 1 << 3;
        /// ASDE: auto-speed detection.
        const ASDE = 1 << 5;
        /// SLU: set link up: the MAC follows the PHY's link indication.
        const SLU = 1 << 6;
        /// ILOS: invert loss of signal.
        const ILOS = 1 << 7;
        /// SPEED bit 0: 100 Mb/s, when forced.
        const SPEED_100 = 1 << 8;
        /// SPEED bit 1: 1000 Mb/s, when forced.
        const SPEED_1000 = 1 << 9;
        /// FRCSPD: force speed.
        const FRCSPD = 1 << 11;
        /// FRCDPLX: force duplex.
        const FRCDPLX = 1 << 12;
        /// SDP0_DATA: software definable pin 0.
        const SDP0_DATA = 1 << 18;
        /// SDP1_DATA: software definable pin 1.
        const SDP1_DATA = 1 << 19;
        /// ADVD3WUC: advertise wake-up from D3cold.
        const ADVD3WUC = 1 << 20;
        /// EN_PHY_PWR_MGMT: PHY power management.
        const EN_PHY_PWR_MGMT = 1 << 21;
        /// SDP0_IODIR: pin 0 is an output.
        const SDP0_IODIR = 1 << 22;
        /// SDP1_IODIR: pin 1 is an output.
        const SDP1_IODIR = 1 << 23;
        /// RST: device reset; clears itself.
        const RST = 1 << 26;
        /// RFCE: receive flow control.
        const RFCE = 1 << 27;
        /// TFCE: transmit flow control.
        const TFCE = 1 << 28;
        /// VME: VLAN mode: tags are stripped on receive, and inserted where a descriptor says so.
        const VME = 1 << 30;
        /// PHY_RST: PHY reset, for as long as it is set.
        const PHY_RST = 1 << 31;
    }
}

bitflags! {
    /// STATUS, device status (13.4.2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Status: u32 {
        /// FD: full duplex.
        const FD = 1 << 0;
        /// LU: link up.
        const LU = 1 << 1;
        /// TXOFF: transmission is paused.
        const TXOFF = 1 << 4;
        /// TBIMODE: SerDes rather than an internal PHY.
        const TBIMODE = 1 << 5;
        /// SPEED bit 0: 100 Mb/s.
        const SPEED_100 = 1 << 6;
        /// SPEED bit 1: 1000 Mb/s.
        const SPEED_1000 = 1 << 7;
        /// ASDV bit 0: auto-speed detection found 100 Mb/s.
        const ASDV_100 = 1 << 8;
        /// ASDV bit 1: auto-speed detection found 1000 Mb/s.
        const ASDV_1000 = 1 << 9;
        /// PCI66: on a 66 MHz bus.
        const PCI66 = 1 << 11;
        /// BUS64: on a 64-bit bus.
        const BUS64 = 1 << 12;
        /// PCIX_MODE: in PCI-X mode.
        const PCIX_MODE = 1 << 13;
    }
}

bitflags! {
    /// EECD, EEPROM and flash control (13.4.3).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Eecd: u32 {
        /// SK: the EEPROM's clock.
        const SK = 1 << 0;
        /// CS: chip select.
        const CS = 1 << 1;
        /// DI: data into the EEPROM.
        const DI = 1 << 2;
        /// DO: data out of the EEPROM, read only.
        const DO = 1 << 3;
        /// FWE bit 0: flash writes are disabled.
        const FWE_DISABLED = 1 << 4;
        /// FWE bit 1: flash writes are enabled.
        const FWE_ENABLED = 1 << 5;
        /// EE_REQ: software asks for the EEPROM.
        const REQ = 1 << 6;
        /// EE_GNT: software has it, read only.
        const GNT = 1 << 7;
        /// EE_PRES: there is an EEPROM, read only.
        const PRES = 1 << 8;
        /// EE_SIZE: of 4096 bits, rather than 1024; read only.
        const SIZE = 1 << 9;
    }
}

/// Fields of EERD, EEPROM read (13.4.4).
pub mod eerd {
    /// START: read; clears itself.
    pub const START: u32 = 1 << 0;
    /// DONE: the read is done, read only.
    pub const DONE: u32 = 1 << 4;
    /// ADDR: the word.
    pub const ADDRESS: u32 = 0xff << 8;
    /// Shift of ADDR.
    pub const ADDRESS_SHIFT: u32 = 8;
    /// Shift of DATA, bits 31:16.
    pub const DATA_SHIFT: u32 = 16;
}

bitflags! {
    /// CTRL_EXT, extended device control (13.4.6).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct CtrlExt: u32 {
        /// PHYINT_EN (GPI_EN bit 1): the PHY's interrupt is a cause.
        const PHYINT_EN = 1 << 1;
        /// SDP6's input is a cause.
        const GPI_EN2 = 1 << 2;
        /// SDP7's input is a cause.
        const GPI_EN3 = 1 << 3;
        /// The PHY's interrupt, read only.
        const PHYINT = 1 << 5;
        /// SDP6_DATA.
        const SDP6_DATA = 1 << 6;
        /// SDP7_DATA.
        const SDP7_DATA = 1 << 7;
        /// SDP6_IODIR: an output.
        const SDP6_IODIR = 1 << 10;
        /// SDP7_IODIR: an output.
        const SDP7_IODIR = 1 << 11;
        /// ASDCHK: start auto-speed detection; clears itself.
        const ASDCHK = 1 << 12;
        /// EE_RST: reset as if by power, and read the EEPROM again; clears itself.
        const EE_RST = 1 << 13;
        /// SPD_BYPS: speed select bypass.
        const SPD_BYPS = 1 << 15;
        /// RO_DIS: no relaxed ordering.
        const RO_DIS = 1 << 17;
    }
}

bitflags! {
    /// MDIC, MDI control, without its fields (13.4.7).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Mdic: u32 {
        /// OP: write the PHY's register.
        const WRITE = 1 << 26;
        /// OP: read it.
        const READ = 2 << 26;
        /// R: the operation is done.
        const READY = 1 << 28;
        /// I: interrupt when it is done.
        const INTERRUPT = 1 << 29;
        /// E: it failed.
        const ERROR = 1 << 30;
    }
}

impl Mdic {
    /// DATA: what was read or is to be written.
    pub const DATA: u32 = 0xffff;
    /// REGADD: the register, 5 bits.
    pub const REGISTER: u32 = 0x1f << 16;
    /// Shift of REGADD.
    pub const REGISTER_SHIFT: u32 = 16;
    /// PHYADD: the PHY, 5 bits; the internal one is [`phy::ADDRESS`](super::phy::ADDRESS).
    pub const PHY: u32 = 0x1f << 21;
    /// Shift of PHYADD.
    pub const PHY_SHIFT: u32 = 21;
}

bitflags! {
    /// Interrupt causes: ICR, ICS, IMS and IMC (13.4.17).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Cause: u32 {
        /// TXDW: transmit descriptor written back.
        const TXDW = 1 << 0;
        /// TXQE: transmit queue empty.
        const TXQE = 1 << 1;
        /// LSC: link status change.
        const LSC = 1 << 2;
        /// RXSEQ: receive sequence error.
        const RXSEQ = 1 << 3;
        /// RXDMT0: receive descriptors have reached their minimum threshold.
        const RXDMT0 = 1 << 4;
        /// RXO: receiver overrun.
        const RXO = 1 << 6;
        /// RXT0: receiver timer.
        const RXT0 = 1 << 7;
        /// MDAC: MDI access complete.
        const MDAC = 1 << 9;
        /// RXCFG: receiving /C/ ordered sets.
        const RXCFG = 1 << 10;
        /// PHYINT: the PHY.
        const PHYINT = 1 << 12;
        /// GPI of SDP6.
        const GPI_SDP6 = 1 << 13;
        /// GPI of SDP7.
        const GPI_SDP7 = 1 << 14;
        /// TXD_LOW: transmit descriptors have reached their low threshold.
        const TXD_LOW = 1 << 15;
        /// SRPD: small receive packet detected.
        const SRPD = 1 << 16;
    }
}

bitflags! {
    /// RCTL, receive control (13.4.22).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Rctl: u32 {
        /// EN: receive.
        const EN = 1 << 1;
        /// SBP: store bad packets.
        const SBP = 1 << 2;
        /// UPE: all unicast packets.
        const UPE = 1 << 3;
        /// MPE: all multicast packets.
        const MPE = 1 << 4;
        /// LPE: packets of more than 1522 bytes.
        const LPE = 1 << 5;
        /// BAM: broadcast packets.
        const BAM = 1 << 15;
        /// VFE: VLAN filter.
        const VFE = 1 << 18;
        /// CFIEN: of tagged packets those whose CFI is as RCTL's.
        const CFIEN = 1 << 19;
        /// CFI: canonical form indicator.
        const CFI = 1 << 20;
        /// DPF: discard pause frames.
        const DPF = 1 << 22;
        /// PMCF: pass MAC control frames.
        const PMCF = 1 << 23;
        /// BSEX: buffer sizes are 16 times as large.
        const BSEX = 1 << 25;
        /// SECRC: strip the FCS.
        const SECRC = 1 << 26;
    }
}

impl Rctl {
    /// LBM: loopback mode.
    pub const LBM: u32 = 0x3 << 6;
    /// LBM: none.
    pub const LBM_NONE: u32 = 0 << 6;
    /// LBM: MAC loopback.
    pub const LBM_MAC: u32 = 1 << 6;
    /// LBM: PHY or SerDes loopback, as the PHY is set up.
    pub const LBM_PHY: u32 = 3 << 6;
    /// RDMTS: RXDMT0 when a half (0), a quarter (1) or an eighth (2) of the ring is left.
    pub const RDMTS: u32 = 0x3 << 8;
    /// Shift of RDMTS.
    pub const RDMTS_SHIFT: u32 = 8;
    /// DTYP: descriptor type; legacy is 0.
    pub const DTYP: u32 = 0x3 << 10;
    /// MO: multicast offset: the bits of an address that index the table are 47:36 (0), 46:35 (1),
    /// 45:34 (2) or 43:32 (3), the last byte of the address being bits 47:40.
    pub const MO: u32 = 0x3 << 12;
    /// Shift of MO.
    pub const MO_SHIFT: u32 = 12;
    /// BSIZE: buffers of 2048 (0), 1024 (1), 512 (2) or 256 (3) bytes; with BSEX of 16384 (1),
    /// 8192 (2) or 4096 (3).
    pub const BSIZE: u32 = 0x3 << 16;
    /// Shift of BSIZE.
    pub const BSIZE_SHIFT: u32 = 16;
}

bitflags! {
    /// TCTL, transmit control (13.4.33).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Tctl: u32 {
        /// EN: transmit.
        const EN = 1 << 1;
        /// PSP: pad short packets.
        const PSP = 1 << 3;
        /// SWXOFF: send an XOFF; clears itself.
        const SWXOFF = 1 << 22;
        /// RTLC: retransmit on late collision.
        const RTLC = 1 << 24;
        /// NRTU: no retransmission on underrun.
        const NRTU = 1 << 25;
    }
}

impl Tctl {
    /// CT: collision threshold.
    pub const CT: u32 = 0xff << 4;
    /// Shift of CT.
    pub const CT_SHIFT: u32 = 4;
    /// COLD: collision distance.
    pub const COLD: u32 = 0x3ff << 12;
    /// Shift of COLD.
    pub const COLD_SHIFT: u32 = 12;
}

/// Fields of TXDCTL and RXDCTL, descriptor control (13.4.43, 13.4.46).
pub mod thresholds {
    /// PTHRESH: prefetch threshold, in descriptors.
    pub const PTHRESH: u32 = 0x3f;
    /// HTHRESH: host threshold.
    pub const HTHRESH: u32 = 0x3f << 8;
    /// WTHRESH: write-back threshold.
    pub const WTHRESH: u32 = 0x3f << 16;
    /// GRAN: thresholds are in descriptors, rather than cache lines.
    pub const GRAN: u32 = 1 << 24;
    /// TXDCTL's LWTHRESH: TXD_LOW when so many times eight descriptors are left, bits 31:25.
    pub const LWTHRESH: u32 = 0x7f << 25;
    /// Shift of LWTHRESH.
    pub const LWTHRESH_SHIFT: u32 = 25;
}

/// Fields of TSPMT, TCP segmentation pad and minimum threshold (13.4.45).
pub mod tspmt {
    /// TSMT: minimum transfer.
    pub const TSMT: u32 = 0xffff;
    /// TSPBP: packet buffer padding, bits 31:16.
    pub const TSPBP: u32 = 0xffff << 16;
}

/// Fields of RXCSUM, receive checksum control (13.4.47).
pub mod rxcsum {
    /// PCSS: first byte of the packet checksum.
    pub const PCSS: u32 = 0xff;
    /// IPOFL: check IP checksums.
    pub const IPOFL: u32 = 1 << 8;
    /// TUOFL: check TCP and UDP checksums.
    pub const TUOFL: u32 = 1 << 9;
    /// IPV6OFL: those of IPv6 packets too.
    pub const IPV6OFL: u32 = 1 << 10;
}

/// Fields of MANC, management control (13.6.11).
pub mod manc {
    /// SMBUS_EN, read only.
    pub const SMBUS_EN: u32 = 1 << 0;
    /// ASF_EN, read only.
    pub const ASF_EN: u32 = 1 << 1;
    /// ARP_EN: filter ARP requests.
    pub const ARP_EN: u32 = 1 << 13;
}
