//! A real Redis or Valkey server on a free port of 127.0.0.1.

use std::{io, net::SocketAddr, process::Command};

use nix::sys::signal::Signal;

use crate::{
    Engine, Value, Wire,
    environment::unusable,
    ports,
    process::{Folder, Process},
    tls::Certificates,
    wait,
};

/// How to start it.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Which server.
    pub engine: Engine,
    /// Listen with TLS on a second port as well.
    pub tls: bool,
    /// With these certificates; otherwise it makes its own.
    pub certificates: Option<Certificates>,
    /// Password of the default user.
    pub password: Option<String>,
    /// ACL lines, for example `user app on >secret ~* +@all`.
    pub users: Vec<String>,
    /// Further lines of its configuration file.
    pub config: Vec<String>,
    /// The port that it tells others instead of its own; its configuration has to say so.
    pub announced: Option<u16>,
    /// Environment of its process.
    pub environment: Vec<(String, String)>,
}

/// A running server; killed when dropped.
pub struct RedisServer {
    engine: Engine,
    folder: Folder,
    port: u16,
    tls_port: Option<u16>,
    certificates: Option<Certificates>,
    password: Option<String>,
    announced: Option<u16>,
    environment: Vec<(String, String)>,
    process: Process,
    running: bool,
}

impl ServerOptions {
    /// The given server, nothing special.
    pub fn of(engine: Engine) -> Self {
        Self {
            engine,
            ..Self::default()
        }
    }

    /// With one more line of configuration.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.config.push(line.to_owned());
        self
    }
}

impl RedisServer {
    /// Starts the given server with defaults.
    pub fn new(engine: Engine) -> Self {
        Self::start(ServerOptions::of(engine))
    }

    /// Starts a server and waits until it answers.
    pub fn start(options: ServerOptions) -> Self {
        Self::start_on(ports::free(), options)
    }

    /// Starts a server on a port chosen before, and waits until it answers.
    pub fn start_on(port: u16, options: ServerOptions) -> Self {
        let folder = Folder::new("server");
        let tls_port = options.tls.then(ports::free);
        let given = options.certificates;
        let certificates = options
            .tls
            .then(|| given.unwrap_or_else(|| Certificates::make(&folder)));
        let mut lines = vec![
            format!("port {port}"),
            "bind 127.0.0.1".to_owned(),
            "save \"\"".to_owned(),
            "appendonly no".to_owned(),
            "enable-debug-command local".to_owned(),
            format!("dir {}", folder.path().display()),
        ];
        if let (Some(tls_port), Some(pem)) = (tls_port, &certificates) {
            lines.extend(pem.lines(tls_port));
        }
        if let Some(password) = &options.password {
            lines.push(format!("requirepass {password}"));
        }
        lines.extend(options.users);
        lines.extend(options.config);
        folder.write("server.conf", &(lines.join("\n") + "\n"));
        let process = spawn(options.engine, &folder, port, &options.environment);
        Self {
            engine: options.engine,
            folder,
            port,
            tls_port,
            certificates,
            password: options.password,
            announced: options.announced,
            environment: options.environment,
            process,
            running: true,
        }
    }

    /// Whether it was not killed.
    pub const fn is_running(&self) -> bool {
        self.running
    }

    /// Address of its plain port.
    pub fn address(&self) -> SocketAddr {
        loopback(self.port)
    }

    /// Its plain port.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Its TLS port.
    pub fn tls_port(&self) -> u16 {
        self.tls_port.expect("the server was started with TLS")
    }

    /// Its certificates.
    pub fn certificates(&self) -> &Certificates {
        self.certificates
            .as_ref()
            .expect("the server was started with TLS")
    }

    /// Which server it is.
    pub const fn engine(&self) -> Engine {
        self.engine
    }

    /// Its password, if it has one.
    pub fn password(&self) -> Option<&str> {
        self.password.as_deref()
    }

    /// Whether clients may know it by that port: its own, or that of TLS, that of the
    /// proxy before it.
    pub fn is_known_by(&self, port: u16) -> bool {
        self.port == port || [self.announced, self.tls_port].contains(&Some(port))
    }

    /// A direct connection, logged in when the server asks for a password.
    pub fn connect(&self) -> Wire {
        self.try_connect()
            .unwrap_or_else(|error| unusable(&format!("{}: {error}", self.address())))
    }

    /// As [`Self::connect`], or what broke: a server that changes its role closes all connections.
    pub fn try_connect(&self) -> io::Result<Wire> {
        let mut wire = Wire::try_connect(self.address())?;
        if let Some(password) = &self.password {
            assert_eq!(wire.try_call(&["AUTH", password])?, "OK");
        }
        Ok(wire)
    }

    /// Asks for something over connections of its own until one lives long enough for the answer.
    pub fn ask(&self, line: &str) -> Value {
        let words: Vec<&str> = line.split_whitespace().collect();
        wait::until(line, || {
            let connected = self.try_connect();
            connected.and_then(|mut wire| wire.try_call(&words)).ok()
        })
    }

    /// Everything it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Kills it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        self.running = false;
        self.process.kill();
    }

    /// Stops it from running without closing anything: the network looks fine, nobody answers.
    pub fn pause(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    /// Lets it run again after [`Self::pause`].
    pub fn resume(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// Starts it again on the same port, empty.
    pub fn restart(&mut self) {
        self.process.kill();
        self.process = spawn(self.engine, &self.folder, self.port, &self.environment);
        self.running = true;
    }
}

/// `127.0.0.1` and a port.
pub fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn spawn(engine: Engine, folder: &Folder, port: u16, environment: &[(String, String)]) -> Process {
    let program = engine
        .server()
        .unwrap_or_else(|error| unusable(&error.to_string()));
    let mut process = Process::start(
        engine.name(),
        Command::new(program)
            .arg(folder.path().join("server.conf"))
            .envs(environment.iter().map(|(name, value)| (name, value))),
        &folder.path().join("server.log"),
    );
    wait::until(&format!("{} answers on {port}", engine.name()), || {
        if let Some(status) = process.ended() {
            unusable(&format!(
                "{} ended: {status}\n{}",
                engine.name(),
                process.log()
            ));
        }
        let reply = Wire::try_connect(loopback(port))
            .ok()?
            .try_call(&["PING"])
            .ok()?;
        // Asked for a password: it is up.
        (reply == "PONG" || reply.to_string().starts_with("-NOAUTH")).then_some(())
    });
    process
}
