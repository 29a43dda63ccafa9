//! Whether a certificate that was issued before can stay where one for the same purpose is asked for again.
//!
//! It is compared with the one that was just issued for it, so that whatever a certificate says counts, without a list of it here: a release that
//! issues other certificates replaces those before.

use jiff::Timestamp;
use rcgen::KeyPair;
use x509_parser::{
    certificate::X509Certificate,
    pem::{Pem, parse_x509_pem},
};

use crate::{Certificate, PkiError, inventory::Seen};

impl Certificate {
    /// Whether this one, issued before, can stay in the place of `fresh`, just issued: it is of the same authority and says the same of the same
    /// subject for as long a life, its key is its own and of the same kind, it was issued after `due`, and it is good at `now`. One that cannot be
    /// read cannot.
    ///
    /// # Errors
    /// When the new one cannot be read.
    pub fn can_stay_for(&self, fresh: &Self, due: Timestamp, now: Timestamp) -> Result<bool, PkiError> {
        let wanted = pem(&fresh.certificate).ok_or(PkiError::Unreadable)?;
        let wanted = wanted.parse_x509().map_err(|_| PkiError::Unreadable)?;
        let Some(own) = pem(&self.certificate) else {
            return Ok(false);
        };
        let Ok(own) = own.parse_x509() else {
            return Ok(false);
        };
        let Ok(seen) = Seen::of(&own) else {
            return Ok(false);
        };
        Ok(seen.made_at() > due
            && seen.issued <= now
            && now < seen.expires
            && says_the_same(&own, &wanted)
            && is_its_key(&self.key, &own))
    }
}

fn pem(text: &str) -> Option<Pem> {
    let (_, pem) = parse_x509_pem(text.as_bytes()).ok()?;
    Some(pem)
}

/// Whether all is the same but for key, serial number and time. Among the extensions is the id of the authority's key: authorities of the same name
/// are told apart.
fn says_the_same(own: &X509Certificate<'_>, wanted: &X509Certificate<'_>) -> bool {
    let life = |one: &X509Certificate<'_>| {
        let validity = one.validity();
        validity.not_after.timestamp() - validity.not_before.timestamp()
    };
    own.issuer() == wanted.issuer()
        && own.subject() == wanted.subject()
        && own.signature_algorithm == wanted.signature_algorithm
        && own.public_key().algorithm == wanted.public_key().algorithm
        && own.extensions() == wanted.extensions()
        && life(own) == life(wanted)
}

fn is_its_key(key: &str, certificate: &X509Certificate<'_>) -> bool {
    KeyPair::from_pem(key)
        .is_ok_and(|key| certificate.public_key().subject_public_key.data == key.public_key_raw())
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;
    use crate::{ClusterPki, Subject};

    const DAY: SignedDuration = SignedDuration::from_hours(24);

    fn now() -> Timestamp {
        Timestamp::from_second(1_790_000_000).unwrap()
    }

    fn server() -> Subject {
        Subject::server("kube-apiserver")
            .dns("kubernetes")
            .ip("10.0.0.1".parse().unwrap())
    }

    #[test]
    fn one_that_says_the_same_stays_until_it_is_due() {
        let pki = ClusterPki::generate(now()).unwrap();
        let (before, later) = (pki.cluster.issue(&server(), now()).unwrap(), now() + DAY * 179);
        let fresh = pki.cluster.issue(&server(), later).unwrap();
        let stays = |due, at| before.can_stay_for(&fresh, due, at).unwrap();
        assert!(stays(later - DAY * 180, later));
        // What is renewed after 180 days is renewed at 180 days.
        assert!(!stays(now(), later));
        assert!(stays(now() - SignedDuration::from_secs(1), later));
        // It has ended, or a clock was set back to before it.
        assert!(!stays(Timestamp::MIN, now() + DAY * 730));
        assert!(!stays(Timestamp::MIN, now() - SignedDuration::from_mins(6)));
    }

    #[test]
    fn one_that_says_anything_else_does_not() {
        let mut pki = ClusterPki::generate(now()).unwrap();
        let fresh = pki.cluster.issue(&server(), now()).unwrap();
        let stays = |before: &Certificate| before.can_stay_for(&fresh, Timestamp::MIN, now()).unwrap();
        assert!(stays(&pki.cluster.issue(&server(), now()).unwrap()));
        let names = Subject::server("kube-apiserver").dns("kubernetes");
        let others = [
            server().dns("another"),
            server().ip("10.0.0.2".parse().unwrap()),
            names.clone(),
            names.ip("10.0.0.3".parse().unwrap()),
            server().group("system:masters"),
            Subject::server("another")
                .dns("kubernetes")
                .ip("10.0.0.1".parse().unwrap()),
            Subject::peer("kube-apiserver")
                .dns("kubernetes")
                .ip("10.0.0.1".parse().unwrap()),
        ];
        for other in others {
            assert!(!stays(&pki.cluster.issue(&other, now()).unwrap()), "{other:?}");
        }
        let short = pki.cluster.issue_until(&server(), now(), now() + DAY).unwrap();
        assert!(!stays(&short));
        // Another authority, and one of the same name with another key.
        assert!(!stays(&pki.etcd.issue(&server(), now()).unwrap()));
        let namesake = ClusterPki::generate(now()).unwrap();
        assert!(!stays(&namesake.cluster.issue(&server(), now()).unwrap()));
        // One that takes the place of the present one.
        let before = pki.cluster.issue(&server(), now()).unwrap();
        pki.trust_new_authorities(now()).unwrap();
        let trusted = pki.cluster.issue(&server(), now()).unwrap();
        assert!(before.can_stay_for(&trusted, Timestamp::MIN, now()).unwrap());
        pki.issue_from_new_authorities();
        let issued = pki.cluster.issue(&server(), now()).unwrap();
        assert!(!before.can_stay_for(&issued, Timestamp::MIN, now()).unwrap());
    }

    #[test]
    fn one_that_is_damaged_or_has_the_key_of_another_does_not_and_a_damaged_new_one_is_told() {
        let pki = ClusterPki::generate(now()).unwrap();
        let fresh = pki.cluster.issue(&server(), now()).unwrap();
        let before = pki.cluster.issue(&server(), now()).unwrap();
        let damaged = |certificate: &str, key: &str| Certificate {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        };
        let cut = before.certificate.replacen("MII", "AAA", 1);
        for other in [
            damaged(&before.certificate, &fresh.key),
            damaged(&before.certificate, ""),
            damaged("", &before.key),
            damaged(&cut, &before.key),
        ] {
            assert!(!other.can_stay_for(&fresh, Timestamp::MIN, now()).unwrap());
        }
        let fresh = damaged(&cut, &fresh.key);
        assert!(matches!(
            before.can_stay_for(&fresh, Timestamp::MIN, now()),
            Err(PkiError::Unreadable)
        ));
    }
}
