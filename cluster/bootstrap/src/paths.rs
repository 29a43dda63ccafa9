//! Paths of files that several programs of a machine use.

/// Certificates and keys of Kubernetes' components.
pub(crate) const PKI: &str = "/etc/kubernetes/pki";
/// Those of etcd.
pub(crate) const ETCD_PKI: &str = "/etc/kubernetes/pki/etcd";
/// The CAs that etcd and its clients trust.
pub(crate) const ETCD_CA_FILE: &str = "/etc/kubernetes/pki/etcd/ca.crt";
/// The directory of the agent's client certificate.
pub(crate) const AGENT: &str = "/var/lib/landfall-agent";
/// The CAs that kubelets and their clients trust.
pub(crate) const CA_FILE: &str = "/etc/kubernetes/pki/ca.crt";
