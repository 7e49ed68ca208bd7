//! The init container's only job: a copy of this binary in a folder that the main container sees, and
//! beside it a file of names.
//!
//! The copy is what pins the agent's version to the pod: a newer operator rolls nothing.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use crate::instance::names;

/// Why there is no copy.
#[derive(Debug, thiserror::Error)]
#[error("failed to copy this binary to {to}: {source}; the folder must be a writable volume")]
pub struct InstallError {
    to: String,
    source: io::Error,
}

/// Copies the running binary to `to`; a copy cut short by a kill is never seen under that name.
pub fn install(to: &Path) -> Result<(), InstallError> {
    copy(to).map_err(|source| InstallError {
        to: to.display().to_string(),
        source,
    })
}

fn copy(to: &Path) -> io::Result<()> {
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
        // Mounted as `/etc/hosts` in the main container, whose agent keeps it.
        fs::write(folder.join(names::FILE), names::ITSELF)?;
    }
    let partial = to.with_extension("partial");
    fs::copy(std::env::current_exe()?, &partial)?;
    fs::set_permissions(&partial, fs::Permissions::from_mode(0o755))?;
    fs::rename(&partial, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_whole_and_executable() {
        let folder = std::env::temp_dir().join(format!("pannier-install-{}", std::process::id()));
        let to = folder.join("bin/pannier-operator");
        install(&to).unwrap();
        let copied = fs::read(&to).unwrap();
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(copied == own);
        assert_eq!(
            fs::metadata(&to).unwrap().permissions().mode() & 0o777,
            0o755
        );
        assert!(!to.with_extension("partial").exists());
        let hosts = fs::read_to_string(to.with_file_name(names::FILE)).unwrap();
        assert!(hosts.contains("localhost"));
        fs::remove_dir_all(folder).unwrap();
    }
}
