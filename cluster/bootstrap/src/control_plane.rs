//! A control plane machine: etcd, API server, controller manager, scheduler; with several members, also the
//! programs that coordinate them.

use std::net::Ipv4Addr;

use agent_protocol::{File, LEVEL, MachineConfig, Process};
use cluster_pki::{ClusterPki, Subject};
use cluster_spec::{ClusterSpec, Tier};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{
    API_PORT, BootstrapError, ControlPlanePlace, TokenAuthority, access, directory, kubeconfig, members,
    object, pair,
    paths::{CA_FILE, ETCD_CA_FILE, ETCD_PKI, PKI},
    plain,
    process::{https, process},
    secret,
};

const ENCRYPTION: &str = "/etc/kubernetes/encryption.json";
const AUDIT_POLICY: &str = "/etc/kubernetes/audit-policy.json";
/// The API server reloads it when it changes.
const AUTHENTICATION: &str = "/etc/kubernetes/authentication.json";
/// The path of an issuer's keys below its URL, as in the API server.
pub const ISSUER_KEYS: &str = "openid/v1/jwks";
/// Admission plug-ins in addition to upstream's defaults: those documented for AKS, which act on annotations
/// of namespaces and on taints. None of them needs a file.
const ADMISSION: [&str; 4] = [
    "NodeRestriction",
    "PodNodeSelector",
    "PodTolerationRestriction",
    "ExtendedResourceToleration",
];
const AUDIT_LOG: &str = "/var/log/landfall/audit.log";
/// The one CA that the controller manager signs with: it takes no file with two.
const SIGNING_CA: &str = "/etc/kubernetes/pki/signing-ca.crt";
/// The key that signs service accounts' tokens.
const SERVICE_ACCOUNT_KEY: &str = "/etc/kubernetes/pki/sa.key";

/// What a control plane machine is to be.
///
/// # Errors
/// When a certificate cannot be made.
pub fn control_plane_config(
    spec: &ClusterSpec,
    pki: &ClusterPki,
    place: &ControlPlanePlace,
    now: Timestamp,
    generation: u64,
) -> Result<MachineConfig, BootstrapError> {
    let mut files = certificates(spec, pki, place, now)?;
    files.extend(clients(pki, now)?);
    files.push(object(ENCRYPTION, &encryption(pki)));
    files.push(object(AUDIT_POLICY, &audit_policy()));
    files.push(object(AUTHENTICATION, &authentication(spec, &place.authority)));
    if directory::asks(spec) {
        files.extend(directory::authorization(&place.authority));
    }
    files.extend(members::files(spec, pki, place, now)?);
    let rules = access::Rules::of(&spec.access, place);
    let mut setup = members::setup();
    setup.extend(rules.setup());
    let tasks = vec![rules.task()];
    files.push(rules.into_file());
    let mut processes = vec![
        members::etcd(place),
        members::forgets(place, api_server(spec, pki, place)),
        members::forgets(place, controller_manager(spec, place)),
        members::forgets(place, scheduler(place)),
        members::backup(),
    ];
    processes.extend(members::programs_of_several(place));
    Ok(MachineConfig {
        generation,
        level: LEVEL,
        role: "control-plane".to_owned(),
        files,
        setup,
        processes,
        tasks,
    })
}

fn first_service_address(spec: &ClusterSpec) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(spec.network.service_range.network()) + 1)
}

