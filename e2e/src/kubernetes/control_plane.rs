//! etcd, the API server and the controllers as processes of this machine. No nodes: pods are
//! accepted, never run.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use nix::sys::signal::Signal;

use super::{
    Binaries, NodePrograms, Unavailable,
    authority::{Authority, Pair, service_account_key},
    client::{apply_crds, blocking},
    kubeconfig::Access,
    run::Run,
    target::must_be_ours,
};
use crate::{ports, process::Process, server::loopback, wait};

/// How long one component may take to come up; a build beside the test makes everything slow.
pub(super) const PATIENCE: Duration = Duration::from_secs(90);

/// How to start it.
#[derive(Clone, Debug, Default)]
pub struct ControlPlaneOptions {
    /// Further flags of the API server.
    pub api_server: Vec<String>,
    /// Further flags of the controllers.
    pub controllers: Vec<String>,
}

/// Where its processes live.
pub(super) struct Site {
    /// Network namespace to enter, if it is not the one of the test.
    pub namespace: Option<PathBuf>,
    /// Address that the API server tells others.
    pub advertised: String,
    /// Names and addresses in its certificate.
    pub names: Vec<String>,
    pub api_port: u16,
    pub etcd_port: u16,
    pub peer_port: u16,
    /// Address by which this process reaches the API server.
    pub reached: SocketAddr,
}

/// A running control plane; everything ends and is removed when it is dropped.
pub struct ControlPlane {
    // Before the run: a process must end before its folder goes.
    api_server: Mutex<Process>,
    controllers: Mutex<Process>,
    etcd: Mutex<Process>,
    site: Site,
    options: ControlPlaneOptions,
    binaries: Binaries,
    authority: Authority,
    serving: Pair,
    accounts: Pair,
    admin: Access,
    kubeconfig: PathBuf,
    run: Arc<Run>,
}

impl ControlPlane {
    /// One of its own for a test.
    pub fn start() -> Result<Self, Unavailable> {
        Self::start_with(ControlPlaneOptions::default())
    }

    /// As [`Self::start`] with further flags.
    pub fn start_with(options: ControlPlaneOptions) -> Result<Self, Unavailable> {
        must_be_ours()?;
        let api_port = ports::free();
        let site = Site {
            namespace: None,
            advertised: "127.0.0.1".to_owned(),
            names: vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
            api_port,
            etcd_port: ports::free(),
            peer_port: ports::free(),
            reached: loopback(api_port),
        };
        let binaries = Binaries::get()?;
        let programs = NodePrograms::get()?;
        Ok(Self::start_at(
            site,
            options,
            binaries,
            &programs,
            Arc::new(Run::begin()),
        ))
    }

