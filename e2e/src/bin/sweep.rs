//! Removes what runs of Kubernetes have left behind: all dead ones, or, with `--after FOLDER`, one
//! as soon as standard input ends. A test process holds the other end, so it ends however that
//! process ended.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use e2e::kubernetes::sweep;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [] => sweep::dead_runs(),
        [flag, folder] if flag == "--after" => after(Path::new(folder)),
        _ => {
            eprintln!("usage: e2e-sweep [--after FOLDER]");
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

fn after(folder: &Path) -> Result<Vec<PathBuf>, sweep::SweepError> {
    let mut nothing = Vec::new();
    // An error is an end as well.
    let _ = std::io::stdin().read_to_end(&mut nothing);
    sweep::run(folder)?;
    Ok(Vec::new())
}
