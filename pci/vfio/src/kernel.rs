//! [`Function`] over Linux's VFIO.
//!
//! vfio-ioctls opens containers, groups and functions, and reads what regions and interrupts there are.
//! The rest goes to the function's descriptor directly, since the crate swallows the errors of reads,
//! writes and resets, and sets triggers from vector 0 on only.

#![expect(unsafe_code, reason = "ioctls, and mappings of a function's registers")]

use std::ffi::CString;
use std::fs;
use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::Arc;

use paraslot_device::HostPages;
use vfio_bindings::bindings::vfio::{
    VFIO_BASE, VFIO_DEVICE_FLAGS_RESET, VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_IRQ_SET_ACTION_UNMASK,
    VFIO_IRQ_SET_DATA_EVENTFD, VFIO_IRQ_SET_DATA_NONE, VFIO_PCI_CONFIG_REGION_INDEX,
    VFIO_PCI_INTX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSIX_IRQ_INDEX,
    VFIO_REGION_INFO_FLAG_MMAP, VFIO_TYPE, vfio_device_info, vfio_region_info,
};
use vfio_ioctls::{VfioDevice, VfioError as CrateError, VfioRegionInfoCap};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{ioctl, ioctl_with_mut_ref, ioctl_with_ptr};
use vmm_sys_util::ioctl_io_nr;

use crate::borrow::Borrowed;
use crate::function::{Function, Irq, Region, RegionInfo};
use crate::iommu::IommuSpace;
use crate::sysfs::Sysfs;
use crate::{HostAddress, VfioError};

ioctl_io_nr!(VFIO_DEVICE_GET_INFO, VFIO_TYPE.into(), VFIO_BASE + 7);
ioctl_io_nr!(VFIO_DEVICE_GET_REGION_INFO, VFIO_TYPE.into(), VFIO_BASE + 8);
ioctl_io_nr!(VFIO_DEVICE_SET_IRQS, VFIO_TYPE.into(), VFIO_BASE + 10);
ioctl_io_nr!(VFIO_DEVICE_RESET, VFIO_TYPE.into(), VFIO_BASE + 11);

/// Regions 0 to 7: the BARs, the ROM, configuration space.
const REGIONS: usize = VFIO_PCI_CONFIG_REGION_INDEX as usize + 1;

/// A function that is open, and what has to stay while it is. The fields are dropped in this order.
struct Opened {
    device: VfioDevice,
    space: Arc<IommuSpace>,
    /// Given back last: the kernel waits for the function to be closed before it unbinds it.
    _borrowed: Option<Borrowed>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.space.leave();
    }
}

#[derive(Clone, Debug, Default)]
struct Place {
    offset: u64,
    info: RegionInfo,
}

/// A function of this machine's.
pub(crate) struct Kernel {
    regions: [Place; REGIONS],
    has_reset: bool,
    opened: Arc<Opened>,
}

impl Kernel {
    /// Opens a function that is bound to vfio-pci, with guest memory as its memory.
    pub(crate) fn open(
        address: HostAddress,
        space: &Arc<IommuSpace>,
        borrowed: Option<Borrowed>,
    ) -> Result<Self, VfioError> {
        let sysfs = Sysfs::host();
        let group = check(&sysfs, address)?;
        let path = sysfs.function(address);
        let container = space.container()?;
        let device = VfioDevice::new(&path, container, false)
            .map_err(|error| explain(&sysfs, address, group, error))?;
        space.join()?;
        let opened = Opened { device, space: space.clone(), _borrowed: borrowed };

        let mut info =
            vfio_device_info { argsz: argsz::<vfio_device_info>(), ..vfio_device_info::default() };
        // SAFETY: the structure is as long as it says and is the one that this ioctl fills in.
        let result =
            unsafe { ioctl_with_mut_ref(&opened.device, VFIO_DEVICE_GET_INFO(), &mut info) };
        check_ioctl(result).map_err(VfioError::kernel("describe the function"))?;
        let mut regions: [Place; REGIONS] = Default::default();
        for (index, place) in (0..).zip(&mut regions) {
            *place = region(&opened.device, index)?;
        }
        let has_reset = info.flags & VFIO_DEVICE_FLAGS_RESET != 0;
        Ok(Self { regions, has_reset, opened: Arc::new(opened) })
    }

    fn place(&self, region: Region) -> Option<&Place> {
        let index = match region {
            Region::Bar(bar) => usize::from(bar.min(5)),
            Region::Config => REGIONS - 1,
        };
        self.regions.get(index)
    }

