//! Slow clients, on real sockets and in virtual time, which passes at once while both ends wait, and only
//! then.

use std::{collections::BTreeMap, time::Duration};

use control_records::{GroupRecord, key};
use control_store::{Txn, put_record};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_rustls::client::TlsStream;

use crate::{
    fixture::{SUBSCRIPTION, group},
    listener::{Listening, PREFACE},
};

/// More than the buffers of a connection hold whose client does not read.
const LARGE: usize = 16 * 1024 * 1024;
/// The body of a PUT of a group.
const BODY: &str = "{\"location\":\"local\"}";

/// Frames of HTTP/2.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PING: u8 = 6;
/// Flags of theirs.
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;
/// `:status 400`, as HPACK has it in its table.
const STATUS_400: u8 = 0x80 | 12;
/// `:status 200`.
const STATUS_200: u8 = 0x80 | 8;

type Stream = TlsStream<TcpStream>;

/// The head of a PUT of a group, with the token or without.
fn put(listening: &Listening, name: &str, token: bool) -> String {
    let authorization = if token {
        format!("authorization: Bearer {}\r\n", listening.stamp.token)
    } else {
        String::new()
    };
    format!(
        "PUT {} HTTP/1.1\r\nhost: h\r\n{authorization}content-type: application/json\r\ncontent-length: {}\r\nexpect: 100-continue\r\n\r\n",
        group(name),
        BODY.len()
    )
}

/// Reads the next bytes of a response and compares them.
async fn says(stream: &mut Stream, words: &str) {
    let mut said = vec![0; words.len()];
    stream.read_exact(&mut said).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&said), words);
}

fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags, 0, 0, 0, stream];
    frame.extend_from_slice(payload);
    frame
}

/// The next frame: its kind and its payload.
async fn next_frame(stream: &mut Stream) -> (u8, Vec<u8>) {
    let mut head = [0; 9];
    stream.read_exact(&mut head).await.unwrap();
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; usize::try_from(length).unwrap()];
    stream.read_exact(&mut payload).await.unwrap();
    (head[3], payload)
}

/// The payload of the next frame of a kind; frames of other kinds before it are skipped.
async fn frame_of(stream: &mut Stream, kind: u8) -> Vec<u8> {
    loop {
        let (found, payload) = next_frame(stream).await;
        if found == kind {
            return payload;
        }
    }
}

/// A string as HPACK writes it, without compression.
fn word(block: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(length) if length < 127 => block.push(length),
        _ => {
            block.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                block.push(u8::try_from(rest % 128).unwrap() | 128);
                rest /= 128;
            }
            block.push(u8::try_from(rest).unwrap());
        }
    }
    block.extend_from_slice(text.as_bytes());
}

/// The bytes of an HTTP/2 client that request a path on stream 1.
fn asked(listening: &Listening, method: &str, path: &str, flags: u8) -> Vec<u8> {
    let authorization = format!("Bearer {}", listening.stamp.token);
    let mut block = Vec::new();
    for (name, value) in [
        (":method", method),
        (":scheme", "https"),
        (":authority", "localhost"),
        (":path", path),
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
    ] {
        // A field that no table is to keep, with its name.
        block.push(0);
        word(&mut block, name);
        word(&mut block, value);
    }
    [PREFACE, &frame(HEADERS, END_HEADERS | flags, 1, &block)[..]].concat()
}

/// A group whose response is [`LARGE`].
async fn large_group(listening: &Listening) {
    let record = GroupRecord {
        v: 1,
        subscription: SUBSCRIPTION.to_owned(),
        name: "large".to_owned(),
        location: "local".to_owned(),
        // Larger than any request could make them.
        tags: BTreeMap::from([("a".to_owned(), "x".repeat(LARGE))]),
        managed_by: None,
        deleting: false,
        created_at: listening.stamp.env.clock.now(),
    };
    let txn = Txn::default().with(put_record(key::group(SUBSCRIPTION, "large"), &record));
    listening.stamp.store.txn(txn).await.unwrap();
}

