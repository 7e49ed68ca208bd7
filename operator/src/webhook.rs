//! The webhook of the injector, served by every replica: certificate → listener → handler → events.
//!
//! `start` begins it. The leader also runs `lead`: pods learn of a changed configuration
//! (`fleet`), and pods without the sidecar that they should have are counted (`census`).

pub mod census;
pub mod certificate;
pub mod fleet;
pub mod handler;
pub mod keeper;
pub mod look_up;
pub mod rotation;
pub mod server;
pub mod tell;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::{sync::watch, task::JoinHandle};

use self::{
    certificate::Served, handler::Handler, keeper::Keeper, look_up::LookUp, rotation::Timing,
};
use crate::{context::Ctx, listen::listen, settings::Webhook};

/// After the end was asked for, new pods still come for as long as the API server may not know.
pub const DRAIN: Duration = Duration::from_secs(5);

/// A running webhook.
pub struct Running {
    /// Where it listens.
    pub address: SocketAddr,
    end: watch::Sender<bool>,
    serving: JoinHandle<()>,
    others: Vec<JoinHandle<()>>,
}

// === impl Running ===

impl Running {
    /// Serves for a moment longer, then answers what has begun, and ends.
    pub async fn drain(mut self) {
        tokio::time::sleep(DRAIN).await;
        self.end.send_replace(true);
        // Its own deadlines end every connection.
        if let Err(error) = (&mut self.serving).await {
            tracing::warn!(%error, "the webhook did not end in an orderly way");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.serving.abort();
        self.others.iter().for_each(JoinHandle::abort);
    }
}

/// Begins to serve.
pub async fn start(ctx: &Arc<Ctx>, webhook: &Webhook, timing: Timing) -> std::io::Result<Running> {
    let listener = listen(webhook.listen).await?;
    let address = listener.local_addr()?;
    let (end, ended) = watch::channel(false);
    let served = Arc::new(Served::default());
    let (look_up, lists) = LookUp::start(ctx);
    let (teller, telling) = tell::start(ctx);
    let handler = Arc::new(Handler::new(ctx.clone(), webhook.clone(), look_up, teller));
    let keeper = Keeper::new(ctx.clone(), webhook, served.clone(), timing);
    let serving = tokio::spawn(server::serve(listener, served, handler, ended));
    tracing::info!(%address, "the webhook listens");
    Ok(Running {
        address,
        end,
        serving,
        others: vec![
            tokio::spawn(lists),
            tokio::spawn(telling),
            tokio::spawn(keeper.keep()),
        ],
    })
}

/// What only the leader does; never ends.
pub async fn lead(ctx: &Arc<Ctx>) {
    if ctx.settings.webhook.is_none() {
        return std::future::pending().await;
    }
    futures_util::future::join(fleet::follow(ctx), census::count(ctx))
        .map(|_| ())
        .await;
}
