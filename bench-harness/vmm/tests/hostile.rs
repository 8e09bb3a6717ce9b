//! A guest that does what no driver does. It may come to grief; nobody else may.

mod common;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::device::{TestDevice, at};
use common::program::Program;
use common::{LIMIT, kvm, machine};
use paraslot_device::{Host, ManualExecutor, SharedPage};
use paraslot_pci::{
    BarKind, BarSpec, BarState, Bdf, ConfigSpace, ConfigSpaceBuilder, DeviceError, Doorbell,
    Identity, Layout, MsixLayout, PciDevice, ReadWindow,
};
use paraslot_protocol::{Phase, port};
use paraslot_spec::pci::{Command, header, mechanism1, msix};
use paraslot_vmm::{Path, Run, Vm, VmError};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Bytes of each memory BAR.
const BAR_LEN: u32 = 0x4000;
/// Offsets in a memory BAR.
const DOORBELL: u32 = 0x10;
const RAISE: u32 = 0x40;
const SCRATCH: u32 = 0x48;
const WINDOW: u32 = 0x1000;
const MSIX: u32 = 0x2000;
const VECTORS: u16 = 4;
/// The MSI-X capability: the first and only.
const CAPABILITY: u16 = 0x40;

/// Slots of two such devices.
const SLOTS: [u8; 2] = [3, 4];
/// Where a BAR can do no harm.
const PLACE: u32 = 0xd000_0000;
/// Ports for the port BAR.
const PORTS: u32 = 0x1000;
/// Guest memory that the programs leave alone.
const MEMORY: u32 = 0x9000;

const LOCAL_APIC: u32 = 0xfee0_0000;
const SPURIOUS: u32 = 0xf0;
const IO_APIC: u32 = 0xfec0_0000;
const ECAM: u32 = 0xe000_0000;

/// A function with BARs of each kind (0: 32 bits, 1: ports, 2 and 3: 64 bits), each with a doorbell, the
/// memory BARs with windows. It takes whatever is written.
struct Target {
    config: ConfigSpace,
    layout: Layout,
    window: Arc<SharedPage>,
    scratch: u32,
}

impl Target {
    fn new(host: &Host<Arc<GuestMemoryMmap>>) -> Self {
        let identity = Identity {
            vendor: 0x1234,
            device: 0x5679,
            revision: 0,
            class: [0xff, 0, 0],
            subsystem_vendor: 0,
            subsystem: 0,
        };
        let spec = |kind, size: u32| BarSpec { kind, size: size.into(), prefetchable: false };
        let config = ConfigSpaceBuilder::new(identity)
            .bar(0, spec(BarKind::Memory32, BAR_LEN))
            .bar(1, spec(BarKind::Io, 8))
            .bar(2, spec(BarKind::Memory64, BAR_LEN))
            .intx()
            .msix(MsixLayout { vectors: VECTORS, table: (0, MSIX), pba: (0, MSIX + 0x800) })
            .build(host.msi.clone(), host.intx.clone());
        let doorbell = |(bar, offset): (u8, u32)| Doorbell {
            bar,
            offset: offset.into(),
            len: 4,
            value: None,
            event: EventFd::new(EFD_NONBLOCK).unwrap(),
        };
        let doorbells = [(0, DOORBELL), (1, 0), (2, DOORBELL)].map(doorbell).into();
        let window = Arc::new(SharedPage::new(4096).unwrap());
        let windows = [0, 2]
            .map(|bar| ReadWindow { bar, offset: WINDOW.into(), page: window.clone() })
            .into();
        let layout = Layout { doorbells, windows, ..config.layout() };
        Self { config, layout, window, scratch: 0 }
    }
}

impl PciDevice for Target {
    fn layout(&self) -> &Layout {
        &self.layout
    }
    fn bars(&self) -> [Option<BarState>; 7] {
        self.config.bars()
    }
    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.config.read(offset, data);
    }
    fn config_write(&mut self, offset: u16, data: &[u8]) {
        let _ = self.config.write(offset, data);
    }
    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        if self.config.msix_read(bar, offset, data) {
            return;
        }
        let value = match u32::try_from(offset) {
            Ok(WINDOW) => self.window.words()[0].load(Ordering::Relaxed),
            Ok(SCRATCH | 4) => self.scratch,
            _ => u32::MAX,
        };
        data.iter_mut().zip(value.to_le_bytes()).for_each(|(byte, value)| *byte = value);
    }
    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        if self.config.msix_write(bar, offset, data) {
            return;
        }
        let mut bytes = [0; 4];
        bytes.iter_mut().zip(data).for_each(|(byte, value)| *byte = *value);
        let value = u32::from_le_bytes(bytes);
        match u32::try_from(offset) {
            Ok(RAISE) => {
                let vector = u16::try_from(value).unwrap_or(u16::MAX) % VECTORS;
                self.config.interrupts().trigger_msix(vector);
                self.config.interrupts().set_intx(value & 1 != 0);
            }
            Ok(WINDOW) => self.window.words()[0].store(value, Ordering::Release),
            Ok(SCRATCH | 4) => self.scratch = value,
            _ => {}
        }
    }
    fn reset(&mut self) {
        self.config.reset();
    }
    fn pause(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
    fn resume(&mut self) -> Result<(), DeviceError> {
        Ok(())
    }
}

