//! Lists: `$filter`, `$expand`, `$top`, `$skiptoken`, `nextLink`. Pure.

use std::sync::Arc;

use arm_wire::{ArmError, ErrorCode, Request, Response};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{Query, filter::Filter, kept::Text, quote};

/// The largest page, and the size of a page without `$top`.
pub const PAGE: usize = 1000;

/// All items of a list, before they are filtered and cut into pages.
///
/// Lists that need more than a page are in the order of their items' keys, and a page begins after the last
/// key of the page before: items that are made or deleted between two pages do not make others appear twice
/// or not at all.
#[derive(Debug)]
pub enum Items<T = Value> {
    /// The keys are the items' ids, which ignore case. A list that fits into a page keeps its order.
    ById(Vec<T>),
    /// Items with their keys, which define the order. Two items with the same key count as one.
    Keyed(Vec<(String, T)>),
}

/// An item of a list.
pub(crate) trait Listed: Send + Sync {
    /// At least the members that lists compare: `id`, `name`, `type`, `location`, `tags`.
    fn facts(&self) -> &Value;
}

impl Listed for Value {
    fn facts(&self) -> &Value {
        self
    }
}

impl From<Vec<Value>> for Items {
    fn from(items: Vec<Value>) -> Self {
        Self::ById(items)
    }
}

/// The response of a list.
///
/// # Errors
/// `BadRequest` where the query is invalid.
pub(crate) fn page(request: &Request, query: Query, items: Items) -> Result<Response, ArmError> {
    let (value, link) = cut(request, query, items)?;
    let mut body = json!({ "value": value });
    if let Some(link) = link {
        body["nextLink"] = json!(link);
    }
    Ok(Response::ok(body))
}

/// The same of items that are texts.
///
/// # Errors
/// Those of [`page`].
pub(crate) fn text_page(request: &Request, query: Query, items: Items<Arc<Text>>) -> Result<Text, ArmError> {
    let (value, link) = cut(request, query, items)?;
    let length: usize = value.iter().map(|text| text.plain().len() + 1).sum();
    let mut body = Vec::with_capacity(length + 512);
    body.extend_from_slice(b"{\"value\":[");
    for (number, text) in value.iter().enumerate() {
        if number > 0 {
            body.push(b',');
        }
        body.extend_from_slice(text.plain());
    }
    body.push(b']');
    if let Some(link) = link {
        body.extend_from_slice(b",\"nextLink\":");
        body.extend_from_slice(json!(link).to_string().as_bytes());
    }
    body.push(b'}');
    Ok(Text::once(body))
}

/// The items that match `$filter`, at most `$top` or [`PAGE`] of them, and the link to the rest.
fn cut<T: Listed>(
    request: &Request,
    query: Query,
    items: Items<T>,
) -> Result<(Vec<T>, Option<String>), ArmError> {
    let filter = if query.own_filter {
        Filter::default()
    } else {
        Filter::of(request, query.filter)?
    };
    let (top, after) = (top(request)?, after(request)?);
    let mut items: Vec<(String, T)> = match items {
        Items::ById(mut items) => {
            items.retain(|item| filter.admits(item.facts()));
            if after.is_none() && items.len() <= top {
                return Ok((items, None));
            }
            items.into_iter().map(|item| (id(item.facts()), item)).collect()
        }
        Items::Keyed(items) => items
            .into_iter()
            .filter(|(_, item)| filter.admits(item.facts()))
            .collect(),
    };
    items.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut rest = items
        .into_iter()
        .filter(|(key, _)| after.as_ref().is_none_or(|after| key > after));
    let page: Vec<(String, T)> = rest.by_ref().take(top).collect();
    let link = rest.next().and(page.last()).map(|(last, _)| next(request, last));
    Ok((page.into_iter().map(|(_, item)| item).collect(), link))
}

/// Refuses `$` parameters that an operation does not have, by name: otherwise they would silently have no
/// effect.
pub(crate) fn check_query(
    request: &Request,
    operation: &str,
    query: Query,
    list: bool,
) -> Result<(), ArmError> {
    let refused =
        |message: String, name: &str| Err(ArmError::new(ErrorCode::BAD_REQUEST, message).target(name));
    for (name, value) in &request.query {
        if !name.starts_with('$') || value.is_empty() {
            continue;
        }
        let taken = match name.to_ascii_lowercase().as_str() {
            "$top" | "$skiptoken" => list,
            "$filter" => query.own_filter || !query.filter.is_empty(),
            "$expand" => !query.expand.is_empty(),
            "$select" => query.select,
            _ => false,
        };
        if !taken {
            let message = format!(
                "'{operation}' does not take the query parameter {}; leave it out.",
                quote(name)
            );
            return refused(message, &name.chars().take(64).collect::<String>());
        }
    }
    for value in expanded(request) {
        if !query.expand.iter().any(|known| known.eq_ignore_ascii_case(value)) {
            let message = format!(
                "'$expand' cannot be {} here; use one or more of {}, separated by commas.",
                quote(value),
                query.expand.join(", ")
            );
            return refused(message, "$expand");
        }
    }
    Ok(())
}

/// The values of `$expand`.
fn expanded(request: &Request) -> impl Iterator<Item = &str> {
    let values = request.query("$expand").unwrap_or_default().split(',');
    values.map(str::trim).filter(|value| !value.is_empty())
}

/// Whether `$expand` contains this.
pub fn expands(request: &Request, value: &str) -> bool {
    expanded(request).any(|asked| asked.eq_ignore_ascii_case(value))
}

/// Ids ignore case. If they are not unique, the names make them so.
fn id(item: &Value) -> String {
    let text = |member: &str| arm_ids::folded(item[member].as_str().unwrap_or_default());
    format!("{}\0{}", text("id"), text("name"))
}

/// `$top`.
fn top(request: &Request) -> Result<usize, ArmError> {
    let Some(text) = request.query("$top") else {
        return Ok(PAGE);
    };
    let top: Option<usize> = text.parse().ok();
    top.filter(|top| *top > 0)
        .map(|top| top.min(PAGE))
        .ok_or_else(|| {
            ArmError::new(ErrorCode::BAD_REQUEST, "'$top' has to be a whole number above 0.").target("$top")
        })
}

/// The key in `$skiptoken`.
fn after(request: &Request) -> Result<Option<String>, ArmError> {
    let Some(token) = request.query("$skiptoken").filter(|token| !token.is_empty()) else {
        return Ok(None);
    };
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let key = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    key.map(Some).ok_or_else(|| {
        let message = "The $skiptoken is not one of a nextLink; begin again without it.";
        ArmError::new(ErrorCode::BAD_REQUEST, message).target("$skiptoken")
    })
}

fn next(request: &Request, last: &str) -> String {
    let mut link = format!(
        "{}{}?api-version={}",
        request.base_url, request.path, request.api_version
    );
    for (name, value) in &request.query {
        if !name.eq_ignore_ascii_case("$skiptoken") {
            link.push_str(&format!("&{}={}", arm_ids::encode(name), arm_ids::encode(value)));
        }
    }
    link.push_str(&format!("&%24skiptoken={}", URL_SAFE_NO_PAD.encode(last)));
    link
}
