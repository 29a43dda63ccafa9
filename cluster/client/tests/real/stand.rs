//! A temporary cluster: its own stamp, a control plane machine and nodes, run by a shell script instead of an
//! agent.

use std::{collections::BTreeMap, fs, net::Ipv4Addr, path::PathBuf, sync::Arc, time::Duration};

use agent_protocol::{
    MachineConfig,
    programs::{BACKUP, ETCD},
};
use base_env::Env;
use base_testkit::needs;
use cluster_api::{ClusterApi, Connect as _, NodeWish};
use cluster_bootstrap::{Bearer, ControlPlaneAddresses, ControlPlanePlace, NodePlace};
use cluster_client::KubeConnect;
use cluster_pki::ClusterPki;
use cluster_spec::{ClusterSpec, CredentialKind, DEFAULT_VM_SIZE, PodNetworking, PoolSpec, testkit};
use fabric_api::{Fabric as _, MachineId, MachineSpec, NetworkId, NicSpec, RouteSpec, StampNetwork, Uplink};
use fabric_container::{ContainerConfig, ContainerFabric, Images};
use fabric_net::{Names, route_destinations, stamp_range};
use tokio::process::Command;

/// Acts like an agent: setup, then all processes at once, each restarted when it ends; on SIGTERM it stops.
/// The agent's own subcommands are missing: such a call sleeps and fails, instead of starting everything
/// again.
const AGENT: &str = "#!/bin/sh\n[ $# = 0 ] || { sleep 60; exit 2; }\ntrap 'trap \"\" TERM; kill -TERM -1; sleep 3; exit 0' TERM\nsh /etc/landfall/run.sh &\nwait $!\nwhile :; do sleep 60 & wait $!; done\n";

pub(crate) const NETWORK: &str = "vnet";
pub(crate) const CONTROL_PLANE: &str = "cp";

struct OneImage(Vec<PathBuf>);

impl Images for OneImage {
    fn layers(&self, _version: &str) -> Option<Vec<PathBuf>> {
        Some(self.0.clone())
    }
}

pub(crate) struct Stand {
    pub(crate) env: Env,
    pub(crate) spec: ClusterSpec,
    pub(crate) pki: ClusterPki,
    pub(crate) at: ControlPlaneAddresses,
    pub(crate) places: Vec<NodePlace>,
    pub(crate) api: Arc<dyn ClusterApi>,
    pub(crate) fabric: ContainerFabric,
    stamp: String,
    place: tempfile::TempDir,
}

/// The layers, if these tests can run; otherwise they are skipped.
pub(crate) fn layers() -> Option<Vec<PathBuf>> {
    if !needs::root_and(&["runc", "nft", "ip"]) {
        return None;
    }
    let layers = needs::file(needs::LAYERS)?;
    Some(std::env::split_paths(&layers).collect())
}

pub(crate) fn spec(plugin: PodNetworking, nodes: u32) -> ClusterSpec {
    let pool = PoolSpec {
        vm_size: DEFAULT_VM_SIZE.into(),
        labels: [("team".to_owned(), "blue".to_owned())].into(),
        ..testkit::pool("nodepool1", nodes)
    };
    ClusterSpec {
        name: "real".into(),
        resource_group: "group".into(),
        node_resource_group: "MC_group_real_local".into(),
        fqdn: "real-dns-1.hcp.local.landfall.internal".into(),
        network: testkit::network(plugin),
        pools: vec![pool],
        // The drivers are a subcommand of the agent, which is missing here.
        disks_off: true,
        files_off: true,
        snapshots_off: true,
        ..testkit::cluster()
    }
}

