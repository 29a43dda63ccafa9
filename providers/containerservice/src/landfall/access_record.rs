//! `…/managedClusters/{name}/supportTickets/{ticket}/accessRecord`: every request that was made to a cluster with what was handed out under a
//! ticket.
//!
//! It is read from the audit logs of the control plane's machines when somebody asks, and kept nowhere else: what a machine has removed (it keeps
//! 200 MiB and 30 days) or has taken with it is not told. Which machines could not be read is said. Audit leaves out what anybody who is
//! signed in may ask (health, version, the API's own description), leases, and events of the core group.
//!
//! Always true: it only reads.

use std::collections::BTreeMap;

use arm_kernel::{Operation, ResourceType, Verb, quote, store_error};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use cluster_spec::CredentialKind;
use control_records::{Role, directory, ticket::TicketRecord};
use control_store::get_record;
use futures::future::join_all;
use serde_json::{Value, json};

use super::{
    api::{HISTORY_API_VERSIONS, HISTORY_NAMESPACE, HistoryApi},
    tickets::handed_out,
};
use crate::records::ClusterPath;

type Row = Operation<HistoryApi>;

/// The name of the API server's audit log among a machine's logs.
const AUDIT: &str = "audit";
/// Lines that are read of each machine, the newest.
const MOST: u32 = 5_000;

/// The type.
pub(super) const ACCESS_RECORD: ResourceType<HistoryApi> = ResourceType {
    path: "managedClusters/supportTickets/accessRecord",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::read(
        Verb::List,
        "SupportTickets_AccessRecord",
        |api, call| Box::pin(api.access_record(&call.request)),
    )],
};

/// What users of credentials of tickets are called before their id, as an audit log has it.
fn user_prefix() -> String {
    format!("landfall:credential:{}:", CredentialKind::Support.word())
}

/// A request, from a line of an audit log; `None` where it is none with one of these credentials, by id with their engineer.
fn request(line: &str, engineers: &BTreeMap<&str, &str>) -> Option<(String, Value)> {
    let event: Value = serde_json::from_str(line).ok()?;
    let prefix = user_prefix();
    let id = event["user"]["username"]
        .as_str()?
        .strip_prefix(prefix.as_str())?;
    let engineer = engineers.get(id)?;
    let at = event["requestReceivedTimestamp"].as_str().unwrap_or_default();
    let mut told = json!({
        "at": at,
        "credential": id,
        "engineer": engineer,
        "verb": event["verb"],
        "uri": event["requestURI"],
        "status": event["responseStatus"]["code"],
        "allowed": event["annotations"]["authorization.k8s.io/decision"] == "allow",
        "address": event["sourceIPs"][0],
        "client": event["userAgent"],
        "auditId": event["auditID"],
    });
    let object = &event["objectRef"];
    for (name, field) in [
        ("group", "apiGroup"),
        ("resource", "resource"),
        ("subresource", "subresource"),
        ("namespace", "namespace"),
        ("object", "name"),
    ] {
        if let Some(text) = object[field].as_str().filter(|text| !text.is_empty()) {
            told[name] = json!(text);
        }
    }
    // Watches are told when they begin and when they end: each is one.
    let key = event["auditID"].as_str().unwrap_or_default();
    Some((format!("{at} {key}"), told))
}

