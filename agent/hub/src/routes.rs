//! The routes for agents.
//!
//! Always true: except for enrolment, a machine is admitted before the request's body is read; every body has
//! a limit of size and time, those of images in `registry`.

use std::time::Duration;

use agent_protocol::{EnrollAnswer, EnrollRequest, Report, ReportAnswer};
use agent_sessions::{Admitted, ConfigAnswer};
use axum::{
    Extension, Json, Router,
    body::to_bytes,
    extract::{DefaultBodyLimit, Path, Query, Request, State},
    http::StatusCode,
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{any, get, post},
};
use serde::Deserialize;

use crate::{
    Hub,
    authority::SigningRequest,
    backup,
    caller::{admitted, fault, refuse, refused},
    images, pulls, reviews, tokens,
};

/// The body limit of an enrolment, which any peer may send: a name, a token and a signing request.
const ENROLL_LIMIT: usize = 8 * 1024;
const REPORT_LIMIT: usize = 1024 * 1024;
/// The body limit of a review, which lists all groups of the user.
const REVIEW_LIMIT: usize = 256 * 1024;
const LOG_LIMIT: usize = 16 * 1024 * 1024;
/// The time-out of an enrolment, a report or a log: agents use the same.
const WHOLE: Duration = Duration::from_secs(30);

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
            .route(
                "/agent/v1/access-review",
                post(reviews::review)
                    .layer(DefaultBodyLimit::max(REVIEW_LIMIT))
                    .layer(timely.clone()),
            )
            .route("/agent/v1/images/{name}/{tag}", get(images::get))
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
                .layer(timely.clone()),
        );
        // Bodies are bounded by their own limits: a layer may be large and take long.
        let of_registries = Router::new()
            .route("/v2", any(pulls::answer))
            .route("/v2/", any(pulls::answer))
            .route("/v2/{*path}", any(pulls::answer))
            .route("/oauth2/{*path}", any(pulls::answer))
            .layer(DefaultBodyLimit::disable());
        let of_programs = Router::new().fallback(tokens::answer).layer(timely);
        of_machines
            .merge(of_strangers)
            .merge(of_registries)
            .merge(of_programs)
            .with_state(self.clone())
    }
}

/// Answers a request that is incomplete after the time-out, and ends its connection.
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
    let claim = inner.sessions.claim(&machine, &request.token).await;
    let claim = claim.map_err(|refusal| refused(&machine, &refusal))?;
    let csr = SigningRequest::parse(&request.csr)
        .map_err(|_| refuse(StatusCode::BAD_REQUEST, "the signing request cannot be read"))?;
    let bound = inner.sessions.bind(&claim, &csr.key_hash()).await;
    bound.map_err(|refusal| refused(&machine, &refusal))?;
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
    Extension(machine): Extension<Admitted>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let Wanted { after, wait, level } = wanted;
    match hub.inner.sessions.config(&machine, after, level, wait).await {
        ConfigAnswer::Newer(config) => Json(&*config).into_response(),
        ConfigAnswer::Report => (StatusCode::NO_CONTENT, [("landfall-report", "now")]).into_response(),
        ConfigAnswer::Nothing => StatusCode::NO_CONTENT.into_response(),
    }
}

async fn report(
    State(hub): State<Hub>,
    Extension(machine): Extension<Admitted>,
    Json(report): Json<Report>,
) -> Json<ReportAnswer> {
    Json(hub.inner.sessions.take_report(&machine, report))
}

/// The answer to a request for a log. A log that was not requested is not read.
async fn logs(
    State(hub): State<Hub>,
    Extension(machine): Extension<Admitted>,
    Path(request): Path<String>,
    body: axum::body::Body,
) -> Result<StatusCode, Response> {
    let asker = hub
        .inner
        .sessions
        .log_asker(&machine, &request)
        .ok_or_else(|| refuse(StatusCode::NOT_FOUND, "this log was not requested"))?;
    let bytes = to_bytes(body, LOG_LIMIT)
        .await
        .map_err(|_| refuse(StatusCode::PAYLOAD_TOO_LARGE, "the log is too long or broke off"))?;
    asker.answer(&bytes);
    Ok(StatusCode::NO_CONTENT)
}