    /// The offset in the function's file of `len` bytes at `offset` of a region.
    fn locate(&self, region: Region, offset: u64, len: usize) -> io::Result<i64> {
        let place = self.place(region).ok_or(io::ErrorKind::InvalidInput)?;
        let end = offset.checked_add(len as u64);
        if end.is_none_or(|end| end > place.info.size) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let at = place.offset.checked_add(offset).and_then(|at| i64::try_from(at).ok());
        at.ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    fn trigger_by(&self, irq: Irq, first: u16, triggers: &[&EventFd]) -> io::Result<()> {
        let fds: Vec<_> = triggers.iter().map(|event| event.as_raw_fd()).collect();
        let count = u32::try_from(fds.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
        self.set_irqs(flags, irq, first.into(), count, &fds)
    }

    fn set_irqs(
        &self,
        flags: u32,
        irq: Irq,
        start: u32,
        count: u32,
        fds: &[RawFd],
    ) -> io::Result<()> {
        // A header of five words and the descriptors, one each.
        let mut words = vec![0, flags, index(irq), start, count];
        words.extend(fds.iter().map(|fd| u32::from_ne_bytes(fd.to_ne_bytes())));
        let bytes = u32::try_from(words.len() * size_of::<u32>());
        words[0] = bytes.map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: the words are what `vfio_irq_set` consists of, followed by as many descriptors as it
        // says (none without VFIO_IRQ_SET_DATA_EVENTFD), and its first word is their length.
        let result =
            unsafe { ioctl_with_ptr(&self.opened.device, VFIO_DEVICE_SET_IRQS(), words.as_ptr()) };
        check_ioctl(result)?;
        // A positive answer is how many vectors there could be had; none is set up then.
        if result == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::ENOSPC)) }
    }
}

impl Function for Kernel {
    fn region(&self, region: Region) -> RegionInfo {
        self.place(region).map(|place| place.info.clone()).unwrap_or_default()
    }

    fn read(&self, region: Region, offset: u64, data: &mut [u8]) -> io::Result<()> {
        let at = self.locate(region, offset, data.len())?;
        let fd = self.opened.device.as_raw_fd();
        // SAFETY: the kernel writes at most `data.len()` bytes to `data`.
        let read = unsafe { libc::pread64(fd, data.as_mut_ptr().cast(), data.len(), at) };
        whole(read, data.len())
    }

    fn write(&self, region: Region, offset: u64, data: &[u8]) -> io::Result<()> {
        let at = self.locate(region, offset, data.len())?;
        let fd = self.opened.device.as_raw_fd();
        // SAFETY: the kernel reads `data.len()` bytes of `data`.
        let written = unsafe { libc::pwrite64(fd, data.as_ptr().cast(), data.len(), at) };
        whole(written, data.len())
    }

