//! The forms that texts must have: names, addresses, labels, taints. Pure.

use std::net::Ipv4Addr;

use arm_kernel::{TAGS, schema::Pattern};
use cluster_spec::{autoscaler, count_or_percent, ip_range};
use ipnet::Ipv4Net;
use jiff::Timestamp;

/// The forms that the property table names.
pub(crate) const PATTERNS: &[Pattern] = &[
    Pattern::of("pool-name", |text| Form::PoolName.check(text)),
    Pattern::of("dns-prefix", |text| Form::DnsPrefix.check(text)),
    Pattern::of("resource-group", |text| Form::ResourceGroup.check(text)),
    Pattern::of("admin-username", |text| Form::AdminUsername.check(text)),
    Pattern::of("ssh-public-key", |text| Form::SshPublicKey.check(text)),
    Pattern::of("count-or-percent", |text| Form::CountOrPercent.check(text)),
    Pattern::of("cidr", |text| Form::Cidr.check(text)),
    Pattern::of("ipv4", |text| Form::Ipv4.check(text)),
    Pattern::of("ip-range", |text| Form::IpRange.check(text)),
    Pattern::of("taint", |text| Form::Taint.check(text)),
    Pattern::of("count", |text| Form::Count.check(text)),
    Pattern::of("percentage", |text| Form::Percentage.check(text)),
    Pattern::of("share", |text| Form::Share.check(text)),
    Pattern::of("seconds", |text| Form::Seconds.check(text)),
    Pattern::of("minutes", |text| Form::Minutes.check(text)),
    Pattern::of("duration", |text| Form::Duration.check(text)),
    Pattern::of("guid", |text| Form::Guid.check(text)),
    Pattern::of("date-time", |text| Form::DateTime.check(text)),
    TAGS,
    Pattern::of_entries("labels", check_label, 100),
];

/// A form of texts.
#[derive(Debug, Clone, Copy)]
enum Form {
    PoolName,
    DnsPrefix,
    ResourceGroup,
    AdminUsername,
    SshPublicKey,
    CountOrPercent,
    Cidr,
    Ipv4,
    IpRange,
    Taint,
    Guid,
    Count,
    Percentage,
    Share,
    Seconds,
    Minutes,
    Duration,
    DateTime,
}

impl Form {
    /// Checks a text; the error describes the valid form.
    fn check(self, text: &str) -> Result<(), &'static str> {
        let (holds, form) = match self {
            Self::PoolName => (
                is_pool_name(text),
                "1 to 12 lower-case letters and digits, beginning with a letter",
            ),
            Self::DnsPrefix => (
                text.len() <= 54 && is_word(text, "-"),
                "1 to 54 letters, digits and hyphens, beginning and ending with a letter or digit",
            ),
            Self::ResourceGroup => (
                is_group_name(text),
                "1 to 90 letters, digits, underscores, parentheses, hyphens and periods, not ending with a period",
            ),
            Self::AdminUsername => (
                text.len() <= 32
                    && text.starts_with(|c: char| c.is_ascii_alphabetic())
                    && text
                        .chars()
                        .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)),
                "1 to 32 letters, digits, hyphens and underscores, beginning with a letter",
            ),
            Self::SshPublicKey => (
                is_ssh_key(text),
                "a public key in OpenSSH format, e.g. 'ssh-ed25519 AAAA…'",
            ),
            Self::CountOrPercent => (
                count_or_percent(text).is_some(),
                "a count such as '1' or a percentage such as '33%'",
            ),
            Self::Cidr => (
                cidr(text).is_some(),
                "an IPv4 range such as 10.0.0.0/16, written with its first address",
            ),
            Self::Ipv4 => (
                text.parse::<Ipv4Addr>().is_ok(),
                "an IPv4 address such as 10.0.0.10",
            ),
            Self::IpRange => (
                ip_range(text).is_some(),
                "an IPv4 address or range such as 203.0.113.7 or 203.0.113.0/24",
            ),
            Self::Taint => return check_taint(text),
            Self::Count => (autoscaler::count(text).is_some(), "a whole number such as '10'"),
            Self::Percentage => (
                autoscaler::percentage(text).is_some(),
                "a whole number from 0 to 100, without a sign",
            ),
            Self::Share => (
                autoscaler::share(text).is_some(),
                "a number from 0 to 1 such as '0.5'",
            ),
            Self::Seconds => (autoscaler::seconds(text).is_some(), "whole seconds such as '10s'"),
            Self::Minutes => (
                autoscaler::minutes(text).is_some(),
                "whole minutes such as '10m'; no other unit is taken here",
            ),
            Self::Duration => (
                autoscaler::duration(text).is_some(),
                "a whole number with a unit, such as '30s' or '10m'",
            ),
            Self::Guid => (
                is_guid(text),
                "a GUID: 32 hexadecimal digits in groups of 8-4-4-4-12",
            ),
            Self::DateTime => (
                text.parse::<Timestamp>().is_ok(),
                "a time such as 2026-12-31T01:00:00Z",
            ),
        };
        holds.then_some(()).ok_or(form)
    }
}

