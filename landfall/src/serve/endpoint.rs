//! The certificate of the stamp's endpoint: made once, renewed while the service runs, under a constant CA.
//!
//! | | good for | renewed |
//! |---|---|---|
//! | CA, its key sealed with the stamp's | 10 years | two years before its end; published from then on |
//! | certificate | 397 days | 300 days after it was made, or when names or addresses change |
//!
//! A stamp whose CA's key was not stored (earlier releases) gets a new CA at once and keeps its certificate
//! until that is due: meanwhile `ca.pem` has both CAs, so clients that read it in those months do not notice
//! the change.
//!
//! Always true: the served certificate can be verified with `ca.pem`; the CA that signs next is in `ca.pem`
//! before it signs.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context as _, Result};
use base_env::Env;
use base_sealer::Sealer;
use base_tls::ServedCertificate;
use cluster_pki::inventory::{IN_USE, Item, STAMP, certificates};
use control_sealing::{Found, PlaceError, SealedPlace};
use identity::{EndpointCa, EndpointTls};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::first::read;
use crate::stamp::{self, LOCATION, Places, Settings};

/// Age at which a certificate is renewed; it is valid for 397 days.
const RENEW_AFTER: SignedDuration = SignedDuration::from_hours(300 * 24);
/// A CA with less than this validity left gets a successor.
const CA_RESERVE: SignedDuration = SignedDuration::from_hours(2 * 365 * 24);
/// Interval of the check whether a certificate is due.
const LOOK: Duration = Duration::from_secs(60 * 60);
/// The name under which the CA's key is sealed.
const CA_KEY: &str = "endpoint-ca-key";

/// The file of secrets that has it.
const KEPT: &str = "endpoint.json";

/// The endpoint's certificate and the names and addresses that it is for.
#[derive(Serialize, Deserialize)]
struct Kept {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    made_at: Timestamp,
    /// Of the CA that signed it.
    ca: String,
    certificate: String,
    key: String,
    /// The CA that signs the next one.
    #[serde(default)]
    issuer: Option<KeptCa>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct KeptCa {
    made_at: Timestamp,
    certificate: String,
    /// Hexadecimal.
    sealed_key: String,
}

impl KeptCa {
    fn generate(sealer: &Sealer, now: Timestamp) -> Result<Self> {
        let ca = EndpointCa::generate(now).context("cannot make the endpoint's CA")?;
        let sealed = sealer
            .seal(CA_KEY, ca.key_pem().as_bytes())
            .context("cannot seal the key of the endpoint's CA")?;
        Ok(Self {
            made_at: now,
            certificate: ca.certificate_pem().to_owned(),
            sealed_key: hex::encode(sealed),
        })
    }

    fn is_due(&self, now: Timestamp) -> bool {
        now.duration_since(self.made_at) > EndpointCa::LIFETIME - CA_RESERVE
    }

    /// The same with its key sealed with the key that seals. What cannot be unsealed stays: that is told when it is to sign.
    fn sealed_anew(self, sealer: &Sealer) -> Result<Self> {
        let sealed = self.sealed()?;
        if sealer.is_current(&sealed) {
            return Ok(self);
        }
        let Ok(key) = sealer.unseal(CA_KEY, &sealed) else {
            return Ok(self);
        };
        Ok(Self {
            sealed_key: hex::encode(sealer.seal(CA_KEY, &key)?),
            ..self
        })
    }

    fn sealed(&self) -> Result<Vec<u8>> {
        hex::decode(&self.sealed_key).context("the key of the endpoint's CA is damaged")
    }

    fn open(&self, sealer: &Sealer) -> Result<EndpointCa> {
        let key = sealer.unseal(CA_KEY, &self.sealed()?)?;
        let key = Zeroizing::new(
            String::from_utf8(key.to_vec()).context("the key of the endpoint's CA is no text")?,
        );
        EndpointCa::from_pem(&self.certificate, &key).context("the endpoint's CA cannot be used")
    }
}

fn kept(places: &Places) -> Result<Option<Kept>> {
    let path = places.secrets().join(KEPT);
    let Some(text) = read(&path)? else { return Ok(None) };
    serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))
}

