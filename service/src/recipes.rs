//! The recipes of real clusters: `cluster/pki`, `cluster/bootstrap` and `cluster/addons` behind [`Recipes`].

use std::{collections::BTreeSet, net::Ipv4Addr};

use agent_protocol::{MachineConfig, programs::EtcdRestore};
use cluster_addons::{
    AddonOptions, CREDENTIAL_BINDINGS, SUPPORT_OBJECTS, credential_binding, credential_user,
    is_credential_binding, leaving, manifests, support_objects, trusted_binding,
};
use cluster_api::{AddonAilment, Endpoint, NodeMarks, NodeWish, ObjectRef, QUARANTINED};
use cluster_bootstrap::{
    BootstrapError, ControlPlaneAddresses, ControlPlanePlace, NodePlace, RegistryAccess, TokenAuthority,
    admin_endpoint, command_objects, control_plane_config, control_plane_nics, guard, keep_leaves, network,
    node_config, node_nics, node_wish, oldest_leaf,
    renderer::{Sample, renderer_version},
};
use cluster_pki::ClusterPki;
use cluster_spec::{ClusterSpec, CredentialKind, PoolSpec, TrustedRole};
use control_loops::{Configured, CredentialObjects, Former, RecipeError, Recipes, Secret, Site};
use control_planner::{ControlPlane, CredentialsWish, NetworkLayout, RendererVersions};
use control_records::{ClusterRecord, KeyStep, MachineRecord, Role, command::CommandInput};
use fabric_api::{NetworkSpec, NicSpec};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use zeroize::Zeroizing;

/// See the module.
#[derive(Debug, Clone, Default)]
pub struct KubernetesRecipes {
    /// Cores of the host that machines run on.
    pub host_cores: u32,
    /// Its memory, MiB.
    pub host_memory_mib: u64,
    /// Whether it can limit a node's disk to the size of its pool. A machine made when it could not is
    /// treated the same: that is not visible from outside, and its pool's next upgrade makes it anew.
    pub disk_limits: bool,
    /// Options of add-ons beside the cluster.
    pub addons: AddonOptions,
    /// The token service for principals of the directory.
    pub authority: TokenAuthority,
    /// The stamp's registries of images, as nodes reach them.
    pub registry: Option<RegistryAccess>,
}

impl KubernetesRecipes {
    fn place(&self, cluster: &ClusterRecord, machine: &MachineRecord) -> Option<(PoolSpec, NodePlace)> {
        let Role::Node {
            pool,
            node_name,
            address,
            pod_range,
            ..
        } = role(machine)?
        else {
            return None;
        };
        let pool = cluster.spec().pools.iter().find(|spec| spec.name == *pool)?;
        let place = NodePlace {
            // As in the effect that makes the machine: a pool without a disk size has no limit.
            own_disk: self.disk_limits && pool.os_disk_gib > 0,
            node_name: node_name.clone(),
            address: *address,
            pod_range: *pod_range,
            subscription: cluster.subscription.clone(),
            machine: machine.id.clone(),
            host_cores: self.host_cores,
            host_memory_mib: self.host_memory_mib,
            registry: self.registry.clone(),
        };
        Some((pool.clone(), place))
    }

    fn addons_with(&self, images: &BTreeSet<String>) -> AddonOptions {
        AddonOptions {
            images: images.clone(),
            ..self.addons.clone()
        }
    }
}

/// A version of configurations that name a part of the stamp.
fn with(version: &str, part: &impl Serialize) -> Result<String, RecipeError> {
    let parts = serde_json::to_string(&(version, part))
        .map_err(|error| RecipeError::new("the version of configurations", error))?;
    Ok(format!("{:016x}", base_env::Seed::new(0).child(&parts).value()))
}

fn role(machine: &MachineRecord) -> Option<&Role> {
    machine.assignment.as_ref().map(|assignment| &assignment.role)
}

/// A member of the control plane; `None` for a node, and for a member that is being removed.
fn control_plane(site: &Site, machine: &MachineRecord) -> Option<ControlPlanePlace> {
    let ControlPlane {
        members,
        formed,
        roaming,
        limits,
        ..
    } = &site.control_plane;
    let own = members.iter().find(|member| member.machine == machine.id)?;
    Some(ControlPlanePlace {
        machine: machine.id.clone(),
        cluster: site.cluster.uid.clone(),
        at: ControlPlaneAddresses {
            vip: site.addresses.vip,
            stamp: own.stamp,
            vnet: own.vnet,
        },
        members: members.clone(),
        formed: *formed,
        roaming: *roaming,
        always: vec![site.stamp.gateway(), site.addresses.uplink],
        limits: *limits,
        restore: restore(site),
        authority: TokenAuthority::default(),
    })
}

