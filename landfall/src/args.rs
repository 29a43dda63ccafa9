//! The command line: commands, arguments, and their help.
//!
//! Always true: every argument that concerns a stamp is checked here or in [`crate::stamp`], before any effect.

mod access;
mod alerts;
mod backup;
mod catalogue;
mod certificate;
mod credentials;
mod identity;
mod image;
mod layout;
mod maintenance;
mod secrets;
mod subscription;
mod support;
mod upgrade;
mod usage;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf};

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use access::{Access, AccessPlace};
pub(crate) use alerts::Alerts;
pub(crate) use backup::{Backup, BackupRestore, Store, StoreRestore};
pub(crate) use catalogue::{Catalogue, CatalogueSign};
pub(crate) use certificate::Certificates;
pub(crate) use credentials::Credentials;
pub(crate) use identity::{
    Application, Certificate, Federated, Group, Identity, Member, ResetPassword, RotateKeys, Secret,
    ServicePrincipal, User, UserCreate,
};
pub(crate) use image::{Image, ImageBuild, ImagePush, SourceArg};
pub(crate) use layout::{IdentityArg, Layout, UplinkArg};
pub(crate) use maintenance::Maintenance;
pub(crate) use secrets::{DropSealingKey, Secrets};
pub(crate) use subscription::Subscription;
pub(crate) use support::{
    AtDeadlineArg, ProfileArg, Support, SupportAccess, SupportStatus, Ticket, TicketName,
};
pub(crate) use upgrade::{Upgrade, UpgradeOf, UpgradePlan};
pub(crate) use usage::{MetricsListen, Usage};

/// Azure Kubernetes Service on your own machines.
#[derive(Debug, Parser)]
#[command(
    name = "landfall",
    version,
    about = "Azure Kubernetes Service on your own machines",
    long_about = "Azure Kubernetes Service on your own machines: the same `az aks` and ARM API, real upstream \
                  Kubernetes, from one binary.\n\nStart with `landfall up`.",
    propagate_version = false,
    disable_help_subcommand = true,
    max_term_width = 110
)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,

    /// Options that every command takes.
    #[command(flatten)]
    pub(crate) global: Global,
}

