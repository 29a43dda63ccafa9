//! The printer: the only place that writes to the terminal.
//!
//! Results go to standard output, progress to standard error, so that `landfall az` and `landfall kubeconfig`
//! can be used in scripts. On a terminal a running step is a line that is updated; elsewhere it is a plain
//! line when it starts and one when it ends; with `--output json` it is one JSON object a line on standard
//! output, and the result is the last.
//!
//! Always true: nothing is printed in colour unless it goes to a terminal that wants it (`NO_COLOR`, `TERM=dumb`).

use std::{
    io::{IsTerminal, Write},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use base_env::Clock;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use owo_colors::OwoColorize;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{args::Output, problem};

/// How much to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Results and errors.
    Quiet,
    /// Steps and notes as well.
    Normal,
    /// Details as well.
    Verbose,
}

/// Prints. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Printer {
    inner: Arc<Inner>,
}

struct Inner {
    output: Output,
    level: Level,
    /// Whether a running step is a line that is updated.
    moving: bool,
    bars: MultiProgress,
    clock: Arc<dyn Clock>,
    start: Duration,
}

/// Columns of a step's title, so that details line up.
const TITLE_WIDTH: usize = 24;

impl Printer {
    pub(crate) fn new(output: Output, level: Level, clock: Arc<dyn Clock>) -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let moving =
            output == Output::Table && level > Level::Quiet && !dumb && std::io::stderr().is_terminal();
        Self {
            inner: Arc::new(Inner {
                output,
                level,
                moving,
                bars: MultiProgress::new(),
                start: clock.monotonic(),
                clock,
            }),
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.inner.output == Output::Json
    }

    pub(crate) fn is_csv(&self) -> bool {
        self.inner.output == Output::Csv
    }

    pub(crate) fn is_verbose(&self) -> bool {
        self.inner.level == Level::Verbose
    }

