//! Kubeconfigs: which one a caller gets, that it is written down before it is handed out, and when it is refused.
//!
//! Always true: a kubeconfig with a certificate has a record of its own ([`CredentialRecord`]), which says who asked for it and ends when
//! the certificate does; of each kind so many are good at a time. What it may do hangs on that record: the cluster's loop grants it in the
//! cluster, and takes it away when the record says so. Who asks again gets the same one for half of its time, to the last byte, as AKS
//! gives it: clients that find another under the same name stop and ask what to do.
//! Once the cluster's CAs are replaced, it is another one: those of before are about to be refused.

use std::{collections::BTreeMap, time::Duration};

use arm_ids::ResourcePath;
use arm_kernel::{
    Call, Context, Decision, Mode, Mutation, Presence, Purpose, RequestInfo, Resource, quote, store_error,
    write,
};
use arm_wire::{ArmError, ErrorCode, Request, Response};
use async_trait::async_trait;
use base_env::Env;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use cluster_spec::{CredentialKind, DirectoryAccess, TokenFormat};
use control_records::{
    ClusterRecord, ObservedRecord, PkiRecord, SealedRecord, credential::CredentialRecord, key,
};
use control_store::{Revision, Store, StoreError, Stored, Txn, get_record, list_records, put_record};
use futures::StreamExt as _;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    draft::{cluster_id, refuse_deleting},
    local_accounts,
};
use crate::{
    ContainerService, ProviderConfig,
    records::{ClusterPath, StoredCluster},
};

/// Credentials of a kind that are known at a time, in a cluster. Nobody uses up those of another kind.
const MOST: usize = 200;
/// Records of ended ones that are removed with one that is new.
const FORGOTTEN: usize = 32;
/// How long an answer waits for the cluster's loop: a moment where the API server answers, which is when it waits at all. On a host that is
/// busy with other clusters it takes longer, and a kubeconfig that is refused is worse than one that is late.
const WAIT: Duration = Duration::from_secs(30);

/// Makes kubeconfigs. Implemented by the binary over the cluster's keys.
#[async_trait]
pub trait Credentials: Send + Sync + 'static {
    /// A certificate with its key for a credential, sealed; `None` while the cluster has no keys yet.
    async fn certificate(
        &self,
        cluster: &ClusterRecord,
        credential: &CredentialRecord,
    ) -> Result<Option<Vec<u8>>, ArmError>;

    /// The kubeconfig (YAML) of a credential with its sealed certificate; `None` while the cluster has no keys or endpoint yet.
    async fn kubeconfig(
        &self,
        cluster: &ClusterRecord,
        observed: &ObservedRecord,
        credential: &CredentialRecord,
        certificate: &[u8],
    ) -> Result<Option<String>, ArmError>;

    /// The same for whoever the directory knows, without any credential in it; in `namespace`, where there is one.
    async fn directory_kubeconfig(
        &self,
        cluster: &ClusterRecord,
        observed: &ObservedRecord,
        directory: &DirectoryAccess,
        format: TokenFormat,
        namespace: Option<&str>,
    ) -> Result<Option<String>, ArmError>;
}

/// How it says where tokens come from, if the query asks for one. As AKS: kubectl without an `azure` of its own is what people have.
fn token_format(request: &Request) -> TokenFormat {
    match request.query("format") {
        Some(format) if format.eq_ignore_ascii_case("azure") => TokenFormat::Azure,
        _ => TokenFormat::Exec,
    }
}

/// Which kubeconfig a caller gets.
enum Given<'a> {
    /// One with a certificate of the cluster's own.
    Certificate,
    /// One for whoever the directory knows, without any credential in it.
    Directory(&'a DirectoryAccess, TokenFormat),
}

