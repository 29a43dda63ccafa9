//! One connection: its protocol, its activity, and its idle time-out.
//!
//! Always true: each wait for the client has a bound, with HTTP/1.1 and HTTP/2: for the first request's head,
//! for the next request, for the reading of a response. No such bound runs while a request is being
//! processed, or a body is sent that is as long as a blob of an image: TCP ends it when nobody reads.

use std::{
    convert::Infallible,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body;
use base_connections::Place;
use base_env::Clock;
use bytes::Bytes;
use http::{HeaderValue, header};
use hyper::{
    body::{Frame, Incoming, SizeHint},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use registry::Streams;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::watch,
};

use crate::{Edge, handle::Peer};

/// Time limit for the head of the first request.
const FIRST_HEAD: Duration = Duration::from_secs(10);
/// How long a connection is kept between two requests; also the time limit for a request's head and for the
/// reading of a response.
const IDLE: Duration = Duration::from_secs(60);
/// Time that a running request still has when its connection is to end.
const FAREWELL: Duration = Duration::from_secs(10);
/// The head of a request has at most this size; hyper answers 431 otherwise.
const HEAD_BYTES: usize = 64 * 1024;
/// Requests of one HTTP/2 connection at the same time. Each may hold a body in memory.
const STREAMS: u32 = 32;
/// Browsers and clients that support HSTS use only TLS for a year.
const HSTS: HeaderValue = HeaderValue::from_static("max-age=31536000; includeSubDomains");

/// The activity of a connection. Written by its requests, read only when the time-out may have passed: a
/// request wakes no task.
#[derive(Debug)]
struct Activity {
    /// Whether there was a request at all.
    begun: AtomicBool,
    /// Requests that are being answered.
    running: AtomicUsize,
    /// When the last one was answered, milliseconds of the monotonic clock; before the first, when the connection was made.
    idle_since: AtomicU64,
}

/// A request that is being answered.
struct Running {
    clock: Arc<dyn Clock>,
    activity: Arc<Activity>,
}

impl Running {
    fn begin(clock: &Arc<dyn Clock>, activity: &Arc<Activity>) -> Self {
        activity.begun.store(true, Ordering::Relaxed);
        activity.running.fetch_add(1, Ordering::AcqRel);
        Self {
            clock: Arc::clone(clock),
            activity: Arc::clone(activity),
        }
    }
}

/// A body that is being sent, as long as its client reads it: the connection is in use until then.
struct Sent {
    body: Body,
    _running: Running,
}

impl hyper::body::Body for Sent {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let now = millis(self.clock.monotonic());
        self.activity.idle_since.store(now, Ordering::Release);
        self.activity.running.fetch_sub(1, Ordering::AcqRel);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Activity {
    fn new(clock: &dyn Clock) -> Self {
        Self {
            begun: AtomicBool::new(false),
            running: AtomicUsize::new(0),
            idle_since: AtomicU64::new(millis(clock.monotonic())),
        }
    }

    /// How long it may still be idle; `None` when that time is over.
    fn left(&self, now: Duration) -> Option<Duration> {
        let bound = if self.begun.load(Ordering::Relaxed) {
            IDLE
        } else {
            FIRST_HEAD
        };
        // While a request is being processed no bound runs; it begins after that.
        if self.running.load(Ordering::Acquire) > 0 {
            return Some(bound);
        }
        let idle = millis(now).saturating_sub(self.idle_since.load(Ordering::Acquire));
        bound
            .checked_sub(Duration::from_millis(idle))
            .filter(|left| !left.is_zero())
    }
}

/// Ends when the connection has been idle for too long.
async fn overdue(clock: &dyn Clock, activity: &Activity) {
    while let Some(left) = activity.left(clock.monotonic()) {
        clock.sleep(left).await;
    }
}

/// The supported protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// HTTP/1.1, also without TLS.
    Http1,
    /// HTTP/2, over TLS only.
    Http2,
}

/// The source of a connection, and its place among the others.
pub(crate) struct Caller {
    pub(crate) peer: SocketAddr,
    pub(crate) place: Arc<Place>,
    /// Whether it is encrypted.
    pub(crate) tls: bool,
}

impl Edge {
    /// Serves the requests of a connection until the client, the server or the end of the service closes it.
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
        let activity = Arc::new(Activity::new(clock));
        let seen = Arc::clone(&activity);
        let service = service_fn(|request: hyper::Request<Incoming>| {
            let (edge, activity) = (self.clone(), Arc::clone(&activity));
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Peer(caller.peer.ip()));
            request.extensions_mut().insert(Arc::clone(&caller.place));
            let tls = caller.tls;
            async move {
                let running = Running::begin(&edge.inner.env.clock, &activity);
                let mut answer = edge.handle(request).await;
                if answer.extensions().get::<Streams>().is_some() {
                    answer = answer.map(|body| {
                        Body::new(Sent {
                            body,
                            _running: running,
                        })
                    });
                }
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
                () = overdue(clock, &seen) => {}
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

#[cfg(test)]
mod tests {
    use base_env::Env;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_overdue_when_it_does_nothing_and_never_while_it_is_answered() {
        let env = Env::simulated(1);
        let clock = &*env.clock;
        let since = |begun: Duration| clock.monotonic().saturating_sub(begun);

        let silent = Activity::new(clock);
        overdue(clock, &silent).await;
        assert_eq!(since(Duration::ZERO), FIRST_HEAD);

        let begun = clock.monotonic();
        let asked = Arc::new(Activity::new(clock));
        let answering = async {
            clock.sleep(Duration::from_secs(5)).await;
            let running = Running::begin(&env.clock, &asked);
            let other = Running::begin(&env.clock, &asked);
            clock.sleep(Duration::from_secs(100)).await;
            drop(other);
            clock.sleep(Duration::from_secs(100)).await;
            drop(running);
        };
        tokio::join!(answering, overdue(clock, &asked));
        assert_eq!(since(begun), Duration::from_secs(205) + IDLE);
    }
}
