//! The far end of an adapter's cable: the host's network stack, behind a TAP interface.

use std::fs;
use std::io::{self, Write};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use paraslot_tests::peer::{self, Exchange, PATIENCE, Pattern};

use super::program::{self, File};

/// Largest packet that the interface takes at first.
pub(crate) const MTU: u16 = 9000;

/// Something that goes on while the guest's script does, and ends with what was wrong.
struct Activity {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<()>>,
}

/// A TAP interface with the addresses 10.9.N.1 and fd00:9:N::1, and what is done behind it.
pub(crate) struct FarEnd {
    name: String,
    pattern: Arc<Pattern>,
    /// Counts up, so that no two streams are the same.
    stream: u64,
    server: Option<Activity>,
    load: Option<Activity>,
}

/// Runs iproute2.
fn try_ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip runs");
    let error = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {arguments}: {error}")) }
}

fn ip(arguments: &str) {
    try_ip(arguments).unwrap_or_else(|error| panic!("{error}"));
}

fn start(work: impl FnOnce(&AtomicBool) -> io::Result<()> + Send + 'static) -> Activity {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    Activity { stop, thread: thread::spawn(move || work(&seen)) }
}

impl Activity {
    /// What became of it, in a word or a line.
    fn end(self) -> String {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join().expect("no panic") {
            Ok(()) => "right".into(),
            Err(error) => error.to_string().replace('\n', " "),
        }
    }
}

impl FarEnd {
    /// Makes the interface, of so many pairs of queues; its adapter is opened by its name.
    pub(crate) fn new(number: u8, queues: u16) -> Self {
        let name = format!("linux{number}");
        let multi = if queues > 1 { " multi_queue" } else { "" };
        ip(&format!("tuntap add dev {name} mode tap vnet_hdr{multi}"));
        ip(&format!("link set {name} mtu {MTU}"));
        ip(&format!("addr add 10.9.{number}.1/24 dev {name}"));
        ip(&format!("-6 addr add fd00:9:{number}::1/64 dev {name} nodad"));
        ip(&format!("link set {name} up"));
        let pattern = Arc::default();
        Self { name, pattern, stream: 0, server: None, load: None }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Does what a script asks for at a mark, and says what is to be answered. `None` if it is not for
    /// a far end.
    pub(crate) fn answer(&mut self, word: &str) -> Option<String> {
        let words: Vec<_> = word.split(' ').collect();
        let number = |text: &str| text.parse::<u64>().expect("a number");
        Some(match words[..] {
            ["fetch"] => self.give(),
            ["streams", count, down, up] => self.streams(number(count), number(down), number(up)),
            ["datagrams"] => self.datagrams(),
            ["served"] => self.server.take().map_or("nothing".into(), Activity::end),
            ["flood", to] => self.flood(to.parse().expect("an address")),
            ["calm"] => self.load.take().map_or("nothing".into(), Activity::end),
            ["send", count, to] => send(number(count), to.parse().expect("an address")),
            ["ip", ..] => {
                ip(&word["ip ".len()..].replace("DEV", &self.name));
                "done".into()
            }
            ["vlan", id] => self.vlan(id).into(),
            ["counters"] => self.counters(),
            _ => return None,
        })
    }

    /// Gives the guest the program that it talks to the test with. Answers with the port, and the
    /// files' names.
    fn give(&mut self) -> String {
        let listener = TcpListener::bind("[::]:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let files = program::files();
        let names: Vec<_> = files.iter().map(|file| file.name.clone()).collect();
        self.server = Some(start(move |_| {
            for File { content, .. } in files {
                let (mut socket, _) = listener.accept()?;
                socket.set_write_timeout(Some(PATIENCE))?;
                socket.write_all(&content)?;
            }
            Ok(())
        }));
        format!("{port} {}", names.join(" "))
    }

    fn streams(&mut self, count: u64, down: u64, up: u64) -> String {
        let listener = TcpListener::bind("[::]:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let first = self.stream;
        self.stream += 2 * count;
        let pattern = self.pattern.clone();
        self.server = Some(start(move |_| {
            thread::scope(|scope| {
                let mut threads = Vec::new();
                for index in 0..count {
                    let (socket, _) = listener.accept()?;
                    let exchange = Exchange { stream: first + 2 * index, down, up };
                    let pattern = &pattern;
                    threads.push(scope.spawn(move || exchange.serve(pattern, &socket)));
                }
                threads.into_iter().try_for_each(|thread| thread.join().expect("no panic"))
            })
        }));
        port.to_string()
    }

    fn datagrams(&mut self) -> String {
        let socket = UdpSocket::bind("[::]:0").expect("a port");
        let port = socket.local_addr().expect("an address").port();
        let pattern = self.pattern.clone();
        self.server = Some(start(move |_| peer::serve_datagrams(&pattern, &socket).map(drop)));
        port.to_string()
    }

    fn flood(&mut self, to: SocketAddr) -> String {
        let work =
            move |stop: &AtomicBool| peer::flood(to, || !stop.load(Ordering::Relaxed)).map(drop);
        self.load = Some(start(work));
        "floods".into()
    }

    /// Makes the interface's VLAN, if the host has them, and says whether it has.
    fn vlan(&self, id: &str) -> &'static str {
        // Not every host loads it by itself.
        let _ = Command::new("modprobe").arg("8021q").output();
        let name = &self.name;
        let command = format!("link add link {name} name {name}.{id} type vlan id {id}");
        match try_ip(&command) {
            Ok(()) => "yes",
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "{error}");
                println!("no VLAN: {error}");
                "no"
            }
        }
    }

    /// Frames and bytes that the interface's network has received, and sent.
    fn counters(&self) -> String {
        // By way of the thread: a namespace has its own.
        let table = fs::read_to_string("/proc/thread-self/net/dev").expect("the interfaces");
        let line = table.lines().find_map(|line| line.trim().strip_prefix(&self.name));
        let line = line.and_then(|line| line.strip_prefix(':')).expect("the interface");
        let fields: Vec<_> = line.split_whitespace().collect();
        [fields[1], fields[0], fields[9], fields[8]].join(" ")
    }
}

/// Sends so many datagrams, of 100 bytes.
fn send(count: u64, to: SocketAddr) -> String {
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).expect("a port");
    for _ in 0..count {
        socket.send_to(&[0x5a; 100], to).expect("a datagram");
    }
    "sent".into()
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        // What waits for a guest that failed ends by its own patience, or with the process.
        if let Some(load) = self.load.take() {
            load.stop.store(true, Ordering::Relaxed);
        }
    }
}
