//! Fetches what the tests need before they run, so that its progress is seen. What cannot be had
//! is said here and again by each test that needs it.

use std::process::ExitCode;

use e2e::{
    Engine, clients,
    kubernetes::{Binaries, NodePrograms, tools},
};

fn main() -> ExitCode {
    let mut missing = 0;
    let mut report = |name: &str, found: Result<String, String>| match found {
        Ok(place) => println!("{name}: {place}"),
        Err(reason) => {
            missing += 1;
            println!("{name}: NOT AVAILABLE: {reason}");
        }
    };
    for engine in Engine::FETCHED {
        let found = engine.server().map(|path| path.display().to_string());
        report(engine.name(), found.map_err(|error| error.to_string()));
    }
    let clock = e2e::faketime::library().map(|path| path.display().to_string());
    report("libfaketime", clock.map_err(|error| error.to_string()));
    let node = clients::node().map(|path| path.display().to_string());
    report(
        "ioredis, node-redis",
        node.map_err(|error| error.to_string()),
    );
    let python = clients::python().map(|(path, _)| path.display().to_string());
    report("redis-py", python.map_err(|error| error.to_string()));
    let binaries = Binaries::get().map(|all| all.program("kubectl").display().to_string());
    report("Kubernetes", binaries.map_err(|error| error.to_string()));
    let programs = NodePrograms::get().map(|all| all.etcd().display().to_string());
    report(
        "etcd, containerd",
        programs.map_err(|error| error.to_string()),
    );
    let helm = tools::helm().and_then(|helm| tools::kubeconform().map(|_| helm));
    let helm = helm.map(|path| path.display().to_string());
    report("Helm, kubeconform", helm.map_err(|error| error.to_string()));
    // Servers are needed by almost every test, so their absence is no mere skip.
    if missing > 0 {
        println!("{missing} of 10 are missing: the tests that need them will say so");
    }
    ExitCode::SUCCESS
}