/// Options that every command takes.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The stamp: one installation on this host; several can live side by side
    #[arg(
        long,
        global = true,
        value_name = "STAMP",
        default_value = "landfall",
        env = "LANDFALL_NAME",
        help_heading = "Global options"
    )]
    pub(crate) name: String,

    /// How to print: for people, or JSON for programs (one object a line while working, the result last); `landfall usage` also CSV
    #[arg(long, global = true, value_enum, default_value_t = Output::Table, help_heading = "Global options")]
    pub(crate) output: Output,

    /// Print results and errors only
    #[arg(
        long,
        short,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Global options"
    )]
    pub(crate) quiet: bool,

    /// Print details: causes of errors, all checks, all programs that are run
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub(crate) verbose: bool,
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people
    Table,
    /// For programs
    Json,
    /// For spreadsheets
    Csv,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a running cluster on a fresh machine; can be repeated at any time, and continues where it stopped
    Up(Up),
    /// Stop the whole stamp; with `--purge` delete it
    Down(Down),
    /// Show the stamp, its clusters and their machines
    Status,
    /// Run the service in the foreground (`up` starts it in the background)
    Serve(Serve),
    /// Let systemd start the stamp at boot, and again after a fault
    #[command(subcommand)]
    Service(Service),
    /// Check the capabilities of this host, and name missing ones
    Doctor(Doctor),
    /// Register this stamp with the Azure CLI, log in, and print the variables to export
    Az(Az),
    /// Print the administrator's kubeconfig of a cluster
    Kubeconfig(Kubeconfig),
    /// Print how to get kubelogin, the sign-in to clusters that use the stamp's directory
    Kubelogin,
    /// List the kubeconfigs of clusters that were handed out, and revoke one
    #[command(subcommand)]
    Credentials(Credentials),
    /// Run the node image's own kubectl as administrator of a cluster
    Kubectl(Kubectl),
    /// Print the end of a log: of the service, of a machine's agent, or of a process in a machine
    Logs(Logs),
    /// List, show and abort operations of clusters
    #[command(subcommand)]
    Operation(Operation),
    /// Upgrades of clusters: report obstacles and times before an upgrade; upgrade a control plane with a way back
    #[command(subcommand)]
    Upgrade(Upgrade),
    /// The version catalogue: show it, and import a newer one that is signed
    #[command(subcommand)]
    Catalogue(Catalogue),
    /// The store with the records of all clusters: list its copies, and restore one
    #[command(subcommand)]
    Store(Store),
    /// Planned work, such as upgrades by a channel: show what waits, hold it up, let it go on
    #[command(subcommand)]
    Maintenance(Maintenance),
    /// Subscriptions, and whether anything may be changed in them: list, disable and enable
    #[command(subcommand)]
    Subscription(Subscription),
    /// Support: whether clusters are supported and why not, what it covers, vulnerabilities and known issues, tickets and access
    #[command(subcommand)]
    Support(Support),
    /// Role assignments: list, create and delete
    #[command(subcommand)]
    Access(Access),
    /// The stamp's directory: users, groups, applications, and their credentials
    #[command(subcommand)]
    Identity(Identity),
    /// The keys that seal the stamp's own secrets: list them, make another one, and drop one
    #[command(subcommand)]
    Secrets(Secrets),
    /// Show resources that are in no record of the store, and allow their deletion
    #[command(subcommand)]
    Unknown(Unknown),
    /// Backups of clusters: list restorable moments, preview a restore, and restore
    #[command(subcommand)]
    Backup(Backup),
    /// Show the events of clusters with their reasons; of deleted clusters for a week
    Events(Events),
    /// Show what an operator has to see to: open alerts, with what to do about each
    Alerts(Alerts),
    /// Print the metrics of the service, as Prometheus reads them
    Metrics,
    /// Show what subscriptions have used, by the hour
    Usage(Usage),
    /// Certificates and keys of the stamp and its clusters: list them, without any secret
    #[command(subcommand)]
    Certificate(Certificates),
    /// Build, list, move and verify node images; push container images to a registry
    #[command(subcommand)]
    Image(Image),
    /// Print the version
    Version,
    /// Print a completion script for a shell
    Completion {
        /// Which shell
        shell: Shell,
    },
    /// Print the generated reference pages as one JSON object, by path (for `cargo xtask docs`)
    #[command(hide = true)]
    Reference,
}

/// `landfall up`.
#[derive(Debug, Args)]
#[command(after_help = "\
What it does, each step only where it is needed:
  1. checks this host and its firewall, and installs the Debian packages that are missing (it says which)
  2. builds the upstream Kubernetes programs and a node image, once; the cache keeps it for every stamp
  3. makes the stamp (keys, address range) and starts `landfall serve` in the background
  4. through the ARM API, as any client: a resource group and a cluster
  5. waits until every node is Ready, and prints the next commands

Interrupted or failed? Run it again: it goes on where it stopped.")]
pub(crate) struct Up {
    /// Nodes of the first cluster; given again, it is scaled [default: 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) nodes: Option<u32>,

    /// Kubernetes version of the first cluster, e.g. 1.36.3 [default: the default version]
    #[arg(long, value_name = "VERSION")]
    pub(crate) kubernetes: Option<String>,

    /// The layout of the stamp; kept, so it need not be repeated
    #[command(flatten)]
    pub(crate) layout: Layout,
}

/// `landfall down`.
#[derive(Debug, Args)]
#[command(after_help = "\
After `down` nothing of the stamp runs on this host: no process, mount, network namespace, link, \
route, firewall rule or run file is left. Its files on disk stay under /var/lib/landfall/STAMP: the \
stamp's keys, its store, and the disks of its machines. `landfall up` starts it all again, and \
clusters come back with their data.

With `--purge` that directory goes too: clusters, data, keys. Node images are shared by all stamps \
and stay in the cache (`landfall image list` shows where).")]
pub(crate) struct Down {
    /// Also delete everything on disk: clusters and their data, keys, logs
    #[arg(long)]
    pub(crate) purge: bool,

    /// Do not ask before clusters are deleted (without a terminal nobody is asked)
    #[arg(long, short)]
    pub(crate) yes: bool,
}