fn is_guid(text: &str) -> bool {
    let groups = text.split('-').map(|group| {
        let digits = group.bytes().all(|byte| byte.is_ascii_hexdigit());
        digits.then_some(group.len())
    });
    groups.eq([8, 4, 4, 4, 12].map(Some))
}

/// Letters and digits, in between also `inner`.
fn is_word(text: &str, inner: &str) -> bool {
    let ends = |c: char| c.is_ascii_alphanumeric();
    text.starts_with(ends) && text.ends_with(ends) && text.chars().all(|c| ends(c) || inner.contains(c))
}

/// `^[a-zA-Z0-9]$|^[a-zA-Z0-9][-_a-zA-Z0-9]{0,61}[a-zA-Z0-9]$`
pub(crate) fn is_cluster_name(text: &str) -> bool {
    text.len() <= 63 && is_word(text, "-_")
}

/// `^[a-z][a-z0-9]{0,11}$`
pub(crate) fn is_pool_name(text: &str) -> bool {
    text.len() <= 12
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn is_group_name(text: &str) -> bool {
    let count = text.chars().count();
    (1..=90).contains(&count)
        && !text.ends_with('.')
        && text.chars().all(|c| c.is_alphanumeric() || "_-().".contains(c))
}

fn is_ssh_key(text: &str) -> bool {
    let mut words = text.split_ascii_whitespace();
    let known = words.next().is_some_and(|kind| {
        ["ssh-rsa", "ssh-ed25519"].contains(&kind)
            || kind.starts_with("ecdsa-sha2-")
            || kind.starts_with("sk-")
    });
    let key = words.next().is_some_and(|key| {
        key.len() >= 16
            && key.starts_with("AAAA")
            && key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
    });
    known && key && text.len() <= 16 * 1024 && !text.trim_end().contains('\n')
}

/// A range whose address is its first.
pub(crate) fn cidr(text: &str) -> Option<Ipv4Net> {
    let net: Ipv4Net = text.parse().ok()?;
    (net.addr() == net.network()).then_some(net)
}

/// `[prefix/]name` as Kubernetes has it.
fn is_qualified(key: &str) -> bool {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let domain = prefix.is_none_or(|prefix| {
        prefix.len() <= 253
            && prefix.split('.').all(|label| {
                label.len() <= 63 && is_word(label, "-") && label.chars().all(|c| !c.is_ascii_uppercase())
            })
    });
    domain && name.len() <= 63 && is_word(name, "-_.")
}

fn is_label_value(value: &str) -> bool {
    value.is_empty() || (value.len() <= 63 && is_word(value, "-_."))
}

/// Whether Kubernetes or the service reserves this key.
fn is_reserved(key: &str) -> bool {
    let prefix = key.split_once('/').map_or("", |(prefix, _)| prefix);
    key == "agentpool"
        || ["kubernetes.azure.com", "kubernetes.io", "k8s.io"]
            .iter()
            .any(|reserved| {
                prefix
                    .strip_suffix(reserved)
                    .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            })
}

const RESERVED: &str =
    "without the reserved prefixes kubernetes.azure.com/, kubernetes.io/ and k8s.io/ (and not 'agentpool')";

fn check_label(key: &str, value: &str) -> Result<(), &'static str> {
    if !is_qualified(key) {
        return Err(
            "a label of the form [prefix/]name: a DNS name, then 1 to 63 letters, digits, '-', '_' and '.'",
        );
    }
    if is_reserved(key) {
        return Err(RESERVED);
    }
    if !is_label_value(value) {
        return Err(
            "a label value of at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
        );
    }
    Ok(())
}

/// `[a-z0-9]([-a-z0-9]*[a-z0-9])?`, at most 63 characters.
pub(crate) fn is_namespace_name(text: &str) -> bool {
    text.len() <= 63 && is_word(text, "-") && !text.contains(|c: char| c.is_ascii_uppercase())
}

/// Prefixes of keys that the service keeps for itself on namespaces. Kubernetes' own are not: they say what a namespace lets pods do.
const OWN_PREFIXES: [&str; 2] = ["kubernetes.azure.com/", "landfall.dev/"];

fn is_own(key: &str) -> bool {
    OWN_PREFIXES.iter().any(|own| key.starts_with(own))
}

/// A label of a managed namespace.
pub(crate) fn check_namespace_label(key: &str, value: &str) -> Result<(), &'static str> {
    if !is_label_value(value) {
        return Err(
            "a label value of at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
        );
    }
    check_annotation(key, "")
}

/// An annotation of a managed namespace.
pub(crate) fn check_annotation(key: &str, _: &str) -> Result<(), &'static str> {
    if !is_qualified(key) {
        return Err(
            "one of the form [prefix/]name: a DNS name, then 1 to 63 letters, digits, '-', '_' and '.'",
        );
    }
    if is_own(key) {
        return Err("one without the reserved prefixes kubernetes.azure.com/ and landfall.dev/");
    }
    Ok(())
}

