//! Script commands for claims of volumes, and checks of the volumes.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};
use cluster_volumes::{Claim, SnapshotStage, Stage, Storage};
use control_records::{
    ClusterRecord, MachineRecord, ObservedRecord, Role,
    disk::{DISK_LABEL, DISKS, DiskRecord},
    unknown,
    volume::VolumeRecord,
};
use fabric_api::{Power, VolumeSeen};
use fabric_sim::{PlantedClaim, SimWorld};
use serde_json::{Value, json};

use crate::{script::Player, stamp::Stamp};

/// Parses a claim: its size in GiB, `class=NAME`, `modes=MODE,…`, `block`, `from=CLAIM`, `snapshot=SNAPSHOT`.
fn planted(name: &str, gib: &str, words: &[&str]) -> Result<PlantedClaim> {
    let mut claim = PlantedClaim {
        name: name.to_owned(),
        gib: gib.parse().context("a size is a number of GiB")?,
        ..PlantedClaim::default()
    };
    for word in words {
        match word.split_once('=') {
            None if *word == "block" => claim.block = true,
            Some(("class", class)) => claim.class = class.to_owned(),
            Some(("modes", modes)) => claim.access_modes = modes.split(',').map(str::to_owned).collect(),
            Some(("from", source)) => claim.source = Some(source.to_owned()),
            Some(("snapshot", snapshot)) => claim.snapshot = Some(snapshot.to_owned()),
            _ => bail!("a claim is not {word}"),
        }
    }
    Ok(claim)
}

/// Parses a tenant's storage class (`retain`, `immediate`); gives its name among a cluster's objects, too.
fn class(name: &str, words: &[&str]) -> Result<(String, Value)> {
    let mut object = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": { "name": name },
        "provisioner": cluster_volumes::DRIVER, "reclaimPolicy": "Delete", "allowVolumeExpansion": true,
        "volumeBindingMode": "WaitForFirstConsumer", "parameters": { "skuName": "StandardSSD_LRS" }
    });
    for word in words {
        match *word {
            "retain" => object["reclaimPolicy"] = json!("Retain"),
            "immediate" => object["volumeBindingMode"] = json!("Immediate"),
            _ => bail!("a storage class is not {word}"),
        }
    }
    Ok((format!("storage.k8s.io/v1/StorageClass {name}"), object))
}

/// Carries out a script command for a claim of a cluster.
pub(crate) fn change(world: &SimWorld, uid: &str, verb: &str, words: &[&str]) -> Result<()> {
    let done = match (verb, words) {
        ("class", [name, rest @ ..]) => {
            let (key, object) = class(name, rest)?;
            world.put_object(uid, &key, object);
            true
        }
        ("claim", [name, gib, rest @ ..]) => world.plant_claim(uid, &planted(name, gib, rest)?),
        ("use", [name]) => world.use_claim(uid, name, None),
        ("use", [name, node]) => world.use_claim(uid, name, Some(node)),
        ("leave", [name]) => world.leave_claim(uid, name),
        ("grow", [name, gib]) => world.grow_claim(uid, name, gib.parse()?),
        ("drop-claim", [name]) => world.remove_claim(uid, name),
        ("snapshot", [name, claim]) => world.plant_snapshot(uid, name, claim),
        ("drop-snapshot", [name]) => world.remove_snapshot(uid, name),
        _ => bail!("there is no such command"),
    };
    ensure!(done, "the cluster does not do that");
    Ok(())
}

fn gib(bytes: u64) -> String {
    format!("{} GiB", bytes >> 30)
}

fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    let found = object.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_default()
}

