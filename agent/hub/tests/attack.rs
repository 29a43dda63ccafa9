//! Attacks of pods on the hub: they connect from the same address as their nodes, without any certificate.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use agent_api::{AccessReviews, Agents as _, ReviewError, ReviewSpec};
use agent_hub::{AgentCa, Hub, TokenDoor, limits_for_open_files};
use agent_protocol::{EnrollAnswer, EnrollRequest, Report};
use agent_sessions::{DirectoryError, Enrolment, MachineDirectory, Sessions};
use async_trait::async_trait;
use base_env::Env;
use base_testkit::wait_for;
use identity::{IdentityConfig, Shape, SigningKey, TokenService};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsConnector, client::TlsStream};

const MACHINE: &str = "m-1";
const TOKEN: &str = "token";
const SHA256_OF_TOKEN: &str = "3c469e9d6c5875d37a43f353d4f88e61fcf812c66eee3457465a40b0da4153e0";
/// Longer than any wait takes here on a busy machine.
const BOUND: Duration = Duration::from_secs(60);

/// One machine, in memory.
#[derive(Default)]
struct Directory(Mutex<Option<String>>);

#[async_trait]
impl MachineDirectory for Directory {
    async fn token(&self, machine: &str) -> Result<Option<Enrolment>, DirectoryError> {
        Ok((machine == MACHINE).then(|| Enrolment {
            token_hash: SHA256_OF_TOKEN.to_owned(),
            enrolled_key: self.0.lock().unwrap().clone(),
            token_used: false,
        }))
    }

    async fn bind_key(&self, _: &str, key_hash: &str) -> Result<bool, DirectoryError> {
        Ok(self.0.lock().unwrap().get_or_insert_with(|| key_hash.to_owned()) == key_hash)
    }

    async fn token_used(&self, _: &str) -> Result<(), DirectoryError> {
        Ok(())
    }
}

struct World {
    env: Env,
    sessions: Sessions,
    hub: Hub,
    ca: String,
    address: SocketAddr,
}

impl World {
    async fn new(env: Env) -> Self {
        // Both ends of every connection are in this process.
        let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let raised = rustix::process::Rlimit {
            current: open_files.maximum,
            ..open_files
        };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).unwrap();
        let ca = AgentCa::generate(env.clock.now()).unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let pem = ca.certificate_pem().to_owned();
        let sessions = Sessions::new(env.clone(), Arc::new(Directory::default()));
        let hub = Hub::new(env.clone(), ca, sessions.clone());
        let serving = hub.clone();
        tokio::spawn(async move {
            let own = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
            let served = serving.serve(
                listener,
                &own,
                limits_for_open_files(8192),
                std::future::pending(),
            );
            served.await.unwrap();
        });
        Self {
            env,
            sessions,
            hub,
            ca: pem,
            address,
        }
    }

    async fn dial(&self, identity: Option<(&str, &KeyPair)>) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(self.ca.as_bytes()).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
                builder.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::from(self.address.ip());
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
            .unwrap()
    }

    /// Sends one request and reads the whole answer.
    async fn ask(&self, identity: Option<(&str, &KeyPair)>, path: &str, body: &str) -> String {
        self.send("POST", identity, path, body).await
    }

    async fn send(&self, method: &str, identity: Option<(&str, &KeyPair)>, path: &str, body: &str) -> String {
        let mut stream = self.dial(identity).await;
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Some servers close without TLS close_notify.
        let _ended = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    /// Enrols, as an agent does: its certificate and key.
    async fn enrolled(&self) -> (String, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap()
            .pem()
            .unwrap();
        let request = EnrollRequest {
            machine: MACHINE.to_owned(),
            token: TOKEN.to_owned(),
            csr,
        };
        let answer = self
            .ask(
                None,
                "/agent/v1/enroll",
                &serde_json::to_string(&request).unwrap(),
            )
            .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let EnrollAnswer { certificate } = serde_json::from_str(body).unwrap();
        (certificate, key)
    }

    /// Enrols and reports, as an agent does.
    async fn honest(&self) {
        let (certificate, key) = self.enrolled().await;
        let report = Report {
            boot: "b".to_owned(),
            ..Report::default()
        };
        let answer = self
            .ask(
                Some((&certificate, &key)),
                "/agent/v1/report",
                &serde_json::to_string(&report).unwrap(),
            )
            .await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(self.sessions.report(MACHINE).unwrap().boot, "b");
    }
}

