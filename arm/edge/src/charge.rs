//! A request against the budgets of its principal, and the answer where it passes one.

use arm_wire::{ArmError, Principal};
use control_records::key;
use http::{Method, header};

use crate::{
    Inner,
    answer::Failure,
    budgets::{Kind, Remaining},
};

impl Inner {
    /// Takes a request from the budgets of its principal, and notes what is left of them. `subscription` is
    /// the one of the path.
    pub(crate) async fn charge(
        &self,
        who: &Principal,
        subscription: Option<&str>,
        method: &Method,
        left: &mut Option<Remaining>,
    ) -> Result<(), Failure> {
        let kind = Kind::of(method);
        if !self.buckets.counts(kind) {
            return Ok(());
        }
        // Only subscriptions that exist have buckets: otherwise each made-up id would be a budget of its own.
        let subscription = match subscription {
            Some(named) if !self.buckets.knows(named) => {
                let found = self.store.get(&key::subscription(named)).await;
                found.map_err(ArmError::internal)?.map(|_| named)
            }
            named => named,
        };
        let now = self.env.clock.monotonic();
        match self.buckets.charge(kind, &who.object_id, subscription, now) {
            None => Ok(()),
            Some(Ok(remaining)) => {
                *left = Some(remaining);
                Ok(())
            }
            Some(Err(passed)) => {
                *left = Some(passed.remaining);
                self.measures.throttle(&passed);
                let failure = Failure::from(passed.error(&who.object_id, subscription));
                Err(failure.with(header::RETRY_AFTER, passed.retry_after.to_string()))
            }
        }
    }
}
