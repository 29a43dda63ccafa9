//! Tags of resources, the same for all types.

use std::{collections::BTreeMap, sync::LazyLock};

use arm_wire::{ArmError, ErrorCode, Response};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    Call, Mode, quote,
    request::RequestInfo,
    resource::{Context, Decision, Host, Kind, Presence, Purpose, Resource, write_with},
    schema::{Node, Pattern, Problems, Table, clean},
    types::{Operation, Verb},
};

/// Tags by name.
pub type Tags = BTreeMap<String, String>;

/// The most tags of a resource.
pub const MAX_TAGS: usize = 50;

/// The form of tags, as property tables name it.
pub const TAGS: Pattern = Pattern {
    folds_case: true,
    ..Pattern::of_entries("tags", check_tag, MAX_TAGS)
};

/// Checks a tag.
///
/// # Errors
/// Describes the valid form.
pub fn check_tag(name: &str, value: &str) -> Result<(), &'static str> {
    let forbidden = |char: char| char.is_control() || "<>%&\\?/".contains(char);
    if name.is_empty() || name.chars().count() > 512 || name.contains(forbidden) {
        return Err("a tag name of 1 to 512 characters without < > % & \\ ? /");
    }
    if value.chars().count() > 256 {
        return Err("a tag value of at most 256 characters");
    }
    Ok(())
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    Table::parse(
        "tags\ttags\tstrings-by-name\tRW\t\t\tworks\t\t\t\ttags\t\t",
        &[TAGS],
    )
});
static TREE: LazyLock<Node> = LazyLock::new(|| TABLE.tree("tags"));

/// The tags of a body's member `tags`, without those that are null; `None` where it is absent, null or wrong.
pub fn read_tags(value: Option<&Value>, problems: &mut Problems) -> Option<Tags> {
    let body = json!({ "tags": value? });
    let cleaned = clean(&TREE, &body, "", problems).body;
    let tags = cleaned.get("tags")?.as_object()?.iter();
    let texts = tags.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    Some(texts.collect())
}

/// A resource with tags. The kernel implements their PATCH: they are replaced as a whole, and unchanged if
/// the body has none.
pub trait Tagged: Resource {
    /// The tags of an existing resource.
    fn tags(state: &Self::State) -> Option<Tags>;

    /// Decides to change the tags of an existing resource. Pure.
    ///
    /// # Errors
    /// When it may not be changed.
    fn decide_tags(
        context: &Context<'_, <Self::Provider as Host>::Config>,
        state: &Self::State,
        tags: Tags,
    ) -> Result<Decision<Self::Change>, ArmError>;

    /// Checks a member of a PATCH beside `tags`, which has no effect: by default it is refused.
    fn check_other(_: &Self::State, name: &str, _: &Value, problems: &mut Problems) {
        let short: String = name.chars().take(64).collect();
        let message = format!(
            "{} cannot be changed with PATCH, only 'tags'; use PUT.",
            quote(name)
        );
        problems.add(ErrorCode::UNKNOWN_PROPERTY, short, message);
    }
}

fn decide<R: Tagged>(
    context: &Context<'_, <R::Provider as Host>::Config>,
    state: &R::State,
    body: &Value,
) -> Result<Decision<R::Change>, ArmError> {
    let Some(members) = body.as_object() else {
        let message = "The request needs a body that is a JSON object.";
        return Err(ArmError::new(ErrorCode::INVALID_REQUEST_CONTENT, message));
    };
    let mut problems = Problems::default();
    let tags = read_tags(members.get("tags"), &mut problems);
    for (name, value) in members {
        if name != "tags" && !value.is_null() {
            R::check_other(state, name, value, &mut problems);
        }
    }
    problems.into_result()?;
    tags.map_or(Ok(Decision::Unchanged), |tags| {
        R::decide_tags(context, state, tags)
    })
}

