//! Devices as they are named on the command line, in the style of QEMU's.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use paraslot_protocol::Device;
use paraslot_report::Family;

/// The devices that there are.
pub(crate) const DEVICES: [Device; 2] = [Device::VirtioBlk, Device::Ahci];

/// What kind of device it is.
pub(crate) fn family(device: Device) -> Family {
    match device {
        Device::VirtioBlk => Family::Paravirtual,
        Device::Ahci => Family::Emulated,
    }
}

/// What a device's data is kept in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Backend {
    /// A file or block device.
    #[default]
    File,
    /// Memory of this process.
    Memory,
    /// Nothing.
    Null,
}

/// Who makes a file's system calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    /// io_uring.
    IoUring,
    /// A pool of threads.
    Threads,
}

/// A device with its options. What was not given is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeviceSpec {
    /// Which one.
    pub(crate) device: Device,
    /// What is behind it.
    pub(crate) backend: Backend,
    /// The user's image; without, a temporary one.
    pub(crate) path: Option<PathBuf>,
    /// Queues that it offers.
    pub(crate) queues: Option<u16>,
    /// Whether it refuses writes.
    pub(crate) read_only: bool,
    /// Whether the user's image may be written.
    pub(crate) write: bool,
    /// Whether to go around the page cache.
    pub(crate) direct: bool,
    /// Who makes the system calls; without, whoever can.
    pub(crate) engine: Option<Engine>,
    /// Whether data is compared with what was written.
    pub(crate) verify: bool,
    /// Serial number.
    pub(crate) id: Option<String>,
}

/// One option of a device.
pub(crate) struct OptionInfo {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it takes.
    pub(crate) values: &'static str,
    /// What it does.
    pub(crate) what: &'static str,
}

const fn option(name: &'static str, values: &'static str, what: &'static str) -> OptionInfo {
    OptionInfo { name, values, what }
}

const PATH: OptionInfo = option("path", "FILE", "image or block device, opened for reading only");
const BACKEND: OptionInfo = option("backend", "file|memory|null", "what keeps the data");
const QUEUES: OptionInfo =
    option("queues", "1..64", "queues to offer; the workloads use the first");
const READ_ONLY: OptionInfo = option("readonly", "on|off", "refuse writes");
const WRITE: OptionInfo = option("write", "on|off", "let workloads overwrite the image at path");
const DIRECT: OptionInfo = option("direct", "on|off", "go around the host's page cache");
const ENGINE: OptionInfo = option("engine", "io_uring|threads", "who makes the system calls");
const VERIFY: OptionInfo =
    option("verify", "on|off", "compare data; off to set beside backend=null, which has none");
const ID: OptionInfo = option("id", "TEXT", "serial number, up to 20 characters");

/// The options that a device takes.
pub(crate) fn options(device: Device) -> &'static [OptionInfo] {
    match device {
        Device::VirtioBlk => &[PATH, BACKEND, QUEUES, READ_ONLY, WRITE, DIRECT, ENGINE, VERIFY, ID],
        Device::Ahci => &[PATH, BACKEND, READ_ONLY, WRITE, DIRECT, ENGINE, VERIFY, ID],
    }
}

/// Why a specification is refused. One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SpecError(String);

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SpecError {}

fn refuse<T>(message: String) -> Result<T, SpecError> {
    Err(SpecError(message))
}

/// The parts between commas; a doubled comma stands for one that belongs to a part.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut rest = text.chars().peekable();
    while let Some(character) = rest.next() {
        if character == ',' && rest.next_if_eq(&',').is_none() {
            parts.push(String::new());
        } else if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    parts
}

/// `text` as one of the values that an option has.
fn choose<T: Copy>(name: &str, text: &str, values: &[(&str, T)]) -> Result<T, SpecError> {
    match values.iter().find(|(value, _)| *value == text) {
        Some((_, value)) => Ok(*value),
        None => {
            let known: Vec<&str> = values.iter().map(|(value, _)| *value).collect();
            refuse(format!("{name}={text}: {name} is one of {}", known.join(", ")))
        }
    }
}

