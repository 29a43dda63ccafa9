//! Errors for people: one sentence with the problem, and one with the next step.
//!
//! Always true: a [`Problem`] can be acted on without reading source code. Other errors that reach `main` are
//! shown as they are, with a command that shows more.

use std::{
    fmt,
    io::{self, ErrorKind},
};

/// A problem and the next step.
#[derive(Debug)]
pub(crate) struct Problem {
    /// One sentence, lower case, without a full stop.
    sentence: String,
    /// The next step: a command or a short sentence.
    next: String,
    /// The exit code.
    code: u8,
    source: Option<anyhow::Error>,
}

impl Problem {
    /// A problem of this host, this stamp or the command line.
    pub(crate) fn new(sentence: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            sentence: sentence.into(),
            next: next.into(),
            code: 1,
            source: None,
        }
    }

    /// A problem of the command line.
    pub(crate) fn usage(sentence: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            code: 2,
            ..Self::new(sentence, next)
        }
    }

    /// After Ctrl-C. The exit code is the one that shells expect: 128 and the signal's number.
    pub(crate) fn interrupted() -> Self {
        Self {
            code: 130,
            ..Self::new(
                "interrupted",
                "run the same command again: it goes on where it stopped",
            )
        }
    }

    /// Keeps the underlying error.
    #[must_use]
    pub(crate) fn because(mut self, source: impl Into<anyhow::Error>) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl std::error::Error for Problem {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(AsRef::as_ref)
    }
}

/// The parts of an error for printing.
pub(crate) struct ErrorParts {
    pub(crate) sentence: String,
    pub(crate) next: Option<String>,
    pub(crate) causes: Vec<String>,
}

/// The next step after a failure of the operating system.
pub(crate) fn after(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Some(
            "free some space on that disk and repeat; LANDFALL_STATE_DIR and LANDFALL_CACHE_DIR choose other places",
        ),
        ErrorKind::PermissionDenied => Some("repeat with sudo"),
        ErrorKind::ReadOnlyFilesystem => {
            Some("choose a place that can be written to: LANDFALL_STATE_DIR, LANDFALL_CACHE_DIR")
        }
        ErrorKind::NotFound | ErrorKind::NotADirectory => Some("check that path, and repeat"),
        _ => None,
    }
}

/// Takes an error apart.
pub(crate) fn told(error: &anyhow::Error) -> ErrorParts {
    let next = error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Problem>())
        .map(|problem| problem.next.clone())
        .or_else(|| {
            let system = error
                .chain()
                .find_map(|cause| cause.downcast_ref::<io::Error>())?;
            after(system.kind()).map(str::to_owned)
        });
    let mut causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
    causes.dedup();
    ErrorParts {
        sentence: error.to_string(),
        next: Some(next.unwrap_or_else(|| {
            "repeat with --verbose for the causes; `landfall doctor` checks this host".to_owned()
        })),
        causes,
    }
}

/// The exit code: 2 for a wrong command line, 130 after an interruption, else 1.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<Problem>())
        .map_or(1, |problem| problem.code)
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_full_disk_has_a_way_on() {
        let error: anyhow::Error = io::Error::from(ErrorKind::StorageFull).into();
        let told = told(&error.context("cannot write /a/b"));
        assert_eq!(told.sentence, "cannot write /a/b");
        assert!(told.next.unwrap().starts_with("free some space"));
    }

    #[test]
    fn a_problem_keeps_its_hint_and_code_under_context() {
        let source = anyhow::anyhow!("no such file");
        let error: anyhow::Error = Problem::usage("there is no file x", "give one")
            .because(source)
            .into();
        let error = Err::<(), _>(error).context("cannot import").unwrap_err();
        let told = told(&error);
        assert_eq!(told.sentence, "cannot import");
        assert_eq!(told.next.as_deref(), Some("give one"));
        assert_eq!(told.causes, ["there is no file x", "no such file"]);
        assert_eq!(exit_code(&error), 2);
        assert_eq!(exit_code(&anyhow::anyhow!("x")), 1);
        assert_eq!(exit_code(&Problem::interrupted().into()), 130);
    }
}
