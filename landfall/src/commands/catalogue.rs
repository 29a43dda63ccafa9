//! `landfall catalogue`: the version catalogue of a stamp. All of it is files of this host: no service has to run.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use cluster_versions::{Offered, Version, Wanted};
use jiff::{civil::Date, tz::TimeZone};
use policy_catalogue::{
    Catalogue, MOST, Minor,
    signed::{MOST_FILE, PrivateKey, PublicKey, sign},
    windows::{Rule, Window, window},
};
use serde_json::{Value, json};

use super::Context;
use crate::{
    args,
    catalogue::{Active, active, check, imported, read, trusted},
    printer,
    problem::Problem,
    stamp::{Settings, write_whole},
};

pub(crate) fn run(context: &Context, command: &args::Catalogue) -> Result<()> {
    match command {
        args::Catalogue::Show => show(context),
        args::Catalogue::Text => {
            context.printer.text("catalogue", &active(&context.places).text);
            Ok(())
        }
        args::Catalogue::Verify { file } => verify(context, file.as_deref()),
        args::Catalogue::Import { file } => import(context, file),
        args::Catalogue::Trust { files, none: _ } => trust(context, files),
        args::Catalogue::Sign(args) => signed(context, args),
        args::Catalogue::Key { file } => key(context, file),
    }
}

fn show(context: &Context) -> Result<()> {
    let found = active(&context.places);
    let today = context.env.clock.now().to_zoned(TimeZone::UTC).date();
    let offered = Offered::pinned();
    let minors = found.in_force.catalogue.minors.iter();
    let minors: Vec<(&Minor, Option<Window>)> = minors
        .map(|minor| (minor, of(&found.in_force.catalogue, minor, &offered, today)))
        .collect();
    let mut value = source(&found);
    value["event"] = json!("result");
    value["windows"] = minors
        .iter()
        .map(|(minor, window)| {
            json!({
                "minor": minor.name,
                "standing": window.as_ref().map(|window| window.standing.name()),
                "until": window.as_ref().and_then(|window| window.until),
                "warning": window.as_ref().and_then(|window| window.warning.as_deref()),
                "onThisStamp": here(&offered, minor),
            })
        })
        .collect();
    value["catalogue"] = json!(&*found.in_force.catalogue);
    context.printer.result(&value, || page(&found, &minors, &offered));
    Ok(())
}

/// Which catalogue it is.
fn source(found: &Active) -> Value {
    json!({
        "serial": found.in_force.catalogue.serial,
        "issued": found.in_force.catalogue.issued,
        "source": if found.in_force.signed_by.is_some() { "Imported" } else { "BuiltIn" },
        "signedBy": found.in_force.signed_by.map(|key| key.to_string()),
        "refused": found.in_force.refused,
    })
}

/// The window of a minor, by the rule of the profile `aks`.
fn of(catalogue: &Catalogue, minor: &Minor, offered: &Offered, today: Date) -> Option<Window> {
    let newest = offered.minors().last().copied()?;
    match minor.name.parse::<Wanted>() {
        Ok(Wanted::Newest { major, minor }) => Some(window(
            catalogue,
            (major, minor),
            newest,
            Rule::ThreeNewest,
            today,
        )),
        // Names were read as such when the catalogue was.
        Ok(Wanted::Exact(_)) | Err(_) => None,
    }
}

/// The versions of a minor that the stamp offers.
fn here(offered: &Offered, minor: &Minor) -> Vec<String> {
    let versions = offered.versions().iter();
    let of_minor = versions.filter(|version| version.minor_name() == minor.name);
    of_minor.map(Version::to_string).collect()
}

