//! Paths: of which registry, and what in it. Pure.

use control_records::is_registry_name;
use http::Method;
use storage_images::{Digest, Reference, Repository, Tag, UploadId};

use crate::{Right, answer::Failure};

/// The most segments of a path: a repository has at most 128.
const MOST_SEGMENTS: usize = 140;

/// What a path is about.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A token of the directory for one of the registries'.
    Exchange,
    /// A token with rights.
    Token,
    /// Whether a caller is known.
    Base {
        /// If the path has one, its name.
        registry: Option<String>,
    },
    /// Something of a registry.
    Named {
        named: Named,
        /// Whether the registry's name comes first, as in its login server.
        from_login_server: bool,
    },
}

/// Something of a registry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Named {
    /// The registry's name, lower case.
    pub(crate) registry: String,
    pub(crate) what: What,
}

/// What in a registry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// Names of repositories.
    Catalog,
    /// Names of tags.
    Tags(Repository),
    Manifest(Repository, Reference),
    Blob(Repository, Digest),
    /// Where uploads begin.
    Uploads(Repository),
    Upload(Repository, UploadId),
    /// Manifests about a manifest.
    Referrers(Repository, Digest),
    /// Azure's: a repository.
    Attributes(Repository),
    /// Azure's: tags with times and digests.
    TagList(Repository),
    TagAttributes(Repository, Tag),
    /// Azure's: manifests with platforms and sizes.
    ManifestList(Repository),
    ManifestAttributes(Repository, Digest),
}

impl What {
    pub(crate) fn repository(&self) -> Option<&Repository> {
        match self {
            Self::Catalog => None,
            Self::Tags(repository)
            | Self::Manifest(repository, _)
            | Self::Blob(repository, _)
            | Self::Uploads(repository)
            | Self::Upload(repository, _)
            | Self::Referrers(repository, _)
            | Self::Attributes(repository)
            | Self::TagList(repository)
            | Self::TagAttributes(repository, _)
            | Self::ManifestList(repository)
            | Self::ManifestAttributes(repository, _) => Some(repository),
        }
    }
}

impl Named {
    /// The right that a request needs.
    pub(crate) fn right(&self, method: &Method) -> Result<Right, Failure> {
        let reads = matches!(*method, Method::GET | Method::HEAD);
        let right = match &self.what {
            What::Uploads(_) if *method == Method::POST => Some(Right::Push),
            What::Upload(..) => Some(Right::Push)
                .filter(|_| reads || matches!(*method, Method::PATCH | Method::PUT | Method::DELETE)),
            What::Uploads(_) => None,
            What::Manifest(..) if *method == Method::PUT => Some(Right::Push),
            What::Manifest(..)
            | What::Attributes(_)
            | What::TagAttributes(..)
            | What::ManifestAttributes(..)
                if *method == Method::DELETE =>
            {
                Some(Right::Delete)
            }
            _ if reads => Some(Right::Pull),
            _ => None,
        };
        right.ok_or_else(|| {
            Failure::unsupported(match &self.what {
                What::Attributes(_) | What::TagAttributes(..) | What::ManifestAttributes(..) => {
                    "attributes of repositories, tags and manifests cannot be changed here"
                }
                What::Blob(..) => "blobs are removed by themselves once no manifest needs them",
                _ => "this method is not supported here",
            })
        })
    }
}

/// The first segments, without the empty one before the first slash.
fn segments(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('/').unwrap_or(path).split('/')
}

/// Whether a path is one of the registries'.
pub(crate) fn serves(path: &str) -> bool {
    let mut segments = segments(path);
    match (segments.next(), segments.next()) {
        (Some("v2"), _) | (Some("oauth2"), Some("exchange" | "token")) => true,
        (Some(name), Some("v2")) => is_registry_name(name),
        (Some(name), Some("acr")) => is_registry_name(name) && segments.next() == Some("v1"),
        _ => false,
    }
}

