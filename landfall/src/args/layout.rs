//! Options that shape a stamp when it is made.

use std::{net::SocketAddr, path::PathBuf};

use clap::{Args, ValueEnum};

use super::{MetricsListen, ProfileArg};

/// Options that shape a stamp when it is made.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Layout {
    /// Outbound access of clusters: through this host, or none [default: host]
    #[arg(long, value_enum)]
    pub(crate) uplink: Option<UplinkArg>,

    /// A range of this host's own networks or addresses that clusters may reach, e.g. 192.168.1.0/24; repeat it for more. The given ranges
    /// replace earlier ones, none removes all [default: none: private networks that the host has routes to, its
    /// own addresses and cloud metadata are out of reach]
    #[arg(long, value_name = "CIDR")]
    pub(crate) uplink_allow: Vec<String>,

    /// Where the ARM API and the token service listen [default: 127.0.0.1:8443]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,

    /// The login protocol of clients: Azure's (aad), which every client supports, or that of Azure Stack with AD FS (adfs), with which an
    /// unmodified Azure CLI logs in at any port. Both are always served; this one is announced to clients [default: aad; a stamp of an
    /// earlier release keeps adfs]
    #[arg(long, value_enum)]
    pub(crate) identity: Option<IdentityArg>,

    /// A domain whose names resolve to this stamp; without one, addresses are used and no name service is needed
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) domain: Option<String>,

    /// Where backups of clusters are kept: a directory, preferably on another disk, or a bucket as
    /// s3://BUCKET/PREFIX?endpoint=https://HOST:PORT&region=REGION&ca=FILE (all after ? may be left out; &allow_http=true
    /// allows an endpoint on another host without TLS)
    /// [default: beside the stamp's files]
    #[arg(long, value_name = "PLACE")]
    pub(crate) backups: Option<String>,

    /// Where a second copy of the backups is kept, some seconds behind; as --backups
    #[arg(long, value_name = "PLACE")]
    pub(crate) backups_copy: Option<String>,

    /// Validity of kubeconfigs in hours, e.g. from `az aks get-credentials`; kubeconfigs that were handed out before keep their expiry
    /// [default: 8]
    #[arg(long, value_name = "HOURS", value_parser = clap::value_parser!(u32).range(1..=720))]
    pub(crate) kubeconfig_hours: Option<u32>,

    /// A quota of each subscription: clusters=NUMBER, nodes=NUMBER or cores=NUMBER; or how many requests one principal may send to it:
    /// reads, writes or deletes=SIZE+REFILL (at once, and each second more) or =off, requests=azure, off or default for all three. Repeat it
    /// for more. Other limits stay as they are, none removes all [default: as much as this host has room for, and requests enough for all
    /// but loops that run away]
    #[arg(long, value_name = "LIMIT")]
    pub(crate) limit: Vec<String>,

    /// The support policies that the stamp goes by [default: aks]
    #[arg(long, value_enum)]
    pub(crate) support_profile: Option<ProfileArg>,
    /// Where metrics are served for Prometheus, over TLS with the stamp's certificate, to who has the token in secrets/metrics-token of the
    /// stamp's directory; or none [default: none: only `landfall metrics` on this host]
    #[arg(long, value_name = "ADDRESS:PORT", value_parser = MetricsListen::parse)]
    pub(crate) metrics_listen: Option<MetricsListen>,

    /// The key of the bucket: a file with the access key's id in the first line and the secret in the second. It is kept with the
    /// stamp's secrets
    #[arg(long, value_name = "FILE")]
    pub(crate) backups_key: Option<PathBuf>,
}

/// Outbound access of a stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum UplinkArg {
    /// Through this host, translated to its address
    Host,
    /// Not at all: air-gapped
    None,
}

/// The login protocol of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum IdentityArg {
    /// Azure's
    Aad,
    /// That of Azure Stack with AD FS
    Adfs,
}
