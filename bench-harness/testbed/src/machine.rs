//! The outer machine: QEMU without KVM, for the time of one job.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::cpio::Archive;
use crate::error::Error;
use crate::job::{Job, Outcome};
use crate::{base, prepare, process};

/// The kernel's parameters, beside [`QUICK`]. The IOMMU is on, but the machine's own devices go past it.
const KERNEL_LINE: &str = "console=ttyS0 quiet panic=-1 intel_iommu=on iommu=pt";

/// Parameters of kernels whose processor is emulated. Nothing waits: not for entropy, nor to have the
/// clock or the interrupts checked, which emulation may fail. What guards a kernel against its programs,
/// and costs most of such a processor's time, is off.
pub const QUICK: &str = "mitigations=off init_on_alloc=0 hardened_usercopy=off lsm= audit=0 nowatchdog \
    rcupdate.rcu_expedited=1 random.trust_cpu=on tsc=reliable no_timer_check cryptomgr.notests";

/// The processor: all that can be emulated but what the emulation pays for, and a guest's with it. Told
/// of ERMS and FSRM a kernel copies byte by byte, for an emulated `rep movsb` is a loop over bytes.
/// LA57 makes each walk of the page tables longer, and with SMAP each copy from a program ends a
/// translated block twice.
const CPU: &str = "max,+svm,-mpx,-pku,-erms,-fsrm,-la57,-smap";

/// An attempt's files: the initial RAM file system, what the machine's kernel writes, and what QEMU does.
const INITRD: &str = "initrd";
const CONSOLE: &str = "console";
const LOG: &str = "qemu";

/// How long the machine's CPU sleeps through an interrupt at most.
///
/// QEMU's emulation of SVM changes the flags of pending interrupts without the lock that its timers hold
/// when they set them. So each entry into a guest and each exit from one may lose an interrupt that comes
/// just then, and if it was the timer's, an idle machine sleeps for ever: its local APIC still holds the
/// request. Any other interrupt has QEMU look at that again, and a byte sent to it is one.
const PULSE: Duration = Duration::from_millis(100);

/// How much of the machine's last words an error has, in bytes.
const LAST_WORDS: usize = 2000;

/// Runs `job` on a machine made of what is in `base`.
pub(crate) fn run(base: &Path, job: &Job) -> Result<Outcome, Error> {
    let share = job.share_path()?;
    let folder = tempfile::Builder::new().prefix("paraslot-testbed-").tempdir();
    let folder = folder.map_err(Error::io("create a temporary folder"))?;
    let attempts = job.attempts.max(1);
    let mut output = Vec::new();
    for attempt in 1..=attempts {
        let machine =
            Machine { base, job, share: &share, folder: &folder.path().join(attempt.to_string()) };
        match machine.attempt(&mut output)? {
            Some(status) => {
                let output = String::from_utf8_lossy(&output).into_owned();
                return Ok(Outcome { status, output, attempts: attempt });
            }
            None if attempt < attempts => {
                let line = format!(
                    "testbed: attempt {attempt} passed its limit of {:?}; trying again\n",
                    job.timeout
                );
                eprint!("{line}");
                output = line.into_bytes();
            }
            None => {}
        }
    }
    let output = String::from_utf8_lossy(&output).into_owned();
    Err(Error::Timeout { limit: job.timeout, attempts, output })
}

struct Machine<'a> {
    base: &'a Path,
    job: &'a Job,
    share: &'a Path,
    /// What is shared with the machine's first process, and QEMU's own files: of this attempt alone.
    folder: &'a Path,
}

