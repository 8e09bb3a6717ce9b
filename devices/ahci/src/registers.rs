//! The register map (AHCI 1.3.1, 3), as tables: what each register holds after a reset and which of
//! its bits a guest can change. What a write does beyond that is the model's behaviour,
//! not the table's.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use paraslot_device::SharedPage;
use paraslot_device::register::Register;
use paraslot_spec::ahci::{Cap, Ghc, PortCommand, PortError, PortInterrupt, host, port};
use paraslot_spec::ahci::{PORTS, VERSION_1_3_1, sctl, ssts};

/// CAP without the number of ports.
pub(crate) const CAP: u32 =
    Cap::S64A.union(Cap::SNCQ).union(Cap::SCLO).union(Cap::SAM).union(Cap::PMD).bits()
        | (31 << Cap::NCS_SHIFT)
        | (3 << Cap::ISS_SHIFT);

/// What PxTFD holds while no device has reported its status: BSY is clear, DRQ is set.
pub(crate) const TFD_NO_DEVICE: u32 = 0x7f;

/// Interrupt causes that this HBA can latch; the derived ones follow PxSERR.
pub(crate) const CAUSES: PortInterrupt = PortInterrupt::DHRS
    .union(PortInterrupt::PSS)
    .union(PortInterrupt::SDBS)
    .union(PortInterrupt::DPS)
    .union(PortInterrupt::OFS)
    .union(PortInterrupt::IFS)
    .union(PortInterrupt::HBDS)
    .union(PortInterrupt::HBFS)
    .union(PortInterrupt::TFES);

/// Interrupts that can be enabled: all that 3.3.6 lists but the two that need a capability that
/// this HBA lacks (presence switch and cold presence detection).
const ENABLES: u32 = 0x7dc0_007f;

/// SError bits that exist (3.3.12).
const ERRORS: u32 = 0x07ff_0f03;

/// The generic host control registers. CAP's and PI's values depend on the number of ports.
pub const HOST: [Register; 7] = [
    Register::read_only("CAP", host::CAP, CAP),
    Register::read_write("GHC", host::GHC, Ghc::AE.bits(), Ghc::IE.bits()).sets(Ghc::HR.bits()),
    Register::read_only("IS", host::IS, 0).clears(u32::MAX),
    Register::read_only("PI", host::PI, 0),
    Register::read_only("VS", host::VS, VERSION_1_3_1),
    Register::read_only("CAP2", host::CAP2, 0),
    Register::read_only("BOHC", host::BOHC, 0),
];

/// A port's registers, offsets from the port's base. What they hold after a reset is for a port
/// without a device.
pub const PORT: [Register; 14] = [
    Register::read_write("PxCLB", port::CLB, 0, 0xffff_fc00),
    Register::read_write("PxCLBU", port::CLBU, 0, u32::MAX),
    Register::read_write("PxFB", port::FB, 0, 0xffff_ff00),
    Register::read_write("PxFBU", port::FBU, 0, u32::MAX),
    Register::read_only("PxIS", port::IS, 0).clears(CAUSES.bits()),
    Register::read_write("PxIE", port::IE, 0, ENABLES),
    // The device is spun up and powered at all times, and may come and go. ATAPI only steers an activity
    // LED.
    Register::read_write(
        "PxCMD",
        port::CMD,
        PortCommand::SUD.union(PortCommand::POD).union(PortCommand::HPCP).bits(),
        PortCommand::ST.union(PortCommand::FRE).union(PortCommand::ATAPI).bits(),
    ),
    Register::read_only("PxTFD", port::TFD, TFD_NO_DEVICE),
    Register::read_only("PxSIG", port::SIG, paraslot_spec::ahci::SIGNATURE_NONE),
    Register::read_only("PxSSTS", port::SSTS, ssts::DET_NONE),
    Register::read_write("PxSCTL", port::SCTL, 0, sctl::DET | sctl::SPD | sctl::IPM),
    Register::read_only("PxSERR", port::SERR, 0).clears(ERRORS),
    Register::read_only("PxSACT", port::SACT, 0).sets(u32::MAX),
    Register::read_only("PxCI", port::CI, 0).sets(u32::MAX),
];

/// The register at `offset` of `table`.
pub(crate) fn find(table: &'static [Register], offset: u32) -> Option<&'static Register> {
    table.iter().find(|register| register.offset == offset)
}

/// The causes in PxIS that follow PxSERR (3.3.5).
pub(crate) fn derived(errors: u32) -> u32 {
    let errors = PortError::from_bits_truncate(errors);
    let mut causes = PortInterrupt::empty();
    causes.set(PortInterrupt::PCS, errors.contains(PortError::DIAG_X));
    causes.set(PortInterrupt::PRCS, errors.contains(PortError::DIAG_N));
    causes.set(PortInterrupt::UFS, errors.contains(PortError::DIAG_F));
    causes.bits()
}

/// Words in a bank: a port's registers, or the generic ones with the reserved space after them.
const BANK_WORDS: usize = 0x80 / 4;

/// A bank of registers and its image in the page that the guest reads.
///
/// The model trusts its own copy alone, so that whoever has the page's memory file cannot change
/// what the HBA does.
pub(crate) struct Bank {
    page: Arc<SharedPage>,
    first: usize,
    values: [u32; BANK_WORDS],
}

impl Bank {
    /// The bank at byte offset `base` of `page`, which must hold it: all zero.
    pub(crate) fn new(page: Arc<SharedPage>, base: u32) -> Self {
        let first = usize::try_from(base / 4).unwrap_or(usize::MAX);
        Self { page, first, values: [0; BANK_WORDS] }
    }

    /// What the register at `offset` holds.
    pub(crate) fn get(&self, offset: u32) -> u32 {
        self.values.get(index(offset)).copied().unwrap_or(0)
    }

    /// Changes the register at `offset`; the guest sees it at once, and after whatever was written
    /// to its memory before.
    pub(crate) fn set(&mut self, offset: u32, value: u32) {
        let index = index(offset);
        let Some(place) = self.values.get_mut(index) else { return };
        if *place != value {
            *place = value;
            if let Some(word) = self.page.words().get(self.first + index) {
                word.store(value.to_le(), Ordering::Release);
            }
        }
    }

    /// Sets `set` and clears `clear` in the register at `offset`.
    pub(crate) fn change(&mut self, offset: u32, set: u32, clear: u32) {
        self.set(offset, self.get(offset) & !clear | set);
    }
}

fn index(offset: u32) -> usize {
    usize::try_from(offset / 4).unwrap_or(usize::MAX)
}

const _: () = assert!(PORTS == 0x100 && host::END <= 0x80);
