//! Reads the configuration again when its files change, and puts it in force if it is good.
//!
//! The files are looked at once a second, by path: the symlink swap of a `ConfigMap` volume, a
//! `rename`, and a bind mount look the same that way. A bad file changes nothing: the old rules go
//! on, and log, metric and `/state` say why. What only a restart can change keeps its old value,
//! by name.

use std::{sync::Arc, time::Duration};

use policy::{Policy, SidecarConfig};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{error, info, warn};

use super::{Credentials, Loaded, Source, files::Stamp, load};
use crate::{
    command::Prefix,
    state::{Active, Shared},
};

const POLL: Duration = Duration::from_secs(1);
/// A refused configuration may wait for a file that did not exist when it was read.
const RETRY_POLLS: u32 = 5;

/// Follows the files of `source` for as long as the process lives.
pub async fn watch(shared: Arc<Shared>, source: Source) {
    if !source.has_files() {
        return;
    }
    let mut watcher = Watcher::new(shared, source);
    let mut ticks = interval(POLL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        watcher.poll();
    }
}

struct Watcher {
    shared: Arc<Shared>,
    source: Source,
    seen: Stamp,
    polls_since_refusal: u32,
}

// === impl Watcher ===

impl Watcher {
    fn new(shared: Arc<Shared>, source: Source) -> Self {
        let seen = source.first_stamp();
        Self {
            shared,
            source,
            seen,
            polls_since_refusal: 0,
        }
    }

    fn poll(&mut self) {
        let now = self.source.stamp();
        let refused = self.shared.reload.lock().error.is_some();
        self.polls_since_refusal += 1;
        let retry = refused && self.polls_since_refusal >= RETRY_POLLS;
        if !self.seen.is_stale(now) && !retry {
            return;
        }
        self.polls_since_refusal = 0;
        // Taken before the files are read: what changes meanwhile is seen by the next poll.
        self.seen = now;
        match load(&self.source.args, &self.source.env) {
            Ok(loaded) => self.apply(loaded),
            Err(error) => self.refuse(error.to_string()),
        }
    }

    fn apply(&mut self, loaded: Loaded) {
        let Loaded {
            active: mut new,
            source,
            notes,
            listen: _,
        } = loaded;
        let old = self.shared.active();
        let kept = keep_until_restart(&mut new.config, &mut new.credentials, &old);
        if !kept.is_empty() {
            new = match recompiled(new) {
                Ok(new) => new,
                Err(error) => {
                    return self.refuse(format!(
                        "{error}\n(with the old values of {}, which only a restart changes)",
                        kept.join(", ")
                    ));
                }
            };
        }
        if !source.same_files(&self.source) {
            self.seen = source.first_stamp();
        }
        self.source = source;
        let changed = new.config != old.config || new.credentials != old.credentials;
        let mut reload = self.shared.reload.lock();
        let recovered = reload.error.take().is_some();
        if reload.needs_restart != kept {
            if !kept.is_empty() {
                warn!(
                    "changed, but takes effect only after a restart: {}",
                    kept.join(", ")
                );
            }
            reload.needs_restart = kept;
        }
        if !changed {
            if recovered {
                info!("the configuration is as it was before it was refused");
            }
            return;
        }
        reload.applied += 1;
        drop(reload);
        for note in &notes {
            info!("{note}");
        }
        info!("configuration reloaded: {} rules", new.policy.rules().len());
        self.shared.activate(new);
    }

    fn refuse(&self, why: String) {
        let mut reload = self.shared.reload.lock();
        if reload.error.as_ref() == Some(&why) {
            return;
        }
        error!("the changed configuration is refused, the old one goes on: {why}");
        reload.refused += 1;
        reload.error = Some(why);
    }
}

fn recompiled(active: Active) -> Result<Active, policy::PolicyErrors> {
    let Active {
        config,
        credentials,
        ..
    } = active;
    let policy = Policy::compile(&config)?;
    let prefix = Prefix::new(config.keyspace.prefix.as_bytes());
    Ok(Active {
        config,
        policy,
        prefix,
        credentials,
    })
}

/// Gives fields that cannot change in a running process their old values back; names those that
/// had new ones.
fn keep_until_restart(
    new: &mut SidecarConfig,
    credentials: &mut Credentials,
    old: &Active,
) -> Vec<&'static str> {
    let mut kept = Vec::new();
    macro_rules! keep {
        ($($name:literal => $($field:ident).+;)+) => {
            $(if new.$($field).+ != old.config.$($field).+ {
                new.$($field).+.clone_from(&old.config.$($field).+);
                kept.push($name);
            })+
        };
    }
    keep! {
        "sidecar.threads" => sidecar.threads;
        "sidecar.redisPort" => sidecar.redis_port;
        "sidecar.httpPort" => sidecar.http_port;
        "sidecar.adminPort" => sidecar.admin_port;
        "sidecar.unixSocket" => sidecar.unix_socket;
        "sidecar.localPasswordFile" => sidecar.local_password_file;
        "sidecar.maxClients" => sidecar.max_clients;
        "sidecar.maxBulkSize" => sidecar.max_bulk_size;
        "sidecar.outputLimit" => sidecar.output_limit;
        "sidecar.allowCommands" => sidecar.allow_commands;
        "upstream" => upstream;
        "keyspace.prefix" => keyspace.prefix;
        "keyspace.database" => keyspace.database;
        "local.memory" => local.memory;
        "local.coherence" => local.coherence;
    }
    // A login belongs to its server, and a password to the file that was named.
    if kept.contains(&"upstream") {
        let local_password = credentials.local_password.take();
        *credentials = Credentials {
            local_password,
            ..old.credentials.clone()
        };
    }
    if kept.contains(&"sidecar.localPasswordFile") {
        credentials
            .local_password
            .clone_from(&old.credentials.local_password);
    }
    kept
}

#[cfg(test)]
mod tests;
