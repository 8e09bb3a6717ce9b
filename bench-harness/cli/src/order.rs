//! What `paraslot run` and the processes that serve its devices say to each other: lines of JSON, over a
//! socket that the process has as its standard input.
//!
//! First comes an [`Order`], and with it the image, if it is one without a name. The process answers
//! [`Answer::Ready`] once clients can come. From then on it answers questions, until there can be none.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use paraslot_backends::net::NetStatistics;
use paraslot_protocol::Device;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use vmm_sys_util::sock_ctrl_msg::ScmSocket;

use crate::plan::NetWorkload;
use crate::spec::{DiskSpec, NetSpec};

/// What is to be served.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The devices' common nature.
    pub(crate) what: What,
    /// A device for each.
    pub(crate) seats: Vec<Seat>,
    /// How long a device's thread polls before it sleeps.
    pub(crate) busy_poll: Duration,
    /// How much longer its workers take for each look at their work, on purpose.
    pub(crate) drag: Duration,
}

/// A device, or the two ends of something.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum What {
    /// A disk.
    Disk(DiskSpec),
    /// An adapter, with what the workload needs at its other end.
    Net(NetSpec, NetWorkload),
    /// Two adapters, and the wire between them.
    Wire(NetSpec),
}

/// Where a device is served, and on which processors; `None` leaves that to the scheduler.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Seat {
    /// Where its client will connect.
    pub(crate) socket: PathBuf,
    /// That of the device's thread.
    pub(crate) device_cpu: Option<usize>,
    /// That of the guest. Its register accesses are served there: it waits meanwhile, and a device that is
    /// not served has them done by the guest's own thread.
    pub(crate) guest_cpu: Option<usize>,
}

/// What is asked, of the device with that number.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) enum Question {
    /// What is seen of its work.
    Look(usize),
    /// How many frames of the guest's have arrived.
    Arrived(usize),
}

/// What comes back.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Clients can come. What is behind the devices, as options of the command line.
    Ready(String),
    /// What is seen of a device's work.
    Seen(Seen),
    /// Frames that have arrived, if that is known, or why one was not as it should be.
    Arrived(Result<Option<u64>, String>),
}

/// What is seen of a device's work from the outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// CPU time of a process that this one does not count as its own, where it can be told. It is told by the
    /// first of the devices of such a process, and is none of the others'.
    pub(crate) elsewhere: Option<Duration>,
    /// Bytes that its side has copied, where that is known.
    pub(crate) copied: Option<u64>,
    /// What has become of its frames.
    #[serde(with = "Statistics")]
    pub(crate) network: NetStatistics,
}

/// All of [`NetStatistics`].
#[derive(Serialize, Deserialize)]
#[serde(remote = "NetStatistics")]
struct Statistics {
    sent_frames: u64,
    sent_bytes: u64,
    received_frames: u64,
    received_bytes: u64,
    filtered: u64,
    no_guest_buffers: u64,
    received_too_long: u64,
    receive_errors: u64,
    send_busy: u64,
    send_no_buffers: u64,
    send_down: u64,
    send_invalid: u64,
    send_errors: u64,
    copied_bytes: u64,
}

/// A device by its name, for `#[serde(with)]`.
pub(crate) mod by_name {
    use super::{Deserialize, Deserializer, Device, Serializer};

    pub(crate) fn serialize<S: Serializer>(device: &Device, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(device.name())
    }

    pub(crate) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<Device, D::Error> {
        let name = String::deserialize(from)?;
        name.parse().map_err(|_| serde::de::Error::custom(format!("no device {name}")))
    }
}

/// How long the other side may take for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// One side of the conversation.
pub(crate) struct Line(BufReader<UnixStream>);

