//! `landfall identity`: the directory: principals and their credentials. Through the stamp's Graph API, like
//! `az ad`; for hosts without `az`.
//!
//! Always true: a new secret is only in the result of its command; secrets of the stamp's own principals are
//! also in the files where the other commands read them, and such a file is written before the previous
//! secret is removed.

mod credentials;
mod groups;
mod keys;
mod users;

use anyhow::Result;
use serde_json::{Value, json};

use super::Context;
use crate::{args, graph::GraphClient, printer, problem::Problem, stamp::Settings};

pub(crate) async fn run(context: &Context, command: &args::Identity) -> Result<()> {
    let settings = Settings::required(&context.places)?;
    if let args::Identity::RotateKeys(wanted) = command {
        return keys::rotate(context, &settings, wanted).await;
    }
    let graph = GraphClient::login(&context.places, &settings, &context.env).await?;
    let session = Session {
        context,
        settings: &settings,
        graph: &graph,
    };
    match command {
        args::Identity::User(command) => session.user(command).await,
        args::Identity::Group(command) => session.group(command).await,
        args::Identity::App(command) => session.application(command).await,
        args::Identity::Sp(command) => session.service_principal(command).await,
        args::Identity::Secret(command) => session.secret(command).await,
        args::Identity::Certificate(command) => session.certificate(command).await,
        args::Identity::Federated(command) => session.federated(command).await,
        // Not a command of the directory: it was handled above.
        args::Identity::RotateKeys(_) => Ok(()),
    }
}

/// A command that is logged in.
struct Session<'a> {
    context: &'a Context,
    settings: &'a Settings,
    graph: &'a GraphClient,
}

/// A kind of object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Group,
    Application,
    ServicePrincipal,
    /// A service principal that is no managed identity: it has its own secrets and certificates. A cluster's
    /// identity may have the same name as the stamp's application.
    Program,
}

impl Kind {
    fn collection(self) -> &'static str {
        match self {
            Self::User => "/users",
            Self::Group => "/groups",
            Self::Application => "/applications",
            Self::ServicePrincipal | Self::Program => "/servicePrincipals",
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Application => "application",
            Self::ServicePrincipal | Self::Program => "service principal",
        }
    }

    fn command(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
            Self::Application => "app",
            Self::ServicePrincipal | Self::Program => "sp",
        }
    }

    /// The property besides id and display name by which an object is found.
    fn login(self) -> Option<&'static str> {
        match self {
            Self::User => Some("userPrincipalName"),
            Self::Group => None,
            Self::Application | Self::ServicePrincipal | Self::Program => Some("appId"),
        }
    }
}

fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or("-")
}

fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.chars().enumerate().all(|(at, char)| match at {
            8 | 13 | 18 | 23 => char == '-',
            _ => char.is_ascii_hexdigit(),
        })
}

/// An object's path.
fn path(kind: Kind, object: &Value) -> String {
    format!("{}/{}", kind.collection(), text(object, "id"))
}

pub(super) async fn confirmed(context: &Context, yes: bool, what: &str) -> Result<()> {
    if yes || context.printer.confirm(what).await? {
        return Ok(());
    }
    Err(Problem::new("nothing was done", "answer yes, or give --yes").into())
}

