//! A stamp's API without clusters, in memory, to try clients against: `cargo run -p arm-edge --example stamp -- DIRECTORY [PORT]`.
//!
//! Writes `ca.pem` and `env` (what a client needs to log in) into the directory and serves on 127.0.0.1.

use std::{path::PathBuf, sync::Arc};

use arm_edge::{Budgets, Edge, EdgeConfig, ServerTls};
use arm_kernel::{AccessControl, Authorizer, GroupReaper, Provider, ServiceLog};
use arm_wire::PrincipalKind;
use base_env::Env;
use control_records::{SubscriptionRecord, SubscriptionState, access, key};
use control_store::{Store, Txn, put_record};
use identity::{
    EndpointTls, IdentityConfig, NewPrincipal, Secret, Shape, SigningKey, TokenService, create_principal,
    generate_secret,
};
use providers_authorization::{Authorization, RoleAuthorizer};
use providers_resources::{ResourcesConfig, ResourcesProvider};
use storage_redb::MemoryStore;

const TENANT: &str = "7b9c1c7e-0f5a-4f7a-9c39-6a1f0c5d2e01";
const SUBSCRIPTION: &str = "5a0e2b6c-93d1-4b6f-8d0a-1c2d3e4f5a6b";
const APPLICATION: &str = "c0ffee00-1111-4222-8333-444455556666";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().ok_or("give a directory")?);
    let port: u16 = arguments.next().map_or(Ok(0), |port| port.parse())?;
    std::fs::create_dir_all(&directory)?;
    let env = Env::system();
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let base_url = format!("https://{}", listener.local_addr()?);

    let subscription = SubscriptionRecord {
        v: 1,
        id: SUBSCRIPTION.to_owned(),
        display_name: "Example".to_owned(),
        tenant_id: TENANT.to_owned(),
        registered: Vec::new(),
        unregistered: Vec::new(),
        state: SubscriptionState::Enabled,
        state_since: None,
        created_at: env.clock.now(),
    };
    let key = key::subscription(SUBSCRIPTION);
    store
        .txn(Txn::default().absent(&key).with(put_record(&key, &subscription)))
        .await?;
    let mut person = String::new();
    let (secret, password) = (generate_secret(), generate_secret());
    for (kind, login, display_name, secret) in [
        (
            PrincipalKind::Application,
            APPLICATION,
            "Example application",
            &secret,
        ),
        (PrincipalKind::User, "ada@example.test", "Ada", &password),
    ] {
        let made = create_principal(
            &*store,
            &env,
            NewPrincipal {
                kind,
                login,
                display_name,
                secret: Secret::Generated(secret),
            },
        )
        .await?;
        // Ada has no role until the application assigns one.
        if kind == PrincipalKind::Application {
            let owner = access::owner_of_all(&made.object_id, &made.kind, made.created_at);
            let owner = owner.ok_or("the principal has no GUID")?;
            store.txn(owner.make(Txn::default())).await?;
        } else {
            person = made.object_id;
        }
    }
    let tls = EndpointTls::generate(&[], &[], env.clock.now())?;
    std::fs::write(directory.join("ca.pem"), &tls.ca_pem)?;
    std::fs::write(
        directory.join("env"),
        format!(
            "BASE_URL={base_url}\nCLIENT={APPLICATION}\nSECRET={secret}\nUSERNAME=ada@example.test\nPASSWORD={password}\nPERSON={person}\n\
             TENANT={TENANT}\nSUBSCRIPTION={SUBSCRIPTION}\n"
        ),
    )?;

    let identity = IdentityConfig {
        base_url: base_url.clone(),
        shape: Shape::Aad,
        tenant_id: TENANT.to_owned(),
        audiences: vec![
            format!("https://management.example.test/{TENANT}"),
            base_url.clone(),
        ],
        resources: Vec::new(),
    };
    let identity = Arc::new(TokenService::new(
        identity,
        SigningKey::generate()?,
        env.clone(),
        Arc::clone(&store),
    ));
    let resources = ResourcesConfig {
        location: "local".to_owned(),
        location_display: "Local".to_owned(),
        tenant_id: TENANT.to_owned(),
        tenant_name: "Example".to_owned(),
    };
    let authorization: Arc<dyn Provider> =
        Arc::new(Authorization::new(env.clone(), Arc::clone(&store), TENANT));
    let resources: Arc<dyn Provider> = Arc::new(ResourcesProvider::new(
        resources,
        env.clone(),
        Arc::clone(&store),
        vec![Arc::clone(&authorization)],
    ));
    let roles = Arc::new(RoleAuthorizer::new(Arc::clone(&store)));
    let reaper = GroupReaper::new(env.clone(), Arc::clone(&store), Vec::new());
    tokio::spawn(async move { reaper.run(std::future::pending()).await });
    let config = EdgeConfig {
        stamp: "example".to_owned(),
        base_url,
        domain: "example.test".to_owned(),
        location: "local".to_owned(),
        budgets: Budgets::default(),
    };
    let end = async {
        // Without a signal handler there is no orderly end; the process simply goes.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    let edge = Edge::new(
        config,
        env,
        store,
        identity,
        vec![resources, authorization],
        AccessControl {
            authorizer: Arc::clone(&roles) as Arc<dyn Authorizer>,
            locks: roles,
            activity: Arc::new(ServiceLog),
        },
    );
    edge.serve(
        listener,
        Some(ServerTls::from_pem(&tls.cert_pem, &tls.key_pem)?),
        end,
    )
    .await?;
    Ok(())
}