impl Player {
    /// The claims of a cluster, its persistent volumes, and its volumes in the fabric, a line each.
    pub(crate) async fn volumes(&mut self, name: &str) -> Result<()> {
        let stamp = &self.stamp;
        let cluster = stamp.cluster(name).await?.context("there is no such cluster")?;
        let objects = stamp.world.storage(&cluster.uid);
        let mut lines = Vec::new();
        for claim in &objects.claims {
            let called = text(claim, "/metadata/name");
            let phase = text(claim, "/status/phase");
            let size = text(claim, "/status/capacity/storage");
            let asked = text(claim, "/spec/resources/requests/storage");
            let volume = text(claim, "/spec/volumeName");
            lines.push(format!("claim {called}: {phase} {volume} {size} of {asked}"));
            let told = stamp.world.told_of_claim(&cluster.uid, called);
            lines.extend(told.map(|told| format!("  {told}")));
        }
        for volume in &objects.volumes {
            let called = text(volume, "/metadata/name");
            let phase = text(volume, "/status/phase");
            let policy = text(volume, "/spec/persistentVolumeReclaimPolicy");
            lines.push(format!("volume {called}: {phase}, {policy}"));
        }
        for snapshot in &objects.snapshots {
            let called = text(snapshot, "/metadata/name");
            let ready = snapshot["status"]["readyToUse"] == true;
            let size = text(snapshot, "/status/restoreSize");
            lines.push(format!(
                "snapshot {called}: {} {size}",
                if ready { "ready" } else { "not ready" }
            ));
            let told = stamp.world.told_of_snapshot(&cluster.uid, called);
            lines.extend(told.map(|told| format!("  {told}")));
        }
        for attachment in &objects.attachments {
            let volume = text(attachment, "/spec/source/persistentVolumeName");
            let node = text(attachment, "/spec/nodeName");
            let attached = if attachment["status"]["attached"] == true {
                "attached"
            } else {
                "not attached"
            };
            let going = if attachment["metadata"]["deletionTimestamp"].is_string() {
                ", to go"
            } else {
                ""
            };
            lines.push(format!("  {volume} on {node}: {attached}{going}"));
        }
        let records = stamp
            .records::<VolumeRecord>(&VolumeRecord::all(&cluster.uid))
            .await?;
        let there = stamp.world.volumes();
        for record in records.values() {
            let found = there.iter().find(|volume| volume.id.as_str() == record.id);
            let found = found.map_or_else(|| "not made".to_owned(), place);
            lines.push(format!("in the fabric {}: {found}", record.name));
        }
        for line in lines {
            let line = self.stamp.trace.told(&line);
            self.say(&line);
        }
        Ok(())
    }

    /// Volumes in the fabric, of all clusters.
    pub(crate) fn all_volumes(&mut self) {
        let there = self.stamp.world.volumes();
        if there.is_empty() {
            self.say("no volumes");
        }
        for volume in there {
            let line = format!("{}: {}", volume.id, place(&volume));
            let line = self.stamp.trace.told(&line);
            self.say(&line);
        }
    }
}

/// The size of a volume, and the machine that it is attached to.
fn place(volume: &VolumeSeen) -> String {
    let size = gib(volume.bytes);
    match &volume.attached {
        None if volume.open => format!("{size} for all machines"),
        None => size,
        Some(machine) => format!("{size} at {machine}"),
    }
}

/// The checked data of one cluster.
struct Held<'a> {
    cluster: &'a ClusterRecord,
    records: BTreeMap<&'a str, &'a VolumeRecord>,
    there: &'a BTreeMap<String, VolumeSeen>,
    storage: Storage,
    /// Machines of its nodes, by their names.
    machines: BTreeMap<String, String>,
    /// Whether it was restored to an earlier state, or made from another's: then it may have objects of
    /// volumes that no longer exist, and lack those of some that do.
    restored: bool,
}

