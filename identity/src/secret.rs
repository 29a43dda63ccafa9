//! Secrets: see [`identity_directory::secret`].

pub(crate) use identity_directory::secret::*;
