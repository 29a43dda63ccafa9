//! `Landfall.ContainerService/managedClusters/certificates`: the certificates and keys of a cluster, without any secret.
//!
//! | | |
//! |---|---|
//! | GET `{RG}/providers/Landfall.ContainerService/managedClusters/{name}/certificates` | all of them |
//!
//! What is told is read from the certificates themselves: the cluster's sealed keys, and the sealed configurations of its machines. What a machine has
//! got signed by the cluster (kubelets) is nowhere but on the machine, and is told without times.

use agent_protocol::{CERTIFICATE_YEARS, MachineConfig};
use arm_kernel::{Items, Operation, ResourceType, store_error};
use arm_wire::{ArmError, Request};
use base_sealer::Sealer;
use cluster_pki::{
    ClusterPki,
    inventory::{IN_USE, Item, ItemKind, certificates},
};
use control_records::{
    ClusterRecord, MachineRecord, PkiRecord, Role, SealedRecord,
    credential::CredentialRecord,
    directory, key,
    machine_config::{RENEWED_AFTER, StoredConfig},
};
use control_store::{Store, get_record, list_records};
use jiff::{SignedDuration, Timestamp};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::api::{HISTORY_API_VERSIONS, HISTORY_NAMESPACE, HistoryApi};
use crate::records::ClusterPath;

type Row = Operation<HistoryApi>;

/// The type.
pub(super) const CERTIFICATES: ResourceType<HistoryApi> = ResourceType {
    path: "managedClusters/certificates",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::items("Certificates_ListByCluster", |api, call| {
        Box::pin(api.certificates(&call.request))
    })],
};

/// Where the files of Kubernetes' certificates are.
const PKI: &str = "/etc/kubernetes/pki/";
/// The name of the certificate by which a machine's agent is known to the stamp.
pub const AGENT: &str = "agent";

fn unsealed<T: DeserializeOwned>(sealer: &Sealer, name: &str, sealed: &[u8]) -> Result<T, ArmError> {
    let bytes = sealer
        .unseal(name, sealed)
        .map_err(|error| ArmError::internal(format_args!("{name}: {error}")))?;
    serde_json::from_slice(&bytes).map_err(|error| ArmError::internal(format_args!("{name}: {error}")))
}

/// Who has a machine's certificates, for people.
fn holder(machine: &MachineRecord) -> String {
    match machine.assignment.as_ref().map(|assignment| &assignment.role) {
        Some(Role::ControlPlane { index, .. }) => format!("control-plane-{index}"),
        Some(Role::Node { node_name, .. }) => node_name.clone(),
        None => machine.id.clone(),
    }
}

/// The certificates that a configuration brings to its machine; authorities, which others are verified with, are not the machine's.
fn of_config(holder: &str, stored: &StoredConfig<MachineConfig>) -> Result<Vec<Item>, ArmError> {
    let mut items = Vec::new();
    let files = stored.config.files.iter();
    for (file, name) in files.filter_map(|file| Some((file, file.path.strip_suffix(".crt")?))) {
        let seen = certificates(&file.content)
            .map_err(|error| ArmError::internal(format_args!("{holder}, {}: {error}", file.path)))?;
        let name = name.strip_prefix(PKI).unwrap_or(name);
        items.extend(seen.iter().filter(|seen| !seen.is_authority).map(|seen| Item {
            // Each at its own time: those that still hold are kept when something else changes.
            renews_at: seen.made_at().checked_add(RENEWED_AFTER).ok(),
            generation: Some(stored.config.generation),
            ..Item::of_certificate(name, holder, seen)
        }));
    }
    Ok(items)
}

/// What a machine has beside its configuration.
fn of_machine(machine: &MachineRecord, holder: &str) -> Vec<Item> {
    let life = SignedDuration::from_hours(CERTIFICATE_YEARS * 365 * 24);
    let mut items = vec![Item {
        kind: ItemKind::Certificate,
        subject: format!("CN={}", machine.id),
        issued_at: Some(machine.created_at),
        expires_at: machine.created_at.checked_add(life).ok(),
        note: "at the earliest: made when the machine first called; it is renewed by making the machine anew"
            .to_owned(),
        ..Item::of_key(AGENT, holder, IN_USE)
    }];
    if let Some(Role::Node { node_name, .. }) = machine.assignment.as_ref().map(|assignment| &assignment.role)
    {
        items.push(Item {
            kind: ItemKind::Certificate,
            subject: format!("O=system:nodes, CN=system:node:{node_name}"),
            note: "signed by the cluster for a year, on the node alone; the kubelet renews them by itself"
                .to_owned(),
            ..Item::of_key("kubelet (client, server)", holder, IN_USE)
        });
    }
    items
}

/// A cluster's certificates and keys: its own, those of its machines, and those that were handed out.
///
/// # Errors
/// When the store fails, or something in it cannot be unsealed or read.
pub async fn cluster_inventory(
    store: &dyn Store,
    sealer: &Sealer,
    cluster: &ClusterRecord,
    now: Timestamp,
) -> Result<Vec<Item>, ArmError> {
    let uid = &cluster.uid;
    let mut items = Vec::new();
    let pki = get_record::<PkiRecord>(store, &key::pki(uid)).await;
    if let Some(pki) = pki.map_err(store_error)? {
        let keys: ClusterPki = unsealed(sealer, &key::sealed::pki(uid), &pki.value.sealed)?;
        items.extend(keys.inventory().map_err(ArmError::internal)?);
    }
    for machine in directory::machines(store, uid).await.map_err(store_error)? {
        let holder = holder(&machine);
        let name = key::machine_config(uid, &machine.id);
        let found = get_record::<SealedRecord>(store, &name).await;
        if let Some(found) = found.map_err(store_error)? {
            let sealed_as = key::sealed::machine_config(&machine.id);
            let stored = unsealed(sealer, &sealed_as, &found.value.sealed)?;
            items.extend(of_config(&holder, &stored)?);
        }
        items.extend(of_machine(&machine, &holder));
    }
    let credentials = list_records::<CredentialRecord>(store, &CredentialRecord::all(uid)).await;
    let (credentials, _) = credentials.map_err(store_error)?;
    let good = credentials.into_iter().map(|(_, stored)| stored.value);
    items.extend(good.filter(|one| one.is_good(now)).map(|one| Item {
        kind: ItemKind::Certificate,
        issued_at: Some(one.issued_at),
        expires_at: Some(one.expires_at),
        generation: Some(u64::from(one.round)),
        note: "a kubeconfig that was handed out: landfall credentials list".to_owned(),
        ..Item::of_key(&format!("credential {}", one.id), &one.asked_by_name, IN_USE)
    }));
    Ok(items)
}

impl HistoryApi {
    async fn certificates(&self, request: &Request) -> Result<Items, ArmError> {
        let Some(sealer) = &self.sealer else {
            return Err(ArmError::internal("this service has no sealing key"));
        };
        let of = self.cluster(ClusterPath::of(&request.path)?).await?;
        let now = self.env.clock.now();
        let all = cluster_inventory(&*self.store, sealer, &of.record, now).await?;
        let items = all.iter().enumerate().map(|(number, item)| {
            let mut answer = json!(item);
            answer["type"] = json!(format!("{HISTORY_NAMESPACE}/managedClusters/certificates"));
            answer["cluster"] = json!(of.record.name);
            answer["resourceGroup"] = json!(of.record.resource_group);
            (format!("{number:06}"), answer)
        });
        Ok(Items::Keyed(items.collect()))
    }
}
