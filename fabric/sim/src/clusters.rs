//! The world's clusters.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use cluster_api::{
    Changes, ClusterApi, ClusterError, CommandEnd, CommandSeen, Connect, Drained, Endpoint, IsOwn,
    NamespaceSeen, NamespaceWish, NodeSeen, NodeWish, ObjectRef, ServiceSeen, ServiceWish, VolumeObjects,
    VolumeWish, Watch, WorkNotes, WorkObjects, command_name,
};
use cluster_changes::ChangeCount;
use fabric_api::Power;
use serde_json::Value;

use crate::{
    Inner, SimWorld,
    etcd::Etcd,
    fabric::INJECTED,
    faults::{Call, Verdict},
    namespaces,
    node::Node,
    pods, services,
    state::State,
    volumes,
};

impl Inner {
    /// Brings node objects to the state that their kubelets would set.
    pub(crate) fn join_nodes(&self, state: &mut State, uid: &str) {
        if !state.api_ready(uid) {
            return;
        }
        let mut changed = false;
        let mut joined = Vec::new();
        let members = state.members.get(uid).cloned().unwrap_or_default();
        for id in members {
            let works = state.works(&id);
            let Some(machine) = state.machines.get_mut(&id) else {
                continue;
            };
            let Some(name) = machine.node_of(uid).map(str::to_owned) else {
                continue;
            };
            if !machine.serves_as("node") || (!works && !machine.registered) {
                continue;
            }
            joined.push((
                name,
                id,
                machine.address(),
                machine.spec.image.clone(),
                machine.ready && works,
                machine.registered,
            ));
            machine.registered = true;
        }
        let pods = self.options.pods;
        let cluster = state.cluster(uid);
        for (name, machine, address, image, ready, registered) in joined {
            // A kubelet creates its node object once in its life. If it is deleted later, it stays away.
            if !registered && !cluster.nodes.contains_key(&name) {
                changed = true;
                cluster
                    .nodes
                    .insert(name.clone(), new_node(&name, &machine, address, pods));
            }
            if let Some(node) = cluster
                .nodes
                .get_mut(&name)
                .filter(|node| node.machine == machine || !registered)
            {
                let before = node.seen.clone();
                node.machine = machine;
                node.address = address;
                node.seen.ready = ready;
                node.seen.kubelet_version = format!("v{image}");
                changed |= node.seen != before;
            }
        }
        if changed {
            volumes::settle(cluster);
            pods::settle(cluster);
            cluster.changed();
        }
    }

    /// A machine of the cluster no longer runs.
    pub(crate) fn after_loss(self: &Arc<Self>, state: &mut State, uid: &str, machine: &str) {
        self.etcd_changed(state, uid);
        // The end of an API server closes its connections.
        state.cluster(uid).changed();
        let wait = self.delay(&self.options.node_lost, machine, "lost", 0);
        let (uid, machine) = (uid.to_owned(), machine.to_owned());
        self.later(wait, move |inner| {
            let mut state = inner.state();
            let runs = state
                .machines
                .get(&machine)
                .is_some_and(|machine| machine.power == Power::Running && machine.up)
                && state.works(&machine);
            let Some(cluster) = state.clusters.get_mut(&uid).filter(|_| !runs) else {
                return;
            };
            let mut changed = false;
            for node in cluster.nodes.values_mut().filter(|node| node.machine == machine) {
                changed |= std::mem::replace(&mut node.seen.ready, false);
            }
            if changed {
                cluster.changed();
            }
        });
    }

    /// A cluster's data is on the disks of its control plane machines, and in its backup if there is one.
    pub(crate) fn bury(&self, state: &mut State, uid: &str) {
        if !self.options.backup
            && !state
                .members
                .get(uid)
                .into_iter()
                .flatten()
                .filter_map(|id| state.machines.get(id))
                .any(|machine| machine.is_control_plane_of(uid))
            && let Some(cluster) = state.clusters.get_mut(uid)
        {
            cluster.nodes.clear();
            cluster.objects.clear();
            cluster.etcd = Etcd::default();
            cluster.changed();
        }
    }

    pub(crate) fn stall(&self, uid: &str, stalled: bool) {
        let mut state = self.state();
        let cluster = state.cluster(uid);
        cluster.stalled = stalled;
        cluster.changed();
        self.join_nodes(&mut state, uid);
    }
}

pub(crate) fn new_node(name: &str, machine: &str, address: Option<std::net::Ipv4Addr>, pods: u32) -> Node {
    let mut seen = NodeSeen {
        name: name.to_owned(),
        ..NodeSeen::default()
    };
    seen.labels
        .insert("kubernetes.io/hostname".into(), name.to_owned());
    Node {
        seen,
        machine: machine.to_owned(),
        address,
        serving_pending: true,
        pods,
        draining: false,
        drained: false,
        our_labels: BTreeSet::new(),
        our_taints: BTreeSet::new(),
    }
}