fn page(found: &Active, minors: &[(&Minor, Option<Window>)], offered: &Offered) -> String {
    let catalogue = &found.in_force.catalogue;
    let whose = match found.in_force.signed_by {
        Some(key) => format!("imported, signed with {key}"),
        None => "the one of this program".to_owned(),
    };
    let mut page = format!(
        "Catalogue {} of {}, {whose}.\n",
        catalogue.serial, catalogue.issued
    );
    if let Some(why) = &found.in_force.refused {
        page.push_str(&format!("The one that was imported is not in force: {why}.\n"));
    }
    page.push('\n');
    let rows = minors.iter().map(|(minor, window)| {
        let text = |date: Option<Date>| date.map_or_else(|| "-".to_owned(), |date| date.to_string());
        let here = here(offered, minor);
        vec![
            minor.name.clone(),
            minor.released.to_string(),
            minor
                .patches
                .last()
                .map_or_else(|| "-".to_owned(), |patch| patch.version.clone()),
            if here.is_empty() {
                "-".to_owned()
            } else {
                here.join(", ")
            },
            window
                .as_ref()
                .map_or("-", |window| window.standing.name())
                .to_owned(),
            text(window.as_ref().and_then(|window| window.until)),
            text(minor.lts_end),
        ]
    });
    page.push_str(&printer::table(
        &[
            "MINOR",
            "RELEASED",
            "NEWEST",
            "HERE",
            "STANDING",
            "UNTIL",
            "AZURE'S LTS",
        ],
        rows.collect(),
    ));
    page.push_str("\n\n");
    let rows = catalogue.components.iter().map(|component| {
        let cves = catalogue
            .cves
            .iter()
            .filter(|cve| cve.component == component.name);
        let issues = catalogue
            .issues
            .iter()
            .filter(|issue| issue.component == component.name);
        vec![
            component.name.clone(),
            cves.count().to_string(),
            issues.count().to_string(),
        ]
    });
    page.push_str(&printer::table(
        &["COMPONENT", "CVES", "KNOWN ISSUES"],
        rows.collect(),
    ));
    page.push('\n');
    let warnings = minors
        .iter()
        .filter(|(minor, _)| !here(offered, minor).is_empty())
        .filter_map(|(_, window)| window.as_ref()?.warning.as_deref());
    for warning in warnings {
        page.push_str(&format!("\n{warning}\n"));
    }
    page
}

/// A file that the command line names.
fn bytes(file: &Path, most: usize) -> Result<Vec<u8>> {
    let most = u64::try_from(most).unwrap_or(u64::MAX);
    read(file, most).map_err(|error| {
        let next = crate::problem::after(error.kind()).unwrap_or("check that path, and repeat");
        Problem::usage(format!("cannot read {}", file.display()), next)
            .because(error)
            .into()
    })
}

fn text(file: &Path, most: usize) -> Result<String> {
    String::from_utf8(bytes(file, most)?).map_err(|_| {
        Problem::usage(
            format!("{} is no text", file.display()),
            "check that path, and repeat",
        )
        .into()
    })
}

fn verify(context: &Context, file: Option<&Path>) -> Result<()> {
    let found = match file {
        Some(file) => check(&bytes(file, MOST_FILE)?, &trusted(&context.places)?)?,
        None => imported(&context.places)?.ok_or_else(|| {
            Problem::new(
                "no catalogue was imported: that of the program is in force",
                "name a file: landfall catalogue verify FILE",
            )
        })?,
    };
    let present = active(&context.places).in_force.catalogue;
    let newer = found.in_force.catalogue.serial > present.serial;
    let mut value = source(&found);
    value["event"] = json!("result");
    value["newer"] = json!(newer);
    context.printer.result(&value, || {
        let key = found.in_force.signed_by.map(|key| key.to_string());
        format!(
            "Catalogue {} of {} is whole, and signed with {}.\n{}\n",
            found.in_force.catalogue.serial,
            found.in_force.catalogue.issued,
            key.unwrap_or_default(),
            if newer {
                format!("It is newer than {}, which is in force.", present.serial)
            } else {
                format!("{} is in force; this one is not newer.", present.serial)
            }
        )
    });
    Ok(())
}

fn import(context: &Context, file: &Path) -> Result<()> {
    context.require_root("import a version catalogue")?;
    Settings::required(&context.places)?;
    let file = bytes(file, MOST_FILE)?;
    let found = check(&file, &trusted(&context.places)?)?;
    let (serial, present) = (
        found.in_force.catalogue.serial,
        active(&context.places).in_force.catalogue,
    );
    if serial <= present.serial {
        return Err(Problem::new(
            format!(
                "catalogue {serial} is not newer than {}, which is in force",
                present.serial
            ),
            "import one with a greater serial: an older one would bring back what was mended since",
        )
        .into());
    }
    write_whole(&context.places.catalogue(), &file, 0o644)?;
    let mut value = source(&found);
    value["event"] = json!("result");
    context.printer.result(&value, || {
        format!(
            "Catalogue {serial} of {} is in force.\n",
            found.in_force.catalogue.issued
        )
    });
    Ok(())
}

