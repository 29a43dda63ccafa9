//! Who may ask.

/// Who may ask for an operation. Whatever it says, a valid token is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Who may do the row's action at the path's scope.
    Action,
    /// Everybody: what is told is the same at every stamp, or what everybody who comes here has to know.
    Anybody,
    /// Who may do anything at all at the path's scope, above or below.
    Reaches,
    /// A list for those who may do anything at all at the scope, above or below: it shows them the items that they may do the row's
    /// action with.
    Items,
    /// The same of a list of resources of many types: each needs the reading of its own type.
    ItemsByType,
    /// A list for everybody, which shows the items that they may do anything at all at, above or below.
    ItemsReached,
}
