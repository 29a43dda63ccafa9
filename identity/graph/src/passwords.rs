//! Passwords of people: their rules, and a limit of guesses by the holder of a stolen token.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use identity_directory::secret::{Secret, hash_secret, verify_secret};

use crate::{Graph, GraphError};

const SHORTEST: usize = 8;
const LONGEST: usize = 256;
/// After this many wrong passwords, further ones are refused for a while.
const WRONG: u32 = 5;
/// How long.
const PAUSE: Duration = Duration::from_secs(60);
/// Callers whose attempts are counted. Only callers with a valid token take a place, and there are few of
/// them.
const REMEMBERED: usize = 4096;

/// Wrong passwords by principal.
#[derive(Debug, Default)]
pub(crate) struct Guesses(Mutex<HashMap<String, (u32, Duration)>>);

impl Guesses {
    /// Counts an attempt before any work; `false` where there were too many.
    fn attempt(&self, who: &str, now: Duration) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (_, at)| now.saturating_sub(*at) < PAUSE);
        if all.len() >= REMEMBERED && !all.contains_key(who) {
            return false;
        }
        let (count, at) = all.entry(who.to_owned()).or_insert((0, now));
        if *count >= WRONG {
            return false;
        }
        *count += 1;
        *at = now;
        true
    }

    fn right(&self, who: &str) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(who);
    }
}

/// The reason why a password is not accepted, if there is one.
pub(crate) fn refused(password: &str, login: &str) -> Option<String> {
    let length = password.chars().count();
    let alias = login.split('@').next().unwrap_or_default().to_lowercase();
    let kinds: [fn(char) -> bool; 4] = [
        |char| char.is_lowercase(),
        |char| char.is_uppercase(),
        |char| char.is_numeric(),
        |char| !char.is_alphanumeric(),
    ];
    let has = kinds.iter().filter(|kind| password.chars().any(kind)).count();
    if !(SHORTEST..=LONGEST).contains(&length) || password.len() > 1024 {
        Some(format!("It has to have {SHORTEST} to {LONGEST} characters."))
    } else if has < 3 {
        Some("It has to have three of: small letters, capital letters, digits, other characters.".to_owned())
    } else if alias.len() >= 3 && password.to_lowercase().contains(&alias) {
        Some("It must not contain the name of its user.".to_owned())
    } else {
        None
    }
}

impl Graph {
    /// The hash of a password, computed on another thread.
    pub(crate) async fn hash(&self, password: &str) -> Result<String, GraphError> {
        let password = password.to_owned();
        self.hashing
            .run(move || hash_secret(Secret::Chosen(&password)))
            .await
            .map_err(|error| GraphError::busy(format!("{error}."), 2))
    }

    /// Whether this is the principal's password.
    pub(crate) async fn is_password(
        &self,
        who: &str,
        stored: &str,
        password: &str,
    ) -> Result<bool, GraphError> {
        if !self.guesses.attempt(who, self.env.clock.monotonic()) {
            let message = "Too many wrong passwords; repeat in a minute.";
            return Err(GraphError::busy(message, PAUSE.as_secs()));
        }
        let (stored, password) = (stored.to_owned(), password.to_owned());
        let right = self
            .hashing
            .run(move || verify_secret(&stored, &password))
            .await
            .map_err(|error| GraphError::busy(format!("{error}."), 2))?;
        if right {
            self.guesses.right(who);
        }
        Ok(right)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_guessed_is_no_password() {
        for wrong in [
            "",
            "Sh0rt!",
            "alllowercase1",
            "ALLUPPER-",
            "Ada-Lovelace-1",
            &"Aa1!".repeat(100),
        ] {
            assert!(refused(wrong, "ada@x").is_some(), "{wrong}");
        }
        for right in ["Correct horse 1", "Passw0rd1234", "äÖ-12345"] {
            assert_eq!(refused(right, "ada@x"), None, "{right}");
        }
    }

    #[test]
    fn somebody_who_guesses_waits_and_nobody_else() {
        let guesses = Guesses::default();
        let at = Duration::from_secs;
        for _ in 0..WRONG {
            assert!(guesses.attempt("a", at(1)));
        }
        assert!(!guesses.attempt("a", at(2)) && guesses.attempt("b", at(2)));
        guesses.right("b");
        assert!(!guesses.attempt("a", at(60)) && guesses.attempt("a", at(61)));
    }
}