/// `landfall serve`.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Write the log to the stamp's directory instead of the terminal, bounded in size
    #[arg(long, hide = true)]
    pub(crate) background: bool,

    /// The layout of the stamp, if it is not made yet
    #[command(flatten)]
    pub(crate) layout: Layout,
}

/// `landfall service`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
After `landfall down` the stamp starts again at the next boot; `service remove` ends that, and `down --purge` as well. The unit starts
this program from where it lies now, which has to be a place where only root can write.")]
pub(crate) enum Service {
    /// Write and enable the unit, and run the service under it; again after the program was moved
    Install,
    /// Stop the service and delete its unit; clusters go on
    Remove,
    /// Show whether there is a unit, whether it starts at boot, and what it starts
    Status,
}

/// `landfall doctor`.
#[derive(Debug, Args)]
pub(crate) struct Doctor {
    /// Also check that this address is free [default: the stamp's, else 127.0.0.1:8443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
}

/// `landfall az`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  eval \"$(landfall az)\"
  az aks list -o table

It logs in as the stamp's service principal, and prints the settings that az needs in every shell: the stamp's \
certificate, and that az must not ask Microsoft about the stamp (core.instance_discovery). The stamp has an \
administrator, too, who can log in with a device code: az login --use-device-code. The name is \
admin@landfall.internal (admin@DOMAIN with --domain), the password in secrets/administrator in the stamp's directory.")]
pub(crate) struct Az {
    /// Use your own Azure CLI configuration instead of one beside the stamp
    #[arg(long)]
    pub(crate) user: bool,

    /// Which `az` to run
    #[arg(long, value_name = "PROGRAM", default_value = "az", env = "LANDFALL_AZ")]
    pub(crate) program: PathBuf,
}

/// `landfall kubeconfig`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  landfall kubeconfig > cluster.kubeconfig
  kubectl --kubeconfig cluster.kubeconfig get nodes

It is valid for hours (`landfall up --kubeconfig-hours`), and can be revoked: landfall credentials revoke. Of a cluster
whose local accounts are disabled, it is the operator's own, for an hour.")]
pub(crate) struct Kubeconfig {
    /// Which cluster, as NAME or GROUP/NAME; may be left out where there is only one
    pub(crate) cluster: Option<String>,
}

/// `landfall kubectl`.
#[derive(Debug, Args)]
#[command(after_help = "\
Options of landfall come before the first word for kubectl; everything from there on is kubectl's. The kubeconfig is handed over
in memory, and the exit code is kubectl's.

Examples:
  landfall kubectl get nodes -o wide
  landfall kubectl --cluster shop -n kube-system get pods
  landfall kubectl apply -f - < manifest.yaml")]
pub(crate) struct Kubectl {
    /// Which cluster, as NAME or GROUP/NAME; may be left out where there is only one
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cluster: Option<String>,

    /// Arguments of kubectl
    #[arg(
        value_name = "ARGUMENTS",
        trailing_var_arg = true,
        allow_hyphen_values = true,
        required = true
    )]
    pub(crate) arguments: Vec<OsString>,
}

/// `landfall logs`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landfall logs                              the service
  landfall logs landfall                     which machines and processes a cluster has
  landfall logs landfall kube-apiserver      a process of its control plane
  landfall logs aks-nodepool1-1-vmss000000 kubelet")]
pub(crate) struct Logs {
    /// A cluster (NAME or GROUP/NAME), a node's name or a machine's id; the service if left out
    pub(crate) of: Option<String>,

    /// A process of it, e.g. kube-apiserver, kubelet, agent
    #[arg(requires = "of")]
    pub(crate) process: Option<String>,

    /// Number of lines
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) lines: u32,
}