    /// Time since the command began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.inner.clock.monotonic().saturating_sub(self.inner.start)
    }

    /// Begins a step. `name` is for programs, `title` for people.
    pub(crate) fn step(&self, name: &'static str, title: impl Into<String>) -> Step {
        let title = title.into();
        let bar = self.inner.moving.then(|| {
            let bar = self.inner.bars.add(ProgressBar::new_spinner());
            bar.set_style(
                ProgressStyle::with_template(&format!(
                    "  {{spinner:.cyan}} {{prefix:<{TITLE_WIDTH}}} {{wide_msg:.dim}} {{elapsed:>5.dim}}"
                ))
                .expect("the template is a constant")
                .tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "),
            );
            bar.set_prefix(title.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let step = Step {
            printer: self.clone(),
            name,
            title,
            start: self.inner.clock.monotonic(),
            bar,
            last: Mutex::new(String::new()),
            ended: false,
        };
        step.event("started", None);
        step
    }

    /// A sentence about the progress.
    pub(crate) fn note(&self, text: &str) {
        if self.is_json() {
            self.json_line(&json!({ "event": "note", "text": text }));
        } else if self.inner.level >= Level::Normal {
            self.line(&format!("    {}", text.dimmed()));
        }
    }

    /// A detail, with `--verbose` only.
    pub(crate) fn detail(&self, text: &str) {
        if self.inner.level == Level::Verbose {
            self.note(text);
        }
    }

    /// A warning.
    pub(crate) fn warn(&self, text: &str) {
        if self.is_json() {
            self.json_line(&json!({ "event": "warning", "text": text }));
        } else {
            self.line(&format!("{} {text}", "warning:".yellow().bold()));
        }
    }

    /// A heading or a blank line between steps; not in JSON.
    pub(crate) fn heading(&self, text: &str) {
        if !self.is_json() && self.inner.level >= Level::Normal {
            self.line(text);
        }
    }

    /// Prints the consequence and waits for a typed "yes". Any other input, and its end, means no.
    ///
    /// # Errors
    /// When the answer cannot be read.
    pub(crate) async fn confirm(&self, what: &str) -> anyhow::Result<bool> {
        let mut err = anstream::stderr().lock();
        drop(write!(err, "{what} Type yes to go on: ").and_then(|()| err.flush()));
        drop(err);
        let read = || {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|_| line)
        };
        let answer = tokio::task::spawn_blocking(read)
            .await
            .context("cannot read the answer")?
            .context("cannot read the answer")?;
        Ok(answer.trim().eq_ignore_ascii_case("yes"))
    }

    /// The result of the command: `value` for programs, `page` for people.
    pub(crate) fn result(&self, value: &impl Serialize, page: impl FnOnce() -> String) {
        if self.is_json() {
            match serde_json::to_value(value) {
                Ok(value) => self.json_line(&value),
                Err(error) => self.warn(&format!("the result cannot be written as JSON: {error}")),
            }
        } else {
            self.out(page().trim_end());
        }
    }

    /// Exact text to standard output (kubeconfig, completion scripts); in JSON under `key`.
    pub(crate) fn text(&self, key: &str, text: &str) {
        if self.is_json() {
            self.json_line(&json!({ key: text }));
        } else {
            self.out(text.trim_end_matches('\n'));
        }
    }

    /// Prints the error: one sentence, the next step, and with `--verbose` the causes.
    pub(crate) fn problem(&self, error: &anyhow::Error) {
        let told = problem::told(error);
        if self.is_json() {
            self.json_line(&json!({ "event": "error", "error": {
                "message": told.sentence, "next": told.next, "causes": told.causes } }));
            return;
        }
        self.line(&format!("{} {}", "error:".red().bold(), told.sentence));
        // The first cause helps understanding; further ones are for `--verbose`.
        let shown = if self.is_verbose() { told.causes.len() } else { 1 };
        for cause in told.causes.iter().take(shown) {
            self.line(&format!("{} {cause}", "cause:".dimmed()));
        }
        if let Some(next) = &told.next {
            self.line(&format!("{}  {next}", "next:".cyan().bold()));
        }
    }

    fn json_line(&self, value: &Value) {
        self.out(&value.to_string());
    }

    fn out(&self, text: &str) {
        let write = || {
            // A closed pipe (`landfall status | head`) is not a failure of ours.
            let mut out = anstream::stdout().lock();
            drop(writeln!(out, "{text}").and_then(|()| out.flush()));
        };
        if self.inner.moving {
            self.inner.bars.suspend(write)
        } else {
            write()
        }
    }

    fn line(&self, text: &str) {
        let write = || drop(writeln!(anstream::stderr().lock(), "{text}"));
        if self.inner.moving {
            self.inner.bars.suspend(write)
        } else {
            write()
        }
    }
}

/// A step in progress. Dropping it unfinished marks it as failed.
pub(crate) struct Step {
    printer: Printer,
    name: &'static str,
    title: String,
    start: Duration,
    bar: Option<ProgressBar>,
    last: Mutex<String>,
    ended: bool,
}

impl Step {
    /// Its current activity. The same text is printed once.
    pub(crate) fn now(&self, text: &str) {
        {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            if *last == text {
                return;
            }
            text.clone_into(&mut last);
        }
        match &self.bar {
            Some(bar) => bar.set_message(text.to_owned()),
            None => self.event("progress", Some(text)),
        }
    }

    /// Marks it as done.
    pub(crate) fn done(self, detail: impl AsRef<str>) {
        self.end("done", "✓", detail.as_ref());
    }

    /// No work was necessary.
    pub(crate) fn skip(self, detail: impl AsRef<str>) {
        self.end("skipped", "✓", detail.as_ref());
    }

    /// Done, with a warning.
    pub(crate) fn done_with_warning(self, detail: impl AsRef<str>) {
        self.end("warning", "!", detail.as_ref());
    }

    fn end(mut self, state: &'static str, mark: &str, detail: &str) {
        self.ended = true;
        self.finish(state, mark, detail);
    }

    fn seconds(&self) -> f64 {
        self.printer
            .inner
            .clock
            .monotonic()
            .saturating_sub(self.start)
            .as_secs_f64()
    }

    fn finish(&self, state: &'static str, mark: &str, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            let mark = match state {
                "failed" => mark.red().bold().to_string(),
                "warning" => mark.yellow().bold().to_string(),
                _ => mark.green().bold().to_string(),
            };
            let time = duration(self.seconds());
            self.printer.line(&format!(
                "  {mark} {:<TITLE_WIDTH$} {} {}",
                self.title,
                detail,
                time.dimmed()
            ));
        } else {
            self.event(state, Some(detail));
        }
    }

    fn event(&self, state: &str, text: Option<&str>) {
        let printer = &self.printer;
        if printer.is_json() {
            let mut event = json!({ "event": "step", "step": self.name, "state": state, "title": self.title,
                "at_seconds": round(printer.elapsed().as_secs_f64()) });
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                event["text"] = json!(text);
            }
            if state != "started" && state != "progress" {
                event["seconds"] = json!(round(self.seconds()));
            }
            printer.json_line(&event);
            return;
        }
        if printer.inner.moving || printer.inner.level == Level::Quiet {
            return;
        }
        let at = format!("[{:>6.1} s]", printer.elapsed().as_secs_f64());
        let text = text.unwrap_or_default();
        let tail = if text.is_empty() {
            String::new()
        } else {
            format!(": {text}")
        };
        match state {
            "started" => printer.line(&format!("{at} {} …", self.title)),
            "progress" => printer.line(&format!("{at} {}{tail}", self.title)),
            "failed" => printer.line(&format!("{at} FAILED  {}{tail}", self.title)),
            "warning" => printer.line(&format!("{at} warning {}{tail}", self.title)),
            _ => printer.line(&format!(
                "{at} done    {}{tail} ({})",
                self.title,
                duration(self.seconds())
            )),
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if !self.ended {
            self.finish("failed", "✗", "");
        }
    }
}

