//! The cluster's CAs and keys.

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
    if !draft.seen.pki {
        draft.wait("making certificates");
        draft.write(Write::CreatePki);
    }
}

fn checks(draft: &Draft<'_>, checks: &mut Checks) {
    checks.cluster(Stage::Foundation, "making certificates", draft.seen.pki);
}