/// Decides it: by what is asked for, and by whom the cluster knows.
fn given<'a>(
    record: &'a ClusterRecord,
    kind: CredentialKind,
    request: &Request,
) -> Result<Given<'a>, ArmError> {
    match (&record.spec().directory, kind) {
        (Some(directory), CredentialKind::User) => Ok(Given::Directory(directory, token_format(request))),
        _ => {
            local_accounts::refuse(record)?;
            Ok(Given::Certificate)
        }
    }
}

fn check_query(request: &Request) -> Result<(), ArmError> {
    for (name, values) in [
        ("format", ["azure", "exec"].as_slice()),
        ("server-fqdn", ["public"].as_slice()),
    ] {
        let Some(asked) = request.query(name).filter(|asked| !asked.is_empty()) else {
            continue;
        };
        if !values.iter().any(|value| value.eq_ignore_ascii_case(asked)) {
            let message = format!(
                "The value {} of the query parameter '{name}' is not one of {}.",
                quote(asked),
                values.join(", ")
            );
            return Err(ArmError::new(ErrorCode::INVALID_PARAMETER, message).target(name));
        }
    }
    Ok(())
}

fn too_early(record: &ClusterRecord) -> ArmError {
    ArmError::new(
        ErrorCode::CONFLICT,
        format!(
            "The cluster '{}' is still being created and has no endpoint yet; ask again when its provisioningState is Succeeded.",
            record.name
        ),
    )
}

fn taken_back(record: &ClusterRecord) -> ArmError {
    ArmError::new(
        ErrorCode::CONFLICT,
        format!(
            "The credential of the cluster {} that was to be handed out was taken back meanwhile; ask again.",
            quote(&record.name)
        ),
    )
}

/// `CredentialResults`.
fn results(kind: CredentialKind, encoded: Option<&str>) -> Value {
    let made = encoded.map(|encoded| json!({ "name": kind.name(), "value": encoded }));
    json!({ "kubeconfigs": Vec::from_iter(made) })
}

/// What is asked for.
pub(crate) struct Asked {
    kind: CredentialKind,
    /// The managed namespace that its rights are to be in; `None`: they are the cluster's.
    namespace: Option<String>,
}

impl Asked {
    /// Whether a credential is such a one.
    fn is(&self, known: &CredentialRecord) -> bool {
        known.kind == self.kind && known.namespace == self.namespace
    }

    /// Whether both use up what can be good at a time: those of all namespaces do together.
    fn counts(&self, known: &CredentialRecord) -> bool {
        known.kind == self.kind && known.namespace.is_some() == self.namespace.is_some()
    }
}

/// Credentials as the kernel sees them, where they are handed out.
enum HandedOut {}

struct State {
    /// When it was read: one moment says what is handed out again, where that is decided and where it is answered.
    now: Timestamp,
    cluster: StoredCluster,
    credentials: Vec<Stored<CredentialRecord>>,
    /// Their certificates, sealed, by their ids. Earlier releases kept none.
    certificates: BTreeMap<String, Vec<u8>>,
    /// How often the cluster's CAs were replaced, and as of when; nothing while it has no keys.
    keys: Option<(u32, Revision)>,
}

impl State {
    fn round(&self) -> u32 {
        self.keys.map_or(0, |(round, _)| round)
    }

    /// The one that is handed out again to who asks, with its certificate: none of CAs that were replaced since.
    fn again(&self, asked: &Asked, asked_by: &str, lifetime: Duration) -> Option<(&CredentialRecord, &[u8])> {
        let known = self.credentials.iter().map(|found| &found.value);
        known
            .filter(|known| asked.is(known) && known.round == self.round())
            .filter(|known| known.is_handed_out_again(asked_by, self.now, lifetime))
            .filter_map(|known| Some((known, self.certificates.get(&known.id)?.as_slice())))
            .max_by_key(|(known, _)| known.expires_at)
    }
}

/// A credential that is written down.
struct New {
    record: CredentialRecord,
    /// Those that have ended and are no longer kept.
    forgotten: Vec<String>,
}

#[async_trait]
impl Resource for HandedOut {
    type Provider = ContainerService;
    type State = State;
    type Change = New;
    type Action = Asked;