fn victim(path: Path) -> Vm {
    let mut vm = machine(path);
    for slot in SLOTS {
        let host = vm.host(Bdf::root(slot), Arc::new(ManualExecutor::new()));
        vm.plug(Bdf::root(slot), Arc::new(Mutex::new(Target::new(&host)))).unwrap();
    }
    vm
}

fn all() -> u32 {
    (Command::IO | Command::MEMORY | Command::BUS_MASTER).bits().into()
}

fn bar(index: u16) -> u16 {
    header::BAR0 + 4 * index
}

/// That the device in the first slot serves an access to its first BAR at [`PLACE`].
fn serves(program: Program, value: u32) -> Program {
    program
        .config_write(SLOTS[0], bar(0), PLACE)
        .write32(PLACE + SCRATCH, value)
        .read32(PLACE + SCRATCH)
        .expect(value)
        .write32(PLACE + WINDOW, value)
        .read32(PLACE + WINDOW)
        .expect(value)
}

/// Runs `program`, after which the device must still serve, on each path, the event path first.
fn survives(program: impl Fn(Program) -> Program) -> Vec<Run> {
    if !kvm() {
        return Vec::new();
    }
    let mut runs = Vec::new();
    for path in [Path::Event, Path::Trap] {
        let mut vm = victim(path);
        let start = Program::new().config_write(SLOTS[0], header::COMMAND, all());
        let program = serves(program(serves(start, 1)), 2);
        vm.load(&program.image(), "").unwrap();
        let run = vm.run(LIMIT, &mut |_| ()).unwrap();
        assert_eq!(run.exit_code, 0, "the step that failed on {path:?}");
        runs.push(run);
    }
    runs
}

/// Places where a BAR has no business.
const TAKEN: [u32; 10] = [
    0,
    0x8000,
    // The program itself, and the end of memory.
    0x10_0000,
    (64 << 20) - BAR_LEN,
    ECAM,
    ECAM + (256 << 20) - BAR_LEN,
    IO_APIC,
    LOCAL_APIC,
    // What KVM keeps for itself on Intel's CPUs.
    0xfffb_c000,
    u32::MAX - BAR_LEN + 1,
];

#[test]
fn a_bar_over_something_else_is_not_there() {
    const VERSION: u32 = 0x30;
    survives(|program| {
        let program = program
            .read32(LOCAL_APIC + VERSION)
            .write32(MEMORY, 0x1234_5678)
            // BAR 0 of the other device is never in the way of the first's.
            .config_write(SLOTS[1], header::COMMAND, all());
        TAKEN.into_iter().fold(program, |program, place| {
            program
                .config_write(SLOTS[0], bar(0), place)
                .config_write(SLOTS[1], bar(0), place)
                .read32(place + SCRATCH)
                .read32(MEMORY)
                .expect(0x1234_5678)
                .read32(ECAM)
                .expect(0x0008_1b36)
                .config_read(SLOTS[0], bar(0))
                .expect(place)
        })
    });
}

#[test]
fn a_bar_over_another_waits_until_that_moves() {
    survives(|program| {
        program
            .config_write(SLOTS[1], header::COMMAND, all())
            .config_write(SLOTS[1], bar(0), PLACE)
            .write32(PLACE + SCRATCH, 5)
            .config_write(SLOTS[0], bar(0), 0xd100_0000)
            // The second has it now, and is another device.
            .read32(PLACE + SCRATCH)
            .expect(0)
            .write32(PLACE + SCRATCH, 6)
            .read32(0xd100_0000 + SCRATCH)
            .expect(5)
            // BARs of one device over one another, and back again.
            .config_write(SLOTS[0], bar(2), 0xd100_0000)
            .config_write(SLOTS[0], bar(3), 0)
            .config_write(SLOTS[1], header::COMMAND, 0)
            .read32(PLACE + SCRATCH)
            .expect(u32::MAX)
    });
}

