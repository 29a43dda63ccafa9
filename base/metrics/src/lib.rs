//! Metrics: values that are counted without a lock, and the page that Prometheus reads.
//!
//! | | |
//! |---|---|
//! | [`Counter`], [`Gauge`], [`Histogram`] | values in memory; each change is one atomic addition, or two |
//! | [`Family`] | a metric's name, kind, labels, help text, and the most series that it may have |
//! | [`Page`] | the text of one scrape, format 0.0.4 of Prometheus |
//!
//! There is no registry: whoever has values writes them to the page that it is given, and nothing is global, so tests and stamps in one
//! process do not meet. The list of all families is the reader's (`service`), where the dashboards are checked against it.
//!
//! Always true: a family never has more series than it says, what is beyond is left out and counted ([`Page::left_out`]); a label's value is
//! cut, and escaped; a value is no secret, because a label holds only what its family's help text says.
//!
//! Called by: everything that counts, and the service, which writes the page.

mod family;
mod page;
mod values;

pub use family::{Family, Kind};
pub use page::{CONTENT_TYPE, Page, Sample, Samples};
pub use values::{Counter, Gauge, Histogram, InFlight};
