//! The signals that the agent waits for (`sigwait`).

use nix::sys::signal::{SigSet, Signal};

/// The signals that the agent waits for, including SIGRTMIN + 3, which requests an init to halt the machine.
pub(crate) fn waited_for() -> SigSet {
    let set: SigSet = [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGPWR,
        Signal::SIGHUP,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ]
    .into_iter()
    .collect();
    let mut set: nix::libc::sigset_t = *set.as_ref();
    #[expect(unsafe_code, reason = "nix has no real-time signals")]
    // SAFETY: `set` is a valid signal set, made by nix, and SIGRTMIN + 3 is a valid signal.
    unsafe {
        nix::libc::sigaddset(&raw mut set, nix::libc::SIGRTMIN() + 3);
        SigSet::from_sigset_t_unchecked(set)
    }
}

/// Waits for the next signal. The real-time signal counts as SIGTERM.
pub(crate) fn next(signals: &SigSet) -> Signal {
    let mut number = 0;
    loop {
        #[expect(unsafe_code, reason = "nix panics on a real-time signal")]
        // SAFETY: both pointers are to live, initialised values of the right types.
        let error = unsafe { nix::libc::sigwait(signals.as_ref(), &raw mut number) };
        if error == 0 {
            return Signal::try_from(number).unwrap_or(Signal::SIGTERM);
        }
    }
}
