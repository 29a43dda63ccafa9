//! `landfall kubelogin`: installing the program that signs in to clusters with directory integration, and its
//! settings for this stamp.

use anyhow::Result;
use serde_json::json;

use super::Context;
use crate::{host, stamp::Settings};

/// The version that is tested with this release.
const VERSION: &str = "v0.2.20";

pub(crate) fn run(context: &Context) -> Result<()> {
    let places = &context.places;
    let settings = Settings::required(places)?;
    let install = format!("go install github.com/Azure/kubelogin@{VERSION}");
    let ca = places.ca();
    let authority = format!("{}/", settings.arm_url().trim_end_matches('/'));
    let value = json!({
        "event": "result", "version": VERSION, "install": install, "authority": authority, "tenant": settings.tenant,
        "environment": { "SSL_CERT_FILE": ca },
    });
    context.printer.result(&value, || {
        format!(
            "# kubelogin {VERSION}, from its Go module, or a release of it: https://github.com/Azure/kubelogin/releases\n\
             {install}\n\
             export PATH=\"$PATH:$(go env GOPATH)/bin\"\n\
             # What it has to trust; kubeconfigs of 'az aks get-credentials' say where to sign in ({authority}).\n\
             export SSL_CERT_FILE={}",
            host::quoted(&ca)
        )
    });
    Ok(())
}
