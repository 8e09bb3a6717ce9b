//! QEMU's command line.

use std::ffi::OsString;
use std::path::Path as FilePath;
use std::time::Duration;

use paraslot_protocol::{Device, Job, port};
use paraslot_report::Path;

use crate::bench::GUEST_MEMORY;
use crate::image::IMAGE_BYTES;
use crate::network;
use crate::spec::{DiskSpec, Engine, NetSpec};

/// A virtual machine for one job.
pub(super) struct Machine<'a> {
    pub(super) guest: &'a FilePath,
    pub(super) firmware: Option<&'a FilePath>,
    pub(super) job: &'a Job,
    pub(super) attached: Attached<'a>,
    pub(super) path: Path,
    /// How long its device's thread may poll.
    pub(super) busy_poll: Duration,
}

/// The device, and what is behind it.
#[derive(Clone, Copy)]
pub(super) enum Attached<'a> {
    Disk {
        spec: &'a DiskSpec,
        /// `None` for QEMU's null backend.
        image: Option<&'a FilePath>,
        engine: Engine,
    },
    /// A socket that nobody connects to: what is sent to it is taken and dropped.
    Net { spec: &'a NetSpec },
}

/// A text as the value of an option: commas are doubled.
fn escaped(text: impl std::fmt::Display) -> String {
    text.to_string().replace(',', ",,")
}

impl Machine<'_> {
    /// All arguments.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = [
            "-no-user-config",
            "-nodefaults",
            "-no-reboot",
            "-display",
            "none",
            // So that the virtual processor's thread can be told from the others.
            "-name",
            "paraslot,debug-threads=on",
            "-machine",
            "q35,accel=kvm",
            // The guest needs no more than this, and every KVM can do it; `host` names features
            // whose registers some nested KVMs then refuse.
            "-cpu",
            "qemu64",
            "-chardev",
            "stdio,id=console,signal=off",
        ]
        .map(OsString::from)
        .to_vec();
        let mut add = |name: &str, value: String| arguments.extend([name.into(), value.into()]);
        add("-m", format!("{}M", GUEST_MEMORY >> 20));
        add("-device", format!("isa-debugcon,iobase={:#x},chardev=console", port::CONSOLE));
        add("-device", format!("isa-debug-exit,iobase={:#x},iosize=4", port::EXIT));
        match self.attached {
            Attached::Disk { spec, image, engine } => {
                for node in nodes(spec, image, engine) {
                    add("-blockdev", node);
                }
                self.disk(spec, add);
            }
            Attached::Net { spec } => {
                // (A hub with nobody else would do, too, but QEMU's quick firmware halts beside one.)
                add("-netdev", "socket,id=net,listen=127.0.0.1:0".into());
                add("-device", self.adapter(spec));
            }
        }
        if let Some(firmware) = self.firmware {
            arguments.extend(["-bios".into(), firmware.into()]);
        }
        arguments.extend(["-kernel".into(), self.guest.into()]);
        arguments.extend(["-append".into(), self.job.to_string().into()]);
        arguments
    }

    fn disk(&self, spec: &DiskSpec, mut add: impl FnMut(&str, String)) {
        let serial = spec.id.as_ref().map(|id| format!(",serial={}", escaped(id)));
        let serial = serial.unwrap_or_default();
        let disk = format!("drive=disk{serial}");
        let scsi_disk = format!("scsi-hd,bus=scsi.0,{disk}");
        match spec.device {
            // The machine brings an ICH9 with empty ports.
            Device::Ahci => return add("-device", format!("ide-hd,bus=ide.0,{disk}")),
            Device::Pvscsi => {
                add("-device", "pvscsi,id=scsi".into());
                return add("-device", scsi_disk);
            }
            _ => {}
        }
        let queues = spec.queues.unwrap_or(1);
        let doorbells = if self.path == Path::Trap {
            "ioeventfd=off"
        } else {
            let poll = self.busy_poll.as_nanos();
            add("-object", format!("iothread,id=worker,poll-max-ns={poll}"));
            "ioeventfd=on,iothread=worker"
        };
        if spec.device == Device::VirtioScsi {
            let adapter = "virtio-scsi-pci,id=scsi,disable-legacy=on";
            add("-device", format!("{adapter},num_queues={queues},{doorbells}"));
            return add("-device", scsi_disk);
        }
        let adapter = "virtio-blk-pci,disable-legacy=on";
        add("-device", format!("{adapter},num-queues={queues},{doorbells},{disk}"));
    }

    /// It is served by QEMU's main thread, which does not poll.
    fn adapter(&self, spec: &NetSpec) -> String {
        let mac = network::address(spec).map(|byte| format!("{byte:02x}")).join(":");
        if spec.device != Device::VirtioNet {
            return format!("{},netdev=net,mac={mac}", spec.device);
        }
        let ioeventfd = if self.path == Path::Trap { "off" } else { "on" };
        // The socket has no offloads, so there are none to offer.
        format!(
            "virtio-net-pci,netdev=net,disable-legacy=on,mq=off,ioeventfd={ioeventfd},mac={mac}"
        )
    }
}

