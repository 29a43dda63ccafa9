//! Services of type LoadBalancer, observed and desired.

use std::{collections::BTreeSet, net::Ipv4Addr};

use serde_json::Value;

/// A Service of type LoadBalancer.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSeen {
    /// The object.
    pub object: Value,
    /// Names of nodes with a ready endpoint of it. Empty unless its `externalTrafficPolicy` is `Local`, which
    /// needs them.
    pub endpoints: BTreeSet<String>,
}

/// The changes to write to a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceWish {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: another Service of the same name is left alone.
    pub uid: String,
    /// Whether it has the finalizer that keeps it until its load balancer is gone. Removed after the status
    /// is written; `None`: unchanged.
    pub finalizer: Option<bool>,
    /// Its address.
    pub ingress: Ingress,
    /// An event to write, if any.
    pub note: Option<Note>,
}

/// The address in a Service's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ingress {
    /// Unchanged.
    AsItIs,
    /// No address.
    Nothing,
    /// This address.
    At(Ipv4Addr),
}

/// A Kubernetes event.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Whether it is a warning.
    pub warning: bool,
    /// The reason in one word, as upstream's service controller uses it.
    pub reason: &'static str,
    /// The message, for people.
    pub message: String,
}
