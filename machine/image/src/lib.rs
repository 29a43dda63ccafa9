//! `landfall-agent image FILE`: has the image of an add-on in a node's containerd.
//!
//! ```text
//! ctr images ls ──► the digest of what is there ──► GET /agent/v1/images/NAME/TAG?have=DIGEST
//!                        204: it is that one        200: the archive ──► ctr images import
//! ```
//!
//! Images of add-ons are in no node image: the service has the archive once for all nodes, and each node fetches it with the
//! identity of its agent. The archive goes from the connection into containerd, and is on no disk in between.
//!
//! Always true: the program may be killed at any time and run again; containerd checks each part of an archive against its
//! digest, so that what was cut off is no image; an image is pinned, since it cannot be pulled again. Runs as a task of the
//! agent, which repeats it until it succeeds; its file is written by `cluster/bootstrap`.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use agent_protocol::programs::ImageConfig;
use machine_program::https::{self, Bounds};

/// The pause between two pieces of an archive after which the service is given up.
const SILENCE: Duration = Duration::from_secs(30);
/// containerd's namespace of the kubelet's images.
const NAMESPACE: [&str; 2] = ["--namespace", "k8s.io"];
/// The kubelet removes no image with this label.
const PINNED: &str = "io.cri-containerd.pinned=pinned";

/// The program's surroundings.
#[derive(Debug, Clone)]
pub struct Place {
    /// `/`, except in tests.
    pub root: PathBuf,
    /// containerd's client.
    pub ctr: PathBuf,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            root: "/".into(),
            ctr: "/usr/local/bin/ctr".into(),
        }
    }
}

/// Has the image that `file` names in containerd.
///
/// # Errors
/// A sentence: the file cannot be read, the service does not have the archive yet or does not answer, or containerd does not
/// take it.
pub fn run(place: &Place, file: &Path) -> Result<(), String> {
    let text = fs::read(file).map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let config: ImageConfig =
        serde_json::from_slice(&text).map_err(|error| format!("cannot use {}: {error}", file.display()))?;
    let have = present(place, &config.reference)?;
    let (service, client) = https::service_of(&place.root, Bounds::stream(SILENCE))?;
    let asked = have.map(|digest| format!("?have={digest}")).unwrap_or_default();
    let url = format!("{service}/agent/v1/images/{}/{}{asked}", config.name, config.tag);
    let mut answer = client.get(&url).call().map_err(|error| error.to_string())?;
    match answer.status().as_u16() {
        200 => import(place, &mut answer.into_body().into_reader()),
        204 => Ok(()),
        status => {
            let why = answer.body_mut().with_config().limit(1024).read_to_string();
            Err(format!(
                "the service answers {status}: {}",
                why.unwrap_or_default()
            ))
        }
    }
}

fn ctr(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(&place.ctr);
    command.args(NAMESPACE).args(arguments);
    command
}

/// The digest under which containerd has an image of this name.
fn present(place: &Place, reference: &str) -> Result<Option<String>, String> {
    let filter = format!("name=={reference}");
    let output = ctr(place, &["images", "ls", &filter])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start {}: {error}", place.ctr.display()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("containerd cannot be asked: {}", said.trim()));
    }
    Ok(digest(&String::from_utf8_lossy(&output.stdout), reference))
}

/// The digest in a table of `ctr images ls`.
fn digest(table: &str, reference: &str) -> Option<String> {
    let mut rows = table.lines().map(str::split_whitespace);
    let mut row = rows.find_map(|mut row| (row.next() == Some(reference)).then_some(row))?;
    let hex = row.find_map(|word| word.strip_prefix("sha256:"))?;
    let whole = hex.len() == 64 && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    whole.then(|| format!("sha256:{hex}"))
}

