//! Arguments of `landfall support`, and whose support policies a stamp goes by.

use clap::{Args, Subcommand, ValueEnum};
use policy_support::Profile;

/// `landfall support`.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  landfall support status
  landfall support cves mygroup/mycluster --output json
  landfall support issues
  landfall support ticket list")]
pub(crate) enum Support {
    /// Show whether clusters are supported, why not, what to do and by when
    Status(SupportStatus),
    /// Show what support covers, and what it does not
    Scope {
        /// By these policies [default: the stamp's]
        #[arg(long, value_enum)]
        profile: Option<ProfileArg>,
    },
    /// Show whether deadlines of the support policies act, or are only told; and choose
    #[command(after_help = "\
A deadline is told, by an event of the cluster, 60 to 14 days before it, and again until the day before. Where deadlines act, the service
then stops, archives or deletes the cluster as the rule says, never before all the time of its notices has gone by since 'act' was chosen.
'landfall maintenance pause' holds all of it up at once.

Examples:
  landfall support policy
  landfall support policy --deadlines act
  landfall support policy --deadlines tell --output json")]
    Policy {
        /// What is done at a deadline [default: nothing is changed, and it is shown]
        #[arg(long, value_enum)]
        deadlines: Option<AtDeadlineArg>,
    },
    /// Archive a control plane: stop the cluster, verify its backup, and remove its machines with their disks
    #[command(after_help = "\
Its name, addresses, keys, volumes and backup stay. 'az aks start', or any PUT of the cluster such as 'az aks upgrade', brings it back with the
newest state of its backup.

Examples:
  landfall support archive mygroup/mycluster")]
    Archive {
        /// The cluster, as NAME or GROUP/NAME; may be left out where there is only one
        cluster: Option<String>,
    },
    /// List vulnerabilities of the components that a cluster's machines run, with the fix, whose turn it is, and the upgrade that brings it
    Cves {
        /// The cluster, as NAME or GROUP/NAME [default: the only one]
        cluster: Option<String>,
    },
    /// List known issues of a cluster, with a workaround; of all clusters without one
    Issues {
        /// The cluster, as NAME or GROUP/NAME [default: all, from what is recorded of them]
        cluster: Option<String>,
    },
    /// Support tickets of clusters: open one, consent to support looking into the cluster, take that back
    #[command(subcommand)]
    Ticket(Ticket),
    /// Get a kubeconfig to look into a tenant's cluster, under a ticket with consent; it reads, and works for an hour at most
    #[command(after_help = "\
Examples:
  landfall support access --ticket t1 --engineer eve > support.kubeconfig
  kubectl --kubeconfig support.kubeconfig get pods --all-namespaces")]
    Access(SupportAccess),
    /// Show every request that was made to a cluster with what was handed out under a ticket
    AccessRecord {
        /// The ticket
        #[arg(long, value_name = "NAME")]
        ticket: String,

        /// Its cluster, as NAME or GROUP/NAME [default: the only one with such a ticket]
        #[arg(long, value_name = "CLUSTER")]
        cluster: Option<String>,
    },
}

/// `landfall support access`.
#[derive(Debug, Args)]
pub(crate) struct SupportAccess {
    /// The ticket
    #[arg(long, value_name = "NAME")]
    pub(crate) ticket: String,

    /// Who is going to use it, for the tenant to read
    #[arg(long, value_name = "NAME")]
    pub(crate) engineer: String,

    /// The ticket's cluster, as NAME or GROUP/NAME [default: the only one with such a ticket]
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cluster: Option<String>,
}

/// `landfall support ticket`.
#[derive(Debug, Subcommand)]
pub(crate) enum Ticket {
    /// Open a ticket; support cannot look into the cluster before somebody consents
    #[command(after_help = "\
Examples:
  landfall support ticket open mygroup/mycluster --title 'Pods do not start' --severity critical")]
    Open {
        /// The cluster, as NAME or GROUP/NAME [default: the only one]
        cluster: Option<String>,

        /// What it is about, in one line
        #[arg(long)]
        title: String,

        /// How urgent it is
        #[arg(long, value_enum, default_value = "minimal")]
        severity: SeverityArg,

        /// Its name, of letters, digits and hyphens [default: a new one]
        #[arg(long, value_name = "NAME")]
        ticket: Option<String>,
    },
    /// Consent to support looking into the cluster, for some hours; what was handed out under an earlier consent ends
    Consent {
        #[command(flatten)]
        ticket: TicketName,

        /// For how long, at most 24 hours
        #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=24))]
        hours: u32,
    },
    /// Take the consent back: what was handed out stops working
    Revoke(TicketName),
    /// Close a ticket: what was handed out stops working, and the ticket is kept
    Close(TicketName),
    /// List tickets, also closed ones
    List {
        /// A cluster, as NAME or GROUP/NAME [default: all]
        cluster: Option<String>,
    },
    /// Show a ticket, with what was handed out under it
    Show(TicketName),
}

/// A ticket, and where it is.
#[derive(Debug, Args)]
pub(crate) struct TicketName {
    /// The ticket's name
    #[arg(value_name = "TICKET")]
    pub(crate) ticket: String,

    /// Its cluster, as NAME or GROUP/NAME [default: the only one with such a ticket]
    #[arg(long, value_name = "CLUSTER")]
    pub(crate) cluster: Option<String>,
}

/// How urgent a ticket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SeverityArg {
    /// Little impact
    Minimal,
    /// Some impact
    Moderate,
    /// Critical impact
    Critical,
}

impl SeverityArg {
    /// As in requests.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Moderate => "moderate",
            Self::Critical => "critical",
        }
    }
}

/// `landfall support status`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  landfall support status
  landfall support status mygroup/mycluster
  landfall support status mycluster --profile arc --at 2028-01-01T00:00:00Z

A moment of the past has the facts that had begun by then, one of the future those of now. Which rules there are, and what is true of each:
docs/reference/support-policies.md.")]
pub(crate) struct SupportStatus {
    /// A cluster, as NAME or GROUP/NAME, with all its reasons [default: a line for each]
    pub(crate) cluster: Option<String>,

    /// By these policies [default: the stamp's]
    #[arg(long, value_enum)]
    pub(crate) profile: Option<ProfileArg>,

    /// At another moment, as 2027-01-31T00:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
}

/// What is done at deadlines of the support policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AtDeadlineArg {
    /// What the rule says
    Act,
    /// Nothing: it is told
    Tell,
}

/// A set of support policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileArg {
    /// AKS
    Aks,
    /// AKS enabled by Arc
    Arc,
    /// AKS on Azure Stack HCI
    Hci,
    /// AKS engine on Azure Stack Hub
    HubEngine,
    /// AKS on Azure Stack Hub
    Hub,
}

impl From<ProfileArg> for Profile {
    fn from(profile: ProfileArg) -> Self {
        match profile {
            ProfileArg::Aks => Self::Aks,
            ProfileArg::Arc => Self::Arc,
            ProfileArg::Hci => Self::Hci,
            ProfileArg::HubEngine => Self::HubEngine,
            ProfileArg::Hub => Self::Hub,
        }
    }
}
