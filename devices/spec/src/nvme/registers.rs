//! Registers, in the memory that BAR 0 decodes (3.1).

use bitflags::bitflags;

/// Offsets of the registers, in bytes (3.1). Those of 64 bits may be accessed as two of 32.
pub mod register {
    /// Controller capabilities, 64 bits: [`super::Cap`] (3.1.1).
    pub const CAP: u64 = 0x00;
    /// Version, as [`super::version`] makes it (3.1.2).
    pub const VS: u64 = 0x08;
    /// Interrupt mask set, a bit for each vector; not for MSI-X (3.1.3).
    pub const INTMS: u64 = 0x0c;
    /// Interrupt mask clear, a bit for each vector; not for MSI-X (3.1.4).
    pub const INTMC: u64 = 0x10;
    /// Controller configuration: [`super::cc`] (3.1.5).
    pub const CC: u64 = 0x14;
    /// Controller status: [`super::Csts`] (3.1.6).
    pub const CSTS: u64 = 0x1c;
    /// NVM subsystem reset (3.1.7).
    pub const NSSR: u64 = 0x20;
    /// Admin queue attributes: [`super::aqa`] (3.1.8).
    pub const AQA: u64 = 0x24;
    /// Admin submission queue base address, 64 bits (3.1.9).
    pub const ASQ: u64 = 0x28;
    /// Admin completion queue base address, 64 bits (3.1.10).
    pub const ACQ: u64 = 0x30;
    /// The first doorbell (3.1.24).
    pub const DOORBELLS: u64 = 0x1000;
}

/// Offset of a submission queue's tail doorbell (3.1.24), `stride` bytes being between two doorbells.
pub const fn tail_doorbell(queue: u16, stride: u64) -> u64 {
    register::DOORBELLS + 2 * queue as u64 * stride
}

/// Offset of a completion queue's head doorbell (3.1.25).
pub const fn head_doorbell(queue: u16, stride: u64) -> u64 {
    tail_doorbell(queue, stride) + stride
}

/// What [`register::VS`] says for a version (3.1.2).
pub const fn version(major: u16, minor: u8, tertiary: u8) -> u32 {
    (major as u32) << 16 | (minor as u32) << 8 | tertiary as u32
}

/// Controller capabilities (3.1.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cap(pub u64);

impl Cap {
    /// MQES, 0's based.
    pub const MQES: u64 = 0xffff;
    /// CQR: queues must be contiguous.
    pub const CQR: u64 = 1 << 16;
    /// Shift of TO, 8 bits in units of 500 ms.
    pub const TO_SHIFT: u32 = 24;
    /// Shift of DSTRD, 4 bits.
    pub const DSTRD_SHIFT: u32 = 32;
    /// CSS, bit 0: the NVM command set.
    pub const CSS_NVM: u64 = 1 << 37;
    /// Shift of MPSMIN, 4 bits.
    pub const MPSMIN_SHIFT: u32 = 48;
    /// Shift of MPSMAX, 4 bits.
    pub const MPSMAX_SHIFT: u32 = 52;

    /// Most entries that a queue can have, from 1 to 65536; less than 2 is against the specification.
    pub const fn max_queue_entries(self) -> u32 {
        (self.0 & Self::MQES) as u32 + 1
    }

    /// Milliseconds that enabling or disabling may take.
    pub const fn timeout_ms(self) -> u64 {
        (self.0 >> Self::TO_SHIFT & 0xff) * 500
    }

    /// Bytes from one doorbell to the next.
    pub const fn doorbell_stride(self) -> u64 {
        4 << (self.0 >> Self::DSTRD_SHIFT & 0xf)
    }

    /// Bytes of the smallest pages that the controller knows.
    pub const fn min_page(self) -> u64 {
        4096 << (self.0 >> Self::MPSMIN_SHIFT & 0xf)
    }
}

/// Controller configuration (3.1.5).
pub mod cc {
    /// EN: enabled. Taking it away resets the controller.
    pub const ENABLE: u32 = 1 << 0;
    /// Shift of CSS; 0 selects the NVM command set.
    pub const COMMAND_SET_SHIFT: u32 = 4;
    /// Shift of MPS: log2 of the pages' bytes, less 12.
    pub const PAGE_SHIFT: u32 = 7;
    /// SHN: what kind of shutdown is notified.
    pub const SHUTDOWN: u32 = 0b11 << 14;
    /// SHN: a normal shutdown.
    pub const SHUTDOWN_NORMAL: u32 = 0b01 << 14;
    /// Shift of IOSQES: log2 of the bytes of an I/O submission queue's entry.
    pub const SUBMISSION_SHIFT: u32 = 16;
    /// Shift of IOCQES: log2 of the bytes of an I/O completion queue's entry.
    pub const COMPLETION_SHIFT: u32 = 20;
}

bitflags! {
    /// Controller status (3.1.6).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Csts: u32 {
        /// Ready: it processes commands.
        const RDY = 1 << 0;
        /// Fatal status: it does not come back without a reset.
        const CFS = 1 << 1;
        /// SHST: shutdown is being processed.
        const SHUTTING_DOWN = 1 << 2;
        /// SHST: shutdown is complete.
        const SHUT_DOWN = 1 << 3;
        /// Processing is paused.
        const PP = 1 << 5;
    }
}

/// Admin queue attributes (3.1.8): the sizes of both queues, 0's based.
pub mod aqa {
    /// Shift of ACQS, the completion queue's size. ASQS, the submission queue's, is below.
    pub const COMPLETION_SHIFT: u32 = 16;
    /// Most entries that either can have.
    pub const MAX_ENTRIES: u16 = 4096;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_read() {
        // What QEMU says: 2048 entries, contiguous, 7.5 s, pages of 4 KiB to 64 KiB.
        let cap = Cap(0x0040_0020_0f01_07ff | 0x4 << 52);
        assert_eq!((cap.max_queue_entries(), cap.timeout_ms()), (2048, 7500));
        assert_eq!((cap.doorbell_stride(), cap.min_page()), (4, 4096));
        let most = Cap(u64::MAX);
        assert_eq!((most.max_queue_entries(), most.timeout_ms()), (65536, 127_500));
        assert_eq!((most.doorbell_stride(), most.min_page()), (128 << 10, 128 << 20));
    }

    #[test]
    fn doorbells_alternate() {
        assert_eq!([tail_doorbell(0, 4), head_doorbell(0, 4)], [0x1000, 0x1004]);
        assert_eq!([tail_doorbell(3, 4), head_doorbell(3, 4)], [0x1018, 0x101c]);
        assert_eq!([tail_doorbell(1, 64), head_doorbell(1, 64)], [0x1080, 0x10c0]);
        let last = head_doorbell(u16::MAX, 128 << 10);
        assert_eq!(last, 0x1000 + (2 * 65535 + 1) * (128 << 10));
        assert_eq!(version(1, 4, 0), 0x1_0400);
    }
}