fn certificates(
    spec: &ClusterSpec,
    pki: &ClusterPki,
    place: &ControlPlanePlace,
    now: Timestamp,
) -> Result<Vec<File>, BootstrapError> {
    let at = &place.at;
    let mut api_server = Subject::server("kube-apiserver").dns(&spec.fqdn);
    for name in [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ] {
        api_server = api_server.dns(name);
    }
    for address in [
        at.vip,
        at.stamp,
        at.vnet,
        first_service_address(spec),
        Ipv4Addr::LOCALHOST,
    ] {
        api_server = api_server.ip(address);
    }
    let local = |subject: Subject| subject.dns("localhost").ip(Ipv4Addr::LOCALHOST);
    let mut files = vec![
        plain(CA_FILE, pki.trusted_cluster()),
        plain(SIGNING_CA, pki.cluster.certificate.as_str()),
        secret(&format!("{PKI}/ca.key"), pki.cluster.key.as_str()),
        plain(&format!("{PKI}/front-proxy-ca.crt"), pki.trusted_front_proxy()),
        plain(ETCD_CA_FILE, pki.trusted_etcd()),
        secret(SERVICE_ACCOUNT_KEY, pki.service_account_key.as_str()),
    ];
    let service_accounts = pki.service_account_public_keys().enumerate();
    files.extend(service_accounts.map(|(number, key)| plain(&service_account_key(number), key)));
    files.extend(
        pki.former
            .iter()
            .enumerate()
            .map(|(number, former)| plain(&former_key(number), former.service_account_public_key.as_str())),
    );
    for (path, authority, subject) in [
        (format!("{PKI}/apiserver"), &pki.cluster, api_server),
        (
            format!("{PKI}/apiserver-kubelet-client"),
            &pki.cluster,
            Subject::client("kube-apiserver-kubelet-client").group("landfall:kubelet-clients"),
        ),
        (
            format!("{PKI}/front-proxy-client"),
            &pki.front_proxy,
            Subject::client("front-proxy-client"),
        ),
        (
            format!("{PKI}/controller-manager"),
            &pki.cluster,
            local(Subject::server("kube-controller-manager")),
        ),
        (
            format!("{PKI}/scheduler"),
            &pki.cluster,
            local(Subject::server("kube-scheduler")),
        ),
        (
            format!("{PKI}/probe"),
            &pki.cluster,
            Subject::client("landfall:probe"),
        ),
        (
            format!("{ETCD_PKI}/server"),
            &pki.etcd,
            local(Subject::peer("etcd")).ip(at.vnet),
        ),
        // A member refuses a peer whose source address is not in its certificate.
        (
            format!("{ETCD_PKI}/peer"),
            &pki.etcd,
            local(Subject::peer(members::PEER)).ip(at.vnet),
        ),
        (
            format!("{ETCD_PKI}/client"),
            &pki.etcd,
            Subject::client("kube-apiserver"),
        ),
    ] {
        files.extend(pair(&path, &authority.issue(&subject, now)?));
    }
    Ok(files)
}

/// The kubeconfigs of the controller manager and the scheduler, each with its own user.
fn clients(pki: &ClusterPki, now: Timestamp) -> Result<Vec<File>, BootstrapError> {
    let server = format!("https://127.0.0.1:{API_PORT}");
    let mut files = Vec::new();
    for name in ["kube-controller-manager", "kube-scheduler"] {
        let user = format!("system:{name}");
        let identity = format!("{PKI}/{name}-client");
        files.extend(pair(&identity, &pki.cluster.issue(&Subject::client(&user), now)?));
        let config = kubeconfig::component(&server, &format!("{PKI}/ca.crt"), &user, &identity);
        files.push(object(&client_config(name), &config));
    }
    Ok(files)
}

fn client_config(name: &str) -> String {
    format!("/etc/kubernetes/{name}.kubeconfig")
}

/// Secrets are encrypted in etcd with the first key; unencrypted ones from before, or from the source cluster
/// of a restore, can still be read.
fn encryption(pki: &ClusterPki) -> Value {
    let key = |name: &str, secret: &str| json!({ "name": name, "secret": secret });
    let keys: Vec<Value> = std::iter::once(key(&pki.encryption_key_name, &pki.encryption_key))
        .chain(
            pki.former
                .iter()
                .map(|former| key(&former.encryption_key_name, &former.encryption_key)),
        )
        .collect();
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "EncryptionConfiguration",
        "resources": [{
            "resources": ["secrets"],
            "providers": [
                { "secretbox": { "keys": keys } },
                { "identity": {} }
            ]
        }]
    })
}

/// Audit events without bodies; none for the components' own read requests.
fn audit_policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            { "level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi*", "/metrics"] },
            { "level": "None", "resources": [{ "group": "coordination.k8s.io", "resources": ["leases"] }] },
            { "level": "None", "resources": [{ "group": "", "resources": ["events"] }] },
            { "level": "None", "verbs": ["get", "list", "watch"], "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"] },
            { "level": "None", "verbs": ["get", "list", "watch"],
              "users": ["system:kube-controller-manager", "system:kube-scheduler", "system:apiserver"] },
            { "level": "Metadata" }
        ]
    })
}

