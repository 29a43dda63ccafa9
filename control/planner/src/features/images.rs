//! Images of add-ons that are in no node image: built on the host when a cluster first asks for them, then brought onto its nodes
//! by their agents.
//!
//! Nothing waits for a build: machines boot and nodes join meanwhile. An agent that is told to bring an image asks again until the
//! service has it; objects that need the image are applied once the host has it, and their pods go to nodes that have it.

use std::collections::BTreeSet;

use cluster_spec::AddonImage;

use crate::{
    Draft, FabricEffect, Machine, Subject,
    checks::{Checks, Stage},
    feature::Feature,
    view::machines::staying,
};

pub(crate) const FEATURE: Feature = Feature {
    act,
    checks,
    ..Feature::named("images")
};

/// Makes sure of each image once in the life of this process.
fn act(draft: &mut Draft<'_>) {
    for image in draft.desired.spec().addon_images() {
        if !draft.seen.images.contains(image.name) {
            draft.act_or_adopt(
                true,
                FabricEffect::EnsureAddonImage(image.name.to_owned()),
                building(image),
            );
        }
    }
    let waits: Vec<String> = nodes(draft)
        .filter(|(_, machine)| !has_all(draft, machine))
        .map(|(_, machine)| bringing(machine))
        .collect();
    for why in waits {
        draft.wait_or_adopt(true, why);
    }
}

fn building(image: &AddonImage) -> String {
    format!("building the image {}, which the cluster asks for", image.name)
}

fn bringing(machine: &Machine) -> String {
    format!("bringing images onto {}", machine.label())
}

/// Nodes that are to do their work.
fn nodes<'a>(draft: &Draft<'a>) -> impl Iterator<Item = (&'a String, &'a Machine)> + use<'a> {
    staying(draft).filter(|(_, machine)| machine.node_name().is_some() && !machine.record.healing.off)
}

/// The images of add-ons that a node has, of those that its cluster asks for: as its agent says, or as its node object has said
/// since. A node keeps an image, pinned, until it gets another disk.
pub(crate) fn brought(draft: &Draft<'_>, machine: &Machine) -> BTreeSet<String> {
    let done = machine.report.iter().flat_map(|report| &report.tasks_done);
    let done: BTreeSet<&str> = done.map(String::as_str).collect();
    let node = machine.node_name().and_then(|name| draft.seen.api.node(name));
    let wanted = draft.desired.spec().addon_images();
    wanted
        .filter(|image| {
            done.contains(image.task().as_str())
                || node.is_some_and(|node| node.labels.contains_key(&image.label()))
        })
        .map(|image| image.name.to_owned())
        .collect()
}

fn has_all(draft: &Draft<'_>, machine: &Machine) -> bool {
    let has = brought(draft, machine);
    draft
        .desired
        .spec()
        .addon_images()
        .all(|image| has.contains(image.name))
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    let spec = draft.desired.spec();
    for image in spec.addon_images() {
        let built = draft.seen.images.contains(image.name) || draft.reached_before();
        checks.cluster(Stage::Foundation, building(image), built);
        let quiet = draft.is_quiet(&Subject::Image(image.name.to_owned()));
        checks.routine(building(image), quiet);
    }
    if spec.addon_images().next().is_none() {
        return;
    }
    for (id, machine) in nodes(draft) {
        let unknown = machine.report.is_none() && draft.reached_before();
        checks.machine(
            draft,
            id,
            machine,
            bringing(machine),
            has_all(draft, machine) || unknown,
        );
    }
}
