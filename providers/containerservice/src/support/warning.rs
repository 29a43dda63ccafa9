//! The header `Warning` of writes of what is out of support (V2, V4).
//!
//! Only of writes: answers to GET are kept (`docs/decisions/0036`), and what a date changes is in no key that they rest on.

use arm_kernel::Host as _;
use arm_wire::Response;
use jiff::Timestamp;
use policy_support::{Facts, Minor, State, releases, support_state};
use serde_json::Value;

use crate::{ContainerService, ProviderConfig};

/// A header is no page.
const MOST_CHARS: usize = 300;

/// The response with a warning, if the version that it shows is out of support.
pub(crate) fn warned(provider: &ContainerService, response: Response) -> Response {
    let now = provider.env().clock.now();
    let shown = response.body.as_ref().and_then(version);
    match shown.and_then(|version| warning(provider.config(), version, now)) {
        Some(warning) => response.header("warning", warning),
        None => response,
    }
}

/// The version that a cluster or a pool is to have.
fn version(body: &Value) -> Option<Minor> {
    let properties = &body["properties"];
    // What it is to be comes first: who upgrades is not warned of what was.
    let mut names = [
        "kubernetesVersion",
        "orchestratorVersion",
        "currentKubernetesVersion",
        "currentOrchestratorVersion",
    ]
    .into_iter();
    names.find_map(|name| properties[name].as_str()?.parse().ok())
}

fn warning(config: &ProviderConfig, version: Minor, now: Timestamp) -> Option<String> {
    let facts = Facts::of(now, version, releases::known(&config.offered));
    let told = support_state(&facts, config.support, now);
    let reason = told
        .reasons
        .first()
        .filter(|_| told.state >= State::OutOfSupport)?;
    let text = format!("{}: {}; {}", reason.rule, reason.sentence, reason.remedy);
    let text: String = text
        .chars()
        .filter(|char| char.is_ascii() && !char.is_ascii_control() && !matches!(char, '"' | '\\'))
        .take(MOST_CHARS)
        .collect();
    // 299: it lasts; RFC 9111 has taken the header back, and clients print it.
    Some(format!("299 landfall \"{text}\""))
}