impl Connect for SimWorld {
    fn connect(&self, cluster: &str, _endpoint: &Endpoint) -> Result<Arc<dyn ClusterApi>, ClusterError> {
        let verdict = self.inner.state().faults.judge(
            Call::Connect,
            self.inner.env.seed,
            self.inner.options.failure_rate,
        );
        if verdict != Verdict::Works {
            return Err(ClusterError::Unavailable(INJECTED.into()));
        }
        Ok(Arc::new(SimCluster {
            inner: Arc::clone(&self.inner),
            uid: cluster.to_owned(),
        }))
    }
}

/// The client of a cluster's API.
struct SimCluster {
    inner: Arc<Inner>,
    uid: String,
}

impl SimCluster {
    /// Makes a call: it fails by an injected fault, or because the API is not ready, or succeeds.
    async fn call<T: Send>(
        &self,
        call: Call,
        what: &str,
        act: impl FnOnce(&mut State) -> Result<T, ClusterError> + Send,
    ) -> Result<T, ClusterError> {
        let what = format!("{} {what}", self.uid);
        let what = what.trim_end();
        let verdict = self.inner.judge(call, what).await;
        if verdict == Verdict::Fails {
            return Err(ClusterError::Unavailable(INJECTED.into()));
        }
        let wait = self.inner.draw_api(call);
        if !wait.is_zero() {
            self.inner.env.clock.sleep(wait).await;
        }
        let result = {
            let mut state = self.inner.state();
            if state.api_ready(&self.uid) {
                act(&mut state)
            } else {
                Err(ClusterError::Unavailable("connection refused".into()))
            }
        };
        let failure = result.as_ref().err().map(ToString::to_string);
        self.inner.done(call, what, failure.as_deref()).await;
        match verdict {
            Verdict::LosesAnswer => Err(ClusterError::Unavailable(INJECTED.into())),
            _ => result,
        }
    }
}

#[async_trait]
impl ClusterApi for SimCluster {
    async fn ready(&self) -> Result<(), ClusterError> {
        self.call(Call::Ready, "", |_| Ok(())).await
    }

    async fn nodes(&self) -> Result<Vec<NodeSeen>, ClusterError> {
        self.call(Call::Nodes, "", |state| {
            let cluster = state.cluster(&self.uid);
            Ok(cluster.nodes.values().map(|node| node.seen.clone()).collect())
        })
        .await
    }

    async fn set_node(&self, wish: &NodeWish) -> Result<(), ClusterError> {
        self.call(Call::SetNode, &wish.name, |state| {
            let cluster = state.cluster(&self.uid);
            let Some(node) = cluster.nodes.get_mut(&wish.name) else {
                return Ok(());
            };
            let before = node.seen.clone();
            if let Some(range) = wish.pod_range {
                let range = range.to_string();
                match &node.seen.pod_range {
                    Some(there) if *there != range => {
                        return Err(ClusterError::Refused {
                            act: format!("set the pod range of node {}", wish.name),
                            why: "it may only be set once".into(),
                        });
                    }
                    _ => node.seen.pod_range = Some(range),
                }
            }
            for gone in node
                .our_labels
                .iter()
                .filter(|name| !wish.labels.contains_key(*name))
            {
                node.seen.labels.remove(gone);
            }
            node.seen.labels.extend(
                wish.labels
                    .iter()
                    .map(|(name, value)| (name.clone(), value.clone())),
            );
            node.our_labels = wish.labels.keys().cloned().collect();
            if wish.takes_pods && std::mem::take(&mut node.drained) {
                node.seen.cordoned = false;
            }
            let ours = std::mem::take(&mut node.our_taints);
            node.seen
                .taints
                .retain(|taint| !ours.contains(taint) && !wish.taints.contains(taint));
            node.seen.taints.extend(wish.taints.iter().cloned());
            node.our_taints = wish.taints.iter().cloned().collect();
            if node.seen != before {
                pods::settle(cluster);
                cluster.changed();
            }
            Ok(())
        })
        .await
    }

    async fn approve_serving(&self, nodes: &[NodeWish]) -> Result<u32, ClusterError> {
        self.call(Call::ApproveServing, "", |state| {
            let cluster = state.cluster(&self.uid);
            let mut approved = 0;
            for wish in nodes {
                if let Some(node) = cluster.nodes.get_mut(&wish.name)
                    && node.serving_pending
                    && wish.address.is_some()
                    && wish.address == node.address
                {
                    node.serving_pending = false;
                    approved += 1;
                }
            }
            Ok(approved)
        })
        .await
    }