/// Hands an archive to containerd.
fn import(place: &Place, archive: &mut dyn Read) -> Result<(), String> {
    // Imported by the client itself: containerd's transfer service needs three times the processor time.
    let arguments = ["images", "import", "--local", "--label", PINNED, "-"];
    let mut child = ctr(place, &arguments)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start {}: {error}", place.ctr.display()))?;
    let carried = match child.stdin.take() {
        // Dropped at the end: the client sees the end of the archive.
        Some(mut input) => io::copy(archive, &mut input),
        None => Err(io::Error::other("it has no input")),
    };
    let broken = match carried {
        // The client ended first, and says itself why.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            // What was carried so far must not be taken for the whole archive.
            let _ended = child.kill();
            Some(error)
        }
        _ => None,
    };
    let status = child
        .wait()
        .map_err(|error| format!("cannot wait for {}: {error}", place.ctr.display()))?;
    match broken {
        Some(error) => Err(format!("the archive broke off: {error}")),
        None if status.success() => Ok(()),
        None => Err(format!("containerd does not take the image: {status}")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    /// A client of containerd that writes down what it is given.
    fn client(dir: &Path, script: &str) -> Place {
        let ctr = dir.join("ctr");
        fs::write(&ctr, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&ctr, fs::Permissions::from_mode(0o755)).unwrap();
        Place {
            root: dir.to_owned(),
            ctr,
        }
    }

    #[test]
    fn the_digest_of_an_image_is_found_by_its_whole_name() {
        let table = format!(
            "REF                            TYPE  DIGEST SIZE PLATFORMS LABELS\n\
             landfall.dev/warden:v2.1.00    x sha256:{} 70.1 MiB linux/amd64 -\n\
             landfall.dev/warden:v2.1.0     x {DIGEST} 70.1 MiB linux/amd64 io.cri-containerd.pinned=pinned\n",
            "0".repeat(64)
        );
        assert_eq!(
            digest(&table, "landfall.dev/warden:v2.1.0").as_deref(),
            Some(DIGEST)
        );
        assert_eq!(digest(&table, "landfall.dev/warden:v2"), None);
        assert_eq!(digest("x y sha256:short", "x"), None);
    }

    /// A connection that breaks after this number of pieces.
    struct Cut(usize);
    impl Read for Cut {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            self.0 -= 1;
            out.fill(7);
            Ok(out.len())
        }
    }

    /// One test, for programs that are written and started in several threads at the same time may be busy.
    #[test]
    fn an_archive_goes_to_containerd_as_a_whole_or_it_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("told");
        let taken = dir.path().join("taken");
        let script = format!("echo \"$@\" >> {}; cat > {}", told.display(), taken.display());
        let place = client(dir.path(), &script);
        let bytes = vec![7; 300_000];
        import(&place, &mut bytes.as_slice()).unwrap();
        assert_eq!(fs::read(&taken).unwrap(), bytes);
        let arguments = fs::read_to_string(&told).unwrap();
        assert_eq!(
            arguments.trim(),
            "--namespace k8s.io images import --local --label io.cri-containerd.pinned=pinned -"
        );
        let error = import(&place, &mut Cut(3)).unwrap_err();
        assert!(error.starts_with("the archive broke off"), "{error}");
        let refusing = client(dir.path(), "exit 3");
        let error = import(&refusing, &mut bytes.as_slice()).unwrap_err();
        assert!(error.contains("does not take the image"), "{error}");

        // It may not be there yet: an error, and the agent tries again.
        let place = client(dir.path(), "echo 'no such socket' >&2; exit 1");
        let error = present(&place, "landfall.dev/warden:v2.1.0").unwrap_err();
        assert_eq!(error, "containerd cannot be asked: no such socket");
        let place = client(dir.path(), "echo REF TYPE DIGEST");
        assert_eq!(present(&place, "landfall.dev/warden:v2.1.0").unwrap(), None);
        let file = dir.path().join("image.json");
        let error = run(&place, &file).unwrap_err();
        assert!(error.starts_with("cannot read"), "{error}");
        fs::write(
            &file,
            r#"{"name":"warden","tag":"v2.1.0","reference":"landfall.dev/warden:v2.1.0"}"#,
        )
        .unwrap();
        // A machine without a seed: it is told what is missing.
        let error = run(&place, &file).unwrap_err();
        assert!(error.contains("seed.json"), "{error}");
    }
}
