//! Callers' texts in messages.

/// A caller's text for a message: cut, without control characters.
pub fn quote(text: &str) -> String {
    let mut short: String = text.chars().filter(|c| !c.is_control()).take(64).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("'{short}'")
}