    async fn read(provider: &ContainerService, path: &ResourcePath, _: Purpose) -> Result<State, ArmError> {
        let cluster = provider.need(ClusterPath::of(path)?).await?;
        let uid = &cluster.record.value.uid;
        let (credentials, _) = list_records(&*provider.store, &CredentialRecord::all(uid))
            .await
            .map_err(store_error)?;
        let prefix = CredentialRecord::certificate_key(uid, "");
        let (certificates, _) = list_records::<SealedRecord>(&*provider.store, &prefix)
            .await
            .map_err(store_error)?;
        let keys = get_record::<PkiRecord>(&*provider.store, &key::pki(uid))
            .await
            .map_err(store_error)?;
        Ok(State {
            now: provider.env.clock.now(),
            keys: keys.map(|keys| (keys.value.rotation.round, keys.revision)),
            credentials: credentials.into_iter().map(|(_, found)| found).collect(),
            certificates: certificates
                .into_iter()
                .map(|(key, found)| (key[prefix.len()..].to_owned(), found.value.sealed))
                .collect(),
            cluster,
        })
    }

    fn presence(_: &State, _: &ResourcePath) -> Presence {
        Presence::Absent
    }

    fn missing(_: &State, path: &ResourcePath) -> ArmError {
        match ClusterPath::of(path) {
            Ok(at) => at.not_found(),
            Err(error) => error,
        }
    }

    async fn list(_: &ContainerService, _: &ResourcePath, _: &str) -> Result<Vec<Value>, ArmError> {
        Ok(Vec::new())
    }

    fn decide(
        context: &Context<'_, ProviderConfig>,
        state: &State,
        mutation: Mutation<'_, Asked>,
    ) -> Result<Decision<New>, ArmError> {
        let Mutation::Act(asked) = mutation else {
            return Err(ArmError::internal("credentials are asked for and nothing else"));
        };
        let cluster = &state.cluster.record.value;
        local_accounts::refuse(cluster)?;
        refuse_deleting(cluster)?;
        let ready = state.cluster.observed.as_ref();
        if ready.is_none_or(|observed| observed.vip.is_none()) {
            return Err(too_early(cluster));
        }
        let lifetime = context.config.credential_lifetime;
        let asked_by = &context.info.principal.object_id;
        if state.again(asked, asked_by, lifetime).is_some() {
            return Ok(Decision::Unchanged);
        }
        let known = state.credentials.iter().map(|found| &found.value);
        let (ended, good): (Vec<_>, Vec<_>) = known.partition(|known| known.has_expired(context.now));
        if good.iter().filter(|good| asked.counts(good)).count() >= MOST {
            let next = good.iter().filter(|good| asked.counts(good));
            let next = next.map(|good| good.expires_at).min().unwrap_or(context.now);
            let message = format!(
                "{MOST} credentials of this kind were handed out for the cluster {} and have not ended; the next one ends at {next}. Keep \
                 those that you have rather than asking for new ones each time.",
                quote(&cluster.name)
            );
            return Err(ArmError::new(ErrorCode::OPERATION_NOT_ALLOWED, message));
        }
        let trace = context.info.trace;
        Ok(Decision::Write(New {
            record: CredentialRecord {
                v: 1,
                id: context.ids.short(),
                kind: asked.kind,
                namespace: asked.namespace.clone(),
                ticket: None,
                asked_by: asked_by.clone(),
                asked_by_name: context.info.principal.name.clone(),
                address: trace.and_then(|trace| trace.address),
                issued_at: context.now,
                expires_at: context.now.checked_add(lifetime).map_err(ArmError::internal)?,
                round: state.round(),
                revoked: None,
            },
            forgotten: ended
                .iter()
                // Of a ticket: the cluster's loop takes its role away first.
                .filter(|ended| ended.ticket.is_none())
                .take(FORGOTTEN)
                .map(|ended| ended.id.clone())
                .collect(),
        }))
    }

