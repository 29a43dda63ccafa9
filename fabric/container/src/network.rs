//! VNETs, each a network namespace.

use std::path::Path;

use fabric_api::{Attach, FabricError, NetworkId, NetworkSpec, Uplink};
use fabric_net::{
    NamespaceSeen, bridge_sysctls, parse_links, parse_routes, subnet_bridge, vnet_bridge_sysctls,
    vnet_ruleset, vnet_script, vnet_sysctls, vnet_turned, vnet_uplink_script,
};

use crate::{
    Inner, disk, exec, files,
    namespace::{self, Namespace},
    validate,
};

impl Inner {
    pub(crate) async fn ensure_network(&self, spec: &NetworkSpec) -> Result<(), FabricError> {
        validate::network(spec, &self.config.network)?;
        let dir = self.network_dir(&spec.id);
        let text = serde_json::to_vec_pretty(spec)
            .map_err(|error| FabricError::failed("write a network's specification", error))?;
        files::make_dir(&dir)?;
        files::write(&dir.join("spec.json"), &text)?;
        self.make_network(spec).await
    }

    /// Creates a network again from its stored specification, if needed: a reboot removes it.
    pub(crate) async fn network_is_there(&self, id: &NetworkId) -> Result<(), FabricError> {
        let name = self.names.network_namespace(id);
        if namespace::look(&name) == Namespace::Live {
            return Ok(());
        }
        let _lock = self.locks.hold(&format!("network {id}")).await;
        let spec = self
            .saved_network(id)?
            .ok_or_else(|| FabricError::NotFound(format!("network {id}")))?;
        self.make_network(&spec).await
    }

    pub(crate) fn saved_network(&self, id: &NetworkId) -> Result<Option<NetworkSpec>, FabricError> {
        read_spec(&self.network_dir(id))
    }

    async fn make_network(&self, spec: &NetworkSpec) -> Result<(), FabricError> {
        let act = format!("make network {}", spec.id);
        let name = self.names.network_namespace(&spec.id);
        let port = self.names.uplink_port(&spec.id);
        self.stamp_is_there().await?;
        let live = match namespace::look(&name) {
            Namespace::Live => true,
            Namespace::Absent => false,
            Namespace::Broken => {
                self.remove_links_and_namespace(&act, std::slice::from_ref(&port), &name)
                    .await?;
                false
            }
        };
        let plugged = namespace::host_has_link(&port).map_err(|error| FabricError::failed(&act, error))?;
        if plugged && !live {
            // The kernel removes a namespace asynchronously; an explicit delete removes its veth pair at
            // once.
            exec::ip_batch_anyway(&self.env, &act, None, &[format!("link delete {port}")]).await;
        }
        let script = vnet_uplink_script(&self.names, spec, live, plugged && live);
        exec::ip_batch(&self.env, &act, None, &script).await?;

        let (rules, seen) = tokio::join!(self.rules(&act, spec, &name), self.look_into(&act, &name));
        rules?;
        let seen = seen?;
        let script = vnet_script(spec, &self.config.network, &seen);
        exec::ip_batch(&self.env, &act, Some(&name), &script).await?;
        self.answer_for_machines(&act, spec, &name, &seen).await?;
        self.forget_neighbours(&act, spec, &seen).await
    }

    /// Sets the sysctls and the rules inside the namespace.
    async fn rules(&self, act: &str, spec: &NetworkSpec, name: &str) -> Result<(), FabricError> {
        let mut script: Vec<String> = vnet_sysctls(spec)
            .iter()
            .map(|(key, value)| format!("echo {value} >/proc/sys/net/ipv4/{key}"))
            .collect();
        let where_there_is_one =
            |path: String, value: &str| format!("{{ [ ! -e {path} ] || echo {value} >{path}; }}");
        // Settings of bridges that do not exist yet follow after them.
        let bridges = bridge_sysctls(&spec.subnets);
        script.extend(
            bridges
                .iter()
                .map(|(key, value)| where_there_is_one(format!("/proc/sys/net/ipv4/{key}"), value)),
        );
        script.extend(
            vnet_bridge_sysctls(spec)
                .iter()
                .map(|(key, value)| where_there_is_one(format!("/proc/sys/net/{key}"), value)),
        );
        script.push("exec nft -f -".into());
        let script = script.join(" && ");
        let servers = match self.config.network.uplink {
            Uplink::None => Vec::new(),
            Uplink::Host => disk::host_name_servers(),
        };
        let argv = ["ip", "netns", "exec", name, "sh", "-c", &script];
        let rules = vnet_ruleset(spec, &servers) + &self.ports_rules(act, spec)?;
        exec::run(&self.env, act, &argv, Some(&rules)).await.map(drop)
    }

