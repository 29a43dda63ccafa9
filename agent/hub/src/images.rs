//! Images of add-ons: agents of nodes fetch the archive of each that their configuration names.
//!
//! The images are public software, the same for all clusters: any machine of ours may have any of them. Bodies are streamed: the
//! service holds a piece of an archive in memory, and a slow machine holds no thread.

use std::{fs::File, io, sync::LazyLock};

use agent_sessions::Admitted;
use axum::{
    Extension,
    extract::{Path, Query, State},
    http::StatusCode,
    response::{IntoResponse as _, Response},
};
use base_blocking::Pool;
use serde::Deserialize;

use crate::{
    Hub,
    caller::{fault, refuse},
    streamed::streamed,
};

const PIECE: usize = 256 * 1024;

static READERS: LazyLock<Pool> = LazyLock::new(|| Pool::new(base_blocking::IMAGES));

#[derive(Deserialize)]
pub(crate) struct Have {
    /// The digest of the image that the node has under this name.
    have: Option<String>,
}

pub(crate) async fn get(
    State(hub): State<Hub>,
    Extension(machine): Extension<Admitted>,
    Path((name, tag)): Path<(String, String)>,
    Query(Have { have }): Query<Have>,
) -> Result<Response, Response> {
    let machine = machine.machine();
    let images = hub
        .inner
        .images
        .get()
        .cloned()
        .ok_or_else(|| refuse(StatusCode::NOT_FOUND, "this service has no images of add-ons"))?;
    let wanted = format!("{name}:{tag}");
    let open = move || -> io::Result<Option<(String, File)>> {
        let Some(archive) = images.archive(&name, &tag)? else {
            return Ok(None);
        };
        Ok(Some((archive.digest, File::open(&archive.path)?)))
    };
    let opened = READERS
        .run(open)
        .await
        .map_err(|error| refuse(StatusCode::SERVICE_UNAVAILABLE, error.to_string()))?;
    let Some((digest, file)) = opened.map_err(|error| fault(machine, &error))? else {
        // The agent asks again: the image may be being built.
        return Err(refuse(
            StatusCode::NOT_FOUND,
            format!("the image {wanted} is not there yet"),
        ));
    };
    if have.as_deref() == Some(&*digest) {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    tracing::debug!(machine, image = wanted, "a node fetches an image");
    Ok(streamed(&READERS, PIECE, file).into_response())
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use agent_api::{AddonImages, ImageArchive};
    use agent_sessions::{Sessions, StoreDirectory};
    use axum::body::to_bytes;
    use base_env::Env;
    use cluster_spec::testkit;
    use control_records::{Assignment, ClusterRecord, Healing, HostId, MachineRecord, Role, directory};
    use control_store::{Store, Txn};
    use jiff::Timestamp;
    use storage_redb::MemoryStore;

    use super::*;
    use crate::{
        AgentCa,
        caller::{Caller, Shown},
    };

    struct One(PathBuf);

    impl AddonImages for One {
        fn archive(&self, name: &str, tag: &str) -> io::Result<Option<ImageArchive>> {
            Ok((name == "warden" && tag == "v1.0.0").then(|| ImageArchive {
                path: self.0.clone(),
                digest: "sha256:aa".to_owned(),
            }))
        }
    }

    async fn hub() -> Hub {
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
        let address = "100.64.0.5".parse().unwrap();
        let machine = MachineRecord {
            v: 2,
            id: "m1".to_owned(),
            image: String::new(),
            build: None,
            token_hash: String::new(),
            token_sealed: Vec::new(),
            enrolled_key: Some("key of m1".to_owned()),
            token_used: true,
            host: HostId::first(),
            assignment: Some(Assignment {
                cluster: "u1".to_owned(),
                role: Role::ControlPlane { index: 0, address },
            }),
            deleting: false,
            work: None,
            emptying: None,
            inherited: None,
            healing: Healing::default(),
            created_at: Timestamp::UNIX_EPOCH,
        };
        let cluster = ClusterRecord::of_spec("u1", &testkit::cluster(), Timestamp::UNIX_EPOCH);
        let txn = directory::new_machine(Txn::default(), "u1", &machine);
        store.txn(directory::new_cluster(txn, &cluster)).await.unwrap();
        let env = Env::simulated(1);
        let ca = AgentCa::generate(env.clock.now()).unwrap();
        let machines = Arc::new(StoreDirectory::new(store));
        Hub::new(env.clone(), ca, Sessions::new(env, machines))
    }

    async fn ask(hub: &Hub, tag: &str, have: Option<&str>) -> (StatusCode, Vec<u8>) {
        let caller = Caller(Some(Shown::new("m1", "key of m1")));
        let machine = hub.admit(&caller).await.unwrap();
        let path = Path(("warden".to_owned(), tag.to_owned()));
        let have = Have {
            have: have.map(str::to_owned),
        };
        let (Ok(answer) | Err(answer)) = get(State(hub.clone()), Extension(machine), path, Query(have)).await;
        let status = answer.status();
        let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
        (status, body.to_vec())
    }

    #[tokio::test]
    async fn a_machine_gets_an_image_unless_it_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("image.tar");
        let bytes: Vec<u8> = (0..3 * PIECE + 17).map(|at| (at % 251) as u8).collect();
        std::fs::write(&file, &bytes).unwrap();
        let hub = hub().await;
        assert_eq!(ask(&hub, "v1.0.0", None).await.0, StatusCode::NOT_FOUND);
        hub.offer_images(Arc::new(One(file.clone())));
        assert_eq!(ask(&hub, "v1.0.0", None).await, (StatusCode::OK, bytes.clone()));
        // That of an older release.
        assert_eq!(
            ask(&hub, "v1.0.0", Some("sha256:bb")).await,
            (StatusCode::OK, bytes)
        );
        let same = ask(&hub, "v1.0.0", Some("sha256:aa")).await;
        assert_eq!(same, (StatusCode::NO_CONTENT, Vec::new()));
        assert_eq!(ask(&hub, "v2.0.0", None).await.0, StatusCode::NOT_FOUND);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(ask(&hub, "v1.0.0", None).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
}