impl Line {
    /// Over a socket that is connected.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn new(socket: UnixStream) -> io::Result<Self> {
        socket.set_write_timeout(Some(PATIENCE))?;
        Ok(Self(BufReader::new(socket)))
    }

    /// Waits for the other side no longer than it may take for an answer.
    pub(crate) fn expect_answers(&self) -> io::Result<()> {
        self.0.get_ref().set_read_timeout(Some(PATIENCE))
    }

    /// Neither says nor hears anything from now on.
    pub(crate) fn hang_up(&self) {
        let _ = self.0.get_ref().shutdown(Shutdown::Both);
    }

    /// Says something.
    ///
    /// # Errors
    /// When nobody hears it.
    pub(crate) fn say<T: Serialize>(&mut self, message: &T) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(message)?;
        text.push('\n');
        Ok(self.0.get_mut().write_all(text.as_bytes())?)
    }

    /// What the other side says next; `None` if it is gone.
    ///
    /// # Errors
    /// When it says nothing for too long, or what makes no sense.
    pub(crate) fn hear<T: DeserializeOwned>(&mut self) -> anyhow::Result<Option<T>> {
        let mut text = String::new();
        if self.0.read_line(&mut text)? == 0 {
            return Ok(None);
        }
        Ok(Some(serde_json::from_str(&text).context("words that make no sense")?))
    }

    /// Gives an order, and with it the image.
    ///
    /// # Errors
    /// When nobody takes it.
    pub(crate) fn give(
        &mut self,
        order: &Order,
        image: Option<BorrowedFd<'_>>,
    ) -> anyhow::Result<()> {
        // A byte carries the descriptor.
        let socket = self.0.get_mut();
        match image {
            Some(image) => {
                socket.send_with_fd(&b"i"[..], image.as_raw_fd()).map_err(io::Error::from)?;
            }
            None => socket.write_all(b"-")?,
        }
        self.say(order)
    }

    /// Takes an order, and with it the image.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn take(&mut self) -> anyhow::Result<(Order, Option<File>)> {
        let (len, image) = self.0.get_mut().recv_with_fd(&mut [0]).map_err(io::Error::from)?;
        if len == 0 {
            bail!("nobody gave an order");
        }
        Ok((self.hear()?.context("nobody gave an order")?, image))
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::plan::Flow;
    use crate::spec::{DeviceSpec, model};

    fn pair() -> (Line, Line) {
        let (one, other) = UnixStream::pair().unwrap();
        (Line::new(one).unwrap(), Line::new(other).unwrap())
    }

    /// What an order names is all that a command line can.
    #[test]
    fn an_order_arrives_as_it_was_given() {
        let disks = [
            "virtio-blk,path=a\"b\\,,c.img,queues=7,write=on,direct=on,engine=threads,id=x",
            "virtio-scsi,backend=memory,verify=off",
            "ahci,backend=null",
            "pvscsi,path=x,readonly=on,engine=io_uring",
        ];
        for text in disks {
            let DeviceSpec::Disk(spec) = model(text) else { panic!("{text}") };
            let seat = Seat { socket: "/a b".into(), device_cpu: Some(3), guest_cpu: None };
            let busy_poll = Duration::from_micros(50);
            let order = Order {
                what: What::Disk(spec.clone()),
                seats: vec![seat],
                busy_poll,
                drag: busy_poll,
            };
            let (mut one, mut other) = pair();
            one.give(&order, None).unwrap();
            let (taken, image) = other.take().unwrap();
            assert!(image.is_none());
            let What::Disk(other) = taken.what else { panic!("{text}") };
            assert_eq!(
                (other, taken.busy_poll, taken.drag),
                (spec, busy_poll, busy_poll),
                "{text}"
            );
            let [seat] = taken.seats.try_into().unwrap();
            assert_eq!((seat.device_cpu, seat.guest_cpu), (Some(3), None));
            assert_eq!(seat.socket, PathBuf::from("/a b"));
        }
        let workload =
            NetWorkload { flow: Flow::Request, frame_size: 64, batch: 32, rate: Some(10_000) };
        for text in [
            "virtio-net,mac=52:54:00:00:00:0a,queues=2,offloads=off",
            "vmxnet3,backend=tap,ifname=t",
            "e1000,verify=off",
        ] {
            let DeviceSpec::Net(spec) = model(text) else { panic!("{text}") };
            let what = What::Net(spec.clone(), workload);
            let order =
                Order { what, seats: Vec::new(), busy_poll: Duration::ZERO, drag: Duration::ZERO };
            let (mut one, mut other) = pair();
            one.give(&order, None).unwrap();
            let What::Net(other, work) = other.take().unwrap().0.what else { panic!("{text}") };
            assert_eq!((other, work), (spec, workload), "{text}");
        }
    }

    #[test]
    fn an_image_comes_with_an_order() {
        let image = tempfile::tempfile().unwrap();
        (&image).write_all(b"here").unwrap();
        let (mut one, mut other) = pair();
        let DeviceSpec::Disk(spec) = model("ahci") else { panic!() };
        let what = What::Disk(spec);
        let order =
            Order { what, seats: Vec::new(), busy_poll: Duration::ZERO, drag: Duration::ZERO };
        one.give(&order, Some(std::os::fd::AsFd::as_fd(&image))).unwrap();
        let mut same = other.take().unwrap().1.unwrap();
        std::io::Seek::rewind(&mut same).unwrap();
        let mut text = String::new();
        same.read_to_string(&mut text).unwrap();
        assert_eq!(text, "here");
    }

    #[test]
    fn who_is_gone_says_nothing() {
        let (one, mut other) = pair();
        drop(one);
        assert!(other.hear::<Answer>().unwrap().is_none());
        assert!(other.take().is_err());
        assert!(other.say(&Question::Look(0)).is_err());
    }

    #[test]
    fn what_is_seen_is_told_in_full() {
        let network = NetStatistics {
            sent_frames: 1,
            send_busy: 2,
            copied_bytes: u64::MAX,
            ..NetStatistics::default()
        };
        let seen = Seen { elsewhere: Some(Duration::from_nanos(7)), copied: None, network };
        let (mut one, mut other) = pair();
        one.say(&Answer::Seen(seen)).unwrap();
        let Some(Answer::Seen(heard)) = other.hear().unwrap() else { panic!() };
        assert_eq!(heard, seen);
    }
}
