//! Keeps the container's file of names: the addresses of the tier's other pods.
//!
//! Servers and Sentinels look names up in their only thread. With a DNS that is away (its node may be
//! the one that is lost) a Sentinel stands still for seconds with every attempt to reach whoever
//! is gone, takes that for a broken clock, and fails nothing over. So they find every name in
//! the file, and only agents ask the DNS. A name whose lookup fails keeps the address it had.

use std::{fs, io, path::Path, sync::Arc, time::Duration};

use futures_util::future::join_all;
use tokio::time::sleep;
use tracing::warn;

use super::shared::Shared;

/// Environment variable with the path of the file; without it there is none to keep.
pub const NAMES: &str = "PANNIER_NAMES";
/// Name of the file in the folder of the agent's copy.
pub const FILE: &str = "hosts";
/// What every such file has.
pub const ITSELF: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost\n";
/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// Reads what an agent before this one knew, and looks once before the server starts.
pub async fn begin(shared: &Arc<Shared>, path: &Path) {
    if let Ok(text) = fs::read_to_string(path) {
        let names = names(shared);
        shared.addresses.remember(&text, &names);
    }
    look(shared, path, &mut None).await;
}

/// Looks until it is dropped.
pub async fn keep(shared: Arc<Shared>, path: std::path::PathBuf) {
    let mut said = None;
    loop {
        look(&shared, &path, &mut said).await;
        sleep(LOOK).await;
    }
}

async fn look(shared: &Shared, path: &Path, said: &mut Option<String>) {
    let names = names(shared);
    let asked = names.iter().map(|name| shared.addresses.of(name, 0));
    join_all(asked).await;
    let error = write(path, &shared.addresses.lines(&names)).err();
    let error = error.map(|error| error.to_string());
    if error != *said {
        if let Some(error) = &error {
            warn!(error, path = %path.display(), "failed to write the file of names");
        }
        *said = error;
    }
}

fn names(shared: &Shared) -> Vec<String> {
    let config = shared.live();
    [config.servers, config.sentinels].concat()
}

/// In place: the file is mounted by itself, so another cannot be put under its name.
fn write(path: &Path, lines: &str) -> io::Result<()> {
    let text = format!("{ITSELF}{lines}");
    if fs::read_to_string(path).is_ok_and(|found| found == text) {
        return Ok(());
    }
    fs::write(path, text)
}
