//! Turns a plan's writes into one transaction: ids, tokens and keys are made here; decisions are not.

mod children;
mod removal;
mod scale;

use std::{collections::BTreeSet, sync::Arc};

use aws_lc_rs::rand;
use base_sealer::SealError;
use control_planner::{Addresses, Plan, Write};
use control_records::{
    Assignment, ChildRecord, ClusterRecord, DeletedRecord, Event, EventKind, Fence, Healing, KeyStep,
    LeaseRecord, MachineRecord, OperationError, OperationRecord, OperationStatus, PkiRecord, Role, Rotation,
    Work,
    balancer::BalancerRecord,
    credential::{CredentialRecord, Revoked},
    directory, events, key,
    namespace::NamespaceRecord,
    volume::VolumeRecord,
};
use control_store::{Revision, StoreError, Stored, Txn, get_record, put_record};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::{ControllerDeps, recipes::RecipeError};

pub(crate) use children::is_held;
use children::{
    change_credential, change_volume, forget_balancer, forget_namespace, forget_volume, record_balancer,
    record_volume,
};
use removal::forget;

/// Why a plan's writes could not be committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommitError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Seal(#[from] SealError),
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// The result of a commit, for the loop's state and the index.
#[derive(Debug, Default)]
pub(crate) struct Committed {
    pub(crate) recorded: Vec<String>,
    pub(crate) removed: Vec<String>,
    pub(crate) forgotten: bool,
    /// Keys of leases, with their holders.
    pub(crate) leased: Vec<(String, String)>,
    /// Ids of the volumes of tenants' disks that the cluster has taken.
    pub(crate) taken: Vec<String>,
    /// Keys of the public IP addresses that know of the cluster now.
    pub(crate) publics: BTreeSet<String>,
}

/// The records that a plan was made from, with their revisions.
pub(crate) struct Basis {
    pub(crate) cluster: Stored<Arc<ClusterRecord>>,
    pub(crate) observed: Option<Revision>,
    pub(crate) machines: Vec<Stored<Arc<MachineRecord>>>,
    pub(crate) operations: Vec<Stored<Arc<OperationRecord>>>,
    pub(crate) credentials: Vec<Stored<Arc<CredentialRecord>>>,
    pub(crate) trusted: Vec<Stored<Arc<ChildRecord>>>,
    pub(crate) namespaces: Vec<Stored<Arc<NamespaceRecord>>>,
    /// Operations of these that have not ended.
    pub(crate) namespace_operations: Vec<Stored<Arc<OperationRecord>>>,
    pub(crate) balancers: Vec<Stored<Arc<BalancerRecord>>>,
    pub(crate) volumes: Vec<Stored<Arc<VolumeRecord>>>,
    /// The loop's permission to write.
    pub(crate) fence: Fence,
}

impl Basis {
    /// Operations of the cluster and of its namespaces that have not ended.
    fn all_operations(&self) -> impl Iterator<Item = &Stored<Arc<OperationRecord>>> {
        self.operations.iter().chain(&self.namespace_operations)
    }

    fn operation(&self, id: &str) -> Option<&Stored<Arc<OperationRecord>>> {
        self.all_operations().find(|operation| operation.value.id == id)
    }
}

