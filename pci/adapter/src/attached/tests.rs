use paraslot_device::Doorbell;
use paraslot_device::interrupt::NoInterrupts;
use paraslot_pci::{BarState, ConfigSpace, ConfigSpaceBuilder, Identity, Layout};
use vmm_sys_util::eventfd::EFD_NONBLOCK;

use super::*;

/// A function with a 64-bit BAR, a port BAR, and a ROM; it answers with where it was asked.
struct Function {
    config: ConfigSpace,
    layout: Layout,
    paused: bool,
    written: Vec<(u8, u64)>,
}

const IDENTITY: Identity = Identity {
    vendor: 0x1234,
    device: 0x5678,
    revision: 0,
    class: [0xff, 0, 0],
    subsystem_vendor: 0,
    subsystem: 0,
};

fn spec(kind: BarKind, size: u64) -> BarSpec {
    BarSpec { kind, size, prefetchable: false }
}

impl Function {
    fn new() -> Self {
        let config = ConfigSpaceBuilder::new(IDENTITY)
            .bar(0, spec(BarKind::Memory64, 0x4000))
            .bar(2, spec(BarKind::Io, 32))
            .bar(6, spec(BarKind::Rom, 0x1_0000))
            .build(std::sync::Arc::new(NoInterrupts), std::sync::Arc::new(NoInterrupts));
        let bell = |bar, offset| {
            let event = EventFd::new(EFD_NONBLOCK).unwrap();
            Doorbell { bar, offset, len: 0, value: Some(7), event }
        };
        let doorbells = vec![bell(0, 0x10), bell(2, 4)];
        let layout = Layout { doorbells, ..config.layout() };
        Self { config, layout, paused: false, written: Vec::new() }
    }
}

impl PciDevice for Function {
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
        data.fill(bar * 16 + u8::try_from(offset).unwrap());
    }
    fn bar_write(&mut self, bar: u8, offset: u64, _data: &[u8]) {
        self.written.push((bar, offset));
    }
    fn reset(&mut self) {
        self.config.reset();
    }
    fn pause(&mut self) -> Result<(), DeviceError> {
        self.paused = true;
        Ok(())
    }
    fn resume(&mut self) -> Result<(), DeviceError> {
        self.paused = false;
        Ok(())
    }
    fn save(&mut self) -> Result<SavedState, StateError> {
        if !self.paused {
            return Err(StateError::NotPaused);
        }
        SavedState::new("function", 1, &self.config.save())
    }
    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        let state = state.open("function", 1)?;
        self.config.reset();
        self.config.restore(&state)
    }
}

const COMMAND: usize = 1;
const BAR0: usize = 4;
const BAR2: usize = 6;
const ROM: usize = 12;
const HIGH: u64 = 0x12_0000_0000;

/// The function with all BARs placed.
fn placed() -> Attached {
    let mut function = Attached::new(Function::new());
    let bars: Vec<u8> = function.bars().map(|(bar, _)| bar).collect();
    assert_eq!(bars, [0, 2, 6]);
    function.place(0, HIGH);
    function.place(2, 0xc000);
    function.place(6, 0xf000_0000);
    function.place(1, 0x1000);
    function.place(7, 0x1000);
    function
}

fn switch_on(function: &mut Attached) -> Vec<BarMove> {
    function.config_write(COMMAND, 0, &[3, 0])
}

#[test]
fn what_the_host_placed_needs_no_move() {
    let mut function = placed();
    assert_eq!(function.config_read(BAR0) & !0xf, 0);
    assert_eq!(function.config_read(BAR0 + 1), 0x12);
    assert_eq!(function.config_read(BAR2), 0xc001);
    assert_eq!(function.config_read(ROM), 0xf000_0000);
    let mut data = [0];
    function.read(HIGH, 4, &mut data);
    assert_eq!(data, [0xff], "nothing decodes yet");
    assert_eq!(switch_on(&mut function), []);
    function.read(HIGH, 4, &mut data);
    assert_eq!(data, [4]);
    function.read(0xc000, 4, &mut data);
    assert_eq!(data, [0x24]);
    function.read(0xf000_0000, 4, &mut data);
    assert_eq!(data, [0xff], "the ROM has a switch of its own");
    assert_eq!(function.config_write(ROM, 0, &[1]), []);
    function.read(0xf000_0000, 4, &mut data);
    assert_eq!(data, [0x64]);
    function.read(0x7000, 4, &mut data);
    assert_eq!(data, [0xff], "no BAR of its is there");
}

