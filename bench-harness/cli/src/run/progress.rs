//! The progress bar.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar on the error output while it is a terminal, else nothing.
pub(crate) struct Progress {
    bar: ProgressBar,
    cells: u64,
}

impl Progress {
    /// A bar for that many rounds of `cells` runs.
    pub(crate) fn new(cells: usize, rounds: u32) -> Self {
        let cells = cells as u64;
        let bar = ProgressBar::new(cells * u64::from(rounds));
        let style =
            ProgressStyle::with_template("{bar:24} {pos}/{len} {elapsed}, {eta} left  {wide_msg}");
        if let Ok(style) = style {
            bar.set_style(style);
        }
        // No steady tick: a thread that draws while something is measured would be measured too.
        Self { bar, cells }
    }

    /// A run begins.
    pub(crate) fn begin(&self, name: &str) {
        self.bar.set_message(name.to_owned());
        self.bar.tick();
    }

    /// It has ended.
    pub(crate) fn end(&self) {
        self.bar.inc(1);
    }

    /// How many rounds there will be.
    pub(crate) fn rounds(&self, rounds: u32) {
        self.bar.set_length(self.cells * u64::from(rounds));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
