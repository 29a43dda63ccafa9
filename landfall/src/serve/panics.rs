//! Panics of the service, each a bug. They are logged, counted, and shown by `landfall status`.
//!
//! The task decides how far a panic reaches: a request, a connection, a cluster's loop or a round of upkeep
//! ends alone, and a part of the service is restarted ([`service::contain`]). None ends the service.

use std::{
    panic::{self, PanicHookInfo},
    sync::atomic::{AtomicU64, Ordering},
};

static COUNT: AtomicU64 = AtomicU64::new(0);

/// From now on, panics are logged and counted.
pub(super) fn count() {
    panic::set_hook(Box::new(|panic| {
        COUNT.fetch_add(1, Ordering::Relaxed);
        let thread = std::thread::current();
        tracing::error!(
            place = panic.location().map(ToString::to_string),
            thread = thread.name(),
            said = said(panic),
            "a panic: this is a fault of Landfall; please report it with these lines"
        );
    }));
}

fn said<'a>(panic: &'a PanicHookInfo<'_>) -> &'a str {
    let payload = panic.payload();
    match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
        (Some(text), _) => text,
        (_, Some(text)) => text,
        _ => "",
    }
}

/// The number of panics since the service started.
pub(crate) fn counted() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_is_contained_and_counted() {
        let (before, hook) = (counted(), panic::take_hook());
        count();
        let ended = tokio::spawn(async { panic!("as a test") }).await;
        panic::set_hook(hook);
        assert!(ended.unwrap_err().is_panic());
        assert!(counted() > before);
    }
}