const SWITCH: [(&str, bool); 2] = [("on", true), ("off", false)];

impl DeviceSpec {
    /// A device with nothing said of it.
    pub(crate) fn new(device: Device) -> Self {
        Self {
            device,
            backend: Backend::default(),
            path: None,
            queues: None,
            read_only: false,
            write: false,
            direct: false,
            engine: None,
            verify: true,
            id: None,
        }
    }

    /// Whether a workload may write: not to a user's image unless that was asked for.
    pub(crate) fn writable(&self) -> bool {
        !self.read_only && (self.path.is_none() || self.write)
    }

    fn set(&mut self, name: &str, value: &str) -> Result<(), SpecError> {
        match name {
            "path" if value.is_empty() => return refuse("path= needs a file's name".into()),
            "path" => self.path = Some(value.into()),
            "backend" => {
                let known =
                    [("file", Backend::File), ("memory", Backend::Memory), ("null", Backend::Null)];
                self.backend = choose(name, value, &known)?;
            }
            "queues" => match value.parse() {
                Ok(queues @ 1..=64) => self.queues = Some(queues),
                _ => return refuse(format!("queues={value}: queues is a number from 1 to 64")),
            },
            "readonly" => self.read_only = choose(name, value, &SWITCH)?,
            "write" => self.write = choose(name, value, &SWITCH)?,
            "direct" => self.direct = choose(name, value, &SWITCH)?,
            "verify" => self.verify = choose(name, value, &SWITCH)?,
            "engine" => {
                let known = [("io_uring", Engine::IoUring), ("threads", Engine::Threads)];
                self.engine = Some(choose(name, value, &known)?);
            }
            "id" if (1..=20).contains(&value.len())
                && value.bytes().all(|byte| byte.is_ascii_graphic()) =>
            {
                self.id = Some(value.into());
            }
            "id" => return refuse(format!("id={value}: id is 1 to 20 visible ASCII characters")),
            _ => return refuse(format!("option {name} has no meaning")),
        }
        Ok(())
    }

    /// Whether the options make sense together.
    fn check(&self) -> Result<(), SpecError> {
        if self.backend != Backend::File {
            for (given, name) in [
                (self.path.is_some(), "path"),
                (self.read_only, "readonly"),
                (self.direct, "direct"),
                (self.engine.is_some(), "engine"),
            ] {
                if given {
                    return refuse(format!("option {name} is for backend=file"));
                }
            }
        }
        if self.write && self.path.is_none() {
            return refuse("write=on is for an image of your own: give its path, too".into());
        }
        if self.write && self.read_only {
            return refuse("write=on and readonly=on contradict each other".into());
        }
        Ok(())
    }
}

