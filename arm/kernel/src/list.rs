//! Lists: `$filter`, `$top`, `$skiptoken`, `nextLink`. Pure.

use arm_wire::{ArmError, ErrorCode, Request, Response};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::filter::{FIELDS, Filter};

/// The most items of a page, and what a page has where `$top` does not say.
pub const PAGE: usize = 1000;

/// A list's answer: the items that `$filter` lets through, at most `$top` or [`PAGE`] of them, and where the rest is to be had.
///
/// Lists that need more than a page are in the order of their items' ids, and a page begins after the last id of the page before: what
/// is made or deleted between two pages does not make others appear twice or not at all.
///
/// # Errors
/// `BadRequest` where the query is not understood.
pub fn page(request: &Request, items: Vec<Value>) -> Result<Response, ArmError> {
    page_of(request, items, FIELDS)
}

/// A list's answer, where `$filter` may compare `fields` only.
///
/// # Errors
/// As [`page`].
pub fn page_of(request: &Request, items: Vec<Value>, fields: &[&str]) -> Result<Response, ArmError> {
    let filter = Filter::parse(request.query("$filter"), fields)?;
    let top = top(request)?;
    let after = after(request)?;
    let mut items: Vec<Value> = items.into_iter().filter(|item| filter.admits(item)).collect();
    if after.is_none() && items.len() <= top {
        return Ok(Response::ok(json!({ "value": items })));
    }
    items.sort_by_cached_key(id);
    let mut page = items
        .into_iter()
        .filter(|item| after.as_ref().is_none_or(|after| id(item) > *after));
    let value: Vec<Value> = page.by_ref().take(top).collect();
    let mut body = json!({ "value": value });
    if page.next().is_some()
        && let Some(last) = value.last()
    {
        body["nextLink"] = json!(next(request, &id(last)));
    }
    Ok(Response::ok(body))
}

/// Ids ignore case.
fn id(item: &Value) -> String {
    item["id"].as_str().unwrap_or_default().to_lowercase()
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

/// The id in `$skiptoken`.
fn after(request: &Request) -> Result<Option<String>, ArmError> {
    let Some(token) = request.query("$skiptoken").filter(|token| !token.is_empty()) else {
        return Ok(None);
    };
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    let id = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
    id.map(Some).ok_or_else(|| {
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