/// [`certificate`], or the present one if a new one is due and cannot be written: a full disk must not keep
/// the service from starting, as the service can make room. [`renew`] goes on trying.
pub(super) fn at_start(
    places: &Places,
    settings: &Settings,
    sealer: &Sealer,
    now: Timestamp,
) -> Result<EndpointTls> {
    certificate(places, settings, sealer, now).or_else(|error| {
        let (Some(kept), Some(ca_pem)) = (kept(places)?, read(&places.ca())?) else {
            return Err(error);
        };
        tracing::error!(
            error = format!("{error:#}"),
            "the certificate of the ARM API cannot be renewed; the present one stays in use"
        );
        Ok(EndpointTls {
            ca_pem,
            cert_pem: kept.certificate,
            key_pem: kept.key,
        })
    })
}

/// The endpoint's certificate for the stamp's present names and addresses; a new one if the present one is
/// due.
pub(super) fn certificate(
    places: &Places,
    settings: &Settings,
    sealer: &Sealer,
    now: Timestamp,
) -> Result<EndpointTls> {
    let names: Vec<String> = match &settings.domain {
        Some(domain) => vec![format!("*.{LOCATION}.{domain}"), format!("{LOCATION}.{domain}")],
        None => Vec::new(),
    };
    // Prometheus comes to an address of its own, and verifies the same certificate.
    let mut addresses: Vec<IpAddr> = std::iter::once(settings.listen)
        .chain(settings.metrics_listen)
        .map(|listens| listens.ip())
        .filter(|address| !address.is_unspecified())
        .collect();
    addresses.dedup();
    // It is looked after by more than one part of the service.
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let path = places.secrets().join(KEPT);
    let kept = kept(places)?;
    let issuer = match kept.as_ref().and_then(|kept| kept.issuer.clone()) {
        Some(issuer) if !issuer.is_due(now) => issuer,
        _ => KeptCa::generate(sealer, now)?,
    };
    let issuer = issuer.sealed_anew(sealer)?;
    let (kept, changed) = match kept {
        Some(mut kept)
            if kept.names == names
                && kept.addresses == addresses
                && now.duration_since(kept.made_at) < RENEW_AFTER =>
        {
            let changed = kept.issuer.as_ref() != Some(&issuer);
            kept.issuer = Some(issuer);
            (kept, changed)
        }
        _ => {
            let tls = issuer
                .open(sealer)?
                .issue(&names, &addresses, now)
                .context("cannot make the endpoint's certificate")?;
            let kept = Kept {
                names,
                addresses,
                made_at: now,
                ca: tls.ca_pem,
                certificate: tls.cert_pem,
                key: tls.key_pem,
                issuer: Some(issuer),
            };
            (kept, true)
        }
    };
    let next = kept.issuer.as_ref().map(|issuer| &issuer.certificate);
    let ca_pem = match next {
        Some(next) if *next != kept.ca => format!("{}{next}", kept.ca),
        _ => kept.ca.clone(),
    };
    // First the trusted CA, then the served certificate: a crash in between leaves a certificate that can be
    // verified.
    if read(&places.ca())?.as_deref() != Some(ca_pem.as_str()) {
        stamp::write_whole(&places.ca(), ca_pem.as_bytes(), 0o644)?;
    }
    if changed {
        let text = serde_json::to_vec(&kept).context("cannot write the endpoint's certificate")?;
        stamp::write_whole(&path, &text, 0o600)?;
    }
    Ok(EndpointTls {
        ca_pem,
        cert_pem: kept.certificate,
        key_pem: kept.key,
    })
}

/// What there is of the endpoint's certificates, without a key.
pub(super) fn inventory(places: &Places) -> Result<Vec<Item>> {
    let Some(kept) = kept(places)? else {
        return Ok(Vec::new());
    };
    let unreadable = "the endpoint's certificate cannot be read";
    let mut items = Vec::new();
    let mut add = |name: &str, pem: &str, state: &str, renews: Option<Timestamp>, note: &str| -> Result<()> {
        for seen in certificates(pem).context(unreadable)? {
            items.push(Item {
                state: state.to_owned(),
                renews_at: renews,
                note: note.to_owned(),
                ..Item::of_certificate(name, STAMP, &seen)
            });
        }
        Ok(())
    };
    let issuer = kept.issuer.as_ref();
    let renews = issuer.and_then(|issuer| issuer.made_at.checked_add(EndpointCa::LIFETIME - CA_RESERVE).ok());
    let trusted = "what clients of the ARM API trust: ca.pem in the stamp's directory";
    match issuer {
        Some(issuer) if issuer.certificate != kept.ca => {
            add(
                "endpoint-ca-before",
                &kept.ca,
                "trusted, issues nothing any more",
                None,
                trusted,
            )?;
            add("endpoint-ca", &issuer.certificate, IN_USE, renews, trusted)?;
        }
        _ => add("endpoint-ca", &kept.ca, IN_USE, renews, trusted)?,
    }
    let renewed = kept.made_at.checked_add(RENEW_AFTER).ok();
    add(
        "endpoint",
        &kept.certificate,
        IN_USE,
        renewed,
        "shown by the ARM API, and to Prometheus",
    )?;
    Ok(items)
}

