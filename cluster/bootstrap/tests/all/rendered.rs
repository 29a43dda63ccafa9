//! Rendered configurations are pinned: a difference reaches each machine of each cluster after the next
//! upgrade of the service. `UPDATE_GOLDEN=1 cargo test -p cluster-bootstrap --test all rendered` writes the
//! golden files.

use cluster_bootstrap::renderer::{Sample, rendered, renderer_version};
use cluster_spec::{PodNetworking, Tier};

const PLUGINS: [(PodNetworking, &str); 4] = [
    (PodNetworking::Kubenet, "kubenet"),
    (PodNetworking::AzureFlat, "flat"),
    (PodNetworking::AzureOverlay, "overlay"),
    (PodNetworking::None, "none"),
];

#[test]
fn what_is_rendered_is_pinned() {
    let mut different = Vec::new();
    for (plugin, name) in PLUGINS {
        for (sample, role) in [
            (Sample::Member(Tier::Free), "member-free"),
            (Sample::Member(Tier::Standard), "member-standard"),
            (Sample::Member(Tier::Premium), "member-premium"),
            (Sample::Authenticated, "authenticated"),
            (Sample::Node, "node"),
            (Sample::NodeOnSharedDisk, "node-shared-disk"),
        ] {
            let text = rendered(sample, plugin).unwrap();
            let again = rendered(sample, plugin).unwrap();
            assert!(
                text == again,
                "{role}-{name}: keys differ each time, and nothing else does"
            );
            // A test runs in its crate's folder; the compile-time path may be another checkout.
            let path = std::path::Path::new("tests/golden").join(format!("{role}-{name}.txt"));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &text).unwrap();
            }
            if std::fs::read_to_string(&path).unwrap_or_default() != text {
                different.push(path);
            }
        }
    }
    assert!(different.is_empty(), "{different:?} are not what is rendered now");
}

#[test]
fn versions_differ_where_what_is_rendered_does_and_hold_no_keys() {
    for (plugin, name) in PLUGINS {
        let node = renderer_version(Sample::NODES, plugin).unwrap();
        let members = renderer_version(Sample::MEMBERS, plugin).unwrap();
        assert_ne!(node, members, "{name}");
        assert_eq!(node, renderer_version(Sample::NODES, plugin).unwrap());
        let text = rendered(Sample::Node, plugin).unwrap();
        assert!(!text.contains("-----BEGIN") && !text.contains("LS0tLS1CRUdJTi"));
    }
    let flat = renderer_version(Sample::NODES, PodNetworking::AzureFlat).unwrap();
    assert_ne!(
        flat,
        renderer_version(Sample::NODES, PodNetworking::Kubenet).unwrap()
    );
}
