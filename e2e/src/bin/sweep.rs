//! Removes what runs of Kubernetes have left behind: all dead ones, or, with `--after FOLDER`, one
//! as soon as standard input ends. A test process holds the other end, so it ends however that
//! process ended. With `--borrowed`, what tests have made in the cluster that
//! `PANNIER_E2E_KUBECONFIG` names.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use e2e::kubernetes::{blocking, named, sweep, sweep_borrowed};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [] => sweep::dead_runs(),
        [flag] if flag == "--borrowed" => return borrowed(),
        [flag, folder] if flag == "--after" => after(Path::new(folder)),
        _ => {
            eprintln!("usage: e2e-sweep [--after FOLDER | --borrowed]");
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(swept) => {
            for folder in swept {
                println!("removed {}", folder.display());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn borrowed() -> ExitCode {
    let Some(file) = named() else {
        eprintln!("PANNIER_E2E_KUBECONFIG names no cluster");
        return ExitCode::from(2);
    };
    match blocking(sweep_borrowed(&file)) {
        Ok(removed) => {
            for what in removed {
                println!("removed {what}");
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error}", file.display());
            ExitCode::FAILURE
        }
    }
}

fn after(folder: &Path) -> Result<Vec<PathBuf>, sweep::SweepError> {
    let mut nothing = Vec::new();
    // An error is an end as well.
    let _ = std::io::stdin().read_to_end(&mut nothing);
    sweep::run(folder)?;
    Ok(Vec::new())
}
