//! Error messages for people: the error and its causes, in one line.
//!
//! Always true here: no product term, no I/O. Called by: code that passes an error on as text.

use std::error::Error;

/// An error with its causes. A cause that the text already contains is not repeated.
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
