//! What this process binds: flags win over the file. Nothing but the admin port leaves the pod, so
//! the other two must be loopback addresses.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use policy::SidecarConfig;

use super::error::Problems;
use crate::args::Args;

const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);
/// Length of `sun_path` on Linux without its final zero.
const MAX_SOCKET_PATH: usize = 107;

/// What to bind. A port of 0 means any free one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// For Redis clients. The first must be bound; a second one is the same port on `::1`, which
    /// a pod without IPv6 does not have.
    pub redis: Vec<SocketAddr>,
    /// For Redis clients as well.
    pub unix_socket: Option<PathBuf>,
    /// HTTP API.
    pub http: SocketAddr,
    /// Probes, metrics and state. `[::]` stands for IPv4 as well.
    pub admin: SocketAddr,
    /// Event loops.
    pub threads: u8,
}

/// The flags, read but not yet merged with a file.
pub(super) struct Flags {
    listen: Option<Vec<SocketAddr>>,
    unix_socket: Option<PathBuf>,
    http: Option<SocketAddr>,
    admin: Option<SocketAddr>,
    threads: Option<u8>,
}

// === impl Flags ===

impl Flags {
    pub(super) fn read(args: &Args, problems: &mut Problems) -> Self {
        let listen = args.listen.as_deref();
        let http = args.http.as_deref();
        let admin = args.admin.as_deref();
        Self {
            listen: listen.and_then(|text| {
                let [first, ..] = loopback("--listen / PANNIER_LISTEN", text, problems)?;
                Some(both(first))
            }),
            unix_socket: args.unix_socket.clone(),
            http: http.and_then(|text| {
                let [first] = loopback("--http / PANNIER_HTTP", text, problems)?;
                Some(first)
            }),
            admin: admin.and_then(|text| {
                let [admin] = address("--admin / PANNIER_ADMIN", text, "[::]:9464", problems)?;
                Some(admin)
            }),
            threads: args
                .threads
                .as_deref()
                .and_then(|text| threads(text, problems)),
        }
    }

    /// The result also stands in the configuration, so that there is one truth about ports.
    pub(super) fn apply(self, config: &mut SidecarConfig, problems: &mut Problems) -> Listen {
        let sidecar = &mut config.sidecar;
        let redis = self
            .listen
            .unwrap_or_else(|| both((V4, sidecar.redis_port).into()));
        let http = self.http.unwrap_or_else(|| (V4, sidecar.http_port).into());
        let any = IpAddr::V6(Ipv6Addr::UNSPECIFIED);
        let admin = self
            .admin
            .unwrap_or_else(|| (any, sidecar.admin_port).into());
        let unix_socket = self
            .unix_socket
            .or_else(|| sidecar.unix_socket.as_ref().map(PathBuf::from))
            // Said by the flag: none, whatever the file says.
            .filter(|path| !path.as_os_str().is_empty());
        if let Some(path) = &unix_socket {
            check_socket(path, problems);
        }
        let threads = self.threads.unwrap_or(sidecar.threads);
        // Port 0 is for tests, and only the flag may say it: the policy crate refuses it in a file.
        for (field, port) in [
            (&mut sidecar.redis_port, redis[0].port()),
            (&mut sidecar.http_port, http.port()),
            (&mut sidecar.admin_port, admin.port()),
        ] {
            if port != 0 {
                *field = port;
            }
        }
        sidecar.threads = threads;
        sidecar.unix_socket = unix_socket
            .as_ref()
            .map(|path| path.to_string_lossy().into_owned());
        Listen {
            redis,
            unix_socket,
            http,
            admin,
            threads,
        }
    }
}

/// The same port on `127.0.0.1` and `::1`; another loopback address stands alone.
fn both(first: SocketAddr) -> Vec<SocketAddr> {
    if first.ip() == V4 {
        vec![first, (V6, first.port()).into()]
    } else {
        vec![first]
    }
}

fn loopback(place: &str, text: &str, problems: &mut Problems) -> Option<[SocketAddr; 1]> {
    let [address] = address(place, text, "127.0.0.1:6379", problems)?;
    if address.ip().is_loopback() {
        return Some([address]);
    }
    problems.setting(
        place,
        Some(text),
        "nothing but the admin port leaves the pod, and this address can be reached from outside",
        format!(
            "use a loopback address such as 127.0.0.1:{}",
            address.port()
        ),
    );
    None
}

/// `127.0.0.1:6379`, `[::1]:6379`, `localhost:6379`. No names are resolved.
fn address(
    place: &str,
    text: &str,
    example: &str,
    problems: &mut Problems,
) -> Option<[SocketAddr; 1]> {
    let parsed = match text.strip_prefix("localhost:") {
        Some(port) => port.parse().ok().map(|port: u16| (V4, port).into()),
        None => text.parse().ok(),
    };
    if parsed.is_none() {
        problems.setting(
            place,
            Some(text),
            "not an IP address with a port",
            format!("write it like {example}"),
        );
    }
    parsed.map(|address| [address])
}

fn threads(text: &str, problems: &mut Problems) -> Option<u8> {
    let number = text.parse().ok().filter(|number| (1..=64).contains(number));
    if number.is_none() {
        problems.setting(
            "--threads / PANNIER_THREADS",
            Some(text),
            "not a number of event loops",
            "give a number from 1 to 64; one carries what an app sends unless it fills a core",
        );
    }
    number
}

fn check_socket(path: &Path, problems: &mut Problems) {
    let text = path.to_string_lossy();
    let reason = if !path.is_absolute() {
        "not an absolute path"
    } else if path.as_os_str().len() > MAX_SOCKET_PATH {
        "longer than the 107 bytes that the kernel takes"
    } else {
        return;
    };
    problems.setting(
        "--unix-socket / PANNIER_UNIX_SOCKET (sidecar.unixSocket)",
        Some(&text),
        reason,
        "give an absolute path such as /run/pannier/redis.sock",
    );
}

/// The app's own `REDIS_URL` points at the sidecar; given to the sidecar too, it would call itself.
pub(super) fn refuse_loop(config: &SidecarConfig, listen: &Listen, problems: &mut Problems) {
    let Some(upstream) = &config.upstream else {
        return;
    };
    let local = upstream.host.eq_ignore_ascii_case("localhost")
        || upstream
            .host
            .parse()
            .is_ok_and(|ip: IpAddr| ip.is_loopback() || ip.is_unspecified());
    if local && upstream.port != 0 && upstream.port == listen.redis[0].port() {
        problems.setting(
            "the address of Redis",
            Some(&format!("{}:{}", upstream.host, upstream.port)),
            "this is where the sidecar itself listens",
            "give the address of the real Redis, or another --listen address",
        );
    }
}
