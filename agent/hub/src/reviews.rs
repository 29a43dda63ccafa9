//! Access reviews: a cluster's API servers ask for the decision by role assignments, with the certificates of
//! their machines.
//!
//! Always true: a machine asks about its own cluster, whatever it sends; an answer permits or has no opinion,
//! and never denies: the cluster's own roles count as well.

use std::sync::Arc;

use agent_api::{AccessReviews, ReviewSpec};
use agent_sessions::Admitted;
use axum::{
    Extension, Json,
    extract::State,
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use serde::{Deserialize, Serialize};

use crate::{
    Hub,
    caller::{fault, refuse},
};

/// `SubjectAccessReview`, with only the needed fields.
#[derive(Debug, Deserialize)]
pub(crate) struct Review {
    #[serde(default)]
    spec: ReviewSpec,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    api_version: &'static str,
    kind: &'static str,
    status: Status,
}

#[derive(Serialize)]
struct Status {
    allowed: bool,
    reason: &'static str,
}

pub(crate) async fn review(
    State(hub): State<Hub>,
    Extension(machine): Extension<Admitted>,
    Json(review): Json<Review>,
) -> Result<Response, Response> {
    let machine = machine.machine();
    let reviews: Arc<dyn AccessReviews> = hub.inner.reviews.get().map(Arc::clone).ok_or_else(|| {
        refuse(
            StatusCode::NOT_FOUND,
            "this stamp does not decide about role assignments",
        )
    })?;
    let allowed = reviews
        .permits(machine, &review.spec)
        .await
        .map_err(|error| fault(machine, &error))?;
    let answer = Answer {
        api_version: "authorization.k8s.io/v1",
        kind: "SubjectAccessReview",
        status: Status {
            allowed,
            reason: if allowed {
                "a role assignment of the stamp permits it"
            } else {
                "no role assignment of the stamp permits it"
            },
        },
    };
    Ok(Json(answer).into_response())
}
