//! `/metadata/endpoints`: where a client finds everything else.

use serde_json::{Value, json};

use crate::EdgeConfig;

/// The document, for all api-versions: the union of the keys of 2015-01-01 and 2022-09-01 satisfies old and new clients.
pub(crate) fn document(config: &EdgeConfig, base_url: &str, audience: &str) -> Value {
    json!({
        "name": config.stamp,
        "resourceManager": base_url,
        "authentication": {
            // The path decides: a login endpoint that ends in `adfs` needs no instance discovery on the internet.
            "loginEndpoint": format!("{base_url}/adfs"),
            "audiences": [audience],
            "tenant": "adfs",
            "identityProvider": "ADFS",
        },
        "gallery": base_url,
        "galleryEndpoint": base_url,
        "graph": base_url,
        "graphAudience": base_url,
        "graphEndpoint": base_url,
        "microsoftGraphResourceId": base_url,
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
