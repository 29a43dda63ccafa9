//! One request from beginning to end: only this module defines the order of checks.

use std::{borrow::Cow, net::IpAddr, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use arm_ids::ResourcePath;
use arm_kernel::{Activity, Call, Verb, operations, scope_of};
use arm_wire::{ArmError, Detail, ErrorCode, Principal, Request, Trace};
use axum::body::{Body, HttpBody as _};
use base_connections::Place;
use base_env::Elapsed;
use control_records::{GroupRecord, SubscriptionRecord, SubscriptionState, key};
use control_store::{get_record, parse_record};
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use identity::{Caller, TokenError};
use registry::Registries;
use serde_json::json;

use crate::{
    Edge, Inner,
    answer::{self, Answer, Failure, Told},
    body,
    budgets::Remaining,
    compress, graph,
    measures::{self, Answered},
    metadata, published, query,
    tally::Client,
    written::Written,
};

/// The address of the other end, put into the request by the listener.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// ARM promises an answer within a minute.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest of the fixed paths ([`Edge::plain`]), with all its slashes doubled.
const LONGEST_KNOWN: usize = "//metadata//endpoints".len();
/// The only action, not one of Azure's, that is permitted in a disabled subscription as well: revoking a
/// kubeconfig, which is a deletion in all but its method.
const TAKES_BACK: Verb = Verb::Action("revoke");
/// Forms of the token service are small.
const MAX_FORM_BYTES: usize = 64 * 1024;

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-ms-request-id");
pub(crate) const CORRELATION_ID: HeaderName = HeaderName::from_static("x-ms-correlation-request-id");
const CLIENT_ID: HeaderName = HeaderName::from_static("x-ms-client-request-id");
const RETURN_CLIENT_ID: HeaderName = HeaderName::from_static("x-ms-return-client-request-id");

impl Edge {
    /// Processes one request.
    pub(crate) async fn handle(&self, request: http::Request<Body>) -> http::Response<Body> {
        if Registries::serves(request.uri().path()) {
            return self.images(request).await;
        }
        let env = &self.inner.env;
        let started = env.clock.monotonic();
        let _in_flight = self.inner.measures.in_flight().enter();
        let request_id = env.ids.uuid().to_string();
        let (parts, body) = request.into_parts();
        let text = |name: &HeaderName| {
            parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .filter(|value| query::plain_id(value))
        };
        let client_id = text(&CLIENT_ID).map(ToOwned::to_owned);
        let correlation = text(&CORRELATION_ID).unwrap_or(&request_id).to_owned();
        let returns = parts
            .headers
            .get(&RETURN_CLIENT_ID)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"));
        let caller = self.inner.caller(&parts);
        let method = parts.method.clone();
        let client = Client::of(&parts.headers);
        let takes_gzip = method != Method::HEAD && compress::wanted(&parts.headers);
        let received = body::declared(&parts.headers);
        // The path as sent: ASCII without control characters. Query and body are never logged: they may hold
        // secrets.
        let path = parts.uri.path().to_owned();

        let mut seen = Seen::default();
        let address = caller.address;
        let trace = Trace::new(&request_id, &correlation, address, method.clone());
        let mut group = measures::REFUSED;
        let (mut answer, code) = match self.plain(parts, body, &caller).await {
            Handled::Done(answer) => {
                group = measures::PUBLIC;
                (answer, "")
            }
            Handled::Arm(parts, body) if graph::segments(parts.uri.path()).is_some() => {
                group = measures::GRAPH;
                let Seen {
                    principal, written, ..
                } = &mut seen;
                self.graph(parts, body, caller, trace.clone(), principal, written)
                    .await
            }
            Handled::Arm(parts, body) => {
                match self.arm(parts, body, caller, trace.clone(), &mut seen).await {
                    Ok(Answer::Kept(text)) => (answer::text_to_http(&text, takes_gzip), ""),
                    Ok(Answer::Made(response)) => (answer::to_http(&method, &Ok(response)), ""),
                    Err(failure) => {
                        if let Some(cause) = &failure.error.internal {
                            tracing::error!(request_id, cause, "a request failed inside");
                        }
                        let code = failure.error.code.code;
                        (answer::to_http(&method, &Err(failure)), code)
                    }
                }
            }
        };
        if let Some(operation) = seen.operation {
            group = operation.0;
            self.inner.tally.note(operation, client, answer.status());
        } else if seen.poll {
            group = measures::OPERATIONS;
        }
        if let Some(remaining) = seen.remaining {
            remaining.write(answer.headers_mut());
        }
        answer::insert(&mut answer, Some(REQUEST_ID), &request_id);
        answer::insert(&mut answer, Some(CORRELATION_ID), &correlation);
        if let Some(client_id) = client_id.as_deref().filter(|_| returns) {
            answer::insert(&mut answer, Some(CLIENT_ID), client_id);
        }
        // Clients poll every second, which is not worth a log line.
        let poll = seen.poll && method == Method::GET && answer.status().is_success();
        let Seen {
            principal, written, ..
        } = seen;
        if let (Some(principal), Some(written)) = (&principal, written) {
            let activity = Activity {
                at: env.clock.now(),
                principal: principal.clone(),
                address,
                action: written.action,
                method: method.as_str().to_owned(),
                scope: written.scope,
                subscription: written.subscription,
                status: answer.status().as_u16(),
                code,
                correlation_id: correlation.clone(),
                request_id: request_id.clone(),
                logged: trace.is_logged(),
            };
            self.inner.access.activity.record(activity).await;
        }
        let told = match answer.status() {
            // A request without a valid principal: the network is the only limit to their number.
            StatusCode::UNAUTHORIZED if principal.is_none() => {
                self.inner.strangers.note(env.clock.monotonic())
            }
            // Beyond a budget: only the speed of the client limits their number.
            StatusCode::TOO_MANY_REQUESTS if seen.remaining.is_some() => {
                self.inner.hasty.note(env.clock.monotonic())
            }
            _ => Some(0),
        };
        macro_rules! log_request {
            ($level:ident) => {
                tracing::$level!(
                    method = method.as_str(),
                    path,
                    status = answer.status().as_u16(),
                    code,
                    ms = u64::try_from((env.clock.monotonic() - started).as_millis()).unwrap_or(u64::MAX),
                    request_id,
                    client_request_id = client_id.as_deref().unwrap_or(""),
                    address = address.map(tracing::field::display),
                    left_out = told.filter(|left_out| *left_out > 0),
                    principal = principal
                        .as_ref()
                        .map_or("", |principal: &Principal| principal.object_id.as_str()),
                    "request"
                )
            };
        }
        match told {
            None => {}
            Some(_) if poll => log_request!(debug),
            Some(_) => log_request!(info),
        }
        if takes_gzip {
            answer = compress::gzip(answer).await;
        }
        self.inner.measures.note(&Answered {
            group,
            method: &method,
            status: answer.status(),
            received,
            // All bodies are in memory.
            sent: answer.body().size_hint().exact().unwrap_or(0),
            took: env.clock.monotonic().saturating_sub(started),
        });
        answer
    }

    /// Requests without a token: health, the endpoints document, public documents, the token service.
    async fn plain(&self, parts: Parts, body: Body, caller: &Caller) -> Handled {
        let inner = &self.inner;
        let path = parts.uri.path().trim_end_matches('/');
        let collapsed = if path.len() <= LONGEST_KNOWN {
            path.replace("//", "/").to_ascii_lowercase()
        } else {
            String::new()
        };
        let known = match collapsed.as_str() {
            "/healthz" => Some((StatusCode::OK, json!({ "status": "ok" }))),
            "/readyz" => Some(match inner.store.get(key::STAMP).await {
                Ok(_) => (StatusCode::OK, json!({ "status": "ready" })),
                Err(error) => {
                    tracing::error!(%error, "not ready: the store cannot be read");
                    (
                        StatusCode::SERVICE_UNAVAILABLE,
                        json!({ "status": "the store cannot be read" }),
                    )
                }
            }),
            "/metadata/endpoints" => Some((
                StatusCode::OK,
                metadata::document(&inner.config, inner.identity.config(), &caller.base_url),
            )),
            _ => None,
        };
        if let Some((status, document)) = known {
            if !matches!(parts.method, Method::GET | Method::HEAD) {
                let failure = Failure::from(ArmError::new(
                    ErrorCode::METHOD_NOT_ALLOWED,
                    "This method is not allowed here; use GET.",
                ));
                return Handled::Done(answer::to_http(
                    &parts.method,
                    &Err(failure.with(header::ALLOW, "GET")),
                ));
            }
            let mut answer = answer::json(status, Some(&document));
            if parts.method == Method::HEAD {
                *answer.body_mut() = Body::empty();
            }
            return Handled::Done(answer);
        }
        if let Some(documents) = inner.published.get().filter(|documents| documents.serves(path)) {
            return Handled::Done(published::answer(&**documents, &parts.method, path).await);
        }
        if !inner.identity.serves(path) {
            return Handled::Arm(parts, body);
        }
        let is_head = parts.method == Method::HEAD;
        let form = match body::read(&inner.env, body, MAX_FORM_BYTES).await {
            Ok(form) => form,
            Err(error) => return Handled::Done(answer::to_http(&parts.method, &Err(error.into()))),
        };
        // Boxed: otherwise the future of every request, which is moved a few times, would include the space
        // that logging in needs.
        let answer = inner
            .identity
            .answer(http::Request::from_parts(parts, form), caller);
        let answer = Box::pin(answer).await;
        Handled::Done(answer.map(|bytes| if is_head { Body::empty() } else { Body::from(bytes) }))
    }

    /// All other requests belong to ARM.
    async fn arm(&self, parts: Parts, body: Body, caller: Caller, mut trace: Trace, seen: &mut Seen) -> Told {
        let inner = &self.inner;
        let who = inner.authenticate(&parts.headers, &caller).await?;
        seen.principal = Some(who.clone());
        // From here on the connection does not count as an unauthenticated one of its address.
        if let Some(place) = parts.extensions.get::<Arc<Place>>() {
            place.belongs_to(&who.object_id);
        }
        let path = ResourcePath::parse(parts.uri.path());
        let subscription = path.as_ref().ok().and_then(|path| path.subscription.as_deref());
        inner
            .charge(&who, subscription, &parts.method, &mut seen.remaining)
            .await?;

        let bad = |message: &str| ArmError::new(ErrorCode::BAD_REQUEST, message);
        let mut query = query::parse(parts.uri.query().unwrap_or_default())
            .ok_or_else(|| bad("The query is not percent-encoded UTF-8, or has too many parameters."))?;
        let version = query
            .iter()
            .position(|(name, _)| name.eq_ignore_ascii_case("api-version"));
        let version = version
            .map(|at| query.remove(at).1)
            .filter(|version| !version.is_empty())
            .ok_or_else(|| {
                ArmError::new(
                    ErrorCode::MISSING_API_VERSION,
                    "The api-version query parameter (?api-version=) is required for all requests.",
                )
                .target("api-version")
            })?;
        query.retain(|(name, _)| !name.eq_ignore_ascii_case("api-version"));

        let path = path.map_err(|error| bad(&format!("The request path cannot be understood: {error}.")))?;
        let operation = operations::poll_of(&path);
        seen.poll = operation.is_some();
        let target = match operation {
            Some(_) => None,
            None => Some(inner.registry.target(&path)?),
        };
        let versions: Cow<'_, [&'static str]> = match &target {
            Some(target) => target.versions().into(),
            None => inner
                .registry
                .versions(path.namespace.as_deref().unwrap_or_default())?
                .into(),
        };
        let version = versions
            .iter()
            .find(|known| known.eq_ignore_ascii_case(&version))
            .ok_or_else(|| {
                ArmError::new(
                    ErrorCode::INVALID_API_VERSION,
                    format!(
                        "The api-version '{}' is invalid for '{}'. The supported versions are '{}'.",
                        version.chars().take(40).collect::<String>(),
                        path.full_type(),
                        versions.join(",")
                    ),
                )
                .target("api-version")
            })?;
        let not_allowed = |(error, allow)| Failure::from(error).with(header::ALLOW, allow);
        let route = match &target {
            Some(target) => Some(target.route(&parts.method).map_err(not_allowed)?),
            None if parts.method == Method::GET => None,
            None => {
                let error = ArmError::new(
                    ErrorCode::METHOD_NOT_ALLOWED,
                    "This method is not allowed here; use GET.",
                );
                return Err(not_allowed((error, "GET".to_owned())));
            }
        };
        let asked = route.map(|route| (route.permission(&path), scope_of(&path)));
        let called = target.as_ref().zip(route);
        seen.operation = called.map(|(target, route)| (target.provider.namespace(), route.name));
        if let Some((route, (action, scope))) = route.zip(asked.as_ref()) {
            if !matches!(route.verb, Verb::Get | Verb::List | Verb::Exists | Verb::Ask) {
                trace.action.clone_from(action);
                seen.written = Some(Written {
                    action: action.clone(),
                    scope: scope.to_string(),
                    subscription: scope.subscription.clone(),
                });
            }
            inner.access.admit(route.gate, &who, action, scope).await?;
        }
        // For a poll of an operation, the scope is checked after the permission to read it.
        if let Some(target) = &target {
            inner.check_scope(&path, &parts.method, target.is_group()).await?;
        }
        if let Some((target, route)) = target.as_ref().zip(route) {
            let namespace = target.provider.namespace();
            inner.check_subscription(&path, route.verb, namespace).await?;
        }
        // After the checks that the scope exists, before the request has any effect.
        if let Some((action, scope)) = &asked {
            inner.access.check_locks(action, scope).await?;
        }
        let tag = |name: HeaderName| {
            parts
                .headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .map(query::unquote)
                .filter(|tag| !tag.is_empty())
        };
        let works = route.is_none_or(|route| route.works);
        let request = Request {
            body: if works {
                body::json(&inner.env, &parts.method, &parts.headers, body).await?
            } else {
                serde_json::Value::Null
            },
            if_match: tag(header::IF_MATCH),
            if_none_match: tag(header::IF_NONE_MATCH),
            method: parts.method,
            path,
            api_version: (*version).to_owned(),
            query,
            principal: who,
            base_url: caller.base_url,
            trace,
        };
        let call = Call::new(request, inner.access.clone());
        if let Some((target, route)) = target.as_ref().zip(route).filter(|(_, route)| route.told) {
            // Reading has no effect that could be left half-way, so there is no separate task.
            let telling = AssertUnwindSafe(target.provider.tell(route, &call)).catch_unwind();
            match inner.env.clock.timeout(REQUEST_TIMEOUT, telling).await {
                Ok(Ok(Ok(Some(text)))) => return Ok(Answer::Kept(text)),
                // It is made below.
                Ok(Ok(Ok(None))) => {}
                Ok(Ok(Err(error))) => return Err(error.into()),
                Ok(Err(_panic)) => {
                    return Err(ArmError::internal("the handler panicked; the log says where").into());
                }
                Err(elapsed) => return Err(late(elapsed)),
            }
        }
        let answerer = target
            .as_ref()
            .zip(route)
            .map(|(target, route)| (target.provider.clone(), route.clone()));
        let edge = self.clone();
        // A separate task: a client that hangs up does not stop a change half-way, and a panic ends here.
        let task = tokio::spawn(async move {
            match (operation, answerer) {
                (Some(poll), _) => edge.inner.operation(poll, call).await,
                (None, Some((provider, route))) => Ok(provider.handle(&route, &call).await?),
                (None, None) => {
                    Err(ArmError::internal("a path with neither a route nor an operation").into())
                }
            }
        });
        match inner.env.clock.timeout(REQUEST_TIMEOUT, task).await {
            Ok(Ok(outcome)) => outcome.map(Answer::Made),
            Ok(Err(panic)) => Err(ArmError::internal(format_args!("the handler panicked: {panic}")).into()),
            Err(elapsed) => Err(late(elapsed)),
        }
    }
}