/// A taint's key, value and effect.
pub(crate) fn taint(text: &str) -> Option<(&str, &str, &str)> {
    let (key, value, effect) = cluster_spec::taint(text)?;
    (is_qualified(key)
        && is_label_value(value)
        && ["NoSchedule", "PreferNoSchedule", "NoExecute"].contains(&effect))
    .then_some((key, value, effect))
}

fn check_taint(text: &str) -> Result<(), &'static str> {
    let Some((key, _, _)) = taint(text) else {
        return Err(
            "a taint of the form key=value:Effect, where Effect is NoSchedule, PreferNoSchedule or NoExecute",
        );
    };
    if is_reserved(key) {
        return Err(RESERVED);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arm_kernel::check_tag;

    use super::*;

    #[test]
    fn forms() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI a@b";
        for (pattern, good, bad) in [
            (
                Form::PoolName,
                vec!["a", "nodepool1", "a23456789012"],
                vec!["", "1a", "Pool", "a-b", "a234567890123"],
            ),
            (Form::DnsPrefix, vec!["a", "A-1"], vec!["-a", "a-", "a.b", "a_b"]),
            (
                Form::ResourceGroup,
                vec!["MC_a_b_c", "(x)"],
                vec!["a.", "a/b", "a b"],
            ),
            (
                Form::AdminUsername,
                vec!["azureuser", "a_-1"],
                vec!["1a", "a b", "root;"],
            ),
            (
                Form::SshPublicKey,
                vec![key],
                vec!["ssh-rsa", "AAAA", "ssh-rsa nokey", "-----BEGIN RSA-----"],
            ),
            (
                Form::CountOrPercent,
                vec!["0", "1", "33%", "100%"],
                vec!["", "%", "-1", "101%", "1.5", "1001", "+1"],
            ),
            (
                Form::Cidr,
                vec!["10.0.0.0/16"],
                vec!["10.0.0.1/16", "10.0.0.0", "10.0.0.0/33", "fd00::/8", "x"],
            ),
            (
                Form::IpRange,
                vec!["203.0.113.7", "203.0.113.0/24", "203.0.113.7/24", "0.0.0.0/32"],
                vec!["", "203.0.113", "203.0.113.0/33", "2001:db8::/32", "x"],
            ),
            (Form::Minutes, vec!["1m", "10m"], vec!["10s", "10", ""]),
            (Form::Seconds, vec!["10s", "10"], vec!["0s", "1m"]),
            (Form::Share, vec!["0.5", "1"], vec!["1.5", "50%"]),
            (Form::Ipv4, vec!["10.0.0.10"], vec!["10.0.0", "10.0.0.256", "::1"]),
            (
                Form::Taint,
                vec![
                    "a=b:NoSchedule",
                    "a:NoExecute",
                    "x.io/a=:PreferNoSchedule",
                    "CriticalAddonsOnly=true:NoSchedule",
                ],
                vec![
                    "a=b",
                    "a=b:Sometimes",
                    "=b:NoSchedule",
                    "node.kubernetes.io/x=y:NoSchedule",
                    "a=b c:NoSchedule",
                ],
            ),
        ] {
            for text in good {
                assert_eq!(pattern.check(text), Ok(()), "{pattern:?} {text}");
            }
            for text in bad {
                assert!(pattern.check(text).is_err(), "{pattern:?} {text}");
            }
        }
    }

    #[test]
    fn namespaces_and_what_is_on_them() {
        for (name, ok) in [
            ("dev", true),
            ("a", true),
            ("0-a", true),
            ("Dev", false),
            ("-a", false),
            ("a-", false),
            ("a_b", false),
            ("a.b", false),
            ("", false),
        ] {
            assert_eq!(is_namespace_name(name), ok, "{name}");
        }
        assert!(is_namespace_name(&"a".repeat(63)) && !is_namespace_name(&"a".repeat(64)));
        for (key, value, ok) in [
            ("pod-security.kubernetes.io/enforce", "restricted", true),
            ("kubernetes.io/metadata.name", "dev", true),
            ("team", "", true),
            ("team", "a b", false),
            ("a b", "c", false),
            ("kubernetes.azure.com/managedByArm", "true", false),
            ("landfall.dev/managed-namespace", "x", false),
        ] {
            assert_eq!(check_namespace_label(key, value).is_ok(), ok, "{key}={value}");
        }
        assert!(check_annotation("team", "anything goes").is_ok());
    }

    #[test]
    fn labels_and_tags() {
        for (key, value, ok) in [
            ("a", "b", true),
            ("example.com/a", "", true),
            ("mykubernetes.io/a", "b", true),
            ("kubernetes.io/a", "b", false),
            ("node.kubernetes.io/a", "b", false),
            ("kubernetes.azure.com/mode", "user", false),
            ("agentpool", "x", false),
            ("a b", "c", false),
            ("a", "-b", false),
            ("a/b/c", "d", false),
            ("", "d", false),
        ] {
            assert_eq!(check_label(key, value).is_ok(), ok, "{key}={value}");
        }
        assert!(check_tag("a b", "anything goes").is_ok());
        assert!(check_tag("a/b", "").is_err());
        assert!(check_tag("a", &"x".repeat(257)).is_err());
    }
}