/// A plan's writes and its observed record as one transaction, and its result. It conflicts when a record of
/// the basis has changed (then plan again), and when another host has taken over the cluster.
pub(crate) async fn compose(
    deps: &ControllerDeps,
    basis: &Basis,
    plan: &Plan,
    now: Timestamp,
) -> Result<(Txn, Committed), CommitError> {
    let uid = &basis.cluster.value.uid;
    let mut txn = Txn::default();
    let mut done = Committed::default();
    if plan.observed_changed {
        let key = key::observed(uid);
        txn = match basis.observed {
            Some(revision) => txn.at(&key, revision),
            None => txn.absent(&key),
        };
        txn = txn.with(put_record(key, &plan.observed));
    }
    for write in &plan.writes {
        txn = match write {
            Write::Lease(addresses) => lease(txn, uid, basis, addresses, &mut done),
            Write::CreatePki => {
                let name = key::pki(uid);
                let source = match &basis.cluster.value.spec().restore {
                    Some(restore) if restore.source != *uid => Some(keys_of(deps, &restore.source).await?),
                    _ => None,
                };
                let pki = deps.recipes.pki(source.as_ref(), now)?;
                let sealed = PkiRecord {
                    v: 1,
                    generation: 1,
                    rotation: Rotation::default(),
                    sealed: deps.sealer.seal(&key::sealed::pki(uid), &pki)?,
                };
                txn.absent(&name).with(put_record(name, &sealed))
            }
            Write::StepKeys { generation, step } => step_keys(deps, txn, uid, *generation, step, now).await?,
            Write::RecordMachine { role, image, build } => {
                let machine = machine(deps, basis, role, image, build.clone(), now)?;
                done.recorded.push(machine.id.clone());
                if let Some(lease) = lease_of(basis, role) {
                    let record = LeaseRecord {
                        v: 1,
                        owner: format!("cluster/{uid}/machine/{}", machine.id),
                    };
                    done.leased.push((lease.clone(), record.owner.clone()));
                    txn = txn.absent(&lease).with(put_record(lease, &record));
                }
                directory::new_machine(txn, uid, &machine)
            }
            Write::MarkMachine(permit) => change_machine(txn, basis, permit.machine(), |machine| {
                Ok(MachineRecord {
                    deleting: true,
                    ..machine
                })
            })?,
            Write::RenewToken(id) => change_machine(txn, basis, id, |machine| renewed(deps, machine))?,
            Write::Repair {
                machine,
                work,
                healing,
                new_token,
                remove,
            } => change_machine(txn, basis, machine, |machine| {
                let changed = MachineRecord {
                    work: work.clone(),
                    healing: healing.clone(),
                    deleting: machine.deleting || *remove,
                    ..machine
                };
                if *new_token {
                    renewed(deps, changed)
                } else {
                    Ok(changed)
                }
            })?,
            Write::Upgrade { machine, image, work } => {
                if work.as_ref().and_then(Work::upgrade).is_some() {
                    // Not after a newer request: an upgrade that has begun is not reverted.
                    txn = txn.at(key::desired(uid), basis.cluster.revision);
                }
                change_machine(txn, basis, machine, |machine| {
                    Ok(MachineRecord {
                        image: image.clone(),
                        work: work.clone(),
                        ..machine
                    })
                })?
            }
            Write::Inherit { machine, inherited } => change_machine(txn, basis, machine, |mut machine| {
                machine.inherited = Some(inherited.clone());
                Ok(machine)
            })?,
            Write::Empty { machine, emptying } => change_machine(txn, basis, machine.machine(), |machine| {
                Ok(MachineRecord {
                    emptying: emptying.clone(),
                    ..machine
                })
            })?,
            Write::RemoveMachine(id) => {
                let role = basis
                    .machines
                    .iter()
                    .find(|machine| machine.value.id == *id)
                    .and_then(|machine| machine.value.assignment.as_ref())
                    .map(|assignment| &assignment.role);
                if let Some(lease) = role.and_then(|role| lease_of(basis, role)) {
                    txn = txn.delete(lease);
                }
                done.removed.push(id.clone());
                directory::remove_machine(txn, uid, id, now)
            }
            Write::RevokeCredential(id) => change_credential(txn, basis, id, |credential| {
                Some(CredentialRecord {
                    revoked: Some(Revoked { at: now, by: None }),
                    ..credential
                })
            }),
            Write::ForgetCredential(id) => change_credential(txn, basis, id, |_| None),
            Write::RecordBalancer {
                uid: service,
                namespace,
                name,
                address,
                internal,
                public,
                asked,
            } => {
                let record = BalancerRecord {
                    v: 1,
                    uid: service.clone(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                    address: *address,
                    internal: *internal,
                    public: public.clone(),
                    asked: asked.clone(),
                    created_at: now,
                };
                record_balancer(&*deps.store, txn, basis, &record, &mut done).await?
            }
            Write::ForgetBalancer(service) => forget_balancer(txn, basis, service),
            Write::RecordVolume(volume) => {
                record_volume(&*deps.store, txn, basis, volume, now, &mut done).await?
            }
            Write::GrowVolume { volume, bytes } => change_volume(txn, basis, volume, |volume| VolumeRecord {
                bytes: *bytes,
                ..volume
            }),
            Write::VolumePublished(id) => change_volume(txn, basis, id, |volume| VolumeRecord {
                object: String::new(),
                published: true,
                ..volume
            }),
            Write::MarkVolume(id) => change_volume(txn, basis, id, |volume| VolumeRecord {
                deleting: true,
                ..volume
            }),
            Write::ForgetVolume(id) => forget_volume(&*deps.store, txn, basis, id, now).await?,
            Write::ForgetNamespace(name) => forget_namespace(deps, txn, basis, name).await?,
            Write::Scale(sizes) => scale::pools(deps, txn, basis, sizes).await?,
            Write::Progress { id, progress } => match basis.operation(id) {
                Some(operation) => {
                    let next = OperationRecord {
                        progress: progress.clone(),
                        ..OperationRecord::clone(&operation.value)
                    };
                    let key = next.key();
                    txn.at(&key, operation.revision).with(put_record(key, &next))
                }
                None => txn,
            },
            Write::EndOperation { id, status, error } => match basis.operation(id) {
                Some(operation) => end(txn, operation, *status, error.clone(), now),
                None => txn,
            },
            Write::Forget => forget(deps, txn, basis, plan, now, &mut done).await?,
        };
    }
    let mut told = plan.events.clone();
    if done.forgotten {
        told.push(Event::new(
            EventKind::Deleted,
            "",
            "everything of the cluster is gone",
        ));
    }
    txn = events::append(&*deps.store, txn, uid, &told, now).await?;
    let txn = if done.forgotten {
        basis.fence.guard(txn, uid).delete(key::fence(uid))
    } else {
        basis.fence.claim(txn, uid, &deps.host)
    };
    Ok((txn, done))
}

/// A step of the replacement of a cluster's keys, from those of this generation.
async fn step_keys(
    deps: &ControllerDeps,
    txn: Txn,
    uid: &str,
    generation: u64,
    step: &KeyStep,
    now: Timestamp,
) -> Result<Txn, CommitError> {
    let name = key::pki(uid);
    let found = get_record::<PkiRecord>(&*deps.store, &name).await?;
    let Some(Stored { revision, value }) = found.filter(|found| found.value.generation == generation) else {
        return Err(StoreError::Conflict { key: name }.into());
    };
    let sealed_as = key::sealed::pki(uid);
    let keys = deps.sealer.unseal(&sealed_as, &value.sealed)?;
    let next = deps.recipes.step_pki(&keys, step, now)?;
    let record = PkiRecord {
        v: 1,
        generation: generation + 1,
        rotation: value.rotation.after(step),
        sealed: deps.sealer.seal(&sealed_as, &next)?,
    };
    Ok(txn.at(&name, revision).with(put_record(name, &record)))
}

/// The keys of the cluster that another one's state starts from, whether it exists or is deleted.
async fn keys_of(deps: &ControllerDeps, uid: &str) -> Result<Zeroizing<Vec<u8>>, CommitError> {
    let found = match get_record::<PkiRecord>(&*deps.store, &key::pki(uid)).await? {
        Some(found) => Some(found.value),
        None => get_record::<DeletedRecord>(&*deps.store, &key::deleted(uid))
            .await?
            .and_then(|deleted| deleted.value.pki),
    };
    let sealed = found.ok_or_else(|| {
        let why = format!("those of cluster {uid}, whose backup it is made from, are not kept any more");
        RecipeError::new("the cluster's keys", why)
    })?;
    Ok(deps.sealer.unseal(&key::sealed::pki(uid), &sealed.sealed)?)
}

fn lease(mut txn: Txn, uid: &str, basis: &Basis, addresses: &Addresses, done: &mut Committed) -> Txn {
    debug_assert_eq!(basis.cluster.value.uid, uid);
    let Addresses { vip, uplink } = *addresses;
    for (pool, address, what) in [("vips", vip, "vip"), ("machines", uplink, "uplink")] {
        let key = key::lease(pool, address);
        let record = LeaseRecord {
            v: 1,
            owner: format!("cluster/{uid}/{what}"),
        };
        done.leased.push((key.clone(), record.owner.clone()));
        txn = txn.absent(&key).with(put_record(key, &record));
    }
    txn
}

/// The key of a machine's lease: of a member's address in the stamp's network, or of a node's in a tenant's
/// VNET.
fn lease_of(basis: &Basis, role: &Role) -> Option<String> {
    match role {
        // A member made before members had their own leases uses the cluster's until it is gone.
        Role::ControlPlane { address, .. } => {
            (!address.is_unspecified()).then(|| key::lease("machines", *address))
        }
        Role::Node { address, .. } => {
            let vnet = basis.cluster.value.spec().network.vnet.as_ref()?;
            Some(key::lease(&vnet.uid, *address))
        }
    }
}

/// A machine's changed record; no change if it no longer exists.
fn change_machine(
    txn: Txn,
    basis: &Basis,
    id: &str,
    change: impl FnOnce(MachineRecord) -> Result<MachineRecord, CommitError>,
) -> Result<Txn, CommitError> {
    let Some(Stored { revision, value }) = basis.machines.iter().find(|machine| machine.value.id == id)
    else {
        return Ok(txn);
    };
    let changed = change(MachineRecord::clone(value))?;
    let key = key::machine(&basis.cluster.value.uid, id);
    Ok(txn.at(&key, *revision).with(put_record(key, &changed)))
}

/// A new machine: an id and a unique one-time token.
fn machine(
    deps: &ControllerDeps,
    basis: &Basis,
    role: &Role,
    image: &str,
    build: Option<String>,
    now: Timestamp,
) -> Result<MachineRecord, CommitError> {
    let id = deps.env.ids.short();
    let record = MachineRecord {
        v: 2,
        image: image.to_owned(),
        build,
        token_hash: String::new(),
        token_sealed: Vec::new(),
        enrolled_key: None,
        token_used: false,
        assignment: Some(Assignment {
            cluster: basis.cluster.value.uid.clone(),
            role: role.clone(),
        }),
        host: deps.host.clone(),
        deleting: false,
        work: None,
        emptying: None,
        inherited: None,
        healing: Healing {
            replaced: replaced(basis, role),
            ..Healing::default()
        },
        created_at: now,
        id,
    };
    renewed(deps, record)
}

/// The machine with an unused one-time token.
fn renewed(deps: &ControllerDeps, machine: MachineRecord) -> Result<MachineRecord, CommitError> {
    let mut random = Zeroizing::new([0; 32]);
    rand::fill(random.as_mut()).map_err(|_unspecified| CommitError::NoRandomness)?;
    let token = Zeroizing::new(hex::encode(random.as_ref()));
    Ok(MachineRecord {
        token_hash: hex::encode(Sha256::digest(token.as_bytes())),
        token_sealed: deps
            .sealer
            .seal(&key::sealed::machine_token(&machine.id), token.as_bytes())?,
        enrolled_key: None,
        token_used: false,
        ..machine
    })
}

/// How many machines in this place healing has already replaced: its pauses grow with each.
fn replaced(basis: &Basis, role: &Role) -> u32 {
    let same = |other: &Role| match (role, other) {
        (Role::ControlPlane { .. }, Role::ControlPlane { .. }) => true,
        (Role::Node { pool, .. }, Role::Node { pool: other, .. }) => pool == other,
        _ => false,
    };
    basis
        .machines
        .iter()
        .map(|machine| &machine.value)
        .filter(|machine| machine.healing.given_up())
        .filter(|machine| machine.assignment.as_ref().is_some_and(|given| same(&given.role)))
        .map(|machine| machine.healing.replaced + 1)
        .max()
        .unwrap_or_default()
}

fn end(
    txn: Txn,
    operation: &Stored<Arc<OperationRecord>>,
    status: OperationStatus,
    error: Option<OperationError>,
    now: Timestamp,
) -> Txn {
    let mut ended = OperationRecord {
        status,
        error,
        ended_at: Some(now),
        ..OperationRecord::clone(&operation.value)
    };
    if status == OperationStatus::Succeeded {
        ended.progress.percent = 100;
        ended.progress.step.clear();
    }
    let key = ended.key();
    txn.at(&key, operation.revision).with(put_record(key, &ended))
}

fn cluster_id(cluster: &ClusterRecord) -> String {
    format!(
        "/subscriptions/{}/resourceGroups/{}/providers/Microsoft.ContainerService/managedClusters/{}",
        cluster.subscription, cluster.resource_group, cluster.name
    )
}