#[test]
fn decoding_goes_on_while_bars_are_sized() {
    survives(|program| {
        (0..4).fold(program, |program, index| {
            program
                .config_write(SLOTS[0], bar(index), u32::MAX)
                .config_read(SLOTS[0], bar(index))
                .config_write(SLOTS[0], bar(index), 0)
                .config_write(SLOTS[0], bar(index), 0x5555_5555)
        })
    });
}

#[test]
fn a_bar_may_be_wherever_addresses_reach() {
    const HIGH: [u32; 7] = [1, 0xff, 0x100, 0xfffff, 0x0010_0000, 0x8000_0000, u32::MAX];
    const LOW: [u32; 3] = [0, 0xffff_c000, 0x8000_0000];
    survives(|program| {
        let places = HIGH.into_iter().flat_map(|high| LOW.map(|low| (high, low)));
        places.fold(program, |program, (high, low)| {
            let program =
                program.config_write(SLOTS[0], bar(3), high).config_write(SLOTS[0], bar(2), low);
            program.config_read(SLOTS[0], bar(3)).expect(high)
        })
    });
}

#[test]
fn ports_of_the_machine_s_own_are_not_taken() {
    survives(|program| {
        let own = [mechanism1::ADDRESS, port::CONSOLE, port::PHASE, port::EXIT, 0x20, 0xfff8, 0];
        let program = own.into_iter().fold(program, |program, port| {
            program.config_write(SLOTS[0], bar(1), u32::from(port) & !7).in32(port & !7)
        });
        program
            .config_write(SLOTS[0], bar(1), PORTS)
            .out32(0x1004, 7)
            .in32(0x1004)
            .expect(7)
            .out32(0x1006, 0x1234)
            .in32(0x1006)
            .expect(u32::MAX)
    });
}

/// MSI-X messages to nobody: to addresses that are no APIC's, to APICs that are not there, with
/// vectors and modes that do not exist. Those for which an APIC would have to do something are below.
#[test]
fn messages_to_nobody_are_lost() {
    const ADDRESSES: [(u32, u32); 8] = [
        (0, 0),
        (!3, u32::MAX),
        (MEMORY, 0),
        (PLACE, 0),
        (0xfee0_0000 | 0x7f << 12, 0),
        (0xfee0_0000 | 0x7f << 12 | 0xc, 0),
        (0xfee0_0000, 1 << 8),
        (0xfeef_f000, 0),
    ];
    const MARK: u32 = 0x5a5a_1234;
    const DATA: [u32; 5] = [0, 0x0f, 0x41, 0xffff_f841, 0xc141];
    let runs = survives(|program| {
        let on = u32::from(msix::ENABLE) << 16;
        let program = program
            .write32(MEMORY, MARK)
            .config_write(SLOTS[0], CAPABILITY, on)
            .phase(Phase::Measure);
        let messages = ADDRESSES.into_iter().flat_map(|to| DATA.map(|data| (to, data)));
        let program = messages.fold(program, |program, ((low, high), data)| {
            program
                .write32(PLACE + MSIX, low)
                .write32(PLACE + MSIX + 4, high)
                .write32(PLACE + MSIX + 8, data)
                .write32(PLACE + MSIX + 12, 0)
                .write32(PLACE + RAISE, 0)
        });
        // Nor are they written as memory.
        program.phase(Phase::Done).read32(MEMORY).expect(MARK)
    });
    let sent = runs.get(1).map(|run| run.measured.unwrap().messages);
    let all = u64::try_from(ADDRESSES.len() * DATA.len()).unwrap();
    assert!(sent.is_none_or(|sent| sent == Some(all)));
}

/// What the APIC of a guest that sends them to itself takes seriously: SMI, NMI, INIT, start-up and an
/// interrupt of a controller that it does not have.
#[test]
fn messages_that_stop_a_cpu_stop_that_guest() {
    const MODES: [u32; 6] = [2, 3, 4, 5, 6, 7];
    if !kvm() {
        return;
    }
    for path in [Path::Event, Path::Trap] {
        for mode in MODES {
            let mut vm = victim(path);
            let program = Program::new()
                .config_write(SLOTS[0], bar(0), PLACE)
                .config_write(SLOTS[0], header::COMMAND, all())
                .config_write(SLOTS[0], CAPABILITY, u32::from(msix::ENABLE) << 16)
                .write32(LOCAL_APIC + SPURIOUS, 0x1ff)
                .write32(PLACE + MSIX, LOCAL_APIC)
                .write32(PLACE + MSIX + 8, mode << 8 | 0x41)
                .write32(PLACE + MSIX + 12, 0)
                .write32(PLACE + RAISE, 0);
            vm.load(&program.image(), "").unwrap();
            came_to_grief_alone(vm.run(Duration::from_millis(200), &mut |_| ()));
        }
    }
}

