//! The page where a person approves a device code. No script, no foreign origin, all text escaped.

use std::fmt::Write;

/// Escapes text for HTML content and attributes.
pub(crate) fn escape(text: &str) -> String {
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
box-sizing:border-box;border:1px solid #8a8a8a;border-radius:4px}button{font:inherit;margin-top:1.5rem;padding:.5rem 1.5rem;\
border:0;border-radius:4px;background:#0b5cad;color:#fff}.note{padding:.5rem .75rem;background:#fdecea;border-radius:4px}";

/// The `Content-Security-Policy` that fits the page; its style is the only thing it may load.
pub(crate) const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The form, with what was typed before and a note about what was wrong with it.
pub(crate) fn form(code: &str, user: &str, note: Option<&str>) -> String {
    let mut body = String::from("<h1>Sign in on another device</h1>");
    if let Some(note) = note {
        // Writing to a String does not fail.
        let _ = write!(body, "<p class=\"note\" role=\"alert\">{}</p>", escape(note));
    }
    let _ = write!(
        body,
        "<p>Enter the code that the other device shows. Only go on if you started that sign-in yourself.</p>\
<form method=\"post\" autocomplete=\"off\">\
<label>Code<input name=\"user_code\" required maxlength=\"16\" value=\"{}\" autocapitalize=\"characters\"></label>\
<label>User name<input name=\"username\" required maxlength=\"256\" value=\"{}\" autocomplete=\"username\"></label>\
<label>Password<input name=\"password\" type=\"password\" required maxlength=\"1024\" autocomplete=\"current-password\"></label>\
<button>Sign in</button></form>",
        escape(code),
        escape(user)
    );
    page("Sign in", &body)
}

/// The end of it.
pub(crate) fn done() -> String {
    page(
        "Signed in",
        "<h1>Done</h1><p>The other device is signed in. You can close this page.</p>",
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
    fn what_was_typed_stays_text() {
        let page = form("\"><script>alert(1)</script>", "'&", Some("<b>"));
        assert!(!page.contains("<script>") && !page.contains("<b>"));
        assert!(page.contains("&quot;&gt;&lt;script&gt;") && page.contains("value=\"&#39;&amp;\""));
    }
}