    fn pages(&self, bar: u8, offset: u64, len: u64) -> io::Result<Arc<dyn HostPages>> {
        let bytes = usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?;
        let at = self.locate(Region::Bar(bar), offset, bytes)?;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let fd = self.opened.device.as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice.
        let address = unsafe {
            libc::mmap64(std::ptr::null_mut(), bytes, protection, libc::MAP_SHARED, fd, at)
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or_else(io::Error::last_os_error)?;
        Ok(Arc::new(Registers { address, len: bytes, _opened: self.opened.clone() }))
    }

    fn irqs(&self, irq: Irq) -> u32 {
        self.opened.device.get_irq_info(index(irq)).map_or(0, |info| info.count)
    }

    fn enable(&self, irq: Irq, triggers: &[&EventFd]) -> io::Result<()> {
        self.trigger_by(irq, 0, triggers)
    }

    fn retrigger(&self, irq: Irq, first: u16, triggers: &[&EventFd]) -> io::Result<()> {
        self.trigger_by(irq, first, triggers)
    }

    fn unmask_by(&self, event: &EventFd) -> io::Result<()> {
        let flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_UNMASK;
        self.set_irqs(flags, Irq::Intx, 0, 1, &[event.as_raw_fd()])
    }

    fn disable(&self, irq: Irq) -> io::Result<()> {
        let flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
        self.set_irqs(flags, irq, 0, 0, &[])
    }

    fn has_reset(&self) -> bool {
        self.has_reset
    }

    fn reset(&self) -> io::Result<()> {
        // SAFETY: the ioctl has no argument.
        check_ioctl(unsafe { ioctl(&self.opened.device, VFIO_DEVICE_RESET()) })
    }
}

/// Registers of a function, mapped.
struct Registers {
    address: NonNull<u8>,
    len: usize,
    /// Closed after they are unmapped: a mapping keeps the function open, and what is open keeps its
    /// group in the container.
    _opened: Arc<Opened>,
}

// SAFETY: `pages` made the mapping, of `len` bytes, and it lasts until drop. The kernel refuses offsets
// and lengths that are no whole pages.
unsafe impl HostPages for Registers {
    fn host_address(&self) -> NonNull<u8> {
        self.address
    }
    fn byte_len(&self) -> usize {
        self.len
    }
}

// SAFETY: the mapping belongs to the value and nothing here accesses it.
unsafe impl Send for Registers {}
// SAFETY: as above.
unsafe impl Sync for Registers {}

impl Drop for Registers {
    fn drop(&mut self) {
        // SAFETY: unmaps what `pages` mapped; who used the address held the value.
        unsafe { libc::munmap(self.address.as_ptr().cast(), self.len) };
    }
}

fn index(irq: Irq) -> u32 {
    match irq {
        Irq::Intx => VFIO_PCI_INTX_IRQ_INDEX,
        Irq::Msi => VFIO_PCI_MSI_IRQ_INDEX,
        Irq::Msix => VFIO_PCI_MSIX_IRQ_INDEX,
    }
}

/// A structure's length, as the kernel wants to be told it.
fn argsz<T>() -> u32 {
    u32::try_from(size_of::<T>()).unwrap_or(u32::MAX)
}

/// Where a region is. The crate counts the regions that the kernel described, so what it says of one is
/// taken only if the kernel says the same.
fn region(device: &VfioDevice, index: u32) -> Result<Place, VfioError> {
    let mut info = vfio_region_info {
        argsz: argsz::<vfio_region_info>(),
        index,
        ..vfio_region_info::default()
    };
    // SAFETY: the structure is as long as it says and is the one that this ioctl fills in.
    let result = unsafe { ioctl_with_mut_ref(device, VFIO_DEVICE_GET_REGION_INFO(), &mut info) };
    check_ioctl(result).map_err(VfioError::kernel("describe a region"))?;
    if (device.get_region_offset(index), device.get_region_size(index)) != (info.offset, info.size)
    {
        return Err(VfioError::Unsuited(format!("VFIO describes its region {index} in two ways")));
    }
    let mut mappable = Vec::new();
    if info.flags & VFIO_REGION_INFO_FLAG_MMAP != 0 {
        let mut whole = true;
        for capability in device.get_region_caps(index) {
            if let VfioRegionInfoCap::SparseMmap(sparse) = capability {
                whole = false;
                mappable.extend(sparse.areas.iter().map(|area| (area.offset, area.size)));
            }
        }
        if whole {
            mappable.push((0, info.size));
        }
    }
    Ok(Place { offset: info.offset, info: RegionInfo { size: info.size, mappable } })
}

/// What the kernel would refuse without saying why. Returns the function's group.
fn check(sysfs: &Sysfs, address: HostAddress) -> Result<u32, VfioError> {
    if !sysfs.function(address).exists() {
        return Err(VfioError::NoFunction(address));
    }
    let group = sysfs.group(address).ok_or(VfioError::NoIommu(address))?;
    let driver = sysfs.driver(address);
    if driver.as_deref() != Some("vfio-pci") {
        return Err(VfioError::NotBound { address, driver });
    }
    Ok(group)
}

/// Puts the crate's error into words that say what to do.
fn explain(sysfs: &Sysfs, address: HostAddress, group: u32, error: CrateError) -> VfioError {
    match error {
        CrateError::GroupViable => {
            let others = sysfs.in_the_way(address);
            VfioError::NotViable { address, group, others }
        }
        CrateError::OpenGroup(error, group) => {
            let path = format!("/dev/vfio/{group}");
            match error.kind() {
                io::ErrorKind::PermissionDenied => VfioError::Permission(path),
                io::ErrorKind::ResourceBusy => VfioError::Busy(address),
                _ => VfioError::kernel("open the IOMMU group")(error),
            }
        }
        CrateError::ContainerSetIOMMU(error) if error.errno() == libc::EPERM => {
            VfioError::UnsafeInterrupts
        }
        CrateError::ContainerSetIOMMU(error) if error.errno() == libc::ENODEV => VfioError::NoType1,
        other => VfioError::Vfio(other),
    }
}

/// Why there is no container.
pub(crate) fn explain_container(error: CrateError) -> VfioError {
    let path = "/dev/vfio/vfio";
    match error {
        CrateError::OpenContainer(error) => match error.kind() {
            io::ErrorKind::NotFound => VfioError::NoVfio,
            // The node is there before its module is.
            _ if error.raw_os_error() == Some(libc::ENODEV) => VfioError::NoVfio,
            io::ErrorKind::PermissionDenied => VfioError::Permission(path.to_owned()),
            _ => VfioError::kernel("open /dev/vfio/vfio")(error),
        },
        CrateError::VfioExtension => VfioError::NoType1,
        other => VfioError::Vfio(other),
    }
}

/// Whether this process may open a file for reading and writing. It is not opened: a group that is could
/// not be opened by another at the same time.
pub(crate) fn may_open(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let wanted = libc::R_OK | libc::W_OK;
    // SAFETY: the path is a string that ends with a zero.
    let answer =
        unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), wanted, libc::AT_EACCESS) };
    answer == 0
}

/// What this process may pin at most, if that is limited and it has not the privilege to do without.
pub(crate) fn locked_memory_limit() -> Option<u64> {
    let limits = fs::read_to_string(Path::new("/proc/self/limits")).ok()?;
    let line = limits.lines().find(|line| line.starts_with("Max locked memory"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

fn check_ioctl(result: i32) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An access that went through as a whole, or not.
fn whole(done: isize, len: usize) -> io::Result<()> {
    match usize::try_from(done) {
        Ok(done) if done == len => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}
