//! Login with a secret: finding the principal, and limits on the cost of guessing.
//!
//! Always true: an attempt is counted before it costs work; that a principal is disabled, or a secret
//! expired, is shown only to clients that have the secret.

use std::{sync::atomic::Ordering, time::Duration};

use arm_wire::PrincipalKind;
use control_records::{PrincipalRecord, Proof, key};
use control_store::{StoreError, Stored, Txn, get_record, put_record};
use http::StatusCode;
use jiff::Timestamp;

use crate::{
    Caller, Secret, TokenService, hash_secret,
    principals::{MAX_LOGIN_CHARS, find_principal},
    refresh,
    refusal::Refusal,
    secret::{DUMMY_HASH, is_costly, verify_secret},
    throttle::Origin,
    tokens::kind,
};

/// The time to wait for a client that comes while too many secrets wait to be compared.
const BUSY: Duration = Duration::from_secs(1);
/// The most slow hashes that an attempt compares.
const MOST_COSTLY: usize = 4;

/// A hash to compare with a secret, and whether it has expired.
struct Candidate {
    hash: String,
    over: bool,
}

fn candidates(record: &PrincipalRecord, now: Timestamp) -> Vec<Candidate> {
    let first = (!record.secret_hash.is_empty()).then(|| Candidate {
        hash: record.secret_hash.clone(),
        over: false,
    });
    let more = record.credentials.iter().filter_map(|credential| {
        let Proof::Secret { hash, .. } = &credential.proof else {
            return None;
        };
        Some(Candidate {
            hash: hash.clone(),
            over: credential.expires_at.is_some_and(|until| until <= now),
        })
    });
    first.into_iter().chain(more).collect()
}

/// Whether a hash is of an outdated kind.
fn is_of_before(hash: &str) -> bool {
    hash.starts_with("pbkdf2-sha256$")
}

/// The reason of a failed login.
#[derive(Debug)]
pub(crate) enum Problem {
    Wrong,
    /// The secret is right, but has expired.
    Over,
    /// The secret is right, but its principal is disabled.
    Disabled,
    /// Too many wrong secrets for this login.
    Wait(Duration),
    /// Too many attempts from that address, or in total.
    Busy(Duration),
    Store(StoreError),
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Problem {
    /// The refusal for a principal of this kind.
    pub(crate) fn refusal(self, of: PrincipalKind) -> Refusal {
        let person = of == PrincipalKind::User;
        match self {
            Self::Wrong if person => Refusal::new("invalid_grant", 50_126, "user name or password is wrong"),
            Self::Wrong => Refusal::new(
                "invalid_client",
                7_000_215,
                "invalid client secret provided, or there is no such application",
            ),
            Self::Over => Refusal::new("invalid_client", 7_000_222, "the client secret is expired"),
            Self::Disabled if person => Refusal::new("invalid_grant", 50_057, "the user account is disabled"),
            Self::Disabled => Refusal::new("unauthorized_client", 7_000_112, "the application is disabled"),
            Self::Wait(wait) => {
                let mut refusal = Refusal::new(
                    "invalid_grant",
                    50_053,
                    format!("too many wrong secrets; try again in {} s", wait.as_secs() + 1),
                );
                refusal.status = StatusCode::TOO_MANY_REQUESTS;
                refusal.retry_after = Some(wait);
                refusal
            }
            Self::Busy(wait) => Refusal::busy(wait),
            Self::Store(error) => Refusal::store(&error),
        }
    }

    /// The message for a page.
    pub(crate) fn in_words(&self) -> (StatusCode, String) {
        match self {
            Self::Wrong | Self::Over => (
                StatusCode::UNAUTHORIZED,
                "User name or password is wrong.".to_owned(),
            ),
            Self::Disabled => (StatusCode::FORBIDDEN, "This account is disabled.".to_owned()),
            Self::Wait(wait) => (
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "Too many wrong passwords. Try again in {} seconds.",
                    wait.as_secs() + 1
                ),
            ),
            Self::Busy(wait) => (
                StatusCode::TOO_MANY_REQUESTS,
                format!(
                    "Too many sign-ins are under way. Try again in {} seconds.",
                    wait.as_secs()
                ),
            ),
            Self::Store(error) => {
                tracing::error!(%error, "the token service cannot use its store");
                (
                    StatusCode::SERVICE_UNAVAILABLE,
                    "Signing in is not possible right now.".to_owned(),
                )
            }
        }
    }
}

