//! An unprepared machine: Debian's smallest system, with and without iproute2, and with Rust and Go.
//! `landfall up` makes it a stamp, every command that it prints works as printed, and `down --purge` leaves
//! nothing. On a third machine the set-up part of `cargo xtask test` installs or finds all that the tests
//! need.
//!
//! Each machine is a separate root in separate mount, process and network namespaces. The binary given to
//! acceptance replaces `cargo run`, and present node images are bound in: compiling and building are measured
//! elsewhere (`cargo xtask bench setup`). Debian packages are fetched before the machine loses the network,
//! into its own apt cache. That cache is empty after the first installation, so the tests have a separate
//! machine. The Azure CLI given to acceptance is bound in with its Python, read-only: a set-up that rejects
//! it cannot remove it.

use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    Args,
    clients::{attempt, run},
    journal::Journal,
};

/// The scenario's name.
pub(super) const NAME: &str = "fresh";

/// The stamp's name in both: another of the same name on this host would share its control groups.
const STAMP: &str = "fresh";

/// Packages that `up` may have to install, with their dependencies.
const PACKAGES: &[&str] = &[
    "runc",
    "iproute2",
    "nftables",
    "mount",
    "mmdebstrap",
    "ca-certificates",
];

/// Packages that the set-up of the tests may have to install beyond that.
const TEST_PACKAGES: &[&str] = &[
    "util-linux",
    "busybox-static",
    "gcc",
    "libc6-dev",
    "pkg-config",
    "libseccomp-dev",
    "python3",
    "python3-venv",
];

/// Walks through all three machines.
pub(super) fn walk(args: &Args, journal: &Journal) -> Result<()> {
    let scratch = tempfile::Builder::new().prefix("landfall-fresh-").tempdir()?;
    let base = scratch.path().join("base");
    journal.step(
        "fresh",
        "a root with nothing but Debian's smallest system",
        || debootstrap(&base),
    )?;
    for (name, include) in [("minbase", &[][..]), ("minbase with iproute2", &["iproute2"][..])] {
        let machine = journal.step("fresh", &format!("{name}: a machine of its own"), || {
            let kit = Kit::of_stamp(args)?;
            prepare(&base, &room(scratch.path(), name)?, include, PACKAGES)?;
            Machine::start(&kit, &base, room(scratch.path(), name)?)
        })?;
        let page = journal.step(
            "fresh",
            &format!("{name}: up, a cluster with a Ready node"),
            || machine.shell(&format!("{} up --name {STAMP}", machine.landfall)),
        )?;
        let commands = printed(&page);
        ensure!(commands.len() >= 4, "up printed {commands:?} in:\n{page}");
        for command in &commands {
            journal.step("fresh", &format!("{name}: {command}"), || {
                let said = machine.shell(command)?;
                ensure!(
                    !command.ends_with("get nodes") || said.contains(" Ready "),
                    "no node is Ready: {said}"
                );
                Ok(())
            })?;
        }
        ensure!(
            commands.last().is_some_and(|command| command.contains("--purge")),
            "the last command printed is {:?}",
            commands.last()
        );
        journal.step("fresh", &format!("{name}: nothing is left"), || {
            machine.is_empty()
        })?;
    }
    set_up_tests(args, journal, scratch.path(), &base)
}

/// The set-up part of `cargo xtask test`, on a separate machine.
fn set_up_tests(args: &Args, journal: &Journal, scratch: &Path, base: &Path) -> Result<()> {
    let name = "tests";
    let (kit, tests) = Kit::of_tests(args)?;
    let machine = journal.step("fresh", &format!("{name}: a machine of its own"), || {
        let packages = [PACKAGES, TEST_PACKAGES].concat();
        prepare(base, &room(scratch, name)?, &[], &packages)?;
        Machine::start(&kit, base, room(scratch, name)?)
    })?;
    journal.step("fresh", &format!("{name}: cargo xtask test --set-up"), || {
        let said = machine.shell(&tests.set_up)?;
        ensure!(
            said.contains("installing Debian packages"),
            "nothing was missing: {said}"
        );
        Ok(())
    })?;
    journal.step("fresh", &format!("{name}: what the tests need is there"), || {
        let said = machine.shell(&format!(
            "runc --version && nft --version && ip -V && mmdebstrap --version && busybox true && unshare --mount true \
             && pkg-config --exists libseccomp && python3 -c 'import ensurepip' && {} version",
            tests.az.display()
        ))?;
        ensure!(said.contains("azure-cli"), "az says {said}");
        Ok(())
    })?;
    journal.step(
        "fresh",
        &format!("{name}: a second time there is nothing to do"),
        || {
            let said = machine.shell(&tests.set_up)?;
            ensure!(!said.contains("installing"), "again: {said}");
            Ok(())
        },
    )
}

/// A directory for all files of one machine.
fn room(scratch: &Path, name: &str) -> Result<PathBuf> {
    let room = scratch.join(name.replace(' ', "-"));
    for place in ["upper", "work", "root", "state"] {
        std::fs::create_dir_all(room.join(place))?;
    }
    Ok(room)
}

