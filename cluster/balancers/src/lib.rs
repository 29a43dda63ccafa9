//! Load balancers requested by Kubernetes Services of type LoadBalancer.
//!
//! Owns the parsing of the object with its annotations; addresses, rotation and routers are elsewhere.
//!
//! Always true: pure; an unsupported request is refused with a sentence that names the field or the
//! annotation, and never replaced by something else; settings without effect are reported as well.
//!
//! Called by: the loops (for observed objects), the planner (for decisions).

mod annotations;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use cluster_security::Addresses;
use fabric_api::Protocol;
use serde_json::Value;

pub use annotations::{ANNOTATIONS, Annotation, Class};

use annotations::{
    ADDRESS, INTERNAL, IP_RANGES, PIP_NAME, PREFIX, RESOURCE_GROUP, SERVICE_TAGS, SOURCES, SUBNET, class_of,
    no_rule,
};

/// The finalizer of a Service until its load balancer is gone; upstream's name.
pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";
/// Nodes with this label are in no rotation, whatever its value.
pub const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// The treatment of traffic to a Service's address inside the cluster: kube-proxy handles it directly.
pub const IP_MODE: &str = "VIP";
/// The port limit of a Service, as Azure's load balancer has for rules.
const MOST_PORTS: usize = 250;
/// The limit of source ranges.
const MOST_SOURCES: usize = 200;

/// The load balancer that a Service requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`: a recreated Service has another.
    pub uid: String,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it has the [`FINALIZER`].
    pub finalizer: bool,
    /// The address in its status; `None`: no address, or not in the desired form.
    pub shown: Option<Ipv4Addr>,
    /// Whether its address is one of the cluster's own network.
    pub internal: bool,
    /// The subnet of an internal one, by its name.
    pub subnet: Option<String>,
    /// The requested address.
    pub address: Option<Ipv4Addr>,
    /// The requested public IP address, by its resource.
    pub public: Option<PublicName>,
    /// Its ports, in order.
    pub ports: Vec<Port>,
    /// Whether only nodes with an endpoint of it are in rotation (`externalTrafficPolicy: Local`).
    pub local: bool,
    /// Nodes with a ready endpoint of it; known where it is [`Self::local`].
    pub endpoints: BTreeSet<String>,
    /// Whether all connections of a client go to the same node.
    pub sticky: bool,
    /// Permitted clients; empty: all.
    pub sources: Vec<Addresses>,
    /// The reason why it gets no load balancer: a sentence with a next step.
    pub refusal: Option<String>,
    /// Settings without effect: half a sentence each.
    pub notes: Vec<String>,
}

/// A public IP address resource, as a Service names it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PublicName {
    /// Its group; `None`: that of the nodes.
    pub group: Option<String>,
    /// Its name.
    pub name: String,
}

impl PublicName {
    /// In one text; case is ignored, as ARM does.
    pub fn text(&self) -> String {
        let group = self.group.as_deref().unwrap_or_default();
        format!("{group}/{}", self.name).to_ascii_lowercase()
    }
}

/// A port of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Port at its address.
    pub port: u16,
    /// Port at the nodes.
    pub node_port: u16,
}

impl Wish {
    /// Parses a Service; `None` for one that is not ours: of another type, or of another load balancer class.
    pub fn read(service: &Value, endpoints: BTreeSet<String>) -> Option<Self> {
        let (metadata, spec) = (&service["metadata"], &service["spec"]);
        let text = |name: &str| metadata[name].as_str().map(str::to_owned);
        if spec["type"] != "LoadBalancer" || spec["loadBalancerClass"].is_string() {
            return None;
        }
        let asked = Annotations::of(metadata);
        let mut finalizers = metadata["finalizers"].as_array().into_iter().flatten();
        let mut wish = Self {
            namespace: text("namespace")?,
            name: text("name")?,
            uid: text("uid")?,
            deleting: metadata["deletionTimestamp"].is_string(),
            finalizer: finalizers.any(|found| found == FINALIZER),
            shown: shown(&service["status"]),
            internal: asked.is_true(INTERNAL),
            subnet: asked.get(SUBNET).map(str::to_owned),
            address: None,
            public: None,
            ports: Vec::new(),
            local: is_local(service),
            endpoints,
            sticky: spec["sessionAffinity"] == "ClientIP",
            sources: Vec::new(),
            refusal: None,
            notes: asked.notes(),
        };
        if let Err(why) = wish.fill(spec, &asked) {
            wish.refusal = Some(why);
        }
        Some(wish)
    }

