//! Calls through real sockets.

mod fake;
mod real;
mod stand;

use std::{
    fs,
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    sync::Arc,
};

use prost::Message;
use tokio::{net::UnixStream, sync::watch};

use self::{
    fake::Fake,
    stand::{DRIVER, GIB, HANDLE, ID, NUMBER, Stand, by_block, call, quiet},
};
use crate::{
    content::Content,
    grpc::{Code, Service, Status},
    program::serve,
    wire::{
        BYTES, CapacityRange, Empty, ExpandRequest, Expanded, INODES, NodeCapabilities, NodeInfo,
        PluginCapabilities, PluginInfo, Probed, PublishRequest, Registered, RegistrationStatus, StageRequest,
        Stats, StatsRequest,
    },
};

#[tokio::test]
async fn the_driver_says_who_and_what_it_is() {
    let stand = Stand::served(Fake::default()).await;
    let info: PluginInfo = stand.ask("Identity/GetPluginInfo", &Empty {}).await.unwrap();
    assert_eq!(info.name, DRIVER);
    assert!(!info.vendor_version.is_empty());
    let capabilities: PluginCapabilities = stand
        .ask("Identity/GetPluginCapabilities", &Empty {})
        .await
        .unwrap();
    assert_eq!(capabilities.capabilities.len(), 1);
    let probed: Probed = stand.ask("Identity/Probe", &Empty {}).await.unwrap();
    assert!(probed.ready.unwrap().value);
    let node: NodeInfo = stand.ask("Node/NodeGetInfo", &Empty {}).await.unwrap();
    assert_eq!(node.node_id, "aks-np1-1-vmss000000");
    assert_eq!(node.max_volumes_per_node, 4);
    let can: NodeCapabilities = stand.ask("Node/NodeGetCapabilities", &Empty {}).await.unwrap();
    let kinds: Vec<i32> = can
        .capabilities
        .into_iter()
        .map(|capability| capability.rpc.unwrap().kind)
        .collect();
    assert_eq!(kinds, [1, 2, 3, 5]);
    let unknown = stand
        .ask::<Empty>("Controller/CreateVolume", &Empty {})
        .await
        .unwrap_err();
    assert!(unknown.is(Code::Unimplemented), "{unknown:?}");
}

/// A kubelet's client sends the socket's path in `:authority`, percent-encoded; HTTP allows percent signs
/// before an `@` only.
#[tokio::test]
async fn a_kubelet_registers_it_by_the_path_of_its_socket() {
    let stand = Stand::served(Fake::default()).await;
    let socket = Path::new(&stand.config.registration);
    let authority = stand.config.registration.replace('/', "%2F");
    let method = "/pluginregistration.Registration/GetInfo";
    let info: Registered = call(socket, &authority, method, &Empty {}).await.unwrap();
    assert_eq!((info.kind.as_str(), info.name.as_str()), ("CSIPlugin", DRIVER));
    assert_eq!(info.endpoint, stand.config.socket);
    assert_eq!(info.supported_versions, ["1.0.0"]);
    let method = "/pluginregistration.Registration/NotifyRegistrationStatus";
    let status = RegistrationStatus {
        plugin_registered: true,
        error: String::new(),
    };
    call::<Empty>(socket, &authority, method, &status).await.unwrap();
    assert!(
        "http://a%2Fb/c".parse::<http::Uri>().is_err(),
        "without the @ it would not work"
    );
}

#[tokio::test]
async fn a_volume_is_staged_published_and_taken_away_again_each_time_once() {
    let stand = Stand::served(Fake::with_volume()).await;
    let (stage, publish) = (stand.stage(), stand.publish("target"));
    let unstaged = stand
        .ask::<Empty>("Node/NodePublishVolume", &publish)
        .await
        .unwrap_err();
    assert!(unstaged.is(Code::FailedPrecondition), "{unstaged:?}");
    stand.done("Node/NodeStageVolume", &stage).await;
    assert_eq!(stand.steps(), ["format", "mount"]);
    stand.done("Node/NodeStageVolume", &stage).await;
    assert_eq!(stand.steps(), [""; 0]);
    stand.done("Node/NodePublishVolume", &publish).await;
    stand.done("Node/NodePublishVolume", &publish).await;
    assert_eq!(stand.steps(), ["directory", "bind"]);
    let read_only = PublishRequest {
        readonly: true,
        ..stand.publish("read-only")
    };
    stand.done("Node/NodePublishVolume", &read_only).await;
    stand.done("Node/NodePublishVolume", &read_only).await;
    assert_eq!(stand.steps(), ["directory", "bind", "read-only"]);
    for target in ["target", "read-only"] {
        stand
            .done("Node/NodeUnpublishVolume", &stand.unpublish(target))
            .await;
        assert_eq!(stand.steps(), ["unmount", "remove"]);
        stand
            .done("Node/NodeUnpublishVolume", &stand.unpublish(target))
            .await;
        assert_eq!(stand.steps(), ["remove"]);
    }
    stand.done("Node/NodeUnstageVolume", &stand.unstage()).await;
    assert_eq!(stand.steps(), ["unmount", "remove"]);
    stand.done("Node/NodeUnstageVolume", &stand.unstage()).await;
    assert!(stand.fake.state().nodes.is_empty(), "the node is gone");
    // The content stays.
    stand.steps();
    stand.done("Node/NodeStageVolume", &stage).await;
    assert_eq!(stand.steps(), ["mount"]);
}