impl Stand {
    pub(crate) async fn new(layers: Vec<PathBuf>, spec: ClusterSpec) -> Self {
        let env = Env::system();
        let stamp = format!("t-real-{}", env.ids.short());
        let place = tempfile::tempdir().unwrap();
        let routes = output(&["ip", "-j", "route", "show", "table", "all"])
            .await
            .unwrap();
        let network = StampNetwork {
            range: stamp_range(&stamp, &route_destinations(&routes).unwrap()).unwrap(),
            uplink: Uplink::None,
        };
        let numbered = |base: ipnet::Ipv4Net, number: u32| Ipv4Addr::from(u32::from(base.network()) + number);
        let at = ControlPlaneAddresses {
            vip: numbered(network.vips(), 1),
            stamp: numbered(network.machines(), 20),
            vnet: numbered(spec.network.control_plane_range, 4),
        };
        let uplink = numbered(network.machines(), 10);
        let places = (0..spec.pools[0].count)
            .map(|index| node_place(&spec, index))
            .collect();
        let now = env.clock.now();
        let pki = ClusterPki::generate(now).unwrap();
        let endpoint = cluster_bootstrap::admin_endpoint(&pki, at.vip, now).unwrap();
        let fabric = ContainerFabric::new(
            env.clone(),
            ContainerConfig {
                stamp: stamp.clone(),
                state_dir: place.path().join("state"),
                run_dir: place.path().join("run"),
                network: network.clone(),
                service_port: 7443,
                uplink_allow: Vec::new(),
                agent: AGENT.as_bytes().into(),
                shared_agent: None,
                images: Arc::new(OneImage(layers)),
            },
        )
        .unwrap();
        fabric.ensure_stamp().await.unwrap();
        let api = KubeConnect::new(env.clone(), &cluster_addons::watches())
            .connect("real", &endpoint)
            .unwrap();
        let stand = Self {
            env,
            spec,
            pki,
            at,
            places,
            api,
            fabric,
            stamp,
            place,
        };
        stand.network(uplink).await;
        stand
    }

    async fn network(&self, uplink: Ipv4Addr) {
        let routes = match self.spec.network.plugin {
            PodNetworking::Kubenet | PodNetworking::AzureOverlay => self
                .places
                .iter()
                .filter_map(|place| {
                    Some(RouteSpec {
                        to: place.pod_range?,
                        via: place.address,
                    })
                })
                .collect(),
            PodNetworking::AzureFlat | PodNetworking::None => Vec::new(),
        };
        let network = cluster_bootstrap::network(&self.spec, NetworkId::from(NETWORK), uplink, routes);
        self.fabric.ensure_network(&network).await.unwrap();
    }

    /// Starts all machines at once.
    pub(crate) async fn start(&self) {
        let mut starts = vec![self.control_plane()];
        starts.extend(self.places.iter().map(|place| self.node(place)));
        futures::future::join_all(starts.iter().map(|machine| self.fabric.ensure_machine(machine)))
            .await
            .into_iter()
            .for_each(|started| started.unwrap());
    }

    pub(crate) fn control_plane(&self) -> MachineSpec {
        let now = self.env.clock.now();
        let place = ControlPlanePlace::alone(CONTROL_PLANE, self.at);
        let mut config =
            cluster_bootstrap::control_plane_config(&self.spec, &self.pki, &place, now, 1).unwrap();
        // The agent's own subcommands are missing.
        config.processes.retain(|process| process.name != BACKUP);
        for process in &mut config.processes {
            // Without an agent, etcd's data is not prepared.
            if process.name == ETCD {
                process.argv = cluster_bootstrap::bare_etcd(&place);
            }
        }
        let nics = cluster_bootstrap::control_plane_nics(
            &self.spec,
            &NetworkId::from(NETWORK),
            &self.at,
            false,
            self.fabric.stamp_network(),
        );
        let mut machine = machine(CONTROL_PLANE, "control-plane", &config, nics);
        for (name, bearer) in [
            ("admin", Bearer::Operator),
            ("one", Bearer::Credential(CredentialKind::Admin, "one")),
            ("user", Bearer::Credential(CredentialKind::User, "user")),
            (
                "monitoring",
                Bearer::Credential(CredentialKind::Monitoring, "monitoring"),
            ),
        ] {
            let text = self.kubeconfig(bearer, Duration::from_secs(60 * 60));
            machine
                .seed_files
                .insert(format!("/root/{name}.kubeconfig"), text);
        }
        machine
    }

