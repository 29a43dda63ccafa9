//! Kubeconfigs that are handed out.

use base64::Engine as _;
use cluster_bootstrap::{Bearer, client_certificate, directory_kubeconfig, kubeconfig};
use cluster_spec::{CredentialKind, PodNetworking, TokenFormat};

use crate::{now, pki, spec};

#[test]
fn kubeconfigs_are_named_as_aks_names_them() {
    let spec = spec(PodNetworking::Kubenet);
    let pki = pki();
    let until = now() + jiff::SignedDuration::from_hours(8);
    for (bearer, context, user, subject) in [
        (
            Bearer::Credential(CredentialKind::Admin, "a1"),
            "shop-admin",
            "clusterAdmin_Retail-West_shop",
            "CN=landfall:credential:admin:a1",
        ),
        (
            Bearer::Credential(CredentialKind::User, "a2"),
            "shop",
            "clusterUser_Retail-West_shop",
            "CN=landfall:credential:user:a2",
        ),
        (
            Bearer::Credential(CredentialKind::Monitoring, "a3"),
            "shop",
            "clusterMonitoringUser_Retail-West_shop",
            "CN=landfall:credential:monitoring:a3",
        ),
        (
            Bearer::Operator,
            "shop-admin",
            "clusterAdmin_Retail-West_shop",
            "O=system:masters, CN=landfall:operator",
        ),
    ] {
        let certificate = client_certificate(&pki, bearer, now(), until).unwrap();
        let text = kubeconfig(&spec, &pki, "https://100.64.24.1:443", bearer, &certificate, None);
        let line = |start: &str| {
            text.lines()
                .find_map(|line| line.trim().strip_prefix(start))
                .map(str::trim)
        };
        assert_eq!(line("current-context:"), Some(context));
        assert!(text.contains(&format!("- name: {user}\n")), "{text}");
        assert_eq!(line("server:"), Some("https://100.64.24.1:443"));
        let certificate = line("client-certificate-data:").unwrap();
        let pem = base64::engine::general_purpose::STANDARD
            .decode(certificate)
            .unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).unwrap();
        let parsed = pem.parse_x509().unwrap();
        assert_eq!(parsed.subject().to_string(), subject);
        assert_eq!(parsed.validity().not_after.timestamp(), until.as_second());
    }
}

#[test]
fn a_kubeconfig_of_a_namespace_has_names_of_its_own() {
    let (spec, pki) = (spec(PodNetworking::Kubenet), pki());
    let bearer = Bearer::Credential(CredentialKind::User, "a4");
    let until = now().checked_add(std::time::Duration::from_secs(60)).unwrap();
    let certificate = client_certificate(&pki, bearer, now(), until).unwrap();
    let text = kubeconfig(&spec, &pki, "https://v:443", bearer, &certificate, Some("dev"));
    for line in [
        "    namespace: dev\n    user: clusterUser_Retail-West_shop_dev\n  name: shop_dev\n",
        "current-context: shop_dev\n",
        "- name: clusterUser_Retail-West_shop_dev\n",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
}

#[test]
fn a_kubeconfig_of_the_directory_holds_no_credential() {
    let (spec, pki) = (spec(PodNetworking::Kubenet), pki());
    let config = |format| {
        directory_kubeconfig(
            &spec,
            "tenant",
            &pki,
            "https://vip:443",
            "https://stamp:8443/",
            format,
            None,
        )
    };
    let exec = config(TokenFormat::Exec);
    for words in [
        "name: clusterUser_Retail-West_shop",
        "command: kubelogin",
        "- \"get-token\"",
        "- \"6dae42f8-4368-4678-94ff-3960e28e3630\"",
        "- \"--authority-host\"\n      - \"https://stamp:8443/\"",
        "- \"--disable-instance-discovery\"",
    ] {
        assert!(exec.contains(words), "{words} in {exec}");
    }
    let azure = config(TokenFormat::Azure);
    assert!(
        azure.contains("      name: azure\n") && azure.contains("        tenant-id: tenant\n"),
        "{azure}"
    );
    for config in [exec, azure] {
        assert!(
            !config.contains("client-key") && !config.contains("PRIVATE"),
            "{config}"
        );
    }
}