impl Stamp {
    /// Each claim that is to have a volume has one, recorded, published, in the fabric and large enough; each
    /// claim in use is attached to its user's node only; no deleted volume is left over.
    pub(crate) async fn check_volumes(
        &self,
        clusters: &BTreeMap<String, ClusterRecord>,
        observed: &BTreeMap<String, ObservedRecord>,
        machines: &BTreeMap<String, MachineRecord>,
        problems: &mut Vec<String>,
    ) -> Result<()> {
        let there = self.world.volumes().into_iter();
        let there: BTreeMap<String, VolumeSeen> =
            there.map(|volume| (volume.id.to_string(), volume)).collect();
        let mut unknown: BTreeSet<String> = there.keys().cloned().collect();
        for disk in self.records::<DiskRecord>(DISKS).await?.into_values() {
            let volume = disk.volume();
            unknown.remove(&volume);
            let found = there.get(&volume);
            if disk.failure.is_none() && found.is_none_or(|found| found.bytes < disk.bytes) {
                problems.push(format!(
                    "the disk {} is to be of {}: {found:?}",
                    disk.name, disk.bytes
                ));
            }
            let holder = disk.holder.as_ref();
            if let Some(uid) = holder.filter(|uid| !clusters.contains_key(*uid)) {
                problems.push(format!(
                    "the disk {} is had by {uid}, which is no cluster",
                    disk.name
                ));
            }
        }
        for (uid, cluster) in clusters {
            let name = &cluster.name;
            let records = self.records::<VolumeRecord>(&VolumeRecord::all(uid)).await?;
            let seen = observed.get(uid);
            let volumes = seen.is_some_and(|seen| seen.volumes);
            if volumes == records.is_empty() {
                let count = records.len();
                problems.push(format!("{name}: {count} volumes, and observed is {volumes}"));
            }
            for record in records.values() {
                unknown.remove(&record.id);
            }
            if cluster.spec().stopped || cluster.requests.halted || cluster.deleting {
                continue;
            }
            let held = Held {
                cluster,
                records: records
                    .values()
                    // Tenants' disks are not made for the cluster.
                    .filter(|record| record.disk.is_none())
                    .map(|record| (record.id.as_str(), record))
                    .collect(),
                there: &there,
                storage: Storage::read(&self.world.storage(uid)),
                machines: nodes(uid, machines),
                restored: seen.is_some_and(|seen| seen.restored.is_some()),
            };
            self.check_claims(&held, problems);
            self.check_snapshots(&held, problems);
            held.check_records(problems);
            self.check_attachments(&held, problems);
        }
        if !unknown.is_empty() {
            for kept in unknown::list(&*self.disk).await? {
                unknown.remove(&kept.id);
            }
        }
        for id in unknown {
            // A tenant's disk goes with the sweep after its record.
            let of_disk = there[&id].labels.contains_key(DISK_LABEL);
            if of_disk && unknown::is_removed(&*self.disk, unknown::Kind::Volume, &id).await? {
                continue;
            }
            problems.push(format!("the volume {id} is in no record"));
        }
        Ok(())
    }

    fn check_claims(&self, held: &Held<'_>, problems: &mut Vec<String>) {
        let name = &held.cluster.name;
        for claim in &held.storage.claims {
            let called = &claim.claim.name;
            match &claim.stage {
                Stage::Waiting => {}
                // For a claim that is being deleted, no volume is made and no event written.
                Stage::Wanted(_) | Stage::Refused(_) if claim.deleting => {}
                Stage::Bound => held.check_bound(claim, problems),
                Stage::Wanted(_) | Stage::Refused(_) => {
                    // An impossible request has an event.
                    let told = self.world.told_of_claim(&held.cluster.uid, called);
                    if !told.is_some_and(|told| told.starts_with("ProvisioningFailed")) {
                        problems.push(format!(
                            "{name}: the claim {called} has no volume: {:?}",
                            claim.stage
                        ));
                    }
                }
            }
        }
    }