impl HistoryApi {
    /// The lines with a text in a machine's audit log, or why it was not read.
    async fn audited<'a>(&self, machine: &'a str, text: &str) -> (&'a str, Result<String, String>) {
        let Some(agents) = &self.agents else {
            return (machine, Err("this service reads no machine".to_owned()));
        };
        let log = agents.lines_with(machine, AUDIT, text, MOST).await;
        (machine, log.map_err(|error| error.to_string()))
    }

    async fn access_record(&self, asked: &Request) -> Result<Response, ArmError> {
        let at = ClusterPath::of(&asked.path)?;
        let of = self.cluster(at).await?;
        let (store, uid) = (&*self.store, &of.record.uid);
        let found = get_record::<TicketRecord>(store, &TicketRecord::key(uid, at.child)).await;
        let ticket = found.map_err(store_error)?.ok_or_else(|| {
            let message = format!(
                "The cluster {} has no support ticket {}; the list says which there are.",
                quote(&of.record.name),
                quote(at.child)
            );
            ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message)
        })?;
        let ticket = ticket.value;
        let engineers: BTreeMap<&str, &str> = ticket
            .access
            .iter()
            .map(|access| (access.credential.as_str(), access.engineer.as_str()))
            .collect();
        let mut requests = BTreeMap::new();
        let mut unread = Vec::new();
        let mut truncated = false;
        // Without a credential there is no request.
        if !engineers.is_empty() {
            let machines = directory::machines(store, uid).await.map_err(store_error)?;
            let prefix = user_prefix();
            let mut read = Vec::new();
            for machine in &machines {
                let role = machine.assignment.as_ref().map(|assignment| &assignment.role);
                if matches!(role, Some(Role::ControlPlane { .. })) {
                    read.push(self.audited(&machine.id, &prefix));
                }
            }
            for (machine, log) in join_all(read).await {
                match log {
                    Ok(log) => {
                        truncated |= log.lines().count() >= MOST as usize;
                        requests.extend(log.lines().filter_map(|line| request(line, &engineers)));
                    }
                    Err(why) => unread.push(json!({ "machine": machine, "why": why })),
                }
            }
        }
        let id = arm_ids::resource_id(
            &of.record.subscription,
            &of.record.resource_group,
            HISTORY_NAMESPACE,
            &[
                ("managedClusters", of.record.name.as_str()),
                ("supportTickets", ticket.name.as_str()),
            ],
        );
        Ok(Response::ok(json!({
            "id": format!("{id}/accessRecord"),
            "name": "accessRecord",
            "type": format!("{HISTORY_NAMESPACE}/managedClusters/supportTickets/accessRecord"),
            "cluster": of.record.name,
            "resourceGroup": of.record.resource_group,
            "ticket": ticket.name,
            "access": handed_out(&ticket, self.env.clock.now()),
            "value": requests.into_values().collect::<Vec<_>>(),
            "unread": unread,
            "truncated": truncated,
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_audit_log_is_told_where_it_is_of_a_credential_of_the_ticket() {
        let line = |user: &str| {
            json!({
                "kind": "Event", "auditID": "7", "stage": "ResponseComplete", "verb": "get",
                "requestURI": "/api/v1/namespaces/shop/secrets/key", "user": { "username": user },
                "sourceIPs": ["10.0.0.7"], "userAgent": "kubectl/v1.36",
                "objectRef": { "resource": "secrets", "namespace": "shop", "name": "key", "apiVersion": "v1" },
                "responseStatus": { "code": 403 }, "requestReceivedTimestamp": "2026-01-01T00:00:01.000000Z",
                "annotations": { "authorization.k8s.io/decision": "forbid" }
            })
            .to_string()
        };
        let engineers = BTreeMap::from([("a1", "eve")]);
        let (_, told) = request(&line("landfall:credential:support:a1"), &engineers).unwrap();
        for (field, value) in [
            ("engineer", "eve"),
            ("verb", "get"),
            ("resource", "secrets"),
            ("namespace", "shop"),
            ("object", "key"),
            ("address", "10.0.0.7"),
        ] {
            assert_eq!(told[field], value, "{told}");
        }
        assert_eq!((&told["status"], &told["allowed"]), (&json!(403), &json!(false)));
        for other in [
            "landfall:credential:support:b2",
            "landfall:credential:admin:a1",
            "system:admin",
        ] {
            assert!(request(&line(other), &engineers).is_none(), "{other}");
        }
        assert!(
            request("landfall:credential:support:a1", &engineers).is_none(),
            "broken off"
        );
    }
}
