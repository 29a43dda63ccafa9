//! `landfall-agent vip FILE`: an address that is on exactly one healthy member, with nobody else's help.
//!
//! ```text
//! adverts of the others ─┐
//! own health ────────────┼──► [`state`] (pure): hold, or not ──► [`card`]: the address on the card, gratuitous ARP
//! time ──────────────────┘                               └─────► an advert to every other member
//! ```
//!
//! Always true: a healthy holder keeps the address, whoever else comes; of two that hold it the one with the lower address keeps
//! it; one that is not healthy lets go as soon as somebody healthy holds it, and only then, so that there is no moment without.
//! Two at once for a moment are harmless: each of them serves. Called by `machine/agent`;
//! `fabric/sim` runs [`state`] without the rest.

pub mod advert;
pub mod card;
pub mod program;
pub mod state;