    /// A kubeconfig with this lifetime.
    pub(crate) fn kubeconfig(&self, bearer: Bearer<'_>, lasts: Duration) -> String {
        let now = self.env.clock.now();
        let server = format!("https://{}", self.at.vip);
        let until = now.checked_add(lasts).unwrap();
        let certificate = cluster_bootstrap::client_certificate(&self.pki, bearer, now, until).unwrap();
        cluster_bootstrap::kubeconfig(&self.spec, &self.pki, &server, bearer, &certificate, None)
    }

    pub(crate) fn node(&self, place: &NodePlace) -> MachineSpec {
        let now = self.env.clock.now();
        let pool = &self.spec.pools[0];
        let config =
            cluster_bootstrap::node_config(&self.spec, pool, place, &self.pki, self.at.vip, now, 1).unwrap();
        let nics = cluster_bootstrap::node_nics(&self.spec, &NetworkId::from(NETWORK), place);
        machine(&place.machine, &place.node_name, &config, nics)
    }

    pub(crate) fn wishes(&self) -> Vec<NodeWish> {
        self.places
            .iter()
            .map(|place| cluster_bootstrap::node_wish(&self.spec, &self.spec.pools[0], place))
            .collect()
    }

    /// One round of the loops' work.
    pub(crate) async fn round(&self) -> Result<(), String> {
        let said = |error: cluster_api::ClusterError| error.to_string();
        self.api.ready().await.map_err(said)?;
        let wishes = self.wishes();
        for wish in &wishes {
            self.api.set_node(wish).await.map_err(said)?;
        }
        self.api.approve_serving(&wishes).await.map_err(said)?;
        Ok(())
    }

    /// The output of a command inside a machine; its error output if it fails.
    pub(crate) async fn inside(&self, machine: &str, command: &str) -> Result<String, String> {
        let root = self.place.path().join("run/runc").display().to_string();
        let container = Names::new(&self.stamp).container(&MachineId::from(machine));
        output(&[
            "runc", "--root", &root, "exec", &container, "/bin/sh", "-c", command,
        ])
        .await
    }

    pub(crate) async fn kubectl(&self, arguments: &str) -> Result<String, String> {
        self.kubectl_as("admin", arguments).await
    }

    pub(crate) async fn kubectl_as(&self, who: &str, arguments: &str) -> Result<String, String> {
        let command = format!(
            "HOME=/root kubectl --kubeconfig=/root/{who}.kubeconfig --request-timeout=20s {arguments}"
        );
        self.inside(CONTROL_PLANE, &command).await
    }

    /// The API server's answer to a request without a credential; the status if it refuses.
    pub(crate) async fn anonymously(&self, path: &str) -> Result<String, u16> {
        let mut config = kube::Config::new(format!("https://{}", self.at.vip).parse().unwrap());
        let (_, ca) = x509_parser::pem::parse_x509_pem(self.pki.cluster.certificate.as_bytes()).unwrap();
        config.root_cert = Some(vec![ca.contents]);
        config.default_retry = false;
        let client = kube::Client::try_from(config).unwrap();
        match client
            .request_text(http::Request::get(path).body(Vec::new()).unwrap())
            .await
        {
            Ok(text) => Ok(text),
            Err(kube::Error::Api(status)) => Err(status.code),
            Err(error) => panic!("{path}: {error}"),
        }
    }