fn late(elapsed: Elapsed) -> Failure {
    let mut error = ArmError::new(
        ErrorCode::SERVICE_UNAVAILABLE,
        "The request takes longer than a minute; it goes on. Read the resource to see how it went.",
    );
    error.internal = Some(elapsed.to_string());
    error.into()
}

/// Facts about a request for the logs and counters, beside its response.
#[derive(Default)]
struct Seen {
    principal: Option<Principal>,
    written: Option<Written>,
    /// The operation: namespace and name.
    operation: Option<(&'static str, &'static str)>,
    /// Whether it polls an operation.
    poll: bool,
    /// What is left of its budgets; `None` where it is not counted.
    remaining: Option<Remaining>,
}

/// Whether a request is answered already.
enum Handled {
    Done(http::Response<Body>),
    Arm(Parts, Body),
}

impl Inner {
    pub(crate) fn caller(&self, parts: &Parts) -> Caller {
        let named = parts
            .uri
            .authority()
            .map(http::uri::Authority::as_str)
            .or_else(|| {
                parts
                    .headers
                    .get(header::HOST)
                    .and_then(|host| host.to_str().ok())
            })
            .filter(|host| query::plain_host(host));
        let base = self.config.base_url.trim_end_matches('/');
        Caller {
            base_url: match (named, base.split_once("://")) {
                (Some(host), Some((scheme, _))) => format!("{scheme}://{host}"),
                _ => base.to_owned(),
            },
            address: parts.extensions.get::<Peer>().map(|peer| peer.0),
        }
    }

