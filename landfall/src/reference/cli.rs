//! The command line as a Markdown page, from the same definitions that parse it.

use clap::{Arg, Command, CommandFactory as _};

use crate::args::Cli;

/// The page `docs/reference/cli.md`.
pub(super) fn page() -> String {
    let mut root = Cli::command();
    root.build();
    let mut page = "# Commands\n\n".to_owned();
    if let Some(about) = root.get_long_about().or(root.get_about()) {
        page.push_str(&format!("{about}\n\n"));
    }
    page.push_str("Exit codes: 0 it worked, 1 it did not, 2 the command line is wrong, 130 somebody interrupted it.\n\n## Options of every command\n\n");
    page.push_str(&options(&root, true));
    for command in visible(&root) {
        section(command, "landfall", 2, &mut page);
    }
    page
}

fn visible(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

fn section(command: &Command, parent: &str, level: usize, page: &mut String) {
    let name = format!("{parent} {}", command.get_name());
    page.push_str(&format!("\n{} {name}\n\n", "#".repeat(level)));
    if let Some(about) = command.get_long_about().or(command.get_about()) {
        page.push_str(&format!("{about}.\n\n"));
    }
    let options = options(command, false);
    if !options.is_empty() {
        page.push_str(&options);
    }
    if let Some(help) = command.get_after_help() {
        page.push_str(&format!("\n```\n{}\n```\n", help.to_string().trim_end()));
    }
    for command in visible(command) {
        section(command, &name, level + 1, page);
    }
}

/// A table of arguments: the global ones or a command's own.
fn options(command: &Command, global: bool) -> String {
    let rows: Vec<String> = command
        .get_arguments()
        .filter(|argument| !argument.is_hide_set() && argument.is_global_set() == global)
        .filter(|argument| !["help", "version"].contains(&argument.get_id().as_str()))
        .map(row)
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    format!("| argument | meaning |\n|---|---|\n{}", rows.concat())
}

fn row(argument: &Arg) -> String {
    let values: Vec<String> = argument
        .get_value_names()
        .unwrap_or_default()
        .iter()
        .map(|name| format!("<{name}>"))
        .collect();
    let takes = argument.get_action().takes_values();
    let values = if takes { values.join(" ") } else { String::new() };
    let mut name = match (argument.get_long(), argument.get_short()) {
        (Some(long), Some(short)) => format!("-{short}, --{long}"),
        (Some(long), None) => format!("--{long}"),
        (None, Some(short)) => format!("-{short}"),
        (None, None) => String::new(),
    };
    if name.is_empty() {
        name = if argument.is_required_set() {
            values
        } else {
            format!("[{values}]")
        };
    } else if !values.is_empty() {
        name = format!("{name} {values}");
    }
    let mut meaning = argument.get_help().map(ToString::to_string).unwrap_or_default();
    let possible: Vec<String> = argument
        .get_possible_values()
        .iter()
        .filter(|_| takes)
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    if !possible.is_empty() {
        meaning.push_str(&format!("; one of {}", possible.join(", ")));
    }
    let defaults: Vec<String> = argument
        .get_default_values()
        .iter()
        .map(|value| format!("`{}`", value.to_string_lossy()))
        .collect();
    if takes && !defaults.is_empty() {
        meaning.push_str(&format!(" [default: {}]", defaults.join(", ")));
    }
    if let Some(variable) = argument.get_env() {
        meaning.push_str(&format!(" [environment: `{}`]", variable.to_string_lossy()));
    }
    format!(
        "| `{name}` | {} |\n",
        meaning.replace('|', "\\|").replace('\n', " ")
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_has_every_visible_command_and_no_hidden_one() {
        let page = super::page();
        for command in [
            "up",
            "down",
            "status",
            "image build",
            "image export",
            "completion",
        ] {
            assert!(page.contains(&format!(" landfall {command}\n")), "{command}");
        }
        assert!(!page.contains("landfall reference") && !page.contains("--background"));
    }
}