    /// A port that both have, as they would at one address.
    pub fn common_port(&self, other: &Self) -> Option<Port> {
        let same = |port: &&Port| {
            let mut theirs = other.ports.iter();
            theirs.any(|their| their.protocol == port.protocol && their.port == port.port)
        };
        self.ports.iter().find(same).copied()
    }

    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Reads and checks its settings.
    fn fill(&mut self, spec: &Value, asked: &Annotations<'_>) -> Result<(), String> {
        asked.refused()?;
        if self.subnet.is_some() && !self.internal {
            return Err(format!(
                "the annotation {PREFIX}{SUBNET} goes with {PREFIX}{INTERNAL}: \"true\" only; set that, or remove it"
            ));
        }
        let families = spec["ipFamilies"].as_array().into_iter().flatten();
        let mut families = families.filter_map(Value::as_str).peekable();
        if families.peek().is_some() && !families.any(|family| family == "IPv4") {
            return Err("spec.ipFamilies: load balancers have IPv4 addresses only; add IPv4".to_owned());
        }
        self.address = match (asked.get(ADDRESS), spec["loadBalancerIP"].as_str()) {
            (Some(text), _) => Some(address(&format!("the annotation {PREFIX}{ADDRESS}"), text)?),
            (None, Some("") | None) => None,
            (None, Some(text)) => Some(address("spec.loadBalancerIP", text)?),
        };
        self.public = asked.get(PIP_NAME).map(|name| PublicName {
            group: asked.get(RESOURCE_GROUP).map(str::to_owned),
            name: name.to_owned(),
        });
        if self.public.is_some() && self.internal {
            return Err(format!(
                "the annotation {PREFIX}{PIP_NAME} names an address of the outside, and {PREFIX}{INTERNAL} asks for one of the cluster's own \
                 network; remove one of them"
            ));
        }
        if self.public.is_some() && self.address.is_some() {
            return Err(format!(
                "the annotation {PREFIX}{PIP_NAME} names an address already; remove spec.loadBalancerIP and {PREFIX}{ADDRESS}"
            ));
        }
        self.ports = ports(spec, asked)?;
        self.sources = sources(spec, asked)?;
        Ok(())
    }
}

/// Whether only nodes with an endpoint of a Service are in rotation, so that its endpoints are needed.
pub fn is_local(service: &Value) -> bool {
    service["spec"]["externalTrafficPolicy"] == "Local"
}

/// A Service's annotations with [`PREFIX`], by the rest of their names.
struct Annotations<'a>(BTreeMap<&'a str, &'a str>);

impl<'a> Annotations<'a> {
    fn of(metadata: &'a Value) -> Self {
        let all = metadata["annotations"].as_object().into_iter().flatten();
        let own = all.filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value.as_str()?.trim())));
        Self(own.collect())
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied().filter(|value| !value.is_empty())
    }

    fn is_true(&self, name: &str) -> bool {
        self.get(name)
            .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }

    /// The items of a comma-separated list.
    fn list(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let items = self.get(name).into_iter().flat_map(|value| value.split(','));
        items.map(str::trim).filter(|item| !item.is_empty())
    }

    /// Annotations that are set; `false` counts as not set.
    fn asking(&self) -> impl Iterator<Item = (&'a str, Class, &'static str)> {
        let asking = self
            .0
            .iter()
            .filter(|(_, value)| !value.is_empty() && !value.eq_ignore_ascii_case("false"));
        asking.filter_map(|(name, _)| class_of(name).map(|(class, about)| (*name, class, about)))
    }

    fn notes(&self) -> Vec<String> {
        let without = self.asking().filter(|(_, class, _)| *class == Class::NoEffect);
        without
            .map(|(name, _, about)| format!("{PREFIX}{name} has no effect: {about}"))
            .collect()
    }

    fn refused(&self) -> Result<(), String> {
        match self.asking().find(|(_, class, _)| *class == Class::Refused) {
            Some((name, _, about)) => Err(format!(
                "the annotation {PREFIX}{name} cannot be followed: {about}; remove it"
            )),
            None => Ok(()),
        }
    }
}