/// A disk's image, from the file up.
fn nodes(spec: &DiskSpec, image: Option<&FilePath>, engine: Engine) -> Vec<String> {
    let Some(image) = image else {
        return vec![format!("null-co,node-name=disk,size={IMAGE_BYTES},read-zeroes=on")];
    };
    let switch = |on| if on { "on" } else { "off" };
    let read_only = switch(!spec.writable());
    let aio = match engine {
        Engine::IoUring => "io_uring",
        Engine::Threads => "threads",
    };
    let direct = switch(spec.direct);
    let name = escaped(image.display());
    vec![
        format!(
            "file,node-name=file,filename={name},aio={aio},cache.direct={direct},\
             read-only={read_only}"
        ),
        format!("raw,node-name=disk,file=file,cache.direct={direct},read-only={read_only}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::DeviceSpec;
    use paraslot_protocol::{Access, Completion, DiskJob, NetJob, Traffic};

    fn line(spec: &str, image: Option<&str>, path: Path) -> String {
        let spec = crate::spec::model(spec);
        let (warm_up_ms, measure_ms, operations, verify, tsc_hz) = (1, 1, 0, true, 0);
        let (device, completion) = (spec.device(), Completion::Poll);
        let (attached, job) = match &spec {
            DeviceSpec::Disk(disk) => {
                let image = image.map(FilePath::new);
                let job = DiskJob {
                    device,
                    access: Access::RandomRead,
                    completion,
                    block_size: 4096,
                    depth: 1,
                    span: IMAGE_BYTES,
                    warm_up_ms,
                    measure_ms,
                    operations,
                    verify,
                    seed: 1,
                    tsc_hz,
                };
                (Attached::Disk { spec: disk, image, engine: Engine::Threads }, Job::Disk(job))
            }
            DeviceSpec::Net(net) => {
                let job = NetJob {
                    device,
                    traffic: Traffic::Transmit,
                    completion,
                    frame_size: 64,
                    batch: 1,
                    rate: 0,
                    warm_up_ms,
                    measure_ms,
                    operations,
                    verify,
                    tsc_hz,
                };
                (Attached::Net { spec: net }, Job::Net(job))
            }
            DeviceSpec::Passed(_) => panic!("QEMU's devices are models"),
        };
        let machine = Machine {
            guest: FilePath::new("/guest"),
            firmware: None,
            job: &job,
            attached,
            path,
            busy_poll: Duration::from_micros(50),
        };
        let arguments = machine.arguments();
        let words: Vec<_> = arguments.iter().map(|word| word.to_str().unwrap()).collect();
        words.join(" ")
    }

    #[test]
    fn the_paths_differ_in_who_takes_doorbells() {
        let trap = line("virtio-blk,queues=2", Some("/image"), Path::Trap);
        assert!(trap.contains("num-queues=2,ioeventfd=off") && !trap.contains("iothread"));
        let event = line("virtio-blk", Some("/image"), Path::Event);
        assert!(event.contains("-object iothread,id=worker,poll-max-ns=50000"));
        assert!(event.contains("num-queues=1,ioeventfd=on,iothread=worker"));
        assert!(
            line("ahci,id=a,,b", Some("/image"), Path::Trap).contains("drive=disk,serial=a,,b")
        );
        assert!(line("ahci", Some("/image"), Path::Event).contains("ide-hd,bus=ide.0,drive=disk"));
    }

    #[test]
    fn scsi_disks_are_behind_their_adapters() {
        let pvscsi = line("pvscsi,id=a", Some("/image"), Path::Event);
        let disk = "-device scsi-hd,bus=scsi.0,drive=disk";
        assert!(pvscsi.contains(&format!("-device pvscsi,id=scsi {disk},serial=a ")));
        let virtio = line("virtio-scsi,queues=2", Some("/image"), Path::Event);
        assert!(
            virtio.contains("virtio-scsi-pci,id=scsi,disable-legacy=on,num_queues=2,ioeventfd=on")
        );
        assert!(virtio.contains(&format!("iothread=worker {disk} ")));
    }

    #[test]
    fn networks_are_behind_a_socket() {
        const SOCKET: &str = "-netdev socket,id=net,listen=127.0.0.1:0 -device ";
        let virtio = line("virtio-net,mac=52:54:00:00:00:0a", None, Path::Trap);
        assert!(virtio.contains(&format!("{SOCKET}virtio-net-pci,netdev=net,disable-legacy=on,")));
        assert!(virtio.contains("mq=off,ioeventfd=off,mac=52:54:00:00:00:0a "), "{virtio}");
        assert!(line("virtio-net", None, Path::Event).contains("ioeventfd=on"));
        let e1000 = line("e1000", None, Path::Event);
        assert!(e1000.contains(&format!("{SOCKET}e1000,netdev=net,mac=52:54:00:00:00:01 ")));
        let vmxnet3 = line("vmxnet3", None, Path::Event);
        assert!(vmxnet3.contains(&format!("{SOCKET}vmxnet3,netdev=net,mac=52:54:00:00:00:01 ")));
    }

    #[test]
    fn images_are_named_as_they_are_and_written_only_if_asked() {
        let own = line("virtio-blk,path=x", Some("/a,b.img"), Path::Event);
        assert!(own.contains("filename=/a,,b.img,aio=threads,cache.direct=off,read-only=on"));
        let temporary = line("virtio-blk,direct=on", Some("/image"), Path::Event);
        assert!(temporary.contains("cache.direct=on,read-only=off"));
        assert!(line("ahci,backend=null", None, Path::Trap).contains("null-co,node-name=disk"));
    }

    /// The words of the job are one argument.
    #[test]
    fn the_job_is_passed_whole() {
        let words = line("ahci", Some("/image"), Path::Trap);
        let job = words.split("-append ").nth(1).unwrap();
        assert!(job.parse::<Job>().is_ok(), "{job}");
    }
}
