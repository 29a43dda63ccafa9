//! `/metadata/endpoints`: the addresses of all other services, for clients.

use identity::{IdentityConfig, Shape};
use serde_json::{Value, json};

use crate::{EdgeConfig, graph};

/// The document, for all api-versions: the union of the keys of 2015-01-01 and 2022-09-01 satisfies old and new clients.
pub(crate) fn document(config: &EdgeConfig, identity: &IdentityConfig, base_url: &str) -> Value {
    // Terraform's azurerm takes any value but `AAD` and `common` for Azure Stack, and refuses it. The Azure
    // CLI goes by the path: a login endpoint that ends in `adfs` needs no instance discovery on the internet.
    let (tenant, provider) = match identity.shape {
        Shape::Aad => ("common", "AAD"),
        Shape::AdFs => ("adfs", "ADFS"),
    };
    json!({
        "name": config.stamp,
        "resourceManager": base_url,
        "authentication": {
            "loginEndpoint": identity.login_endpoint(base_url),
            "audiences": identity.audiences.first().into_iter().collect::<Vec<_>>(),
            "tenant": tenant,
            "identityProvider": provider,
        },
        "gallery": base_url,
        "galleryEndpoint": base_url,
        "graph": base_url,
        "graphAudience": base_url,
        "graphEndpoint": base_url,
        "microsoftGraphResourceId": graph::resource_at(base_url),
        "portal": base_url,
        "portalEndpoint": base_url,
        "vmImageAliasDoc": format!("{base_url}/metadata/vmImageAliases"),
        "suffixes": {
            "storage": config.domain,
            "keyVaultDns": format!("vault.{}", config.domain),
            "acrLoginServer": format!("azurecr.{}", config.domain),
        },
    })
}
