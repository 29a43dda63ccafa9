//! Fetches the published keys of other issuers, so that applications can present their tokens: a CI system's,
//! another cluster's.
//!
//! The author of a federated credential chooses the address that is fetched. So that the host's networks
//! cannot be explored that way, the same addresses are forbidden as for clusters: the host itself, the
//! stamp's own range, cloud metadata, and private networks that `--uplink-allow` does not name.
//!
//! Always true: an address is checked after its name was resolved, and that address is dialled; responses are
//! bounded in size; redirects are not followed.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, OnceLock},
    time::Duration,
};

use async_trait::async_trait;
use base_env::Env;
use fabric_api::Uplink;
use identity::{Elsewhere, Fetch, IssuerError, Issuers};
use ipnet::Ipv4Net;
use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use serde_json::Value;

use crate::stamp::Settings;

/// Time limit of a document.
const BOUND: Duration = Duration::from_secs(5);
/// The largest document.
const MAX_BYTES: usize = 256 * 1024;

/// A source for other issuers, if the stamp has access to outside networks at all.
pub(super) fn of(settings: &Settings, env: &Env) -> Option<Arc<dyn Issuers>> {
    if settings.uplink == Uplink::None {
        return None;
    }
    let allowed: Arc<[Ipv4Net]> = settings.uplink_allow.clone().into();
    let fetch = Arc::new(Web {
        http: OnceLock::new(),
        allowed,
    });
    Some(Arc::new(Elsewhere::new(env, fetch)))
}

/// Whether an issuer may have this address.
fn is_outside(address: IpAddr, allowed: &[Ipv4Net]) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let shared = address.octets()[0] == 100 && (64..128).contains(&address.octets()[1]);
            let never = shared
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || address.is_multicast()
                || address.octets()[0] >= 240
                || address.octets()[0] == 0
                // Azure's virtual address for services of the host.
                || address == Ipv4Addr::new(168, 63, 129, 16);
            !never && (!address.is_private() || allowed.iter().any(|range| range.contains(&address)))
        }
        // The globally routed addresses.
        IpAddr::V6(address) => address.segments()[0] & 0xe000 == 0x2000,
    }
}

/// Resolves names to permitted addresses.
struct Outside(Arc<[Ipv4Net]>);

impl Resolve for Outside {
    fn resolve(&self, name: Name) -> Resolving {
        let allowed = Arc::clone(&self.0);
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let outside: Vec<SocketAddr> = found
                .filter(|address| is_outside(address.ip(), &allowed))
                .collect();
            if outside.is_empty() {
                return Err(format!("{} is at no address that the stamp may ask", name.as_str()).into());
            }
            Ok(Box::new(outside.into_iter()) as Addrs)
        })
    }
}

struct Web {
    /// Made on first use: a stamp also runs on a host without root certificates.
    http: OnceLock<reqwest::Client>,
    allowed: Arc<[Ipv4Net]>,
}

impl Web {
    fn client(&self) -> Result<&reqwest::Client, IssuerError> {
        if let Some(http) = self.http.get() {
            return Ok(http);
        }
        let http = reqwest::Client::builder()
            .dns_resolver(Arc::new(Outside(Arc::clone(&self.allowed))))
            .redirect(redirect::Policy::none())
            .no_proxy()
            .https_only(true)
            .timeout(BOUND)
            .user_agent(concat!("landfall/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| {
                tracing::warn!(error = %base_errors::chain(&error), "cannot prepare reading what other issuers publish");
                IssuerError::Unreachable(
                    "the stamp's host has no root certificates that an issuer could be checked with; install ca-certificates there"
                        .to_owned(),
                )
            })?;
        Ok(self.http.get_or_init(|| http))
    }

    /// A literal address in the URL is not resolved, so it is checked here.
    fn check(&self, url: &str) -> Result<Url, IssuerError> {
        let refused = |why: &str| IssuerError::Refused(why.to_owned());
        let parsed = Url::parse(url).map_err(|_| refused("its address cannot be read"))?;
        let host = parsed
            .host_str()
            .ok_or_else(|| refused("its address names no host"))?;
        match host.trim_matches(['[', ']']).parse::<IpAddr>() {
            Ok(address) if !is_outside(address, &self.allowed) => Err(refused(
                "its address is of a network that is out of reach; see --uplink-allow",
            )),
            _ => Ok(parsed),
        }
    }
}

#[async_trait]
impl Fetch for Web {
    async fn json(&self, url: &str) -> Result<Value, IssuerError> {
        let url = self.check(url)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let away = |why: String| IssuerError::Unreachable(format!("{host}: {why}"));
        let mut answer = self
            .client()?
            .get(url)
            .send()
            .await
            .map_err(|error| away(base_errors::chain(&error)))?;
        if !answer.status().is_success() {
            return Err(away(format!("it answers {}", answer.status())));
        }
        let mut body = Vec::new();
        while let Some(part) = answer
            .chunk()
            .await
            .map_err(|error| away(base_errors::chain(&error)))?
        {
            if body.len() + part.len() > MAX_BYTES {
                return Err(away(format!("its document is larger than {MAX_BYTES} bytes")));
            }
            body.extend_from_slice(&part);
        }
        serde_json::from_slice(&body).map_err(|_| away("its document is not JSON".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outside(address: &str, allowed: &[&str]) -> bool {
        let allowed: Vec<Ipv4Net> = allowed.iter().map(|range| range.parse().unwrap()).collect();
        is_outside(address.parse().unwrap(), &allowed)
    }

    #[test]
    fn the_hosts_own_networks_are_out_of_reach_unless_they_are_allowed() {
        for public in ["8.8.8.8", "2606:4700::1", "172.15.0.1", "100.63.0.1"] {
            assert!(outside(public, &[]), "{public}");
        }
        for private in ["10.1.2.3", "192.168.1.1", "172.16.0.1", "::ffff:10.1.2.3"] {
            assert!(!outside(private, &["1.0.0.0/8"]), "{private}");
        }
        assert!(outside("10.1.2.3", &["10.1.0.0/16"]));
        for never in [
            "127.0.0.1",
            "0.0.0.0",
            "100.64.16.1",
            "169.254.169.254",
            "168.63.129.16",
            "224.0.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fd00::1",
            "::ffff:127.0.0.1",
        ] {
            assert!(!outside(never, &["0.0.0.0/0"]), "{never}");
        }
    }

    #[tokio::test]
    async fn addresses_in_urls_are_checked_before_anything_is_asked() {
        // It may be installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let allowed: Arc<[Ipv4Net]> = Arc::new([]);
        let web = Web {
            http: OnceLock::new(),
            allowed,
        };
        for bad in [
            "https://127.0.0.1/x",
            "https://[::1]/x",
            "https://0x7f.1/x",
            "https://2130706433/x",
            "nothing",
        ] {
            let refused = web.json(bad).await;
            assert!(
                matches!(refused, Err(IssuerError::Refused(_))),
                "{bad}: {refused:?}"
            );
        }
    }
}
