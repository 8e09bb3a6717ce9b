//! SET_IRQS: which eventfds the interrupts go to, and what the client does with them.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use paraslot_pci::Layout;
use vmm_sys_util::eventfd::EventFd;

use crate::function::Served;
use crate::signals::{Kind, Signals};
use crate::sys;
use crate::wire::{Fields, SetIrqs, irq, put};

/// How many interrupts of a kind there are, and what can be done with them.
fn kind_info(layout: &Layout, index: u32) -> (u16, u32) {
    match index {
        irq::INTX => (layout.intx.into(), irq::EVENTFD | irq::MASKABLE | irq::AUTOMASKED),
        irq::MSI => (layout.msi_vectors, irq::EVENTFD | irq::MASKABLE),
        irq::MSIX => (layout.msix_vectors, irq::EVENTFD | irq::MASKABLE),
        _ => (0, 0),
    }
}

/// Answers GET_IRQ_INFO.
pub(crate) fn info(layout: &Layout, payload: &[u8]) -> Option<Vec<u8>> {
    let mut fields = Fields(payload);
    fields.u32()?;
    fields.u32()?;
    let index = fields.u32()?;
    if index >= irq::COUNT {
        return None;
    }
    let (count, flags) = kind_info(layout, index);
    let flags = if count == 0 { 0 } else { flags };
    let mut reply = Vec::new();
    put(&mut reply, [16, flags, index, count.into()]);
    Some(reply)
}

/// The data of a request.
enum Data {
    /// For each interrupt, whether it is meant.
    Chosen(Vec<bool>),
    /// An eventfd for each, or none for all.
    Events(Vec<EventFd>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Action {
    Mask,
    Unmask,
    Trigger,
}

/// Does what a request asks for; `unmask` is the eventfd that unmasks the pin. Returns an errno if it cannot
/// be done, and then nothing has been.
pub(crate) fn set(
    served: &mut Served,
    signals: &Signals,
    unmask: &mut Option<Arc<EventFd>>,
    payload: &[u8],
    fds: Vec<OwnedFd>,
) -> Result<(), i32> {
    let mut fields = Fields(payload);
    let request = SetIrqs::parse(&mut fields).ok_or(libc::EINVAL)?;
    let SetIrqs { flags, index, start, count } = request;
    let actions = irq::ACTION_MASK | irq::ACTION_UNMASK | irq::ACTION_TRIGGER;
    let action = match flags & actions {
        irq::ACTION_MASK => Action::Mask,
        irq::ACTION_UNMASK => Action::Unmask,
        irq::ACTION_TRIGGER => Action::Trigger,
        _ => return Err(libc::EINVAL),
    };
    let (there, _) = kind_info(served.layout(), index);
    let kind = match index {
        irq::INTX => None,
        irq::MSI => Some(Kind::Msi),
        irq::MSIX => Some(Kind::Msix),
        _ => return Err(libc::EINVAL),
    };
    let data = flags & !actions;
    if count == 0 {
        // All of the kind are turned off, even if there are none.
        if (data, action, start) != (irq::DATA_NONE, Action::Trigger, 0) || !fds.is_empty() {
            return Err(libc::EINVAL);
        }
        match kind {
            None => {
                *unmask = None;
                signals.assign_pin(None);
            }
            Some(kind) => {
                (0..there).for_each(|vector| served.follow(kind, vector, false));
                served.all_gone(kind);
                signals.clear(kind);
            }
        }
        return Ok(());
    }
    let end = start.checked_add(count).and_then(|end| u16::try_from(end).ok());
    let end = end.filter(|end| *end <= there).ok_or(libc::EINVAL)?;
    let start = u16::try_from(start).map_err(|_| libc::EINVAL)?;
    let count = usize::from(end - start);
    let data = match data {
        irq::DATA_NONE if fds.is_empty() => Data::Chosen(vec![true; count]),
        irq::DATA_BOOL if fds.is_empty() => {
            let bytes = fields.rest().get(..count).ok_or(libc::EINVAL)?;
            Data::Chosen(bytes.iter().map(|byte| *byte != 0).collect())
        }
        irq::DATA_EVENTFD if fds.is_empty() || fds.len() == count => {
            let events: Option<Vec<_>> = fds.into_iter().map(sys::eventfd).collect();
            Data::Events(events.ok_or(libc::EINVAL)?)
        }
        _ => return Err(libc::EINVAL),
    };
    match (data, kind) {
        (Data::Chosen(chosen), kind) => {
            let chosen = (start..end).zip(chosen).filter(|(_, chosen)| *chosen);
            for (vector, _) in chosen {
                act(signals, kind, vector, action);
            }
        }
        (Data::Events(events), None) => match action {
            Action::Trigger => signals.assign_pin(events.into_iter().next()),
            Action::Unmask => *unmask = events.into_iter().next().map(Arc::new),
            Action::Mask => return Err(libc::EOPNOTSUPP),
        },
        (Data::Events(events), Some(kind)) => {
            if action != Action::Trigger {
                return Err(libc::EOPNOTSUPP);
            }
            assign(served, signals, kind, start..end, events);
        }
    }
    Ok(())
}

/// Masks, unmasks or triggers one interrupt; the pin if `kind` is none.
fn act(signals: &Signals, kind: Option<Kind>, vector: u16, action: Action) {
    match (kind, action) {
        (None, Action::Mask) => signals.mask_pin(true),
        (None, Action::Unmask) => signals.mask_pin(false),
        (None, Action::Trigger) => signals.raise_pin(),
        (Some(kind), Action::Mask) => signals.mask(kind, vector, true),
        (Some(kind), Action::Unmask) => signals.mask(kind, vector, false),
        (Some(kind), Action::Trigger) => signals.raise(kind, vector),
    }
}

/// Gives vectors their eventfds, or takes them away if there are none.
fn assign(
    served: &mut Served,
    signals: &Signals,
    kind: Kind,
    vectors: std::ops::Range<u16>,
    events: Vec<EventFd>,
) {
    let gives = !events.is_empty();
    let mut events = events.into_iter();
    for vector in vectors {
        if gives {
            // The eventfd first: what was held back in the function's table is sent when that is opened.
            signals.assign(kind, vector, events.next());
            served.follow(kind, vector, true);
        } else {
            // What comes from here on is kept in the function's table, where the pending bit can be read.
            served.follow(kind, vector, false);
            signals.assign(kind, vector, None);
        }
    }
    let all = kind_info(served.layout(), if kind == Kind::Msi { irq::MSI } else { irq::MSIX }).0;
    if !gives && !(0..all).any(|vector| signals.assigned(kind, vector)) {
        served.all_gone(kind);
    }
}
