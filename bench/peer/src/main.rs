//! The server of `cargo xtask bench data`: `bench-peer ADDRESS DIRECTORY`, in a pod and as a bare process on
//! the host.
//!
//! One program for both, linked statically, so that it runs in an image without libraries. It answers `/` as
//! fast as it can, and writes to a file of the directory as a database does: `/prepare` makes that file,
//! `/write/IN_FLIGHT/MILLISECONDS` writes to it and gives the number of writes.
//!
//! Always true: its cost of a request is small beside the network's, and it does nothing without a request.

mod disk;
mod http;

use std::{
    env, io,
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// The response of `/`: as long as those of a small API, far below the size of a packet.
const ANSWER: &str = "a short answer, the same each time, sixty-four bytes of it. ....";

/// A connection's thread needs little, and there are many.
const STACK: usize = 128 * 1024;

fn main() -> io::Result<()> {
    let mut arguments = env::args().skip(1);
    let (Some(address), Some(directory)) = (arguments.next(), arguments.next()) else {
        return Err(io::Error::other("it takes two arguments, ADDRESS and DIRECTORY"));
    };
    let directory: Arc<Path> = PathBuf::from(directory).into();
    let listener = TcpListener::bind(address)?;
    for stream in listener.incoming() {
        // The client may be gone already.
        let Ok(stream) = stream else { continue };
        let directory = Arc::clone(&directory);
        thread::Builder::new().stack_size(STACK).spawn(move || {
            // The client of a broken connection is gone.
            let _ended = http::converse(stream, |target| respond(target, &directory));
        })?;
    }
    Ok(())
}

/// The response to a GET of this target.
fn respond(target: &str, directory: &Path) -> Vec<u8> {
    if target == "/" {
        return http::answer("200 OK", ANSWER);
    }
    match work(target, directory) {
        Ok(Some(said)) => http::answer("200 OK", &said),
        Ok(None) => http::answer("404 Not Found", "there is no such target"),
        Err(error) => http::answer("500 Internal Server Error", &error.to_string()),
    }
}

/// Does the work of a target, and gives the response; `None`: an unknown target.
fn work(target: &str, directory: &Path) -> io::Result<Option<String>> {
    if target == "/prepare" {
        disk::prepare(directory)?;
        return Ok(Some(String::new()));
    }
    let Some((in_flight, milliseconds)) = asked(target) else {
        return Ok(None);
    };
    let begun = now();
    let until = begun + Duration::from_millis(milliseconds);
    let writes = disk::write(directory, in_flight, || now() < until)?;
    Ok(Some(format!("{writes} {}", (now() - begun).as_micros())))
}

/// How many writes at a time, and for how many milliseconds.
fn asked(target: &str) -> Option<(u32, u64)> {
    let (in_flight, milliseconds) = target.strip_prefix("/write/")?.split_once('/')?;
    let in_flight = in_flight.parse().ok().filter(|count| (1..=64).contains(count))?;
    let milliseconds = milliseconds
        .parse()
        .ok()
        .filter(|time| (1..=600_000).contains(time))?;
    Some((in_flight, milliseconds))
}

#[expect(
    clippy::disallowed_methods,
    reason = "it measures how long a disk takes, and carries nothing of the crates that hand a clock in"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_is_as_long_as_it_says() {
        assert_eq!(ANSWER.len(), 64);
    }

    #[test]
    fn targets_say_how_much_is_written_at_a_time_and_for_how_long() {
        assert_eq!(asked("/write/4/3000"), Some((4, 3000)));
        assert_eq!(asked("/write/0/3000"), None);
        assert_eq!(asked("/write/4"), None);
        assert_eq!(asked("/write/4/x"), None);
        assert_eq!(asked("/prepare"), None);
    }

    #[test]
    fn a_target_that_is_not_there_is_told_so() {
        let said = String::from_utf8(respond("/nothing", Path::new("/nowhere"))).unwrap();
        assert!(said.starts_with("HTTP/1.1 404 "), "{said}");
        let said = String::from_utf8(respond("/write/1/1", Path::new("/nowhere"))).unwrap();
        assert!(said.starts_with("HTTP/1.1 500 "), "{said}");
        let said = String::from_utf8(respond("/", Path::new("/nowhere"))).unwrap();
        assert!(
            said.starts_with("HTTP/1.1 200 ") && said.ends_with(ANSWER),
            "{said}"
        );
    }
}
