//! `make images`, `make images REGISTRY=…` and `make load`: the images of operator and sidecar as
//! OCI archives in `target/images`, without a registry and without a container engine; then
//! pushed, or loaded into kind or the containerd of this machine.

use std::{fs, path::PathBuf, process::ExitCode, time::Instant};

use e2e::{
    debian::{FetchError, step},
    environment::lock,
    kubernetes::product::{self, Product, REGISTRY},
    trial::target,
};

/// What each image may take on a node.
const MOST: u64 = 25 << 20;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        [] => build(REGISTRY).map(drop),
        ["--push", registry] => push(registry.trim_end_matches('/')),
        ["--load"] => load(),
        _ => {
            eprintln!("usage: images [--push REGISTRY | --load]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("images: {error}");
            ExitCode::FAILURE
        }
    }
}

/// An archive and the name of the image in it.
type Built = (PathBuf, String);

fn build(registry: &str) -> Result<Vec<Built>, FetchError> {
    // Two at a time would take each other's files away.
    let _lock = lock("images");
    let target = target();
    let folder = target.join("images");
    step("create a folder", || fs::create_dir_all(&folder))?;
    println!(
        "building optimised, static programs: about 8 minutes the first time on two cores, seconds when \
         nothing has changed"
    );
    let authorities = product::authorities()?;
    let mut all = Vec::new();
    for product in Product::ALL {
        let begun = Instant::now();
        let program = product.build(&target)?;
        let name = product.image(registry);
        // Only the sidecar speaks to servers whose certificates public authorities have signed.
        let authorities = (product == Product::Sidecar).then_some(authorities.as_path());
        let work = folder.join("work");
        let packed = product.pack(&work, &name, &program, authorities)?;
        let archive = folder.join(format!("{}.tar", product.name()));
        step("move an image into place", || fs::rename(packed, &archive))?;
        let _ = fs::remove_dir_all(work);
        let size = step("look at an image", || fs::metadata(&archive))?.len();
        println!(
            "{}: {name}, {:.1} MB, {:.0?}",
            archive.display(),
            mega(size),
            begun.elapsed()
        );
        if size > MOST {
            return Err(FetchError::Step {
                step: format!("keep the image of {} small", product.name()),
                detail: format!("it has {:.1} MB, 25 are allowed", mega(size)),
            });
        }
        all.push((archive, name));
    }
    Ok(all)
}

fn push(registry: &str) -> Result<(), FetchError> {
    for (archive, name) in build(registry)? {
        product::push(&archive, &name)?;
        println!("pushed {name}");
    }
    println!(
        "use them: helm install pannier charts/pannier -n pannier-system --create-namespace \\\n  --set \
         image.repository={registry}/operator --set sidecar.image.repository={registry}/sidecar"
    );
    Ok(())
}

fn load() -> Result<(), FetchError> {
    for (archive, name) in build(REGISTRY)? {
        product::load(&archive)?;
        println!("loaded {name}");
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "it is shown with one digit")]
fn mega(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
