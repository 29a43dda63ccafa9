//! Where the files of a machine are that more than one of its programs reads.

/// Certificates and keys of Kubernetes' components.
pub(crate) const PKI: &str = "/etc/kubernetes/pki";
/// Those of etcd.
pub(crate) const ETCD_PKI: &str = "/etc/kubernetes/pki/etcd";
/// The CAs that etcd and its clients trust.
pub(crate) const ETCD_CA_FILE: &str = "/etc/kubernetes/pki/etcd/ca.crt";
/// The CAs that kubelets and their clients trust.
pub(crate) const CA_FILE: &str = "/etc/kubernetes/pki/ca.crt";
