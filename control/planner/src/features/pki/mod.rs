//! The cluster's CAs and keys. They have a generation: what is computed from an older one is computed anew (`configurations`).

use crate::{
    Draft, Write,
    checks::{Checks, Stage},
    feature::Feature,
};

pub(crate) const FEATURE: Feature = Feature {
    record,
    checks,
    ..Feature::named("pki")
};

fn record(draft: &mut Draft<'_>) {
    if draft.seen.pki.is_none() {
        draft.wait("making certificates");
        draft.write(Write::CreatePki);
    }
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    checks.cluster(Stage::Foundation, "making certificates", draft.seen.pki.is_some());
}