    /// Sets the sysctls of new bridges whose subnet has a filter.
    async fn answer_for_machines(
        &self,
        act: &str,
        spec: &NetworkSpec,
        name: &str,
        before: &NamespaceSeen,
    ) -> Result<(), FabricError> {
        let made = spec.subnets.iter().filter(|subnet| {
            let bridge = subnet_bridge(&subnet.name);
            subnet.filter.is_some() && !before.links.iter().any(|link| link.name == bridge)
        });
        let script: Vec<String> = bridge_sysctls(made)
            .iter()
            .map(|(key, value)| format!("echo {value} >/proc/sys/net/ipv4/{key}"))
            .collect();
        if script.is_empty() {
            return Ok(());
        }
        let script = script.join(" && ");
        let argv = ["ip", "netns", "exec", name, "sh", "-c", &script];
        exec::run(&self.env, act, &argv, None).await.map(drop)
    }

    /// Clears the neighbour tables of machines whose neighbours are now reached another way. Otherwise they
    /// would notice only after some seconds without connectivity.
    async fn forget_neighbours(
        &self,
        act: &str,
        spec: &NetworkSpec,
        before: &NamespaceSeen,
    ) -> Result<(), FabricError> {
        let turned = vnet_turned(spec, before);
        if turned.is_empty() {
            return Ok(());
        }
        for id in files::names_in(&self.machines_dir()).map_err(|error| FabricError::failed(act, error))? {
            let Some(saved) = disk::Saved::read(&self.machines_dir().join(&id))? else {
                continue;
            };
            let machine = &saved.spec;
            let cards = machine.nics.iter().filter(|card| {
                let port = self.names.port(&machine.id, &card.name);
                matches!(&card.attach, Attach::Subnet { network, .. } if *network == spec.id)
                    && turned.iter().any(|(turned, _)| *turned == port)
            });
            let lines: Vec<String> = cards
                .map(|card| format!("neigh flush dev {}", card.name))
                .collect();
            let inside = self.names.machine_namespace(&machine.id);
            if let Some(error) = exec::ip_batch_anyway(&self.env, act, Some(&inside), &lines).await {
                // The machine may be ending. Otherwise it notices by itself.
                tracing::info!(machine = %machine.id, "its neighbour table was not cleared: {error}");
            }
        }
        Ok(())
    }

    async fn look_into(&self, act: &str, name: &str) -> Result<NamespaceSeen, FabricError> {
        let links = ["ip", "-n", name, "-j", "-d", "address", "show"];
        let routes = ["ip", "-n", name, "-j", "-4", "route", "show", "table", "main"];
        let (links, routes) = tokio::join!(
            exec::run(&self.env, act, &links, None),
            exec::run(&self.env, act, &routes, None)
        );
        let strange = |error| FabricError::failed(act, error);
        Ok(NamespaceSeen {
            links: parse_links(&links?).map_err(strange)?,
            routes: parse_routes(&routes?).map_err(strange)?,
        })
    }

    pub(crate) async fn delete_network(&self, id: &NetworkId) -> Result<(), FabricError> {
        validate::identity("network", id.as_str())?;
        self.unplug_network(id).await?;
        files::remove_tree(&self.network_dir(id))
    }

    /// Removes everything of a network except its specification.
    pub(crate) async fn unplug_network(&self, id: &NetworkId) -> Result<(), FabricError> {
        let act = format!("take down network {id}");
        let name = self.names.network_namespace(id);
        let port = self.names.uplink_port(id);
        self.remove_links_and_namespace(&act, &[port], &name).await
    }

    /// Removes links of the host and a namespace, if they exist.
    pub(crate) async fn remove_links_and_namespace(
        &self,
        act: &str,
        links: &[String],
        name: &str,
    ) -> Result<(), FabricError> {
        let mut script = Vec::new();
        for link in links {
            if namespace::host_has_link(link).map_err(|error| FabricError::failed(act, error))? {
                script.push(format!("link delete {link}"));
            }
        }
        if namespace::look(name) != Namespace::Absent {
            script.push(format!("netns delete {name}"));
        }
        let complaint = exec::ip_batch_anyway(&self.env, act, None, &script).await;
        if namespace::look(name) == Namespace::Absent {
            return Ok(());
        }
        Err(complaint.unwrap_or_else(|| FabricError::failed(act, format!("{name} is still there"))))
    }

    /// The links on the host that belong to the stamp's bridge, from the specifications.
    pub(crate) fn known_ports(&self) -> Result<Vec<String>, FabricError> {
        let act = "list the links of the stamp's network";
        let failed = |error| FabricError::failed(act, error);
        let mut ports = Vec::new();
        for name in files::names_in(&self.networks_dir()).map_err(failed)? {
            ports.push(self.names.uplink_port(&NetworkId::from(name.as_str())));
        }
        for name in files::names_in(&self.machines_dir()).map_err(failed)? {
            if let Some(saved) = crate::disk::Saved::read(&self.machines_dir().join(&name))? {
                ports.extend(self.host_ports(&saved.spec));
            }
        }
        Ok(ports)
    }
}

fn read_spec(dir: &Path) -> Result<Option<NetworkSpec>, FabricError> {
    let path = dir.join("spec.json");
    files::read(&path)?
        .map(|text| {
            serde_json::from_str(&text)
                .map_err(|error| FabricError::failed(format!("read {}", path.display()), error))
        })
        .transpose()
}
