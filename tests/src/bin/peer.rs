//! The guest's side of a network test: `peer streams ADDRESS:PORT COUNT`, `peer datagrams
//! ADDRESS:PORT`, `peer flood ADDRESS:PORT SECONDS`. See [`paraslot_tests::peer`].

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use paraslot_tests::peer;

fn run() -> io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let address = |text: &str| text.parse::<SocketAddr>().map_err(io::Error::other);
    let number = |text: &str| text.parse::<u32>().map_err(io::Error::other);
    match words[..] {
        ["streams", test, count] => {
            let count = usize::try_from(number(count)?).map_err(io::Error::other)?;
            peer::join_streams(address(test)?, count)
        }
        ["datagrams", test] => peer::join_datagrams(address(test)?),
        ["flood", to, seconds] => {
            let end = Instant::now() + Duration::from_secs(number(seconds)?.into());
            let sent = peer::flood(address(to)?, || Instant::now() < end)?;
            println!("{sent} datagrams");
            Ok(())
        }
        _ => Err(io::Error::other("no such words")),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("peer: {error}");
            ExitCode::FAILURE
        }
    }
}
