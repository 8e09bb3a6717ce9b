//! `paraslot control`.

use std::io::{BufRead, BufReader, Read, Write};
use std::num::NonZeroU64;
use std::os::unix::net::UnixStream;

use anyhow::{Context, bail};

use super::{ANSWER_MAX, Answer, Command, State};
use crate::args::{ControlArgs, Ordered, Switch};
use crate::error::Usage;
use crate::spec::rate;

/// Does what `paraslot control` does.
pub(crate) fn control(arguments: &ControlArgs) -> anyhow::Result<()> {
    let command = command(&arguments.command)?;
    let path = arguments.path.display();
    let stream = UnixStream::connect(&arguments.path)
        .with_context(|| format!("cannot connect to {path}: is there a --control {path}?"))?;
    let mut line = serde_json::to_vec(&command)?;
    line.push(b'\n');
    (&stream).write_all(&line).with_context(|| path.to_string())?;
    let mut answer = Vec::new();
    let most = u64::try_from(ANSWER_MAX)?;
    BufReader::new(&stream).take(most).read_until(b'\n', &mut answer)?;
    match serde_json::from_slice(&answer).with_context(|| format!("{path}: no answer"))? {
        Answer::Error(error) => bail!("{error}"),
        Answer::Ok(_) if arguments.json => crate::show(&String::from_utf8_lossy(&answer)),
        Answer::Ok(done) => {
            done.devices.iter().for_each(|state| crate::show(&format!("{}\n", text(state))));
        }
    }
    Ok(())
}

fn command(ordered: &Ordered) -> anyhow::Result<Command> {
    Ok(match ordered {
        Ordered::List => Command::List {},
        Ordered::Limit { device, limits } => {
            let (mut iops, mut fps, mut bps) = (None, None, None);
            for given in limits {
                let Some((name, value)) = given.split_once('=') else {
                    return Err(Usage::error(format!("{given:?} is no limit: one is NAME=RATE")));
                };
                let place = match name {
                    "iops" => &mut iops,
                    "fps" => &mut fps,
                    "bps" => &mut bps,
                    _ => {
                        return Err(Usage::error(format!(
                            "no limit {name:?}: there are iops, fps and bps"
                        )));
                    }
                };
                let rate = rate(name, value).map_err(|error| Usage::error(error.to_string()))?;
                if place.replace(rate).is_some() {
                    return Err(Usage::error(format!("limit {name} is given twice")));
                }
            }
            Command::Limit { device: device.clone(), iops, fps, bps }
        }
        Ordered::Resize { device } => Command::Resize { device: device.clone() },
        Ordered::Link { device, state } => {
            Command::Link { device: device.clone(), up: *state == Switch::Up }
        }
        Ordered::Unplug { device } => Command::Unplug { device: device.clone() },
        Ordered::Plug { spec } => Command::Plug { device: spec.clone() },
    })
}

/// A device in a line.
fn text(state: &State) -> String {
    let State { name, device, bytes, up, iops, fps, bps, delayed } = state;
    let mut parts = Vec::new();
    parts.extend(bytes.map(|bytes| format!("{bytes} bytes")));
    parts.extend(up.map(|up| format!("link {}", if up { "up" } else { "down" })));
    let limit = |rate: Option<NonZeroU64>| rate.map_or("off".into(), |rate| rate.to_string());
    for (name, rate) in [("iops", iops), ("fps", fps), ("bps", bps)] {
        parts.extend(rate.map(|rate| format!("{name}={}", limit(rate))));
    }
    parts.extend(delayed.map(|delayed| format!("delayed {delayed} times")));
    // What was said over a socket is not for a terminal to obey.
    let line = format!("{name}  {device}  {}", parts.join(", "));
    line.trim_end().chars().filter(|character| !character.is_control()).collect()
}
