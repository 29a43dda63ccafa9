//! Groups and their members.

use anyhow::Result;
use serde_json::{Value, json};

use super::{Kind, Session, path, text};
use crate::args;

/// Kinds that can be members.
const MEMBERS: &[Kind] = &[Kind::User, Kind::ServicePrincipal, Kind::Group];

/// The kind of a member, for people.
fn what(member: &Value) -> &str {
    let kind = member["@odata.type"].as_str().unwrap_or_default();
    kind.rsplit('.').next().unwrap_or_default()
}

impl Session<'_> {
    pub(super) async fn group(&self, command: &args::Group) -> Result<()> {
        match command {
            args::Group::List => {
                let all = self.graph.list("/groups", None).await?;
                let columns = [
                    ("ID", "id"),
                    ("NAME", "displayName"),
                    ("DESCRIPTION", "description"),
                ];
                self.listed("groups", &all, &columns);
                Ok(())
            }
            args::Group::Show { group } => {
                let mut found = self.find(Kind::Group, group).await?;
                let members = self.members(&found).await?;
                let names: Vec<&str> = members.iter().map(|one| text(one, "displayName")).collect();
                let lines = [
                    ("id", text(&found, "id").to_owned()),
                    ("name", text(&found, "displayName").to_owned()),
                    ("description", text(&found, "description").to_owned()),
                    ("made", text(&found, "createdDateTime").to_owned()),
                    ("in", self.groups_of(Kind::Group, &found).await?),
                    (
                        "members",
                        if names.is_empty() {
                            "-".to_owned()
                        } else {
                            names.join(", ")
                        },
                    ),
                ];
                found["members"] = json!(members);
                self.shown("group", &found, &lines);
                Ok(())
            }
            args::Group::Create {
                display_name,
                description,
            } => {
                let nickname: String = display_name
                    .chars()
                    .filter(|char| char.is_alphanumeric() || matches!(char, '-' | '_' | '.'))
                    .collect();
                let body = json!({
                    "displayName": display_name,
                    "description": description,
                    "mailNickname": if nickname.is_empty() { "group" } else { &nickname },
                    "mailEnabled": false,
                    "securityEnabled": true,
                });
                let made = self.graph.post("/groups", &body, "create the group").await?;
                let id = text(&made, "id").to_owned();
                self.done(
                    &json!({ "group": made }),
                    format!("{display_name} is known as {id}.\n"),
                );
                Ok(())
            }
            args::Group::Delete { group, yes } => {
                let with = "; its members lose its roles";
                self.remove(Kind::Group, group, *yes, with).await
            }
            args::Group::Member(command) => self.member(command).await,
        }
    }

    async fn members(&self, group: &Value) -> Result<Vec<Value>> {
        let path = format!("{}/members", path(Kind::Group, group));
        self.graph.list(&path, None).await
    }

    async fn member(&self, command: &args::Member) -> Result<()> {
        match command {
            args::Member::List { group } => {
                let found = self.find(Kind::Group, group).await?;
                let mut members = self.members(&found).await?;
                for member in &mut members {
                    member["kind"] = json!(what(member));
                }
                let columns = [("ID", "id"), ("KIND", "kind"), ("NAME", "displayName")];
                self.listed("members", &members, &columns);
                Ok(())
            }
            args::Member::Add { group, member } => {
                let found = self.find(Kind::Group, group).await?;
                let (_, member) = self.any(MEMBERS, member).await?;
                let reference = format!("directoryObjects/{}", text(&member, "id"));
                let at = format!("{}/members/$ref", path(Kind::Group, &found));
                self.graph
                    .post(&at, &json!({ "@odata.id": reference }), "add the member")
                    .await?;
                let (group, name) = (text(&found, "displayName"), text(&member, "displayName"));
                self.done(
                    &json!({ "group": found["id"], "member": member["id"] }),
                    format!("{name} is in {group}.\n"),
                );
                Ok(())
            }
            args::Member::Remove { group, member } => {
                let found = self.find(Kind::Group, group).await?;
                let (_, member) = self.any(MEMBERS, member).await?;
                let at = format!(
                    "{}/members/{}/$ref",
                    path(Kind::Group, &found),
                    text(&member, "id")
                );
                self.graph.delete(&at, "remove the member").await?;
                let (group, name) = (text(&found, "displayName"), text(&member, "displayName"));
                self.done(
                    &json!({ "group": found["id"], "removed": member["id"] }),
                    format!("{name} is no longer in {group}.\n"),
                );
                Ok(())
            }
        }
    }
}
