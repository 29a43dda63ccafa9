//! Scopes of tokens: what is asked for, and what a token is good for. Pure.
//!
//! A client that has a login server names repositories without the registry, and the login server as the service; others name
//! them with the registry.

use storage_images::Repository;

use crate::{
    Access, Right,
    path::{Named, What},
};

/// The most scopes that are asked for at once.
pub(crate) const MOST_SCOPES: usize = 32;

/// What a request needs a token for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The registry's name.
    pub(crate) registry: String,
    /// `None`: the registry as a whole.
    pub(crate) repository: Option<String>,
    pub(crate) right: Right,
}

impl Wanted {
    pub(crate) fn of(named: &Named, right: Right) -> Self {
        Self {
            registry: named.registry.clone(),
            repository: match &named.what {
                What::Catalog => None,
                what => what.repository().map(|repository| repository.as_str().to_owned()),
            },
            right,
        }
    }

    /// Whether a token's rights include it.
    pub(crate) fn is_in(&self, access: &[Access]) -> bool {
        let (kind, name) = match &self.repository {
            None => ("registry", self.registry.clone()),
            Some(repository) => ("repository", format!("{}/{repository}", self.registry)),
        };
        let actions: &[&str] = match self.right {
            Right::Pull => &["pull", "metadata_read", "*"],
            Right::Push => &["push", "*"],
            Right::Delete => &["delete", "*"],
        };
        access.iter().any(|access| {
            access.kind == kind
                && access.name == name
                && access
                    .actions
                    .iter()
                    .any(|action| actions.contains(&action.as_str()))
        })
    }

    /// The scope in a challenge. `from_login_server`: as a client names it that has the registry's login server.
    pub(crate) fn scope(&self, from_login_server: bool) -> Option<String> {
        let actions = match self.right {
            Right::Pull => "pull",
            Right::Push => "pull,push",
            Right::Delete => "delete",
        };
        match &self.repository {
            Some(repository) if from_login_server => Some(format!("repository:{repository}:{actions}")),
            Some(repository) => Some(format!("repository:{}/{repository}:{actions}", self.registry)),
            None if from_login_server => Some("registry:catalog:*".to_owned()),
            None => None,
        }
    }
}

/// A scope of a request for a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scope {
    /// The registry's name, lower case.
    pub(crate) registry: String,
    /// `None`: the registry as a whole.
    pub(crate) repository: Option<String>,
    pub(crate) actions: Vec<String>,
}

impl Scope {
    /// Parses `repository:NAME:ACTIONS` or `registry:catalog:*`. `login`: the registry that the service names. `None`: it is
    /// about nothing that there could be here.
    pub(crate) fn parse(text: &str, login: Option<&str>) -> Option<Self> {
        let (kind, rest) = text.split_once(':')?;
        let (name, actions) = rest.rsplit_once(':')?;
        let actions: Vec<String> = actions
            .split(',')
            .filter(|action| !action.is_empty() && action.len() <= 32)
            .take(16)
            .map(str::to_owned)
            .collect();
        match (kind, login) {
            ("repository", Some(login)) => Some(Self {
                registry: login.to_owned(),
                repository: Some(Repository::parse(name)?.as_str().to_owned()),
                actions,
            }),
            ("repository", None) => {
                let (registry, repository) = name.split_once('/')?;
                Some(Self {
                    registry: registry.to_ascii_lowercase(),
                    repository: Some(Repository::parse(repository)?.as_str().to_owned()),
                    actions,
                })
            }
            ("registry", Some(login)) if name == "catalog" => Some(Self {
                registry: login.to_owned(),
                repository: None,
                actions,
            }),
            _ => None,
        }
    }

    /// The right that an action needs; `None` for actions that nobody has here.
    pub(crate) fn right(&self, action: &str) -> Option<Right> {
        match (action, &self.repository) {
            ("*", None) | ("pull" | "metadata_read", Some(_)) => Some(Right::Pull),
            ("push" | "metadata_write", Some(_)) => Some(Right::Push),
            ("delete", Some(_)) => Some(Right::Delete),
            _ => None,
        }
    }

    /// The actions that `*` stands for.
    pub(crate) fn expanded(&self) -> Vec<&str> {
        if self.repository.is_some() && self.actions.iter().any(|action| action == "*") {
            return vec!["pull", "push", "delete", "metadata_read", "metadata_write"];
        }
        self.actions.iter().map(String::as_str).collect()
    }

    /// As a right in a token.
    pub(crate) fn granting(&self, actions: Vec<String>) -> Access {
        Access {
            kind: match self.repository {
                Some(_) => "repository".to_owned(),
                None => "registry".to_owned(),
            },
            name: match &self.repository {
                Some(repository) => format!("{}/{repository}", self.registry),
                None => self.registry.clone(),
            },
            actions,
        }
    }
}

/// The registry of a service that is a login server, `HOST:PORT/NAME`.
pub(crate) fn login_of(service: &str) -> Option<String> {
    let (_, name) = service.rsplit_once('/')?;
    control_records::is_registry_name(name).then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_clients_ask_for_the_same() {
        let of_docker = Scope::parse("repository:acme1/team/app:pull,push", None).unwrap();
        let of_az = Scope::parse("repository:team/app:pull,push", Some("acme1")).unwrap();
        assert_eq!(of_docker, of_az);
        assert_eq!(login_of("127.0.0.1:8443/ACME1").as_deref(), Some("acme1"));
        assert_eq!(login_of("127.0.0.1:8443"), None);
        for nothing in [
            "repository:app:pull",
            "registry:catalog:*",
            "repository:acme1/App:pull",
            "x",
            "repository",
        ] {
            assert_eq!(Scope::parse(nothing, None), None, "{nothing}");
        }
        let catalog = Scope::parse("registry:catalog:*", Some("acme1")).unwrap();
        assert_eq!(catalog.right("*"), Some(Right::Pull));
        assert_eq!(catalog.granting(vec!["*".to_owned()]).name, "acme1");
    }

    #[test]
    fn a_token_is_good_for_what_it_says() {
        let scope = Scope::parse("repository:acme1/app:pull", None).unwrap();
        let access = [scope.granting(vec!["pull".to_owned()])];
        let wanted = |registry: &str, repository: Option<&str>, right| Wanted {
            registry: registry.to_owned(),
            repository: repository.map(str::to_owned),
            right,
        };
        for (registry, repository, right, good) in [
            ("acme1", Some("app"), Right::Pull, true),
            ("acme1", Some("app"), Right::Push, false),
            ("acme1", Some("app"), Right::Delete, false),
            ("acme1", Some("ap"), Right::Pull, false),
            ("acme2", Some("app"), Right::Pull, false),
            ("acme1", None, Right::Pull, false),
        ] {
            let wanted = wanted(registry, repository, right);
            assert_eq!(wanted.is_in(&access), good, "{wanted:?}");
        }
    }
}
