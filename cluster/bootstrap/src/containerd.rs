//! containerd's configuration.

use agent_protocol::File;

use crate::{RegistryAccess, images, paths::AGENT, plain};

pub(crate) const CONFIG: &str = "/etc/containerd/config.toml";
/// What it knows of each registry, in a directory for each. Its default is two directories in one setting, which its transfer service, by which it
/// pulls, takes for a single path.
const REGISTRIES: &str = "/etc/containerd/certs.d";
pub(crate) const SOCKET: &str = "/run/containerd/containerd.sock";

/// Format 3 (containerd 2). The same on every node.
pub(crate) fn config() -> String {
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
# As on any node. It is refused, and said in the log, where the host has no CAP_SYS_RESOURCE to give.
oom_score = -999
# A containerd that cannot serve pods has to end, so that it is started again, and not to linger as a socket that accepts.
required_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime"]

[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.cri.v1.images"]
  snapshotter = "overlayfs"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{pause}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{REGISTRIES}"

[plugins."io.containerd.cri.v1.runtime"]
  # No lower than its own, which pods may always have: with oom_score in force that is what the kubelet asks for.
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["/opt/cni/bin"]
    conf_dir = "/etc/cni/net.d"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
        SystemdCgroup = false
"#,
        pause = images::PAUSE.reference
    )
}

/// The stamp's registries: where they are, whom to trust there, and the certificate of the node's machine, for this host only. Read at each
/// pull: a change restarts nothing.
pub(crate) fn registry(access: &RegistryAccess) -> [File; 2] {
    // As containerd calls the directory of a host with a port.
    let name = match access.host.rsplit_once(':') {
        Some((host, port)) => format!("{host}_{port}_"),
        None => access.host.clone(),
    };
    let directory = format!("{REGISTRIES}/{name}");
    let ca = format!("{directory}/ca.crt");
    let hosts = format!(
        r#"server = "{url}"
ca = "{ca}"
client = [["{AGENT}/client.crt", "{AGENT}/client.key"]]
capabilities = ["pull", "resolve"]
"#,
        url = access.url
    );
    [
        plain(&ca, access.ca.as_str()),
        plain(&format!("{directory}/hosts.toml"), hosts),
    ]
}
