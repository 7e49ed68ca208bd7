//! What an instance writes on its volume about itself, so that after an end of everything the
//! newest data can be told from older: last role, stream of writes, offset, failover.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    config::InstanceConfig, credentials::private, guard::Keeps, shared::Shared, state::Past,
};

const MARKER: &str = "pannier.json";
const ACCEPT_LOSS: &str = "accept-loss";
const GUARD_WAITS: &str = "guard-waits";
const REPLACED: &str = "replaced-append-only";

/// In which form data is on a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// An append-only file.
    AppendOnly,
    /// A snapshot.
    Snapshot,
}

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
            let marker: Marker =
                serde_json::from_slice(&bytes).map_err(|error| damaged(config, &error))?;
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
    past.has_data = config.persistent && !past.unsynced && form(config)?.is_some();
    Ok(past)
}

fn damaged(config: &InstanceConfig, error: &serde_json::Error) -> io::Error {
    let text = format!(
        "{} is damaged: {error}; if no other server of the tier has newer data, remove that file \
         from the volume",
        in_data(config, MARKER).display()
    );
    io::Error::new(io::ErrorKind::InvalidData, text)
}

/// Writes what the state says about the past. That may take for as long as the disk is busy, and
/// whoever writes last writes the latest.
pub fn keep(shared: &Shared) -> io::Result<()> {
    let _one_at_a_time = shared.marking.lock();
    write(&shared.config, &shared.state().past)
}

/// Writes the marker; a kill or a loss of power in between leaves the old one.
fn write(config: &InstanceConfig, past: &Past) -> io::Result<()> {
    let marker = Marker {
        uid: config.uid.clone(),
        past: Past {
            initialised: true,
            ..past.clone()
        },
    };
    private(&in_data(config, MARKER), &serde_json::to_string(&marker)?)
}

fn snapshot(config: &InstanceConfig) -> PathBuf {
    let name = config.config.get("dbfilename").map(String::as_str);
    in_data(config, name.unwrap_or("dump.rdb"))
}

fn append_only(config: &InstanceConfig) -> PathBuf {
    let name = config.config.get("appenddirname").map(String::as_str);
    in_data(config, name.unwrap_or("appendonlydir"))
}

/// The list of files without which a server takes an append-only folder for empty. One of another name there
/// may be half of a list that was being written.
fn append_only_list(config: &InstanceConfig) -> PathBuf {
    let name = config.config.get("appendfilename").map(String::as_str);
    let name = name.unwrap_or("appendonly.aof").trim_matches('"');
    append_only(config).join(format!("{name}.manifest"))
}

/// The form that the configuration wants.
pub fn wanted_form(config: &InstanceConfig) -> Form {
    if is_set(config, "appendonly", "yes") {
        Form::AppendOnly
    } else {
        Form::Snapshot
    }
}

fn is_set(config: &InstanceConfig, name: &str, wanted: &str) -> bool {
    let value = config.config.get(name);
    value.is_some_and(|value| value.trim().eq_ignore_ascii_case(wanted))
}

/// How much of what was acknowledged is on the volume.
pub fn keeps(config: &InstanceConfig) -> Keeps {
    let found = form(config).ok().flatten();
    match found.unwrap_or_else(|| wanted_form(config)) {
        // Also where an append-only file is wanted from now on.
        Form::Snapshot => Keeps::Snapshot,
        Form::AppendOnly if is_set(config, "appendfsync", "always") => Keeps::All,
        Form::AppendOnly => Keeps::Nearly,
    }
}

