//! The add-ons as a page of the documentation.

use std::fmt::Write as _;

use crate::{ADDONS, Addon, Edits};

/// The page `docs/reference/addons.md`.
pub fn page() -> String {
    let mut page = "# Add-ons\n\nWhat every cluster has in `kube-system`. All objects carry the label \
        `kubernetes.azure.com/managedby=aks`.\n\n\
        | add-on | what for | images | when a tenant edits it |\n|---|---|---|---|\n"
        .to_owned();
    for addon in ADDONS {
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "| {} | {} | {} | {} |",
            addon.name,
            addon.about,
            images(addon),
            edits(addon.edits)
        );
    }
    page
}

fn images(addon: &Addon) -> String {
    let names: Vec<String> = addon
        .images
        .iter()
        .map(|image| format!("`{}`", image.reference))
        .collect();
    names.join(", ")
}

fn edits(edits: Edits) -> &'static str {
    match edits {
        Edits::PutBack => "what the add-on sets is put back within seconds; what it does not set stays",
    }
}
