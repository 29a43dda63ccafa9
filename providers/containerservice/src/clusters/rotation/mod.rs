//! `rotateClusterCertificates` and `rotateServiceAccountSigningKeys`.
//!
//! What they ask for is a moment: what is older is to be replaced. So requests that come before one is begun are one, and one that comes later
//! is another; none ends an operation that runs, and an abort takes back what issues nothing yet.

use arm_kernel::Decision;
use arm_wire::ArmError;
use cluster_spec::Rotations;

use super::{
    Command,
    draft::{Context, Draft, Name, advance},
    hooks::{FeatureHooks, refuse_change},
    requests::Current,
};

pub(crate) const HOOKS: FeatureHooks = FeatureHooks {
    change: |_| Ok(()),
    under_way: |operation| (operation == Certificates::NAME).then_some("RotatingClusterCertificates"),
    show: |_, _| {},
};

/// The CAs are to be others, and all certificates with them.
pub(crate) enum Certificates {}

/// Another key is to sign the tokens of service accounts.
pub(crate) enum ServiceAccountKeys {}

impl Command for Certificates {
    const ACTION: &'static str = "rotateClusterCertificates";
    const NAME: &'static str = "ManagedClusters_RotateClusterCertificates";

    fn decide(
        context: &Context<'_>,
        name: &Name<'_>,
        before: Current<'_>,
    ) -> Result<Decision<Draft>, ArmError> {
        rotate(context, name, before, Self::NAME, |rotations| {
            &mut rotations.certificates
        })
    }
}

impl Command for ServiceAccountKeys {
    const ACTION: &'static str = "rotateServiceAccountSigningKeys";
    const NAME: &'static str = "ManagedClusters_RotateServiceAccountSigningKeys";

    fn decide(
        context: &Context<'_>,
        name: &Name<'_>,
        before: Current<'_>,
    ) -> Result<Decision<Draft>, ArmError> {
        rotate(context, name, before, Self::NAME, |rotations| {
            &mut rotations.service_account_keys
        })
    }
}

fn rotate(
    context: &Context<'_>,
    name: &Name<'_>,
    before: Current<'_>,
    operation: &str,
    which: fn(&mut Rotations) -> &mut i64,
) -> Result<Decision<Draft>, ArmError> {
    let present = before.record;
    refuse_change(present)?;
    let now = context.now.as_millisecond();
    let state = present.state.with(|_, decided| {
        let asked = which(&mut decided.rotations);
        // Later than the last one, whatever the clock says.
        *asked = now.max(asked.saturating_add(1));
    });
    let state = state.map_err(ArmError::internal)?;
    advance(context, name, Some(present), state, operation, None).map(Decision::Write)
}
