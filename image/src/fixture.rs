//! For tests: tiny pins, fake tools, and a manifest.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use base_env::{Clock, Env};

use crate::{
    ContainerImage, DebianPackage, ImageStore, Manifest, ProgramRecord, Tools,
    components::{Catalog, Module},
};

const COMPONENTS: &str = r#"
[base]
suite = "bookworm"
variant = "minbase"
seconds = 30
packages = ["runc"]

[[component]]
name = "kubernetes"
folder = "kubernetes-1.36"
layer = "kubernetes"
module = "k8s.io/kubernetes"
version = "v1.36.3"
build_date = "2026-07-22T18:07:38Z"
ldflags = ["-X v={version}"]
release = "https://dl.k8s.io/{version}/{name}"
programs = [
    { name = "kubelet", package = "k8s.io/kubelet", seconds = 24, ask = ["--version"] },
    { name = "kubectl", package = "k8s.io/kubectl", seconds = 20, ask = ["--version"] },
]

[[component]]
name = "etcd"
folder = "etcd"
layer = "common"
module = "go.etcd.io/etcd"
version = "v3.6.16"
build_date = "2026-10-22T22:52:36Z"
ldflags = []
release = "https://etcd.io/{version}/{name}"
programs = [{ name = "etcd", package = "go.etcd.io/etcd", seconds = 35, ask = ["--version"] }]

[[component]]
name = "coredns"
folder = "etcd"
layer = "images"
module = "github.com/coredns/coredns"
version = "v1.15.0"
build_date = "2026-10-21T02:17:32Z"
ldflags = []
release = "https://coredns.io/{version}/{name}"
programs = [{ name = "coredns", package = "coredns", seconds = 120, ask = ["--version"] }]

[[component]]
name = "warden"
folder = "etcd"
layer = "addon"
module = "example.org/warden"
version = "v2.1.0"
build_date = "2026-03-03T05:25:26Z"
ldflags = []
release = "https://example.org/{version}/{name}"
packages = ["ipset"]
links = { "usr/bin/wardenctl" = "ipset" }
programs = [{ name = "warden", package = "warden", seconds = 60, ask = ["--version"] }]
"#;

/// Two Kubernetes programs, etcd, one program in an image, and one in an image of its own.
pub(crate) fn catalog() -> Catalog {
    let mut catalog = Catalog::parse(COMPONENTS).unwrap();
    for folder in ["kubernetes-1.36", "etcd"] {
        let module = Module {
            go_mod: format!("module {folder}\n\ngo 1.26.0\n"),
            go_sum: String::new(),
        };
        catalog.modules.insert(folder.to_owned(), module);
    }
    catalog
}

