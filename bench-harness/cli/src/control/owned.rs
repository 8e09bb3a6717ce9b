//! A device, in its owner's hand.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use paraslot_backends::limit::Limiter;

use super::{Command, Done, State};
use crate::backing::{Drive, Limiters};
use crate::devices::Resize;
use crate::spec::Limits;

/// A device that a guest has, and what its owner can do to it meanwhile.
pub(crate) struct Owned {
    name: String,
    device: &'static str,
    hand: Hand,
}

enum Hand {
    Disk {
        drive: Arc<Drive>,
        resize: Resize,
    },
    Net {
        /// What the guest sends, and what it receives.
        limiters: Limiters,
        set_link: Box<dyn Fn(bool) + Send + Sync>,
        is_up: AtomicBool,
    },
    /// The host's: there is nothing to do to it.
    Host,
}

type Change = Option<Option<NonZeroU64>>;

impl Owned {
    /// A disk, which is the `device` called `name`.
    pub(crate) fn disk(
        name: String,
        device: &'static str,
        drive: Arc<Drive>,
        resize: Resize,
    ) -> Self {
        Self { name, device, hand: Hand::Disk { drive, resize } }
    }

    /// A network adapter, whose cable is plugged in.
    pub(crate) fn adapter(
        name: String,
        device: &'static str,
        limiters: Limiters,
        set_link: Box<dyn Fn(bool) + Send + Sync>,
    ) -> Self {
        let is_up = AtomicBool::new(true);
        Self { name, device, hand: Hand::Net { limiters, set_link, is_up } }
    }

    /// A function of the host's.
    pub(crate) fn host(name: String, device: &'static str) -> Self {
        Self { name, device, hand: Hand::Host }
    }

    /// What a disk's data is in.
    pub(crate) fn drive(&self) -> Option<&Arc<Drive>> {
        match &self.hand {
            Hand::Disk { drive, .. } => Some(drive),
            Hand::Net { .. } | Hand::Host => None,
        }
    }

    /// Whether it is the host's.
    pub(crate) fn is_hosts(&self) -> bool {
        matches!(self.hand, Hand::Host)
    }

    /// How it is.
    pub(crate) fn state(&self) -> State {
        let base =
            State { name: self.name.clone(), device: self.device.into(), ..State::default() };
        match &self.hand {
            Hand::Disk { drive, .. } => {
                let Limits { operations, bytes } = limits(drive.limiter());
                State {
                    bytes: Some(drive.capacity()),
                    iops: Some(operations),
                    bps: Some(bytes),
                    delayed: Some(drive.limiter().delayed()),
                    ..base
                }
            }
            Hand::Net { limiters, is_up, .. } => {
                let [sent, received] = limiters;
                let Limits { operations, bytes } = limits(sent);
                State {
                    up: Some(is_up.load(Ordering::Relaxed)),
                    fps: Some(operations),
                    bps: Some(bytes),
                    delayed: Some(sent.delayed().saturating_add(received.delayed())),
                    ..base
                }
            }
            Hand::Host => base,
        }
    }

    fn limit(&self, iops: Change, fps: Change, bps: Change) -> anyhow::Result<()> {
        let (limiters, operations) = match (&self.hand, iops, fps) {
            (Hand::Disk { drive, .. }, iops, None) => (std::slice::from_ref(drive.limiter()), iops),
            (Hand::Net { limiters, .. }, None, fps) => (&limiters[..], fps),
            (Hand::Disk { .. }, ..) => bail!("{} is a disk: it has iops and bps", self.device),
            (Hand::Net { .. }, ..) => bail!("{} is an adapter: it has fps and bps", self.device),
            (Hand::Host, ..) => bail!("a function of the host's has no limits"),
        };
        if operations.is_none() && bps.is_none() {
            bail!("no limit is given");
        }
        for limiter in limiters {
            let old = limits(limiter);
            let new = Limits {
                operations: operations.unwrap_or(old.operations),
                bytes: bps.unwrap_or(old.bytes),
            };
            limiter.set(new.rates());
        }
        Ok(())
    }

    fn resize(&self) -> anyhow::Result<()> {
        let Hand::Disk { drive, resize } = &self.hand else { bail!("{} is no disk", self.device) };
        drive.refresh()?;
        resize().context("there is no disk in it")?;
        Ok(())
    }

    fn link(&self, up: bool) -> anyhow::Result<()> {
        let Hand::Net { set_link, is_up, .. } = &self.hand else {
            bail!("{} has no cable", self.device);
        };
        set_link(up);
        is_up.store(up, Ordering::Relaxed);
        Ok(())
    }
}

fn limits(limiter: &Limiter) -> Limits {
    let rates = limiter.rates();
    Limits {
        operations: rates.operations.map(|rate| rate.per_second),
        bytes: rates.bytes.map(|rate| rate.per_second),
    }
}

/// Does what concerns devices that are there.
///
/// # Errors
/// When there is none of that name, or it cannot do that; or for what is not done to one of these.
pub(crate) fn execute<'a>(
    command: &Command,
    devices: impl Iterator<Item = &'a Owned> + Clone,
) -> anyhow::Result<Done> {
    let named = |name: &str| {
        let found = devices.clone().find(|device| device.name == name);
        found.with_context(|| {
            let known: Vec<&str> = devices.clone().map(|device| device.name.as_str()).collect();
            format!("no device {name:?}: there are {}", known.join(", "))
        })
    };
    let device = match command {
        Command::List {} => return Ok(Done { devices: devices.map(Owned::state).collect() }),
        Command::Limit { device, iops, fps, bps } => {
            let device = named(device)?;
            device.limit(*iops, *fps, *bps)?;
            device
        }
        Command::Resize { device } => {
            let device = named(device)?;
            device.resize()?;
            device
        }
        Command::Link { device, up } => {
            let device = named(device)?;
            device.link(*up)?;
            device
        }
        Command::Unplug { .. } | Command::Plug { .. } => {
            bail!("only the functions of paraslot boot can be plugged out and in")
        }
    };
    Ok(Done { devices: vec![device.state()] })
}