fn trust(context: &Context, files: &[PathBuf]) -> Result<()> {
    context.require_root("change which keys are trusted")?;
    let mut settings = Settings::required(&context.places)?;
    let mut keys = Vec::new();
    for file in files {
        let key = PublicKey::of_pem(&text(file, 4096)?).map_err(|error| {
            Problem::usage(
                format!("{}: {error}", file.display()),
                "give the public key, as landfall catalogue key writes it beside the private one",
            )
        })?;
        keys.push(key.to_string());
    }
    keys.sort();
    keys.dedup();
    settings.trust_catalogues_of(&context.places, keys.clone())?;
    let found = active(&context.places);
    let mut value = source(&found);
    value["event"] = json!("result");
    value["trusted"] = json!(keys);
    context.printer.result(&value, || {
        let mut page = match keys.as_slice() {
            [] => "No key is trusted.\n".to_owned(),
            keys => format!("Trusted: {}\n", keys.join(", ")),
        };
        if let Some(why) = &found.in_force.refused {
            page.push_str(&format!(
                "The catalogue that was imported is not in force now: {why}.\n"
            ));
        }
        page
    });
    Ok(())
}

fn signed(context: &Context, args: &args::CatalogueSign) -> Result<()> {
    let catalogue = text(&args.file, MOST)?;
    // What nobody could read is not signed.
    let read = Catalogue::parse(&catalogue).map_err(|error| {
        Problem::usage(
            format!("{}: {error}", args.file.display()),
            "mend the file; landfall catalogue text prints one that is good",
        )
    })?;
    let key = PrivateKey::of_pem(&text(&args.key, 4096)?).map_err(|error| {
        Problem::usage(
            format!("{}: {error}", args.key.display()),
            "make one: landfall catalogue key FILE",
        )
    })?;
    let file = sign(&catalogue, &key).context("the catalogue cannot be signed")?;
    let out = args.out.clone().unwrap_or_else(|| beside(&args.file, ".signed"));
    write_whole(&out, file.as_bytes(), 0o644)?;
    let by = key.public().to_string();
    context.printer.result(
        &json!({ "event": "result", "serial": read.serial, "signedBy": by, "file": out }),
        || {
            format!(
                "Catalogue {} is signed with {by} in {}.\nPut it in force: landfall catalogue import {}\n",
                read.serial,
                out.display(),
                out.display()
            )
        },
    );
    Ok(())
}

fn key(context: &Context, file: &Path) -> Result<()> {
    let mut seed = zeroize::Zeroizing::new([0_u8; 32]);
    aws_lc_rs::rand::fill(&mut *seed).map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    let key = PrivateKey::of_seed(&seed)?;
    let private = key.to_pem()?;
    base_files::create_new(file, private.as_bytes(), 0o600).map_err(|error| {
        let next = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "choose another file: a key is not written over",
            other => crate::problem::after(other).unwrap_or("check that path, and repeat"),
        };
        Problem::usage(format!("cannot write {}", file.display()), next).because(error)
    })?;
    let public = beside(file, ".pub");
    write_whole(&public, key.public().to_pem().as_bytes(), 0o644)?;
    let shown = key.public().to_string();
    context.printer.result(
        &json!({ "event": "result", "key": shown, "private": file, "public": public }),
        || {
            format!(
                "The key {shown} is in {}; keep it away from others.\nStamps trust it by: landfall catalogue trust {}\n",
                file.display(),
                public.display()
            )
        },
    );
    Ok(())
}

/// A file's name with something after it.
fn beside(file: &Path, more: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(more);
    PathBuf::from(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_tells_minors_components_and_what_is_wrong() {
        let mut found = Active {
            in_force: providers_containerservice::InForce::built_in(),
            text: String::new(),
        };
        found.in_force.refused = Some("it is broken".to_owned());
        let offered = Offered::pinned();
        let today: Date = "2027-06-10".parse().unwrap();
        let catalogue = Catalogue::built_in();
        let minors = catalogue.minors.iter();
        let minors: Vec<_> = minors
            .map(|minor| (minor, of(&catalogue, minor, &offered, today)))
            .collect();
        let page = anstream::adapter::strip_str(&page(&found, &minors, &offered)).to_string();
        for wanted in [
            "the one of this program",
            "not in force: it is broken.",
            "1.34",
            "Deprecated",
            "Ending",
            "etcd",
            "ends on 2027-06-28, in 18 days",
        ] {
            assert!(page.contains(wanted), "{wanted}: {page}");
        }
        assert!(
            !page.contains("1.34 is deprecated"),
            "nobody runs it here: {page}"
        );
    }

    #[test]
    fn names_are_extended_not_replaced() {
        assert_eq!(beside(Path::new("a/b.key"), ".pub"), Path::new("a/b.key.pub"));
    }
}
