//! Units for unit tests: they do what they are asked, or what a test says.

extern crate std;

use std::collections::{BTreeMap, VecDeque};
use std::vec;
use std::vec::Vec;

use super::Address;

/// How a unit answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    /// There is no such target.
    pub(crate) absent: bool,
    pub(crate) status: u8,
    pub(crate) sense: Vec<u8>,
    pub(crate) data: Vec<u8>,
}

impl Reply {
    pub(crate) fn good(data: &[u8]) -> Self {
        Self { absent: false, status: 0, sense: Vec::new(), data: data.to_vec() }
    }

    pub(crate) fn status(status: u8) -> Self {
        Self { status, ..Self::good(&[]) }
    }

    pub(crate) fn check(key: u8, asc: u8, ascq: u8) -> Self {
        let sense = vec![0x70, 0, key, 0, 0, 0, 0, 10, 0, 0, 0, 0, asc, ascq, 0, 0, 0, 0];
        Self { sense, ..Self::status(2) }
    }

    pub(crate) fn absent() -> Self {
        Self { absent: true, ..Self::good(&[]) }
    }
}

/// A unit.
#[derive(Clone, Debug)]
pub(crate) struct TestUnit {
    /// Byte 0 of its INQUIRY data.
    pub(crate) peripheral: u8,
    pub(crate) block: u32,
    pub(crate) contents: Vec<u8>,
    /// Of READ CAPACITY, if it is to be another than that of its contents.
    pub(crate) last: Option<u64>,
    /// LBPME and LBPRZ.
    pub(crate) provisioning: u8,
    pub(crate) write_protected: bool,
    /// The caching page's flags.
    pub(crate) caching: u8,
    /// Pages of vital product data.
    pub(crate) pages: BTreeMap<u8, Vec<u8>>,
}

impl TestUnit {
    /// A disk of 64 blocks of 512 bytes with everything.
    pub(crate) fn disk() -> Self {
        let mut limits = vec![0; 60];
        // MAXIMUM TRANSFER LENGTH, MAXIMUM UNMAP LBA COUNT and descriptors, MAXIMUM WRITE SAME LENGTH.
        limits[7] = 32;
        limits[19] = 16;
        limits[23] = 1;
        limits[39] = 8;
        let pages = [(0xb0, limits), (0xb2, vec![0, 0xe0, 2, 0])];
        Self {
            peripheral: 0,
            block: 512,
            contents: (0..64 * 512).map(|at: usize| at.to_le_bytes()[0]).collect(),
            last: None,
            provisioning: 0x80,
            write_protected: false,
            caching: 4,
            pages: pages.into(),
        }
    }

    fn page(&self, page: u8) -> Option<Vec<u8>> {
        let body = match page {
            0 => std::iter::once(0).chain(self.pages.keys().copied()).collect(),
            _ => self.pages.get(&page)?.clone(),
        };
        let mut bytes = vec![self.peripheral, page, 0, u8::try_from(body.len()).unwrap()];
        bytes.extend(body);
        Some(bytes)
    }

    fn range(&self, lba: u64, blocks: u64) -> core::ops::Range<usize> {
        let at = |block: u64| usize::try_from(block * u64::from(self.block)).unwrap();
        at(lba)..at(lba + blocks)
    }