/// Anonymous access only to health checks.
fn authentication(spec: &ClusterSpec, authority: &TokenAuthority) -> Value {
    let mut configuration = json!({
        "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
        "anonymous": {
            "enabled": true,
            "conditions": [{ "path": "/livez" }, { "path": "/readyz" }, { "path": "/healthz" }]
        }
    });
    if let Some(directory) = &spec.directory {
        configuration["jwt"] = directory::authenticators(directory, authority).into();
    }
    configuration
}

/// Concurrent mutating and other requests (AKS service limits).
fn in_flight(tier: Tier) -> (u32, u32) {
    match tier {
        Tier::Free => (50, 100),
        Tier::Standard | Tier::Premium => (200, 400),
    }
}

/// Where the keys are that service accounts' tokens are checked with: first that of the one that signs.
fn service_account_key(number: usize) -> String {
    match number {
        0 => format!("{PKI}/sa.pub"),
        number => format!("{PKI}/sa-{number}.pub"),
    }
}

/// Where the key is that a former cluster's long-lived tokens are recognised by.
fn former_key(number: usize) -> String {
    format!("{PKI}/sa-former-{number}.pub")
}

/// The issuers of tokens: the first signs, all are accepted. So tokens from before the cluster got a public
/// issuer stay valid.
fn issuers(spec: &ClusterSpec) -> Vec<String> {
    let own = format!("--service-account-issuer=https://{}", spec.fqdn);
    match &spec.issuer {
        None => vec![own],
        Some(issuer) => vec![
            format!("--service-account-issuer={issuer}"),
            own,
            // The address that the API server would publish is not reachable from outside.
            format!("--service-account-jwks-uri={issuer}{ISSUER_KEYS}"),
        ],
    }
}

fn authorizers(spec: &ClusterSpec) -> String {
    if directory::asks(spec) {
        format!("--authorization-config={}", directory::AUTHORIZATION)
    } else {
        "--authorization-mode=Node,RBAC".to_owned()
    }
}

