//! The pages under `docs/reference` that are made from the code, so that they are always true. `cargo xtask
//! docs` writes them.
//!
//! | page | from |
//! |---|---|
//! | `errors/{Code}.md`, `errors/README.md` | `arm_wire::ERROR_CODES` |
//! | `compatibility.md` | `providers_containerservice::compatibility()`, with the operations of the other namespaces |
//! | `addons.md` | `cluster_addons::page()` |
//! | `support-policies.md` | `policy_support::page()` |
//! | `cli.md` | the binary's own command line |

mod cli;
mod errors;

use std::collections::BTreeMap;

use arm_kernel::routes;
use providers_authorization::Authorization;
use providers_containerregistry::ContainerRegistry;
use providers_containerservice::OtherRoutes;
use providers_infrastructure::{Compute, Network};
use providers_insights::Insights;
use providers_managedidentity::ManagedIdentity;
use providers_resources::{Features, ResourcesProvider};

const HEAD: &str =
    "<!-- Written by `cargo xtask docs`. Change the code it comes from, not this page. -->\n\n";

/// All pages, by their path below `docs/reference`.
pub(crate) fn pages() -> BTreeMap<String, String> {
    let mut pages = errors::pages();
    let mut add = |name: &str, text: String| pages.insert(name.to_owned(), text);
    add("addons.md", cluster_addons::page());
    add("support-policies.md", policy_support::page());
    add("cli.md", format!("{}\n", cli::page().trim_end()));
    for text in pages.values_mut() {
        text.insert_str(0, HEAD);
    }
    // This page itself names its source.
    let compatibility = providers_containerservice::compatibility(&OtherRoutes {
        resources: routes::<ResourcesProvider>(),
        authorization: routes::<Authorization>(),
        identities: routes::<ManagedIdentity>(),
        registries: routes::<ContainerRegistry>(),
        insights: routes::<Insights>(),
        compute: routes::<Compute>(),
        network: routes::<Network>(),
        features: routes::<Features>(),
    });
    pages.insert(
        "compatibility.md".into(),
        format!("{}\n", compatibility.trim_end()),
    );
    pages
}
