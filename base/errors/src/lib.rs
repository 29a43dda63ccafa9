//! Errors as people read them: what happened, and why, in one line.
//!
//! Always true here: no product word, no I/O. Called by: whoever hands an error on as text.

use std::error::Error;

/// An error with its causes. A cause that the text names already is not said twice.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::{fmt, io};

    use super::*;

    #[derive(Debug)]
    struct Outer(&'static str, io::Error);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.1)
        }
    }

    #[test]
    fn causes_follow_and_are_said_once() {
        let with = |text| chain(&Outer(text, io::Error::other("no route")));
        assert_eq!(with("cannot connect"), "cannot connect: no route");
        assert_eq!(with("cannot connect: no route"), "cannot connect: no route");
    }
}
