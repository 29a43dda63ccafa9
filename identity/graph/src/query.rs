//! Queries: `$filter`, `$select`, `$top`, `$count`, pages. Pure.

use arm_kernel::odata::{Term, terms};
use arm_wire::Response;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::{GraphError, Request};

/// Size of a page without `$top`.
const PAGE: usize = 100;
/// The most items of a page.
const MOST: usize = 999;

/// Parameters of lists.
const OF_LISTS: &[&str] = &["$filter", "$select", "$top", "$skiptoken", "$count"];

/// Refuses unsupported parameters, by name.
pub(crate) fn check(request: &Request, known: &[&str]) -> Result<(), GraphError> {
    for (name, value) in &request.query {
        if name.starts_with('$')
            && !value.is_empty()
            && !known.iter().any(|known| known.eq_ignore_ascii_case(name))
        {
            let name: String = name.chars().take(32).collect();
            let message = format!("The query parameter '{name}' is not supported yet; leave it out.");
            return Err(GraphError::query(message));
        }
    }
    Ok(())
}

/// Whether an object matches a filter. Texts are compared without regard to case, as names here are.
fn admits(term: &Term, object: &Value) -> bool {
    let member = |name: &str| {
        let members = object.as_object()?;
        let found = members.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value)
    };
    let is = |own: &Value, value: &str| match own {
        Value::String(own) => own.eq_ignore_ascii_case(value),
        Value::Bool(own) => own.to_string() == value,
        _ => false,
    };
    match term {
        Term::Is(name, value) => member(name).is_some_and(|own| is(own, value)),
        Term::Begins(name, value) => {
            let own = member(name).and_then(Value::as_str).unwrap_or_default();
            own.to_lowercase().starts_with(&value.to_lowercase())
        }
        Term::AnyIs(name, value) => member(name)
            .and_then(Value::as_array)
            .is_some_and(|all| all.iter().any(|own| is(own, value))),
        _ => false,
    }
}

/// The response of a list. The objects are in the order of their ids; a page begins after the last id of the
/// page before.
pub(crate) fn list(request: &Request, kind: &str, objects: Vec<Value>) -> Result<Response, GraphError> {
    check(request, OF_LISTS)?;
    let known = |term: &Term| matches!(term, Term::Is(..) | Term::Begins(..) | Term::AnyIs(..));
    let words = "\"name eq 'value'\", \"startswith(name,'value')\" or \"names/any(x:x eq 'value')\"";
    let filter =
        terms(request.query("$filter"), known, words).map_err(|error| GraphError::query(error.message))?;
    let top = match request.query("$top") {
        None => PAGE,
        Some(text) => text
            .parse()
            .ok()
            .filter(|top| (1..=MOST).contains(top))
            .ok_or_else(|| GraphError::query(format!("'$top' has to be a number from 1 to {MOST}.")))?,
    };
    let after = match request.query("$skiptoken").filter(|token| !token.is_empty()) {
        None => String::new(),
        Some(token) => URL_SAFE_NO_PAD
            .decode(token)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .ok_or_else(|| GraphError::query("The '$skiptoken' is not one of an '@odata.nextLink'."))?,
    };
    let id = |object: &Value| object["id"].as_str().unwrap_or_default().to_owned();
    let mut objects: Vec<Value> = objects
        .into_iter()
        .filter(|object| filter.iter().all(|term| admits(term, object)))
        .collect();
    objects.sort_by_key(id);
    let count = objects.len();
    let mut rest = objects.into_iter().filter(|object| id(object) > after);
    let mut page: Vec<Value> = rest.by_ref().take(top).collect();
    let next = rest.next().and(page.last()).map(|last| next(request, &id(last)));
    let select = select(request)?;
    for object in &mut page {
        keep(object, select.as_deref());
    }
    let mut body = json!({
        "@odata.context": format!("{}/$metadata#{kind}", request.base_url),
        "value": page,
    });
    if request.query("$count") == Some("true") {
        body["@odata.count"] = json!(count);
    }
    if let Some(next) = next {
        body["@odata.nextLink"] = json!(next);
    }
    Ok(Response::ok(body))
}

/// The response with one object.
pub(crate) fn one(request: &Request, kind: &str, mut object: Value) -> Result<Response, GraphError> {
    check(request, &["$select"])?;
    let context = format!("{}/$metadata#{kind}/$entity", request.base_url);
    keep(&mut object, select(request)?.as_deref());
    object["@odata.context"] = json!(context);
    Ok(Response::ok(object))
}

/// The members in `$select`.
fn select(request: &Request) -> Result<Option<Vec<String>>, GraphError> {
    let Some(text) = request.query("$select").filter(|text| !text.trim().is_empty()) else {
        return Ok(None);
    };
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(String::is_empty) {
        return Err(GraphError::query(
            "'$select' has to be names, separated by commas.",
        ));
    }
    Ok(Some(names))
}

fn keep(object: &mut Value, names: Option<&[String]>) {
    let (Some(names), Some(members)) = (names, object.as_object_mut()) else {
        return;
    };
    members.retain(|own, _| own.starts_with('@') || names.iter().any(|name| name.eq_ignore_ascii_case(own)));
}

fn next(request: &Request, last: &str) -> String {
    let path: Vec<String> = request
        .segments
        .iter()
        .map(|segment| arm_ids::encode(segment))
        .collect();
    let mut link = format!("{}/{}?", request.base_url, path.join("/"));
    for (name, value) in &request.query {
        if !name.eq_ignore_ascii_case("$skiptoken") {
            link.push_str(&format!("{}={}&", arm_ids::encode(name), arm_ids::encode(value)));
        }
    }
    link.push_str(&format!("%24skiptoken={}", URL_SAFE_NO_PAD.encode(last)));
    link
}