/// The restore of etcd's data; the first member carries it out.
fn restore(site: &Site) -> Option<EtcdRestore> {
    let ControlPlane {
        members,
        restore,
        restored,
        ..
    } = &site.control_plane;
    let (wish, uid) = (restore.as_ref()?, &site.cluster.uid);
    let own = wish.source.is_empty() || wish.source == *uid;
    Some(EtcdRestore {
        id: wish.id.clone(),
        at: wish.at.and_then(|at| Timestamp::from_millisecond(at).ok()),
        source: if own { uid.clone() } else { wish.source.clone() },
        by: members.first()?.machine.clone(),
        own,
        done: restored.as_ref() == Some(&wish.id),
    })
}

/// After a restore, kubelets register their nodes again and fetch their pods anew: pods that no longer exist
/// are stopped.
fn registered_again(mut config: MachineConfig, site: &Site) -> MachineConfig {
    if let Some(id) = &site.control_plane.restored {
        let mark = u64::from(base_env::Seed::new(0).child(id).value() as u32);
        for process in config
            .processes
            .iter_mut()
            .filter(|process| process.name == "kubelet")
        {
            process.restart ^= mark;
        }
    }
    config
}

/// A process that healing restarts gets a new value.
fn restarted(mut config: MachineConfig, machine: &MachineRecord) -> MachineConfig {
    for process in &mut config.processes {
        let times = machine.healing.restarts.get(&process.name).copied();
        let times = times.unwrap_or_default();
        process.restart = process.restart.wrapping_add(times);
        for restart in &mut process.goes_on_with {
            *restart = restart.wrapping_add(times);
        }
    }
    config
}

/// With those certificates of before that can stay.
fn kept(
    mut config: MachineConfig,
    former: Option<Former<'_>>,
    now: Timestamp,
) -> Result<Configured, BootstrapError> {
    if let Some(former) = former {
        keep_leaves(&mut config, former.config, former.due, now)?;
    }
    let issued_at = oldest_leaf(&config)?.unwrap_or(now);
    Ok(Configured { config, issued_at })
}

fn read(pki: &Secret) -> Result<ClusterPki, RecipeError> {
    serde_json::from_slice(pki)
        .map_err(|error| RecipeError::new("a certificate from the cluster's keys", error))
}

fn written(pki: &ClusterPki) -> Result<Secret, RecipeError> {
    let bytes = serde_json::to_vec(pki).map_err(|error| RecipeError::new("the cluster's keys", error))?;
    Ok(Zeroizing::new(bytes))
}

/// A machine of a removed pool gets no configuration: it is being deleted.
fn no_pool() -> RecipeError {
    RecipeError::new("the configuration of a node", "its pool no longer exists")
}

/// Members and add-ons are the same for all versions: an upgrade needs one restart.
fn of_any_version(spec: &ClusterSpec) -> ClusterSpec {
    ClusterSpec {
        kubernetes_version: String::new(),
        ..spec.clone()
    }
}

impl Recipes for KubernetesRecipes {
    fn pki(&self, source: Option<&Secret>, now: Timestamp) -> Result<Secret, RecipeError> {
        let pki = match source {
            Some(source) => ClusterPki::generate_after(&read(source)?, now),
            None => ClusterPki::generate(now),
        };
        written(&pki.map_err(|error| RecipeError::new("the cluster's keys", error))?)
    }

    fn step_pki(&self, pki: &Secret, step: &KeyStep, now: Timestamp) -> Result<Secret, RecipeError> {
        let mut pki = read(pki)?;
        let made = match step {
            KeyStep::TrustAuthorities { .. } => pki.trust_new_authorities(now),
            KeyStep::TrustServiceAccountKey { .. } => pki.trust_new_service_account_key(),
            KeyStep::IssueFromNewAuthorities => {
                pki.issue_from_new_authorities();
                Ok(())
            }
            KeyStep::DropFormerAuthorities => {
                pki.drop_former_authorities();
                Ok(())
            }
            KeyStep::WithdrawNewAuthorities { .. } => {
                pki.withdraw_new_authorities();
                Ok(())
            }
            KeyStep::SignWithNewServiceAccountKey { .. } => {
                pki.sign_with_new_service_account_key();
                Ok(())
            }
            KeyStep::DropFormerServiceAccountKey => {
                pki.drop_former_service_account_key();
                Ok(())
            }
            KeyStep::WithdrawNewServiceAccountKey { .. } => {
                pki.withdraw_new_service_account_key();
                Ok(())
            }
        };
        made.map_err(|error| RecipeError::new("the cluster's next keys", error))?;
        written(&pki)
    }

