//! A drive behind AHCI: command packets by the HBA's registers (AHCI 1.3.1, 5.3; ACS-4, 7.16). There
//! is no autosense: after CHECK CONDITION the sense data is fetched by REQUEST SENSE.

use std::sync::Arc;

use paraslot_ahci::{Ahci, Options, PacketOptions};
use paraslot_scsi::{Address, Bus, Initiator as Name, LogicalUnit, Sense, Status};
use paraslot_spec::ahci::fis::RegisterH2d;
use paraslot_spec::ahci::{
    ABAR, ATAPI_COMMAND, COMMAND_FIS, CommandHeader, Ghc, PRD_TABLE, PortCommand, PortInterrupt,
    Prd, header, host, port, port_base,
};
use paraslot_spec::ata::{command, packet};
use paraslot_tests::bench::Bench;
use zerocopy::IntoBytes;

use crate::initiator::{Data, End, Ended, Initiator};
use crate::ways::Way;
use crate::world::{CANARY, GUARD};

const LIST: u64 = 0x1000;
const RECEIVED: u64 = 0x2000;
const TABLE: u64 = 0x3000;
const DATA: u64 = 0x1_0000;
const MEMORY: usize = 4 << 20;
/// DRQ, BSY and ERR of PxTFD.
const BUSY: u32 = 0x88;
const ERROR: u32 = 1;

/// A guest with a drive at port 0.
struct Guest(Bench);

impl Guest {
    fn new(unit: Arc<LogicalUnit>, name: String) -> Self {
        let mut options = Options::new([]);
        let initiator = Some(Name(name));
        let drive = PacketOptions { initiator, ..PacketOptions::new(unit) };
        options.ports[0] = Some(drive.into());
        let bench = Bench::new(MEMORY, |host| Ahci::new(options, host).expect("options are right"));
        let mut this = Self(bench);
        this.0.enable();
        this.0.write32(ABAR, host::GHC.into(), Ghc::AE.bits());
        for (low, address) in [(port::CLB, LIST), (port::FB, RECEIVED)] {
            this.set(low, u32::try_from(address).expect("low"));
            this.set(low + 4, 0);
        }
        this.start();
        this
    }

    fn get(&mut self, register: u32) -> u32 {
        self.0.read32(ABAR, (port_base(0) + register).into())
    }

    fn set(&mut self, register: u32, value: u32) {
        self.0.write32(ABAR, (port_base(0) + register).into(), value);
    }

    /// Stops the port and starts it again, as after an error.
    fn start(&mut self) {
        self.set(port::CMD, PortCommand::FRE.bits());
        self.run();
        self.set(port::SERR, u32::MAX);
        self.set(port::IS, u32::MAX);
        self.set(port::CMD, (PortCommand::FRE | PortCommand::ST).bits());
        self.run();
    }

    fn run(&self) {
        assert!(self.0.executor.run(100_000), "the worker does not come to rest");
    }

    /// Has a packet carried out: PxTFD, and bytes moved.
    fn packet(&mut self, cdb: &[u8], len: usize, write: bool) -> (u32, usize) {
        let mut fis = RegisterH2d::command(command::PACKET);
        fis.features = packet::features::DMA;
        let mut flags = 5 | header::ATAPI;
        if write {
            flags |= header::WRITE;
        }
        // At least two bytes at a time.
        let even = u32::try_from(len.next_multiple_of(2)).expect("small");
        let prds = if len == 0 { vec![] } else { vec![Prd::new(DATA, even)] };
        flags |= u32::try_from(prds.len()).expect("one") << header::PRDTL_SHIFT;
        self.0.poke(LIST, CommandHeader::new(flags, TABLE).as_bytes());
        self.0.poke(TABLE + COMMAND_FIS, fis.as_bytes());
        self.0.poke(TABLE + ATAPI_COMMAND, &[0; 16]);
        self.0.poke(TABLE + ATAPI_COMMAND, &cdb[..cdb.len().min(packet::LEN)]);
        self.0.poke(TABLE + PRD_TABLE, prds.as_bytes());
        self.set(port::CI, 1);
        self.run();
        let tfd = self.get(port::TFD);
        assert_eq!(tfd & BUSY, 0, "it ends");
        let mut moved = [0; 4];
        self.0.peek(LIST + 4, &mut moved);
        (tfd, usize::try_from(u32::from_le_bytes(moved)).expect("small"))
    }

    /// What the last command has left.
    fn sense(&mut self) -> Sense {
        let (tfd, moved) = self.packet(&[0x03, 0, 0, 0, 18, 0], 18, false);
        assert_eq!((tfd & ERROR, moved), (0, 18));
        let mut data = [0; 18];
        self.0.peek(DATA, &mut data);
        let [response, _, key, a, b, c, d, more, _, _, _, _, asc, ascq, _, x, y, z] = data;
        assert_eq!((response & 0x7f, more), (0x70, 10));
        let information = u32::from_be_bytes([a, b, c, d]).into();
        Sense {
            key,
            asc,
            ascq,
            information: (response & 0x80 != 0).then_some(information),
            specific: (x & 0x80 != 0).then_some([x, y, z]),
        }
    }
}

impl Initiator for Guest {
    /// The address is that of the drive, whatever it is.
    fn execute(&mut self, _address: Address, cdb: &[u8], data: Data<'_>) -> Ended {
        let (len, into) = match data {
            Data::None => (0, false),
            Data::In(len) => (len, true),
            Data::Out(bytes) => {
                self.0.poke(DATA, bytes);
                (bytes.len(), false)
            }
        };
        if into {
            self.0.poke(DATA, &vec![CANARY; len + GUARD]);
        }
        let (tfd, moved) = self.packet(cdb, len, len != 0 && !into);
        let overflow = self.get(port::IS) & PortInterrupt::OFS.bits() != 0;
        assert!(moved <= len);
        let mut bytes = vec![0; if into { moved } else { 0 }];
        self.0.peek(DATA, &mut bytes);
        let end = if tfd & ERROR == 0 {
            End::Status(Status::Good)
        } else {
            self.start();
            // ATA's error register has the sense key.
            let key = tfd >> 12 & 0xf;
            if overflow {
                End::Overrun
            } else {
                let sense = self.sense();
                assert_eq!(u32::from(sense.key), key);
                End::Check(sense)
            }
        };
        if into && end == End::Status(Status::Good) {
            let mut rest = vec![0; len + GUARD - moved];
            self.0.peek(DATA + moved as u64, &mut rest);
            assert!(rest.iter().all(|byte| *byte == CANARY), "{cdb:02x?}: beyond");
        }
        Ended { end, moved, data: bytes }
    }

    fn work(&mut self) {
        self.run();
    }

    fn bus(&self) -> Option<&Bus> {
        None
    }
}

/// As ATAPI behind AHCI. There is one unit, the first.
pub(crate) struct ByAtapi;

impl Way for ByAtapi {
    const AUTOSENSE: bool = false;

    fn with<const N: usize>(
        units: &[(Address, Arc<LogicalUnit>)],
        test: impl FnOnce([&mut dyn Initiator; N]),
    ) {
        let [(_, unit), ..] = units else { panic!("a unit") };
        let mut these: [Guest; N] =
            std::array::from_fn(|index| Guest::new(unit.clone(), format!("initiator {index}")));
        test(these.each_mut().map(|one| one as &mut dyn Initiator));
    }
}
