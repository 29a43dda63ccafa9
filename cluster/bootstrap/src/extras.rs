//! What a node has only if its cluster asks for more: images of add-ons, and what their programs need of the node.

use agent_protocol::{
    AGENT_PATH, Command, File, Task,
    programs::{IMAGE, ImageConfig},
};
use cluster_addons::policies::HEALTH_PORT;
use cluster_spec::{AddonImage, ClusterSpec};

use crate::{configuration, plain, words};

/// Keeps ports of add-ons' programs on the node.
const PORTS_FILE: &str = "/etc/landfall/ports.nft";

fn path(image: &AddonImage) -> String {
    format!("/etc/landfall/image-{}.json", image.name)
}

/// The files.
pub(crate) fn files(spec: &ClusterSpec) -> Vec<File> {
    let images = spec.addon_images().map(|image| {
        let config = ImageConfig {
            name: image.name.to_owned(),
            tag: image.tag().to_owned(),
            reference: image.reference.to_owned(),
        };
        configuration(&path(image), &config)
    });
    let ports = spec
        .network
        .policy
        .is_enforced()
        .then(|| plain(PORTS_FILE, ports()));
    images.chain(ports).collect()
}

/// The engine's health is asked for by the kubelet, on the node itself; its program listens on all addresses, without a
/// client's certificate.
fn ports() -> String {
    format!(
        r#"table inet landfall-ports
delete table inet landfall-ports
table inet landfall-ports {{
  chain input {{
    type filter hook input priority filter; policy accept;
    iifname != "lo" tcp dport {HEALTH_PORT} reject
  }}
}}
"#
    )
}

/// Commands, once per boot, before anything that they are for is started.
pub(crate) fn setup(spec: &ClusterSpec) -> Vec<Command> {
    let ports = spec.network.policy.is_enforced();
    let argv = words(["nft", "-f", PORTS_FILE]);
    ports.then_some(Command { argv }).into_iter().collect()
}

/// Tasks that bring the images, beside all else.
pub(crate) fn tasks(spec: &ClusterSpec) -> impl Iterator<Item = Task> {
    spec.addon_images().map(|image| Task {
        name: image.task(),
        argv: vec![AGENT_PATH.to_owned(), IMAGE.to_owned(), path(image)],
    })
}

#[cfg(test)]
mod tests {
    use cluster_spec::{NetworkPolicy, testkit};

    use super::*;

    #[test]
    fn a_cluster_that_asks_for_nothing_has_nothing() {
        let spec = testkit::cluster();
        assert!(files(&spec).is_empty() && setup(&spec).is_empty() && tasks(&spec).next().is_none());
    }

    #[test]
    fn an_engine_comes_with_its_image_and_its_port_is_closed_to_others() {
        let mut spec = testkit::cluster();
        let rendered = [NetworkPolicy::Azure, NetworkPolicy::Calico].map(|policy| {
            spec.network.policy = policy;
            let files: Vec<_> = files(&spec)
                .into_iter()
                .map(|file| (file.path, file.content))
                .collect();
            let tasks: Vec<_> = tasks(&spec).map(|task| (task.name, task.argv)).collect();
            (files, tasks, setup(&spec))
        });
        assert_eq!(rendered[0], rendered[1], "one engine by two names");
        let (files, tasks, setup) = &rendered[0];
        let config: ImageConfig = serde_json::from_str(&files[0].1).unwrap();
        assert_eq!(
            config.reference,
            format!("landfall.dev/{}:{}", config.name, config.tag)
        );
        assert_eq!(tasks[0].1[1..], ["image".to_owned(), files[0].0.clone()]);
        assert!(
            files[1]
                .1
                .contains(&format!("iifname != \"lo\" tcp dport {HEALTH_PORT} reject"))
        );
        assert_eq!(setup.len(), 1);
    }
}
