//! Requests: one of the API's, made from a route, and then broken in path, query and headers.

mod graph;
mod token;

use std::{collections::BTreeMap, fmt};

use arm_kernel::{Route, Scope, Shape, Verb};
use axum::body::Body;
use http::Request;
use serde_json::Value;

use super::{bodies, dice::Dice};
use crate::SUBSCRIPTION;

/// The number of responses of a type that are kept to be sent back.
const KEPT: usize = 8;

/// One request as it is sent.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) method: String,
    /// Path and query.
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    /// The operation that it was made from.
    pub(super) operation: Option<&'static str>,
    /// The type of the responses, to be sent back.
    kind: String,
}

impl Sent {
    /// The HTTP request; `None` if HTTP does not permit it.
    pub(super) fn request(&self) -> Option<Request<Body>> {
        let mut request = Request::builder()
            .method(self.method.as_bytes())
            .uri(&self.target);
        for (name, value) in &self.headers {
            request = request.header(name.as_str(), value.as_slice());
        }
        request.body(Body::from(self.body.clone())).ok()
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.method, self.target)?;
        for (name, value) in &self.headers {
            // A token is long, and the same each time.
            if name != "authorization" {
                writeln!(f, "{name}: {}", String::from_utf8_lossy(value).escape_debug())?;
            }
        }
        let body = String::from_utf8_lossy(&self.body);
        write!(f, "{}", body.chars().take(3000).collect::<String>())
    }
}

/// Values of the header `Authorization` that are valid now.
pub(super) struct Bearers {
    /// For ARM.
    pub(super) arm: String,
    /// For Graph, which takes no other.
    pub(super) graph: String,
}