/// Whether the connection is still open.
fn open(stream: &TcpStream) -> bool {
    let mut byte = [0];
    match stream.try_read(&mut byte) {
        Ok(0) => false,
        Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
        Ok(_) => true,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_large_bodies_of_strangers_are_refused_before_they_are_sent() {
    let world = World::new(Env::system()).await;
    for number in 0..200 {
        let path = ["logs/r1", "report", "backup/own/log-1"][number % 3];
        let method = if number % 3 == 2 { "PUT" } else { "POST" };
        let mut stream = world.dial(None).await;
        // A body of sixteen MiB is announced and not sent: a server that waits for it never answers.
        let head = format!(
            "{method} /agent/v1/{path} HTTP/1.1\r\nhost: hub\r\ncontent-type: application/json\r\n\
             content-length: 16777216\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        world
            .env
            .clock
            .timeout(Duration::from_secs(10), stream.read_exact(&mut answer))
            .await
            .unwrap_or_else(|_| panic!("{path} is waited for"))
            .unwrap();
        assert_eq!(&answer, b"HTTP/1.1 401", "{path}");
    }
    let long = format!("{{ \"machine\": \"{}\" }}", "x".repeat(9 * 1024));
    let answer = world.ask(None, "/agent/v1/enroll", &long).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    world.honest().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_idle_connections_leave_room_for_an_agent_of_the_same_address() {
    let world = World::new(Env::system()).await;
    let mut idle = Vec::new();
    for number in 0..1000 {
        if number % 2 == 0 {
            idle.push(TcpStream::connect(world.address).await.unwrap());
        } else {
            idle.push(world.dial(None).await.into_inner().0);
        }
    }
    wait_for(
        &world.env.clock,
        "most of the crowd to be closed",
        BOUND,
        async || match idle.iter().filter(|stream| open(stream)).count() {
            few if few <= limits_for_open_files(8192).per_peer => Ok(()),
            many => Err(format!("{many} are open")),
        },
    )
    .await;
    world.honest().await;
}

#[tokio::test(start_paused = true)]
async fn a_stranger_who_says_nothing_is_not_waited_for() {
    let world = World::new(Env::simulated(1)).await;
    for first in ["", "POST /agent/v1/enroll HTTP/1.1\r\nhost:"] {
        let mut stream = world.dial(None).await;
        stream.write_all(first.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        world
            .env
            .clock
            .timeout(Duration::from_secs(3600), stream.read_to_end(&mut rest))
            .await
            .unwrap_or_else(|_| panic!("waited for after {first:?}"))
            .ok();
    }
}

/// Permits read access to one user, for requests of our machine.
struct Readers;

#[async_trait]
impl AccessReviews for Readers {
    async fn permits(&self, machine: &str, asked: &ReviewSpec) -> Result<bool, ReviewError> {
        assert_eq!(machine, MACHINE, "whatever was sent");
        let verb = asked
            .resource_attributes
            .as_ref()
            .map(|asked| asked.verb.as_str());
        Ok(asked.uid == "ada" && verb == Some("get"))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_machines_are_told_what_role_assignments_permit() {
    const PATH: &str = "/agent/v1/access-review";
    let world = World::new(Env::system()).await;
    let (certificate, key) = world.enrolled().await;
    let own = Some((certificate.as_str(), &key));
    let review = |uid: &str, verb: &str| {
        serde_json::json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "machine": "m-2",
            "spec": { "user": "u", "groups": ["g"], "uid": uid, "resourceAttributes": { "verb": verb, "resource": "pods", "version": "v1" } },
            "status": { "allowed": true }
        })
        .to_string()
    };
    let nobody = world.ask(own, PATH, &review("ada", "get")).await;
    assert!(nobody.starts_with("HTTP/1.1 404"), "{nobody}");
    world.hub.decide_reviews(Arc::new(Readers));
    for (identity, uid, verb, status, allowed) in [
        (own, "ada", "get", 200, Some(true)),
        (own, "ada", "delete", 200, Some(false)),
        (own, "eve", "get", 200, Some(false)),
        (None, "ada", "get", 401, None),
    ] {
        let answer = world.ask(identity, PATH, &review(uid, verb)).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let said = serde_json::from_str::<serde_json::Value>(body).ok();
        let said = said.and_then(|said| said["status"]["allowed"].as_bool());
        assert_eq!(said, allowed, "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_tokens_and_no_pages() {
    let world = World::new(Env::system()).await;
    let document = "/tenant/v2.0/.well-known/openid-configuration";
    let before = world.send("GET", None, document, "").await;
    assert!(before.starts_with("HTTP/1.1 404"), "{before}");
    let config = IdentityConfig {
        base_url: "https://stamp.test:8443".to_owned(),
        shape: Shape::Aad,
        tenant_id: "tenant".to_owned(),
        audiences: vec!["https://stamp.test:8443".to_owned()],
        resources: Vec::new(),
    };
    let store = Arc::new(storage_redb::MemoryStore::new());
    world.hub.give_tokens(TokenDoor {
        tokens: Arc::new(TokenService::new(
            config,
            SigningKey::generate().unwrap(),
            world.env.clone(),
            store,
        )),
        url: "https://100.64.16.1:7443".to_owned(),
    });
    let discovery = world.send("GET", None, document, "").await;
    assert!(discovery.starts_with("HTTP/1.1 200"), "{discovery}");
    // Libraries accept a document of the requested address, API servers one of the tokens' issuer.
    let here = r#""issuer":"https://100.64.16.1:7443/tenant/v2.0""#;
    assert!(discovery.contains(here), "{discovery}");
    let checks = world.send("GET", None, &format!("/issuer{document}"), "").await;
    let stamp = r#""issuer":"https://stamp.test:8443/tenant/v2.0""#;
    assert!(checks.contains(stamp), "{checks}");
    let keys = r#""jwks_uri":"https://100.64.16.1:7443/tenant/discovery/v2.0/keys""#;
    assert!(discovery.contains(keys), "{discovery}");
    let keys = world.send("GET", None, "/tenant/discovery/v2.0/keys", "").await;
    assert!(keys.contains(r#""alg":"RS256""#), "{keys}");
    let form = world
        .ask(None, "/tenant/oauth2/v2.0/token", "grant_type=client_credentials")
        .await;
    assert!(
        form.starts_with("HTTP/1.1 4") && form.contains("AADSTS"),
        "{form}"
    );
    for path in [
        "/tenant/oauth2/v2.0/authorize",
        "/tenant/oauth2/v2.0/devicecode",
        "/common/oauth2/deviceauth",
        "/subscriptions",
        "/issuer",
        "/issuer/subscriptions",
        "/issuer/common/oauth2/deviceauth",
        "/",
    ] {
        let answer = world.send("GET", None, path, "").await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    let long = "x=".to_owned() + &"y".repeat(80 * 1024);
    let answer = world.ask(None, "/tenant/oauth2/v2.0/token", &long).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    world.honest().await;
}
