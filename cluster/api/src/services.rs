//! Services of type LoadBalancer, as they are seen and as they are to be.

use std::{collections::BTreeSet, net::Ipv4Addr};

use serde_json::Value;

/// A Service of type LoadBalancer.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceSeen {
    /// The object.
    pub object: Value,
    /// Names of nodes with a ready endpoint of it. Empty where its `externalTrafficPolicy` is not `Local`: nobody asks then.
    pub endpoints: BTreeSet<String>,
}

/// What is to be written to a Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServiceWish {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: another Service of the same name is left alone.
    pub uid: String,
    /// Whether it is to be kept until its load balancer is gone. It is given up after the status is written; `None`: as it is.
    pub finalizer: Option<bool>,
    /// Its address.
    pub ingress: Ingress,
    /// What is to be told of it, where there is something to tell.
    pub note: Option<Note>,
}

/// What a Service's status is to tell of its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ingress {
    /// What it tells.
    AsItIs,
    /// That there is none.
    Nothing,
    /// This one.
    At(Ipv4Addr),
}

/// An event of Kubernetes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Whether something is wrong.
    pub warning: bool,
    /// In one word, as upstream's service controller says it.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}
