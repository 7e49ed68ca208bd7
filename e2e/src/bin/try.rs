//! `make up` and `make down`: see `e2e::trial`.

use std::{
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use e2e::{
    Engine,
    kubernetes::{Binaries, image},
    trial::{self, Show, Stage, TrialError},
};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match (words.as_slice(), borrowed()) {
        (["up"], None) => up(),
        (["up"], Some(file)) => up_on(&file),
        (["down"], None) => down(),
        (["down"], Some(file)) => down_on(&file),
        (["hold", folder], _) => {
            trial::hold(Path::new(folder));
            Ok(())
        }
        _ => {
            eprintln!("usage: try up | down");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\n{error}");
            ExitCode::FAILURE
        }
    }
}

/// The cluster that the user names. That of a `make up` before is ours all the same.
fn borrowed() -> Option<PathBuf> {
    let file = PathBuf::from(std::env::var_os("KUBECONFIG").filter(|file| !file.is_empty())?);
    (file != Stage::of_this_checkout().kubeconfig()).then_some(file)
}

/// Says what is done, and when it began.
struct Steps(Instant);

impl Steps {
    fn say(&self, what: &str) {
        println!("[{:>3.0} s] {what}", self.0.elapsed().as_secs_f64());
    }
}

fn up() -> Result<(), TrialError> {
    let steps = Steps(Instant::now());
    let stage = Stage::of_this_checkout();
    if stage.is_up() {
        steps.say("the cluster is up already");
    } else {
        steps.say("starting three nodes on this machine (about 10 s; the first time programs are fetched and built)");
        stage.start()?;
    }
    let valkey = image::engine_name(Engine::Valkey8);
    let show = Show::on(&stage.kubeconfig(), &trial::folder())?.valkey(&valkey);
    present(&show, &steps, &stage.kubeconfig())?;
    println!("  make down   removes every trace");
    Ok(())
}

fn up_on(file: &Path) -> Result<(), TrialError> {
    let steps = Steps(Instant::now());
    let registry = std::env::var("REGISTRY")
        .ok()
        .filter(|name| !name.is_empty());
    let show = Show::on(file, &trial::folder())?.registry(registry);
    confirm(
        &show,
        "install the chart in pannier-system, its custom resource definitions, and a demo in pannier-demo",
        "up",
    )?;
    present(&show, &steps, file)?;
    println!("  make down CONFIRM=yes   removes demo and chart, keeps the definitions");
    Ok(())
}

fn present(show: &Show, steps: &Steps, kubeconfig: &Path) -> Result<(), TrialError> {
    steps.say("installing the chart charts/pannier");
    show.install()?;
    let installed = Instant::now();
    steps
        .say("applying examples/kubernetes/demo.yaml: a tier with a Valkey, an app with a sidecar");
    show.apply_demo()?;
    steps.say("waiting for the tier");
    show.wait_for_tier()?;
    steps.say("waiting for the app");
    let ratio = show.wait_for_hits()?;
    steps.say(&format!(
        "the app has its cache ({:.0} s after the chart was there)",
        installed.elapsed().as_secs_f64()
    ));
    println!(
        "\n  {ratio}\n\n  export KUBECONFIG={}",
        kubeconfig.display()
    );
    if Command::new("kubectl")
        .arg("version")
        .arg("--client")
        .output()
        .is_err()
        && let Some(folder) = Binaries::get()?.program("kubectl").parent()
    {
        println!("  export PATH=\"$PATH:{}\"", folder.display());
    }
    println!(
        "  kubectl -n pannier-demo get cachetiers,pods\n  kubectl -n pannier-demo logs -f deployment/demo -c app     # \
         its hit ratio\n  kubectl -n pannier-demo delete pod shop-shard-0-0          # its Redis: the app goes on\n"
    );
    Ok(())
}

fn down() -> Result<(), TrialError> {
    let begun = Instant::now();
    if Stage::of_this_checkout().stop()? {
        println!(
            "the cluster and all of its files are gone ({:.0?})",
            begun.elapsed()
        );
    } else {
        println!("nothing is up");
    }
    Ok(())
}

fn down_on(file: &Path) -> Result<(), TrialError> {
    let show = Show::on(file, &trial::folder())?;
    confirm(
        &show,
        "delete the namespace pannier-demo, uninstall the chart, and delete the namespace pannier-system",
        "down",
    )?;
    show.remove()?;
    println!(
        "demo and chart are gone; the custom resource definitions stay: kubectl delete -f crds/"
    );
    Ok(())
}

/// `KUBECONFIG` may lead to production: nothing is done unless the user has seen where.
fn confirm(show: &Show, what: &str, verb: &str) -> Result<(), TrialError> {
    let context = show.context()?;
    println!("KUBECONFIG leads to {context}");
    if std::env::var("CONFIRM").is_ok_and(|word| word == "yes") {
        return Ok(());
    }
    Err(TrialError::Unconfirmed(format!(
        "Nothing was done. This would {what}.\n  make {verb} CONFIRM=yes          does it\n  env -u KUBECONFIG make {verb}    \
         uses a cluster of its own on this machine instead"
    )))
}
