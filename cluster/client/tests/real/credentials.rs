//! The rights of credentials, which come from their bindings, and their lifetime.

use std::time::Duration;

use cluster_addons::{CREDENTIAL_BINDINGS, credential_binding, credential_user, is_credential_binding};
use cluster_bootstrap::Bearer;
use cluster_spec::CredentialKind;

use crate::{
    LONG,
    stand::{self, Stand},
};

/// See the module.
pub(crate) async fn may(stand: &Stand) {
    let set = async |granted: &[(CredentialKind, &str)], gone: &[String]| {
        let granted: Vec<_> = granted
            .iter()
            .filter_map(|(kind, id)| credential_binding(*kind, id))
            .collect();
        let set = stand
            .api
            .replace(&CREDENTIAL_BINDINGS, is_credential_binding, &granted, gone);
        set.await.unwrap()
    };
    let refused = async |who: &str, arguments: &str| stand.kubectl_as(who, arguments).await.unwrap_err();
    for who in ["one", "user", "monitoring"] {
        let why = refused(who, "get nodes").await;
        assert!(why.contains("forbidden"), "{who}: {why}");
    }
    let all = [
        (CredentialKind::Admin, "one"),
        (CredentialKind::User, "user"),
        (CredentialKind::Monitoring, "monitoring"),
    ];
    assert_eq!(set(&all, &[]).await, 3);
    assert_eq!(set(&all, &[]).await, 0, "they are so already");
    for (who, what) in all.map(|(kind, who)| (who, kind)) {
        // Aggregated roles get their rules a moment later.
        stand
            .wait(&format!("{what:?} works"), LONG, async || {
                stand.kubectl_as(who, "get nodes").await.map(drop)
            })
            .await;
    }
    stand.kubectl_as("one", "auth can-i '*' '*'").await.unwrap();
    for (who, arguments, may) in [
        ("monitoring", "get pods -A", true),
        ("monitoring", "get --raw /metrics", true),
        ("monitoring", "get secrets -A", false),
        ("monitoring", "create namespace x", false),
        ("user", "create namespace theirs", true),
        ("user", "-n theirs create configmap a --from-literal=b=c", true),
        (
            "user",
            "-n theirs create secret generic a --from-literal=b=c",
            true,
        ),
        (
            "user",
            "-n theirs create deployment a --image=landfall.dev/pause:1",
            true,
        ),
        ("user", "-n kube-system get pods", true),
        ("user", "delete namespace theirs --wait=false", true),
        ("user", "auth can-i '*' '*'", false),
        ("user", "get clusterrolebindings", false),
        (
            "user",
            "-n default create rolebinding a --clusterrole=cluster-admin --user=x",
            false,
        ),
        ("user", "-n default create token default", false),
        (
            "user",
            "get nodes --as=system:serviceaccount:kube-system:generic-garbage-collector",
            false,
        ),
        (
            "user",
            "-n kube-system create configmap a --from-literal=b=c",
            false,
        ),
        ("user", "-n kube-system run a --image=landfall.dev/pause:1", false),
        ("user", "-n kube-system exec deployment/coredns -- true", false),
        ("user", "-n kube-system delete deployment coredns", false),
        ("user", "label namespace kube-system a=b", false),
        ("user", "delete node nobody", false),
    ] {
        let answer = stand.kubectl_as(who, arguments).await;
        assert_eq!(answer.is_ok(), may, "{who} {arguments}: {answer:?}");
    }
    let why = refused("user", "-n kube-system create configmap a --from-literal=b=c").await;
    assert!(why.contains("az aks get-credentials --admin"), "{why}");

    // An administrator may hide a binding; it is deleted by its name.
    let name = credential_user(CredentialKind::Admin, "one");
    let hide = format!("label clusterrolebinding {name} kubernetes.azure.com/managedby-");
    stand.kubectl_as("one", &hide).await.unwrap();
    assert_eq!(set(&all[1..], std::slice::from_ref(&name)).await, 1);
    stand
        .wait(
            "a revoked credential is refused",
            Duration::from_secs(5),
            async || match stand.kubectl_as("one", "get nodes").await {
                Err(why) if why.contains("forbidden") => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await;
    stand.kubectl_as("user", "get nodes").await.unwrap();
    let short = stand.kubeconfig(
        Bearer::Credential(CredentialKind::User, "user"),
        Duration::from_secs(5),
    );
    let write = format!("printf '%s' '{short}' > /root/short.kubeconfig");
    stand.inside(stand::CONTROL_PLANE, &write).await.unwrap();
    stand.kubectl_as("short", "get nodes").await.unwrap();
    stand
        .wait("one that has ended is refused", LONG, async || {
            match stand.kubectl_as("short", "get nodes").await {
                Err(why)
                    if why.contains("must be logged in")
                        || why.contains("expired")
                        || why.contains("Unauthorized") =>
                {
                    Ok(())
                }
                other => Err(format!("{other:?}")),
            }
        })
        .await;
    assert_eq!(set(&[], &[]).await, 2);
}
