//! Whether a request is carried out, or is a preview.

/// Whether a decision is also carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// It is written.
    Commit,
    /// It is only answered.
    Preview,
}
