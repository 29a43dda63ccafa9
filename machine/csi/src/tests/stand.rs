//! A driver with its sockets, and a client like a kubelet's.

use std::{path::Path, sync::Arc};

use agent_protocol::programs::CsiDriver;
use http::Request;
use prost::Message;
use tokio::{net::UnixStream, sync::watch};

use super::fake::Fake;
use crate::{
    device::Number,
    driver::Driver,
    grpc::{Code, Service, framed},
    node::VOLUME_ATTRIBUTE,
    program::serve,
    wire::{
        AccessMode, Empty, MountVolume, PublishRequest, StageRequest, UnpublishRequest, UnstageRequest,
        VolumeCapability, access,
    },
};

pub(crate) const DRIVER: &str = "disk.csi.azure.com";
pub(crate) const HANDLE: &str = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/pvc-1";
pub(crate) const ID: &str = "abc123def456";
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const NUMBER: Number = Number { major: 7, minor: 3 };

pub(crate) fn quiet(_line: &str) {}

/// A driver that serves at sockets until it is dropped.
pub(crate) struct Stand {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) config: CsiDriver,
    pub(crate) fake: Arc<Fake>,
    pub(crate) leave: Option<watch::Sender<bool>>,
    pub(crate) ended: Option<tokio::task::JoinHandle<Result<(), String>>>,
}

impl Stand {
    pub(crate) fn new(fake: Fake) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
        let config = CsiDriver {
            driver: DRIVER.to_owned(),
            shares: false,
            most_volumes: 4,
            socket: place("plugins/csi.sock"),
            registration: place("registry/landfall@disk.csi.azure.com"),
        };
        Self {
            directory,
            config,
            fake: Arc::new(fake),
            leave: None,
            ended: None,
        }
    }

    pub(crate) async fn served(fake: Fake) -> Self {
        let mut stand = Self::new(fake);
        stand.start().await;
        stand
    }

    pub(crate) async fn start(&mut self) {
        let driver: Arc<dyn Service> = Arc::new(self.driver());
        let (leave, left) = watch::channel(false);
        let config = self.config.clone();
        let ended = tokio::spawn(async move { serve(&config, driver, left, quiet).await });
        self.leave = Some(leave);
        self.ended = Some(ended);
        // Lets tasks run until the driver waits for connections.
        for _ in 0..100 {
            if Path::new(&self.config.registration).exists() {
                return;
            }
            tokio::task::yield_now().await;
        }
        let ended = self.ended.take().unwrap();
        panic!("there are no sockets: {:?}", ended.await);
    }

    pub(crate) async fn stop(&mut self) -> Result<(), String> {
        self.leave.take().unwrap().send(true).unwrap();
        self.ended.take().unwrap().await.unwrap()
    }

    pub(crate) fn driver(&self) -> Driver<Arc<Fake>> {
        let nodes = self.directory.path().join("dev");
        let node = "aks-np1-1-vmss000000".to_owned();
        Driver::new(&self.config, node, Arc::clone(&self.fake), &nodes, quiet)
    }

    pub(crate) fn place(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn stage(&self) -> StageRequest {
        StageRequest {
            volume_id: HANDLE.to_owned(),
            publish_context: Default::default(),
            staging_target_path: self.place("staging"),
            volume_capability: Some(by_mount()),
            volume_context: [(VOLUME_ATTRIBUTE.to_owned(), ID.to_owned())].into(),
        }
    }

    pub(crate) fn publish(&self, target: &str) -> PublishRequest {
        PublishRequest {
            volume_id: HANDLE.to_owned(),
            publish_context: Default::default(),
            staging_target_path: self.place("staging"),
            target_path: self.place(target),
            volume_capability: Some(by_mount()),
            readonly: false,
            volume_context: self.stage().volume_context,
        }
    }

    pub(crate) fn unpublish(&self, target: &str) -> UnpublishRequest {
        UnpublishRequest {
            volume_id: HANDLE.to_owned(),
            target_path: self.place(target),
        }
    }

    pub(crate) fn unstage(&self) -> UnstageRequest {
        UnstageRequest {
            volume_id: HANDLE.to_owned(),
            staging_target_path: self.place("staging"),
        }
    }

    pub(crate) async fn ask<A: Message + Default>(
        &self,
        method: &str,
        request: &impl Message,
    ) -> Result<A, Refused> {
        let socket = Path::new(&self.config.socket);
        call(socket, "localhost", &format!("/csi.v1.{method}"), request).await
    }

    /// As [`Self::ask`], for a call that must succeed.
    pub(crate) async fn done(&self, method: &str, request: &impl Message) {
        self.ask::<Empty>(method, request).await.unwrap();
    }

    /// The steps since the last call of this function.
    pub(crate) fn steps(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.fake.state().done)
    }
}

pub(crate) fn by_mount() -> VolumeCapability {
    VolumeCapability {
        block: None,
        mount: Some(MountVolume::default()),
        access_mode: Some(AccessMode {
            mode: access::SINGLE_NODE_MULTI_WRITER,
        }),
    }
}

pub(crate) fn by_block() -> VolumeCapability {
    VolumeCapability {
        block: Some(Empty {}),
        mount: None,
        ..by_mount()
    }
}

/// The code and the message of a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refused(pub(crate) String, pub(crate) String);

impl Refused {
    pub(crate) fn is(&self, code: Code) -> bool {
        self.0 == (code as u32).to_string()
    }
}

/// Calls like a kubelet: a new connection for each call.
pub(crate) async fn call<A: Message + Default>(
    socket: &Path,
    authority: &str,
    method: &str,
    request: &impl Message,
) -> Result<A, Refused> {
    let stream = UnixStream::connect(socket).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    drop(tokio::spawn(connection));
    let mut client = client.ready().await.unwrap();
    let head = Request::builder()
        .method("POST")
        .uri(format!("http://{authority}{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .unwrap();
    let (response, mut body) = client.send_request(head, false).unwrap();
    body.send_data(framed(&request.encode_to_vec()), true).unwrap();
    let (head, mut body) = response.await.unwrap().into_parts();
    assert_eq!(head.status, 200);
    assert_eq!(head.headers["content-type"], "application/grpc");
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    let end = body.trailers().await.unwrap().unwrap_or(head.headers);
    let text = |name: &str| match end.get(name) {
        Some(value) => value.to_str().unwrap().to_owned(),
        None => String::new(),
    };
    if text("grpc-status") != "0" {
        return Err(Refused(text("grpc-status"), text("grpc-message")));
    }
    Ok(A::decode(&bytes[5..]).unwrap())
}