    fn config(
        &self,
        site: &Site,
        machine: &MachineRecord,
        pki: &Secret,
        former: Option<Former<'_>>,
        now: Timestamp,
        generation: u64,
    ) -> Result<Configured, RecipeError> {
        let pki = read(pki)?;
        let cluster = &site.cluster;
        if let Some(place) = control_plane(site, machine) {
            let place = ControlPlanePlace {
                authority: self.authority.clone(),
                ..place
            };
            let spec = of_any_version(cluster.spec());
            return control_plane_config(&spec, &pki, &place, now, generation)
                .and_then(|config| kept(restarted(config, machine), former, now))
                .map_err(|error| RecipeError::new("the configuration of the control plane", error));
        }
        let (mut pool, place) = self.place(cluster, machine).ok_or_else(no_pool)?;
        pool.kubernetes_version.clone_from(&machine.image);
        pool.image.clone_from(&machine.build);
        node_config(
            cluster.spec(),
            &pool,
            &place,
            &pki,
            site.addresses.vip,
            now,
            generation,
        )
        .and_then(|config| kept(restarted(registered_again(config, site), machine), former, now))
        .map_err(|error| RecipeError::new("the configuration of a node", error))
    }

    fn renderers(&self, cluster: &ClusterRecord) -> Result<RendererVersions, RecipeError> {
        let spec = cluster.spec();
        let version = |samples| {
            renderer_version(samples, spec.network.plugin)
                .map_err(|error| RecipeError::new("the version of configurations", error))
        };
        let mut members = if spec.issuer.is_some() || spec.directory.is_some() {
            version(Sample::AUTHENTICATED)?
        } else {
            version(Sample::MEMBERS)?
        };
        if spec.directory.is_some() {
            members = with(&members, &self.authority)?;
        }
        let mut nodes = version(Sample::NODES)?;
        if let Some(registry) = &self.registry {
            nodes = with(&nodes, registry)?;
        }
        Ok(RendererVersions { members, nodes })
    }

    fn network(&self, site: &Site, layout: &NetworkLayout) -> NetworkSpec {
        let (spec, at) = (site.cluster.spec(), &site.addresses);
        let mut made = network(spec, site.network_id(), at.uplink, layout.routes.clone());
        // The addresses of the API for nodes, and of the service for their agents.
        guard(&mut made, spec, &layout.guards, &[at.vip, site.stamp.gateway()]);
        made.balancers.clone_from(&layout.balancers);
        // With `outboundType` none, the router keeps inside what nodes would let out.
        let needed = || vec![at.vip, site.stamp.gateway()];
        made.egress = (!spec.network.outbound).then(needed);
        made
    }

    fn nics(&self, site: &Site, machine: &MachineRecord) -> Result<Vec<NicSpec>, RecipeError> {
        let spec = site.cluster.spec();
        if let Some(place) = control_plane(site, machine) {
            return Ok(control_plane_nics(
                spec,
                &site.network_id(),
                &place.at,
                place.roaming,
                &site.stamp,
            ));
        }
        let (_, place) = self.place(&site.cluster, machine).ok_or_else(no_pool)?;
        Ok(node_nics(spec, &site.network_id(), &place))
    }

    fn wish(&self, cluster: &ClusterRecord, machine: &MachineRecord) -> Option<NodeWish> {
        let (mut pool, place) = self.place(cluster, machine)?;
        pool.kubernetes_version.clone_from(&machine.image);
        pool.image.clone_from(&machine.build);
        let mut wish = node_wish(cluster.spec(), &pool, &place);
        let given_up = machine
            .emptying
            .as_ref()
            .map(|emptying| emptying.given_up.as_ref());
        wish.inherited = machine.inherited.as_ref().map(|inherited| {
            let marks = NodeMarks {
                labels: inherited.labels.clone(),
                annotations: inherited.annotations.clone(),
                taints: inherited.taints.clone(),
            };
            (inherited.from.clone(), marks)
        });
        // A repair drains a node as well.
        wish.takes_pods = machine.repairing().is_none();
        match given_up {
            // It is being drained.
            Some(None) => wish.takes_pods = false,
            Some(Some(given_up)) if given_up.quarantined => {
                wish.takes_pods = false;
                let (name, value) = QUARANTINED;
                wish.labels.insert(name.to_owned(), value.to_owned());
            }
            Some(Some(_)) | None => {}
        }
        Some(wish)
    }

