//! Whether a request is one, or a preview.

/// Whether a decision is also carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is written.
    Commit,
    /// It is only answered.
    Preview,
}
