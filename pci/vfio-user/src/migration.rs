//! Device features: the states of migration, and the function's own state as a stream (VFIO's migration
//! version 2).
//!
//! The function is stopped by being paused. Its state is taken when the stream begins and restored when
//! it ends; it is text, the function's [`SavedState`] and what was pending beyond it.

use paraslot_device::{SavedState, StateError};
use serde_json::{Value, json};

use crate::connection::Reply;
use crate::function::Served;
use crate::logging;
use crate::memory::Shared;
use crate::signals::Signals;
use crate::wire::{Fields, MAX_DATA, feature, put, put64};

/// Bytes of state that a client can have restored.
const MAX_STATE: usize = 16 << 20;

/// Where the function is on its way.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has to be reset.
    Error,
    Stop,
    #[default]
    Running,
    /// What is left of its state to be read.
    StopCopy(Vec<u8>),
    /// What has come of a state.
    Resuming(Vec<u8>),
}

impl Stage {
    fn number(&self) -> u32 {
        match self {
            Self::Error => feature::ERROR,
            Self::Stop => feature::STOP,
            Self::Running => feature::RUNNING,
            Self::StopCopy(_) => feature::STOP_COPY,
            Self::Resuming(_) => feature::RESUMING,
        }
    }
}

/// Answers DEVICE_FEATURE.
pub(crate) fn feature(
    served: &mut Served,
    memory: &Shared,
    signals: &Signals,
    payload: &[u8],
) -> Reply {
    answer(served, memory, signals, payload).unwrap_or_else(Reply::error)
}

fn answer(
    served: &mut Served,
    memory: &Shared,
    signals: &Signals,
    payload: &[u8],
) -> Result<Reply, i32> {
    let mut fields = Fields(payload);
    let (argsz, flags) = (fields.u32().ok_or(libc::EINVAL)?, fields.u32().ok_or(libc::EINVAL)?);
    let (get, set) = (flags & feature::GET != 0, flags & feature::SET != 0);
    let probe = flags & feature::PROBE != 0;
    let unknown = !(feature::MASK | feature::GET | feature::SET | feature::PROBE);
    if flags & unknown != 0 || (!probe && get == set) {
        return Err(libc::EINVAL);
    }
    let (can_get, logs) = match flags & feature::MASK {
        feature::MIGRATION if served.can_move() && !set => (true, false),
        feature::DEVICE_STATE => (true, false),
        feature::LOGGING_START | feature::LOGGING_STOP if !get => (false, true),
        feature::LOGGING_REPORT if !set => (true, true),
        _ => return Err(libc::ENOTTY),
    };
    let mut reply = Vec::new();
    if probe {
        reply.extend_from_slice(payload);
    } else if logs {
        return logging::answer(served, memory, (argsz, flags), fields);
    } else if set {
        let wanted = fields.u32().ok_or(libc::EINVAL)?;
        fields.u32().ok_or(libc::EINVAL)?;
        set_stage(served, signals, wanted)?;
        reply.extend_from_slice(payload);
    } else if can_get {
        if argsz < 16 {
            return Err(libc::EINVAL);
        }
        put(&mut reply, [16, flags]);
        if flags & feature::MASK == feature::MIGRATION {
            put64(&mut reply, [feature::HAS_STOP_COPY]);
        } else {
            put(&mut reply, [served.stage().number(), 0]);
        }
    }
    Ok(Reply::of(reply))
}