/// The parts of this host that a machine sees, each at its own path.
struct Kit {
    landfall: String,
    shared: Vec<String>,
    read_only: Vec<String>,
}

/// How the tests are set up, and the Azure CLI that they get.
struct Tests {
    set_up: String,
    az: PathBuf,
}

impl Kit {
    /// The binary, Rust, Go and the existing node images.
    fn of_stamp(args: &Args) -> Result<Self> {
        let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
        let landfall = args.landfall.canonicalize().context("--landfall")?;
        let landfall = landfall.to_string_lossy().into_owned();
        let shared = [
            landfall.clone(),
            "/usr/local/go".to_owned(),
            format!("{home}/.rustup"),
            format!("{home}/.cargo"),
            "/root/.cache/landfall".to_owned(),
        ]
        .into_iter()
        .filter(|place| Path::new(place).exists())
        .collect();
        Ok(Self {
            landfall,
            shared,
            read_only: Vec::new(),
        })
    }

    /// `xtask` beside that, and the Azure CLI with its Python.
    fn of_tests(args: &Args) -> Result<(Self, Tests)> {
        let mut kit = Self::of_stamp(args)?;
        let xtask = Path::new(&kit.landfall).with_file_name("xtask");
        ensure!(
            xtask.is_file(),
            "there is no {} beside --landfall",
            xtask.display()
        );
        // TARGET/debug/xtask, and CACHE/landfall/az/VERSION/bin/az.
        let target = xtask
            .ancestors()
            .nth(2)
            .context("--landfall names no program of a target directory")?;
        let az = std::path::absolute(&args.az)?;
        let (environment, cache) = az
            .ancestors()
            .nth(2)
            .zip(az.ancestors().nth(5))
            .context("--az names none that cargo xtask test has set up")?;
        let set_up = format!(
            "XDG_CACHE_HOME={} LANDFALL_CACHE_DIR=/root/.cache/landfall CARGO_TARGET_DIR={} {} test --set-up",
            cache.display(),
            target.display(),
            xtask.display()
        );
        let python = prefix(environment)?;
        // Debian's own Python is installed by the machine.
        if python != Path::new("/usr") {
            kit.read_only.push(python.to_string_lossy().into_owned());
        }
        kit.read_only.push(environment.to_string_lossy().into_owned());
        kit.shared.push(xtask.to_string_lossy().into_owned());
        Ok((
            kit,
            Tests {
                set_up,
                az: az.clone(),
            },
        ))
    }
}

/// The directory of the Python that a virtual environment was made with.
fn prefix(environment: &Path) -> Result<PathBuf> {
    let file = environment.join("pyvenv.cfg");
    let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find(|(key, _)| key.trim() == "home")
        .and_then(|(_, programs)| Path::new(programs.trim()).parent())
        .map(Path::to_owned)
        .with_context(|| format!("{} does not say where its Python is", file.display()))
}

/// The commands that `up` printed: one a line, behind a title or blanks of a title's width.
fn printed(page: &str) -> Vec<String> {
    page.lines()
        .skip_while(|line| !line.starts_with("Ready in "))
        .filter(|line| line.starts_with("  "))
        .filter_map(|line| line.get(21..))
        .map(|command| command.trim().to_owned())
        .filter(|command| !command.is_empty())
        .collect()
}

/// Debian's smallest system, from the mirror that this host uses.
fn debootstrap(root: &Path) -> Result<()> {
    let release = std::fs::read_to_string("/etc/os-release")?;
    let suite = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .context("/etc/os-release has no VERSION_CODENAME")?;
    let mut command = Command::new("mmdebstrap");
    command.args(["--quiet", "--variant=minbase", suite]).arg(root);
    command.args(sources()?);
    run(&mut command)?;
    // How this host reaches its mirror, if by other means than usual.
    for place in ["etc/apt/apt.conf.d", "etc/apt/auth.conf.d"] {
        let from = Path::new("/").join(place);
        if from.is_dir() {
            run(Command::new("cp")
                .args(["--archive", "--no-target-directory"])
                .arg(&from)
                .arg(root.join(place)))?;
        }
    }
    for file in ["etc/resolv.conf", "etc/hosts"] {
        std::fs::copy(Path::new("/").join(file), root.join(file))
            .with_context(|| format!("cannot copy {file}"))?;
    }
    Ok(())
}

/// The host's own lists of Debian's archive.
fn sources() -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = vec!["/etc/apt/sources.list".into()];
    found.extend(
        std::fs::read_dir("/etc/apt/sources.list.d")?
            .flatten()
            .map(|entry| entry.path()),
    );
    found.retain(|path| {
        let is_list = path
            .extension()
            .is_some_and(|extension| extension == "list" || extension == "sources");
        is_list && std::fs::read_to_string(path).is_ok_and(|text| text.contains("debian"))
    });
    ensure!(!found.is_empty(), "this host has no list of Debian's archive");
    Ok(found)
}

