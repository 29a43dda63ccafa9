//! Credentials under support tickets: what the stamp's operator gets to look into a tenant's cluster, as far as the tenant has consented.
//!
//! No client of the ARM API gets one: they are handed out at the service's own socket. What is handed out is a credential of the cluster, with a
//! record that the tenant lists and revokes (`control/records`: credential), and a line in its ticket.
//!
//! Always true: nothing is handed out without an open ticket and a consent that holds, in one transaction with its line there; its
//! certificate ends no later than the consent. Whoever ends the consent takes it back.

use arm_wire::ArmError;
use base_env::Env;
use base_sealer::Sealer;
use cluster_bootstrap::{API_PORT, Bearer, client_certificate, kubeconfig};
use cluster_spec::CredentialKind;
use control_records::{
    ClusterRecord, ObservedRecord, PkiRecord,
    activity::{ActivityRecord, ActivityStatus},
    credential::CredentialRecord,
    key,
    ticket::{Access, MOST_CREDENTIALS, TicketRecord},
};
use control_store::{Store, StoreError, Txn, get_record, list_records, put_record};
use jiff::Timestamp;
use providers_containerservice::{HISTORY_NAMESPACE, until_granted};

use crate::credentials::{CredentialError, keys};

/// Credentials of tickets that are good at a time, in a cluster.
const MOST_GOOD: usize = 20;
/// Longer names of engineers are refused.
const MOST_NAME: usize = 64;
/// How often it is tried again because somebody else was faster.
const ATTEMPTS: usize = 8;
/// Who hands them out, in logs.
const OPERATOR: &str = "operator";

/// A credential as it is handed out.
#[derive(Debug)]
pub struct SupportAccess {
    /// Its id, part of its user's name in the cluster.
    pub credential: String,
    /// When it ends by itself.
    pub expires_at: Timestamp,
    /// Whether the cluster takes it already; it does as soon as it answers.
    pub granted: bool,
    /// The kubeconfig with it.
    pub kubeconfig: String,
}

/// Why none was handed out.
#[derive(Debug, thiserror::Error)]
pub enum SupportAccessError {
    /// The engineer's name is no name.
    #[error("the engineer's name must be one line of 1 to {} characters", MOST_NAME)]
    Name,
    /// There is no such ticket, or no such cluster.
    #[error("the cluster has no support ticket {0}; see what there is: landfall support ticket list")]
    Missing(String),
    /// It is closed.
    #[error("the ticket {0} is closed; the tenant opens another one, and consents")]
    Closed(String),
    /// Nobody consented, or the consent has ended.
    #[error(
        "nobody consents to access under the ticket {0} now; the tenant does: landfall support ticket consent"
    )]
    NoConsent(String),
    /// Too many.
    #[error("{0}; revoke some, or let them end")]
    TooMany(String),
    /// It cannot be used yet, or not now.
    #[error("the cluster {0}")]
    NotReady(String),
    /// Others kept changing the ticket.
    #[error("the ticket is being changed by others; try again")]
    Busy,
    /// Its certificate cannot be made.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was written down, and whether it is granted could not be read.
    #[error("the credential was written down, and whether it is granted cannot be read: {}", .0.message)]
    Unread(ArmError),
}

impl SupportAccessError {
    /// Whether the caller asked for something that is not to be had; else the service failed.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Name
            | Self::Missing(_)
            | Self::Closed(_)
            | Self::NoConsent(_)
            | Self::TooMany(_)
            | Self::NotReady(_)
            | Self::Busy => true,
            Self::Credential(_) | Self::Store(_) | Self::Unread(_) => false,
        }
    }
}

/// Whether a ticket lets support in now, until when, or why not.
fn admitted(ticket: &TicketRecord, now: Timestamp) -> Result<Timestamp, SupportAccessError> {
    if ticket.closed.is_some() {
        return Err(SupportAccessError::Closed(ticket.name.clone()));
    }
    let until = ticket.access_until(now);
    let until = until.ok_or_else(|| SupportAccessError::NoConsent(ticket.name.clone()))?;
    if ticket.access.len() >= MOST_CREDENTIALS {
        let why =
            format!("{MOST_CREDENTIALS} credentials were handed out under this ticket: open another one");
        return Err(SupportAccessError::TooMany(why));
    }
    Ok(until)
}

