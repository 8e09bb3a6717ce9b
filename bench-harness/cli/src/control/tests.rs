//! What comes over the socket, and what becomes of it.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};

use proptest::prelude::*;

use super::*;
use crate::backing::{network, open_drive};
use crate::spec::{Plugged, Request};

fn request(text: &str) -> Request {
    text.parse::<Plugged>().expect(text).request
}

/// A disk of 1 MiB, and how often its guest was told of its size.
fn disk(place: &std::path::Path) -> (Owned, std::sync::Arc<std::sync::atomic::AtomicU64>) {
    let image = place.join("disk.img");
    std::fs::File::create(&image).unwrap().set_len(1 << 20).unwrap();
    let request = request(&format!("ahci,path={},iops=7", image.display()));
    let drive = open_drive(&request).unwrap().unwrap();
    let told = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (seen, size) = (told.clone(), drive.clone());
    let resize = move || {
        seen.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Some(size.capacity())
    };
    (Owned::disk("1".into(), "ahci", drive, Box::new(resize)), told)
}

fn adapter() -> Owned {
    let Request::Net(spec) = request("e1000,bps=1M") else { panic!("no adapter") };
    let (_, limiters) = network(&spec).unwrap();
    Owned::adapter("2".into(), "e1000", limiters, Box::new(|_| ()))
}

/// A server with these devices, and its path.
fn server(place: &std::path::Path, devices: Vec<Owned>) -> std::path::PathBuf {
    let path = place.join("control");
    // The mask is the whole process's, and other tests make files.
    let listener = UnixListener::bind(&path).unwrap();
    serve(listener, move |command| execute(&command, devices.iter())).unwrap();
    path
}

/// What is answered to a line, or to several in one go.
fn answers(path: &std::path::Path, lines: &[u8]) -> Vec<Answer> {
    let mut stream = UnixStream::connect(path).unwrap();
    // It may have closed by then.
    let _ = stream.write_all(lines);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    lines.map(|line| serde_json::from_str(&line).expect(&line)).collect()
}

fn ask(path: &std::path::Path, command: &str) -> Result<State, String> {
    let answers = answers(path, format!("{command}\n").as_bytes());
    let [answer] = &answers[..] else { panic!("{answers:?}") };
    match answer.clone() {
        Answer::Ok(done) => Ok(done.devices.into_iter().next().unwrap()),
        Answer::Error(error) => {
            assert_eq!(error.lines().count(), 1, "{error}");
            Err(error)
        }
    }
}

fn number(value: u64) -> Option<Option<NonZeroU64>> {
    Some(NonZeroU64::new(value))
}