    async fn read(&self, objects: &[ObjectRef]) -> Result<Vec<Value>, ClusterError> {
        // It changes nothing and always precedes another call: it takes no time and is not a separate step.
        let mut state = self.inner.state();
        if !state.api_ready(&self.uid) {
            return Err(ClusterError::Unavailable("connection refused".into()));
        }
        let there = &state.cluster(&self.uid).objects;
        let found = objects.iter().filter_map(|object| there.get(&named(object)));
        Ok(found.cloned().collect())
    }

    async fn apply(&self, objects: &[Value]) -> Result<u32, ClusterError> {
        self.call(Call::Apply, "", |state| {
            let named: Vec<(String, &Value)> = objects
                .iter()
                .map(|object| {
                    let name = object_name(object).ok_or_else(|| ClusterError::Refused {
                        act: "apply an object".into(),
                        why: "it has no apiVersion, kind or name".into(),
                    })?;
                    Ok((name, object))
                })
                .collect::<Result<_, ClusterError>>()?;
            let cluster = state.cluster(&self.uid);
            let mut changed = 0;
            for (name, object) in named {
                if cluster.objects.get(&name) != Some(object) {
                    cluster.objects.insert(name, object.clone());
                    changed += 1;
                }
            }
            if changed > 0 {
                volumes::settle(cluster);
                cluster.changed();
            }
            Ok(changed)
        })
        .await
    }

    async fn delete_objects(&self, objects: &[ObjectRef]) -> Result<u32, ClusterError> {
        self.call(Call::DeleteObjects, "", |state| {
            let cluster = state.cluster(&self.uid);
            let gone = objects
                .iter()
                .filter(|object| cluster.objects.remove(&named(object)).is_some());
            let gone = gone.count();
            if gone > 0 {
                cluster.changed();
            }
            Ok(u32::try_from(gone).unwrap_or(u32::MAX))
        })
        .await
    }

    async fn replace(
        &self,
        of: &Watch,
        own: IsOwn,
        objects: &[Value],
        gone: &[String],
    ) -> Result<u32, ClusterError> {
        self.call(Call::Replace, "", |state| {
            let prefix = format!("{}/{} ", of.version, of.kind);
            let wanted: BTreeMap<String, &Value> = objects
                .iter()
                .filter_map(|object| Some((object_name(object)?, object)))
                .collect();
            let cluster = state.cluster(&self.uid);
            let before = cluster.objects.len();
            cluster.objects.retain(|name, _| {
                let of_kind = name.strip_prefix(&prefix);
                let over = |own_name: &str| own(own_name) || gone.iter().any(|gone| gone == own_name);
                wanted.contains_key(name) || !of_kind.is_some_and(over)
            });
            let mut changed = before - cluster.objects.len();
            for (name, object) in wanted {
                if cluster.objects.get(&name) != Some(object) {
                    cluster.objects.insert(name, object.clone());
                    changed += 1;
                }
            }
            if changed > 0 {
                volumes::settle(cluster);
                cluster.changed();
            }
            Ok(u32::try_from(changed).unwrap_or(u32::MAX))
        })
        .await
    }

    async fn drain(&self, node: &str) -> Result<Drained, ClusterError> {
        self.call(Call::Drain, node, |state| {
            let cluster = state.cluster(&self.uid);
            let Some(found) = cluster.nodes.get_mut(node) else {
                return Ok(Drained::default());
            };
            let fresh = !std::mem::replace(&mut found.seen.cordoned, true);
            found.drained = true;
            if found.pods > 0 && !std::mem::replace(&mut found.draining, true) {
                let wait = self
                    .inner
                    .delay(&self.inner.options.drain, &found.machine, "drain", 0);
                let (uid, name) = (self.uid.clone(), node.to_owned());
                self.inner.later(wait, move |inner| {
                    let mut state = inner.state();
                    let cluster = state.cluster(&uid);
                    if let Some(node) = cluster.nodes.get_mut(&name) {
                        node.pods = 0;
                        pods::evict(cluster, &name);
                        cluster.changed();
                    }
                });
            }
            let left = found.pods;
            if left == 0 {
                pods::evict(cluster, node);
            }
            if fresh {
                cluster.changed();
            }
            Ok(Drained { left, held: None })
        })
        .await
    }

    async fn delete_node(&self, name: &str) -> Result<(), ClusterError> {
        self.call(Call::DeleteNode, name, |state| {
            let cluster = state.cluster(&self.uid);
            if cluster.nodes.remove(name).is_some() {
                self.inner.lost_node(cluster, &self.uid, name);
                pods::settle(cluster);
                cluster.changed();
            }
            Ok(())
        })
        .await
    }