    fn endpoint(&self, pki: &Secret, vip: Ipv4Addr, now: Timestamp) -> Result<Endpoint, RecipeError> {
        admin_endpoint(&read(pki)?, vip, now)
            .map_err(|error| RecipeError::new("the administrator's certificate", error))
    }

    fn addons_read(&self) -> Vec<ObjectRef> {
        cluster_addons::reads()
    }

    fn addons(
        &self,
        cluster: &ClusterRecord,
        images: &BTreeSet<String>,
        read: &[Value],
    ) -> Result<Vec<Value>, RecipeError> {
        let spec = of_any_version(cluster.spec());
        Ok(manifests(&spec, &self.addons_with(images), read))
    }

    fn addons_leaving(
        &self,
        cluster: &ClusterRecord,
        images: &BTreeSet<String>,
        read: &[Value],
    ) -> Vec<ObjectRef> {
        leaving(cluster.spec(), &self.addons_with(images), read)
    }

    fn credentials(&self, wish: &CredentialsWish) -> CredentialObjects {
        let granted = wish.granted.iter();
        let withdrawn = wish.withdrawn.iter();
        // A role that is unknown to this release grants nothing.
        let trusted = wish.trusted.iter().flat_map(|(name, grant)| {
            let roles = grant.roles.iter().filter_map(|role| TrustedRole::named(role));
            roles.map(|role| trusted_binding(name, role, &grant.principal))
        });
        let is_support = |kind: &CredentialKind| *kind == CredentialKind::Support;
        let ids = wish.granted.iter().filter(|(_, kind)| is_support(kind));
        let support = support_objects(ids.map(|(id, _)| id));
        let over = support.is_empty() && wish.withdrawn.values().any(is_support);
        CredentialObjects {
            of: CREDENTIAL_BINDINGS,
            own: is_credential_binding,
            granted: granted
                .filter_map(|(id, kind)| credential_binding(*kind, id))
                .chain(trusted)
                .chain(support)
                .collect(),
            withdrawn: withdrawn
                .filter(|(_, kind)| !is_support(kind))
                .map(|(id, kind)| credential_user(*kind, id))
                .collect(),
            over: SUPPORT_OBJECTS.into_iter().filter(|_| over).collect(),
        }
    }

    fn command(&self, id: &str, input: &CommandInput) -> Vec<Value> {
        command_objects(
            id,
            &input.command,
            input.context.as_deref(),
            input.token.as_deref(),
        )
    }

    fn addon_ailments(&self, cluster: &ClusterRecord, read: &[Value]) -> Vec<AddonAilment> {
        cluster_addons::ailments(cluster.spec(), &self.addons, read)
    }
}

