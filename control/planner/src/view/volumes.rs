//! Volumes: what others have to know of who has them.

use crate::Draft;

/// Whether a node has volumes, or is about to get some, as the cluster says. Where the driver of disks is off, nobody would ever detach them.
pub(crate) fn has_some(draft: &Draft<'_>, node: &str) -> bool {
    let attachments = draft
        .seen
        .api
        .storage
        .iter()
        .flat_map(|storage| &storage.attachments);
    let mut held = attachments.filter(|attachment| attachment.held);
    !draft.desired.spec().disks_off && held.any(|attachment| attachment.node == node)
}
