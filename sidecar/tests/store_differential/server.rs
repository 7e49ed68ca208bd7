//! The real server.

use std::{
    io::{BufRead as _, BufReader},
    os::unix::net::UnixStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// A server of its own on a UNIX socket, gone when dropped.
pub(super) struct Server {
    process: Child,
    folder: PathBuf,
}

impl Server {
    fn binary() -> PathBuf {
        if let Some(path) = std::env::var_os("PANNIER_TEST_REDIS") {
            return path.into();
        }
        if let Some(folder) = std::env::var_os("PANNIER_TEST_SERVERS") {
            return PathBuf::from(folder).join("redis-7.0/redis-server");
        }
        let cache = std::env::var_os("PANNIER_CACHE").map_or_else(
            || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/pannier"),
            PathBuf::from,
        );
        let path = cache.join("servers/redis-7.0/bin/redis-server");
        assert!(
            path.exists(),
            "no redis-server 7.0 at {}; `make test` unpacks one there, or set PANNIER_TEST_REDIS to the binary",
            path.display()
        );
        path
    }

    pub(super) fn start(name: &str) -> Server {
        let folder =
            std::env::temp_dir().join(format!("pannier-store-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut process = Command::new(Self::binary())
            .args(["--port", "0", "--save", "", "--dir"])
            .arg(&folder)
            .arg("--unixsocket")
            .arg(folder.join("s"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("PANNIER_TEST_REDIS names a redis-server that starts");
        let mut log = BufReader::new(process.stdout.take().unwrap())
            .lines()
            .map(Result::unwrap);
        assert!(
            log.any(|line| line.contains("ready to accept connections")),
            "redis-server did not start"
        );
        // Somebody has to read on, or the server blocks on a full pipe.
        std::thread::spawn(move || log.for_each(drop));
        Server { process, folder }
    }

    pub(super) fn connect(&self) -> BufReader<UnixStream> {
        BufReader::new(UnixStream::connect(self.folder.join("s")).unwrap())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
