//! `pannier-sidecar-planted`: the same program, built with bugs that a switch turns on. It exists
//! for the history checker and is never shipped.

#[path = "../main.rs"]
mod sidecar_main;

fn main() -> std::process::ExitCode {
    sidecar_main::main()
}