/// Parses a path that is one of the registries'.
pub(crate) fn parse(path: &str) -> Result<Target, Failure> {
    let decoded: Option<Vec<String>> = segments(path).map(arm_ids::decode).collect();
    let decoded = decoded.filter(|segments| segments.len() <= MOST_SEGMENTS);
    let decoded = decoded.ok_or_else(Failure::nowhere)?;
    let segments: Vec<&str> = decoded.iter().map(String::as_str).collect();
    match segments.as_slice() {
        ["oauth2", "exchange"] => Ok(Target::Exchange),
        ["oauth2", "token"] => Ok(Target::Token),
        ["v2"] | ["v2", ""] => Ok(Target::Base { registry: None }),
        ["v2", "_catalog"] => Err(Failure::unsupported(
            "there is no catalog of all registries; ask one registry: /v2/REGISTRY/_catalog",
        )),
        ["v2", registry, rest @ ..] => named(registry, of_specification(rest)?, false),
        [registry, "v2"] | [registry, "v2", ""] => Ok(Target::Base {
            registry: Some(registry_name(registry)?),
        }),
        [registry, "v2", rest @ ..] => named(registry, of_specification(rest)?, true),
        [registry, "acr", "v1", rest @ ..] => named(registry, of_azure(rest)?, true),
        _ => Err(Failure::nowhere()),
    }
}

fn registry_name(name: &str) -> Result<String, Failure> {
    if is_registry_name(name) {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(Failure::name_invalid(
            "the first segment of a repository is the name of a registry: 5 to 50 letters and digits",
        ))
    }
}

fn named(registry: &str, what: What, from_login_server: bool) -> Result<Target, Failure> {
    let registry = registry_name(registry)?;
    Ok(Target::Named {
        named: Named { registry, what },
        from_login_server,
    })
}

fn repository(segments: &[&str]) -> Result<Repository, Failure> {
    Repository::parse(&segments.join("/")).ok_or_else(|| {
        Failure::name_invalid(
            "a repository has a name of lower-case letters and digits, divided by '.', '_', '-' and '/'",
        )
    })
}

fn digest(text: &str) -> Result<Digest, Failure> {
    Digest::parse(text)
        .ok_or_else(|| Failure::digest_invalid("a digest is 'sha256:' and 64 hexadecimal digits"))
}

/// Below `/v2/`.
fn of_specification(segments: &[&str]) -> Result<What, Failure> {
    match segments {
        ["_catalog"] => Ok(What::Catalog),
        [name @ .., "tags", "list"] => Ok(What::Tags(repository(name)?)),
        [name @ .., "manifests", reference] => {
            let reference = Reference::parse(reference)
                .ok_or_else(|| Failure::digest_invalid("a manifest is asked for by its tag or its digest"))?;
            Ok(What::Manifest(repository(name)?, reference))
        }
        [name @ .., "blobs", "uploads"] | [name @ .., "blobs", "uploads", ""] => {
            Ok(What::Uploads(repository(name)?))
        }
        [name @ .., "blobs", "uploads", id] => {
            let id = UploadId::parse(id).ok_or_else(Failure::no_upload)?;
            Ok(What::Upload(repository(name)?, id))
        }
        [name @ .., "blobs", blob] => Ok(What::Blob(repository(name)?, digest(blob)?)),
        [name @ .., "referrers", subject] => Ok(What::Referrers(repository(name)?, digest(subject)?)),
        _ => Err(Failure::nowhere()),
    }
}