#[tokio::test]
async fn a_volume_is_used_as_a_device() {
    let stand = Stand::served(Fake::with_volume()).await;
    stand.fake.state().contents.insert(NUMBER, Content::Other);
    let stage = StageRequest {
        volume_capability: Some(by_block()),
        ..stand.stage()
    };
    let publish = PublishRequest {
        volume_capability: Some(by_block()),
        ..stand.publish("device")
    };
    stand.done("Node/NodeStageVolume", &stage).await;
    assert_eq!(stand.steps(), [""; 0], "what is on it is nobody's business");
    assert!(stand.fake.state().loop_nodes);
    stand.done("Node/NodePublishVolume", &publish).await;
    stand.done("Node/NodePublishVolume", &publish).await;
    assert_eq!(stand.steps(), ["file", "bind"]);
    let grown = ExpandRequest {
        volume_id: HANDLE.to_owned(),
        volume_path: stand.place("device"),
        capacity_range: None,
    };
    let answer: Expanded = stand.ask("Node/NodeExpandVolume", &grown).await.unwrap();
    assert_eq!(answer.capacity_bytes, 1 << 30);
    assert_eq!(stand.steps(), [""; 0]);
    stand
        .done("Node/NodeUnpublishVolume", &stand.unpublish("device"))
        .await;
    stand.done("Node/NodeUnstageVolume", &stand.unstage()).await;
    assert!(stand.fake.state().nodes.is_empty());
}

#[tokio::test]
async fn a_filesystem_follows_its_device_and_tells_how_full_it_is() {
    let stand = Stand::served(Fake::with_volume()).await;
    let expand = |gib: i64| ExpandRequest {
        volume_id: HANDLE.to_owned(),
        volume_path: stand.place("staging"),
        capacity_range: Some(CapacityRange {
            required_bytes: gib << 30,
            limit_bytes: 0,
        }),
    };
    let unstaged = stand
        .ask::<Expanded>("Node/NodeExpandVolume", &expand(1))
        .await
        .unwrap_err();
    assert!(unstaged.is(Code::NotFound), "{unstaged:?}");
    stand.done("Node/NodeStageVolume", &stand.stage()).await;
    stand.steps();
    let early = stand
        .ask::<Expanded>("Node/NodeExpandVolume", &expand(5))
        .await
        .unwrap_err();
    assert!(early.is(Code::Unavailable), "{early:?}");
    stand.fake.state().devices.get_mut(ID).unwrap().bytes = 5 * GIB;
    let answer: Expanded = stand.ask("Node/NodeExpandVolume", &expand(5)).await.unwrap();
    assert_eq!(answer.capacity_bytes, 5 << 30);
    assert_eq!(stand.steps(), ["grow"]);
    stand.done("Node/NodeStageVolume", &stand.stage()).await;
    assert_eq!(stand.steps(), [""; 0]);

    let asked = |name: &str| StatsRequest {
        volume_id: HANDLE.to_owned(),
        volume_path: stand.place(name),
    };
    let stats: Stats = stand
        .ask("Node/NodeGetVolumeStats", &asked("staging"))
        .await
        .unwrap();
    let units: Vec<i32> = stats.usage.iter().map(|usage| usage.unit).collect();
    assert_eq!(units, [BYTES, INODES]);
    assert_eq!((stats.usage[0].used, stats.usage[0].total), (40, 100));
    assert!(!stats.volume_condition.unwrap().abnormal);
    let none = stand
        .ask::<Stats>("Node/NodeGetVolumeStats", &asked("none"))
        .await
        .unwrap_err();
    assert!(none.is(Code::NotFound), "{none:?}");
}

