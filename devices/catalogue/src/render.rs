//! Sheets as people and programs read them.

mod html;
mod markdown;
mod text;

pub use html::html;
pub use markdown::{index, markdown};
pub use text::{summary, text};

use crate::Sheet;

/// Sheets as JSON: an array of one object for each.
///
/// # Errors
/// None that a sheet of this crate's could cause.
pub fn json(sheets: &[Sheet]) -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(sheets)? + "\n")
}