#[test]
fn devices_are_changed_by_lines() {
    let place = tempfile::tempdir().unwrap();
    let (disk, told) = disk(place.path());
    let path = server(place.path(), vec![disk, adapter()]);
    let listed = answers(&path, b"{\"command\":\"list\"}\n");
    let [Answer::Ok(Done { devices })] = &listed[..] else { panic!("{listed:?}") };
    let [disk, net] = &devices[..] else { panic!("{devices:?}") };
    assert_eq!(
        (disk.bytes, disk.iops, disk.bps, disk.fps),
        (Some(1 << 20), number(7), number(0), None)
    );
    assert_eq!(
        (net.up, net.fps, net.bps, net.iops),
        (Some(true), number(0), number(1_000_000), None)
    );

    let set = ask(&path, r#"{"command":"limit","device":"1","bps":5}"#).unwrap();
    assert_eq!((set.iops, set.bps), (number(7), number(5)), "what is not given stays");
    let set = ask(&path, r#"{"command":"limit","device":"1","iops":null}"#).unwrap();
    assert_eq!((set.iops, set.bps), (number(0), number(5)), "what is null goes");
    let set = ask(&path, r#"{"command":"limit","device":"2","fps":9,"bps":null}"#).unwrap();
    assert_eq!((set.fps, set.bps), (number(9), number(0)));

    let image = std::fs::File::options().write(true).open(place.path().join("disk.img")).unwrap();
    image.set_len(3 << 20).unwrap();
    assert_eq!(ask(&path, r#"{"command":"resize","device":"1"}"#).unwrap().bytes, Some(3 << 20));
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 1);
    image.set_len((3 << 20) + 1).unwrap();
    ask(&path, r#"{"command":"resize","device":"1"}"#).unwrap_err();
    assert_eq!(told.load(std::sync::atomic::Ordering::Relaxed), 1, "it is no size of a disk's");

    let down = ask(&path, r#"{"command":"link","device":"2","up":false}"#).unwrap();
    assert_eq!(down.up, Some(false));
    for (command, says) in [
        (r#"{"command":"link","device":"1","up":false}"#, "ahci has no cable"),
        (r#"{"command":"resize","device":"2"}"#, "e1000 is no disk"),
        (r#"{"command":"limit","device":"2","iops":1}"#, "it has fps and bps"),
        (r#"{"command":"limit","device":"1","fps":1}"#, "it has iops and bps"),
        (r#"{"command":"limit","device":"1"}"#, "no limit is given"),
        (r#"{"command":"limit","device":"1","iops":0}"#, "no command"),
        (r#"{"command":"resize","device":"3"}"#, "no device \"3\": there are 1, 2"),
        (r#"{"command":"unplug","device":"1"}"#, "paraslot boot"),
        (r#"{"command":"list","device":"1"}"#, "no command"),
        (r#"{"command":"reboot"}"#, "no command"),
        ("[]", "no command"),
        ("", "no command"),
    ] {
        let error = ask(&path, command).unwrap_err();
        assert!(error.contains(says), "{command}: {error}");
    }
    // One after the other, on one connection.
    let list = "{\"command\":\"list\"}\n".repeat(500);
    assert_eq!(answers(&path, list.as_bytes()).len(), 500);
}

#[test]
fn a_line_without_an_end_is_not_kept() {
    let place = tempfile::tempdir().unwrap();
    let path = server(place.path(), vec![adapter()]);
    for len in [LINE_MAX, LINE_MAX + 1, 1 << 20] {
        let mut stream = UnixStream::connect(&path).unwrap();
        let _ = stream.write_all(&vec![b' '; len]);
        let mut line = String::new();
        // What it had not read when it closed resets the connection.
        let _ = BufReader::new(&stream).read_line(&mut line);
        assert!(line.is_empty() || line.contains("at most 16384 bytes"), "{line}");
    }
    // A line that is as long as can be is one, and whoever goes in the middle of one does no harm.
    let mut longest = vec![b' '; LINE_MAX - 19];
    longest.extend(b"{\"command\":\"list\"}\n");
    assert_eq!(longest.len(), LINE_MAX);
    assert_eq!(answers(&path, b"{\"command\":").len(), 0);
    assert!(matches!(answers(&path, &longest)[..], [Answer::Ok(_)]));
    // So deep that a parser may not follow.
    let deep = [vec![b'['; LINE_MAX - 1], vec![b'\n']].concat();
    assert!(matches!(answers(&path, &deep)[..], [Answer::Error(_)]));
}

#[test]
fn commands_and_answers_read_as_they_were_written() {
    let device = || "1".to_owned();
    for command in [
        Command::List {},
        Command::Limit { device: device(), iops: Some(None), fps: None, bps: number(3) },
        Command::Resize { device: device() },
        Command::Link { device: device(), up: true },
        Command::Unplug { device: device() },
        Command::Plug { device: "e1000,addr=5".into() },
    ] {
        let text = serde_json::to_string(&command).unwrap();
        assert_eq!(serde_json::from_str::<Command>(&text).unwrap(), command, "{text}");
    }
    for answer in [Answer::Ok(Done::default()), Answer::Error("why".into())] {
        let text = serde_json::to_string(&answer).unwrap();
        assert_eq!(serde_json::from_str::<Answer>(&text).unwrap(), answer, "{text}");
    }
}

proptest! {
    /// Whatever comes, each whole line is answered with one, until the connection is closed.
    #[test]
    fn anything_is_answered(lines in prop::collection::vec("[ -~]{0,80}|\\PC{0,20}", 1..8)) {
        static PATH: std::sync::OnceLock<(tempfile::TempDir, std::path::PathBuf)> = std::sync::OnceLock::new();
        let (_, path) = PATH.get_or_init(|| {
            let place = tempfile::tempdir().unwrap();
            let path = server(place.path(), vec![adapter()]);
            (place, path)
        });
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let expected = text.matches('\n').count();
        prop_assert_eq!(answers(path, text.as_bytes()).len(), expected);
    }
}
