//! What the kernel complains about.
//!
//! A script prints the kernel's messages of level warning and above, and all that speak of errors,
//! whatever their level. Each must be one that is listed, with the reason why it may be there.

/// A message that may be there: it contains `text`.
#[derive(Clone, Copy)]
pub(crate) struct Allowed {
    pub(crate) text: &'static str,
    /// Why that is no fault of a device.
    pub(crate) reason: &'static str,
}

/// What may be there on any machine of ours.
const ALWAYS: &[Allowed] = &[
    Allowed {
        text: "Calibrating delay loop (skipped) preset value",
        reason: "that is no reset: the processor's speed is known",
    },
    Allowed { text: "hrtimer: interrupt took", reason: "the machine was busy with something else" },
    Allowed {
        text: "perf: interrupt took too long",
        reason: "the machine was busy with something else",
    },
];

/// Panics if there is a complaint that is not allowed.
pub(crate) fn judge(complaints: &[String], allowed: &[Allowed]) {
    let mut bad = Vec::new();
    for complaint in complaints {
        match ALWAYS.iter().chain(allowed).find(|allowed| complaint.contains(allowed.text)) {
            Some(allowed) => println!("allowed, {}: {complaint}", allowed.reason),
            None => bad.push(complaint.as_str()),
        }
    }
    assert!(bad.is_empty(), "the kernel complains:\n{}", bad.join("\n"));
}