/// What there is to load. Where there are both, the append-only file is newer: it is removed when
/// a snapshot has taken its place.
pub fn form(config: &InstanceConfig) -> io::Result<Option<Form>> {
    let bytes = |path: &Path| match fs::metadata(path) {
        Ok(found) => Ok(found.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    };
    if bytes(&append_only_list(config))? > 0 {
        return Ok(Some(Form::AppendOnly));
    }
    Ok((bytes(&snapshot(config))? > 0).then_some(Form::Snapshot))
}

/// Removes what a tier without persistence must not load: a replica leaves the snapshot behind
/// that it once got from its primary.
pub fn forget_data(config: &InstanceConfig) -> io::Result<()> {
    if config.persistent {
        // What was being removed when the agent before this one ended.
        return gone(fs::remove_dir_all(in_data(config, REPLACED)));
    }
    gone(fs::remove_file(snapshot(config)))?;
    forget_append_only(config)
}

/// Removes an append-only file that a snapshot has replaced: at once as far as a server can see, which
/// does not start with half of one.
pub fn forget_append_only(config: &InstanceConfig) -> io::Result<()> {
    let aside = in_data(config, REPLACED);
    gone(fs::remove_dir_all(&aside))?;
    gone(fs::rename(append_only(config), &aside))?;
    gone(fs::remove_dir_all(aside))
}

/// What is not there is removed.
fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether a person has said that what silent peers hold may be lost.
pub fn loss_is_accepted(config: &InstanceConfig) -> bool {
    in_data(config, ACCEPT_LOSS).exists()
}

/// Says so, for the guard that waits on this volume; an error where none does.
pub fn accept_loss(config: &InstanceConfig) -> io::Result<()> {
    if !in_data(config, GUARD_WAITS).exists() {
        return Err(io::Error::other(
            "no server waits in this pod, so there is no loss to accept; the condition \
             TopologyHealthy of the tier names the pod that does",
        ));
    }
    fs::write(in_data(config, ACCEPT_LOSS), "")
}

/// A guard begins to wait; what was said to one before it does not count.
pub fn guard_waits(config: &InstanceConfig) -> io::Result<()> {
    gone(fs::remove_file(in_data(config, ACCEPT_LOSS)))?;
    fs::write(in_data(config, GUARD_WAITS), "")
}

/// The guard has passed: a person's word counts once.
pub fn guard_has_passed(config: &InstanceConfig) -> io::Result<()> {
    gone(fs::remove_file(in_data(config, GUARD_WAITS)))?;
    gone(fs::remove_file(in_data(config, ACCEPT_LOSS)))
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
        let error = read(&config).unwrap_err().to_string();
        assert!(error.contains("pannier.json is damaged"), "{error}");
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
        // Redis writes it before it gives it its name.
        let unfinished = append_only(&config).join("temp-appendonly.aof.manifest");
        fs::write(unfinished, "x").unwrap();
        assert!(!read(&config).unwrap().has_data);
        fs::write(append_only(&config).join("appendonly.aof.manifest"), "x").unwrap();
        assert!(read(&config).unwrap().has_data);
        fs::remove_dir_all(&config.data).unwrap();
    }

    #[test]
    fn what_a_replica_wrote_before_it_was_in_step_once_is_no_data() {
        let config = config("unsynced", true);
        fs::write(snapshot(&config), "REDIS0011").unwrap();
        let mut past = Past {
            unsynced: true,
            ..Past::default()
        };
        write(&config, &past).unwrap();
        assert!(!read(&config).unwrap().has_data);
        past.unsynced = false;
        write(&config, &past).unwrap();
        assert!(read(&config).unwrap().has_data);
        fs::remove_dir_all(&config.data).unwrap();
    }

    #[test]
    fn what_is_kept_depends_on_the_form_that_the_data_has_not_on_the_one_that_is_wanted() {
        let mut config = config("form", true);
        let mut set = |name: &str, value: &str| {
            config.config.insert(name.to_owned(), value.to_owned());
            config.clone()
        };
        set("appendonly", "yes");
        let config = set("appendfsync", "always");
        assert_eq!(keeps(&config), Keeps::All);
        fs::write(snapshot(&config), "REDIS0011").unwrap();
        assert_eq!(keeps(&config), Keeps::Snapshot);
        fs::create_dir(append_only(&config)).unwrap();
        fs::write(append_only(&config).join("appendonly.aof.manifest"), "x").unwrap();
        assert_eq!(form(&config).unwrap(), Some(Form::AppendOnly));
        assert_eq!(keeps(&config), Keeps::All);
        fs::remove_dir_all(&config.data).unwrap();
    }

    #[test]
    fn a_loss_is_accepted_only_while_a_guard_waits_and_by_that_guard() {
        let config = config("accept", true);
        let error = accept_loss(&config).unwrap_err().to_string();
        assert!(error.contains("TopologyHealthy"), "{error}");
        guard_waits(&config).unwrap();
        assert!(!loss_is_accepted(&config));
        accept_loss(&config).unwrap();
        assert!(loss_is_accepted(&config));
        guard_waits(&config).unwrap();
        assert!(!loss_is_accepted(&config), "said to a guard before");
        accept_loss(&config).unwrap();
        guard_has_passed(&config).unwrap();
        assert!(!loss_is_accepted(&config) && accept_loss(&config).is_err());
        fs::remove_dir_all(&config.data).unwrap();
    }
}