/// A store in `cache` whose tools are scripts in `cache/tools`. Each build step adds its name to `cache/calls`. A
/// program whose name is in `cache/broken` fails to build; `cache/flavour` becomes a file of the base system.
pub(crate) fn store(cache: &Path) -> ImageStore {
    let tools = cache.join("tools");
    fs::create_dir_all(&tools).unwrap();
    let calls = cache.join("calls");
    let broken = cache.join("broken");
    let go = format!(
        r#"#!/bin/sh
[ "$1" = env ] && {{ echo go1.26.8; exit 0; }}
[ -f go.mod ] || {{ echo no go.mod; exit 1; }}
while [ "$1" != -o ]; do shift; done
name=$(basename "$2")
if grep -qx "$name" '{broken}' 2>/dev/null; then echo "undefined: $name"; exit 1; fi
echo "$name" >> '{calls}'
case $name in etcd) v=3.6.16;; coredns) v=1.15.0;; warden) v=2.1.0;; *) v=1.36.3;; esac
printf '#!/bin/sh\necho %s v%s\n' "$name" "$v" > "$2"
"#,
        broken = broken.display(),
        calls = calls.display()
    );
    let mmdebstrap = format!(
        r#"#!/bin/sh
for last; do :; done
case "$*" in *--variant=extract*)
echo packages >> '{calls}'
mkdir -p "$last/usr/bin"
printf ipset > "$last/usr/bin/ipset"
echo ipset_7.17-1_amd64.deb > "$last/packages"
exit;;
esac
echo base >> '{calls}'
mkdir -p "$last/usr/bin" "$last/var/lib/dpkg" "$last/etc/ssl/certs"
printf '#!/bin/sh\nprintf "sh\\nwget\\n"\n' > "$last/usr/bin/busybox"
chmod 755 "$last/usr/bin/busybox"
echo catatonit > "$last/usr/bin/catatonit"
cat '{flavour}' > "$last/etc/flavour" 2>/dev/null
echo certificates > "$last/etc/ssl/certs/ca-certificates.crt"
ln -s usr/bin "$last/bin"
version=$(cat '{debian}' 2>/dev/null || echo 1.1.5)
printf 'Package: runc\nStatus: install ok installed\nVersion: %s\nArchitecture: amd64\n' "$version" > "$last/var/lib/dpkg/status"
"#,
        calls = calls.display(),
        debian = cache.join("debian").display(),
        flavour = cache.join("flavour").display()
    );
    let tools = Tools {
        go: Some(script(&tools, "go", &go)),
        gcc: None,
        pkg_config: None,
        mmdebstrap: Some(script(&tools, "mmdebstrap", &mmdebstrap)),
        debian_mirror: None,
        root: true,
    };
    ImageStore::with_catalog(cache, Env::system(), tools, catalog()).unwrap()
}

/// The same at a moment that does not pass.
pub(crate) fn store_at(cache: &Path, at: &str) -> ImageStore {
    let mut store = store(cache);
    store.env.clock = Arc::new(Standing(at.parse().unwrap()));
    store
}

/// From now on, Debian has this version of runc.
pub(crate) fn debian_has(cache: &Path, version: &str) {
    fs::write(cache.join("debian"), version).unwrap();
}

struct Standing(jiff::Timestamp);

impl Clock for Standing {
    fn now(&self) -> jiff::Timestamp {
        self.0
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, _: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(std::future::ready(()))
    }
}

/// An executable file.
pub(crate) fn script(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The build steps that ran so far, in order.
pub(crate) fn calls(cache: &Path) -> Vec<String> {
    fs::read_to_string(cache.join("calls"))
        .unwrap_or_default()
        .lines()
        .map(str::to_owned)
        .collect()
}

/// A manifest for tests of documents.
pub(crate) fn manifest() -> Manifest {
    Manifest {
        schema: 1,
        version: "1.36.3".to_owned(),
        key: "ab".repeat(32),
        recipe: "cd".repeat(32),
        architecture: "amd64".to_owned(),
        created: "2026-02-03T04:05:06.789Z".parse().unwrap(),
        build: None,
        source: "modules".to_owned(),
        layers: Vec::new(),
        programs: vec![ProgramRecord {
            name: "kubelet".to_owned(),
            component: "kubernetes".to_owned(),
            module: "k8s.io/kubernetes".to_owned(),
            version: "v1.36.3".to_owned(),
            git_commit: None,
            go: Some("go1.26.8".to_owned()),
            path: "/usr/local/bin/kubelet".to_owned(),
            image: None,
            size: 7,
            sha256: "ef".repeat(32),
        }],
        images: vec![ContainerImage {
            reference: crate::references::PAUSE.to_owned(),
            digest: format!("sha256:{}", "12".repeat(32)),
            path: "/opt/landfall/images/pause.tar".to_owned(),
            size: 9,
            sha256: "34".repeat(32),
        }],
        packages: vec![DebianPackage {
            name: "runc".to_owned(),
            version: "1.1.5+ds1-1".to_owned(),
            architecture: "amd64".to_owned(),
        }],
        sbom: String::new(),
    }
}
