//! QEMU's command line.

use std::ffi::OsString;
use std::path::Path as FilePath;
use std::time::Duration;

use paraslot_protocol::{Device, Job, port};
use paraslot_report::Path;

use crate::bench::GUEST_MEMORY;
use crate::image::IMAGE_BYTES;
use crate::spec::{DeviceSpec, Engine};

/// A virtual machine for one job.
pub(super) struct Machine<'a> {
    pub(super) guest: &'a FilePath,
    pub(super) firmware: Option<&'a FilePath>,
    pub(super) job: &'a Job,
    /// `None` for QEMU's null backend.
    pub(super) image: Option<&'a FilePath>,
    pub(super) spec: &'a DeviceSpec,
    pub(super) path: Path,
    pub(super) engine: Engine,
    /// How long its device's thread may poll.
    pub(super) busy_poll: Duration,
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
        for node in self.nodes() {
            add("-blockdev", node);
        }
        let serial = self.spec.id.as_ref().map(|id| format!(",serial={}", escaped(id)));
        let serial = serial.unwrap_or_default();
        match self.spec.device {
            Device::VirtioBlk => {
                let mut device = format!(
                    "virtio-blk-pci,drive=disk,disable-legacy=on,num-queues={}",
                    self.spec.queues.unwrap_or(1)
                );
                if self.path == Path::Trap {
                    device.push_str(",ioeventfd=off");
                } else {
                    let poll = self.busy_poll.as_nanos();
                    add("-object", format!("iothread,id=worker,poll-max-ns={poll}"));
                    device.push_str(",ioeventfd=on,iothread=worker");
                }
                add("-device", device + &serial);
            }
            // The machine brings an ICH9 with empty ports.
            Device::Ahci => add("-device", format!("ide-hd,drive=disk,bus=ide.0{serial}")),
        }
        if let Some(firmware) = self.firmware {
            arguments.extend(["-bios".into(), firmware.into()]);
        }
        arguments.extend(["-kernel".into(), self.guest.into()]);
        arguments.extend(["-append".into(), self.job.to_string().into()]);
        arguments
    }

    /// The image, from the file up.
    fn nodes(&self) -> Vec<String> {
        let Some(image) = self.image else {
            let null = format!("null-co,node-name=disk,size={IMAGE_BYTES},read-zeroes=on");
            return vec![null];
        };
        let switch = |on| if on { "on" } else { "off" };
        let read_only = switch(!self.spec.writable());
        let aio = match self.engine {
            Engine::IoUring => "io_uring",
            Engine::Threads => "threads",
        };
        let direct = switch(self.spec.direct);
        let name = escaped(image.display());
        vec![
            format!(
                "file,node-name=file,filename={name},aio={aio},cache.direct={direct},\
                 read-only={read_only}"
            ),
            format!("raw,node-name=disk,file=file,cache.direct={direct},read-only={read_only}"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use paraslot_protocol::{Access, Completion};

    fn line(spec: &str, image: Option<&str>, path: Path) -> String {
        let spec: DeviceSpec = spec.parse().unwrap();
        let job = Job {
            device: spec.device,
            access: Access::RandomRead,
            completion: Completion::Poll,
            block_size: 4096,
            depth: 1,
            span: IMAGE_BYTES,
            warm_up_ms: 1,
            measure_ms: 1,
            operations: 0,
            verify: true,
            seed: 1,
            tsc_hz: 0,
        };
        let machine = Machine {
            guest: FilePath::new("/guest"),
            firmware: None,
            job: &job,
            image: image.map(FilePath::new),
            spec: &spec,
            path,
            engine: Engine::Threads,
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
        assert!(line("ahci,id=a,,b", Some("/image"), Path::Trap).contains("bus=ide.0,serial=a,,b"));
        assert!(line("ahci", Some("/image"), Path::Event).contains("ide-hd,drive=disk,bus=ide.0"));
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
