//! One connection: its protocol, what it is doing, and when it has done nothing for too long.
//!
//! Always true: nothing that a client does not do is waited for without a bound, be it HTTP/1.1 or HTTP/2: the first request's head, the
//! next request, the reading of an answer. No such bound runs while a request is being answered.

use std::{convert::Infallible, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::body::Body;
use base_connections::Place;
use base_env::Clock;
use http::{HeaderValue, header};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use crate::{Edge, handle::Peer};

/// The head of the first request has to have arrived after this.
const FIRST_HEAD: Duration = Duration::from_secs(10);
/// How long a connection is kept from one request to the next; also how long a head, or the reading of an answer, may take.
const IDLE: Duration = Duration::from_secs(60);
/// What is being answered when a connection is to end may still take so long.
const FAREWELL: Duration = Duration::from_secs(10);
/// The head of a request has at most this size; hyper answers 431 otherwise.
const HEAD_BYTES: usize = 64 * 1024;
/// Requests of one HTTP/2 connection at the same time. Each may hold a body in memory.
const STREAMS: u32 = 32;
/// Browsers and clients that know it do not come without TLS again for a year.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000; includeSubDomains");

/// What a connection has been asked.
#[derive(Debug, Clone, Copy, Default)]
struct Activity {
    /// Whether there was a request at all.
    begun: bool,
    /// Requests that are being answered.
    running: usize,
}

/// A request that is being answered.
struct Running<'a>(&'a watch::Sender<Activity>);

impl<'a> Running<'a> {
    fn begin(activity: &'a watch::Sender<Activity>) -> Self {
        activity.send_modify(|activity| {
            activity.begun = true;
            activity.running += 1;
        });
        Self(activity)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|activity| activity.running -= 1);
    }
}

/// Ends when the connection has done nothing for too long.
async fn overdue(clock: &dyn Clock, mut activity: watch::Receiver<Activity>) {
    loop {
        let present = *activity.borrow_and_update();
        let wait = match present {
            Activity { running: 1.., .. } => None,
            Activity { begun: false, .. } => Some(FIRST_HEAD),
            Activity { begun: true, .. } => Some(IDLE),
        };
        let elapsed = async {
            match wait {
                Some(wait) => clock.sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // The sender lives as long as the connection, which ends this future with it.
            _ = activity.changed() => {}
            () = elapsed => return,
        }
    }
}

/// The protocols that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, also without TLS.
    Http1,
    /// HTTP/2, over TLS only.
    Http2,
}

/// Where a connection comes from, and its place among the others.
pub(crate) struct Caller {
    pub(crate) peer: SocketAddr,
    pub(crate) place: Arc<Place>,
    /// Whether it is encrypted.
    pub(crate) tls: bool,
}

impl Edge {
    /// Answers the requests of a connection until one of both ends it, or the service does.
    pub(crate) async fn http<S>(
        &self,
        stream: S,
        protocol: Protocol,
        caller: &Caller,
        mut ended: watch::Receiver<bool>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let clock = &*self.inner.env.clock;
        let (activity, seen) = watch::channel(Activity::default());
        let activity = Arc::new(activity);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let (edge, activity) = (self.clone(), Arc::clone(&activity));
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(caller.peer.ip()));
            request.extensions_mut().insert(Arc::clone(&caller.place));
            let tls = caller.tls;
            async move {
                let _running = Running::begin(&activity);
                let mut answer = edge.handle(request).await;
                if tls {
                    answer
                        .headers_mut()
                        .insert(header::STRICT_TRANSPORT_SECURITY, HSTS);
                }
                Ok::<_, Infallible>(answer)
            }
        });
        let ends = async {
            tokio::select! {
                () = overdue(clock, seen) => {}
                // An error means that the sender is gone, which is an end as well.
                _ = ended.wait_for(|ended| *ended) => {}
            }
        };
        let io = TokioIo::new(stream);
        macro_rules! serve {
            ($connection:expr) => {{
                let mut connection = pin!($connection);
                tokio::select! {
                    result = connection.as_mut() => result,
                    () = ends => {
                        connection.as_mut().graceful_shutdown();
                        clock.timeout(FAREWELL, connection).await.unwrap_or(Ok(()))
                    }
                }
            }};
        }
        let result = match protocol {
            Protocol::Http1 => serve!(
                http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(IDLE)
                    .max_buf_size(HEAD_BYTES)
                    .serve_connection(io, service)
            ),
            Protocol::Http2 => serve!(
                http2::Builder::new(TokioExecutor::new())
                    .timer(TokioTimer::new())
                    .keep_alive_interval(IDLE)
                    .max_concurrent_streams(STREAMS)
                    .max_header_list_size(HEAD_BYTES as u32)
                    .serve_connection(io, service)
            ),
        };
        if let Err(error) = result {
            tracing::debug!(peer = %caller.peer, %error, "a connection ended early");
        }
    }
}
