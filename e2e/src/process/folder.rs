//! Folders of tests.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::sys::statvfs::{FsFlags, statvfs};

/// A file system in memory, wherever there is one.
const MEMORY: &str = "/dev/shm";
/// Room for every server of a run, bytes.
const ROOM: u64 = 2 << 30;
const PREFIX: &str = "pannier-e2e-";

/// A folder that is removed with the value.
pub struct Folder(PathBuf);

impl Folder {
    /// A new empty folder.
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static PARENT: OnceLock<PathBuf> = OnceLock::new();
        let parent = PARENT.get_or_init(|| {
            remove_left(Path::new(MEMORY));
            remove_left(&std::env::temp_dir());
            parent()
        });
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}-{name}", process::id()));
        fs::create_dir_all(&path).expect("the temporary folder is writable");
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file into it and returns the file's path as text.
    pub fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).expect("the folder is writable");
        path.display().to_string()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Memory where there is room: servers and Sentinels stand still while a disk that others keep busy
/// has not written what they synchronise. Two minutes were seen.
fn parent() -> PathBuf {
    let has_room = statvfs(MEMORY).is_ok_and(|found| {
        let free = found.blocks_available() * found.fragment_size();
        let refused = FsFlags::ST_NOEXEC | FsFlags::ST_RDONLY;
        free >= ROOM && !found.flags().intersects(refused)
    });
    if has_room && std::env::var_os("TMPDIR").is_none() {
        return MEMORY.into();
    }
    std::env::temp_dir()
}

/// Removes what processes that were killed have left.
fn remove_left(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        let owner = owner.and_then(|rest| rest.split('-').next()?.parse::<u32>().ok());
        if owner.is_some_and(|id| !Path::new(&format!("/proc/{id}")).exists()) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
