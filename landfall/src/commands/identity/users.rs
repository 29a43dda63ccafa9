//! People.

use std::{io::Read as _, path::Path};

use anyhow::{Context as _, Result};
use identity::generate_secret;
use serde_json::json;

use super::{Kind, Session, path, text};
use crate::{args, arm::ADMINISTRATOR, problem::Problem, stamp};

/// The longest password in a file.
const MAX_PASSWORD_BYTES: u64 = 4096;

impl Session<'_> {
    pub(super) async fn user(&self, command: &args::User) -> Result<()> {
        match command {
            args::User::List => {
                let all = self.graph.list("/users", None).await?;
                let columns = [
                    ("ID", "id"),
                    ("LOGIN", "userPrincipalName"),
                    ("NAME", "displayName"),
                    ("ENABLED", "accountEnabled"),
                ];
                self.listed("users", &all, &columns);
                Ok(())
            }
            args::User::Show { user } => {
                let found = self.find(Kind::User, user).await?;
                let groups = self.groups_of(Kind::User, &found).await?;
                let lines = [
                    ("id", text(&found, "id").to_owned()),
                    ("login", text(&found, "userPrincipalName").to_owned()),
                    ("name", text(&found, "displayName").to_owned()),
                    ("enabled", found["accountEnabled"].to_string()),
                    ("made", text(&found, "createdDateTime").to_owned()),
                    ("groups", groups),
                ];
                self.shown("user", &found, &lines);
                Ok(())
            }
            args::User::Create(create) => self.create_user(create).await,
            args::User::Delete { user, yes } => {
                self.remove(Kind::User, user, *yes, " with its memberships").await
            }
            args::User::Enable { user } => self.enable(Kind::User, user, true).await,
            args::User::Disable { user } => self.enable(Kind::User, user, false).await,
            args::User::ResetPassword(reset) => self.reset_password(reset).await,
            args::User::Revoke { user } => self.revoke(Kind::User, user).await,
        }
    }

    async fn create_user(&self, create: &args::UserCreate) -> Result<()> {
        let login = create.login.as_str();
        let alias = login.split('@').next().unwrap_or(login);
        let (password, made) = password(create.password_file.as_deref())?;
        let body = json!({
            "userPrincipalName": login,
            "displayName": create.display_name.as_deref().unwrap_or(alias),
            "mailNickname": alias,
            "accountEnabled": true,
            "passwordProfile": { "password": password, "forceChangePasswordNextSignIn": false },
        });
        let user = self.graph.post("/users", &body, "create the user").await?;
        let id = text(&user, "id");
        let mut value = json!({ "user": user });
        let mut sentence = format!("{login} is known as {id}, and may do nothing until a role is given.\n");
        if made {
            value["password"] = json!(password);
            sentence.push_str(&format!("The password, which is not shown again: {password}\n"));
        }
        self.done(&value, sentence);
        Ok(())
    }

    async fn reset_password(&self, reset: &args::ResetPassword) -> Result<()> {
        let found = self.find(Kind::User, &reset.user).await?;
        let login = text(&found, "userPrincipalName");
        let (password, made) = password(reset.password_file.as_deref())?;
        let body =
            json!({ "passwordProfile": { "password": password, "forceChangePasswordNextSignIn": false } });
        self.graph
            .patch(&path(Kind::User, &found), &body, "set the password")
            .await?;
        let mut value = json!({ "id": found["id"] });
        let mut sentence = format!("{login} has another password, and has to log in again.\n");
        // The administrator's password is in a file, which `landfall up` names: that file must stay correct.
        if login.eq_ignore_ascii_case(&self.settings.administrator()) {
            let file = self.context.places.secrets().join(ADMINISTRATOR);
            stamp::write_whole(&file, password.as_bytes(), 0o600)?;
            sentence.push_str(&format!("It is in {}.\n", file.display()));
        }
        if made {
            value["password"] = json!(password);
            sentence.push_str(&format!("The password, which is not shown again: {password}\n"));
        }
        self.done(&value, sentence);
        Ok(())
    }
}

/// A password, and whether it was made here.
fn password(file: Option<&Path>) -> Result<(String, bool)> {
    let Some(file) = file else {
        loop {
            let made = generate_secret();
            let has = |kind: fn(&u8) -> bool| made.as_bytes().iter().any(kind);
            // The directory's rules of passwords; almost every generated one fulfils them.
            if has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) && has(u8::is_ascii_digit) {
                return Ok((made, true));
            }
        }
    };
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin()
            .take(MAX_PASSWORD_BYTES)
            .read_to_string(&mut text)
            .context("cannot read the password from standard input")?;
    } else {
        std::fs::File::open(file)
            .and_then(|opened| opened.take(MAX_PASSWORD_BYTES).read_to_string(&mut text))
            .with_context(|| format!("cannot read {}", file.display()))?;
    }
    let first = text.lines().next().unwrap_or_default().to_owned();
    if first.is_empty() {
        let what = format!("{} has no password in its first line", file.display());
        return Err(Problem::new(what, "write one, or leave --password-file out to have one made").into());
    }
    Ok((first, false))
}