/// PATCH of tags.
///
/// # Errors
/// When the resource does not exist or may not be changed, and all problems of the body.
pub async fn patch_tags<R: Tagged>(
    provider: &R::Provider,
    call: &Call,
    mode: Mode,
) -> Result<Response, ArmError> {
    let request = &call.request;
    let written = write_with::<R>(
        provider,
        &RequestInfo::of(request),
        Kind::Patch,
        None,
        mode,
        &|context, state| decide::<R>(context, state, &request.body),
    )
    .await?;
    Ok(written.changed(provider, request, StatusCode::OK))
}

/// A request of the tags API, which shows the tags of a resource as an extension resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TagsWish {
    /// Show them.
    Read,
    /// Replace all of them by these.
    Replace(Tags),
    /// Add or replace these.
    Merge(Tags),
    /// Remove these: a tag with a value here only if it has that value.
    Remove(Tags),
    /// Remove all of them.
    Clear,
}

impl TagsWish {
    /// The tags after the change. Names ignore case.
    fn applied(&self, present: &Tags) -> Tags {
        let named = |tags: &Tags, name: &str| {
            let found = tags.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.clone())
        };
        let mut tags = present.clone();
        match self {
            Self::Read => {}
            Self::Replace(wanted) => tags.clone_from(wanted),
            Self::Merge(wanted) => {
                tags.retain(|name, _| named(wanted, name).is_none());
                tags.extend(wanted.clone());
            }
            Self::Remove(gone) => tags.retain(|name, value| {
                let gone = named(gone, name);
                gone.is_none_or(|gone| !gone.is_empty() && gone != *value)
            }),
            Self::Clear => tags.clear(),
        }
        tags
    }
}

/// Reads or changes the tags of the resource at the call's path. The response has the shape of the tags API;
/// it has no body where the tags were cleared.
///
/// # Errors
/// When the resource does not exist or may not be changed, and when it would have too many tags.
pub async fn tags_at<R: Tagged>(
    provider: &R::Provider,
    call: &Call,
    wish: &TagsWish,
    mode: Mode,
) -> Result<Response, ArmError> {
    let request = &call.request;
    let shown = |tags: &Tags| {
        Response::ok(json!({
            "id": format!("{}/providers/Microsoft.Resources/tags/default", request.path),
            "name": "default",
            "type": "Microsoft.Resources/tags",
            "properties": { "tags": tags },
        }))
    };
    if *wish == TagsWish::Read {
        let state = R::read(provider, &request.path, Purpose::Answer).await?;
        let there = R::presence(&state, &request.path) != Presence::Absent;
        return match R::tags(&state).filter(|_| there) {
            Some(tags) => Ok(shown(&tags)),
            None => Err(R::missing(&state, &request.path)),
        };
    }
    let written = write_with::<R>(
        provider,
        &RequestInfo::of(request),
        Kind::Patch,
        None,
        mode,
        &|context, state| {
            let present = R::tags(state).ok_or_else(|| R::missing(state, context.info.path))?;
            let tags = wish.applied(&present);
            if tags.len() > MAX_TAGS {
                let message = format!(
                    "The resource would have {} tags; at most {MAX_TAGS} are allowed.",
                    tags.len()
                );
                return Err(ArmError::new(ErrorCode::INVALID_PARAMETER, message).target("properties.tags"));
            }
            if tags == present {
                return Ok(Decision::Unchanged);
            }
            R::decide_tags(context, state, tags)
        },
    )
    .await?;
    let response = match (wish, R::tags(&written.state)) {
        (TagsWish::Clear, _) | (_, None) => Response::empty(StatusCode::OK),
        (_, Some(before)) => shown(&wish.applied(&before)),
    };
    Ok(written.follow(provider, request, response, false))
}

impl<P: Host> Operation<P> {
    /// PATCH of tags, which the tags API reaches as well.
    pub const fn patch_tags<R: Tagged<Provider = P>>(name: &'static str) -> Self {
        let mut row = Self::write(
            Verb::Patch,
            name,
            |provider, call| Box::pin(patch_tags::<R>(provider, call, Mode::Commit)),
            |provider, call| Box::pin(patch_tags::<R>(provider, call, Mode::Preview)),
        );
        row.tags = Some(|provider, call, wish, mode| Box::pin(tags_at::<R>(provider, call, wish, mode)));
        row
    }
}
