//! `landfall doctor`: every check, as a table.

use anyhow::Result;
use owo_colors::OwoColorize as _;
use serde_json::json;

use super::Context;
use crate::{
    addresses,
    admin::AdminClient,
    args, background,
    doctor::{self, Check, Question, Verdict},
    images, printer,
    problem::Problem,
    stamp::{DEFAULT_LISTEN, Settings},
};

pub(crate) async fn run(context: &Context, args: &args::Doctor) -> Result<()> {
    let settings = Settings::load(&context.places)?;
    let running = background::pid(&context.places)?.is_some();
    let stamps = settings.as_ref().map(|settings| settings.listen);
    let listen = match args.listen {
        Some(listen) => Some(listen),
        // Our own service listens there, as it should.
        None if running => None,
        None => Some(stamps.unwrap_or(DEFAULT_LISTEN)),
    };
    let cache = images::cache_dir(&context.places)?;
    let network = addresses::network_of(&context.places, settings.as_ref(), None);
    let question = Question {
        state: &context.places.state,
        cache: &cache,
        build: images::build_disk(&context.places, &images::preferred_version())?,
        listen,
        network: network.map(|network| (context.places.name.as_str(), network)),
    };
    let mut checks = doctor::examine(&question, &context.env);
    if running {
        let status = AdminClient::new(&context.places)?.status().await?;
        checks.extend(doctor::examine_stamp(
            &status,
            context.env.clock.now(),
            &context.name_flag(),
        ));
    }
    context
        .printer
        .result(&json!({ "event": "result", "checks": checks }), || page(&checks));
    failures(&checks)
}

fn page(checks: &[Check]) -> String {
    let rows = checks
        .iter()
        .map(|check| vec![mark(check.verdict), check.name.to_owned(), check.found.clone()])
        .collect();
    let mut page = printer::table(&["", "CHECK", "FOUND"], rows);
    for check in checks {
        if let Some(next) = &check.next {
            page.push_str(&format!("\n{}  {}: {next}", "next:".cyan().bold(), check.name));
        }
    }
    page
}

fn mark(verdict: Verdict) -> String {
    match verdict {
        Verdict::Ok => "✓".green().bold().to_string(),
        Verdict::Warning => "!".yellow().bold().to_string(),
        Verdict::NotTried => "–".dimmed().to_string(),
        Verdict::Failed => "✗".red().bold().to_string(),
    }
}

/// The failed checks as one problem.
pub(crate) fn failures(checks: &[Check]) -> Result<()> {
    let failed: Vec<&Check> = checks
        .iter()
        .filter(|check| check.verdict == Verdict::Failed)
        .collect();
    match failed.as_slice() {
        [] => Ok(()),
        [one] => Err(Problem::new(
            format!("this host cannot run Landfall yet: {}: {}", one.name, one.found),
            one.next.clone().unwrap_or_default(),
        )
        .into()),
        many => Err(Problem::new(
            format!(
                "this host cannot run Landfall yet: {}",
                many.iter()
                    .map(|check| check.found.as_str())
                    .collect::<Vec<_>>()
                    .join("; ")
            ),
            many.iter()
                .filter_map(|check| check.next.clone())
                .collect::<Vec<_>>()
                .join("; "),
        )
        .into()),
    }
}