/// A table for people: headings, columns that line up, no lines.
pub(crate) fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let headings = headings.iter().map(|text| text.dimmed().to_string()).collect();
    let rows: Vec<Vec<String>> = std::iter::once(headings).chain(rows).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|text| width(text))
                .max()
                .unwrap_or(0)
        })
        .collect();
    let line = |row: &Vec<String>| {
        let last = row.iter().rposition(|text| !text.is_empty()).unwrap_or(0);
        let cells: Vec<String> = row
            .iter()
            .take(last + 1)
            .enumerate()
            .map(|(column, text)| {
                if column == last {
                    text.clone()
                } else {
                    pad(text, widths[column])
                }
            })
            .collect();
        cells.join("  ")
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Fills up to a width; colours do not count.
pub(crate) fn pad(text: &str, to: usize) -> String {
    format!("{text}{}", " ".repeat(to.saturating_sub(width(text))))
}

fn width(text: &str) -> usize {
    anstream::adapter::strip_str(text).to_string().chars().count()
}

/// A duration for people: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        _ if seconds < 9.95 => format!("{seconds:.1} s"),
        0..60 => format!("{whole} s"),
        60..3_600 => format!("{} min {} s", whole / 60, whole % 60),
        3_600..86_400 => format!("{} h {} min", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{} d {} h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

/// A size for people, in powers of 1000 as for disks.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1_000)),
        1_000_000..1_000_000_000 => format!("{} MB", bytes / 1_000_000),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

fn round(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_read_well() {
        let said: Vec<String> = [0.04, 9.94, 10.2, 59.4, 200.0, 7_500.0, 273_600.0]
            .map(duration)
            .into();
        assert_eq!(
            said,
            [
                "0.0 s",
                "9.9 s",
                "10 s",
                "59 s",
                "3 min 20 s",
                "2 h 5 min",
                "3 d 4 h"
            ]
        );
        let sizes: Vec<String> = [1, 214_000_000, 1_510_000_000].map(size).into();
        assert_eq!(sizes, ["1 kB", "214 MB", "1.5 GB"]);
    }

    #[test]
    fn columns_line_up_and_colours_do_not_count() {
        let rows = vec![
            vec!["one".green().to_string(), "x".into()],
            vec!["2".into(), String::new()],
        ];
        let text = anstream::adapter::strip_str(&table(&["A", "LONG"], rows)).to_string();
        assert_eq!(text, "A    LONG\none  x\n2");
    }
}
