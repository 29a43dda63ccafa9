//! The text of one scrape.

use std::{fmt::Write as _, time::Duration};

use crate::{Family, Histogram, Kind};

/// The content type of a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The most characters of a label's value.
const MOST_CHARS: usize = 128;

/// The text of one scrape, while it is written.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
    left_out: u64,
}

/// A value of a series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Sample {
    /// A whole number.
    Whole(u64),
    /// Any number.
    Real(f64),
}

impl From<u64> for Sample {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<u32> for Sample {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<usize> for Sample {
    fn from(value: usize) -> Self {
        Self::Whole(u64::try_from(value).unwrap_or(u64::MAX))
    }
}

impl From<bool> for Sample {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Sample {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<Duration> for Sample {
    /// Seconds.
    fn from(value: Duration) -> Self {
        Self::Real(value.as_secs_f64())
    }
}

impl Page {
    /// An empty page.
    pub fn new() -> Self {
        Self::default()
    }

    /// The series of a family follow. Each family is written once.
    pub fn family(&mut self, family: &'static Family) -> Samples<'_> {
        // Writing to a String does not fail; here and below.
        let _ = writeln!(
            self.text,
            "# HELP {} {}\n# TYPE {} {}",
            family.name,
            family.help,
            family.name,
            family.kind.as_str()
        );
        Samples {
            page: self,
            family,
            written: 0,
        }
    }

    /// A family with one series.
    pub fn one(&mut self, family: &'static Family, value: impl Into<Sample>) {
        self.family(family).put(&[], value);
    }

    /// How many series were left out because their families would have had too many, or because their labels were not those of the family.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    /// The text.
    pub fn finish(self) -> String {
        self.text
    }
}

/// The series of one family, while they are written.
#[derive(Debug)]
pub struct Samples<'p> {
    page: &'p mut Page,
    family: &'static Family,
    written: usize,
}

impl Samples<'_> {
    /// One series, with the values of the family's labels.
    pub fn put(&mut self, labels: &[&str], value: impl Into<Sample>) {
        if self.has_room(labels) && self.family.kind != Kind::Histogram {
            self.line("", labels, None, value.into());
        }
    }

    /// A histogram, with the values of the family's labels.
    pub fn histogram(&mut self, labels: &[&str], histogram: &Histogram) {
        if !self.has_room(labels) || self.family.kind != Kind::Histogram {
            return;
        }
        let mut counted = 0;
        for (bound, up_to) in histogram.cumulative() {
            counted = up_to;
            let bound = Duration::from_micros(bound).as_secs_f64().to_string();
            self.line("_bucket", labels, Some(&bound), up_to.into());
        }
        // Counts go on meanwhile: the last bucket must not have fewer than the one before.
        let all = histogram.count().max(counted);
        self.line("_bucket", labels, Some("+Inf"), all.into());
        self.line("_sum", labels, None, histogram.sum().into());
        self.line("_count", labels, None, all.into());
    }

    /// Whether one more may be written; if not, it is counted.
    fn has_room(&mut self, labels: &[&str]) -> bool {
        let room = self.written < self.family.most && labels.len() == self.family.labels.len();
        if room {
            self.written += 1;
        } else {
            self.page.left_out += 1;
        }
        room
    }

    fn line(&mut self, suffix: &str, labels: &[&str], bound: Option<&str>, value: Sample) {
        let text = &mut self.page.text;
        text.push_str(self.family.name);
        text.push_str(suffix);
        let own = self.family.labels.iter().copied().zip(labels.iter().copied());
        let mut first = true;
        for (name, value) in own.chain(bound.map(|bound| ("le", bound))) {
            text.push(if first { '{' } else { ',' });
            first = false;
            text.push_str(name);
            text.push_str("=\"");
            for c in value.chars().take(MOST_CHARS) {
                match c {
                    '\\' => text.push_str("\\\\"),
                    '"' => text.push_str("\\\""),
                    '\n' => text.push_str("\\n"),
                    c => text.push(c),
                }
            }
            text.push('"');
        }
        if !first {
            text.push('}');
        }
        let _ = match value {
            Sample::Whole(value) => writeln!(text, " {value}"),
            Sample::Real(value) if value.is_infinite() && value > 0.0 => writeln!(text, " +Inf"),
            Sample::Real(value) if value.is_infinite() => writeln!(text, " -Inf"),
            Sample::Real(value) => writeln!(text, " {value}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static PLAIN: Family = Family::gauge("landfall_plain", "Plain.", &[], 1);
    static KINDS: Family = Family::counter("landfall_kinds_total", "By kind.", &["kind", "result"], 2);
    static TIMES: Family = Family::histogram("landfall_times_seconds", "Times.", &["of"], 1);

    #[test]
    fn a_page_is_what_prometheus_reads() {
        let mut page = Page::new();
        page.one(&PLAIN, 1.5);
        let mut kinds = page.family(&KINDS);
        kinds.put(&["a", "ok"], 3_u64);
        kinds.put(&["say \"b\"\n\\", "ok"], true);
        let times = Histogram::new(&[5_000, 2_500_000]);
        times.observe(Duration::from_millis(5));
        times.observe(Duration::from_secs(3));
        page.family(&TIMES).histogram(&["read"], &times);
        assert_eq!(page.left_out(), 0);
        assert_eq!(
            page.finish(),
            "# HELP landfall_plain Plain.\n\
             # TYPE landfall_plain gauge\n\
             landfall_plain 1.5\n\
             # HELP landfall_kinds_total By kind.\n\
             # TYPE landfall_kinds_total counter\n\
             landfall_kinds_total{kind=\"a\",result=\"ok\"} 3\n\
             landfall_kinds_total{kind=\"say \\\"b\\\"\\n\\\\\",result=\"ok\"} 1\n\
             # HELP landfall_times_seconds Times.\n\
             # TYPE landfall_times_seconds histogram\n\
             landfall_times_seconds_bucket{of=\"read\",le=\"0.005\"} 1\n\
             landfall_times_seconds_bucket{of=\"read\",le=\"2.5\"} 1\n\
             landfall_times_seconds_bucket{of=\"read\",le=\"+Inf\"} 2\n\
             landfall_times_seconds_sum{of=\"read\"} 3.005\n\
             landfall_times_seconds_count{of=\"read\"} 2\n"
        );
    }

    #[test]
    fn a_family_has_no_more_series_than_it_says_and_labels_are_cut() {
        let mut page = Page::new();
        let mut kinds = page.family(&KINDS);
        for number in 0..5_u64 {
            kinds.put(&["x", &number.to_string()], number);
        }
        kinds.put(&["too few"], 1_u64);
        let text = "y".repeat(MOST_CHARS * 2);
        page.family(&TIMES).put(&[&text], 1_u64);
        assert_eq!(page.left_out(), 4);
        let page = page.finish();
        assert_eq!(page.matches("landfall_kinds_total{").count(), 2);
        assert!(!page.contains("yy"), "a histogram is written as one: {page}");
        let mut page = Page::new();
        page.family(&KINDS).put(&[&text, "ok"], 1_u64);
        let page = page.finish();
        assert_eq!(
            page.matches('y').count(),
            MOST_CHARS + 1,
            "one is of the help text"
        );
    }

    #[test]
    fn numbers_that_are_none_are_written_as_prometheus_reads_them() {
        for (value, text) in [
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (0.0, "0"),
        ] {
            let mut page = Page::new();
            page.one(&PLAIN, value);
            assert!(page.finish().ends_with(&format!("landfall_plain {text}\n")));
        }
    }
}
