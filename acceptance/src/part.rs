//! Which scenarios a run plays: all, those of one name, or one of several parts that together are all.

/// One of several parts of the scenarios, written `K/N` with K from 1 to N.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    index: usize,
    of: usize,
}

impl Part {
    /// Reads `K/N`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let numbers = text
            .split_once('/')
            .and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((index @ 1.., of)) if index <= of => Ok(Self { index, of }),
            _ => Err(format!("{text} is not K/N with K from 1 to N")),
        }
    }

    /// Whether the part has the scenario at this place of the list of all.
    fn has(self, place: usize) -> bool {
        place % self.of == self.index - 1
    }
}

/// The requested part.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Choice<'a> {
    /// Every scenario without a separate command.
    All,
    /// Scenarios whose name contains this.
    Named(&'a str),
    /// A part of all.
    Part(Part),
}

impl<'a> Choice<'a> {
    /// From the options, which exclude each other.
    pub(crate) fn new(only: Option<&'a str>, part: Option<Part>) -> Self {
        match (only, part) {
            (Some(only), _) => Self::Named(only),
            (None, Some(part)) => Self::Part(part),
            (None, None) => Self::All,
        }
    }

    /// Whether a scenario is played. `all`: the names of all that are played by default, in the order in which parts are dealt out.
    pub(crate) fn has(self, name: &str, all: impl IntoIterator<Item = &'static str>) -> bool {
        match self {
            Self::All => true,
            Self::Named(only) => name.contains(only),
            Self::Part(part) => all
                .into_iter()
                .position(|one| one == name)
                .is_some_and(|place| part.has(place)),
        }
    }

    /// The exact name of a scenario that runs only on request.
    pub(crate) fn is(self, name: &str) -> bool {
        matches!(self, Self::Named(only) if only == name)
    }

    /// Whether every scenario is played.
    pub(crate) fn is_all(self) -> bool {
        matches!(self, Self::All)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [&str; 5] = ["a", "b", "ab", "c", "d"];

    fn played(choice: Choice<'_>) -> Vec<&'static str> {
        ALL.into_iter().filter(|name| choice.has(name, ALL)).collect()
    }

    #[test]
    fn parts_are_all_together_and_share_nothing() {
        let parts: Vec<_> = (1..=3)
            .flat_map(|index| played(Choice::Part(Part { index, of: 3 })))
            .collect();
        assert_eq!(parts, ["a", "c", "b", "d", "ab"]);
        assert_eq!(played(Choice::new(None, None)), ALL);
        assert_eq!(played(Choice::new(Some("b"), None)), ["b", "ab"]);
    }

    #[test]
    fn a_part_is_written_as_a_fraction() {
        assert_eq!(Part::parse("2/3"), Ok(Part { index: 2, of: 3 }));
        for wrong in ["", "2", "0/3", "4/3", "a/b", "1/0", "-1/3"] {
            assert!(Part::parse(wrong).is_err(), "{wrong}");
        }
    }
}