#[tokio::test]
async fn who_waits_with_a_body_until_it_is_wanted_is_told_to_go_on() {
    let listening = Listening::new().await;
    let mut stream = listening.connect("http/1.1").await;
    let head = put(&listening, "g", true);
    stream.write_all(head.as_bytes()).await.unwrap();
    says(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    stream.write_all(BODY.as_bytes()).await.unwrap();
    says(&mut stream, "HTTP/1.1 201").await;
    // A caller without permission does not have to send the body before it is refused.
    let mut stranger = listening.connect("http/1.1").await;
    let head = put(&listening, "g", false);
    stranger.write_all(head.as_bytes()).await.unwrap();
    says(&mut stranger, "HTTP/1.1 401").await;
}

#[tokio::test]
async fn a_body_that_comes_in_drops_is_not_waited_for() {
    let listening = Listening::new().await;
    let clock = &listening.stamp.env.clock;
    let mut stream = listening.connect("http/1.1").await;
    let head = put(&listening, "g", true);
    stream.write_all(head.as_bytes()).await.unwrap();
    // From here on the body is read.
    says(&mut stream, "HTTP/1.1 100 Continue\r\n\r\n").await;
    tokio::time::pause();
    for part in ["{", "\"", "l"] {
        stream.write_all(part.as_bytes()).await.unwrap();
        clock.sleep(Duration::from_secs(9)).await;
    }
    // The time limit of thirty seconds is for the whole body: further parts do not restart it.
    let mut rest = Vec::new();
    let ended = clock.timeout(Duration::from_secs(20), says(&mut stream, "HTTP/1.1 400"));
    assert!(ended.await.is_ok(), "it is still waited for");
    let ended = clock.timeout(Duration::from_secs(200), stream.read_to_end(&mut rest));
    assert!(ended.await.is_ok(), "the connection is still there");
    let rest = String::from_utf8_lossy(&rest);
    assert!(rest.contains("did not arrive within 30 s"), "{rest}");
    assert!(!listening.stamp.has_group("g").await);
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for_on_http_2_either() {
    let listening = Listening::new().await;
    let clock = &listening.stamp.env.clock;
    let mut stream = listening.connect("h2").await;
    let said = [
        asked(&listening, "PUT", &group("g"), 0),
        frame(DATA, 0, 1, b"{"),
        // The answer to this ping comes after all earlier bytes were read.
        frame(PING, 0, 0, b"got that"),
    ]
    .concat();
    stream.write_all(&said).await.unwrap();
    assert_eq!(frame_of(&mut stream, PING).await, b"got that");
    tokio::time::pause();
    let answer = clock.timeout(Duration::from_secs(45), frame_of(&mut stream, HEADERS));
    let answer = answer.await.expect("it is still waited for");
    assert_eq!(answer[0], STATUS_400);
    assert!(!listening.stamp.has_group("g").await);
}

#[tokio::test]
async fn an_answer_that_nobody_reads_is_given_up() {
    let listening = Listening::new().await;
    large_group(&listening).await;
    let clock = &listening.stamp.env.clock;
    let mut stream = listening.connect("http/1.1").await;
    let head = format!(
        "GET {} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer {}\r\n\r\n",
        group("large"),
        listening.stamp.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    says(&mut stream, "HTTP/1.1 200").await;
    tokio::time::pause();
    clock.sleep(Duration::from_secs(200)).await;
    // Bytes on the wire take real time.
    tokio::time::resume();
    let mut rest = Vec::new();
    let _reset_or_end = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < LARGE, "all of it came, {} bytes", rest.len());
}

#[tokio::test]
async fn an_answer_that_nobody_makes_room_for_is_given_up_on_http_2() {
    let listening = Listening::new().await;
    large_group(&listening).await;
    let clock = &listening.stamp.env.clock;
    let mut stream = listening.connect("h2").await;
    let said = asked(&listening, "GET", &group("large"), END_STREAM);
    stream.write_all(&said).await.unwrap();
    let answer = frame_of(&mut stream, HEADERS).await;
    assert_eq!(answer[0], STATUS_200);
    tokio::time::pause();
    clock.sleep(Duration::from_secs(200)).await;
    // The first window of it is on the wire, with the end behind it; bytes on the wire take real time.
    tokio::time::resume();
    let mut rest = Vec::new();
    let ended = clock.timeout(Duration::from_secs(30), stream.read_to_end(&mut rest));
    assert!(ended.await.is_ok(), "the connection is still there");
}
