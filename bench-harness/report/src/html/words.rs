//! Names in plain words, and what may be said of text from a file.

use crate::groups::Group;
use crate::{Completion, GuestKind, Record, Size, figures};

/// Text from a record, which may be anybody's: without characters that cannot be seen and move others
/// about. That it is text and no markup is the page's affair.
pub(super) fn plain(text: &str) -> String {
    let moves = |character: char| {
        matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}'
        )
    };
    let shown = |character: char| match character {
        character if character.is_control() || moves(character) => ' ',
        character => character,
    };
    text.chars().map(shown).collect()
}

/// What was done, as the beginning of a sentence.
pub(super) fn work(workload: &str, size: Size, offered: Option<u32>, guest: GuestKind) -> String {
    let (Size::Block(bytes) | Size::Frame(bytes)) = size;
    let bytes = figures::bytes(bytes);
    let mut text = match (workload, size) {
        ("randread", Size::Block(_)) => format!("Random reads of {bytes}"),
        ("randwrite", Size::Block(_)) => format!("Random writes of {bytes}"),
        ("read", Size::Block(_)) => format!("Reads in order, {bytes} each"),
        ("fill", Size::Block(_)) => format!("Writes in order, {bytes} each"),
        ("tx", Size::Frame(_)) => format!("Sending frames of {bytes}"),
        ("rx", Size::Frame(_)) => format!("Receiving frames of {bytes}"),
        ("rr", Size::Frame(_)) => format!("Round trips of {bytes} frames"),
        ("wire", Size::Frame(_)) => format!("From guest to guest, frames of {bytes}"),
        ("tcp-tx", Size::Frame(_)) => format!("Sending over TCP, {bytes} a call"),
        ("tcp-rx", Size::Frame(_)) => format!("Receiving over TCP, {bytes} a call"),
        ("tcp-rr", Size::Frame(_)) => format!("Round trips over TCP, {bytes} each way"),
        (other, Size::Block(_)) => format!("{}, blocks of {bytes}", plain(other)),
        (other, Size::Frame(_)) => format!("{}, frames of {bytes}", plain(other)),
    };
    if let Some(offered) = offered {
        text.push_str(&format!(", {offered} a second"));
    }
    if guest == GuestKind::Linux {
        text.push_str(", in Linux");
    }
    text
}

/// What a group did.
pub(super) fn work_of(group: &Group<'_>) -> String {
    work(group.workload, group.size, group.offered, group.guest)
}

/// How many operations at once, and how the driver learns that they are done.
pub(super) fn manner(record: &Record) -> String {
    let count = match record.queue_depth {
        1 => "one at a time".to_owned(),
        count => format!("{count} at once"),
    };
    let how = match record.completion {
        Completion::Poll => "polled",
        Completion::Interrupt => "by interrupt",
    };
    format!("{count}, {how}")
}

/// `a`, `a and b`, `a, b and c`.
pub(super) fn list(names: &[String]) -> String {
    match names {
        [] => String::new(),
        [one] => one.clone(),
        [before @ .., last] => format!("{} and {last}", before.join(", ")),
    }
}

/// The names, each once, in the order in which they first appear.
pub(super) fn once(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

/// The text with a capital at its beginning.
pub(super) fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

/// The least and the most of `values`, which read as one if they look alike.
pub(super) fn span(values: impl Iterator<Item = f64>, show: fn(f64) -> String) -> Option<String> {
    let (low, high) = values.fold(None, |ends: Option<(f64, f64)>, value| {
        Some(ends.map_or((value, value), |(low, high)| (low.min(value), high.max(value))))
    })?;
    let (low, high) = (show(low), show(high));
    Some(if low == high { low } else { format!("{low} to {high}") })
}

/// A ratio in a sentence, to two digits or so.
pub(super) fn times(ratio: f64) -> String {
    if ratio >= 1e6 {
        return format!("{ratio:.1e}");
    }
    let decimals = match ratio {
        ratio if ratio >= 9.95 => 0,
        ratio if ratio >= 0.995 => 1,
        _ => 2,
    };
    format!("{ratio:.decimals$}")
}