/// Whole numbers that look random and are the same each time (Knuth's MMIX).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(self.0 >> 32).unwrap()
    }

    fn below(&mut self, end: u32) -> u32 {
        self.next() % end
    }

    fn one_of(&mut self, of: &[u32]) -> u32 {
        of[usize::try_from(self.next()).unwrap() % of.len()]
    }

    fn port(&mut self) -> u16 {
        u16::try_from(self.next() & 0xffff).unwrap()
    }

    /// Values that registers care about, and others.
    fn value(&mut self) -> u32 {
        let any = self.next();
        let bit = 1 << self.below(32);
        let place = self.one_of(&TAKEN);
        self.one_of(&[0, u32::MAX, 1, 7, any, any, bit, place, PLACE, PLACE | 1, PORTS | 1])
    }

    /// An address where something may be, but not the program.
    fn address(&mut self) -> u32 {
        let near = self.below(2 * BAR_LEN);
        let function = ECAM + (u32::from(SLOTS[0]) << 15) + self.below(1 << 16);
        let bases = [PLACE, PLACE, MEMORY, ECAM, IO_APIC, 0xfed0_0000, 0xffff_0000, 0xc000_0000];
        let placed = self.one_of(&bases) + near % 0x4000;
        self.one_of(&[placed, placed, placed, function, function, IO_APIC + near % 0x40])
    }
}

/// A program of `steps` random accesses.
fn anything(seed: u64, steps: u32) -> Program {
    let mut numbers = Numbers(seed);
    (0..steps).fold(Program::new(), |program, _| {
        let (value, address) = (numbers.value(), numbers.address());
        let [byte, second, ..] = value.to_le_bytes();
        let half = u16::from_le_bytes([byte, second]);
        let port = numbers.port();
        let slot = SLOTS[usize::try_from(numbers.below(2)).unwrap()];
        let register = u16::try_from(numbers.below(64)).unwrap();
        match numbers.below(16) {
            0..=4 => program.config_write(slot, 4 * (register % 20), value),
            5 => program.config_read(slot, register * 4 + 3),
            6 => program.config_write(slot, header::COMMAND, all()),
            7 => program.config_write(slot, bar(0), PLACE),
            8 => program.write8(address, byte),
            9 => program.write16(address, half),
            10 | 11 => program.write32(address & !3, value),
            12 => program.read32(address),
            // An end of the program before the end is one, too.
            13 => program.out8(port, byte),
            14 => program.out16(port, half),
            _ => program.in32(port),
        }
    })
}

/// A guest's own end, or its own misfortune; nothing that went wrong in the machine.
fn came_to_grief_alone(outcome: Result<Run, VmError>) {
    match outcome {
        Ok(_) => {}
        Err(VmError::Timeout { .. } | VmError::Shutdown(_) | VmError::Stopped { .. }) => {}
        Err(error) => panic!("{error}"),
    }
}

/// A program that minds its own business, and says so if it is disturbed.
fn orderly() -> Program {
    let start = Program::new().config_write(SLOTS[0], header::BAR0, PLACE).config_write(
        SLOTS[0],
        header::COMMAND,
        all(),
    );
    (0..500).fold(start, |program, step| {
        let value = 0x0101_0101_u32.wrapping_mul(step);
        let program = program.write32(PLACE + at::SCRATCH, value).read32(PLACE + at::SCRATCH);
        program.expect(value).write32(PLACE + at::DOORBELL, 1)
    })
}

#[test]
fn a_guest_that_writes_anything_anywhere_harms_nobody_else() {
    if !kvm() {
        return;
    }
    for path in [Path::Event, Path::Trap] {
        thread::scope(|scope| {
            let bystander = scope.spawn(|| {
                for _ in 0..4 {
                    let mut vm = machine(path);
                    let host = vm.host(Bdf::root(SLOTS[0]), Arc::new(ManualExecutor::new()));
                    let (device, rings) = TestDevice::new(&host);
                    vm.plug(Bdf::root(SLOTS[0]), Arc::new(Mutex::new(device))).unwrap();
                    vm.load(&orderly().image(), "").unwrap();
                    assert_eq!(vm.run(LIMIT, &mut |_| ()).unwrap().exit_code, 0);
                    assert_eq!(rings.take()[0], 500);
                }
            });
            for seed in 0..8 {
                let mut vm = victim(path);
                vm.load(&anything(seed, 1000).image(), "").unwrap();
                came_to_grief_alone(vm.run(Duration::from_secs(2), &mut |_| ()));
                // The machine is of use again.
                vm.load(&Program::new().exit(3).image(), "").unwrap();
            }
            bystander.join().unwrap();
        });
    }
}