    /// One for all tests of this process, with our custom resources; each test uses a namespace
    /// of its own.
    pub fn shared() -> Result<&'static Self, Unavailable> {
        static SHARED: OnceLock<ControlPlane> = OnceLock::new();
        static STARTING: Mutex<()> = Mutex::new(());
        let _one_at_a_time = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = SHARED.get() {
            return Ok(shared);
        }
        let started = Self::start()?;
        blocking(async { apply_crds(&started.client().await).await });
        Ok(SHARED.get_or_init(|| started))
    }

    pub(super) fn start_at(
        site: Site,
        options: ControlPlaneOptions,
        binaries: Binaries,
        programs: &NodePrograms,
        run: Arc<Run>,
    ) -> Self {
        let authority = Authority::new(&run);
        let names: Vec<&str> = site.names.iter().map(String::as_str).collect();
        let serving = authority.server(&run, "kube-apiserver", &names);
        let accounts = service_account_key(&run);
        let tokens = Tokens::new(&run);
        let admin = Access {
            address: format!("https://{}", site.reached),
            authority: authority.certificate(),
            token: tokens.of("admin"),
        };
        let inside = Access {
            address: format!("https://{}:{}", site.advertised, site.api_port),
            ..admin.clone()
        };
        for (user, _) in USERS.iter().filter(|(user, _)| *user != "admin") {
            let access = inside.clone().with_token(tokens.of(user));
            run.write(&format!("{user}.kubeconfig"), &access.kubeconfig());
        }
        run.write("inside.kubeconfig", &inside.kubeconfig());
        let kubeconfig = run.write("admin.kubeconfig", &admin.kubeconfig());
        let etcd = Mutex::new(run.start("etcd", &mut etcd(&site, programs, &run)));
        let files = ApiServerFiles {
            serving: &serving,
            accounts: &accounts,
            authority: &authority,
        };
        let mut command = api_server(&site, &binaries, &run, &files, &options.api_server);
        let api_server = Mutex::new(run.start("kube-apiserver", &mut command));
        // The controllers give up when the API server is not ready within ten seconds.
        until_ready(&site, &admin, &[&etcd, &api_server]);
        let mut command = controllers(&site, &binaries, &run, &files, &options.controllers);
        let controllers = run.start("kube-controller-manager", &mut command);
        Self {
            api_server,
            controllers: Mutex::new(controllers),
            etcd,
            site,
            options,
            binaries,
            authority,
            serving,
            accounts,
            admin,
            kubeconfig,
            run,
        }
    }

    /// The way of the administrator from this process.
    pub fn access(&self) -> &Access {
        &self.admin
    }

    /// The folder of its run: logs, certificates, what etcd has stored.
    pub fn folder(&self) -> &Path {
        self.run.folder()
    }

    /// The administrator's kubeconfig file.
    pub fn kubeconfig(&self) -> &PathBuf {
        &self.kubeconfig
    }

    /// The administrator's client. It belongs to the runtime it is made in.
    pub async fn client(&self) -> kube::Client {
        self.admin.client().await
    }

    /// Writes a kubeconfig file for somebody else.
    pub fn write_kubeconfig(&self, name: &str, access: &Access) -> PathBuf {
        self.run
            .write(&format!("{name}.kubeconfig"), &access.kubeconfig())
    }

    /// `kubectl` as the administrator, to be completed with arguments.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.binaries.program("kubectl"));
        command
            .env("KUBECONFIG", &self.kubeconfig)
            // Discovery is remembered per server; not in the home folder of the user.
            .env("KUBECACHEDIR", self.run.subfolder("kubectl"));
        command
    }

    /// Everything the API server has logged.
    pub fn api_server_log(&self) -> String {
        locked(&self.api_server).log()
    }

    /// Kills the API server at once.
    pub fn kill_api_server(&self) {
        locked(&self.api_server).kill();
    }

    /// Starts it again after [`Self::kill_api_server`] and waits until it is ready.
    pub fn start_api_server(&self) {
        let files = ApiServerFiles {
            serving: &self.serving,
            accounts: &self.accounts,
            authority: &self.authority,
        };
        let flags = &self.options.api_server;
        let mut command = api_server(&self.site, &self.binaries, &self.run, &files, flags);
        *locked(&self.api_server) = self.run.start("kube-apiserver", &mut command);
        self.wait_until_ready();
    }

    /// Kills it and starts it again: watches break, what is stored stays.
    pub fn restart_api_server(&self) {
        self.kill_api_server();
        self.start_api_server();
    }

    /// Stops the API server from running without closing anything.
    pub fn pause_api_server(&self) {
        locked(&self.api_server).signal(Signal::SIGSTOP);
    }

    /// Lets it run again after [`Self::pause_api_server`].
    pub fn resume_api_server(&self) {
        locked(&self.api_server).signal(Signal::SIGCONT);
    }

    /// Stops the controllers (garbage collection, `StatefulSets`) from running.
    pub fn pause_controllers(&self) {
        locked(&self.controllers).signal(Signal::SIGSTOP);
    }

    /// Lets them run again after [`Self::pause_controllers`].
    pub fn resume_controllers(&self) {
        locked(&self.controllers).signal(Signal::SIGCONT);
    }

    /// Waits until the API server says that it is ready.
    pub fn wait_until_ready(&self) {
        let processes = [&self.etcd, &self.api_server, &self.controllers];
        until_ready(&self.site, &self.admin, &processes);
    }
}

fn until_ready(site: &Site, admin: &Access, processes: &[&Mutex<Process>]) {
    wait::within(
        PATIENCE,
        || "the API server is ready".into(),
        || {
            for process in processes {
                locked(process).check();
            }
            std::net::TcpStream::connect(site.reached).ok()?;
            let ready = blocking(async {
                let client = admin.client().await;
                let request = http::Request::get("/readyz").body(Vec::new()).ok()?;
                client.request_text(request).await.ok()
            });
            ready.map(drop)
        },
    );
}

fn locked(process: &Mutex<Process>) -> MutexGuard<'_, Process> {
    process.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Users with a fixed token, and their groups.