/// Makes the inside of the namespaces: the root, the bind mounts, and a first process that reaps.
const INSIDE: &str = r#"
set -e
ip link set lo up
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$ROOM/upper,workdir=$ROOM/work" "$ROOM/root"
cd "$ROOM/root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount --rbind /sys/fs/cgroup sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
for place in $SHARED; do
    # A file may lie in a directory that is bound already: it is the host's own, and is not to be emptied.
    if [ -d "$place" ]; then mkdir -p ".$place"; else mkdir -p ".${place%/*}"; [ -e ".$place" ] || : > ".$place"; fi
    mount --rbind "$place" ".$place"
done
for place in $READ_ONLY; do
    mkdir -p ".$place"
    mount --bind "$place" ".$place"
    mount -o remount,bind,ro ".$place"
done
# An overlay's upper directory cannot lie in an overlay: machines' disks are on the host's file system.
mkdir -p var/lib/landfall
mount --bind "$ROOM/state" var/lib/landfall
mkdir old
pivot_root . old
cd /
umount -l old
rmdir old
echo ready
while :; do sleep 3600 & wait $! || true; done
"#;

/// A root in separate namespaces. Ends, with all its processes, when it is dropped.
struct Machine {
    holder: Child,
    /// The first process of its process namespace.
    init: u32,
    landfall: String,
    room: PathBuf,
}

impl Machine {
    fn start(kit: &Kit, base: &Path, room: PathBuf) -> Result<Self> {
        let mut holder = Command::new("unshare")
            .args([
                "--mount",
                "--pid",
                "--net",
                "--uts",
                "--ipc",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                INSIDE,
            ])
            .env("BASE", base)
            .env("ROOM", &room)
            .env("SHARED", kit.shared.join(" "))
            .env("READ_ONLY", kit.read_only.join(" "))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run unshare")?;
        let mut line = String::new();
        let output = holder.stdout.take().context("the child has an output")?;
        BufReader::new(output).read_line(&mut line)?;
        if line.trim() != "ready" {
            let output = holder.wait_with_output()?;
            bail!("no machine: {}", String::from_utf8_lossy(&output.stderr));
        }
        let children = format!("/proc/{0}/task/{0}/children", holder.id());
        let init = std::fs::read_to_string(children)?
            .trim()
            .parse()
            .context("unshare has no child")?;
        Ok(Self {
            holder,
            init,
            landfall: kit.landfall.clone(),
            room,
        })
    }

    /// Runs a line in the machine as its administrator, and gives its output.
    fn shell(&self, line: &str) -> Result<String> {
        run(&mut self.command(line))
    }

    fn command(&self, line: &str) -> Command {
        const PATH: &str =
            "/usr/local/go/bin:/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init.to_string()])
            .args(["--mount", "--pid", "--net", "--uts", "--ipc", "--root", "--wd"])
            .args(["sh", "-ec", line])
            .env_clear()
            .env("PATH", PATH)
            .env("HOME", "/root");
        command
    }

    /// No process, mount or file of the stamp is left.
    fn is_empty(&self) -> Result<()> {
        let look = "ls /var/lib/landfall /run/landfall /run/netns 2>/dev/null || true; grep -c landfall/fresh /proc/mounts || true; \
                    nft list tables; ip -o link show | grep -c lf || true";
        let said = self.shell(look)?;
        let words: Vec<&str> = said
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('/') && *line != "0")
            .collect();
        ensure!(words.is_empty(), "left: {words:?}");
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Ends the processes that a failed walk left running; after a successful one there is no stamp any
        // more.
        drop(attempt(&mut self.command(&format!(
            "{} down --purge --name {STAMP}",
            self.landfall
        ))));
        drop(self.holder.kill());
        drop(self.holder.wait());
        drop(std::fs::remove_dir_all(&self.room));
    }
}

/// Installs the initial packages of this machine, and fetches those that it may install later.
fn prepare(base: &Path, room: &Path, include: &[&str], packages: &[&str]) -> Result<()> {
    let script = r#"
set -e
mount -t overlay overlay -o "lowerdir=$BASE,upperdir=$ROOM/upper,workdir=$ROOM/work" "$ROOM/root"
mount -t proc proc "$ROOM/root/proc"
mount --bind /dev "$ROOM/root/dev"
exec chroot "$ROOM/root" sh -ec '
    apt-get update --quiet
    [ -z "$INCLUDE" ] || apt-get install --yes --quiet --no-install-recommends $INCLUDE
    apt-get install --yes --quiet --no-install-recommends --download-only $PACKAGES
'
"#;
    run(Command::new("unshare")
        .args(["--mount", "sh", "-c", script])
        .env("BASE", base)
        .env("ROOM", room)
        .env("INCLUDE", include.join(" "))
        .env("PACKAGES", packages.join(" "))
        .env("DEBIAN_FRONTEND", "noninteractive"))
    .map(drop)
}

#[cfg(test)]
mod tests {
    #[test]
    fn commands_are_read_from_the_page() {
        let page = "[ 1.0 s] x\n\nReady in 12 s, cluster in 9 s.\n\n  Use the cluster    /l kubectl get nodes\n                     two\n  Stop it all        /l down\n\nThe Azure CLI is not on PATH.\n";
        assert_eq!(super::printed(page), ["/l kubectl get nodes", "two", "/l down"]);
    }
}
