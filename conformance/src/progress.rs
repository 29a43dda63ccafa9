//! The progress of the tests: each sends a line when it has ended (`--progress-report-url`).
//!
//! Always true: the listener is called before the next message is read; an invalid message is skipped, as all
//! results are also in the report at the end.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// A test has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) name: String,
    pub(crate) passed: bool,
}

/// The body of a message, as far as it is needed.
#[derive(Deserialize)]
struct Message {
    msg: String,
}

/// A connection without data in this time is closed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Each message has the list of all failures.
const LONGEST: u64 = 16 << 20;

/// Listens while `act` runs, which is given the address to send to.
pub(crate) fn listen<T>(mut tell: impl FnMut(Ended) + Send, act: impl FnOnce(&str) -> T) -> Result<T> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen for what the tests tell")?;
    let address = listener.local_addr().context("a listener without an address")?;
    let done = AtomicBool::new(false);
    Ok(std::thread::scope(|scope| {
        scope.spawn(|| {
            for stream in listener.incoming() {
                if done.load(Ordering::SeqCst) {
                    return;
                }
                if let Some(ended) = stream.ok().and_then(|stream| received(&stream)) {
                    tell(ended);
                }
            }
        });
        let outcome = act(&format!("http://{address}/"));
        done.store(true, Ordering::SeqCst);
        // Only wakes the listener; where it fails there is none that waits.
        drop(TcpStream::connect(address));
        outcome
    }))
}

/// Reads one request and answers it.
fn received(mut stream: &TcpStream) -> Option<Ended> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let line = line.trim();
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = Vec::new();
    reader.take(length.min(LONGEST)).read_to_end(&mut body).ok()?;
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        .ok()?;
    ended(&body)
}

/// The test of a message; other messages are about the whole run.
fn ended(body: &[u8]) -> Option<Ended> {
    let message: Message = serde_json::from_slice(body).ok()?;
    let (word, name) = message.msg.split_once(' ')?;
    let passed = match word {
        "PASSED" => true,
        "FAILED" => false,
        _ => return None,
    };
    // The steps before and after all tests have no name.
    (!name.trim().is_empty()).then(|| Ended {
        name: name.trim().to_owned(),
        passed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn only_ends_of_tests_are_told() {
        let told = |msg: &str| {
            ended(
                serde_json::json!({ "msg": msg, "total": 3 })
                    .to_string()
                    .as_bytes(),
            )
        };
        let passed = told("PASSED [sig-a] a works").unwrap();
        assert_eq!((passed.name.as_str(), passed.passed), ("[sig-a] a works", true));
        assert!(!told("FAILED [sig-a] a works").unwrap().passed);
        assert_eq!(told("PASSED "), None);
        assert_eq!(told("Test Suite starting"), None);
        assert_eq!(ended(b"{"), None);
    }

    #[test]
    fn messages_arrive_while_something_runs() {
        let heard = Mutex::new(Vec::new());
        let answer = listen(
            |ended| heard.lock().unwrap().push(ended.name),
            |url| {
                let address = url.strip_prefix("http://").unwrap().trim_end_matches('/');
                // A client that closes without sending data has no effect.
                drop(TcpStream::connect(address).unwrap());
                let mut stream = TcpStream::connect(address).unwrap();
                let body = r#"{"msg":"PASSED [sig-a] a"}"#;
                write!(
                    stream,
                    "POST / HTTP/1.1\r\nHost: x\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).unwrap();
                answer
            },
        )
        .unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert_eq!(*heard.lock().unwrap(), ["[sig-a] a"]);
    }
}