    async fn authenticate(
        &self,
        headers: &HeaderMap<HeaderValue>,
        caller: &Caller,
    ) -> Result<Principal, Failure> {
        let header = headers
            .get(header::AUTHORIZATION)
            .map(|value| value.to_str().unwrap_or("-"));
        self.identity.authenticate(header).await.map_err(|problem| {
            let code = match &problem {
                TokenError::Missing => ErrorCode::AUTHENTICATION_FAILED,
                TokenError::Expired(_) => ErrorCode::EXPIRED_AUTHENTICATION_TOKEN,
                TokenError::Store(_) => {
                    return ArmError::internal(format_args!("{problem}: {problem:?}")).into();
                }
                _ => ErrorCode::INVALID_AUTHENTICATION_TOKEN,
            };
            Failure::from(ArmError::new(code, format!("Authentication failed: {problem}."))).with(
                header::WWW_AUTHENTICATE,
                self.identity.challenge(&problem, header, caller),
            )
        })
    }

    /// Checks that the subscription is enabled and the provider registered, for requests that make or change
    /// resources.
    ///
    /// Reads and DELETE go on without that. A resource of an unregistered provider can only be there if it
    /// was made at that moment. For a disabled subscription, Azure's documentation of subscription states
    /// says the same: PUT, PATCH and every POST, even one that only reads (`listClusterUserCredential`), are
    /// refused, GET and DELETE go on; so does ARM's contract with resource providers, for `Suspended`.
    async fn check_subscription(
        &self,
        path: &ResourcePath,
        verb: Verb,
        namespace: &str,
    ) -> Result<(), Failure> {
        let (Some(subscription), Verb::Put | Verb::Patch | Verb::Action(_)) = (&path.subscription, verb)
        else {
            return Ok(());
        };
        let found = get_record::<SubscriptionRecord>(&*self.store, &key::subscription(subscription)).await;
        let Some(found) = found.map_err(ArmError::internal)? else {
            return Ok(());
        };
        if found.value.state == SubscriptionState::Disabled && verb != TAKES_BACK {
            // Azure's exact text: clients quote it in their own help, and users search for it.
            return Err(ArmError::new(
                ErrorCode::READ_ONLY_DISABLED_SUBSCRIPTION,
                format!(
                    "The subscription '{subscription}' is disabled and therefore marked as read only. You cannot perform any write actions \
                     on this subscription until it is re-enabled."
                ),
            )
            .into());
        }
        if found.value.uses(namespace) {
            return Ok(());
        }
        // Clients parse the namespace from this text.
        let message = format!(
            "The subscription is not registered to use namespace '{namespace}'. See https://aka.ms/rps-not-found for how to register \
             subscriptions."
        );
        let code = ErrorCode::MISSING_SUBSCRIPTION_REGISTRATION;
        let mut error = ArmError::new(code, message.clone());
        error.details.push(Detail {
            code,
            message,
            target: Some(namespace.to_owned()),
        });
        Err(error.into())
    }

