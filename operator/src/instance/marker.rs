//! What an instance writes on its volume about itself, so that after an end of everything the
//! newest data can be told from older: last role, stream of writes, offset, failover.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{config::InstanceConfig, guard::Keeps, state::Past};

const MARKER: &str = "pannier.json";
const ACCEPT_LOSS: &str = "accept-loss";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    /// UID of the tier.
    uid: String,
    #[serde(flatten)]
    past: Past,
}

fn in_data(config: &InstanceConfig, name: &str) -> PathBuf {
    Path::new(&config.data).join(name)
}

/// What the volume says. A marker that cannot be read is an error, not an absent one (P8).
pub fn read(config: &InstanceConfig) -> io::Result<Past> {
    let mut past = match fs::read(in_data(config, MARKER)) {
        Ok(bytes) => {
            let marker: Marker = serde_json::from_slice(&bytes)?;
            // Counts of failovers of an earlier tier cannot be compared with ours.
            if marker.uid == config.uid {
                marker.past
            } else {
                Past::default()
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Past::default(),
        Err(error) => return Err(error),
    };
    past.has_data = config.persistent && has_data(config)?;
    Ok(past)
}

/// Writes the marker; a kill in between leaves the old one.
pub fn write(config: &InstanceConfig, past: &Past) -> io::Result<()> {
    let marker = Marker {
        uid: config.uid.clone(),
        past: Past {
            initialised: true,
            ..past.clone()
        },
    };
    let path = in_data(config, MARKER);
    let partial = path.with_extension("partial");
    fs::write(&partial, serde_json::to_vec(&marker)?)?;
    fs::rename(partial, path)
}

fn snapshot(config: &InstanceConfig) -> PathBuf {
    let name = config.config.get("dbfilename").map(String::as_str);
    in_data(config, name.unwrap_or("dump.rdb"))
}

fn append_only(config: &InstanceConfig) -> PathBuf {
    let name = config.config.get("appenddirname").map(String::as_str);
    in_data(config, name.unwrap_or("appendonlydir"))
}

/// How much of what was acknowledged is on the volume.
pub fn keeps(config: &InstanceConfig) -> Keeps {
    let is = |name: &str, wanted: &str| {
        let value = config.config.get(name);
        value.is_some_and(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    match (is("appendonly", "yes"), is("appendfsync", "always")) {
        (true, true) => Keeps::All,
        (true, false) => Keeps::Nearly,
        (false, _) => Keeps::Snapshot,
    }
}

/// Whether there is anything to load, by the rules of the server: with an append-only file only
/// that one is read, and the snapshot where there is none.
fn has_data(config: &InstanceConfig) -> io::Result<bool> {
    let bytes = |path: &Path| match fs::metadata(path) {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    };
    if bytes(&snapshot(config))? > 0 {
        return Ok(true);
    }
    match fs::read_dir(append_only(config)) {
        Ok(mut files) => files.try_fold(false, |found, file| {
            let file = file?;
            let is_list = file.file_name().to_string_lossy().ends_with(".manifest");
            Ok(found || (is_list && file.metadata()?.len() > 0))
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes what a tier without persistence must not load: a replica leaves the snapshot behind
/// that it once got from its primary.
pub fn forget_data(config: &InstanceConfig) -> io::Result<()> {
    if config.persistent {
        return Ok(());
    }
    for removed in [
        fs::remove_file(snapshot(config)),
        fs::remove_dir_all(append_only(config)),
    ] {
        match removed {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Whether a person has said that what silent peers hold may be lost.
pub fn loss_is_accepted(config: &InstanceConfig) -> bool {
    in_data(config, ACCEPT_LOSS).exists()
}

/// Says so, for the guard that waits on this volume.
pub fn accept_loss(config: &InstanceConfig) -> io::Result<()> {
    fs::write(in_data(config, ACCEPT_LOSS), "")
}

/// The word counts once.
pub fn loss_was_accepted(config: &InstanceConfig) {
    let _ = fs::remove_file(in_data(config, ACCEPT_LOSS));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::config::tests::server;

    fn config(name: &str, persistent: bool) -> InstanceConfig {
        let folder = std::env::temp_dir().join(format!("pannier-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let mut config = server();
        config.data = folder.display().to_string();
        config.persistent = persistent;
        config
    }

    #[test]
    fn a_new_volume_has_no_past_and_a_broken_marker_is_no_new_volume() {
        let mut config = config("marker", true);
        assert_eq!(read(&config).unwrap(), Past::default());
        let past = Past {
            epoch: 4,
            offset: 77,
            was_primary: true,
            ..Past::default()
        };
        write(&config, &past).unwrap();
        let found = read(&config).unwrap();
        assert!(found.initialised && !found.has_data);
        assert_eq!((found.epoch, found.offset), (4, 77));
        "another".clone_into(&mut config.uid);
        assert_eq!(read(&config).unwrap(), Past::default());
        fs::write(in_data(&config, MARKER), "{").unwrap();
        assert!(read(&config).is_err());
        fs::remove_dir_all(&config.data).unwrap();
    }

    #[test]
    fn data_on_a_volume_that_is_not_kept_counts_for_nothing_and_is_removed() {
        let mut config = config("data", true);
        fs::write(snapshot(&config), "REDIS0011").unwrap();
        fs::create_dir(append_only(&config)).unwrap();
        assert!(read(&config).unwrap().has_data);
        forget_data(&config).unwrap();
        assert!(read(&config).unwrap().has_data);
        config.persistent = false;
        assert!(!read(&config).unwrap().has_data);
        forget_data(&config).unwrap();
        assert!(!snapshot(&config).exists() && !append_only(&config).exists());
        fs::remove_dir_all(&config.data).unwrap();
    }

    #[test]
    fn an_append_only_folder_without_its_list_is_no_data() {
        let config = config("list", true);
        fs::create_dir(append_only(&config)).unwrap();
        assert!(!read(&config).unwrap().has_data);
        fs::write(append_only(&config).join("appendonly.aof.manifest"), "x").unwrap();
        assert!(read(&config).unwrap().has_data);
        fs::remove_dir_all(&config.data).unwrap();
    }
}
