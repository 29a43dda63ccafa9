//! The systemd unit of a stamp's service: its text, its place, and the calls of systemd.
//!
//! Always true: there is one unit per stamp; it starts an existing stamp and never makes one; machines are
//! not among the processes that systemd ends with it. Processes of the service inherit its settings, so the
//! unit has none that a machine's pods would notice (system call filters, `NoNewPrivileges`, an out-of-memory
//! score) and none that gives it a private mount namespace (`ProtectSystem`, `PrivateTmp`): machines' file
//! systems have to be visible to the host, and to the next service.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::{
    host, images,
    places::{Places, write_whole},
    problem::Problem,
};

/// Exists while systemd runs this host (`sd_booted(3)`).
const BOOTED: &str = "/run/systemd/system";
/// The directory of administrators' units.
const UNITS: &str = "/etc/systemd/system";

/// The unit of a stamp.
pub(crate) struct Unit {
    places: Places,
    program: PathBuf,
}

impl Unit {
    /// The stamp's, starting this very program.
    pub(crate) fn of(places: &Places) -> Result<Self> {
        Ok(Self {
            places: places.clone(),
            program: std::env::current_exe().context("cannot find this program's own file")?,
        })
    }

    /// `landfall.service`, or with the stamp's name in it.
    pub(crate) fn name(&self) -> String {
        match self.places.name.as_str() {
            "landfall" => "landfall.service".to_owned(),
            name => format!("landfall-{name}.service"),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        Path::new(UNITS).join(self.name())
    }

    /// Refuses where systemd does not run this host.
    pub(crate) fn require_systemd(&self, flag: &str) -> Result<()> {
        if is_booted() {
            return Ok(());
        }
        Err(Problem::new(
            "this host is not run by systemd, so there is no service to install",
            format!(
                "run this at boot, as root: {} up{flag}",
                host::quoted(&self.program)
            ),
        )
        .into())
    }

    pub(crate) fn is_installed(&self) -> bool {
        self.path().exists()
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.ask("is-enabled")
    }

    pub(crate) fn is_active(&self) -> bool {
        self.ask("is-active")
    }

    /// The program that the installed unit starts.
    pub(crate) fn program(&self) -> Option<PathBuf> {
        started_by(&fs::read_to_string(self.path()).ok()?)
    }

    /// Whether systemd is the one to start this stamp's service, with this program.
    pub(crate) fn starts_us(&self) -> bool {
        is_booted() && self.program().as_deref() == Some(self.program.as_path())
    }

    /// Writes the unit. Returns whether it was another before.
    pub(crate) fn write(&self) -> Result<bool> {
        let refused = |error| {
            Problem::new(
                format!("{} is no program to be started at boot", self.program.display()),
                "put it where only root can write, and install from there: install landfall /usr/local/bin/landfall && \
                 landfall service install",
            )
            .because(images::problem(error))
        };
        image::check_place(&self.program, 0).map_err(refused)?;
        let text = text(&self.places, &self.program);
        if fs::read_to_string(self.path()).is_ok_and(|present| present == text) {
            return Ok(false);
        }
        write_whole(&self.path(), text.as_bytes(), 0o644)?;
        systemctl(&["daemon-reload"])?;
        Ok(true)
    }

    pub(crate) fn enable(&self) -> Result<()> {
        systemctl(&["enable", "--quiet", &self.name()])
    }

    pub(crate) fn start(&self) -> Result<()> {
        // Otherwise a unit that failed too often would not be started.
        drop(systemctl(&["reset-failed", &self.name()]));
        systemctl(&["start", &self.name()])
    }

    /// Stops the service if systemd runs it; otherwise no action.
    pub(crate) fn stop(&self) {
        if self.is_active()
            && let Err(error) = systemctl(&["stop", &self.name()])
        {
            tracing::debug!(error = format!("{error:#}"), "systemd does not stop the service");
        }
    }

    /// Removes the unit, and stops its service. Returns whether it existed.
    pub(crate) fn remove(&self) -> Result<bool> {
        if !self.is_installed() {
            return Ok(false);
        }
        systemctl(&["disable", "--now", "--quiet", &self.name()])?;
        fs::remove_file(self.path()).with_context(|| format!("cannot remove {}", self.path().display()))?;
        systemctl(&["daemon-reload"])?;
        Ok(true)
    }

    fn ask(&self, verb: &str) -> bool {
        is_booted() && host::run("systemctl", &[verb, "--quiet", &self.name()]).is_ok()
    }
}

/// Whether systemd runs this host.
pub(crate) fn is_booted() -> bool {
    Path::new(BOOTED).is_dir()
}

fn systemctl(arguments: &[&str]) -> Result<()> {
    host::run("systemctl", arguments).map(drop).map_err(|error| {
        Problem::new(
            format!("systemd does not {}", arguments[0]),
            "journalctl --unit says why",
        )
        .because(error)
        .into()
    })
}

fn started_by(unit: &str) -> Option<PathBuf> {
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart="))?;
    // A path in double quotes, with its special characters escaped.
    let mut path = String::new();
    let mut rest = line.strip_prefix('"')?.chars();
    loop {
        match rest.next()? {
            '"' => return Some(path.into()),
            '\\' => path.push(rest.next()?),
            '%' => path.push(rest.next()?),
            other => path.push(other),
        }
    }
}

/// A word in systemd's syntax: quoted, without specifiers.
fn word(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '%' => quoted.extend([c, c]),
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// A path in settings for which systemd accepts no quotes.
fn plain(path: &Path) -> String {
    path.display().to_string().replace('%', "%%")
}

/// The unit's text.
fn text(places: &Places, program: &Path) -> String {
    let base = |path: &Path| path.parent().unwrap_or(Path::new("/")).display().to_string();
    let name = &places.name;
    let settings = places.settings();
    let state = word(&format!("LANDFALL_STATE_DIR={}", base(&places.state)));
    let run = word(&format!("LANDFALL_RUN_DIR={}", base(&places.run)));
    format!(
        "\
# Written by `landfall service install`; `landfall service remove` takes it away.
[Unit]
Description=Landfall, stamp {name}
Documentation=https://landfall.dev
# Firewalls that replace all rules at their start have to do so before.
After=network-online.target nftables.service firewalld.service ufw.service
Wants=network-online.target
RequiresMountsFor={mounts}
# A stamp that was deleted is not made again.
ConditionPathExists={settings}
StartLimitIntervalSec=300
StartLimitBurst=10

[Service]
Type=exec
ExecStart={program} serve --background --name {name}
Environment={state} {run}
# What it says before it has a log of its own is where `landfall up` looks for it.
StandardOutput=truncate:{output}
StandardError=inherit
Restart=on-failure
RestartSec=2
# Machines and builds go on when the service ends.
KillMode=process
TimeoutStopSec=30
OOMPolicy=continue
# Machines inherit what is set here, so only what does not change them.
LimitNOFILE=1048576
LimitCORE=0:infinity
TasksMax=infinity
UMask=0022
KeyringMode=private

[Install]
WantedBy=multi-user.target
",
        mounts = plain(&places.state),
        settings = plain(&settings),
        output = plain(&places.state.join("log/serve.out")),
        program = word(&program.display().to_string()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(name: &str) -> Places {
        Places {
            name: name.into(),
            state: Path::new("/var/lib/landfall").join(name),
            run: Path::new("/run/landfall").join(name),
        }
    }

    #[test]
    fn the_unit_is_as_it_was_tried() {
        let text = text(&places("landfall"), Path::new("/usr/local/bin/landfall"));
        assert_eq!(text, include_str!("../tests/landfall.service"));
    }

    #[test]
    fn the_unit_is_named_after_its_stamp_and_its_program_is_read_again() {
        let odd = Path::new("/srv/50% of \"it\"/$x\\landfall");
        let unit = Unit {
            places: places("t-1"),
            program: odd.into(),
        };
        assert_eq!(unit.name(), "landfall-t-1.service");
        let text = text(&unit.places, odd);
        assert_eq!(started_by(&text).as_deref(), Some(odd), "{text}");
        assert_eq!(started_by("[Service]\nExecStart=/bin/true\n"), None);
    }

    #[test]
    fn without_systemd_the_way_on_is_told() {
        if is_booted() {
            return;
        }
        let unit = Unit {
            places: places("t"),
            program: "/opt/landfall".into(),
        };
        let told = crate::problem::told(&unit.require_systemd(" --name t").unwrap_err());
        assert!(told.sentence.contains("not run by systemd"), "{}", told.sentence);
        assert!(told.next.unwrap().ends_with("/opt/landfall up --name t"));
    }
}
