//! What agents ask for, and what they are told.
//!
//! Always true: but for enrolment, a machine is admitted before anything of its request's body is read; no body is read without
//! a bound of size and time.

use std::time::Duration;

use agent_protocol::{EnrollAnswer, EnrollRequest, Report, ReportAnswer};
use axum::{
    Extension, Json, Router,
    body::to_bytes,
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{
    Hub,
    authority::SigningRequest,
    backup,
    caller::{Admitted, admitted, fault, refuse},
    text,
};

/// Anybody may send this much: a name, a token and a signing request.
const ENROLL_LIMIT: usize = 8 * 1024;
const REPORT_LIMIT: usize = 1024 * 1024;
const LOG_LIMIT: usize = 16 * 1024 * 1024;
/// An enrolment, a report or a log is sent within this time: agents wait no longer either.
const WHOLE: Duration = Duration::from_secs(30);
/// The longest wait for a configuration that an agent may ask for, seconds.
const LONGEST_WAIT: u64 = 120;

impl Hub {
    pub(crate) fn router(&self) -> Router {
        let timely = from_fn_with_state(self.clone(), timely);
        let of_machines = Router::new()
            .route("/agent/v1/config", get(config))
            .route(
                "/agent/v1/report",
                post(report)
                    .layer(DefaultBodyLimit::max(REPORT_LIMIT))
                    .layer(timely.clone()),
            )
            .route("/agent/v1/logs/{request}", post(logs).layer(timely.clone()))
            .route("/agent/v1/backup/{cluster}", get(backup::list))
            .route(
                "/agent/v1/backup/{cluster}/{object}",
                get(backup::get)
                    .put(backup::put)
                    .layer(DefaultBodyLimit::disable()),
            )
            .route_layer(from_fn_with_state(self.clone(), admitted));
        let of_strangers = Router::new().route(
            "/agent/v1/enroll",
            post(enroll)
                .layer(DefaultBodyLimit::max(ENROLL_LIMIT))
                .layer(timely),
        );
        of_machines.merge(of_strangers).with_state(self.clone())
    }
}

/// A request that is not whole in time is answered, and its connection ends.
async fn timely(State(hub): State<Hub>, request: Request, next: Next) -> Response {
    match hub.inner.env.clock.timeout(WHOLE, next.run(request)).await {
        Ok(answer) => answer,
        Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "the request was not whole in time"),
    }
}

async fn enroll(
    State(hub): State<Hub>,
    Json(request): Json<EnrollRequest>,
) -> Result<Json<EnrollAnswer>, Response> {
    let inner = &hub.inner;
    let machine = request.machine;
    let denied = || refuse(StatusCode::UNAUTHORIZED, "the token does not hold");
    let state = inner
        .directory
        .token(&machine)
        .await
        .map_err(|error| fault(&machine, &error))?
        .ok_or_else(denied)?;
    let hash = hex::encode(Sha256::digest(request.token.as_bytes()));
    let same =
        aws_lc_rs::constant_time::verify_slices_are_equal(hash.as_bytes(), state.token_hash.as_bytes());
    if same.is_err() {
        tracing::warn!(machine, "an enrolment with a wrong token was refused");
        return Err(denied());
    }
    let csr = SigningRequest::parse(&request.csr)
        .map_err(|_| refuse(StatusCode::BAD_REQUEST, "the signing request cannot be read"))?;
    let bound = inner
        .directory
        .bind_key(&machine, &csr.key_hash())
        .await
        .map_err(|error| fault(&machine, &error))?;
    if !bound {
        tracing::warn!(machine, "an enrolment with a used token was refused");
        return Err(denied());
    }
    let certificate = inner
        .ca
        .sign(&csr, &machine, inner.env.clock.now())
        .map_err(|error| fault(&machine, &error))?;
    tracing::debug!(machine, "enrolled");
    Ok(Json(EnrollAnswer { certificate }))
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    after: u64,
    #[serde(default)]
    wait: u64,
    #[serde(default)]
    level: u32,
}

async fn config(
    State(hub): State<Hub>,
    Extension(Admitted(machine)): Extension<Admitted>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let (mut config, mut nudge) = hub.inner.sessions.listen(&machine);
    let wait = Duration::from_secs(wanted.wait.min(LONGEST_WAIT));
    let newer = async {
        let found = config.wait_for(|config| {
            config
                .as_ref()
                .is_some_and(|config| config.generation > wanted.after && config.level <= wanted.level)
        });
        // The sender goes when the machine is forgotten: then there is nothing to say.
        found.await.ok().and_then(|config| config.clone())
    };
    // The agent reports when its wait ends early, and is told of the wish then.
    let nudged = async {
        if !hub.inner.sessions.has_wishes(&machine) {
            let _forgotten = nudge.changed().await;
        }
    };
    let clock = &hub.inner.env.clock;
    let answer = clock
        .timeout(wait, async {
            tokio::select! {
                config = newer => config,
                () = nudged => None,
            }
        })
        .await;
    match answer {
        Ok(Some(config)) => Json(&*config).into_response(),
        Ok(None) if hub.inner.sessions.has_wishes(&machine) => {
            (StatusCode::NO_CONTENT, [("landfall-report", "now")]).into_response()
        }
        _ => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn report(
    State(hub): State<Hub>,
    Extension(Admitted(machine)): Extension<Admitted>,
    Json(report): Json<Report>,
) -> Json<ReportAnswer> {
    let logs = hub.inner.sessions.accept(&machine, text::report(report));
    let agent_sha256 = hub.offered_agent().clone();
    Json(ReportAnswer { logs, agent_sha256 })
}

/// The answer to a request for a log. One that nobody asked for is not read.
async fn logs(
    State(hub): State<Hub>,
    Extension(Admitted(machine)): Extension<Admitted>,
    Path(request): Path<String>,
    body: axum::body::Body,
) -> Result<StatusCode, Response> {
    let asker = hub
        .inner
        .sessions
        .take_log_request(&machine, &request)
        .ok_or_else(|| refuse(StatusCode::NOT_FOUND, "nobody asked for this log"))?;
    let bytes = to_bytes(body, LOG_LIMIT)
        .await
        .map_err(|_| refuse(StatusCode::PAYLOAD_TOO_LARGE, "the log is too long or broke off"))?;
    // The asker may have given up.
    let _gone = asker.send(text::log(&bytes));
    Ok(StatusCode::NO_CONTENT)
}