#[test]
fn a_bar_moves_when_it_rests_and_not_while_it_is_sized() {
    let mut function = placed();
    switch_on(&mut function);
    // Linux sizes BARs with decoding switched off; firmware may not.
    for (register, before) in [(BAR0, 0_u32), (BAR0 + 1, 0x12), (BAR2, 0xc000), (ROM, 0xf000_0000)]
    {
        assert_eq!(function.config_write(register, 0, &[0xff; 4]), []);
        assert_ne!(function.config_read(register) & !0xf, before);
        assert_eq!(function.config_write(register, 0, &before.to_le_bytes()), []);
    }
    assert_eq!(function.config_write(COMMAND, 0, &[1, 0]), []);
    for (register, value) in [(BAR0, 0xe000_0000_u32), (BAR0 + 1, 0)] {
        assert_eq!(function.config_write(register, 0, &value.to_le_bytes()), []);
    }
    let moves = switch_on(&mut function);
    let expected =
        BarMove { bar: 0, kind: BarKind::Memory64, old: HIGH, new: 0xe000_0000, size: 0x4000 };
    assert_eq!(moves, [expected]);
    let mut data = [0];
    function.read(HIGH, 4, &mut data);
    assert_eq!(data, [0xff], "it decodes where the bus does not have it");
    assert!(!function.moved(HIGH, 0xd000_0000));
    assert!(function.moved(HIGH, 0xe000_0000));
    function.read(0xe000_0000, 4, &mut data);
    assert_eq!(data, [4]);
    function.write(0xe000_0000, 8, &[0]);
    function.write(HIGH, 8, &[0]);
    assert_eq!(function.moves(), []);
    assert_eq!(function.placed(0), Some(0xe000_0000));
}

#[test]
fn a_move_that_is_refused_leaves_the_bar_where_it_was() {
    let mut function = placed();
    switch_on(&mut function);
    let moves = function.config_write(BAR2, 0, &0xd000_u32.to_le_bytes());
    function.refuse(&moves[0]);
    assert_eq!(function.config_read(BAR2), 0xc001);
    assert_eq!(function.moves(), []);
}

#[test]
fn doorbells_are_where_their_bar_is() {
    let function = placed();
    let bell = |bar, base| {
        let bell = function.doorbells(bar, base).next().unwrap();
        (bell.address, bell.port, bell.len, bell.value)
    };
    assert_eq!(bell(0, HIGH), (HIGH + 0x10, false, 0, Some(7)));
    assert_eq!(bell(2, 0xc000), (0xc004, true, 0, Some(7)));
    assert_eq!(function.doorbells(6, 0).count() + function.windows(0, HIGH).count(), 0);
}

#[test]
fn accesses_beyond_configuration_space_find_nothing() {
    let mut function = placed();
    assert_eq!(function.config_read(1024), u32::MAX);
    assert_eq!(function.config_read(usize::MAX), u32::MAX);
    assert_eq!(function.config_write(usize::MAX, 3, &[0]), []);
    assert_eq!(function.config_write(COMMAND, u64::MAX, &[3]), []);
    assert_eq!(function.config_read(0), 0x5678_1234);
}

#[test]
fn a_snapshot_is_text_and_brings_the_bars_back() {
    let mut function = placed();
    switch_on(&mut function);
    assert!(matches!(function.snapshot(), Err(StateError::NotPaused)));
    function.pause().unwrap();
    let snapshot = function.snapshot().unwrap();
    function.resume().unwrap();

    // A host that has kept where the BARs were places them again.
    let mut kept = Attached::new(Function::new());
    kept.restore(&snapshot).unwrap();
    kept.place(0, HIGH);
    kept.place(2, 0xc000);
    kept.place(6, 0xf000_0000);
    assert_eq!(kept.moves(), []);
    // One that has not is told.
    let mut told = Attached::new(Function::new());
    told.restore(&snapshot).unwrap();
    let moves: Vec<_> = told.moves().iter().map(|to| (to.bar, to.old, to.new)).collect();
    assert_eq!(moves, [(0, 0, HIGH), (2, 0, 0xc000)]);
    assert!(told.moved(0, 0xc000) && told.moved(0, HIGH));
    assert!(matches!(told.restore("{}"), Err(StateError::Malformed(_))));
}

/// A line that can only be raised is raised while the function wants it, with each access.
#[test]
fn a_pulsed_line_is_raised_until_it_is_let_go() {
    use std::sync::atomic::{AtomicU64, Ordering};

    use paraslot_device::IntxLine;

    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let line = Arc::new(PulsedLine::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    let mut function = Attached::new(Function::new()).with_line(line.clone());
    function.place(0, HIGH);
    switch_on(&mut function);
    let raised = || count.swap(0, Ordering::Relaxed);
    function.write(HIGH, 0, &[0]);
    assert_eq!(raised(), 0);
    line.set_level(true);
    assert_eq!(raised(), 1);
    function.read(HIGH, 0, &mut [0]);
    function.write(HIGH, 0, &[0]);
    function.read(HIGH - 0x4000, 0, &mut [0]);
    assert_eq!(raised(), 2);
    line.set_level(false);
    function.write(HIGH, 0, &[0]);
    assert_eq!(raised(), 0);
}
