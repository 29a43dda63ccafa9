//! Access rules of operations.

/// Which callers may use an operation. All of them need a valid token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Callers with permission for the row's action at the path's scope.
    Action,
    /// All callers: the response is the same at every stamp, or is needed before any role is assigned.
    Anybody,
    /// Callers with any permission at the path's scope, above or below.
    Reaches,
    /// A list for callers with any permission at the scope, above or below. It shows the items for which they
    /// have permission to do the row's action.
    Items,
    /// The same for a list of resources of many types: each item needs permission to read its own type.
    ItemsByType,
    /// A list for all callers, which shows the items at, above or below which they have any permission.
    ItemsReached,
}