impl FromStr for DeviceSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let parts = parts(text);
        let (name, given) =
            parts.split_first().map_or(("", &[][..]), |(name, rest)| (name.as_str(), rest));
        let Ok(device) = name.parse() else {
            let known: Vec<&str> = DEVICES.iter().map(|device| device.name()).collect();
            return refuse(format!("no device {name:?}: there are {}", known.join(", ")));
        };
        let mut spec = Self::new(device);
        let mut seen: Vec<&str> = Vec::new();
        for part in given {
            let Some((option, value)) = part.split_once('=') else {
                return refuse(format!("{part:?} is not an option: options are NAME=VALUE"));
            };
            let known = options(device);
            if !known.iter().any(|info| info.name == option) {
                let known: Vec<&str> = known.iter().map(|info| info.name).collect();
                return refuse(format!(
                    "{name} has no option {option:?}: it has {}",
                    known.join(", ")
                ));
            }
            if seen.contains(&option) {
                return refuse(format!("option {option} is given twice"));
            }
            seen.push(option);
            spec.set(option, value)?;
        }
        spec.check()?;
        Ok(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        let message = text.parse::<DeviceSpec>().expect_err(text).to_string();
        assert!(!message.contains('\n'));
        message
    }

    #[test]
    fn options_are_read() {
        let spec: DeviceSpec =
            "virtio-blk,path=disk.img,queues=4,readonly=on,direct=on,engine=threads,verify=off,id=one"
                .parse()
                .unwrap();
        let expected = DeviceSpec {
            path: Some("disk.img".into()),
            queues: Some(4),
            read_only: true,
            direct: true,
            engine: Some(Engine::Threads),
            verify: false,
            id: Some("one".into()),
            ..DeviceSpec::new(Device::VirtioBlk)
        };
        assert_eq!(spec, expected);
        assert_eq!("ahci".parse(), Ok(DeviceSpec::new(Device::Ahci)));
        let spec: DeviceSpec = "ahci,backend=null".parse().unwrap();
        assert_eq!(spec.backend, Backend::Null);
    }

    #[test]
    fn a_doubled_comma_belongs_to_the_value() {
        let spec: DeviceSpec = "ahci,path=a,,b.img,direct=on".parse().unwrap();
        assert_eq!(spec.path, Some("a,b.img".into()));
        assert!(spec.direct);
        assert_eq!(parts("a,,,b"), ["a,", "b"]);
        assert_eq!(parts(""), [""]);
    }

    #[test]
    fn the_users_image_is_written_only_if_asked() {
        let writable = |text: &str| text.parse::<DeviceSpec>().unwrap().writable();
        assert!(writable("ahci"));
        assert!(!writable("ahci,readonly=on"));
        assert!(!writable("ahci,path=x"));
        assert!(!writable("ahci,path=x,readonly=off"));
        assert!(writable("ahci,path=x,write=on"));
    }

    #[test]
    fn what_is_unknown_is_named_with_what_is_known() {
        assert_eq!(error("floppy"), "no device \"floppy\": there are virtio-blk, ahci");
        assert_eq!(error(""), "no device \"\": there are virtio-blk, ahci");
        assert_eq!(
            error("ahci,queues=2"),
            "ahci has no option \"queues\": it has path, backend, readonly, write, direct, engine, verify, id"
        );
        assert_eq!(error("ahci,direct=yes"), "direct=yes: direct is one of on, off");
        assert_eq!(
            error("ahci,backend=tape"),
            "backend=tape: backend is one of file, memory, null"
        );
        assert_eq!(error("ahci,engine=x"), "engine=x: engine is one of io_uring, threads");
        assert_eq!(error("virtio-blk,queues=0"), "queues=0: queues is a number from 1 to 64");
        assert_eq!(error("virtio-blk,,"), "no device \"virtio-blk,\": there are virtio-blk, ahci");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for text in [
            "ahci,",
            "ahci,direct",
            "ahci,path=",
            "ahci,id=",
            "ahci,id=a b",
            "ahci,id=012345678901234567890",
            "ahci,direct=on,direct=off",
            "ahci,backend=null,path=x",
            "ahci,backend=memory,direct=on",
            "ahci,backend=memory,readonly=on",
            "ahci,backend=memory,engine=threads",
            "ahci,write=on",
            "ahci,path=x,write=on,readonly=on",
        ] {
            error(text);
        }
    }

    /// What `list` shows is what the parser takes.
    #[test]
    fn every_option_that_is_shown_is_taken() {
        for device in DEVICES {
            for info in options(device) {
                let value = match info.values {
                    "FILE" | "TEXT" => "x",
                    "1..64" => "64",
                    choices => choices.split('|').next_back().unwrap(),
                };
                let text = format!("{device},{}={value}", info.name);
                assert!(text.parse::<DeviceSpec>().is_ok(), "{text}");
            }
        }
    }
}
