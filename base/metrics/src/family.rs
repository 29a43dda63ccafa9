//! What a metric is called, and how much of it there may be.

/// What a metric's values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// They only grow while the process lives.
    Counter,
    /// They grow and fall.
    Gauge,
    /// Counts up to bounds, and a sum, in seconds.
    Histogram,
}

impl Kind {
    /// As in the page.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric with all its series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// Its name, by Prometheus' convention: see [`Self::fault`].
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// What it says, for people; one line.
    pub help: &'static str,
    /// The names of its labels, in the order of their values.
    pub labels: &'static [&'static str],
    /// The most series that it has; of a histogram, the most sets of labels.
    pub most: usize,
}

/// What a label must not be: its values would be as many as there are requests or callers, or would be secrets.
const NEVER: [&str; 12] = [
    "path",
    "url",
    "uri",
    "query",
    "principal",
    "user",
    "object_id",
    "client_id",
    "request_id",
    "address",
    "token",
    "secret",
];
/// Names begin so: those of the product, and those that every Prometheus client has.
const PREFIXES: [&str; 2] = ["landfall_", "process_"];

impl Family {
    /// A metric whose values only grow.
    pub const fn counter(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        most: usize,
    ) -> Self {
        Self {
            name,
            kind: Kind::Counter,
            help,
            labels,
            most,
        }
    }

    /// A metric whose values grow and fall.
    pub const fn gauge(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        most: usize,
    ) -> Self {
        Self {
            name,
            kind: Kind::Gauge,
            help,
            labels,
            most,
        }
    }

    /// A histogram of seconds.
    pub const fn histogram(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
        most: usize,
    ) -> Self {
        Self {
            name,
            kind: Kind::Histogram,
            help,
            labels,
            most,
        }
    }

    /// Where it does not follow the conventions: for a test over all families.
    pub fn fault(&self) -> Option<String> {
        let name = self.name;
        let is_word = |text: &str| {
            text.starts_with(|first: char| first.is_ascii_lowercase())
                && text
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        };
        let fault = if !is_word(name) || !PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            "its name is not one of lower-case words that begins with landfall_ or process_".to_owned()
        } else if (self.kind == Kind::Counter) != name.ends_with("_total") {
            "counters, and only they, end with _total".to_owned()
        } else if self.kind == Kind::Histogram && !name.ends_with("_seconds") {
            "histograms are of seconds, and say so".to_owned()
        } else if ["_ms", "_millis", "_minutes", "_kib", "_mib", "_gib", "_percent"]
            .iter()
            .any(|unit| name.ends_with(unit))
        {
            "units are seconds, bytes and ratios".to_owned()
        } else if self.help.is_empty() || self.help.contains(['\n', '\\']) {
            "its help text is one line".to_owned()
        } else if self.most == 0 || self.labels.is_empty() && self.most != 1 {
            "without labels it has one series".to_owned()
        } else if let Some(label) = self
            .labels
            .iter()
            .find(|label| !is_word(label) || NEVER.contains(label) || **label == "le")
        {
            format!("{label} is no label that a metric may have")
        } else {
            return None;
        };
        Some(format!("{name}: {fault}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_breaks_the_conventions_is_found() {
        let good = Family::counter("landfall_x_total", "X.", &["kind"], 3);
        assert_eq!(good.fault(), None);
        for wrong in [
            Family::counter("landfall_x", "X.", &[], 1),
            Family::gauge("landfall_x_total", "X.", &[], 1),
            Family::gauge("x", "X.", &[], 1),
            Family::gauge("landfall_X", "X.", &[], 1),
            Family::gauge("landfall_x_ms", "X.", &[], 1),
            Family::gauge("landfall_x", "", &[], 1),
            Family::gauge("landfall_x", "X.", &[], 2),
            Family::gauge("landfall_x", "X.", &["kind"], 0),
            Family::gauge("landfall_x", "X.", &["path"], 9),
            Family::gauge("landfall_x", "X.", &["le"], 9),
            Family::histogram("landfall_x", "X.", &[], 1),
        ] {
            assert!(wrong.fault().is_some(), "{wrong:?}");
        }
    }
}