/// Below `/acr/v1/`.
fn of_azure(segments: &[&str]) -> Result<What, Failure> {
    match segments {
        ["_catalog"] => Ok(What::Catalog),
        [name @ .., "_tags"] => Ok(What::TagList(repository(name)?)),
        [name @ .., "_tags", tag] => {
            let tag = Tag::parse(tag).ok_or_else(|| Failure::name_invalid("this is no tag"))?;
            Ok(What::TagAttributes(repository(name)?, tag))
        }
        [name @ .., "_manifests"] => Ok(What::ManifestList(repository(name)?)),
        [name @ .., "_manifests", manifest] => {
            Ok(What::ManifestAttributes(repository(name)?, digest(manifest)?))
        }
        [] => Err(Failure::nowhere()),
        name => Ok(What::Attributes(repository(name)?)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn what(path: &str) -> Option<(String, What, bool)> {
        match parse(path).ok()? {
            Target::Named {
                named,
                from_login_server,
            } => Some((named.registry, named.what, from_login_server)),
            _ => None,
        }
    }

    #[test]
    fn paths_say_which_registry_and_what_in_it() {
        let app = || Repository::parse("team/app").unwrap();
        let digest = Digest::of(b"x");
        let tag = Tag::parse("1").unwrap();
        for (path, expected, from_login_server) in [
            (
                "/v2/acme1/team/app/manifests/1",
                What::Manifest(app(), Reference::Tag(tag.clone())),
                false,
            ),
            ("/ACME1/v2/team/app/tags/list", What::Tags(app()), true),
            ("/acme1/v2/_catalog", What::Catalog, true),
            ("/v2/acme1/_catalog", What::Catalog, false),
            ("/v2/acme1/team/app/blobs/uploads/", What::Uploads(app()), false),
            (
                "/v2/acme1/team/app/blobs/uploads/u-1",
                What::Upload(app(), UploadId::parse("u-1").unwrap()),
                false,
            ),
            (
                &format!("/v2/acme1/team/app/blobs/{digest}"),
                What::Blob(app(), digest.clone()),
                false,
            ),
            (
                &format!(
                    "/v2/acme1/team/app/manifests/{}",
                    digest.to_string().replace(':', "%3A")
                ),
                What::Manifest(app(), Reference::Digest(digest)),
                false,
            ),
            ("/acme1/acr/v1/team/app", What::Attributes(app()), true),
            ("/acme1/acr/v1/team/app/_tags", What::TagList(app()), true),
            (
                "/acme1/acr/v1/team/app/_tags/1",
                What::TagAttributes(app(), tag),
                true,
            ),
            (
                "/acme1/acr/v1/team/app/_manifests",
                What::ManifestList(app()),
                true,
            ),
        ] {
            assert!(serves(path), "{path}");
            let found = what(path);
            assert_eq!(
                found,
                Some(("acme1".to_owned(), expected, from_login_server)),
                "{path}"
            );
        }
        for path in ["/v2/", "/v2", "/acme1/v2/"] {
            assert!(serves(path), "{path}");
            assert!(matches!(parse(path), Ok(Target::Base { .. })), "{path}");
        }
        for path in [
            "/v2/acme/app/tags/list",
            "/v2/acme1/App/tags/list",
            "/v2/acme1/../x/tags/list",
            "/v2/acme1/app/manifests/a%2fb",
            "/v2/acme1/app/blobs/sha256:1",
            "/v2/acme1/tags/list",
            "/v2/_catalog",
            "/acme1/acr/v1/",
        ] {
            assert!(parse(path).is_err(), "{path}");
        }
    }

    #[test]
    fn paths_of_others_are_left_to_them() {
        for path in [
            "/",
            "/subscriptions/v2",
            "/subscriptions/x/resourceGroups",
            "/common/v2.0/.well-known/openid-configuration",
            "/common/v2/x",
            "/graph/v2",
            "/oauth2/authorize",
            "/acme1",
            "/acme1/acr/v2",
            "/7b9c1c7e-0f5a-4f7a-9c39-6a1f0c5d2e01/oauth2/token",
        ] {
            assert!(!serves(path), "{path}");
        }
    }

    #[test]
    fn each_request_needs_a_right_or_is_refused() {
        for (method, path, right) in [
            (Method::GET, "/v2/acme1/a/manifests/1", Some(Right::Pull)),
            (Method::HEAD, "/v2/acme1/a/manifests/1", Some(Right::Pull)),
            (Method::PUT, "/v2/acme1/a/manifests/1", Some(Right::Push)),
            (Method::DELETE, "/v2/acme1/a/manifests/1", Some(Right::Delete)),
            (Method::POST, "/v2/acme1/a/manifests/1", None),
            (Method::POST, "/v2/acme1/a/blobs/uploads/", Some(Right::Push)),
            (Method::GET, "/v2/acme1/a/blobs/uploads/", None),
            (Method::GET, "/v2/acme1/a/blobs/uploads/u", Some(Right::Push)),
            (Method::POST, "/v2/acme1/a/blobs/uploads/u", None),
            (Method::DELETE, "/acme1/acr/v1/a", Some(Right::Delete)),
            (Method::PATCH, "/acme1/acr/v1/a", None),
            (Method::DELETE, "/acme1/acr/v1/a/_tags", None),
        ] {
            let Ok(Target::Named { named, .. }) = parse(path) else {
                panic!("{path}")
            };
            assert_eq!(named.right(&method).ok(), right, "{method} {path}");
        }
    }
}
