//! The limit of open files of this process: connections, disks, the store, pipes of child processes.

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// With fewer, a stamp of some hundred machines reaches the limit.
const ENOUGH: u64 = 8192;
/// More than any stamp needs; child processes inherit the limit, and some count up to it.
const PLENTY: u64 = 65_536;

/// Raises the limit as far as permitted, and gives it.
pub(super) fn raise() -> Result<u64> {
    let (present, highest) =
        getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    let wanted = highest.min(PLENTY).max(present);
    if wanted != present {
        setrlimit(Resource::RLIMIT_NOFILE, wanted, highest)
            .with_context(|| format!("cannot raise the limit of open files to {wanted}"))?;
    }
    if wanted < ENOUGH {
        tracing::warn!(
            open_files = wanted,
            "this process may open few files; start it with at least {ENOUGH} (LimitNOFILE= of a unit, ulimit -Hn of a shell)"
        );
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_high_as_it_may_be_and_the_second_time_the_same() {
        let (_, highest) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        let raised = raise().unwrap();
        assert!(raised >= highest.min(PLENTY));
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (raised, highest));
        assert_eq!(raise().unwrap(), raised);
    }
}
