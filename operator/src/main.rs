//! `pannier-operator`: reads the flags and runs what they say.

use std::process::ExitCode;

use clap::Parser as _;
use operator::{
    args::{Args, Command},
    instance,
};

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Instance(flags) => match instance::config::InstanceConfig::load(&flags.config) {
            Ok(_) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("pannier-operator: {error}");
                ExitCode::from(2)
            }
        },
    }
}