    async fn transaction(
        provider: &ContainerService,
        _: &RequestInfo<'_>,
        state: &State,
        change: &New,
    ) -> Result<Txn, ArmError> {
        let cluster = &state.cluster.record.value;
        let uid = &cluster.uid;
        let own = CredentialRecord::key(uid, &change.record.id);
        let made = provider.credentials.certificate(cluster, &change.record).await?;
        let certificate = SealedRecord {
            v: 1,
            sealed: made.ok_or_else(|| too_early(cluster))?,
        };
        // A cluster that begins to go meanwhile, or whose local accounts are disabled, hands out nothing more.
        let txn = Txn::default()
            .at(key::desired(uid), state.cluster.record.revision)
            .absent(own.as_str())
            .with(put_record(own, &change.record))
            .with(put_record(
                CredentialRecord::certificate_key(uid, &change.record.id),
                &certificate,
            ));
        // Nor one of CAs that are replaced meanwhile.
        let txn = match state.keys {
            Some((_, revision)) => txn.at(key::pki(uid), revision),
            None => txn,
        };
        let forgotten = change.forgotten.iter();
        Ok(forgotten.fold(txn, |txn, id| {
            txn.delete(CredentialRecord::key(uid, id))
                .delete(CredentialRecord::certificate_key(uid, id))
        }))
    }

    fn render(_: &State, _: Option<&New>, _: &ResourcePath, _: &str) -> Value {
        Value::Null
    }

    fn operation(_: &New) -> Option<&str> {
        None
    }
}

/// Waits, not for long, until the loop of a cluster has granted a credential, or taken it away. Whether it has.
///
/// # Errors
/// Errors of the store.
pub async fn until_granted(
    env: &Env,
    store: &dyn Store,
    uid: &str,
    id: &str,
    granted: bool,
) -> Result<bool, ArmError> {
    until(env, store, uid, |observed| {
        observed.is_some_and(|observed| observed.credentials.contains(id)) == granted
    })
    .await
}

/// Waits, not for long, until what a loop has observed of its cluster is so. Whether it is.
pub(crate) async fn until(
    env: &Env,
    store: &dyn Store,
    uid: &str,
    is_so: impl Fn(Option<&ObservedRecord>) -> bool + Send + Sync,
) -> Result<bool, ArmError> {
    let own = key::observed(uid);
    let seen = async {
        loop {
            let (observed, revision) = list_records::<ObservedRecord>(store, &own).await?;
            let observed = observed.first().map(|(_, observed)| &observed.value);
            if is_so(observed) {
                return Ok::<_, StoreError>(());
            }
            let mut changes = store.watch(&own, revision).await?;
            match changes.next().await {
                // It tells that there is something to be read, and no more.
                Some(Ok(_) | Err(StoreError::Lagged)) => {}
                Some(Err(error)) => return Err(error),
                None => return std::future::pending().await,
            }
        }
    };
    match env.clock.timeout(WAIT, seen).await {
        Ok(seen) => seen.map(|()| true).map_err(store_error),
        Err(_elapsed) => Ok(false),
    }
}

impl ContainerService {
    pub(super) async fn credential(
        &self,
        call: &Call,
        kind: CredentialKind,
        mode: Mode,
    ) -> Result<Response, ArmError> {
        self.credential_in(call, kind, None, mode).await
    }

    /// A credential whose rights are in a managed namespace, or the cluster's.
    pub(crate) async fn credential_in(
        &self,
        call: &Call,
        kind: CredentialKind,
        namespace: Option<&str>,
        mode: Mode,
    ) -> Result<Response, ArmError> {
        let asked = Asked {
            kind,
            namespace: namespace.map(str::to_owned),
        };
        let (_, encoded) = self.hand_out(&call.request, &asked, mode).await?;
        Ok(Response::ok(results(kind, encoded.as_deref())))
    }