/// Makes requests.
pub(super) struct Shaker {
    dice: Dice,
    routes: Vec<(&'static str, Route)>,
    /// Earlier responses, by type.
    seen: BTreeMap<String, Vec<Value>>,
    /// ETags that were answered.
    tags: Vec<String>,
    /// Names in responses, by the type of their resource.
    names: BTreeMap<String, Vec<String>>,
}

impl Shaker {
    pub(super) fn new(dice: Dice, routes: &[(&'static str, Route)]) -> Self {
        // In a disabled subscription all other requests are refused, so nothing else would be tested.
        let routes = routes
            .iter()
            .filter(|(_, route)| route.name != "Subscriptions_Disable");
        Self {
            dice,
            routes: routes.cloned().collect(),
            seen: BTreeMap::new(),
            tags: Vec::new(),
            names: BTreeMap::new(),
        }
    }

    /// Keeps the parts of a response that later requests may send back.
    pub(super) fn learn(&mut self, sent: &Sent, status: u16, body: &Value) {
        if status >= 300 || sent.kind.is_empty() {
            return;
        }
        let single = [body.clone()];
        let items = body["value"].as_array().map_or(&single[..], Vec::as_slice);
        for item in items.iter().filter(|item| item.is_object()).take(4) {
            for field in ["eTag", "etag"] {
                keep(&mut self.tags, item[field].as_str().map(str::to_owned));
            }
            let kind = sent
                .kind
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_ascii_lowercase();
            let names = self.names.entry(kind).or_default();
            keep(names, item["name"].as_str().map(str::to_owned));
            keep(names, item["instanceId"].as_str().map(str::to_owned));
            if sent.kind.starts_with(graph::KIND) {
                keep(names, item["id"].as_str().map(str::to_owned));
            }
            let seen = self.seen.entry(sent.kind.clone()).or_default();
            keep(seen, Some(item.clone()));
        }
    }

    /// The next one.
    pub(super) fn next(&mut self, bearers: Bearers) -> Sent {
        match self.dice.roll(25) {
            0 => return self.token(),
            1 => return self.graph(bearers.graph),
            _ => {}
        }
        let mut at = self.dice.roll(self.routes.len());
        if !self.routes[at].1.works {
            // An operation that answers 501 does so for any request.
            at = self.dice.roll(self.routes.len());
        }
        let (namespace, route) = match self.dice.roll(5) {
            // Most operations read; those that make resources are rare, and the others need them.
            0 | 1 => self.maker(),
            _ => self.routes[at].clone(),
        };
        let path = self.path(namespace, &route);
        let query = self.query(&route);
        let mut headers = vec![
            ("host".to_owned(), b"arm.sim.test".to_vec()),
            ("authorization".to_owned(), bearers.arm.into_bytes()),
        ];
        let body = self.body(namespace, &route);
        if !body.is_empty() {
            headers.push(("content-type".to_owned(), b"application/json".to_vec()));
        }
        let mut sent = Sent {
            method: route.verb.method().to_owned(),
            target: format!("{path}?{query}"),
            headers,
            body,
            operation: Some(route.name),
            kind: format!("{namespace}/{}", route.path),
        };
        if self.dice.once_in(3) {
            self.shake(&mut sent);
        }
        sent
    }

    /// A PUT.
    fn maker(&mut self) -> (&'static str, Route) {
        const MAKERS: &[&str] = &[
            "ResourceGroups_CreateOrUpdate",
            "ManagedClusters_CreateOrUpdate",
            "AgentPools_CreateOrUpdate",
        ];
        let named = self.dice.pick(MAKERS);
        let puts: Vec<usize> = (0..self.routes.len())
            .filter(|at| {
                let route = &self.routes[*at].1;
                route.works && route.verb == Verb::Put && (route.name == named || self.dice.once_in(8))
            })
            .collect();
        let at = self.dice.one_of(&puts).copied().unwrap_or_default();
        self.routes[at].clone()
    }

    fn name(&mut self, kind: &str) -> String {
        const NAMES: &[&str] = &[
            "c0",
            "c1",
            "np1",
            "np2",
            "default",
            "local",
            "management",
            "a",
            "l0",
        ];
        const GUIDS: &[&str] = &[
            "0a0a0a0a-0000-4000-8000-000000000001",
            "0b0b0b0b-0000-4000-8000-000000000002",
            "acdd72a7-3385-48ef-bd42-f606fba81ae7",
        ];
        let kind = kind.to_ascii_lowercase();
        let usual: &[&str] = match kind.as_str() {
            "managedclusters" => &["c0", "c1"],
            "agentpools" => &["np1", "np2", "nodepool1"],
            "roleassignments" | "roledefinitions" => GUIDS,
            "maintenanceconfigurations" => &["default", "aksManagedAutoUpgradeSchedule"],
            "locations" => &["local"],
            "tags" | "upgradeprofiles" => &["default"],
            "resourcegroups" => &["g0", "g1", "MC_g0_c0_local"],
            "providers" => &[
                "Microsoft.ContainerService",
                "microsoft.resources",
                "Microsoft.Compute",
            ],
            "subscriptions" => &[SUBSCRIPTION],
            "eventtypes" => &["management"],
            _ => NAMES,
        };
        let learned = self.names.get(&kind).and_then(|names| self.dice.one_of(names));
        match (self.dice.roll(12), learned) {
            (0, _) => arm_ids::encode(&self.dice.text()),
            (1, _) => self.dice.pick(NAMES).to_owned(),
            (2..=6, Some(name)) => arm_ids::encode(name),
            _ => self.dice.pick(usual).to_owned(),
        }
    }

    fn scope(&mut self, scope: Scope) -> String {
        let subscription = if self.dice.once_in(40) {
            self.name("other")
        } else {
            SUBSCRIPTION.to_owned()
        };
        let group = self.name("resourceGroups");
        match scope {
            Scope::Tenant => String::new(),
            Scope::Subscription => format!("/subscriptions/{subscription}"),
            Scope::ResourceGroup => format!("/subscriptions/{subscription}/resourceGroups/{group}"),
            Scope::Resource => {
                let cluster = self.name("managedClusters");
                let kind = "providers/Microsoft.ContainerService/managedClusters";
                let below = if self.dice.once_in(4) {
                    format!("/agentPools/{}", self.name("agentPools"))
                } else {
                    String::new()
                };
                format!("/subscriptions/{subscription}/resourceGroups/{group}/{kind}/{cluster}{below}")
            }
            Scope::Any => {
                let scopes = [
                    Scope::Tenant,
                    Scope::Subscription,
                    Scope::ResourceGroup,
                    Scope::Resource,
                ];
                let at = self.dice.roll(scopes.len());
                self.scope(scopes[at])
            }
        }
    }

    fn path(&mut self, namespace: &str, route: &Route) -> String {
        let kinds: Vec<&str> = route.path.split('/').collect();
        // Paths without a namespace have no parent, and name subscription, group and provider as types.
        let generic = namespace == "Microsoft.Resources" && route.scope == Scope::Tenant;
        let mut path = if generic {
            String::new()
        } else {
            format!("{}/providers/{namespace}", self.scope(route.scope))
        };
        for (level, kind) in kinds.iter().enumerate() {
            path.push('/');
            path.push_str(kind);
            if level + 1 < kinds.len() || route.verb.shape() != Shape::Collection {
                path.push('/');
                path.push_str(&self.name(kind));
            }
        }
        if let Verb::Action(action) = route.verb {
            path.push('/');
            path.push_str(action);
        }
        path
    }

    fn query(&mut self, route: &Route) -> String {
        let version = match self.dice.roll(24) {
            0 => arm_ids::encode(&self.dice.text()),
            1 => "2026-01-01".to_owned(),
            2 => String::new(),
            3 => self
                .dice
                .one_of(route.versions)
                .copied()
                .unwrap_or_default()
                .to_ascii_uppercase(),
            roll if roll < 10 => (*self.dice.one_of(route.versions).unwrap_or(&"")).to_owned(),
            _ => (*route.versions.first().unwrap_or(&"")).to_owned(),
        };
        let mut query = format!("api-version={version}");
        while self.dice.once_in(5) {
            const NAMES: &[&str] = &[
                "$filter",
                "$top",
                "$skiptoken",
                "$expand",
                "$select",
                "$orderby",
                "API-VERSION",
                "format",
                "x",
            ];
            const VALUES: &[&str] = &[
                "name eq 'a'",
                "atScope()",
                "tagName eq 'a' and tagValue eq '1'",
                "resourceType eq 'Microsoft.ContainerService/managedClusters'",
                "eventTimestamp ge '2026-11-29'",
                "assignedTo('x')",
                "name eq 'a",
                "1",
                "0",
                "-1",
                "1000",
                "99999999999999999999",
                "YQ",
                "createdTime",
                "principalId eq '0a0a0a0a-0000-4000-8000-000000000001'",
                "not (name eq 'a')",
                "'",
                "exec",
                "((((",
                "a eq b or c eq d",
            ];
            let name = self.dice.pick(NAMES);
            let value = if self.dice.once_in(4) {
                self.dice.text()
            } else {
                self.dice.pick(VALUES).to_owned()
            };
            query.push_str(&format!("&{}={}", arm_ids::encode(name), arm_ids::encode(&value)));
        }
        query
    }

    fn body(&mut self, namespace: &str, route: &Route) -> Vec<u8> {
        let dice = &mut self.dice;
        if !matches!(route.verb, Verb::Put | Verb::Patch | Verb::Action(_)) && !dice.once_in(30) {
            return Vec::new();
        }
        let kind = format!("{namespace}/{}", route.path);
        let seen = self.seen.get(&kind).and_then(|seen| dice.one_of(seen)).cloned();
        let mut body = match seen {
            Some(seen) if dice.once_in(3) => seen,
            _ if matches!(route.verb, Verb::Action(_)) && dice.once_in(2) => return Vec::new(),
            _ => bodies::whole(namespace, route.path, dice),
        };
        if dice.once_in(3) {
            // The resource that all other requests need.
            return body.to_string().into_bytes();
        }
        if dice.once_in(2)
            && let Some(schema) = bodies::schema(route.path)
        {
            bodies::season(&mut body, &schema, dice);
        }
        if dice.once_in(2) {
            for _ in 0..=dice.roll(4) {
                bodies::shake(&mut body, dice);
            }
        }
        bodies::bytes(&body, dice)
    }

    /// Mutates a part of the request beside its body.
    fn shake(&mut self, sent: &mut Sent) {
        const METHODS: &[&str] = &[
            "GET", "PUT", "PATCH", "POST", "DELETE", "HEAD", "OPTIONS", "PROPFIND", "TRACE", "get",
        ];
        for _ in 0..=self.dice.roll(2) {
            match self.dice.roll(6) {
                0 => METHODS[self.dice.roll(METHODS.len())].clone_into(&mut sent.method),
                1 | 2 => sent.target = self.target(&sent.target),
                _ => self.header(sent),
            }
        }
    }

    fn target(&mut self, target: &str) -> String {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut segments: Vec<String> = path.split('/').skip(1).map(str::to_owned).collect();
        let at = self.dice.roll(segments.len());
        let query = match self.dice.roll(10) {
            0 => format!("{query}&{query}"),
            1 => format!("{query}&{}", "a=1&".repeat(self.dice.roll(80))),
            2 => format!("{query}&%zz=%ff"),
            _ => query.to_owned(),
        };
        if let Some(segment) = segments.get_mut(at) {
            match self.dice.roll(9) {
                0 => *segment = segment.to_uppercase(),
                1 => *segment = String::new(),
                2 => *segment = arm_ids::encode(&self.dice.text()),
                3 => *segment = format!("{segment}%00"),
                4 => *segment = segment.bytes().map(|byte| format!("%{byte:02x}")).collect(),
                5 => *segment = format!("{segment}/{segment}"),
                6 => {
                    segments.remove(at);
                }
                7 => segments.truncate(at),
                _ => segments.push(self.name("providers")),
            }
        }
        let slash = if self.dice.once_in(6) { "/" } else { "" };
        format!("/{}{slash}?{query}", segments.join("/"))
    }

    fn header(&mut self, sent: &mut Sent) {
        const NAMES: &[&str] = &[
            "authorization",
            "if-match",
            "if-none-match",
            "content-type",
            "content-encoding",
            "accept-encoding",
            "accept",
            "host",
            "x-ms-client-request-id",
            "x-ms-return-client-request-id",
            "x-ms-correlation-request-id",
            "expect",
            "content-length",
            "prefer",
            "x-http-method-override",
            "x-forwarded-for",
            "range",
            "aks-custom-headers",
            "te",
            "if-modified-since",
        ];
        const VALUES: &[&str] = &[
            "*",
            "\"*\"",
            "W/\"x\"",
            "\"\"",
            "\"",
            "gzip",
            "gzip;q=0",
            "identity, br;q=0.1, *;q=0",
            "application/json; charset=utf-16",
            "text/plain",
            "application/merge-patch+json",
            "application/x-www-form-urlencoded",
            "Bearer",
            "Bearer x.y.z",
            "Basic YTpi",
            "bearer  ",
            "100-continue",
            "0",
            "-1",
            "true",
            "a@b",
            "[::1]",
            "arm.sim.test:99999",
            "{}",
            "bytes=0-1",
        ];
        let name = self.dice.pick(NAMES);
        let value = match self.dice.roll(4) {
            0 => self.dice.text().into_bytes(),
            1 => match self.dice.one_of(&self.tags) {
                Some(tag) => format!("\"{tag}\"").into_bytes(),
                None => vec![0xff, b'x'],
            },
            _ => self.dice.pick(VALUES).as_bytes().to_vec(),
        };
        if !self.dice.once_in(4) {
            sent.headers.retain(|(own, _)| own != name);
        }
        sent.headers.push((name.to_owned(), value));
    }
}

fn keep<T>(list: &mut Vec<T>, item: Option<T>) {
    let Some(item) = item else { return };
    if list.len() >= KEPT {
        list.remove(0);
    }
    list.push(item);
}