#[cfg(test)]
#[path = "recipes_leaves.rs"]
mod leaves;
#[cfg(test)]
#[path = "recipes_years.rs"]
mod years;

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use cluster_bootstrap::Member;
    use cluster_spec::{PodNetworking, testkit};
    use control_records::Assignment;
    use fabric_api::{StampNetwork, Uplink};

    use super::*;
    use control_planner::Addresses;

    pub(super) fn now() -> Timestamp {
        Timestamp::from_second(1_767_225_600).unwrap()
    }

    pub(super) fn site() -> Site {
        let pool = PoolSpec {
            kubernetes_version: "1.37.1".to_owned(),
            max_pods: 110,
            labels: BTreeMap::from([("team".to_owned(), "blue".to_owned())]),
            incarnation: "1".to_owned(),
            ..testkit::pool("np1", 1)
        };
        let spec = ClusterSpec {
            kubernetes_version: "1.37.1".to_owned(),
            network: testkit::network(PodNetworking::Kubenet),
            pools: vec![pool],
            ..testkit::cluster()
        };
        Site {
            cluster: Arc::new(ClusterRecord::of_spec("0123456789", &spec, now())),
            addresses: Addresses {
                vip: "100.64.24.7".parse().unwrap(),
                uplink: "100.64.16.8".parse().unwrap(),
            },
            control_plane: ControlPlane {
                members: vec![Member {
                    machine: "m1".to_owned(),
                    stamp: "100.64.16.9".parse().unwrap(),
                    vnet: "10.239.255.244".parse().unwrap(),
                }],
                formed: false,
                roaming: false,
                limits: cluster_spec::Tier::Free,
                restore: None,
                restored: None,
            },
            stamp: StampNetwork {
                range: "100.64.16.0/20".parse().unwrap(),
                uplink: Uplink::None,
            },
        }
    }

    fn machine(id: &str, role: Role) -> MachineRecord {
        MachineRecord {
            v: 2,
            id: id.to_owned(),
            image: "1.36.3".to_owned(),
            build: None,
            token_hash: String::new(),
            token_sealed: Vec::new(),
            enrolled_key: None,
            token_used: false,
            host: control_records::HostId::first(),
            assignment: Some(Assignment {
                cluster: "0123456789".to_owned(),
                role,
            }),
            deleting: false,
            work: None,
            emptying: None,
            inherited: None,
            healing: control_records::Healing::default(),
            created_at: now(),
        }
    }

    pub(super) fn control_plane_machine() -> MachineRecord {
        let address = "100.64.16.9".parse().unwrap();
        machine("m1", Role::ControlPlane { index: 0, address })
    }

    pub(super) fn node(pool: &str) -> MachineRecord {
        machine(
            "n1",
            Role::Node {
                pool: pool.to_owned(),
                incarnation: "1".to_owned(),
                index: 0,
                node_name: "aks-np1-00000000-vmss000000".to_owned(),
                address: "10.224.0.4".parse().unwrap(),
                pod_range: Some("10.244.0.0/24".parse().unwrap()),
            },
        )
    }

    pub(super) fn recipes() -> KubernetesRecipes {
        KubernetesRecipes {
            host_cores: 2,
            host_memory_mib: 8192,
            disk_limits: false,
            addons: AddonOptions::default(),
            authority: TokenAuthority::default(),
            registry: None,
        }
    }

    #[test]
    fn both_kinds_of_machines_are_configured_where_they_were_placed() {
        let (recipes, site) = (recipes(), site());
        let pki = recipes.pki(None, now()).unwrap();
        let control_plane = control_plane_machine();
        let configured = recipes.config(&site, &control_plane, &pki, None, now(), 3);
        let config = configured.unwrap().config;
        assert_eq!((config.generation, config.role.as_str()), (3, "control-plane"));
        // The planner waits for the process with this name.
        assert!(
            config
                .processes
                .iter()
                .any(|process| process.name == "kube-apiserver")
        );
        let nics = recipes.nics(&site, &control_plane).unwrap();
        assert_eq!(nics[0].address.addr(), site.control_plane.members[0].stamp);
        assert_eq!(nics[0].extra, [site.addresses.vip]);
        assert_eq!(nics[1].address.addr(), Ipv4Addr::new(10, 239, 255, 244));

        let configured = recipes.config(&site, &node("np1"), &pki, None, now(), 1);
        assert_eq!(configured.unwrap().config.role, "node");
        assert_eq!(
            recipes.nics(&site, &node("np1")).unwrap()[0].address.addr(),
            Ipv4Addr::new(10, 224, 0, 4)
        );
        let endpoint = recipes.endpoint(&pki, site.addresses.vip, now()).unwrap();
        assert!(endpoint.server.contains("100.64.24.7"));
    }

    #[test]
    fn a_node_object_is_wished_for_with_the_version_the_machine_was_made_with() {
        let (recipes, site) = (recipes(), site());
        let wish = recipes.wish(&site.cluster, &node("np1")).unwrap();
        assert_eq!(wish.labels.get("team").map(String::as_str), Some("blue"));
        assert!(wish.labels.values().any(|value| value.contains("1.36.3")));
        assert!(!wish.labels.values().any(|value| value.contains("1.37.1")));
        assert!(recipes.wish(&site.cluster, &node("gone")).is_none());
        assert!(recipes.wish(&site.cluster, &control_plane_machine()).is_none());
        let pki = recipes.pki(None, now()).unwrap();
        let gone = recipes.config(&site, &node("gone"), &pki, None, now(), 1);
        assert!(gone.is_err());
    }
}
