//! The pages where people sign in: with a device code, or on the way back to an application. No foreign origin, no script but one line that
//! sends a form on, all text escaped.

/// Escapes text for HTML content and attributes.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(char),
        }
    }
    out
}

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:26rem;margin:12vh auto;padding:0 1rem;color:#1b1b1b;\
background:#fafafa}h1{font-size:1.4rem}label{display:block;margin-top:1rem}input{font:inherit;width:100%;padding:.5rem;\
box-sizing:border-box;border:1px solid #8a8a8a;border-radius:4px}button{font:inherit;margin:1.5rem .75rem 0 0;padding:.5rem 1.5rem;\
border:1px solid #0b5cad;border-radius:4px;background:#0b5cad;color:#fff}button.no{background:#fff;color:#0b5cad}\
.note{padding:.5rem .75rem;background:#fdecea;border-radius:4px}dl{display:grid;grid-template-columns:auto 1fr;gap:.25rem 1rem}\
dt{color:#555}dd{margin:0;overflow-wrap:anywhere}";

/// The `Content-Security-Policy` of a page: its style is all that it may load, and its forms go here and to `origins` (browsers count where a
/// form is sent on to). A page with a script names the script's nonce.
pub(crate) fn policy(origins: &[&str], script: Option<&str>) -> String {
    let script = script.map_or_else(String::new, |nonce| format!(" script-src 'nonce-{nonce}';"));
    let forms: String = origins.iter().map(|origin| format!(" {origin}")).collect();
    format!(
        "default-src 'none'; style-src 'unsafe-inline';{script} form-action 'self'{forms}; frame-ancestors 'none'; base-uri 'none'"
    )
}

fn note(text: Option<&str>) -> String {
    text.map_or_else(String::new, |text| {
        format!("<p class=\"note\" role=\"alert\">{}</p>", escape(text))
    })
}

fn credentials(name: &str) -> String {
    format!(
        "<label>User name<input name=\"username\" required maxlength=\"256\" value=\"{}\" autocomplete=\"username\"></label>\
<label>Password<input name=\"password\" type=\"password\" required maxlength=\"1024\" autocomplete=\"current-password\"></label>",
        escape(name)
    )
}

fn hidden(name: &str, value: &str) -> String {
    format!(
        "<input type=\"hidden\" name=\"{}\" value=\"{}\">",
        escape(name),
        escape(value)
    )
}

/// The form for a device code. The code is typed, not part of a link, so that the victim of a forwarded link
/// notices what it is for.
pub(crate) fn device_code(problem: Option<&str>) -> String {
    let body = format!(
        "<h1>Sign in on another device</h1>{}<p>Enter the code that the other device shows.</p><form method=\"post\" autocomplete=\"off\">\
<label>Code<input name=\"user_code\" required maxlength=\"16\" autocapitalize=\"characters\" autofocus></label>\
<button>Next</button></form>",
        note(problem)
    );
    page("Sign in", &body)
}

/// The sign-in that waits for a device code.
pub(crate) struct DeviceRequest<'a> {
    pub(crate) client: &'a str,
    pub(crate) address: &'a str,
    pub(crate) age: &'a str,
    pub(crate) sealed: &'a str,
}

/// Shows which application requests a sign-in, and asks for approval.
pub(crate) fn device(request: &DeviceRequest<'_>, name: &str, problem: Option<&str>) -> String {
    let body = format!(
        "<h1>Sign in on another device</h1>{}<p>This is to be signed in as you:</p><dl><dt>Application</dt><dd>{}</dd>\
<dt>At the address</dt><dd>{}</dd><dt>Asked</dt><dd>{}</dd></dl>\
<p>Only go on if you started that yourself, on a device of yours: whoever sent you the code would be signed in as you.</p>\
<form method=\"post\" autocomplete=\"off\">{}{}<button>Sign in</button>\
<button class=\"no\" name=\"cancel\" value=\"1\" formnovalidate>That was not me</button></form>",
        note(problem),
        escape(request.client),
        escape(request.address),
        escape(request.age),
        hidden("request", request.sealed),
        credentials(name),
    );
    page("Sign in", &body)
}

/// The last page.
pub(crate) fn device_done(is_signed_in: bool) -> String {
    let (title, text) = if is_signed_in {
        (
            "Signed in",
            "The other device is signed in. You can close this page.",
        )
    } else {
        (
            "Refused",
            "The other device is not signed in. You can close this page.",
        )
    };
    page(title, &format!("<h1>{title}</h1><p>{text}</p>"))
}

/// The page to sign in for an application, which gets the result at an address.
pub(crate) fn sign_in(client: &str, origin: &str, sealed: &str, name: &str, problem: Option<&str>) -> String {
    let body = format!(
        "<h1>Sign in</h1>{}<dl><dt>Application</dt><dd>{}</dd><dt>Goes on at</dt><dd>{}</dd></dl>\
<form method=\"post\" autocomplete=\"off\">{}{}<button>Sign in</button>\
<button class=\"no\" name=\"cancel\" value=\"1\" formnovalidate>Cancel</button></form>",
        note(problem),
        escape(client),
        escape(origin),
        hidden("request", sealed),
        credentials(name),
    );
    page("Sign in", &body)
}

/// Posts a response to the client as a form: by script, or by a button without one.
pub(crate) fn forward(address: &str, fields: &[(&str, String)], nonce: &str) -> String {
    let mut inputs = String::new();
    for (name, value) in fields {
        inputs.push_str(&hidden(name, value));
    }
    let body = format!(
        "<h1>One moment</h1><form method=\"post\" action=\"{}\">{inputs}<button>Go on</button></form>\
<script nonce=\"{}\">document.forms[0].submit()</script>",
        escape(address),
        escape(nonce)
    );
    page("Sign in", &body)
}

/// The page after a redirect.
pub(crate) fn moved() -> String {
    page(
        "Sign in",
        "<h1>One moment</h1><p>This page goes on by itself.</p>",
    )
}

/// A page with an error.
pub(crate) fn stop(text: &str) -> String {
    page(
        "Sign in",
        &format!("<h1>This does not go on</h1>{}", note(Some(text))),
    )
}

fn page(title: &str, body: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_say_stays_text() {
        let evil = "\"><script>alert(1)</script>'&<b>";
        let request = DeviceRequest {
            client: evil,
            address: evil,
            age: evil,
            sealed: evil,
        };
        for page in [
            device_code(Some(evil)),
            device(&request, evil, Some(evil)),
            sign_in(evil, evil, evil, evil, Some(evil)),
            stop(evil),
        ] {
            assert!(!page.contains("<script") && !page.contains("<b>"), "{page}");
            assert!(page.contains("&quot;&gt;&lt;script&gt;"), "{page}");
        }
        let sent = forward(evil, &[(evil, evil.to_owned())], "n");
        assert_eq!(sent.matches("<script").count(), 1, "ours");
    }

    #[test]
    fn a_page_may_do_nothing_but_what_it_is_for() {
        assert_eq!(
            policy(&["http://localhost:1"], Some("n")),
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'nonce-n'; form-action 'self' http://localhost:1; \
             frame-ancestors 'none'; base-uri 'none'"
        );
        assert!(!policy(&[], None).contains("script-src"));
    }
}