fn api_server(spec: &ClusterSpec, pki: &ClusterPki, place: &ControlPlanePlace) -> Process {
    let (mutating, others) = in_flight(place.limits);
    let mut flags = vec![
        format!("--advertise-address={}", place.at.vnet),
        "--bind-address=0.0.0.0".to_owned(),
        format!("--secure-port={API_PORT}"),
        "--allow-privileged=true".to_owned(),
        format!("--authentication-config={AUTHENTICATION}"),
        authorizers(spec),
        format!("--enable-admission-plugins={}", ADMISSION.join(",")),
        format!("--client-ca-file={PKI}/ca.crt"),
        format!("--tls-cert-file={PKI}/apiserver.crt"),
        format!("--tls-private-key-file={PKI}/apiserver.key"),
        "--tls-min-version=VersionTLS12".to_owned(),
        "--etcd-servers=https://127.0.0.1:2379".to_owned(),
        format!("--etcd-cafile={ETCD_PKI}/ca.crt"),
        format!("--etcd-certfile={ETCD_PKI}/client.crt"),
        format!("--etcd-keyfile={ETCD_PKI}/client.key"),
        format!("--encryption-provider-config={ENCRYPTION}"),
        format!("--service-cluster-ip-range={}", spec.network.service_range),
    ];
    flags.extend(issuers(spec));
    flags.extend([
        format!("--service-account-key-file={}", service_account_key(0)),
        format!("--service-account-signing-key-file={SERVICE_ACCOUNT_KEY}"),
        format!("--kubelet-client-certificate={PKI}/apiserver-kubelet-client.crt"),
        format!("--kubelet-client-key={PKI}/apiserver-kubelet-client.key"),
        format!("--kubelet-certificate-authority={PKI}/ca.crt"),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        format!("--proxy-client-cert-file={PKI}/front-proxy-client.crt"),
        format!("--proxy-client-key-file={PKI}/front-proxy-client.key"),
        format!("--requestheader-client-ca-file={PKI}/front-proxy-ca.crt"),
        "--requestheader-allowed-names=front-proxy-client".to_owned(),
        "--requestheader-username-headers=X-Remote-User".to_owned(),
        "--requestheader-group-headers=X-Remote-Group".to_owned(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
        // There is no kube-proxy beside the API server: webhooks and aggregated APIs are called at their
        // pods.
        "--enable-aggregator-routing=true".to_owned(),
        format!("--audit-policy-file={AUDIT_POLICY}"),
        format!("--audit-log-path={AUDIT_LOG}"),
        "--audit-log-maxsize=50".to_owned(),
        "--audit-log-maxbackup=3".to_owned(),
        "--audit-log-maxage=30".to_owned(),
        format!("--max-mutating-requests-inflight={mutating}"),
        format!("--max-requests-inflight={others}"),
        // After SIGTERM it becomes not ready and serves for a while: the VIP moves to another member before
        // any request is refused. With one member as well, which may be restarted for a tier with more.
        "--shutdown-delay-duration=3s".to_owned(),
        "--profiling=false".to_owned(),
    ]);
    // Tokens in secrets of a state restored from another cluster. Those of its pods have another issuer and
    // are refused.
    flags.extend(
        (0..pki.former.len()).map(|number| format!("--service-account-key-file={}", former_key(number))),
    );
    // While one key takes the place of another.
    let others = 1..pki.service_account_public_keys().count();
    flags.extend(others.map(|number| format!("--service-account-key-file={}", service_account_key(number))));
    let restart_on = [
        ENCRYPTION,
        AUDIT_POLICY,
        CA_FILE,
        ETCD_CA_FILE,
        SERVICE_ACCOUNT_KEY,
    ];
    Process {
        // Requests are done with in a moment. What it waits for after that are watches, which do not end by themselves, and
        // nobody is let in meanwhile.
        grace_seconds: 5,
        ..process(
            "kube-apiserver",
            flags,
            https(API_PORT, "/readyz"),
            2,
            &restart_on,
        )
    }
}

/// With one instance an election would only cost writes and start-up time.
fn leader_elect(place: &ControlPlanePlace) -> String {
    format!("--leader-elect={}", place.members.len() > 1)
}

fn controller_manager(spec: &ClusterSpec, place: &ControlPlanePlace) -> Process {
    let kubeconfig = client_config("kube-controller-manager");
    let flags = [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--tls-cert-file={PKI}/controller-manager.crt"),
        format!("--tls-private-key-file={PKI}/controller-manager.key"),
        format!("--client-ca-file={PKI}/ca.crt"),
        format!("--requestheader-client-ca-file={PKI}/front-proxy-ca.crt"),
        // Health endpoints are open to anonymous requests on loopback; nothing else is.
        "--authorization-always-allow-paths=/healthz,/readyz,/livez".to_owned(),
        format!("--root-ca-file={PKI}/ca.crt"),
        format!("--service-account-private-key-file={SERVICE_ACCOUNT_KEY}"),
        format!("--cluster-signing-cert-file={SIGNING_CA}"),
        format!("--cluster-signing-key-file={PKI}/ca.key"),
        "--cluster-signing-duration=8760h".to_owned(),
        "--use-service-account-credentials=true".to_owned(),
        // Landfall's own planner assigns pod ranges to nodes and routes to the VNET.
        "--allocate-node-cidrs=false".to_owned(),
        format!("--cluster-name={}", spec.name),
        leader_elect(place),
        // With the default of 20 requests a second, its token requests at the start delay everything by 6 s.
        "--kube-api-qps=500".to_owned(),
        "--kube-api-burst=1000".to_owned(),
        "--profiling=false".to_owned(),
    ];
    process(
        "kube-controller-manager",
        flags.into(),
        https(10257, "/healthz"),
        3,
        &[&kubeconfig, CA_FILE, SIGNING_CA, SERVICE_ACCOUNT_KEY],
    )
}

fn scheduler(place: &ControlPlanePlace) -> Process {
    let kubeconfig = client_config("kube-scheduler");
    let flags = [
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        "--bind-address=127.0.0.1".to_owned(),
        format!("--tls-cert-file={PKI}/scheduler.crt"),
        format!("--tls-private-key-file={PKI}/scheduler.key"),
        format!("--client-ca-file={PKI}/ca.crt"),
        format!("--requestheader-client-ca-file={PKI}/front-proxy-ca.crt"),
        "--authorization-always-allow-paths=/healthz,/readyz,/livez".to_owned(),
        leader_elect(place),
        "--profiling=false".to_owned(),
    ];
    process(
        "kube-scheduler",
        flags.into(),
        https(10259, "/healthz"),
        3,
        &[&kubeconfig, CA_FILE],
    )
}