/// The entry of the activity log.
fn activity(env: &Env, cluster: &ClusterRecord, ticket: &TicketRecord, access: &Access) -> ActivityRecord {
    let request = env.ids.uuid().to_string();
    ActivityRecord {
        v: 1,
        at: access.issued_at,
        principal: OPERATOR.to_owned(),
        principal_name: format!("{OPERATOR} ({})", access.engineer),
        principal_type: "User".to_owned(),
        address: None,
        action: format!("{HISTORY_NAMESPACE}/managedClusters/supportTickets/access/action"),
        method: None,
        scope: format!(
            "/subscriptions/{}/resourceGroups/{}/providers/{HISTORY_NAMESPACE}/managedClusters/{}/supportTickets/{}",
            cluster.subscription, cluster.resource_group, cluster.name, ticket.name
        ),
        status: ActivityStatus::Succeeded,
        http_status: None,
        code: None,
        operation: None,
        correlation_id: request.clone(),
        request_id: request,
    }
}

/// Hands out a credential under a ticket of a cluster, to an engineer of this name.
///
/// # Errors
/// Where the ticket does not let support in, or the cluster's keys or the store cannot be read.
pub async fn support_access(
    env: &Env,
    store: &dyn Store,
    sealer: &Sealer,
    uid: &str,
    ticket: &str,
    engineer: &str,
) -> Result<SupportAccess, SupportAccessError> {
    let engineer = engineer.trim();
    let length = engineer.chars().count();
    if length == 0 || length > MOST_NAME || engineer.chars().any(char::is_control) {
        return Err(SupportAccessError::Name);
    }
    for _ in 0..ATTEMPTS {
        match hand_out(env, store, sealer, uid, ticket, engineer).await {
            Err(SupportAccessError::Store(StoreError::Conflict { .. })) => {}
            outcome => return outcome,
        }
    }
    Err(SupportAccessError::Busy)
}

async fn hand_out(
    env: &Env,
    store: &dyn Store,
    sealer: &Sealer,
    uid: &str,
    ticket: &str,
    engineer: &str,
) -> Result<SupportAccess, SupportAccessError> {
    let missing = || SupportAccessError::Missing(ticket.to_owned());
    let own = TicketRecord::key(uid, ticket);
    let found = get_record::<TicketRecord>(store, &own)
        .await?
        .ok_or_else(missing)?;
    let cluster = get_record::<ClusterRecord>(store, &key::desired(uid)).await?;
    let cluster = cluster.ok_or_else(missing)?;
    let now = env.clock.now();
    let mut record = found.value;
    let expires_at = admitted(&record, now)?;
    let not_ready = |why: &str| SupportAccessError::NotReady(format!("{} {why}", cluster.value.name));
    if cluster.value.deleting {
        return Err(not_ready("is being deleted"));
    }
    let (known, _) = list_records::<CredentialRecord>(store, &CredentialRecord::all(uid)).await?;
    let good = known.iter().filter(|(_, known)| known.value.is_good(now));
    if good.filter(|(_, known)| known.value.ticket.is_some()).count() >= MOST_GOOD {
        let why = format!("{MOST_GOOD} credentials of support are good in this cluster");
        return Err(SupportAccessError::TooMany(why));
    }
    let observed = get_record::<ObservedRecord>(store, &key::observed(uid)).await?;
    let observed = observed.map(|observed| observed.value).unwrap_or_default();
    let sealed = get_record::<PkiRecord>(store, &key::pki(uid)).await?;
    let keys = keys(store, sealer, uid).await?;
    let (Some(vip), Some(sealed), Some(pki)) = (observed.vip, sealed, keys) else {
        return Err(not_ready("is still being created and has no endpoint yet"));
    };
    let credential = CredentialRecord {
        v: 1,
        id: env.ids.short(),
        kind: CredentialKind::Support,
        namespace: None,
        ticket: Some(record.name.clone()),
        asked_by: OPERATOR.to_owned(),
        asked_by_name: format!("{OPERATOR} ({engineer})"),
        address: None,
        issued_at: now,
        expires_at,
        round: sealed.value.rotation.round,
        revoked: None,
    };
    let bearer = Bearer::Credential(CredentialKind::Support, &credential.id);
    let made = client_certificate(&pki, bearer, now, expires_at).map_err(CredentialError::from)?;
    let server = format!("https://{vip}:{API_PORT}");
    let text = kubeconfig(cluster.value.spec(), &pki, &server, bearer, &made, None);
    let access = Access {
        credential: credential.id.clone(),
        engineer: engineer.to_owned(),
        issued_at: now,
        expires_at,
        revoked_at: None,
    };
    let told = activity(env, &cluster.value, &record, &access);
    record.access.push(access);
    record.generation += 1;
    let name = CredentialRecord::key(uid, &credential.id);
    // A consent that is withdrawn meanwhile, a cluster that begins to go, and CAs that are replaced, all hand out nothing.
    let txn = Txn::default()
        .at(&own, found.revision)
        .at(key::desired(uid), cluster.revision)
        .at(key::pki(uid), sealed.revision)
        .absent(&name)
        .with(put_record(own, &record))
        .with(put_record(name, &credential))
        .with(told.put(Some(&cluster.value.subscription)));
    store.txn(txn).await?;
    let answers = observed.formed && !cluster.value.spec().stopped;
    let granted = answers
        && until_granted(env, store, uid, &credential.id, true)
            .await
            .map_err(SupportAccessError::Unread)?;
    Ok(SupportAccess {
        credential: credential.id,
        expires_at,
        granted,
        kubeconfig: text,
    })
}

