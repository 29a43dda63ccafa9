//! `Landfall.ContainerService/catalogue`: the version catalogue that is in force in the stamp, and how long each minor is supported (rules V1, V2, V4, V9).
//!
//! | | |
//! |---|---|
//! | GET `/providers/Landfall.ContainerService/catalogue/stamp` | its serial, minors with their windows, and how much it has of each component |
//!
//! It only reads: another catalogue is brought by an operator on the stamp's host (`landfall catalogue import`). A role at `/` is needed, as the catalogue is no tenant's.

use arm_kernel::{Call, Operation, ResourceType, Scope, Verb, quote};
use arm_wire::{ArmError, ErrorCode, Response};
use cluster_versions::{Version, Wanted};
use policy_catalogue::{
    Minor,
    windows::{Rule, window},
};
use serde_json::{Value, json};

use super::{
    api::{HISTORY_API_VERSIONS, HistoryApi},
    knowledge::{InForce, today},
};

type Row = Operation<HistoryApi>;

/// The only one that there is.
const NAME: &str = "stamp";

/// The type.
pub(super) const CATALOGUE: ResourceType<HistoryApi> = ResourceType {
    path: "catalogue",
    versions: HISTORY_API_VERSIONS,
    schema: None,
    members: None,
    operations: &[Row::read(Verb::Get, "VersionCatalogue_Get", |api, call| {
        Box::pin(api.catalogue(call))
    })
    .at(Scope::Tenant)],
};

impl HistoryApi {
    async fn catalogue(&self, call: &Call) -> Result<Response, ArmError> {
        let name = call.request.path.name(0).unwrap_or_default();
        if !name.eq_ignore_ascii_case(NAME) {
            let message = format!("There is no catalogue {}; use '{NAME}'.", quote(name));
            return Err(ArmError::new(ErrorCode::RESOURCE_NOT_FOUND, message));
        }
        let in_force = self.known.catalogue().await;
        let today = today(self.env.clock.now());
        let minors = in_force.catalogue.minors.iter();
        let minors = minors.map(|minor| self.minor(&in_force, minor, today));
        let minors: Vec<Value> = minors.collect();
        let components = in_force.catalogue.components.iter();
        let components = components.map(|component| {
            let cves = in_force.catalogue.cves.iter();
            let issues = in_force.catalogue.issues.iter();
            json!({
                "name": component.name,
                "cves": cves.filter(|cve| cve.component == component.name).count(),
                "knownIssues": issues.filter(|issue| issue.component == component.name).count(),
            })
        });
        let components: Vec<Value> = components.collect();
        let mut told = in_force.answer();
        told["name"] = json!(NAME);
        told["minors"] = json!(minors);
        told["components"] = json!(components);
        Ok(Response::ok(told))
    }

    /// A minor with its window by the rule of the profile `aks`.
    fn minor(&self, in_force: &InForce, minor: &Minor, today: jiff::civil::Date) -> Value {
        let offered = self.offered.versions().iter();
        let here: Vec<String> = offered
            .filter(|version| version.minor_name() == minor.name)
            .map(Version::to_string)
            .collect();
        let newest = self.offered.minors().last().copied().unwrap_or_default();
        let window = match minor.name.parse::<Wanted>() {
            Ok(Wanted::Newest { major, minor }) => {
                let rule = Rule::ThreeNewest;
                Some(window(&in_force.catalogue, (major, minor), newest, rule, today))
            }
            // Every name was read as one when the catalogue was.
            Ok(Wanted::Exact(_)) | Err(_) => None,
        };
        json!({
            "name": minor.name,
            "released": minor.released,
            "maintenance": minor.maintenance,
            "endOfSupport": minor.end_of_support,
            "azurePreview": minor.azure_preview,
            "azureGeneral": minor.azure_general,
            "azureEnd": minor.azure_end,
            "ltsEnd": minor.lts_end,
            "newestPatch": minor.patches.last().map(|patch| patch.version.as_str()),
            "onThisStamp": here,
            "standing": window.as_ref().map(|window| window.standing.name()),
            "until": window.as_ref().and_then(|window| window.until),
            "warning": window.as_ref().and_then(|window| window.warning.as_deref()),
            "sources": minor.sources,
        })
    }
}