    /// Waits for a condition.
    pub(crate) async fn wait<T>(
        &self,
        what: &str,
        bound: Duration,
        condition: impl AsyncFn() -> Result<T, String>,
    ) -> T {
        let start = self.env.clock.monotonic();
        loop {
            match condition().await {
                Ok(value) => {
                    println!("{what}: {:?}", self.env.clock.monotonic() - start);
                    return value;
                }
                Err(status) => {
                    assert!(
                        self.env.clock.monotonic() < start + bound,
                        "waited {bound:?} for {what}; last seen: {status}\n{}",
                        self.logs()
                    );
                    self.env.clock.sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// The end of every log, for failures.
    pub(crate) fn logs(&self) -> String {
        let mut text = String::new();
        let machines = self.place.path().join("state/machines");
        for machine in fs::read_dir(machines).into_iter().flatten().flatten() {
            for log in fs::read_dir(machine.path().join("log"))
                .into_iter()
                .flatten()
                .flatten()
            {
                let Ok(content) = fs::read_to_string(log.path()) else {
                    continue;
                };
                let lines: Vec<_> = content.lines().rev().take(12).collect();
                text += &format!("--- {}\n", log.path().display());
                for line in lines.iter().rev() {
                    text += &format!("{line}\n");
                }
            }
        }
        text
    }

    pub(crate) async fn close(&self) {
        self.fabric.delete_stamp().await.unwrap();
    }
}

impl Drop for Stand {
    /// Cleans up after a failed test too. Blocking is fine here: it is the end.
    fn drop(&mut self) {
        if std::thread::panicking() {
            if let Some(keep) = std::env::var_os("LANDFALL_TEST_KEEP_LOGS") {
                fs::write(keep, self.logs()).ok();
            }
            let fabric = self.fabric.clone();
            tokio::task::block_in_place(|| {
                if let Err(error) = tokio::runtime::Handle::current().block_on(fabric.delete_stamp()) {
                    println!("the stamp of a failed test is left: {error}");
                }
            });
        }
    }
}

fn node_place(spec: &ClusterSpec, index: u32) -> NodePlace {
    let address = Ipv4Addr::from(u32::from(spec.network.node_range.network()) + 4 + index);
    let pod_range = match spec.network.plugin {
        PodNetworking::Kubenet | PodNetworking::AzureOverlay => Some(format!("10.244.{index}.0/24")),
        PodNetworking::AzureFlat => Some(format!("10.224.1.{}/27", 32 * (index + 1))),
        PodNetworking::None => None,
    };
    NodePlace {
        node_name: format!("aks-nodepool1-12345678-vmss{index:06}"),
        address,
        pod_range: pod_range.map(|range| range.parse().unwrap()),
        subscription: "00000000-0000-0000-0000-000000000001".into(),
        machine: format!("n{index}"),
        host_cores: 2,
        host_memory_mib: 16384,
        own_disk: false,
        registry: None,
    }
}

fn machine(id: &str, hostname: &str, config: &MachineConfig, nics: Vec<NicSpec>) -> MachineSpec {
    let mut seed_files: BTreeMap<String, String> = config
        .files
        .iter()
        .map(|file| (file.path.clone(), file.content.clone()))
        .collect();
    seed_files.insert("/etc/landfall/run.sh".into(), script(config));
    MachineSpec {
        id: MachineId::from(id),
        hostname: hostname.to_owned(),
        image: "1.36.3".into(),
        cpu_millis: 2000,
        memory_mib: 4096,
        disk_gib: None,
        nics,
        seed_files,
        labels: BTreeMap::new(),
    }
}

fn script(config: &MachineConfig) -> String {
    let quote = |argv: &[String]| {
        argv.iter()
            .map(|word| format!("'{}'", word.replace('\'', r"'\''")))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let mut lines = vec!["mkdir -p /var/log/landfall".to_owned()];
    for command in &config.setup {
        lines.push(format!(
            "until {} >>/var/log/setup.log 2>&1; do sleep 1; done",
            quote(&command.argv)
        ));
    }
    for process in &config.processes {
        let environment: Vec<_> = process
            .env
            .iter()
            .map(|(name, value)| format!("{name}='{value}'"))
            .collect();
        lines.push(format!(
            "(while :; do env -i {} {} >>/var/log/{}.log 2>&1; echo \"ended: $?\" >>/var/log/{}.log; sleep 0.1; done) &",
            environment.join(" "),
            quote(&process.argv),
            process.name,
            process.name
        ));
    }
    for task in &config.tasks {
        let log = format!("/var/log/{}.log", task.name);
        lines.push(format!(
            "(until {} >>{log} 2>&1; do sleep 0.1; done; echo done >>{log}) &",
            quote(&task.argv)
        ));
    }
    lines.push("wait".to_owned());
    lines.join("\n") + "\n"
}

async fn output(argv: &[&str]) -> Result<String, String> {
    let output = Command::new(argv[0]).args(&argv[1..]).output().await.unwrap();
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        Err(format!(
            "{} {}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}
