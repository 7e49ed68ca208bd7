//! Programs of our own, built while a test or a program of the harness runs.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::environment::unusable;

/// The folder of finished programs that belongs to the running test.
pub(crate) fn profile_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    test.ancestors()
        .find(|folder| folder.ends_with("debug") || folder.ends_with("release"))
        .expect("cargo puts tests below a folder named after the profile")
        .to_owned()
}

/// Builds a program of our own next to the running test.
pub(crate) fn build(package: &str, name: &str, flags: &[&str]) -> PathBuf {
    let profile = profile_folder();
    let mut build = cargo(&profile, "build");
    build.args(["-p", package, "--bin", name]).args(flags);
    if let Err(error) = crate::debian::run(&format!("build {name}"), &mut build) {
        unusable(&error.to_string());
    }
    profile.join(name)
}

/// Builds a program of our own that needs no library of the image it runs in. Only the last step
/// differs from the usual build, so it costs no more than linking. `$PANNIER_STATIC` may name a folder
/// with such programs instead.
pub(crate) fn build_static(package: &str, name: &str) -> PathBuf {
    if let Some(folder) = std::env::var_os("PANNIER_STATIC") {
        return Path::new(&folder).join(name);
    }
    let profile = profile_folder();
    let mut command = cargo(&profile, "rustc");
    command
        .args(["-p", package, "--bin", name])
        .args(["--", "-C", "target-feature=+crt-static"]);
    let copy = profile.join("static").join(name);
    let built =
        crate::debian::run(&format!("build a static {name}"), &mut command).and_then(|()| {
            // The next usual build puts its own program under that name.
            crate::debian::step(&format!("copy {name}"), || {
                std::fs::create_dir_all(profile.join("static"))?;
                std::fs::copy(profile.join(name), copy.with_extension("partial"))?;
                std::fs::rename(copy.with_extension("partial"), &copy)
            })
        });
    if let Err(error) = built {
        unusable(&error.to_string());
    }
    copy
}

/// A cargo command that builds what the running test was built with.
fn cargo(profile: &Path, verb: &str) -> Command {
    let mut cargo = nested_cargo();
    cargo
        .args([verb, "--quiet", "--target-dir"])
        .arg(profile.parent().expect("the profile is in a target folder"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    cargo
}

/// `cargo` as from a shell, also below another one: build scripts that look at what cargo says of a package
/// would otherwise run anew, and with them the build of all that depends on them.
pub fn nested_cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo
}