impl Session<'_> {
    /// The object with a name, if there is one; an error if there are several.
    async fn look(&self, kind: Kind, name: &str) -> Result<Option<Value>> {
        let quoted = name.replace('\'', "''");
        if is_guid(name)
            && let Some(found) = self.graph.get(&format!("{}/{name}", kind.collection())).await?
        {
            return Ok(Some(found));
        }
        for field in kind.login().into_iter().chain(["displayName"]) {
            let only = match kind {
                Kind::Program => " and servicePrincipalType eq 'Application'",
                _ => "",
            };
            let filter = format!("{field} eq '{quoted}'{only}");
            let mut found = self.graph.list(kind.collection(), Some(&filter)).await?;
            if found.len() > 1 {
                let what = format!("more than one {} is called '{name}'", kind.noun());
                let list = format!(
                    "landfall identity {} list{}",
                    kind.command(),
                    self.context.name_flag()
                );
                return Err(Problem::new(what, format!("give its object id; see: {list}")).into());
            }
            if let Some(found) = found.pop() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The object with a name.
    async fn find(&self, kind: Kind, name: &str) -> Result<Value> {
        if let Some(found) = self.look(kind, name).await? {
            return Ok(found);
        }
        Err(self.missing(kind.noun(), name, kind.command()).into())
    }

    fn missing(&self, what: &str, name: &str, command: &str) -> Problem {
        let list = format!("landfall identity {command} list{}", self.context.name_flag());
        Problem::new(format!("there is no {what} '{name}'"), format!("see: {list}"))
    }

    /// The first of these kinds with an object of that name.
    async fn any(&self, kinds: &[Kind], name: &str) -> Result<(Kind, Value)> {
        for kind in kinds {
            if let Some(found) = self.look(*kind, name).await? {
                return Ok((*kind, found));
            }
        }
        let nouns: Vec<&str> = kinds.iter().map(|kind| kind.noun()).collect();
        let command = kinds.first().map_or("user", |kind| kind.command());
        Err(self.missing(&nouns.join(" or "), name, command).into())
    }

    /// Shows a list.
    fn listed(&self, name: &str, all: &[Value], columns: &[(&str, &str)]) {
        self.context
            .printer
            .result(&json!({ "event": "result", name: all }), || {
                if all.is_empty() {
                    return "There are none.\n".to_owned();
                }
                let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
                let rows = all.iter().map(|one| {
                    let cells = columns.iter().map(|(_, member)| match &one[*member] {
                        Value::Bool(yes) => (if *yes { "yes" } else { "no" }).to_owned(),
                        Value::String(text) if !text.is_empty() => text.clone(),
                        Value::Array(all) => {
                            let texts: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
                            texts.join(", ")
                        }
                        _ => "-".to_owned(),
                    });
                    cells.collect()
                });
                printer::table(&headings, rows.collect())
            });
    }

    /// Shows one object, line by line.
    fn shown(&self, name: &str, object: &Value, lines: &[(&str, String)]) {
        self.context
            .printer
            .result(&json!({ "event": "result", name: object }), || {
                let width = lines
                    .iter()
                    .map(|(label, _)| label.len())
                    .max()
                    .unwrap_or_default();
                let lines = lines
                    .iter()
                    .map(|(label, value)| format!("{label:<width$}  {value}"));
                lines.collect::<Vec<_>>().join("\n")
            });
    }

    /// Prints the result.
    fn done(&self, value: &Value, sentence: String) {
        let mut value = value.clone();
        value["event"] = json!("result");
        self.context.printer.result(&value, || sentence);
    }

    async fn confirmed(&self, yes: bool, what: &str) -> Result<()> {
        confirmed(self.context, yes, what).await
    }

    /// The names of an object's groups, direct and indirect.
    async fn groups_of(&self, kind: Kind, object: &Value) -> Result<String> {
        let groups = self
            .graph
            .list(&format!("{}/transitiveMemberOf", path(kind, object)), None)
            .await?;
        let names: Vec<&str> = groups.iter().map(|group| text(group, "displayName")).collect();
        Ok(if names.is_empty() {
            "-".to_owned()
        } else {
            names.join(", ")
        })
    }

    /// Enables or disables.
    async fn enable(&self, kind: Kind, name: &str, enabled: bool) -> Result<()> {
        let found = self.find(kind, name).await?;
        let act = if enabled { "enable" } else { "disable" };
        let body = json!({ "accountEnabled": enabled });
        self.graph.patch(&path(kind, &found), &body, act).await?;
        let state = if enabled {
            "can log in"
        } else {
            "is refused from now on"
        };
        self.done(
            &json!({ "id": found["id"], "accountEnabled": enabled }),
            format!("{} {state}.\n", text(&found, "displayName")),
        );
        Ok(())
    }

    /// Revokes the tokens issued before.
    async fn revoke(&self, kind: Kind, name: &str) -> Result<()> {
        let found = self.find(kind, name).await?;
        let act = format!("{}/revokeSignInSessions", path(kind, &found));
        self.graph.post(&act, &json!({}), "revoke").await?;
        self.done(
            &json!({ "id": found["id"], "revoked": true }),
            format!("{} has to log in again.\n", text(&found, "displayName")),
        );
        Ok(())
    }

    /// Removes.
    async fn remove(&self, kind: Kind, name: &str, yes: bool, with: &str) -> Result<()> {
        let found = self.find(kind, name).await?;
        let display_name = text(&found, "displayName");
        let what = format!("This removes the {} {display_name}{with}.", kind.noun());
        self.confirmed(yes, &what).await?;
        self.graph.delete(&path(kind, &found), "delete").await?;
        self.done(
            &json!({ "deleted": found["id"] }),
            format!("{display_name} is gone.\n"),
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guid_is_told_from_a_name() {
        assert!(is_guid("9846525c-475f-49d3-a62f-fe96c5e5c5c5"));
        for name in [
            "",
            "ada@example.org",
            "9846525c475f49d3a62ffe96c5e5c5c5----",
            "9846525c-475f-49d3-a62f-fe96c5e5c5cg",
        ] {
            assert!(!is_guid(name), "{name}");
        }
    }
}
