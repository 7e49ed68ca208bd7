//! Listens to the Sentinels' `+switch-master`: a change of roles is looked at when it happens, not
//! at the next look.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use redis::{Client, ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo, RedisError};
use tokio::time::{sleep, timeout};

use super::{passwords::User, shared::Shared};

const CHANNEL: &str = "+switch-master";
const CONNECT: Duration = Duration::from_secs(2);
/// Between two attempts; each Sentinel has its own, so that they are not all asked at once.
const PAUSE: Duration = Duration::from_millis(1500);

/// Listens to all Sentinels, until it is dropped with its runtime.
pub fn listen(shared: &Arc<Shared>) {
    for (number, host) in (0u32..).zip(shared.config.sentinels.clone()) {
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            loop {
                // The looks of twice a second notice what is missed here.
                let _ = hear(&shared, &host).await;
                sleep(PAUSE + PAUSE / 5 * number).await;
            }
        });
    }
}

async fn hear(shared: &Shared, host: &str) -> Result<(), RedisError> {
    let Some(address) = shared.addresses.of(host, shared.config.sentinel_port).await else {
        return Ok(());
    };
    for secret in shared.logins() {
        let login = RedisConnectionInfo::default()
            .set_username(User::Operator.name())
            .set_password(secret.expose())
            .set_skip_set_lib_name();
        let info = ConnectionAddr::Tcp(address.ip().to_string(), address.port())
            .into_connection_info()?
            .set_redis_settings(login);
        let Ok(Ok(mut heard)) = timeout(CONNECT, Client::open(info)?.get_async_pubsub()).await
        else {
            continue;
        };
        heard.subscribe(CHANNEL).await?;
        let mut messages = heard.on_message();
        while messages.next().await.is_some() {
            shared.look.notify_one();
        }
        return Ok(());
    }
    Ok(())
}