/// Goes to the stage that is wanted, by way of Stop.
fn set_stage(served: &mut Served, signals: &Signals, wanted: u32) -> Result<(), i32> {
    if wanted == served.stage().number() && wanted != feature::ERROR {
        return Ok(());
    }
    let known = [feature::STOP, feature::RUNNING, feature::STOP_COPY, feature::RESUMING];
    if !known.contains(&wanted) || *served.stage() == Stage::Error {
        return Err(libc::EINVAL);
    }
    let moves = [feature::STOP_COPY, feature::RESUMING].contains(&wanted);
    if moves && !served.can_move() {
        return Err(libc::EOPNOTSUPP);
    }
    // All arcs begin or end there.
    match std::mem::replace(served.stage(), Stage::Stop) {
        Stage::Running => {
            if served.pause().is_err() {
                *served.stage() = Stage::Running;
                return Err(libc::EBUSY);
            }
        }
        Stage::Resuming(state) => {
            if restore(served, signals, &state).is_err() {
                *served.stage() = Stage::Error;
                return Err(libc::EINVAL);
            }
        }
        Stage::Stop | Stage::StopCopy(_) | Stage::Error => {}
    }
    match wanted {
        feature::RUNNING => {
            if served.resume().is_err() {
                *served.stage() = Stage::Error;
                return Err(libc::EIO);
            }
            *served.stage() = Stage::Running;
        }
        feature::STOP_COPY => {
            let state = save(served, signals).map_err(|error| match error {
                StateError::Busy(_) => libc::EBUSY,
                StateError::Unsupported(_) => libc::EOPNOTSUPP,
                _ => libc::EIO,
            })?;
            *served.stage() = Stage::StopCopy(state);
        }
        feature::RESUMING => *served.stage() = Stage::Resuming(Vec::new()),
        _ => {}
    }
    Ok(())
}

fn save(served: &mut Served, signals: &Signals) -> Result<Vec<u8>, StateError> {
    let function = serde_json::to_value(served.device().save()?)?;
    let (msix, msi) = signals.pending();
    let state = json!({ "function": function, "msix_pending": msix, "msi_pending": msi });
    Ok(serde_json::to_vec(&state)?)
}

fn restore(served: &mut Served, signals: &Signals, state: &[u8]) -> Result<(), StateError> {
    let malformed = || StateError::impossible("not a function's");
    let state: Value = serde_json::from_slice(state)?;
    let fields = state.as_object().filter(|fields| fields.len() == 3).ok_or_else(malformed)?;
    let field = |name: &str| fields.get(name).cloned().ok_or_else(malformed);
    let function: SavedState = serde_json::from_value(field("function")?)?;
    let msix: Vec<u16> = serde_json::from_value(field("msix_pending")?)?;
    let msi: bool = serde_json::from_value(field("msi_pending")?)?;
    served.device().restore(&function)?;
    served.after_restore(signals);
    signals.set_pending(&msix, msi);
    Ok(())
}

/// Answers MIG_DATA_READ: less than is asked for is the end.
pub(crate) fn read(served: &mut Served, payload: &[u8]) -> Reply {
    let mut fields = Fields(payload);
    let (Some(_), Some(size)) = (fields.u32(), fields.u32()) else {
        return Reply::error(libc::EINVAL);
    };
    let len = usize::try_from(size).unwrap_or(usize::MAX);
    let Stage::StopCopy(state) = served.stage() else { return Reply::error(libc::EINVAL) };
    if len > MAX_DATA {
        return Reply::error(libc::EINVAL);
    }
    let rest = state.split_off(len.min(state.len()));
    let data = std::mem::replace(state, rest);
    let size = u32::try_from(data.len()).unwrap_or(0);
    let mut reply = Vec::new();
    put(&mut reply, [8 + size, size]);
    reply.extend(data);
    Reply::of(reply)
}

/// Takes MIG_DATA_WRITE.
pub(crate) fn write(served: &mut Served, payload: &[u8]) -> Reply {
    let mut fields = Fields(payload);
    let (Some(_), Some(size)) = (fields.u32(), fields.u32()) else {
        return Reply::error(libc::EINVAL);
    };
    let data = usize::try_from(size).ok().and_then(|len| fields.rest().get(..len));
    let (Some(data), Stage::Resuming(state)) = (data, served.stage()) else {
        return Reply::error(libc::EINVAL);
    };
    if state.len() + data.len() > MAX_STATE {
        return Reply::error(libc::ENOSPC);
    }
    state.extend_from_slice(data);
    Reply::empty()
}