    async fn command(&self, id: &str, objects: &[Value]) -> Result<CommandSeen, ClusterError> {
        self.call(Call::Command, id, |state| {
            let cluster = state.cluster(&self.uid);
            let pod = objects.iter().find(|object| object["kind"] == "Pod");
            let name = pod.and_then(object_name).ok_or_else(|| ClusterError::Refused {
                act: "run a command".into(),
                why: "it has no pod".into(),
            })?;
            if cluster.objects.contains_key(&name) {
                return Ok(CommandSeen::Ended(CommandEnd {
                    exit_code: Some(0),
                    logs: "done".to_owned(),
                    ..CommandEnd::default()
                }));
            }
            for object in objects {
                cluster
                    .objects
                    .extend(object_name(object).map(|name| (name, object.clone())));
            }
            Ok(CommandSeen::Waiting(None))
        })
        .await
    }

    async fn end_command(&self, id: &str) -> Result<(), ClusterError> {
        self.call(Call::EndCommand, id, |state| {
            let own = format!("/{}", command_name(id));
            state
                .cluster(&self.uid)
                .objects
                .retain(|name, _| !name.ends_with(&own));
            Ok(())
        })
        .await
    }

    async fn services(&self) -> Result<Vec<ServiceSeen>, ClusterError> {
        // If there are none, it is read together with the nodes: it takes no time and is not a separate step.
        let none = {
            let mut state = self.inner.state();
            state.api_ready(&self.uid) && services::seen(state.cluster(&self.uid)).is_empty()
        };
        if none {
            return Ok(Vec::new());
        }
        self.call(Call::Services, "", |state| {
            Ok(services::seen(state.cluster(&self.uid)))
        })
        .await
    }

    async fn set_service(&self, wish: &ServiceWish) -> Result<(), ClusterError> {
        let what = format!("{}/{}", wish.namespace, wish.name);
        self.call(Call::SetService, &what, |state| {
            services::set(state.cluster(&self.uid), wish);
            Ok(())
        })
        .await
    }

    async fn volumes(&self) -> Result<VolumeObjects, ClusterError> {
        // As with Services: if there are none, it is not a separate step.
        let none = {
            let mut state = self.inner.state();
            state.api_ready(&self.uid) && volumes::is_empty(state.cluster(&self.uid))
        };
        if none {
            return Ok(VolumeObjects::default());
        }
        self.call(Call::Volumes, "", |state| {
            Ok(volumes::seen(state.cluster(&self.uid)))
        })
        .await
    }

    async fn set_volume(&self, wish: &VolumeWish) -> Result<(), ClusterError> {
        self.call(Call::SetVolume, &volumes::describe(wish), |state| {
            volumes::set(state.cluster(&self.uid), wish)
        })
        .await
    }

    async fn work(&self) -> Result<WorkObjects, ClusterError> {
        self.call(Call::Work, "", |state| Ok(pods::seen(state.cluster(&self.uid))))
            .await
    }

    async fn tell_work(&self, notes: &WorkNotes) -> Result<(), ClusterError> {
        self.call(Call::TellWork, "", |state| {
            let objects = &mut state.cluster(&self.uid).objects;
            if let Some(status) = &notes.status {
                objects.insert(pods::STATUS.to_owned(), Value::from(status.as_str()));
            }
            for event in &notes.events {
                let told = format!("{}: {}", event.note.reason, event.note.message);
                objects.insert(format!("{}{}", pods::TOLD, event.name), Value::from(told));
            }
            Ok(())
        })
        .await
    }

    async fn set_namespace(&self, wish: &NamespaceWish) -> Result<NamespaceSeen, ClusterError> {
        self.call(Call::SetNamespace, &wish.name, |state| {
            let cluster = state.cluster(&self.uid);
            let (changed, seen) = namespaces::set(cluster, wish);
            if changed {
                cluster.changed();
            }
            Ok(seen)
        })
        .await
    }

    fn changes(&self) -> Arc<dyn Changes> {
        Arc::new(ChangeCount::new(
            self.inner.state().cluster(&self.uid).changes.subscribe(),
        ))
    }
}

/// The same of an object that is only named.
fn named(object: &ObjectRef) -> String {
    let namespace = object.namespace.map(|namespace| format!("{namespace}/"));
    let namespace = namespace.unwrap_or_default();
    format!("{}/{} {namespace}{}", object.version, object.kind, object.name)
}

/// `{apiVersion}/{kind} {namespace}/{name}`, without the namespace for cluster-scoped objects.
fn object_name(object: &Value) -> Option<String> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (version, kind, name) = (text("/apiVersion")?, text("/kind")?, text("/metadata/name")?);
    Some(match text("/metadata/namespace") {
        Some(namespace) => format!("{version}/{kind} {namespace}/{name}"),
        None => format!("{version}/{kind} {name}"),
    })
}
