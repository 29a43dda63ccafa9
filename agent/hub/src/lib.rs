//! The service's endpoint for agents: they connect here, receive their configurations, and report their
//! state.
//!
//! ```text
//! agent ── enroll (token) ──► sessions: is it the machine's, is it unused? ──► a client certificate
//! agent ── config (certificate, long poll) ──► sessions ──► the newest configuration, as soon as there is one
//! agent ── report (certificate) ──► sessions: kept, and the loops are woken
//! etcd-backup ── base, log (certificate) ──► archive; and back, for a restore
//! nodes ── image (certificate) ──► the archive of an add-on's image
//! API servers ── access review (certificate) ──► role assignments
//! API servers, pods ── discovery, keys, tokens ──► token service
//! nodes (certificate), pods (tokens) ── images ──► registries
//! ```
//!
//! Only the transport, the CA and backups are here; decisions about enrolment, configurations and reports are
//! in [`agent_sessions`], those about tokens in [`identity`], those about images in [`registry`].
//!
//! Always true: the caller is the common name of a certificate that this stamp's agent CA signed, never a
//! value in the request; of a caller that is not admitted, only the head of the request is read.

mod authority;
mod backup;
mod caller;
mod images;
mod pulls;
mod reviews;
mod routes;
mod server;
mod streamed;
mod tokens;

pub use authority::{AgentCa, CaError, ServerIdentity};
pub use backup::BackupReceiver;
pub use server::limits_for_open_files;
pub use tokens::{ISSUERS, TokenDoor};

use std::sync::{Arc, OnceLock};

use agent_api::{AccessReviews, AddonImages};
use agent_sessions::Sessions;
use base_env::Env;
use registry::Registries;

/// The service's endpoint for agents. Cheap to clone.
#[derive(Clone)]
pub struct Hub {
    inner: Arc<Inner>,
}

/// Registries of images, and the hub's URL without a trailing slash.
struct RegistriesDoor {
    registries: Registries,
    url: String,
}

struct Inner {
    env: Env,
    ca: AgentCa,
    sessions: Sessions,
    backups: OnceLock<Arc<BackupReceiver>>,
    tokens: OnceLock<TokenDoor>,
    reviews: OnceLock<Arc<dyn AccessReviews>>,
    images: OnceLock<Arc<dyn AddonImages>>,
    registries: OnceLock<RegistriesDoor>,
}

impl Hub {
    /// A hub that passes agents' requests to these sessions and enrols agents under this CA.
    pub fn new(env: Env, ca: AgentCa, sessions: Sessions) -> Self {
        Self {
            inner: Arc::new(Inner {
                env,
                ca,
                sessions,
                backups: OnceLock::new(),
                tokens: OnceLock::new(),
                reviews: OnceLock::new(),
                images: OnceLock::new(),
                registries: OnceLock::new(),
            }),
        }
    }

    /// Sets the receiver of machines' backups. Called once.
    pub fn keep_backups(&self, backups: BackupReceiver) {
        let _given_before = self.inner.backups.set(Arc::new(backups));
    }

    /// Sets the token service for programs in machines. Called once.
    pub fn give_tokens(&self, door: TokenDoor) {
        let _given_before = self.inner.tokens.set(door);
    }

    /// Sets the decision on access reviews of API servers. Called once.
    pub fn decide_reviews(&self, reviews: Arc<dyn AccessReviews>) {
        let _given_before = self.inner.reviews.set(reviews);
    }

    /// Sets the images of add-ons that machines can have. Called once.
    pub fn offer_images(&self, images: Arc<dyn AddonImages>) {
        let _given_before = self.inner.images.set(images);
    }

    /// Sets the registries whose images machines and pods get here. Called once.
    pub fn serve_registries(&self, registries: Registries, url: String) {
        let _given_before = self.inner.registries.set(RegistriesDoor { registries, url });
    }

    fn backups(&self) -> Option<Arc<BackupReceiver>> {
        self.inner.backups.get().map(Arc::clone)
    }
}