    /// Each VolumeSnapshot is ready, waits, or has an event with the reason.
    fn check_snapshots(&self, held: &Held<'_>, problems: &mut Vec<String>) {
        let name = &held.cluster.name;
        for snapshot in &held.storage.snapshots {
            let called = &snapshot.snapshot.name;
            let waits = snapshot.ready || snapshot.deleting || snapshot.stage == SnapshotStage::Waiting;
            let told = self.world.told_of_snapshot(&held.cluster.uid, called);
            if !waits && told.is_none() && !held.restored {
                problems.push(format!(
                    "{name}: the snapshot {called} was not taken: {:?}",
                    snapshot.stage
                ));
            }
        }
    }

    fn check_attachments(&self, held: &Held<'_>, problems: &mut Vec<String>) {
        let name = &held.cluster.name;
        let nodes: BTreeSet<String> = self
            .world
            .nodes(&held.cluster.uid)
            .into_iter()
            .map(|node| node.name)
            .collect();
        let power = self.world.machines().into_iter();
        let power: BTreeMap<String, Power> = power
            .map(|machine| (machine.id.to_string(), machine.power))
            .collect();
        let mut wanted = BTreeMap::new();
        for attachment in &held.storage.attachments {
            let volume = held
                .storage
                .volumes
                .iter()
                .find(|volume| volume.name == attachment.volume);
            let record = volume
                .and_then(|volume| volume.id.as_deref())
                .and_then(|id| held.records.get(id));
            // A deleted volume, or another cluster's, cannot be attached.
            let Some(record) = record else { continue };
            let what = format!("{name}: {} on {}", attachment.volume, attachment.node);
            if attachment.deleting {
                problems.push(format!("{what} is still to go"));
            }
            if !nodes.contains(&attachment.node) {
                problems.push(format!("{what}, which is no node"));
            }
            // A machine whose record was lost still has its node, and no volume is attached to it.
            let Some(machine) = held.machines.get(&attachment.node) else {
                continue;
            };
            wanted.insert(record.id.as_str(), machine.as_str());
            // No volume is attached to a stopped machine.
            if power.get(machine) != Some(&Power::Running) {
                continue;
            }
            let found = held.there.get(&record.id);
            let at = found.and_then(|volume| volume.attached.as_ref());
            let at = at.map(ToString::to_string);
            if at.as_ref() != Some(machine) || !attachment.attached || !attachment.held {
                let (attached, held) = (attachment.attached, attachment.held);
                problems.push(format!(
                    "{what}: attached {attached}, held {held}, and it is at {at:?}, not {machine}"
                ));
            }
        }
        // A restored cluster may lack the objects of its users' volumes, and detaches none.
        let records = held.records.iter().filter(|_| !held.restored);
        for (id, record) in records {
            let at = held.there.get(*id).and_then(|volume| volume.attached.as_ref());
            let Some(at) = at.map(ToString::to_string) else {
                continue;
            };
            if !power.contains_key(&at) {
                problems.push(format!("{name}: {} is at {at}, which is no machine", record.name));
            }
            if wanted.get(id) != Some(&at.as_str()) {
                problems.push(format!(
                    "{name}: {} is at {at}, and no pod uses it there",
                    record.name
                ));
            }
        }
    }
}

