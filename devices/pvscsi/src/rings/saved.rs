//! The rings, saved.
//!
//! Where they are was read when they were set up, so it is carried. Whether it is guest memory is
//! found out when they are used, as if that memory had gone.

use paraslot_device::StateError;
use paraslot_spec::pvscsi::{
    COMPLETIONS_PER_PAGE, MAX_MESSAGE_PAGES, MAX_RING_PAGES, MESSAGES_PER_PAGE, PAGE_SHIFT,
    REQUESTS_PER_PAGE,
};
use serde::{Deserialize, Serialize};
use vm_memory::GuestAddress;

use super::{KICK_ALWAYS, KICK_NEVER, Pages, Rings};

/// The rings as they were set up, and the device's places in them. Pages are numbers of guest pages.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RingsState {
    state: u64,
    requests: Vec<u64>,
    completions: Vec<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<u64>>,
    taken: u32,
    completed: u32,
    told: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    threshold: Option<u32>,
}

impl Pages {
    fn save(&self) -> Vec<u64> {
        let Self { pages, per_page: _, entries: _ } = self;
        pages.iter().map(|page| page.0 >> PAGE_SHIFT).collect()
    }

    fn restore(numbers: &[u64], most: usize, per_page: u32) -> Result<Self, StateError> {
        let count = u32::try_from(numbers.len()).ok();
        let entries = count
            .filter(|count| count.is_power_of_two() && numbers.len() <= most)
            .and_then(|count| count.checked_mul(per_page))
            .ok_or_else(|| StateError::impossible(format!("a ring of {} pages", numbers.len())))?;
        let pages = numbers.iter().map(|&number| page(number)).collect::<Result<_, _>>()?;
        Ok(Self { pages, per_page, entries })
    }
}

fn page(number: u64) -> Result<GuestAddress, StateError> {
    let address = number.checked_mul(1 << PAGE_SHIFT).map(GuestAddress);
    address.ok_or_else(|| StateError::impossible(format!("page number {number:#x}")))
}

impl Rings {
    pub(crate) fn save(&self) -> RingsState {
        let Self { state, requests, completions, messages, taken, completed, told, threshold } =
            self;
        RingsState {
            state: state.0 >> PAGE_SHIFT,
            requests: requests.save(),
            completions: completions.save(),
            messages: messages.as_ref().map(Pages::save),
            taken: *taken,
            completed: *completed,
            told: *told,
            threshold: *threshold,
        }
    }

    pub(crate) fn restore(saved: &RingsState) -> Result<Self, StateError> {
        let RingsState {
            state,
            requests,
            completions,
            messages,
            taken,
            completed,
            told,
            threshold,
        } = saved;
        if messages.is_none() && *told != 0 {
            return Err(StateError::impossible("messages that were told without a ring"));
        }
        if threshold.is_some_and(|kick| kick != KICK_ALWAYS && kick != KICK_NEVER) {
            return Err(StateError::impossible("a threshold that is never told"));
        }
        let messages = messages.as_deref();
        let messages =
            messages.map(|pages| Pages::restore(pages, MAX_MESSAGE_PAGES, MESSAGES_PER_PAGE));
        Ok(Self {
            state: page(*state)?,
            requests: Pages::restore(requests, MAX_RING_PAGES, REQUESTS_PER_PAGE)?,
            completions: Pages::restore(completions, MAX_RING_PAGES, COMPLETIONS_PER_PAGE)?,
            messages: messages.transpose()?,
            taken: *taken,
            completed: *completed,
            told: *told,
            threshold: *threshold,
        })
    }

    /// Completions that there is room for in the ring.
    pub(crate) fn completions(&self) -> usize {
        usize::try_from(self.completions.entries).unwrap_or(usize::MAX)
    }
}