const USERS: [(&str, &str); 7] = [
    ("admin", "system:masters"),
    ("system:kube-controller-manager", ""),
    ("system:kube-scheduler", ""),
    ("system:kube-proxy", ""),
    ("system:node:node1", "system:nodes"),
    ("system:node:node2", "system:nodes"),
    ("system:node:node3", "system:nodes"),
];

/// Secret per run: other users of the machine can reach the port.
struct Tokens(String);

impl Tokens {
    fn new(run: &Run) -> Self {
        let tokens = Self(random_text());
        let lines: Vec<String> = USERS
            .iter()
            .map(|(user, groups)| format!("{},{user},{user},{groups}", tokens.of(user)))
            .collect();
        run.write("tokens.csv", &(lines.join("\n") + "\n"));
        tokens
    }

    fn of(&self, user: &str) -> String {
        format!("{}-{}", user.replace(':', "-"), self.0)
    }
}

fn random_text() -> String {
    use std::{fmt::Write as _, io::Read as _};
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .expect("every Linux has random numbers");
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

struct ApiServerFiles<'a> {
    serving: &'a Pair,
    accounts: &'a Pair,
    authority: &'a Authority,
}

/// A command that runs at the site.
pub(super) fn at(namespace: Option<&PathBuf>, program: PathBuf) -> Command {
    let Some(namespace) = namespace else {
        return Command::new(program);
    };
    // Not `ip netns exec`: it hides the mounts of the control groups.
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net={}", namespace.display()))
        .arg("--")
        .arg(program);
    command
}

fn etcd(site: &Site, programs: &NodePrograms, run: &Run) -> Command {
    let mut command = at(site.namespace.as_ref(), programs.etcd());
    let client = format!("http://127.0.0.1:{}", site.etcd_port);
    let peer = format!("http://127.0.0.1:{}", site.peer_port);
    command
        .arg("--data-dir")
        .arg(run.folder().join("etcd"))
        .args(["--listen-client-urls", &client])
        .args(["--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer])
        .args(["--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", &format!("default={peer}")])
        // Its data lives as long as the test.
        .arg("--unsafe-no-fsync");
    command
}

fn api_server(
    site: &Site,
    binaries: &Binaries,
    run: &Run,
    files: &ApiServerFiles<'_>,
    more: &[String],
) -> Command {
    let mut command = at(site.namespace.as_ref(), binaries.program("kube-apiserver"));
    let file = |flag: &str, path: &PathBuf| format!("--{flag}={}", path.display());
    command
        .arg(format!(
            "--etcd-servers=http://127.0.0.1:{}",
            site.etcd_port
        ))
        .arg(format!("--advertise-address={}", site.advertised))
        .arg(format!("--secure-port={}", site.api_port))
        .arg(file("cert-dir", &run.folder().join("api")))
        .arg(file("tls-cert-file", &files.serving.public))
        .arg(file("tls-private-key-file", &files.serving.private))
        .arg(file("client-ca-file", &files.authority.certificate()))
        .arg(file("token-auth-file", &run.folder().join("tokens.csv")))
        .arg(file("service-account-key-file", &files.accounts.public))
        .arg(file(
            "service-account-signing-key-file",
            &files.accounts.private,
        ))
        .args([
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            "--profiling=false",
            // Without it `exec` and `logs` wait for a DNS that is not there.
            "--kubelet-preferred-address-types=InternalIP",
        ]);
    if site.namespace.is_none() {
        // An address of the loopback interface may not stand in an Endpoints object.
        command.args([
            "--bind-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
        ]);
    }
    command.args(more);
    command
}

fn controllers(
    site: &Site,
    binaries: &Binaries,
    run: &Run,
    files: &ApiServerFiles<'_>,
    more: &[String],
) -> Command {
    let program = binaries.program("kube-controller-manager");
    let mut command = at(site.namespace.as_ref(), program);
    let file = |flag: &str, path: &PathBuf| format!("--{flag}={}", path.display());
    let kubeconfig = "system:kube-controller-manager.kubeconfig";
    command
        .arg(file("kubeconfig", &run.folder().join(kubeconfig)))
        .arg(file(
            "service-account-private-key-file",
            &files.accounts.private,
        ))
        .arg(file("root-ca-file", &files.authority.certificate()))
        .args([
            "--use-service-account-credentials",
            "--leader-elect=false",
            "--secure-port=0",
            "--cluster-cidr=10.88.0.0/16",
        ]);
    command.args(more);
    command
}