/// The key of the endpoint's CA, as something that is sealed with the stamp's keys.
pub(super) struct SealedCa {
    pub(super) places: Places,
    pub(super) settings: Settings,
    pub(super) sealer: Arc<Sealer>,
    pub(super) env: Env,
}

impl SealedPlace for SealedCa {
    fn name(&self) -> &'static str {
        "endpoint"
    }

    fn seal_anew(&self) -> Result<Found, PlaceError> {
        certificate(&self.places, &self.settings, &self.sealer, self.env.clock.now())?;
        let mut sealed = BTreeMap::new();
        if let Some(issuer) = kept(&self.places)?.and_then(|kept| kept.issuer)
            && let Some(key) = self.sealer.key_of(&issuer.sealed()?)
        {
            sealed.insert(key, 1);
        }
        Ok(Found {
            sealed,
            oldest_copy: None,
        })
    }
}

/// Renews the certificate that is served for ever.
pub(super) async fn renew(
    places: Places,
    settings: Settings,
    sealer: Arc<Sealer>,
    env: Env,
    served: ServedCertificate,
) {
    let mut before: Option<String> = None;
    loop {
        env.clock.sleep(LOOK).await;
        let renewed = certificate(&places, &settings, &sealer, env.clock.now()).and_then(|tls| {
            if before.as_ref() != Some(&tls.cert_pem) {
                served.replace(&tls.cert_pem, &tls.key_pem)?;
                if before.is_some() {
                    tracing::info!("the certificate of the ARM API is renewed");
                }
                before = Some(tls.cert_pem);
            }
            Ok(())
        });
        if let Err(error) = renewed {
            tracing::error!(
                error = format!("{error:#}"),
                "the certificate of the ARM API cannot be renewed; the present one stays in use"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fabric_api::Uplink;

    use super::*;

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    struct Stand {
        places: Places,
        settings: Settings,
        sealer: Arc<Sealer>,
        _dir: tempfile::TempDir,
    }

    impl Stand {
        fn new(env: &Env) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let places = Places {
                name: "t".into(),
                state: dir.path().join("s"),
                run: dir.path().join("r"),
            };
            places.make().unwrap();
            let settings = Settings {
                listen: stamp::DEFAULT_LISTEN,
                ..super::super::first::tests::settings(env)
            };
            assert_eq!(settings.uplink, Uplink::None);
            Self {
                places,
                settings,
                sealer: Arc::new(Sealer::from_key(&[7; 32])),
                _dir: dir,
            }
        }

        fn at(&self, now: Timestamp) -> EndpointTls {
            certificate(&self.places, &self.settings, &self.sealer, now).unwrap()
        }

        fn published(&self) -> String {
            fs::read_to_string(self.places.ca()).unwrap()
        }
    }

    #[test]
    fn a_service_starts_with_the_certificate_that_it_has_where_it_can_keep_no_other() {
        let env = Env::system();
        let stand = Stand::new(&env);
        let now = env.clock.now();
        let start = |now| at_start(&stand.places, &stand.settings, &stand.sealer, now);
        let in_the_way = stand.places.secrets().join(".endpoint.json.new");
        fs::create_dir(&in_the_way).unwrap();
        assert!(start(now).is_err(), "there is none to go on with");
        fs::remove_dir(&in_the_way).unwrap();
        let first = start(now).unwrap();
        fs::create_dir(&in_the_way).unwrap();
        let late = now + DAY * 301;
        let again = start(late).unwrap();
        assert_eq!((&again.cert_pem, &again.ca_pem), (&first.cert_pem, &first.ca_pem));
        fs::remove_dir(&in_the_way).unwrap();
        assert_ne!(start(late).unwrap().cert_pem, first.cert_pem);
    }

    #[test]
    fn certificates_follow_each_other_under_one_ca() {
        let env = Env::system();
        let mut stand = Stand::new(&env);
        let now = env.clock.now();
        let first = stand.at(now);
        assert_eq!(stand.published(), first.ca_pem);
        assert_eq!(stand.at(now).cert_pem, first.cert_pem);
        // A new name, and time: each a certificate, none a CA.
        stand.settings.domain = Some("example.com".into());
        let named = stand.at(now);
        assert_ne!(named.cert_pem, first.cert_pem);
        let late = stand.at(now + DAY * 301);
        assert_ne!(late.cert_pem, named.cert_pem);
        assert_eq!((&named.ca_pem, &late.ca_pem), (&first.ca_pem, &first.ca_pem));
        assert_eq!(stand.published(), first.ca_pem);
        let kept = fs::read_to_string(stand.places.secrets().join("endpoint.json")).unwrap();
        assert_eq!(
            kept.matches("PRIVATE KEY").count(),
            2,
            "the certificate's alone, begin and end"
        );
    }

    #[test]
    fn the_cas_key_is_sealed_anew_and_goes_on_signing() {
        let env = Env::system();
        let stand = Stand::new(&env);
        let now = env.clock.now();
        let first = stand.at(now);
        let old = stand.sealer.current();
        let new = stand.sealer.rotate(now).unwrap();
        let place = SealedCa {
            places: stand.places.clone(),
            settings: stand.settings.clone(),
            sealer: Arc::clone(&stand.sealer),
            env,
        };
        for _ in 0..2 {
            assert_eq!(
                place.seal_anew().unwrap().sealed,
                BTreeMap::from([(new.clone(), 1)])
            );
        }
        stand.sealer.drop_key(&old).unwrap();
        assert_eq!(stand.at(now).cert_pem, first.cert_pem);
        let renewed = stand.at(now + DAY * 301);
        assert_ne!(renewed.cert_pem, first.cert_pem);
        assert_eq!(renewed.ca_pem, first.ca_pem, "under the same CA");
    }

    #[test]
    fn a_ca_gets_a_successor_that_is_published_before_it_signs() {
        let env = Env::system();
        let stand = Stand::new(&env);
        let mut now = env.clock.now();
        let first = stand.at(now);
        let mut published_both = 0;
        let mut last = first.cert_pem.clone();
        for _ in 0..(3600 / 50) {
            now += DAY * 50;
            let tls = stand.at(now);
            assert!(tls.ca_pem.matches("BEGIN CERTIFICATE").count() <= 2);
            published_both += u32::from(tls.ca_pem != first.ca_pem && tls.ca_pem.starts_with(&first.ca_pem));
            last = tls.cert_pem;
        }
        assert!(published_both > 0);
        assert_ne!(last, first.cert_pem);
        assert!(!stand.published().contains(&first.ca_pem), "the first is over");
    }

    #[test]
    fn a_stamp_from_before_goes_on_and_publishes_its_next_ca() {
        let env = Env::system();
        let stand = Stand::new(&env);
        let now = env.clock.now();
        let old = EndpointTls::generate(&[], &[stand.settings.listen.ip()], now).unwrap();
        let kept = serde_json::json!({
            "names": [], "addresses": [stand.settings.listen.ip()], "made_at": now,
            "ca": old.ca_pem, "certificate": old.cert_pem, "key": old.key_pem,
        });
        fs::write(stand.places.secrets().join("endpoint.json"), kept.to_string()).unwrap();
        let tls = stand.at(now + DAY);
        assert_eq!(tls.cert_pem, old.cert_pem);
        let next = tls.ca_pem.strip_prefix(&old.ca_pem).unwrap().to_owned();
        assert!(next.contains("BEGIN CERTIFICATE"));
        assert_eq!(stand.at(now + DAY * 2).ca_pem, tls.ca_pem, "made once");
        let renewed = stand.at(now + DAY * 301);
        assert_ne!(renewed.cert_pem, old.cert_pem);
        assert_eq!((renewed.ca_pem, stand.published()), (next.clone(), next));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_served_without_a_restart() {
        let env = Env::simulated(1);
        let stand = Stand::new(&env);
        let tls = stand.at(env.clock.now());
        let served = ServedCertificate::from_pem(&tls.cert_pem, &tls.key_pem).unwrap();
        let first = served.leaf();
        let renewing = tokio::spawn(renew(
            stand.places.clone(),
            stand.settings.clone(),
            Arc::clone(&stand.sealer),
            env.clone(),
            served.clone(),
        ));
        let days = |days: u64| env.clock.sleep(Duration::from_secs(days * 24 * 60 * 60));
        days(299).await;
        assert_eq!(served.leaf(), first);
        days(2).await;
        assert_ne!(served.leaf(), first);
        assert_eq!(stand.published(), tls.ca_pem, "under the same CA");
        renewing.abort();
    }
}
