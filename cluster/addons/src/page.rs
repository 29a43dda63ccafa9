//! The add-ons as a page of the documentation.

use std::fmt::Write as _;

use cluster_spec::AddonImage;

use crate::{ADDONS, Addon, Edits};

/// The page `docs/reference/addons.md`.
pub fn page() -> String {
    let mut page = "# Add-ons\n\nWhat every cluster has, in `kube-system` where nothing else is said. All objects carry the label \
        `kubernetes.azure.com/managedby=aks`.\n\n\
        | add-on | what for | images | when a tenant edits it |\n|---|---|---|---|\n"
        .to_owned();
    for addon in ADDONS {
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            addon.name,
            addon.about,
            images(addon),
            edits(addon.edits)
        );
    }
    page.push_str(HEALTH);
    page.push_str(CUSTOM_DNS);
    page
}

const HEALTH: &str = "
An add-on that has lacked pods for two minutes is told of: `landfall status` names it as the cluster's problem, and the cluster's \
events have `ProblemBegan` and `ProblemEnded` of it. The cluster's state does not depend on it.
";

const CUSTOM_DNS: &str = "
## ConfigMap `coredns-custom`

As in AKS, a ConfigMap `coredns-custom` in `kube-system` adds to the cluster's DNS. Keys that end in `.override` become part of \
the server block of the cluster, keys that end in `.server` are server blocks of their own; other keys are files in \
`/etc/coredns/custom`. At most 200 KiB in all.

```yaml
apiVersion: v1
kind: ConfigMap
metadata:
  name: coredns-custom
  namespace: kube-system
data:
  hosts.override: |
    hosts custom.hosts db.corp {
      10.9.9.9 db.corp
      fallthrough
    }
  corp.server: |
    corp.test:53 {
      forward . 10.9.9.10
    }
```

A change reaches CoreDNS within half a minute, by a rolling update; `kubectl rollout restart` is not needed, and does no harm. With \
a configuration that CoreDNS cannot start with, the pods with the one before go on serving, also after a restart and on \
other nodes; after two minutes the ConfigMap has an Event `CoreDNSDoesNotStart` that says where to look.
";

fn images(addon: &Addon) -> String {
    let brought = addon.images.iter().map(|image| format!("`{}`", image.reference));
    let built = addon.built.iter().filter_map(|name| AddonImage::named(name));
    let built = built.map(|image| format!("`{}`, built when a cluster first asks for it", image.reference));
    brought.chain(built).collect::<Vec<_>>().join(", ")
}

fn edits(edits: Edits) -> &'static str {
    match edits {
        Edits::PutBack => "what the add-on sets is put back within half a minute; what it does not set stays",
        Edits::Compared => {
            "what the add-on sets is put back, and what was deleted is made again, within six minutes; what it does not set stays"
        }
        Edits::Kept => {
            "a StorageClass that is there stays as the tenant has it; all else is put back when the cluster is changed"
        }
    }
}