    /// The kubeconfig, base64 encoded as in answers; nothing in a preview.
    async fn hand_out(
        &self,
        request: &Request,
        asked: &Asked,
        mode: Mode,
    ) -> Result<(ClusterRecord, Option<String>), ArmError> {
        let found = self.need(ClusterPath::of(&request.path)?).await?;
        check_query(request)?;
        let record = &found.record.value;
        match given(record, asked.kind, request)? {
            Given::Certificate => self.certificate(request, asked, mode).await,
            Given::Directory(directory, format) => {
                let observed = found.observed.as_ref();
                let observed = observed.filter(|observed| observed.vip.is_some());
                let observed = observed.ok_or_else(|| too_early(record))?;
                let made = self
                    .credentials
                    .directory_kubeconfig(record, observed, directory, format, asked.namespace.as_deref())
                    .await?;
                let made = made.ok_or_else(|| too_early(record))?;
                let encoded = (mode == Mode::Commit).then(|| STANDARD.encode(made));
                Ok((record.clone(), encoded))
            }
        }
    }

    async fn certificate(
        &self,
        request: &Request,
        asked: &Asked,
        mode: Mode,
    ) -> Result<(ClusterRecord, Option<String>), ArmError> {
        let info = RequestInfo::of(request);
        let written = write::<HandedOut>(self, &info, Mutation::Act(asked), mode).await?;
        let state = written.state;
        let cluster = &state.cluster.record.value;
        if mode == Mode::Preview {
            return Ok((cluster.clone(), None));
        }
        let new;
        let (own, certificate) = match &written.decision {
            Decision::Write(New { record, .. }) => {
                let kept = CredentialRecord::certificate_key(&cluster.uid, &record.id);
                let kept = get_record::<SealedRecord>(&*self.store, &kept)
                    .await
                    .map_err(store_error)?;
                new = kept.ok_or_else(|| taken_back(cluster))?.value.sealed;
                (record, new.as_slice())
            }
            Decision::InProgress(_) | Decision::Unchanged => {
                let lifetime = self.config.credential_lifetime;
                let again = state.again(asked, &info.principal.object_id, lifetime);
                again.ok_or_else(|| taken_back(cluster))?
            }
        };
        let observed = state.cluster.observed.clone().unwrap_or_default();
        let made = self
            .credentials
            .kubeconfig(cluster, &observed, own, certificate)
            .await?;
        let made = made.ok_or_else(|| too_early(cluster))?;
        // Before its API server has answered once, and while it stands still, nothing can be granted; it follows.
        if observed.formed && !cluster.spec().stopped {
            // Nor where it does not answer now: whoever has the credential is told by the cluster, then.
            until_granted(&self.env, &*self.store, &cluster.uid, &own.id, true).await?;
        }
        Ok((cluster.clone(), Some(STANDARD.encode(made))))
    }

    pub(super) async fn access_profile(&self, call: &Call, mode: Mode) -> Result<Response, ArmError> {
        let request = &call.request;
        let at = ClusterPath::of(&request.path)?;
        let kinds = [CredentialKind::Admin, CredentialKind::User];
        let Some(kind) = kinds
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(at.child))
        else {
            self.need(at).await?;
            let message = format!(
                "There is no access profile {}; use clusterAdmin or clusterUser.",
                quote(at.child)
            );
            return Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message));
        };
        let asked = Asked {
            kind,
            namespace: None,
        };
        let (record, encoded) = self.hand_out(request, &asked, mode).await?;
        let id = cluster_id(&record.subscription, &record.resource_group, &record.name);
        let mut properties = json!({});
        if let Some(encoded) = encoded {
            properties["kubeConfig"] = json!(encoded);
        }
        Ok(Response::ok(json!({
            "id": format!("{id}/accessProfiles/{}", kind.name()),
            "name": kind.name(),
            "type": "Microsoft.ContainerService/managedClusters/accessProfiles",
            "location": record.spec().location,
            "properties": properties,
        })))
    }
}
