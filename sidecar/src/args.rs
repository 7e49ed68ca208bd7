//! Flags of `pannier-sidecar`, and nothing else: their values are checked by `config`, all
//! together, so that one run names everything that is wrong.
//!
//! Each flag has an environment variable of the same name; the flag wins. No secret is a flag:
//! command lines are visible to every process of the node (P10).

use std::path::PathBuf;

use clap::{
    Parser, ValueEnum,
    builder::{BoolishValueParser, OsStringValueParser, TypedValueParser as _},
};

/// A Redis-speaking cache at the side of every pod.
///
/// What it serves comes from one of --config, --manifests, or a Redis address alone; with none of
/// them it keeps everything in memory. PANNIER_LOG_LEVEL sets the log level: error, warn, info
/// (default), debug or trace.
// No `Debug`: a mistaken password in `--redis-url` must not reach a log.
#[derive(Clone, Default, Parser)]
#[command(name = "pannier-sidecar", version, max_term_width = 100)]
#[expect(
    clippy::doc_markdown,
    reason = "clap prints these comments as they are"
)]
pub struct Args {
    /// Configuration file, YAML or JSON; read again when it changes.
    #[arg(
        long,
        value_name = "FILE",
        env = "PANNIER_CONFIG",
        hide_env_values = true
    )]
    pub config: Option<PathBuf>,

    /// Custom resources to serve without a cluster: a file, or a folder of YAML files; read again
    /// when they change.
    #[arg(
        long,
        value_name = "PATH",
        env = "PANNIER_MANIFESTS",
        hide_env_values = true
    )]
    pub manifests: Option<PathBuf>,

    /// Redis to stand in front of: redis://host[:port][/database], or rediss:// for TLS;
    /// redis-sentinel://host,host/0#name for the primary that Sentinels call by that name,
    /// redis-cluster://host,host for a cluster. A URL with a password goes into PANNIER_REDIS_URL
    /// or REDIS_URL instead; REDIS_HOST, REDIS_PORT, REDIS_USERNAME, REDIS_PASSWORD,
    /// REDIS_SENTINEL_PASSWORD, REDIS_DB and REDIS_TLS work as well.
    // Without `env`: whether it came from the command line decides if it may hold a password.
    #[arg(long, value_name = "URL")]
    pub redis_url: Option<String>,

    /// Address for Redis clients; loopback only. Default: port 6379 on 127.0.0.1 and ::1.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "PANNIER_LISTEN",
        hide_env_values = true
    )]
    pub listen: Option<String>,

    /// UNIX socket for Redis clients, beside the TCP address; empty: none.
    #[arg(
        long,
        value_name = "PATH",
        env = "PANNIER_UNIX_SOCKET",
        hide_env_values = true,
        value_parser = OsStringValueParser::new().map(PathBuf::from)
    )]
    pub unix_socket: Option<PathBuf>,

    /// Address of the HTTP API; loopback only. Default: 127.0.0.1:6380.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "PANNIER_HTTP",
        hide_env_values = true
    )]
    pub http: Option<String>,

    /// Address of probes, metrics and state. Default: [::]:9464, which stands for
    /// every address, of IPv4 as well.
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "PANNIER_ADMIN",
        hide_env_values = true
    )]
    pub admin: Option<String>,

    /// Event loops, each on a thread of its own, 1 to 64. Default: 1.
    #[arg(
        long,
        value_name = "N",
        env = "PANNIER_THREADS",
        hide_env_values = true
    )]
    pub threads: Option<String>,

    /// Form of the log.
    #[arg(
        long,
        value_name = "FORM",
        env = "PANNIER_LOG",
        hide_env_values = true,
        value_enum,
        default_value_t
    )]
    pub log: LogForm,

    /// Check the configuration, say what is worth knowing about it, and exit: 0 if it can be
    /// served, 2 if not.
    #[arg(
        long,
        env = "PANNIER_CHECK",
        hide_env_values = true,
        value_parser = BoolishValueParser::new()
    )]
    pub check: bool,
}

/// Form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogForm {
    /// Lines for people.
    #[default]
    Plain,
    /// One JSON object per line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_of_the_documentation_is_understood() {
        let args = Args::try_parse_from([
            "pannier-sidecar",
            "--config=a.yaml",
            "--manifests=m",
            "--redis-url=redis://r",
            "--listen=127.0.0.1:1",
            "--unix-socket=/s",
            "--http=127.0.0.1:2",
            "--admin=0.0.0.0:3",
            "--threads=2",
            "--log=json",
            "--check",
        ])
        .unwrap();
        assert_eq!(args.threads.as_deref(), Some("2"));
        assert_eq!(args.log, LogForm::Json);
        assert!(args.check);
    }

    #[test]
    fn help_names_the_variable_of_each_flag() {
        let help = <Args as clap::CommandFactory>::command()
            .render_long_help()
            .to_string();
        for name in [
            "PANNIER_CONFIG",
            "PANNIER_MANIFESTS",
            "PANNIER_REDIS_URL",
            "PANNIER_LISTEN",
            "PANNIER_UNIX_SOCKET",
            "PANNIER_HTTP",
            "PANNIER_ADMIN",
            "PANNIER_THREADS",
            "PANNIER_LOG",
            "PANNIER_CHECK",
        ] {
            assert!(help.contains(name), "{name} is missing in:\n{help}");
        }
    }
}
