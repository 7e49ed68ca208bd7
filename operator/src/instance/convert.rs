//! From a snapshot to an append-only file, or back, when the tier's persistence has changed.
//!
//! A server with `appendonly yes` loads the append-only file only, one without it the snapshot
//! only, and begins empty where that is missing (`loadDataFromDisk` in server.c). So it is
//! started as it was before, and told to change when it has loaded everything. Until the first append-only
//! file is complete the snapshot is all that is kept: it is made anew now and then, and at the end.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tracing::{info, warn};

use super::{
    config::InstanceConfig,
    facts,
    link::{Link, LinkError, command, text},
    marker::{self, Form},
    shared::Shared,
};

/// Between two snapshots while the append-only file is not complete: the disk may be too small for both.
const SNAPSHOT: Duration = Duration::from_mins(1);
/// Between two looks. Longer than the second in which Redis tells when it last saved.
const LOOK: Duration = Duration::from_millis(1100);

#[derive(Debug, thiserror::Error)]
enum ConvertError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error("the data folder: {0}")]
    File(#[from] io::Error),
}

/// The form that the data has, if another is wanted.
pub fn needed(config: &InstanceConfig) -> io::Result<Option<Form>> {
    let found = marker::form(config)?.filter(|_| config.persistent);
    Ok(found.filter(|found| *found != marker::wanted_form(config)))
}

/// The configuration to start with.
pub fn at_start(config: &InstanceConfig, from: Option<Form>) -> InstanceConfig {
    let mut config = config.clone();
    let appends = match from {
        None => return config,
        Some(Form::AppendOnly) => "yes",
        Some(Form::Snapshot) => "no",
    };
    let line = ("appendonly".to_owned(), appends.to_owned());
    config.config.extend([line]);
    config
}

/// Converts; what fails is tried again.
pub async fn run(shared: Arc<Shared>, from: Form) {
    let mut own = Link::own(&shared);
    let mut saved = None;
    let mut asked = Instant::now();
    loop {
        sleep(LOOK).await;
        if shared.is_terminating() {
            return;
        }
        let done = match from {
            Form::Snapshot => to_append_only(&shared, &mut own, &mut asked).await,
            Form::AppendOnly => to_snapshot(&shared, &mut own, &mut saved).await,
        };
        match done {
            Ok(false) => {}
            Ok(true) => {
                info!(
                    ?from,
                    "the data is on the volume in the form that is wanted"
                );
                return;
            }
            Err(error) => warn!(%error, ?from, "failed to change how data is kept; trying again"),
        }
    }
}

/// One step; whether it was the last.
async fn to_append_only(
    shared: &Shared,
    own: &mut Link,
    asked: &mut Instant,
) -> Result<bool, ConvertError> {
    let info = persistence(own).await?;
    if field(&info, "loading") != Some("0") {
        return Ok(false);
    }
    if field(&info, "aof_enabled") != Some("1") {
        own.ask(&command(&["CONFIG", "SET", "appendonly", "yes"]))
            .await?;
        return Ok(false);
    }
    // The server writes the list when the first file is complete, and tries again by itself.
    let done = marker::form(&shared.config)? == Some(Form::AppendOnly);
    if !done && asked.elapsed() > SNAPSHOT {
        *asked = Instant::now();
        warn!("the append-only file is not complete yet; a snapshot is made meanwhile");
        own.ask(&command(&["BGSAVE", "SCHEDULE"])).await?;
    }
    Ok(done)
}

/// Before the end of a server that does not append yet: it saves when it ends only where it has lines `save`.
pub async fn save_at_the_end(config: &InstanceConfig, own: &mut Link) {
    if !matches!(needed(config), Ok(Some(Form::Snapshot))) {
        return;
    }
    let set = command(&["CONFIG", "SET", "appendonly", "no", "save", "3600 1"]);
    if let Err(error) = own.ask(&set).await {
        warn!(%error, "failed to have the server save at its end");
    }
}

/// One step; whether it was the last. The snapshot comes first: until it is there the append-only
/// file goes on. `saved` is when the server had last saved as it was asked to.
async fn to_snapshot(
    shared: &Shared,
    own: &mut Link,
    saved: &mut Option<String>,
) -> Result<bool, ConvertError> {
    let info = persistence(own).await?;
    if field(&info, "loading") != Some("0") || field(&info, "rdb_bgsave_in_progress") != Some("0") {
        return Ok(false);
    }
    let now = field(&info, "rdb_last_save_time").map(str::to_owned);
    if saved.is_none() || *saved == now {
        own.ask(&command(&["BGSAVE", "SCHEDULE"])).await?;
        *saved = now;
        return Ok(false);
    }
    own.ask(&command(&["CONFIG", "SET", "appendonly", "no"]))
        .await?;
    let config = shared.config.clone();
    // Large files take long to remove, and nothing else must wait for that.
    let removed = spawn_blocking(move || marker::forget_append_only(&config)).await;
    removed.map_err(io::Error::other)??;
    Ok(true)
}

async fn persistence(own: &mut Link) -> Result<String, LinkError> {
    let info = own.ask(&command(&["INFO", "persistence"])).await?;
    Ok(text(&info).unwrap_or_default())
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    facts::fields(info).find_map(|(found, value)| (found == name).then_some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::config::tests::server;

    #[test]
    fn a_server_is_started_in_the_form_that_its_data_has() {
        let mut config = server();
        let wanted = ("appendonly".to_owned(), "yes".to_owned());
        config.config.extend([wanted]);
        assert_eq!(at_start(&config, None), config);
        let started = at_start(&config, Some(Form::Snapshot));
        assert_eq!(started.config["appendonly"], "no");
        let started = at_start(&server(), Some(Form::AppendOnly));
        assert_eq!(started.config["appendonly"], "yes");
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let info = "# Persistence\r\nloading:0\r\nasync_loading:1\r\n";
        assert_eq!(field(info, "loading"), Some("0"));
        assert_eq!(field(info, "load"), None);
    }
}
