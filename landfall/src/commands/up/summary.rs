//! The commands that `up` prints at its end.
//!
//! Always true: each works as printed, in the shell and directory that `up` was run in. A program is named only where it is installed.

use std::path::{Path, PathBuf};

use super::{CLUSTER, GROUP};
use crate::{
    commands::Context,
    host,
    systemd::{self, Unit},
};

/// The facts that the printed commands depend on.
pub(super) struct Facts {
    /// The command that calls this program from here.
    pub(super) landfall: String,
    /// ` --name STAMP`, or empty.
    pub(super) flag: String,
    pub(super) kubeconfig: PathBuf,
    /// Whether PATH leads to a kubectl.
    pub(super) kubectl: bool,
    /// Whether PATH leads to an az.
    pub(super) az: bool,
    /// Whether the stamp could be started at boot but is not.
    pub(super) offer_boot: bool,
}

impl Facts {
    pub(super) fn of_this_host(context: &Context, kubeconfig: &Path) -> Self {
        Self {
            landfall: landfall(),
            flag: context.name_flag(),
            kubeconfig: kubeconfig.to_owned(),
            kubectl: host::on_path("kubectl").is_some(),
            az: host::on_path("az").is_some(),
            offer_boot: systemd::is_booted()
                && Unit::of(&context.places).is_ok_and(|unit| !unit.is_installed()),
        }
    }

    /// Titles and commands; a line without a title continues the one before.
    pub(super) fn commands(&self) -> Vec<(&'static str, String)> {
        let (me, flag) = (&self.landfall, &self.flag);
        let mut lines = Vec::new();
        if self.kubectl {
            let kubeconfig = host::quoted(&self.kubeconfig);
            lines.push(("Use the cluster", format!("export KUBECONFIG={kubeconfig}")));
            lines.push(("", "kubectl get nodes".to_owned()));
        } else {
            lines.push(("Use the cluster", format!("{me} kubectl{flag} get nodes")));
        }
        if self.az {
            lines.push(("Use the Azure CLI", format!("eval \"$({me} az{flag})\"")));
            lines.push(("", "az aks list --output table".to_owned()));
            lines.push((
                "",
                format!("az aks nodepool add -g {GROUP} --cluster-name {CLUSTER} -n more --node-count 1"),
            ));
        }
        lines.push(("Look around", format!("{me} status{flag}")));
        if self.offer_boot {
            lines.push(("Start it at boot", format!("{me} service install{flag}")));
        }
        lines.push(("Stop it all", format!("{me} down{flag}")));
        lines.push(("Delete it", format!("{me} down --purge{flag}")));
        lines
    }

    /// Missing programs, as a sentence.
    pub(super) fn remark(&self) -> Option<&'static str> {
        (!self.az).then_some(
            "The Azure CLI is not on PATH; README.md says how to get it and how to log in with it.",
        )
    }
}

/// How to call this program from here: by its name if PATH leads to it, else by its path; with the
/// environment variables of the stamp's place, which the next shell may not have.
fn landfall() -> String {
    let mut words = Vec::new();
    for name in ["LANDFALL_STATE_DIR", "LANDFALL_RUN_DIR"] {
        if let Some(value) = std::env::var_os(name).filter(|value| !value.is_empty()) {
            words.push(format!("{name}={}", host::quoted(Path::new(&value))));
        }
    }
    words.push(match std::env::current_exe() {
        Ok(own) => called(
            &own,
            host::on_path("landfall").and_then(|path| path.canonicalize().ok()),
            std::env::current_dir().ok().as_deref(),
        ),
        Err(_) => "landfall".to_owned(),
    });
    words.join(" ")
}

fn called(own: &Path, on_path: Option<PathBuf>, here: Option<&Path>) -> String {
    let real = own.canonicalize().unwrap_or_else(|_| own.to_owned());
    if on_path.is_some_and(|found| found == real) {
        return "landfall".to_owned();
    }
    let short = here.and_then(|here| own.strip_prefix(here).ok());
    match short {
        // A name alone would be looked for in PATH.
        Some(short) if short.components().count() == 1 => format!("./{}", host::quoted(short)),
        Some(short) => host::quoted(short),
        None => host::quoted(own),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            landfall: "target/release/landfall".into(),
            flag: " --name t".into(),
            kubeconfig: "/var/lib/landfall/t/secrets/landfall.kubeconfig".into(),
            kubectl: false,
            az: false,
            offer_boot: false,
        }
    }

    fn page(facts: &Facts) -> Vec<String> {
        facts.commands().into_iter().map(|(_, command)| command).collect()
    }

    #[test]
    fn a_fresh_machine_is_told_what_it_has() {
        assert_eq!(
            page(&facts()),
            [
                "target/release/landfall kubectl --name t get nodes",
                "target/release/landfall status --name t",
                "target/release/landfall down --name t",
                "target/release/landfall down --purge --name t",
            ]
        );
        assert!(facts().remark().unwrap().contains("Azure CLI"));
    }

    #[test]
    fn programs_that_are_there_are_named() {
        let all = Facts {
            kubectl: true,
            az: true,
            offer_boot: true,
            ..facts()
        };
        assert_eq!(
            page(&all),
            [
                "export KUBECONFIG=/var/lib/landfall/t/secrets/landfall.kubeconfig",
                "kubectl get nodes",
                "eval \"$(target/release/landfall az --name t)\"",
                "az aks list --output table",
                "az aks nodepool add -g landfall --cluster-name landfall -n more --node-count 1",
                "target/release/landfall status --name t",
                "target/release/landfall service install --name t",
                "target/release/landfall down --name t",
                "target/release/landfall down --purge --name t",
            ]
        );
        assert_eq!(all.remark(), None);
    }

    #[test]
    fn this_program_is_called_by_what_a_shell_finds() {
        let own = Path::new("/srv/my code/landfall");
        assert_eq!(called(own, Some(own.to_owned()), None), "landfall");
        assert_eq!(
            called(own, Some("/usr/bin/landfall".into()), None),
            "'/srv/my code/landfall'"
        );
        assert_eq!(called(own, None, Some(Path::new("/srv/my code"))), "./landfall");
        assert_eq!(called(own, None, Some(Path::new("/srv"))), "'my code/landfall'");
    }
}