#[cfg(test)]
mod tests {
    use control_records::ticket::{Act, Consent, Severity};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn act() -> Act {
        Act {
            by: "o".to_owned(),
            by_name: "ada".to_owned(),
            at: at(0),
        }
    }

    fn ticket() -> TicketRecord {
        TicketRecord {
            v: 1,
            name: "t1".to_owned(),
            title: "Pods do not start".to_owned(),
            severity: Severity::Critical,
            opened_by: "o".to_owned(),
            opened_by_name: "ada".to_owned(),
            opened_at: at(0),
            consent: Some(Consent {
                given: act(),
                until: at(600),
                withdrawn: None,
            }),
            closed: None,
            access: Vec::new(),
            generation: 1,
        }
    }

    #[test]
    fn a1_a3_only_an_open_ticket_with_consent_lets_support_in() {
        let now = at(10);
        assert_eq!(admitted(&ticket(), now).unwrap(), at(600));
        let mut other = ticket();
        other.closed = Some(act());
        assert!(matches!(
            admitted(&other, now),
            Err(SupportAccessError::Closed(_))
        ));
        assert!(matches!(
            admitted(&ticket(), at(600)),
            Err(SupportAccessError::NoConsent(_))
        ));
        let mut other = ticket();
        other.consent = None;
        let refused = admitted(&other, now).unwrap_err();
        assert!(matches!(refused, SupportAccessError::NoConsent(_)) && refused.is_refusal());
        let mut full = ticket();
        let access = Access {
            credential: "a".to_owned(),
            engineer: "eve".to_owned(),
            issued_at: at(0),
            expires_at: at(5),
            revoked_at: None,
        };
        full.access = vec![access; MOST_CREDENTIALS];
        assert!(matches!(
            admitted(&full, now),
            Err(SupportAccessError::TooMany(_))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_ticket_nothing_is_handed_out_or_written() {
        let store = storage_redb::MemoryStore::new();
        let (env, sealer) = (Env::simulated(1), Sealer::from_key(&[7; 32]));
        let refused = support_access(&env, &store, &sealer, "u", "none", "eve").await;
        assert!(matches!(refused, Err(SupportAccessError::Missing(_))));
        let refused = support_access(&env, &store, &sealer, "u", "none", " \n").await;
        assert!(matches!(refused, Err(SupportAccessError::Name)));
        assert!(store.list("/").await.unwrap().0.is_empty());
    }
}
