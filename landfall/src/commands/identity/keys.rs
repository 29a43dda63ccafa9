//! `landfall identity rotate-keys`: the keys that sign tokens. Through the ARM API of the stamp's own token service.

use anyhow::Result;
use serde_json::Value;

use super::confirmed;
use crate::{args, arm::ArmClient, commands::Context, stamp::Settings};

/// Where they are.
const KEYS: &str = "/providers/Landfall.Identity/signingKeys/default";

pub(super) async fn rotate(context: &Context, settings: &Settings, wanted: &args::RotateKeys) -> Result<()> {
    let arm = ArmClient::login(&context.places, settings, &context.env).await?;
    let act = if wanted.revoke {
        let what = "This ends every token of the stamp now, those of clusters' users among them.";
        confirmed(context, wanted.yes, what).await?;
        "revoke"
    } else {
        "rotate"
    };
    let done = arm
        .post(&format!("{KEYS}/{act}"), identity::IDENTITY_API_VERSIONS[0])
        .await?;
    context.printer.result(&done, || page(&done));
    Ok(())
}

fn page(done: &Value) -> String {
    let text = |member: &str| done[member].as_str();
    let signs = text("signs").unwrap_or("-");
    match (text("next"), text("nextSignsFrom")) {
        (Some(next), Some(from)) => {
            format!("{signs} signs until {from}, when everybody can know the next; from then on {next}")
        }
        (Some(next), None) => format!("{signs} signs; {next} is the next, in ninety days or on command"),
        (None, _) => format!("{signs} signs"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_told_when_the_next_key_signs() {
        let waits = json!({ "signs": "a", "next": "b", "nextSignsFrom": "2027-01-01T00:00:00Z" });
        assert!(page(&waits).contains("until 2027-01-01") && page(&waits).ends_with("from then on b"));
        let done = json!({ "signs": "b", "next": "c", "nextSignsFrom": null });
        assert!(page(&done).starts_with("b signs; c is the next"));
    }
}
