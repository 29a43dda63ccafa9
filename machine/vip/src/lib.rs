//! `landfall-agent vip FILE`: an address that is on exactly one healthy member, without outside help.
//!
//! ```text
//! adverts of the others ─┐
//! own health ────────────┼──► [`state`] (pure): hold, or not ──► [`card`]: the address on the card, gratuitous ARP
//! time ──────────────────┘                               └─────► an advert to every other member
//! ```
//!
//! Always true: a healthy holder keeps the address when other members join; of two holders the one with the
//! lower address keeps it; an unhealthy holder releases it as soon as a healthy member holds it, and only
//! then, so that there is no moment without a holder. Two holders for a moment are harmless: each of them
//! serves. Called by `machine/agent`; `fabric/sim` runs [`state`] without the rest.

pub mod advert;
pub mod card;
pub mod program;
pub mod state;