impl Held<'_> {
    /// A claim with a volume has all the objects of one.
    fn check_bound(&self, claim: &Claim, problems: &mut Vec<String>) {
        let (name, called) = (&self.cluster.name, &claim.claim.name);
        let volume = self
            .storage
            .volumes
            .iter()
            .find(|volume| volume.name == claim.volume);
        if volume.is_some_and(|volume| volume.disk.is_some()) {
            // It stands for a tenant's disk.
            return;
        }
        let id = volume.and_then(|volume| volume.id.as_deref());
        let record = id.and_then(|id| self.records.get(id));
        let (Some(volume), Some(record)) = (volume, record) else {
            if !self.restored {
                problems.push(format!(
                    "{name}: the claim {called} has a volume that is not known"
                ));
            }
            return;
        };
        if !record.published {
            problems.push(format!("{name}: {} is not known to be published", record.name));
        }
        let bytes = self.there.get(&record.id).map(|volume| volume.bytes);
        if volume.bytes < claim.bytes || bytes.is_none_or(|bytes| bytes < claim.bytes) {
            problems.push(format!(
                "{name}: the claim {called} asks for {}, its volume is of {}, in the fabric of {bytes:?}",
                claim.bytes, volume.bytes
            ));
        }
    }

    /// A snapshot has a content object, and a VolumeSnapshot unless it is retained without one.
    fn check_content(&self, record: &VolumeRecord, problems: &mut Vec<String>) {
        let (name, called) = (&self.cluster.name, &record.name);
        let mut contents = self.storage.contents.iter();
        match contents.find(|content| content.id.as_ref() == Some(&record.id)) {
            Some(content) if content.orphaned && content.deletes => {
                problems.push(format!(
                    "{name}: the snapshot of {called} is gone, and it is there"
                ));
            }
            Some(content) if !content.ready => problems.push(format!("{name}: {called} is not ready")),
            None if !self.restored => {
                problems.push(format!("{name}: no content tells of {called}"));
            }
            Some(_) | None => {}
        }
    }

    /// Each record has its volume and its object in the cluster.
    fn check_records(&self, problems: &mut Vec<String>) {
        let name = &self.cluster.name;
        for (id, record) in &self.records {
            let called = &record.name;
            if record.deleting {
                problems.push(format!("{name}: {called} is still to go"));
                continue;
            }
            let there = self.there.get(*id);
            if there.is_none_or(|volume| volume.bytes < record.bytes) {
                problems.push(format!(
                    "{name}: {called} is to be of {}: {there:?}",
                    record.bytes
                ));
            }
            if record.shared && !record.snapshot && there.is_some_and(|volume| !volume.open) {
                problems.push(format!("{name}: no machine finds the share {called}"));
            }
            if record.snapshot {
                self.check_content(record, problems);
                continue;
            }
            let mut volumes = self.storage.volumes.iter();
            let volume = volumes.find(|volume| volume.id.as_deref() == Some(*id));
            match volume {
                Some(volume) if volume.released && volume.deletes => {
                    problems.push(format!("{name}: the claim of {called} is gone, and it is there"));
                }
                Some(volume) if volume.deleting => {
                    problems.push(format!("{name}: {called} is deleted, and it is there"));
                }
                None if !self.restored => {
                    problems.push(format!("{name}: no persistent volume tells of {called}"));
                }
                Some(_) | None => {}
            }
        }
        for volume in &self.storage.volumes {
            // A tenant's disk has a record of its own, and is a cluster's only while a node is to have it.
            if volume.disk.is_some() {
                let mut attachments = self.storage.attachments.iter();
                let waits = attachments.any(|attachment| {
                    attachment.volume == volume.name
                        && !attachment.deleting
                        && !attachment.attached
                        && attachment.failure.is_none()
                });
                if waits {
                    problems.push(format!(
                        "{name}: {} is attached to no node, and nobody is told why",
                        volume.name
                    ));
                }
                continue;
            }
            let known = volume
                .id
                .as_deref()
                .is_some_and(|id| self.records.contains_key(id));
            if !known && !self.restored {
                problems.push(format!("{name}: {} is in no record", volume.name));
            }
        }
    }
}

/// The machines of a cluster's nodes, by the nodes' names.
fn nodes(uid: &str, machines: &BTreeMap<String, MachineRecord>) -> BTreeMap<String, String> {
    let own = machines.values().filter_map(|machine| {
        let given = machine.assignment.as_ref()?;
        match &given.role {
            Role::Node { node_name, .. } if given.cluster == *uid => {
                Some((node_name.clone(), machine.id.clone()))
            }
            Role::Node { .. } | Role::ControlPlane { .. } => None,
        }
    });
    own.collect()
}