/// The address in a status, if it is the only one and has the desired form.
fn shown(status: &Value) -> Option<Ipv4Addr> {
    let ingress = status["loadBalancer"]["ingress"].as_array()?;
    match ingress.as_slice() {
        [only] if only["ipMode"] == IP_MODE => only["ip"].as_str()?.parse().ok(),
        _ => None,
    }
}

fn address(field: &str, text: &str) -> Result<Ipv4Addr, String> {
    text.parse()
        .map_err(|_| format!("{field}: {text:?} is no IPv4 address; give one, or remove it"))
}

fn ports(spec: &Value, asked: &Annotations<'_>) -> Result<Vec<Port>, String> {
    let all = spec["ports"].as_array().into_iter().flatten();
    let mut ports = Vec::new();
    for entry in all {
        let number = |field: &str| {
            let number = entry[field]
                .as_u64()
                .and_then(|number| u16::try_from(number).ok());
            number.filter(|number| *number > 0)
        };
        let port = number("port").ok_or("spec.ports: a port has no number; give each one")?;
        if asked.is_true(&no_rule(port)) {
            continue;
        }
        let protocol = match entry["protocol"].as_str().unwrap_or("TCP") {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            other => {
                return Err(format!(
                    "spec.ports: port {port} is of protocol {other}; load balancers have TCP and UDP"
                ));
            }
        };
        let node_port = number("nodePort").ok_or_else(|| {
            format!(
                "spec.ports: port {port} has no nodePort, by which nodes are reached; set spec.allocateLoadBalancerNodePorts to \
                 true, or give the port a nodePort"
            )
        })?;
        ports.push(Port {
            protocol,
            port,
            node_port,
        });
    }
    ports.sort_unstable();
    if ports.is_empty() {
        return Err("spec.ports: there is no port to balance; add one".to_owned());
    }
    if ports.len() > MOST_PORTS {
        return Err(format!(
            "spec.ports: there are {}, and at most {MOST_PORTS} can be balanced; make several Services",
            ports.len()
        ));
    }
    Ok(ports)
}

/// Permitted clients: ranges of the spec, else of Kubernetes' annotation; plus those of AKS' annotations.
fn sources(spec: &Value, asked: &Annotations<'_>) -> Result<Vec<Addresses>, String> {
    let mut sources = Vec::new();
    let mut add = |field: &str, text: &str| match Addresses::parse(text) {
        Some(range @ Addresses::Range(_)) => {
            sources.push(range);
            Ok(())
        }
        _ => Err(format!(
            "{field}: {text:?} is not an IPv4 range such as 10.0.0.0/8; correct it, or remove it"
        )),
    };
    let own: Vec<&str> = spec["loadBalancerSourceRanges"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::trim)
        .collect();
    if own.is_empty() {
        for text in asked.list(SOURCES) {
            add(&format!("the annotation {PREFIX}{SOURCES}"), text)?;
        }
    }
    for text in own {
        add("spec.loadBalancerSourceRanges", text)?;
    }
    for text in asked.list(IP_RANGES) {
        add(&format!("the annotation {PREFIX}{IP_RANGES}"), text)?;
    }
    for text in asked.list(SERVICE_TAGS) {
        match Addresses::parse(text) {
            Some(word @ (Addresses::Any | Addresses::VirtualNetwork | Addresses::Internet)) => {
                sources.push(word)
            }
            Some(Addresses::LoadBalancer | Addresses::Range(_)) | None => {
                return Err(format!(
                    "the annotation {PREFIX}{SERVICE_TAGS}: the ranges of {text:?} are not known here; VirtualNetwork and Internet \
                     are, and {PREFIX}{IP_RANGES} takes ranges"
                ));
            }
        }
    }
    sources.sort_unstable();
    sources.dedup();
    if sources.len() > MOST_SOURCES {
        return Err(format!(
            "spec.loadBalancerSourceRanges: there are {}, and at most {MOST_SOURCES} are taken; join some of them",
            sources.len()
        ));
    }
    Ok(sources)
}

#[cfg(test)]
mod tests;
