//! A minimal HTTP/1.1 server: GETs without a body, one after the other on a connection.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::TcpStream,
};

/// The longest head; a longer one is an error.
const MOST: usize = 4096;

/// A request, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Request {
    target: String,
    /// The connection is to end after the response.
    close: bool,
}

/// Serves the requests of a connection until it ends.
pub(crate) fn converse(stream: TcpStream, respond: impl FnMut(&str) -> Vec<u8>) -> io::Result<()> {
    // A response is written at once: Nagle's algorithm would only delay it.
    stream.set_nodelay(true)?;
    over(stream, respond)
}

fn over(mut stream: impl Read + Write, mut respond: impl FnMut(&str) -> Vec<u8>) -> io::Result<()> {
    let mut received = Vec::with_capacity(MOST);
    let mut chunk = [0; 1024];
    loop {
        while let Some((request, length)) = first(&received)? {
            received.drain(..length);
            stream.write_all(&respond(&request.target))?;
            if request.close {
                return Ok(());
            }
        }
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            count => received.extend_from_slice(&chunk[..count]),
        }
    }
}

/// The first complete request of the received bytes, and its length; `None`: its head is incomplete.
fn first(received: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let Some(end) = received.windows(4).position(|four| four == b"\r\n\r\n") else {
        if received.len() > MOST {
            return Err(wrong("the head is too long"));
        }
        return Ok(None);
    };
    let head = std::str::from_utf8(&received[..end]).map_err(|_| wrong("the head is no text"))?;
    let mut lines = head.split("\r\n");
    let target = lines
        .next()
        .and_then(|line| line.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1"))
        .ok_or_else(|| wrong("this is no GET of HTTP/1.1"))?
        .to_owned();
    let close = lines.any(|line| line.eq_ignore_ascii_case("connection: close"));
    Ok(Some((Request { target, close }, end + 4)))
}

fn wrong(why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why)
}

/// A complete response.
pub(crate) fn answer(status: &str, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nContent-Type: text/plain\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives its input, a few bytes at a time, and keeps the output.
    struct Line {
        said: Vec<u8>,
        at_once: usize,
        heard: Vec<u8>,
    }

    impl Read for Line {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = self.at_once.min(self.said.len()).min(into.len());
            into[..count].copy_from_slice(&self.said[..count]);
            self.said.drain(..count);
            Ok(count)
        }
    }

    impl Write for Line {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            self.heard.extend_from_slice(from);
            Ok(from.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn line(said: &str, at_once: usize) -> Line {
        Line {
            said: said.as_bytes().to_vec(),
            at_once,
            heard: Vec::new(),
        }
    }

    #[test]
    fn each_request_is_answered_however_its_bytes_come() {
        let said = "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n";
        for at_once in [1, 7, 1000] {
            let mut line = line(said, at_once);
            let mut asked = Vec::new();
            over(&mut line, |target| {
                asked.push(target.to_owned());
                answer("200 OK", "yes")
            })
            .unwrap();
            assert_eq!(asked, ["/a", "/b"]);
            let heard = String::from_utf8(line.heard).unwrap();
            assert_eq!(heard.matches("Content-Length: 3\r\n").count(), 2, "{heard}");
        }
    }

    #[test]
    fn a_connection_that_is_to_be_closed_is_asked_nothing_more() {
        let mut line = line(
            "GET /a HTTP/1.1\r\nconnection: close\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
            1000,
        );
        let mut asked = 0;
        over(&mut line, |_| {
            asked += 1;
            answer("200 OK", "")
        })
        .unwrap();
        assert_eq!(asked, 1);
    }

    #[test]
    fn what_is_no_request_ends_its_connection() {
        for said in ["POST / HTTP/1.1\r\n\r\n".to_owned(), "x".repeat(MOST + 1025)] {
            let mut line = line(&said, 1000);
            over(&mut line, |_| Vec::new()).unwrap_err();
        }
    }
}
