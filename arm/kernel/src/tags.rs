//! Tags: the same for all resources.

use std::{collections::BTreeMap, sync::LazyLock};

use arm_wire::{ArmError, ErrorCode, Response};
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    Call, quote,
    request::RequestInfo,
    resource::{Context, Decision, Host, Kind, Mode, Resource, write_with},
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
/// What it must be.
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

/// The tags of a body's member `tags`, without those that are null; nothing where it is absent, null or wrong.
pub fn read_tags(value: Option<&Value>, problems: &mut Problems) -> Option<Tags> {
    let body = json!({ "tags": value? });
    let cleaned = clean(&TREE, &body, "", problems).body;
    let tags = cleaned.get("tags")?.as_object()?.iter();
    let texts = tags.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
    Some(texts.collect())
}

/// A resource with tags. PATCH of them is the kernel's: they are replaced as a whole, and stay where the body has none.
pub trait Tagged: Resource {
    /// Decides to give a resource that is there other tags. Pure.
    ///
    /// # Errors
    /// When it may not be changed.
    fn decide_tags(
        context: &Context<'_, <Self::Provider as Host>::Config>,
        state: &Self::State,
        tags: Tags,
    ) -> Result<Decision<Self::Change>, ArmError>;

    /// Checks what a PATCH has beside `tags`, which changes nothing: by default there must not be anything.
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
/// When the resource is not there or may not be changed, and all problems of the body.
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
        mode,
        &|context, state| decide::<R>(context, state, &request.body),
    )
    .await?;
    Ok(written.changed(provider, request, StatusCode::OK))
}

impl<P: Host> Operation<P> {
    /// PATCH of tags.
    pub const fn patch_tags<R: Tagged<Provider = P>>(name: &'static str) -> Self {
        Self::write(
            Verb::Patch,
            name,
            |provider, call| Box::pin(patch_tags::<R>(provider, call, Mode::Commit)),
            |provider, call| Box::pin(patch_tags::<R>(provider, call, Mode::Preview)),
        )
    }
}
