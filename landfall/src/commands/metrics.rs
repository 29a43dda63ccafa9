//! `landfall metrics`: the page that Prometheus reads, from the admin socket.

use anyhow::Result;

use super::Context;
use crate::admin::AdminClient;

pub(crate) async fn run(context: &Context) -> Result<()> {
    let page = AdminClient::new(&context.places)?.metrics().await?;
    context.printer.text("metrics", &page);
    Ok(())
}
