//! What a cluster needs beside Kubernetes, from Debian's packages: etcd and containerd as in
//! Debian 13 (12 has too old an etcd), runc, network plugins and tools as in Debian 12, whose C
//! library nearly every machine has or surpasses. Unpacked, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use crate::{
    debian::{FetchError, step, unpack, write_launchers},
    environment::{cache_folder, lock},
};

const VARIABLE: &str = "PANNIER_NODE_PROGRAMS";

const TRIXIE: [&str; 2] = ["containerd", "etcd-server"];

const BOOKWORM: [&str; 21] = [
    "containernetworking-plugins",
    "iproute2",
    "libbpf1",
    "libbsd0",
    "libc6",
    "libcap2",
    "libedit2",
    "libelf1",
    "libgmp10",
    "libjansson4",
    "libmd0",
    "libmnl0",
    "libnftables1",
    "libnftnl11",
    "libseccomp2",
    "libtinfo6",
    "libxtables12",
    "nftables",
    "runc",
    "zlib1g",
    "libgcc-s1",
];

/// A folder with both roots and `bin`.
#[derive(Clone, Debug)]
pub struct NodePrograms(PathBuf);

impl NodePrograms {
    /// Those in the cache folder; fetched first if they are not there yet.
    pub fn get() -> Result<Self, FetchError> {
        if let Some(folder) = std::env::var_os(VARIABLE) {
            return Ok(Self(folder.into()));
        }
        let folder = cache_folder().join("kubernetes-node-1");
        if !folder.join("bin").is_dir() {
            let _lock = lock("kubernetes-node");
            if !folder.join("bin").is_dir() {
                fetch(&folder)?;
            }
        }
        Ok(Self(folder))
    }

    /// etcd, containerd with its shim, `ctr`.
    pub fn containerd_folder(&self) -> PathBuf {
        self.0.join("trixie/root/usr/bin")
    }

    /// The program of etcd.
    pub fn etcd(&self) -> PathBuf {
        self.containerd_folder().join("etcd")
    }

    /// Tools that start with the libraries unpacked beside them: `ip`, `nft`.
    pub fn tools_folder(&self) -> PathBuf {
        self.0.join("bin")
    }

    /// The tool `ip`.
    pub fn ip(&self) -> PathBuf {
        self.tools_folder().join("ip")
    }

    /// Network plugins.
    pub fn plugins(&self) -> PathBuf {
        self.0.join("bookworm/root/usr/lib/cni")
    }

    /// The folder of `runc`, which starts itself anew and so cannot have a launcher.
    pub fn runc_folder(&self) -> PathBuf {
        self.0.join("bookworm/root/usr/sbin")
    }

    /// The one library that runc needs and a machine may lack.
    pub fn runc_libraries(&self) -> PathBuf {
        self.0.join("runc-libraries")
    }

    /// The search path of containerd: its shim, runc, then what the system has.
    pub fn search_path(&self) -> String {
        let mut path = [
            self.containerd_folder(),
            // Before the folder of runc, which has `nft` without its libraries.
            self.tools_folder(),
            self.runc_folder(),
        ]
        .map(|folder| folder.display().to_string())
        .join(":");
        // Daemons' folders are not in everybody's PATH.
        path.push_str(":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        path
    }
}

fn fetch(folder: &Path) -> Result<(), FetchError> {
    eprintln!(
        "fetching etcd, containerd, runc, network plugins and nftables from Debian into {} (about 90 MB, \
         20 to 90 seconds; nothing is installed)",
        folder.display()
    );
    let begun = Instant::now();
    let work = folder.with_extension("partial");
    let _ = fs::remove_dir_all(&work);
    unpack("trixie", &TRIXIE, &work.join("trixie"), VARIABLE)?;
    let root = unpack("bookworm", &BOOKWORM, &work.join("bookworm"), VARIABLE)?;
    let libraries = root.join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH));
    let for_runc = work.join("runc-libraries");
    step("copy libseccomp for runc", || {
        fs::create_dir_all(&for_runc)?;
        fs::copy(
            libraries.join("libseccomp.so.2"),
            for_runc.join("libseccomp.so.2"),
        )
    })?;
    let _ = fs::remove_dir_all(folder);
    step("move the folder into place", || fs::rename(&work, folder))?;
    let root = folder.join("bookworm/root");
    // Both halves of Debian's merged /usr, as the packages name them.
    let place = |name: &str| {
        ["usr/sbin", "sbin", "usr/bin", "bin"]
            .map(|folder| root.join(folder).join(name))
            .into_iter()
            .find(|path| path.is_file() && !path.is_symlink())
            .unwrap_or_else(|| root.join("usr/sbin").join(name))
    };
    let bin = folder.join("bin.partial");
    write_launchers(&root, &[place("ip"), place("nft")], &bin)?;
    step("move the launchers into place", || {
        fs::rename(&bin, folder.join("bin"))
    })?;
    eprintln!("they are there after {:.0?}", begun.elapsed());
    Ok(())
}
