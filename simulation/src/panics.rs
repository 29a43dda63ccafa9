//! Panics of the service under test: tasks catch them, so they are counted here.

use std::{cell::RefCell, sync::Once};

thread_local! {
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Counts panics of this thread from now on, beside the usual handling.
pub(crate) fn watch() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            SEEN.with_borrow_mut(|seen| seen.push(info.to_string()));
            before(info);
        }));
    });
    SEEN.with_borrow_mut(Vec::clear);
}

/// The panics of this thread since the last time.
pub(crate) fn take() -> Vec<String> {
    SEEN.with_borrow_mut(std::mem::take)
}
