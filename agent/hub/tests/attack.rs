//! What pods can do to the hub: they reach it from the same address as the nodes beside them, without any certificate.
#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use agent_api::Agents as _;
use agent_hub::{AgentCa, Hub, limits_for_open_files};
use agent_protocol::{EnrollAnswer, EnrollRequest, Report};
use agent_sessions::{DirectoryError, Enrolment, MachineDirectory, Sessions};
use async_trait::async_trait;
use base_env::Env;
use base_testkit::wait_for;
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
/// Longer than anything here takes on a busy machine.
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
        tokio::spawn(async move {
            let own = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
            hub.serve(
                listener,
                &own,
                limits_for_open_files(8192),
                std::future::pending(),
            )
            .await
            .unwrap();
        });
        Self {
            env,
            sessions,
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

    /// One request and the whole answer.
    async fn ask(&self, identity: Option<(&str, &KeyPair)>, path: &str, body: &str) -> String {
        let mut stream = self.dial(identity).await;
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: hub\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Some servers end without a farewell of TLS.
        let _ended = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    /// Enrols and reports, as an agent does.
    async fn honest(&self) {
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

/// Whether the other end is still there.
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
        // Sixteen MiB are announced and none is sent: whoever waits for them never answers.
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
