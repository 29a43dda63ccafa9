//! Protection of forms against cross-site requests: a form is accepted only from the browser that it was
//! shown in.
//!
//! A form contains its own data, sealed together with a cookie of the browser. No state is kept here, so
//! requests for forms cost no memory.
//!
//! Always true: a form is accepted only from the browser that it was shown to, for its purpose, and for a
//! quarter of an hour; after a restart of the service forms have to be requested again.

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{HeaderMap, HeaderValue, header};
use jiff::Timestamp;

use crate::secret::random;

/// The prefix restricts the cookie to this host and to TLS.
const COOKIE: &str = "__Host-landfall-sign-in";
/// Validity of a form, in seconds.
const LIFETIME: i64 = 900;
/// Longer forms are refused.
const MAX_SEALED_BYTES: usize = 32 * 1024;

/// The purpose of a form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Authorize,
    Device,
}

/// A browser, identified by its cookie.
pub(crate) struct Visitor {
    id: String,
    is_new: bool,
}

impl Visitor {
    /// The browser of these headers; a new one where they have no cookie of ours.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let cookies = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(';'));
        let known = cookies
            .filter_map(|cookie| cookie.trim().split_once('='))
            .find(|(name, value)| *name == COOKIE && is_id(value));
        match known {
            Some((_, id)) => Self {
                id: id.to_owned(),
                is_new: false,
            },
            None => Self {
                id: URL_SAFE_NO_PAD.encode(random::<32>()),
                is_new: true,
            },
        }
    }

    /// Sets the cookie of a new browser.
    pub(crate) fn remember(&self, headers: &mut HeaderMap) {
        if self.is_new {
            // Lax: the cookie is not sent with a form of another site; it is with a link from there, which
            // only shows a form.
            let cookie = format!("{COOKIE}={}; Path=/; Secure; HttpOnly; SameSite=Lax", self.id);
            headers.insert(
                header::SET_COOKIE,
                HeaderValue::from_str(&cookie).expect("an id is letters and digits"),
            );
        }
    }
}

fn is_id(text: &str) -> bool {
    text.len() == 43
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// Seals the data of forms. No `Debug` on purpose.
pub(crate) struct Forms(hmac::Key);

impl Forms {
    /// With a random key, which is lost when the process ends.
    pub(crate) fn new() -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &random::<32>()))
    }

    fn signed(purpose: Purpose, about: &str, until: i64, visitor: &Visitor) -> Vec<u8> {
        format!("{purpose:?}\n{until}\n{}\n{about}", visitor.id).into_bytes()
    }

    /// The sealed data of a form.
    pub(crate) fn seal(&self, purpose: Purpose, about: &str, visitor: &Visitor, now: Timestamp) -> String {
        let until = now.as_second().saturating_add(LIFETIME);
        let tag = hmac::sign(&self.0, &Self::signed(purpose, about, until, visitor));
        format!(
            "{}.{until}.{}",
            URL_SAFE_NO_PAD.encode(about),
            URL_SAFE_NO_PAD.encode(tag)
        )
    }

    /// The data of a form that this browser sends back.
    pub(crate) fn open(
        &self,
        purpose: Purpose,
        sealed: &str,
        visitor: &Visitor,
        now: Timestamp,
    ) -> Option<String> {
        if sealed.len() > MAX_SEALED_BYTES {
            return None;
        }
        let mut parts = sealed.split('.');
        let (about, until, tag) = (parts.next()?, parts.next()?, parts.next()?);
        let about = String::from_utf8(URL_SAFE_NO_PAD.decode(about).ok()?).ok()?;
        let tag = URL_SAFE_NO_PAD.decode(tag).ok()?;
        let until: i64 = until.parse().ok()?;
        let signed = Self::signed(purpose, &about, until, visitor);
        hmac::verify(&self.0, &signed, &tag).ok()?;
        (parts.next().is_none() && now.as_second() < until).then_some(about)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_form_is_taken_from_its_browser_for_its_purpose_in_its_time() {
        let forms = Forms::new();
        let (own, other) = (Visitor::of(&HeaderMap::new()), Visitor::of(&HeaderMap::new()));
        let sealed = forms.seal(Purpose::Device, "a\nb", &own, at(0));
        let open = |forms: &Forms, purpose, sealed: &str, visitor, now| {
            forms.open(purpose, sealed, visitor, at(now))
        };
        assert_eq!(
            open(&forms, Purpose::Device, &sealed, &own, 899),
            Some("a\nb".to_owned())
        );
        assert_eq!(open(&forms, Purpose::Device, &sealed, &own, 900), None);
        assert_eq!(open(&forms, Purpose::Device, &sealed, &other, 1), None);
        assert_eq!(open(&forms, Purpose::Authorize, &sealed, &own, 1), None);
        assert_eq!(open(&Forms::new(), Purpose::Device, &sealed, &own, 1), None);
        let later = sealed.replace(".900.", ".9000.");
        assert_ne!(later, sealed);
        for bad in [&later, "", "a.b.c", ".", &format!("{sealed}.x")] {
            assert_eq!(open(&forms, Purpose::Device, bad, &own, 1), None, "{bad}");
        }
    }

    #[test]
    fn a_browser_keeps_its_cookie_and_gets_one_that_is_no_other_sites() {
        let new = Visitor::of(&HeaderMap::new());
        let mut answer = HeaderMap::new();
        new.remember(&mut answer);
        let set = answer[header::SET_COOKIE].to_str().unwrap();
        assert!(set.ends_with("; Path=/; Secure; HttpOnly; SameSite=Lax"), "{set}");
        let mut request = HeaderMap::new();
        let cookies = format!("a=b; {}; c", set.split(';').next().unwrap());
        request.insert(header::COOKIE, cookies.parse().unwrap());
        let again = Visitor::of(&request);
        assert_eq!(again.id, new.id);
        let mut answer = HeaderMap::new();
        again.remember(&mut answer);
        assert!(answer.is_empty());
        request.insert(header::COOKIE, format!("{COOKIE}=short").parse().unwrap());
        assert!(Visitor::of(&request).is_new);
    }
}