    /// What becomes of a command that the unit knows.
    fn command(&mut self, cdb: &[u8], out: &[u8]) -> Option<Reply> {
        let number = |bytes: &[u8]| bytes.iter().fold(0, |n, byte| n << 8 | u64::from(*byte));
        let blocks = self.contents.len() as u64 / u64::from(self.block).max(1);
        let last = self.last.unwrap_or(blocks.saturating_sub(1));
        let [_, tail @ ..] = cdb else { return None };
        Some(match cdb[0] {
            0x00 | 0x1b | 0x35 => Reply::good(&[]),
            0x12 if tail[0] == 0 => {
                let mut data = vec![self.peripheral, 0, 6, 2, 31, 0, 0, 2];
                data.extend(b"VENDOR  THE PRODUCT     1.0 ");
                Reply::good(&data)
            }
            0x12 => Reply::good(&self.page(cdb[2])?),
            0x1a => {
                let specific = u8::from(self.write_protected) << 7 | 0x10;
                let mut data =
                    vec![31, 0, specific, 8, 0, 0, 0, 0, 0, 0, 0, 0, 8, 18, self.caching];
                data.resize(32, 0);
                Reply::good(&data)
            }
            0x25 => {
                let mut data = u32::try_from(last).unwrap_or(u32::MAX).to_be_bytes().to_vec();
                data.extend(self.block.to_be_bytes());
                Reply::good(&data)
            }
            0x9e => {
                let mut data = last.to_be_bytes().to_vec();
                data.extend(self.block.to_be_bytes());
                data.extend([0, 0, self.provisioning]);
                data.resize(32, 0);
                Reply::good(&data)
            }
            0x28 => Reply::good(&self.contents[self.range(number(&cdb[2..6]), number(&cdb[7..9]))]),
            0x88 => {
                Reply::good(&self.contents[self.range(number(&cdb[2..10]), number(&cdb[10..14]))])
            }
            0x2a => {
                let range = self.range(number(&cdb[2..6]), number(&cdb[7..9]));
                self.contents[range].copy_from_slice(out);
                Reply::good(&[])
            }
            0x42 => {
                assert_eq!(out.len(), 24);
                let range = self.range(number(&out[8..16]), number(&out[16..20]));
                self.contents[range].fill(0xdd);
                Reply::good(&[])
            }
            0x93 => {
                let range = self.range(number(&cdb[2..10]), number(&cdb[10..14]));
                for (to, from) in self.contents[range].iter_mut().zip(out.iter().cycle()) {
                    *to = *from;
                }
                Reply::good(&[])
            }
            0xa3 => Reply::good(&[0, if cdb[3] == 0x93 { 3 } else { 1 }, 0, 16]),
            _ => return None,
        })
    }
}

/// The units behind a host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Units {
    pub(crate) units: BTreeMap<(u8, u16), TestUnit>,
    /// Commands, in order: for whom, and their bytes up to the end that their codes say.
    pub(crate) seen: Vec<(Address, Vec<u8>)>,
    /// How the next commands end, whatever they are.
    pub(crate) next: VecDeque<Reply>,
    /// Operation codes that nobody knows.
    pub(crate) unknown: Vec<u8>,
}

impl Units {
    /// A disk at target 0, LUN 0.
    pub(crate) fn one() -> Self {
        Self { units: [((0, 0), TestUnit::disk())].into(), ..Self::default() }
    }

    pub(crate) fn disk(&mut self) -> &mut TestUnit {
        self.units.values_mut().next().unwrap()
    }

    /// Operation codes seen since the last time.
    pub(crate) fn codes(&mut self) -> Vec<u8> {
        core::mem::take(&mut self.seen).into_iter().map(|(_, cdb)| cdb[0]).collect()
    }

    /// Carries out a command with `out` as its data.
    pub(crate) fn command(&mut self, address: Address, cdb: &[u8], out: &[u8]) -> Reply {
        let code = cdb[0];
        let len = paraslot_spec::scsi::opcode::cdb_len(code).unwrap();
        self.seen.push((address, cdb[..len].to_vec()));
        assert!(cdb[len..].iter().all(|byte| *byte == 0), "{cdb:?}");
        if let Some(reply) = self.next.pop_front() {
            return reply;
        }
        let target = (address.target, 0)..=(address.target, u16::MAX);
        let luns: Vec<u16> = self.units.range(target).map(|((_, lun), _)| *lun).collect();
        if luns.is_empty() {
            return Reply::absent();
        }
        if self.unknown.contains(&code) {
            return Reply::check(5, 0x20, 0);
        }
        if code == 0xa0 {
            let mut data = u32::try_from(8 * luns.len()).unwrap().to_be_bytes().to_vec();
            data.extend([0; 4]);
            data.extend(luns.into_iter().flat_map(paraslot_spec::scsi::lun::encode));
            return Reply::good(&data);
        }
        match self.units.get_mut(&(address.target, address.lun)) {
            Some(unit) => unit.command(cdb, out).unwrap_or_else(|| Reply::check(5, 0x24, 0)),
            None if code == 0x12 => {
                let mut data = [0; 36];
                data[0] = 0x7f;
                Reply::good(&data)
            }
            None => Reply::check(5, 0x25, 0),
        }
    }
}
