//! Whether a request is carried out, or is a preview.

/// Whether a decision is also carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// The decision is written.
    Commit,
    /// The response is given without a write.
    Preview,
}