/// `landfall unknown`.
#[derive(Debug, Subcommand)]
pub(crate) enum Unknown {
    /// List machines, networks, volumes and backups that are in no record of the store: it is new, or older than they are
    List,
    /// Allow the deletion of one: a machine goes with its disk, a volume with its content, a backup seven days after its newest change
    Delete {
        /// Its name, as the list has it
        #[arg(id = "object", value_name = "NAME")]
        name: String,

        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// `landfall operation`.
#[derive(Debug, Subcommand)]
pub(crate) enum Operation {
    /// List operations with their progress, the newest first; ended ones for a week
    List {
        /// A cluster, as NAME or GROUP/NAME [default: all]
        cluster: Option<String>,

        /// Only those that have not ended
        #[arg(long)]
        active: bool,
    },
    /// Show one operation: its progress, its obstacles, its error
    Show {
        /// Its id, or the beginning of it
        operation: String,
    },
    /// Abort the running operations of a cluster, as `az aks operation-abort` does
    Abort(OperationAbort),
}

/// `landfall operation abort`.
#[derive(Debug, Args)]
#[command(after_help = "\
The desired state returns to the state reached last: a pool being scaled goes back to the number of nodes it had.
A cluster that is being created is emptied and stays visible as Canceled; a new pool stays visible without nodes.
The next request is accepted as always. Deletions cannot be taken back.")]
pub(crate) struct OperationAbort {
    /// The cluster, as NAME or GROUP/NAME
    pub(crate) cluster: String,

    /// Only the running operations of this pool
    #[arg(long, value_name = "POOL")]
    pub(crate) pool: Option<String>,

    /// Do not wait until the earlier state is reached
    #[arg(long)]
    pub(crate) no_wait: bool,
}

/// `landfall events`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landfall events
  landfall events prod/web --follow")]
pub(crate) struct Events {
    /// A cluster, as NAME or GROUP/NAME [default: all]
    pub(crate) cluster: Option<String>,

    /// Print new events until interrupted
    #[arg(long, short)]
    pub(crate) follow: bool,

    /// Number of events, the last ones
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) lines: u32,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser as _};

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }

    /// An argument with the id of an option that every command takes replaces it there without a word.
    #[test]
    fn every_command_takes_the_options_of_all() {
        fn check(command: &clap::Command, of_all: &[clap::Id]) {
            for argument in command
                .get_arguments()
                .filter(|argument| !argument.is_global_set())
            {
                let id = argument.get_id();
                assert!(!of_all.contains(id), "{}: {id}", command.get_name());
            }
            for below in command.get_subcommands() {
                check(below, of_all);
            }
        }
        let command = super::Cli::command();
        let of_all: Vec<_> = command
            .get_arguments()
            .filter(|argument| argument.is_global_set())
            .map(|argument| argument.get_id().clone())
            .collect();
        assert!(of_all.len() > 3, "{of_all:?}");
        check(&command, &of_all);
    }

    #[test]
    fn what_follows_the_first_word_is_kubectls() {
        let parse = |words: &[&str]| {
            let cli = super::Cli::try_parse_from([&["landfall", "kubectl"], words].concat()).unwrap();
            match cli.command {
                super::Command::Kubectl(args) => (cli.global.name, args.cluster, args.arguments),
                other => panic!("{other:?}"),
            }
        };
        let (name, cluster, arguments) = parse(&[
            "--name",
            "t",
            "--cluster",
            "shop",
            "get",
            "pods",
            "--output",
            "json",
            "--name",
            "x",
            "-v=6",
        ]);
        assert_eq!((name.as_str(), cluster.as_deref()), ("t", Some("shop")));
        assert_eq!(
            arguments,
            ["get", "pods", "--output", "json", "--name", "x", "-v=6"]
        );
        let (name, cluster, arguments) = parse(&["-n", "kube-system", "get", "pods", "--cluster", "x"]);
        assert_eq!((name.as_str(), cluster), ("landfall", None));
        assert_eq!(arguments, ["-n", "kube-system", "get", "pods", "--cluster", "x"]);
    }

    #[test]
    fn a_restore_is_in_place_or_as_another_cluster() {
        let parse = |text: &str| super::Cli::try_parse_from(text.split(' '));
        let restore = |text: &str| match parse(text).unwrap().command {
            super::Command::Backup(super::Backup::Restore(restore)) => restore,
            other => panic!("{other:?}"),
        };
        let in_place = restore("landfall backup restore shop --at 2026-11-21T12:41:07Z --preview");
        assert_eq!(
            (in_place.cluster.as_deref(), in_place.new, in_place.preview),
            (Some("shop"), None, true)
        );
        let new = restore("landfall backup restore g/shop --at 2026-11-21T12:41:07Z --as other/copy");
        assert_eq!(new.new.as_deref(), Some("other/copy"));
        for wrong in [
            "landfall backup restore shop",
            "landfall backup restore shop --at T --as copy --preview",
            "landfall backup show a b",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