impl TokenService {
    /// The principal with this login and secret.
    pub(crate) async fn login(
        &self,
        login: &str,
        secret: &str,
        wanted: PrincipalKind,
        caller: &Caller,
    ) -> Result<PrincipalRecord, Problem> {
        if login.chars().count() > MAX_LOGIN_CHARS {
            return Err(Problem::Wrong);
        }
        // Also by address, so that no client can lock out users at other addresses.
        let (origin, now) = (Origin::of(caller.address), self.env.clock.monotonic());
        let found = find_principal(&*self.store, login)
            .await?
            .filter(|record| kind(record) == wanted);
        let (costly, cheap): (Vec<Candidate>, Vec<Candidate>) = match &found {
            Some(record) => candidates(record, self.env.clock.now()),
            None => vec![Candidate {
                hash: DUMMY_HASH.to_owned(),
                over: false,
            }],
        }
        .into_iter()
        .partition(|candidate| is_costly(&candidate.hash));
        let matching: Vec<&Candidate> = cheap
            .iter()
            .filter(|candidate| verify_secret(&candidate.hash, secret))
            .collect();
        if let Some(record) = &found
            && !matching.is_empty()
        {
            // A secret of 256 random bits cannot be guessed, so failed attempts from the same address do not
            // lock its owner out.
            self.throttle.succeeded(origin, login);
            return admit(record.clone(), matching.iter().all(|candidate| candidate.over));
        }
        self.throttle.attempt(origin, login, now).map_err(Problem::Wait)?;
        if costly.is_empty() {
            return Err(Problem::Wrong);
        }
        let attempt = self.throttle.permit(origin, now).map_err(|wait| {
            // No hash was compared, so the attempt does not count.
            self.throttle.retract(origin, login);
            Problem::Busy(wait)
        })?;
        let hashes: Vec<Candidate> = costly.into_iter().take(MOST_COSTLY).collect();
        self.hashed.fetch_add(hashes.len() as u64, Ordering::Relaxed);
        let compared = {
            let secret = secret.to_owned();
            move || {
                let right = hashes
                    .into_iter()
                    .find(|candidate| verify_secret(&candidate.hash, &secret))?;
                let anew = is_of_before(&right.hash).then(|| hash_secret(Secret::Chosen(&secret)));
                Some((right, anew))
            }
        };
        let right = match self.hashing.run(compared).await {
            Ok(right) => right,
            Err(error) => {
                tracing::error!(%error, "a secret was not compared");
                self.throttle.retract(origin, login);
                return Err(Problem::Busy(BUSY));
            }
        };
        let (Some(record), Some((right, anew))) = (found, right) else {
            return Err(Problem::Wrong);
        };
        attempt.succeeded();
        self.throttle.succeeded(origin, login);
        let record = match anew {
            Some(anew) => self.rehash(record, &right.hash, anew).await,
            None => record,
        };
        admit(record, right.over)
    }

    /// Stores the password's hash in the current form. If that fails, the next login tries again.
    async fn rehash(&self, record: PrincipalRecord, old: &str, anew: String) -> PrincipalRecord {
        if record.secret_hash != old {
            return record;
        }
        match self.try_rehash(&record.object_id, old, anew).await {
            Ok(Some(record)) => record,
            Ok(None) | Err(StoreError::Conflict { .. }) => record,
            Err(error) => {
                tracing::warn!(%error, principal = record.object_id, "a password is still kept in an older form");
                record
            }
        }
    }

    async fn try_rehash(
        &self,
        object_id: &str,
        old: &str,
        anew: String,
    ) -> Result<Option<PrincipalRecord>, StoreError> {
        let own = key::principal(object_id);
        let found: Option<Stored<PrincipalRecord>> = get_record(&*self.store, &own).await?;
        let Some(found) = found.filter(|found| found.value.secret_hash == old) else {
            return Ok(None);
        };
        let after = PrincipalRecord {
            secret_hash: anew,
            ..found.value.clone()
        };
        let txn = Txn::default()
            .at(&own, found.revision)
            .with(put_record(&own, &after));
        let txn = refresh::rehashed(&*self.store, &found.value, &after, txn).await?;
        // One condition is for the principal; the others fit beside it only up to the limit.
        if txn.compare.len() > control_store::LARGEST_TXN {
            return Ok(None);
        }
        self.store.txn(txn).await?;
        Ok(Some(after))
    }
}

fn admit(record: PrincipalRecord, over: bool) -> Result<PrincipalRecord, Problem> {
    if over {
        Err(Problem::Over)
    } else if record.disabled {
        Err(Problem::Disabled)
    } else {
        Ok(record)
    }
}
