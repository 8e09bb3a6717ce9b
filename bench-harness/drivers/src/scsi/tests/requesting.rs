//! What requests become.

use super::*;

const BLOCKS: u64 = 64;

struct Bench {
    direct: Direct,
    unit: Unit,
    parameters: DmaRegion,
}

impl Bench {
    fn new(change: impl FnOnce(&mut TestUnit)) -> Self {
        let mut units = Units::one();
        change(units.disk());
        let mut direct = Direct::new(units);
        let unit = direct.find().unwrap();
        direct.units.seen.clear();
        let parameters = direct.fake.allocate(PARAMETERS_LEN).unwrap();
        Self { direct, unit, parameters }
    }

    fn request(&self, op: Op<'_>, offset: u64) -> Result<Request, Error> {
        self.unit.request(op, offset, &self.parameters)
    }

    fn cdb(&self, op: Op<'_>, offset: u64) -> Vec<u8> {
        self.request(op, offset).unwrap().cdb.bytes().to_vec()
    }

    fn run(&mut self, op: Op<'_>, offset: u64) -> Ended {
        let request = self.request(op, offset).unwrap();
        self.direct.run(self.unit.address(), &request).unwrap()
    }

    fn region(&self, len: usize) -> DmaRegion {
        self.direct.fake.allocate(len).unwrap()
    }
}

#[test]
fn reads_and_writes_have_10_bytes_if_that_is_enough() {
    let bench = Bench::new(|disk| disk.last = Some(1 << 33));
    let region = bench.region(1024);
    let (read, write) = (Op::Read(&region), Op::Write(&region));
    assert_eq!(bench.cdb(read, 0x0102_0304 * 512), [0x28, 0, 1, 2, 3, 4, 0, 0, 2, 0]);
    assert_eq!(bench.cdb(write, 0xffff_ffff * 512), [0x2a, 0, 255, 255, 255, 255, 0, 0, 2, 0]);
    let lba = 0x1_0203_0405_u64;
    let long = [0x88, 0, 0, 0, 0, 1, 2, 3, 4, 5, 0, 0, 0, 2, 0, 0];
    assert_eq!(bench.cdb(read, lba * 512), long);
    assert_eq!(bench.cdb(write, lba * 512)[0], 0x8a);
    let request = bench.request(read, 0).unwrap();
    let buffer = Buffer { address: region.physical(0), len: 1024, direction: Direction::In };
    assert_eq!(request.buffer, buffer);
    assert!(request.cdb.is_read_or_write());
    // More blocks than 16 bits can say.
    let bench = Bench::new(|disk| {
        disk.pages.clear();
        disk.last = Some(1 << 33);
    });
    let mut unit = bench.unit.clone();
    unit.max_transfer = 1 << 30;
    let region = bench.region(0x10000 * 512);
    let request = unit.request(Op::Write(&region), 512, &bench.parameters).unwrap();
    assert_eq!(request.cdb.bytes(), [0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn what_is_not_possible_is_refused() {
    let bench = Bench::new(|_| {});
    let region = bench.region(512);
    let odd = bench.region(513);
    let long = bench.region(33 * 512);
    let size = Err(Error::Request("not a multiple of the block size"));
    let outside = Err(Error::Request("outside the disk"));
    let too_long = Err(Error::Request("too long"));
    assert_eq!(bench.request(Op::Read(&region), 1), size);
    assert_eq!(bench.request(Op::Read(&odd), 0), size);
    assert_eq!(bench.request(Op::Write(&region), BLOCKS * 512), outside);
    assert_eq!(bench.request(Op::Write(&region), !511), outside);
    assert_eq!(bench.request(Op::Write(&long), 0), too_long);
    assert_eq!(bench.request(Op::Discard(0), 0), size);
    assert_eq!(bench.request(Op::Discard(1024), 63 * 512), outside);
    assert_eq!(bench.request(Op::Discard(17 * 512), 0), too_long);
    assert_eq!(bench.request(Op::WriteZeroes(9 * 512), 0), too_long);
    let bench = Bench::new(|disk| {
        disk.write_protected = true;
        disk.caching = 0;
        disk.provisioning = 0;
    });
    let writes = Err(Error::Unsupported("writes"));
    assert_eq!(bench.request(Op::Write(&region), 0), writes);
    assert_eq!(bench.request(Op::WriteZeroes(512), 0), writes);
    assert_eq!(bench.request(Op::Flush, 0), Err(Error::Unsupported("flush")));
    assert_eq!(bench.request(Op::Discard(512), 0), Err(Error::Unsupported("discard")));
}

#[test]
fn ranges_are_discarded_and_zeroed_as_the_disk_has_it() {
    let mut bench = Bench::new(|_| {});
    let contents = bench.direct.units.disk().contents.clone();
    assert_eq!(bench.cdb(Op::Flush, 0), [0x35, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bench.cdb(Op::Discard(16 * 512), 3 * 512), [0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0]);
    let mut list = [0; 24];
    bench.parameters.read_bytes(0, &mut list);
    assert_eq!(list[..8], [0, 22, 0, 16, 0, 0, 0, 0]);
    assert_eq!(list[8..], [0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 16, 0, 0, 0, 0]);
    let ended = bench.run(Op::Discard(16 * 512), 3 * 512);
    assert_eq!(ended, Ended { outcome: Outcome::Status(0), moved: 24 });
    let zeroes = [0x93, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0];
    assert_eq!(bench.cdb(Op::WriteZeroes(8 * 512), 1024), zeroes);
    bench.run(Op::WriteZeroes(8 * 512), 1024);
    let now = &bench.direct.units.disk().contents;
    assert_eq!(now[..1024], contents[..1024]);
    assert_eq!(now[1024..10 * 512], [0; 8 * 512]);
    assert_eq!(now[10 * 512..19 * 512], [0xdd; 9 * 512]);
    assert_eq!(now[19 * 512..], contents[19 * 512..]);
    // By WRITE SAME, of zeroes as well.
    let bench = Bench::new(|disk| disk.pages.get_mut(&0xb2).unwrap()[1] = 0x40);
    let discard = [0x93, 8, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 8, 0, 0];
    assert_eq!(bench.cdb(Op::Discard(8 * 512), 1024), discard);
}

#[test]
fn commands_have_1_to_16_bytes_and_data_any_length_that_can_be_said() {
    assert!(Cdb::new(&[]).is_err() && Cdb::new(&[0; 17]).is_err() && Cdb::new(&[0; 512]).is_err());
    let cdb = Cdb::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9]).unwrap();
    assert_eq!(cdb.bytes(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(cdb.words(), [0x0807_0605_0403_0201, 9]);
    let fake = Fake::new();
    assert!(Buffer::of(Data::In(&fake.allocate(0).unwrap())).is_err());
    assert_eq!(Buffer::of(Data::None), Ok(Buffer::default()));
    let region = fake.allocate(5).unwrap();
    let buffer = Buffer { address: region.physical(0), len: 5, direction: Direction::Out };
    assert_eq!(Buffer::of(Data::Out(&region)), Ok(buffer));
}
