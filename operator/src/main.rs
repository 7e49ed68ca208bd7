//! `pannier-operator`: reads the flags and runs what they say.

use std::process::ExitCode;

use clap::Parser as _;
use operator::{
    args::{Args, Command},
    install::install,
    instance, run,
};

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Run(flags) => run::run(*flags),
        Command::Instance(flags) => agent(flags.config),
        Command::Install(flags) => done(install(&flags.to)),
        Command::AcceptLoss(flags) => done(accept_loss(&flags.config)),
        Command::Demo(flags) => done(demo(flags.once)),
    }
}

fn done<E: std::fmt::Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pannier-operator: {error}");
            ExitCode::from(2)
        }
    }
}

fn demo(once: bool) -> Result<(), String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?
        .block_on(operator::demo::run(once))
        .map_err(|error| error.to_string())
}

fn accept_loss(path: &std::path::Path) -> Result<(), String> {
    let config = instance::config::InstanceConfig::load(path).map_err(|error| error.to_string())?;
    instance::marker::accept_loss(&config).map_err(|error| format!("{}: {error}", config.data))
}

/// One thread: the agent waits for others nearly all the time, and shares the pod's memory.
fn agent(config: std::path::PathBuf) -> ExitCode {
    tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => {
            let ended = runtime.block_on(instance::run(config));
            // A name that is being looked up must not hold the end up.
            runtime.shutdown_background();
            ended.map_err(|error| error.to_string())
        }
        Err(error) => Err(format!("failed to start the runtime: {error}")),
    };
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("pannier-operator: {error}");
            ExitCode::from(2)
        }
    }
}