    /// The subscription exists, and the group, unless the request is about the group itself.
    pub(crate) async fn check_scope(
        &self,
        path: &ResourcePath,
        method: &Method,
        is_group: bool,
    ) -> Result<(), Failure> {
        let Some(subscription) = &path.subscription else {
            return Ok(());
        };
        let found = self.store.get(&key::subscription(subscription)).await;
        if found.map_err(ArmError::internal)?.is_none() {
            return Err(ArmError::new(
                ErrorCode::SUBSCRIPTION_NOT_FOUND,
                format!("The subscription '{subscription}' could not be found."),
            )
            .into());
        }
        let Some(group) = path.resource_group.as_ref().filter(|_| !is_group) else {
            return Ok(());
        };
        let key = key::group(subscription, group);
        let found = self.store.get(&key).await.map_err(ArmError::internal)?;
        let makes = *method == Method::PUT;
        let group_of = |found| parse_record::<GroupRecord>(&key, found).map_err(ArmError::internal);
        match &found {
            None => Err(ArmError::new(
                ErrorCode::RESOURCE_GROUP_NOT_FOUND,
                format!("Resource group '{group}' could not be found."),
            )
            .into()),
            Some(found) if makes && group_of(found)?.value.deleting => Err(ArmError::new(
                ErrorCode::RESOURCE_GROUP_BEING_DELETED,
                format!("The resource group '{group}' is being deleted; nothing can be created in it."),
            )
            .into()),
            Some(_) => Ok(()),
        }
    }
}
