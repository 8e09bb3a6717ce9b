use vm_memory::GuestMemoryMmap;
use vmm_sys_util::errno::Error as Errno;

use super::*;

/// A domain that writes down what is mapped.
#[derive(Default)]
pub(super) struct FakeDomain {
    mapped: Mutex<BTreeMap<u64, usize>>,
    pub(super) limit: Option<u64>,
    /// The start that is refused, and how.
    refused: Option<(u64, i32)>,
}

impl FakeDomain {
    pub(super) fn map(&self, start: u64, len: usize) -> Result<(), CrateError> {
        if let Some((_, errno)) = self.refused.filter(|(at, _)| *at == start) {
            return Err(CrateError::IommuDmaMap(Errno::new(errno)));
        }
        assert_eq!(self.mapped.lock().unwrap().insert(start, len), None);
        Ok(())
    }

    pub(super) fn unmap(&self, start: u64, len: usize) -> Result<(), CrateError> {
        assert_eq!(self.mapped.lock().unwrap().remove(&start), Some(len));
        Ok(())
    }
}

pub(crate) fn space(refused: Option<(u64, i32)>) -> Arc<IommuSpace> {
    IommuSpace::over(Domain::Fake(FakeDomain { refused, ..FakeDomain::default() }))
}

fn mapped(space: &IommuSpace) -> Vec<u64> {
    let Domain::Fake(fake) = &space.domain else { panic!() };
    fake.mapped.lock().unwrap().keys().copied().collect()
}

fn memory(ranges: &[(u64, usize)]) -> Arc<GuestMemoryMmap> {
    let ranges: Vec<_> = ranges.iter().map(|(at, len)| (GuestAddress(*at), *len)).collect();
    Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap())
}

fn one(at: u64, len: usize) -> Arc<GuestRegionMmap> {
    Arc::new(GuestRegionMmap::from_range(GuestAddress(at), len, None).unwrap())
}

#[test]
fn memory_is_mapped_while_there_is_a_function() {
    let space = space(None);
    let memory = memory(&[(0, 0x2000), (0x10_0000, 0x1000)]);
    space.map_memory(&memory).unwrap();
    assert!(mapped(&space).is_empty());
    space.join().unwrap();
    space.join().unwrap();
    assert_eq!(mapped(&space), [0, 0x10_0000]);
    // Plugged in, and out.
    space.map_region(&one(0x20_0000, 0x1000)).unwrap();
    assert_eq!(mapped(&space), [0, 0x10_0000, 0x20_0000]);
    space.unmap_region(GuestAddress(0x10_0000)).unwrap();
    assert!(space.unmap_region(GuestAddress(0x10_0000)).is_err());
    space.leave();
    assert_eq!(mapped(&space), [0, 0x20_0000]);
    space.leave();
    assert!(mapped(&space).is_empty());
    // A function that comes later finds what there is then.
    space.join().unwrap();
    assert_eq!(mapped(&space), [0, 0x20_0000]);
    space.leave();
}

#[test]
fn memory_is_held_as_long_as_it_may_be_mapped() {
    let space = space(None);
    let memory = memory(&[(0, 0x1000), (0x4000, 0x1000)]);
    space.map_memory(&memory).unwrap();
    assert_eq!(Arc::strong_count(&memory), 3);
    space.unmap_region(GuestAddress(0)).unwrap();
    assert_eq!(Arc::strong_count(&memory), 2);
    drop(space);
    assert_eq!(Arc::strong_count(&memory), 1);
}

#[test]
fn what_overlaps_is_refused_as_a_whole() {
    let space = space(None);
    space.join().unwrap();
    space.map_memory(&memory(&[(0x4000, 0x2000)])).unwrap();
    for (at, len) in
        [(0x4000, 0x2000), (0x5000, 0x1000), (0x3000, 0x2000), (0, 0x10000), (0x5000, 0x9000)]
    {
        let error = space.map_region(&one(at, len)).unwrap_err().to_string();
        assert!(error.contains("overlaps"), "{error}");
    }
    let error = space.map_memory(&memory(&[(0, 0x1000), (0x5000, 0x1000)])).unwrap_err();
    assert!(error.to_string().contains("0x5000"));
    assert_eq!(mapped(&space), [0x4000]);
    space.map_memory(&memory(&[(0, 0x4000), (0x6000, 0x1000)])).unwrap();
    assert!(space.map_region(&one(0x1_0000, 0x1800)).is_err());
    assert!(space.map_region(&one(0x1_0800, 0x1000)).is_err());
    space.leave();
}

#[test]
fn what_cannot_be_mapped_leaves_nothing_behind() {
    let memory = memory(&[(0, 0x1000), (0x8000, 0x1000), (0x1_0000, 0x1000)]);
    let refused = space(Some((0x8000, libc::EINVAL)));
    refused.map_memory(&memory).unwrap();
    assert!(refused.join().is_err());
    assert_eq!((mapped(&refused), refused.state().functions), (vec![], 0));

    let running = space(Some((0x8000, libc::EINVAL)));
    running.join().unwrap();
    assert!(running.map_memory(&memory).is_err());
    assert_eq!((mapped(&running), running.state().regions.len()), (vec![], 0));
    assert_eq!(Arc::strong_count(&memory), 4);
}

#[test]
fn too_much_locked_memory_is_said_with_the_limit_and_the_need() {
    let error = |errno: i32, limit| {
        let refused = Some((0x8000, errno));
        let fake = FakeDomain { refused, limit, ..FakeDomain::default() };
        let space = IommuSpace::over(Domain::Fake(fake));
        // Two regions and a function, in each order.
        space.map_memory(&memory(&[(0, 0x4000)])).unwrap();
        space.join().unwrap();
        let plugged = space.map_region(&one(0x8000, 0x1800_0000)).unwrap_err().to_string();
        space.leave();
        space.map_region(&one(0x8000, 0x1800_0000)).unwrap();
        assert_eq!(space.join().unwrap_err().to_string(), plugged);
        plugged
    };
    assert_eq!(
        error(libc::ENOMEM, Some(8 << 20)),
        "cannot pin 402653184 bytes of guest memory: this process may lock 8388608 bytes (RLIMIT_MEMLOCK) \
         and the guest needs 402669568: raise the limit (ulimit -l 393232), or have CAP_IPC_LOCK"
    );
    assert!(error(libc::ENOMEM, None).contains("memory at 0x8000"));
    assert!(error(libc::EINVAL, Some(0)).contains("Invalid argument"));
}