impl Machine<'_> {
    /// Adds what the command writes to `output`, and gives back its exit status, or nothing if it
    /// passed its limit.
    fn attempt(&self, output: &mut Vec<u8>) -> Result<Option<i32>, Error> {
        let inside = self.folder.join("job");
        fs::create_dir_all(&inside).map_err(Error::path("create", &inside))?;
        // The first process, behind what is always the same.
        let mut initrd = prepare::read(&self.base.join(base::OUTER))?;
        let mut archive = Archive::new();
        archive.file("init", 0o755, include_bytes!("../init/outer.sh"));
        initrd.extend(archive.finish());
        prepare::write(&self.folder.join(INITRD), &initrd)?;
        drop(initrd);
        let write = |name: &str, bytes: &[u8]| prepare::write(&inside.join(name), bytes);
        write("settings", &self.job.settings(self.share))?;
        write("command", &self.job.script(self.share)?)?;

        // None: later than the clock can tell.
        let deadline = Instant::now().checked_add(self.job.timeout);
        let log = self.folder.join(LOG);
        let errors = fs::File::create(&log).map_err(Error::path("create", &log))?;
        let mut command = self.command(&inside);
        // The way in of the port that the output comes by.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        let mut qemu = Qemu(process::spawn(&mut command).map_err(Error::io("start QEMU"))?);
        if let Some(input) = qemu.0.stdin.take() {
            thread::spawn(move || pulse(input));
        }
        if !self.collect(&mut qemu, deadline, output)? {
            return Ok(None);
        }
        let end = qemu.0.wait().map_err(Error::io("wait for QEMU"))?;
        drop(qemu);
        let status = fs::read_to_string(inside.join("status"))
            .ok()
            .and_then(|text| text.trim().parse().ok());
        match status {
            Some(status) if end.code() == Some(exit_code(status)) => Ok(Some(status)),
            _ => Err(self.broken(end, output)),
        }
    }

    /// Reads the command's output until QEMU ends: true; or until the time is over: false.
    fn collect(
        &self,
        qemu: &mut Qemu,
        deadline: Option<Instant>,
        output: &mut Vec<u8>,
    ) -> Result<bool, Error> {
        let mut pipe =
            qemu.0.stdout.take().ok_or_else(|| Error::Job("QEMU has no output".into()))?;
        let (sender, chunks) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(length @ 1..) = pipe.read(&mut buffer) {
                let Some(chunk) = buffer.get(..length) else { break };
                if sender.send(chunk.to_vec()).is_err() {
                    break;
                }
            }
        });
        loop {
            let left = deadline.map_or(Duration::MAX, |deadline| {
                deadline.saturating_duration_since(Instant::now())
            });
            match chunks.recv_timeout(left) {
                Ok(chunk) => {
                    if self.job.echo {
                        // A reader that is gone is no reason to stop.
                        let mut stdout = std::io::stdout().lock();
                        let _ = stdout.write_all(&chunk).and_then(|()| stdout.flush());
                    }
                    output.extend_from_slice(&chunk);
                }
                Err(RecvTimeoutError::Disconnected) => return Ok(true),
                Err(RecvTimeoutError::Timeout) => return Ok(false),
            }
        }
    }

    /// What there is to say about a machine that ended without a status.
    fn broken(&self, end: ExitStatus, output: &[u8]) -> Error {
        let mut console = String::new();
        for name in [LOG, CONSOLE] {
            let bytes = fs::read(self.folder.join(name)).unwrap_or_default();
            let start = bytes.len().saturating_sub(LAST_WORDS);
            console += &String::from_utf8_lossy(bytes.get(start..).unwrap_or_default());
        }
        let status = match (end.code(), end.signal()) {
            (Some(code), _) => format!("QEMU's exit status {code}"),
            (None, signal) => format!("QEMU's signal {}", signal.unwrap_or_default()),
        };
        let output = String::from_utf8_lossy(output).into_owned();
        Error::Machine { status, console: console.trim().to_owned(), output }
    }

    /// QEMU's command line. It runs with the libraries that it was built for, whichever the host has.
    fn command(&self, inside: &Path) -> Command {
        let tree = self.base.join(base::QEMU);
        let libraries = tree.join("usr/lib/x86_64-linux-gnu");
        let mut command = Command::new(tree.join("usr/lib64/ld-linux-x86-64.so.2"));
        command.arg("--library-path").arg(&libraries).arg(tree.join("usr/bin/qemu-system-x86_64"));
        command
            .env("QEMU_MODULE_DIR", libraries.join("qemu"))
            .env_remove("LD_PRELOAD")
            .env_remove("LD_LIBRARY_PATH");
        command.current_dir(self.folder);
        for firmware in ["usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu"] {
            command.arg("-L").arg(tree.join(firmware));
        }
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-name",
            "paraslot-testbed",
        ]);
        command.args(["-accel", "tcg,thread=multi", "-machine", "q35,kernel-irqchip=split"]);
        command.args(["-cpu", CPU, "-smp", "1", "-m", &self.job.memory_mib.to_string()]);
        command.args([
            "-device",
            "intel-iommu,intremap=on",
            "-device",
            "isa-debug-exit,iobase=0x501,iosize=1",
        ]);
        command.arg("-chardev").arg(option("file,id=console,path=", &self.folder.join(CONSOLE)));
        command.args(["-serial", "chardev:console"]);
        command.args([
            "-chardev",
            "stdio,id=output,signal=off",
            "-device",
            "virtio-serial-pci,addr=1e",
        ]);
        command.args(["-device", "virtserialport,chardev=output,name=output"]);
        for (tag, path, access, slot) in [
            ("root", Path::new("/"), ",readonly=on", "1b"),
            ("share", self.share, "", "1c"),
            ("job", inside, "", "1d"),
        ] {
            let mut value = option(
                &format!("local,id={tag},security_model=none,multidevs=remap{access},path="),
                path,
            );
            command.arg("-fsdev").arg(&value);
            value =
                OsString::from(format!("virtio-9p-pci,fsdev={tag},mount_tag={tag},addr={slot}"));
            command.arg("-device").arg(value);
        }
        command
            .arg("-kernel")
            .arg(self.base.join(base::VMLINUX))
            .arg("-initrd")
            .arg(self.folder.join(INITRD));
        command.arg("-append").arg([KERNEL_LINE, QUICK].join(" "));
        command.args(&self.job.devices);
        command
    }
}

/// Sends a byte every now and then, until there is nobody to send it to.
fn pulse(mut input: ChildStdin) {
    while input.write_all(&[0]).is_ok() {
        thread::sleep(PULSE);
    }
}

/// What QEMU leaves with if the machine ends with `status`.
fn exit_code(status: i32) -> i32 {
    (((status & 0xff) << 1) | 1) & 0xff
}

/// A path behind `name` in an option of QEMU's, in which a comma is written twice.
fn option(name: &str, path: &Path) -> OsString {
    let mut bytes = OsStr::new(name).as_bytes().to_vec();
    for &byte in path.as_os_str().as_bytes() {
        bytes.push(byte);
        if byte == b',' {
            bytes.push(byte);
        }
    }
    OsString::from_vec(bytes)
}

/// QEMU, ended when it is no longer wanted.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        // Both fail if it ended by itself and was waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_told_twice_plus_one() {
        for (status, code) in [(0, 1), (1, 3), (7, 15), (127, 255), (128, 1), (137, 19), (255, 255)]
        {
            assert_eq!(exit_code(status), code, "{status}");
        }
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        assert_eq!(option("file:", Path::new("/a,b/c")), "file:/a,,b/c");
    }
}