#[tokio::test]
async fn where_nothing_grows_while_it_is_used_it_grows_before() {
    let stand = Stand::served(Fake::with_volume()).await;
    stand.fake.state().offline = true;
    stand.done("Node/NodeStageVolume", &stand.stage()).await;
    stand.fake.state().devices.get_mut(ID).unwrap().bytes = 5 * GIB;
    stand.steps();
    let expand = ExpandRequest {
        volume_id: HANDLE.to_owned(),
        volume_path: stand.place("staging"),
        capacity_range: None,
    };
    let used = stand
        .ask::<Expanded>("Node/NodeExpandVolume", &expand)
        .await
        .unwrap_err();
    assert!(used.is(Code::FailedPrecondition), "{used:?}");
    stand.done("Node/NodeUnstageVolume", &stand.unstage()).await;
    stand.steps();
    stand.done("Node/NodeStageVolume", &stand.stage()).await;
    assert_eq!(stand.steps(), ["check", "grow", "mount"]);
    let answer: Expanded = stand.ask("Node/NodeExpandVolume", &expand).await.unwrap();
    assert_eq!(answer.capacity_bytes, 5 << 30);
    assert_eq!(stand.steps(), [""; 0]);
}

#[tokio::test]
async fn what_does_not_work_is_told_as_it_is() {
    let stand = Stand::served(Fake::with_volume()).await;
    stand.fake.state().fails = Some("format");
    let failed = stand
        .ask::<Empty>("Node/NodeStageVolume", &stand.stage())
        .await
        .unwrap_err();
    assert!(failed.is(Code::Internal), "{failed:?}");
    assert!(
        failed.1.contains("format ended with exit status: 1"),
        "{failed:?}"
    );
    stand.fake.state().fails = None;
    stand.fake.state().contents.insert(NUMBER, Content::Other);
    let data = stand
        .ask::<Empty>("Node/NodeStageVolume", &stand.stage())
        .await
        .unwrap_err();
    assert!(data.is(Code::FailedPrecondition), "{data:?}");
    assert_eq!(stand.steps(), [""; 0]);
    stand.fake.state().devices.clear();
    let detached = stand
        .ask::<Empty>("Node/NodeStageVolume", &stand.stage())
        .await
        .unwrap_err();
    assert!(
        detached.is(Code::NotFound) && detached.1.contains(ID),
        "{detached:?}"
    );
    let nameless = StageRequest {
        volume_id: String::new(),
        ..stand.stage()
    };
    let bad = stand
        .ask::<Empty>("Node/NodeStageVolume", &nameless)
        .await
        .unwrap_err();
    assert!(
        bad.is(Code::InvalidArgument) && bad.1.contains("volume_id"),
        "{bad:?}"
    );
}

#[test]
fn one_thing_at_a_time_is_done_to_a_volume() {
    let stand = Stand::new(Fake::with_volume());
    let driver = stand.driver();
    let stage = |handle: &str| {
        let request = StageRequest {
            volume_id: handle.to_owned(),
            ..stand.stage()
        };
        driver
            .call("/csi.v1.Node/NodeStageVolume", &request.encode_to_vec())
            .map_err(|status: Status| status.code)
    };
    let turn = driver.turn(HANDLE).unwrap();
    assert_eq!(stage(HANDLE), Err(Code::Aborted));
    stage("another").unwrap();
    drop(turn);
    stage(HANDLE).unwrap();
}

#[tokio::test]
async fn sockets_of_an_earlier_run_go_and_nothing_else_does() {
    let mut stand = Stand::new(Fake::default());
    let (socket, registration) = (
        PathBuf::from(&stand.config.socket),
        PathBuf::from(&stand.config.registration),
    );
    for path in [&socket, &registration] {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        drop(UnixListener::bind(path).unwrap());
        assert!(path.exists(), "as after a crash");
    }
    let driver: Arc<dyn Service> = Arc::new(stand.driver());
    let (leave, left) = watch::channel(false);
    let config = stand.config.clone();
    let ended = tokio::spawn(async move { serve(&config, driver, left, quiet).await });
    let mut ready = false;
    for _ in 0..100 {
        ready = UnixStream::connect(&registration).await.is_ok();
        if ready {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(ready, "nobody listens");
    leave.send(true).unwrap();
    ended.await.unwrap().unwrap();
    assert!(
        !socket.exists() && !registration.exists(),
        "a kubelet sees that it is gone"
    );

    stand.start().await;
    stand.stop().await.unwrap();

    fs::write(&socket, "somebody's").unwrap();
    let driver: Arc<dyn Service> = Arc::new(stand.driver());
    let (_leave, left) = watch::channel(false);
    let refused = serve(&stand.config, driver, left, quiet).await.unwrap_err();
    assert!(refused.contains("not a socket"), "{refused}");
    assert_eq!(fs::read(&socket).unwrap(), b"somebody's");
}
