//! Requests about clusters that the service makes by itself: the same that a person makes, with an operation, events and a line in the activity log.
//!
//! Called by: channels and deadlines.

use arm_ids::ResourcePath;
use arm_kernel::{Mode, Mutation, RequestInfo, write};
use arm_wire::{ArmError, Principal, Trace};
use http::Method;

use crate::{
    ContainerService,
    api_versions::API_VERSIONS,
    clusters::{Action, Clusters},
};

/// Who asks.
const SERVICE: &str = "Landfall";

impl ContainerService {
    /// Asks for a change of a cluster, with this permission's name in the activity log.
    ///
    /// # Errors
    /// Those of the request; a failed precondition where the cluster has another eTag.
    pub(crate) async fn ask_as_service(
        &self,
        path: &ResourcePath,
        if_match: Option<&str>,
        method: Method,
        action: &str,
        mutation: Mutation<'_, Action>,
    ) -> Result<(), ArmError> {
        let principal = Principal::named(SERVICE, &self.config.tenant);
        let id = self.env.ids.uuid().to_string();
        let mut trace = Trace::new(&id, &id, None, method);
        action.clone_into(&mut trace.action);
        let info = RequestInfo {
            path,
            principal: &principal,
            api_version: API_VERSIONS[0],
            if_match,
            if_none_match: None,
            trace: Some(&trace),
        };
        Box::pin(write::<Clusters>(self, &info, mutation, Mode::Commit)).await?;
        Ok(())
    }
}
