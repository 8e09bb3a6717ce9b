//! A script in a guest, and who listens to it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::Write;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use paraslot_protocol::Phase;
use paraslot_testbed::{Lines, said};
use paraslot_vmm::{LinuxEnd, LinuxHandle, LinuxVm};

/// Lines that are kept of what a guest says beside the protocol, to explain how it failed.
const LAST_WORDS: usize = 3;

/// What a guest's script has told.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    facts: BTreeMap<String, String>,
    /// Why it gave up, as it says.
    failure: Option<String>,
    status: Option<i32>,
    last_words: VecDeque<String>,
}

impl Told {
    /// A fact that the script was to tell.
    ///
    /// # Errors
    /// When it did not, or it is nothing of the kind.
    pub(super) fn fact<T: FromStr>(&self, key: &str) -> anyhow::Result<T> {
        let value =
            self.facts.get(key).with_context(|| format!("the guest does not tell {key}"))?;
        value.parse().ok().with_context(|| format!("the guest tells {key} as {value:?}"))
    }

    /// Takes a line of the console. Returns the word of a mark, which is to be answered.
    fn take<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        let Some((word, rest)) = said(line) else {
            self.last_words.truncate(LAST_WORDS - 1);
            self.last_words.push_front(line.to_owned());
            return None;
        };
        match word {
            "fact" => {
                let (key, value) = rest.split_once(' ').unwrap_or((rest, ""));
                self.facts.insert(key.to_owned(), value.to_owned());
            }
            "mark" => return Some(rest),
            "fail" => self.failure = Some(rest.to_owned()),
            "exit" => self.status = rest.parse().ok(),
            _ => {}
        }
        None
    }

    /// Whether the script has come to its end, and well.
    fn check(&self) -> anyhow::Result<()> {
        match self.status {
            Some(0) => Ok(()),
            Some(status) => bail!("the guest's script failed with status {status}{self}"),
            None => bail!("the guest did not come to its script's end{self}"),
        }
    }
}

/// What explains a failure.
impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(failure) = &self.failure {
            return write!(f, ": {failure}");
        }
        self.last_words.iter().rev().try_for_each(|line| write!(f, ": {line}"))
    }
}

/// What comes out of the console.
enum Event {
    Line(String),
    /// The run is over, and its lines have come.
    End,
}

/// The other end of a guest's console.
pub(super) struct Console {
    lines: Receiver<Event>,
    sender: Sender<Event>,
}

/// A console: the guest's end, and the other one.
pub(super) fn console() -> (Box<dyn Write + Send>, Console) {
    let (sender, lines) = channel();
    let to = sender.clone();
    // Nobody may listen any more.
    let wire = Lines::new(move |line| drop(to.send(Event::Line(line))));
    (Box::new(wire), Console { lines, sender })
}

impl Console {
    /// Runs a machine with a script in it to its end, for `limit` at most, and calls `on_phase` at its
    /// marks while it waits.
    ///
    /// # Errors
    /// When it does not end by itself, or the script fails.
    pub(super) fn run(
        self,
        vm: &mut LinuxVm,
        limit: Duration,
        on_phase: &mut (dyn FnMut(Phase) + Send),
    ) -> anyhow::Result<Told> {
        let Self { lines, sender } = self;
        let handle = vm.handle();
        let (run, told) = thread::scope(|scope| {
            let listener = scope.spawn(move || listen(&lines, &handle, on_phase));
            let run = vm.run(Some(limit));
            // It waits for that, unless it is gone, which joining it tells.
            let _ = sender.send(Event::End);
            (run, listener.join())
        });
        let told = told.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match run {
            Ok(LinuxEnd::PowerOff) => told.check()?,
            Ok(end) => bail!("the guest ended by {end:?}{told}"),
            Err(error) => {
                return Err(anyhow::anyhow!("the guest's machine failed{told}").context(error));
            }
        }
        Ok(told)
    }
}

/// Stops the guest if whoever listens to it panics: nobody would answer it.
struct StopOnPanic<'a>(&'a LinuxHandle);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

/// Listens to the console until the run is over.
fn listen(
    lines: &Receiver<Event>,
    handle: &LinuxHandle,
    on_phase: &mut (dyn FnMut(Phase) + Send),
) -> Told {
    let _guard = StopOnPanic(handle);
    let mut told = Told::default();
    for event in lines.iter() {
        let Event::Line(line) = event else { break };
        let Some(word) = told.take(&line) else { continue };
        match word {
            "measure" => on_phase(Phase::Measure),
            "done" => on_phase(Phase::Done),
            _ => {}
        }
        handle.input(b"on\n");
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a guest tells that writes this.
    fn told(text: &str) -> (Told, Vec<String>) {
        let mut told = Told::default();
        let marks = text.lines().filter_map(|line| told.take(line).map(str::to_owned)).collect();
        (told, marks)
    }

    #[test]
    fn facts_and_marks_are_told_from_the_rest() {
        let (told, marks) = told(
            "hello\nparaslot: fact interrupts 12\n[ 1.0] oops paraslot: mark measure\n\
             paraslot: fact build #1 SMP Debian\nparaslot: mark done\nparaslot: exit 0",
        );
        assert_eq!(marks, ["measure", "done"]);
        assert_eq!(told.fact::<u64>("interrupts").unwrap(), 12);
        assert_eq!(told.fact::<String>("build").unwrap(), "#1 SMP Debian");
        assert!(told.check().is_ok());
        let say = |result: anyhow::Result<u64>| result.unwrap_err().to_string();
        assert_eq!(say(told.fact("capacity")), "the guest does not tell capacity");
        assert!(say(told.fact("build")).starts_with("the guest tells build as \"#1"));
    }

    #[test]
    fn a_failure_is_explained_by_the_guest() {
        let say = |text| told(text).0.check().unwrap_err().to_string();
        assert_eq!(
            say("a\nb\nc\nd\nparaslot: exit 7"),
            "the guest's script failed with status 7: b: c: d"
        );
        let failed = say("noise\nparaslot: fail no disk\nparaslot: exit 1");
        assert_eq!(failed, "the guest's script failed with status 1: no disk");
        assert_eq!(say("panic"), "the guest did not come to its script's end: panic");
    }
}
