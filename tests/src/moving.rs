//! A function that moves house while it is used: saved, thrown away, and restored in one that was just
//! built.

use paraslot_device::{DeviceError, SavedState, StateError};
use paraslot_pci::{BarState, Layout, PciDevice};

/// Builds a function anew, over the same backends.
pub type Build = Box<dyn FnMut() -> Box<dyn PciDevice> + Send>;

/// When a function moves. Operations are the calls of [`PciDevice`] that its host makes for a guest,
/// from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moves {
    /// Not at all, but it is paused and resumed before this operation: what a move is compared with.
    PauseBefore(u64),
    /// Before this operation.
    Before(u64),
    /// Before each.
    Always,
}

/// Stands in a machine for a function that moves. It has no doorbell eventfds and no windows, so that
/// every use of it is an operation.
pub struct Moving {
    build: Build,
    device: Option<Box<dyn PciDevice>>,
    layout: Layout,
    moves: Moves,
    operations: u64,
    last: Option<String>,
}

impl Moving {
    /// The function that `build` builds.
    pub fn new(mut build: Build, moves: Moves) -> Self {
        let device = build();
        let Layout { bars, doorbells: _, windows: _, direct: _, msix_vectors, msi_vectors, intx } =
            *device.layout();
        let layout = Layout { bars, msix_vectors, msi_vectors, intx, ..Layout::default() };
        Self { build, device: Some(device), layout, moves, operations: 0, last: None }
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.operations
    }

    /// The state that it last moved with.
    pub fn last_state(&self) -> Option<&str> {
        self.last.as_deref()
    }

    /// The function's state as text.
    ///
    /// # Panics
    /// When it cannot be paused or saved.
    pub fn state(&mut self) -> String {
        let device = self.now();
        device.pause().expect("a pause");
        let state = device.save().expect("a state");
        device.resume().expect("to go on");
        serde_json::to_string(&state).expect("text")
    }

    fn now(&mut self) -> &mut dyn PciDevice {
        &mut **self.device.as_mut().expect("a function between moves")
    }

    /// The function for the next operation, where it is by then.
    fn next(&mut self) -> &mut dyn PciDevice {
        let operation = self.operations;
        self.operations += 1;
        match self.moves {
            Moves::PauseBefore(before) if before == operation => {
                self.now().pause().expect("a pause");
                self.now().resume().expect("to go on");
            }
            Moves::Always => self.move_house(),
            Moves::Before(before) if before == operation => self.move_house(),
            _ => {}
        }
        self.now()
    }

    fn move_house(&mut self) {
        let mut old = self.device.take().expect("a function between moves");
        old.pause().expect("a pause");
        let text = serde_json::to_string(&old.save().expect("a state")).expect("text");
        let again = serde_json::to_string(&old.save().expect("a state")).expect("text");
        assert_eq!(text, again, "saving changes nothing");
        let bars = old.bars();
        // What it has in common with the next, such as the lock of an image, it gives up first.
        drop(old);

        let mut new = (self.build)();
        new.pause().expect("a pause");
        let state: SavedState = serde_json::from_str(&text).expect("what was saved");
        new.restore(&state).unwrap_or_else(|error| panic!("{error}: {text}"));
        let again = serde_json::to_string(&new.save().expect("a state")).expect("text");
        assert_eq!(text, again, "what was restored is what was saved");
        assert_eq!(bars, new.bars());
        new.resume().expect("to go on");
        self.device = Some(new);
        self.last = Some(text);
    }
}

impl PciDevice for Moving {
    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn bars(&self) -> [Option<BarState>; 7] {
        self.device.as_ref().expect("a function between moves").bars()
    }

    fn config_read(&mut self, offset: u16, data: &mut [u8]) {
        self.next().config_read(offset, data);
    }

    fn config_write(&mut self, offset: u16, data: &[u8]) {
        self.next().config_write(offset, data);
    }

    fn bar_read(&mut self, bar: u8, offset: u64, data: &mut [u8]) {
        self.next().bar_read(bar, offset, data);
    }

    fn bar_write(&mut self, bar: u8, offset: u64, data: &[u8]) {
        self.next().bar_write(bar, offset, data);
    }

    fn reset(&mut self) {
        self.now().reset();
    }

    fn pause(&mut self) -> Result<(), DeviceError> {
        self.now().pause()
    }

    fn resume(&mut self) -> Result<(), DeviceError> {
        self.now().resume()
    }

    fn save(&mut self) -> Result<SavedState, StateError> {
        self.now().save()
    }

    fn restore(&mut self, state: &SavedState) -> Result<(), StateError> {
        self.now().restore(state)
    }
}
