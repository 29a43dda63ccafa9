//! gRPC over HTTP/2 on a unix socket, unary calls only.
//!
//! Always true: each call is answered with a status; a call may block without delaying others; a call that
//! was started is completed, also when its client has gone.

use std::{fmt, io, sync::Arc};

use bytes::Bytes;
use h2::{
    RecvStream,
    server::{Builder, SendResponse},
};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use prost::Message;
use tokio::net::{UnixListener, UnixStream};

/// Concurrent calls of a connection.
const STREAMS: u32 = 64;
/// No CSI message is longer than this.
const LARGEST: usize = 1 << 20;
/// The header of each message: a compression flag and the length.
const HEAD: usize = 5;
/// The longest status message.
const LONGEST: usize = 4096;

/// gRPC status codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    Cancelled = 1,
    InvalidArgument = 3,
    NotFound = 5,
    AlreadyExists = 6,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
}

/// The status of a failed call: code and message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Status {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// A failure on the machine.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(Code::Internal, message)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

/// A handler of calls.
pub(crate) trait Service: Send + Sync + 'static {
    /// Handles a call of this method (`/package.Service/Method`) with this message. It may block.
    fn call(&self, method: &str, message: &[u8]) -> Result<Vec<u8>, Status>;
}

/// Decodes a request, calls the handler and encodes its response.
pub(crate) fn answered<Q: Message + Default, A: Message>(
    message: &[u8],
    answer: impl FnOnce(Q) -> Result<A, Status>,
) -> Result<Vec<u8>, Status> {
    let request = Q::decode(message).map_err(|error| {
        Status::new(
            Code::InvalidArgument,
            format!("the request cannot be read: {error}"),
        )
    })?;
    answer(request).map(|answer| answer.encode_to_vec())
}

/// Serves until the listener fails; returns the error.
pub(crate) async fn serve(listener: UnixListener, service: Arc<dyn Service>) -> io::Error {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => drop(tokio::spawn(connection(stream, Arc::clone(&service)))),
            Err(error) => return error,
        }
    }
}

async fn connection(stream: UnixStream, service: Arc<dyn Service>) {
    let mut settings = Builder::new();
    settings.max_concurrent_streams(STREAMS);
    // The agent's probe connects and sends nothing.
    let Ok(mut connection) = settings.handshake::<_, Bytes>(stream).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        drop(tokio::spawn(answer(request, respond, Arc::clone(&service))));
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, service: Arc<dyn Service>) {
    let (head, body) = request.into_parts();
    let kind = head.headers.get(CONTENT_TYPE);
    let is_grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if head.method != Method::POST || !is_grpc {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        let _gone = respond.send_response(response, true);
        return;
    }
    let outcome = match read(body).await {
        Ok(message) => {
            let method = head.uri.path().to_owned();
            let called = tokio::task::spawn_blocking(move || service.call(&method, &message)).await;
            called.unwrap_or_else(|error| Err(Status::internal(format!("the call did not end: {error}"))))
        }
        Err(status) => Err(status),
    };
    // The client may have gone meanwhile.
    let _gone = send(&mut respond, outcome);
}

/// Reads the message of a call.
async fn read(mut body: RecvStream) -> Result<Vec<u8>, Status> {
    let cut = |error: h2::Error| Status::new(Code::Cancelled, format!("the request was cut off: {error}"));
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(cut)?;
        if bytes.len() + piece.len() > HEAD + LARGEST {
            let message = format!("the request has more than {LARGEST} bytes");
            return Err(Status::new(Code::ResourceExhausted, message));
        }
        bytes.extend_from_slice(&piece);
        body.flow_control().release_capacity(piece.len()).map_err(cut)?;
    }
    unframed(&bytes)
}

fn unframed(bytes: &[u8]) -> Result<Vec<u8>, Status> {
    let Some((&[compressed, length @ ..], message)) = bytes.split_first_chunk::<HEAD>() else {
        return Err(Status::internal("the request ends before its message"));
    };
    if compressed != 0 {
        return Err(Status::new(
            Code::Unimplemented,
            "compressed messages are not taken",
        ));
    }
    if usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err(Status::internal(
            "the request holds more or less than one message",
        ));
    }
    Ok(message.to_vec())
}

/// A message with its header, as sent on the wire.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("messages are far shorter than 4 GiB");
    let mut bytes = Vec::with_capacity(HEAD + message.len());
    bytes.push(0);
    bytes.extend(length.to_be_bytes());
    bytes.extend_from_slice(message);
    bytes.into()
}

fn send(respond: &mut SendResponse<Bytes>, outcome: Result<Vec<u8>, Status>) -> Result<(), h2::Error> {
    let mut response = Response::new(());
    let kind = HeaderValue::from_static("application/grpc");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    match outcome {
        Ok(message) => {
            let mut stream = respond.send_response(response, false)?;
            stream.send_data(framed(&message), false)?;
            stream.send_trailers(trailers(0, ""))
        }
        Err(status) => {
            let trailers = trailers(status.code as u32, &status.message);
            response.headers_mut().extend(trailers);
            respond.send_response(response, true).map(drop)
        }
    }
}

fn trailers(code: u32, message: &str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from(code));
    if !message.is_empty() {
        let value = HeaderValue::from_str(&encoded(message)).expect("what is encoded is printable ASCII");
        trailers.insert("grpc-message", value);
    }
    trailers
}

/// The gRPC encoding of status messages in a header: bytes outside printable ASCII, and the percent sign, as
/// hexadecimal digits.
fn encoded(message: &str) -> String {
    let mut text = String::with_capacity(message.len());
    for byte in message.bytes().take(LONGEST) {
        match byte {
            b' '..=b'~' if byte != b'%' => text.push(char::from(byte)),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_a_head_and_nothing_after_it() {
        for message in [&b""[..], b"volume"] {
            assert_eq!(unframed(&framed(message)).unwrap(), message);
        }
        for (bytes, code) in [
            (&b""[..], Code::Internal),
            (b"\0\0\0\0", Code::Internal),
            (b"\0\0\0\0\x02a", Code::Internal),
            (b"\0\0\0\0\x01ab", Code::Internal),
            (b"\x01\0\0\0\x01a", Code::Unimplemented),
        ] {
            assert_eq!(unframed(bytes).unwrap_err().code, code, "{bytes:?}");
        }
    }

    #[test]
    fn a_status_says_in_a_header_what_it_says() {
        assert_eq!(encoded("100 % of \"é\"\n"), "100 %25 of \"%C3%A9\"%0A");
        let trailers = trailers(Code::NotFound as u32, "no volume");
        assert_eq!(trailers["grpc-status"], "5");
        assert_eq!(trailers["grpc-message"], "no volume");
    }
}
