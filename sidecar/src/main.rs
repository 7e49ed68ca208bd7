//! `pannier-sidecar`: reads its flags, checks its configuration, runs.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use sidecar::{
    args::{Args, LogForm},
    config::{self, Env, Listen},
    run,
    state::Active,
    telemetry,
};

/// The process could not run.
const FAILED: u8 = 1;
/// The configuration is wrong.
const MISCONFIGURED: u8 = 2;

pub fn main() -> ExitCode {
    let args = Args::parse();
    let env = Env::of_process();
    if args.check {
        return config::check(&args, &env);
    }
    if let Err(error) = telemetry::init(args.log) {
        return fail(MISCONFIGURED, &error);
    }
    let loaded = match config::load(&args, &env) {
        Ok(loaded) => loaded,
        Err(error) => return fail(MISCONFIGURED, &error),
    };
    for note in &loaded.notes {
        tracing::info!("{note}");
    }
    let welcome = args.manifests.is_some() && args.log == LogForm::Plain;
    let announce = |active: &Active, listen: &Listen| {
        if welcome {
            greet(active, listen);
        } else {
            tracing::info!(redis = ?listen.redis, http = %listen.http, admin = %listen.admin, "ready");
        }
    };
    match run::run(loaded, announce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ run::RunError::Tls(_)) => fail(MISCONFIGURED, &error),
        Err(error) => fail(FAILED, &error),
    }
}

fn fail(code: u8, error: &dyn std::fmt::Display) -> ExitCode {
    // Nobody is left to be told when standard error is closed.
    let _ = writeln!(std::io::stderr(), "pannier-sidecar: {error}");
    ExitCode::from(code)
}

/// What somebody who has just started it wants to see, and three commands to try.
fn greet(active: &Active, listen: &Listen) {
    let config = &active.config;
    let behind = match &config.upstream {
        None => "memory only (no Redis needed)".to_owned(),
        Some(upstream) => format!("in front of redis at {}:{}", upstream.host, upstream.port),
    };
    let rules: Vec<String> = active
        .policy
        .rules()
        .iter()
        .map(|rule| {
            let ttl = rule
                .ttl
                .map_or("-".to_owned(), |ttl| policy::Span(ttl).to_string());
            format!(
                "    {:<20} {:<44} {:?}, ttl {ttl}",
                rule.name,
                rule.pattern.as_str(),
                rule.cache
            )
        })
        .collect();
    let key = active
        .policy
        .rules()
        .first()
        .map_or("greeting".to_owned(), |rule| {
            example_key(rule.pattern.as_str())
        });
    let redis = listen
        .redis
        .first()
        .map_or(6379, std::net::SocketAddr::port);
    let http = listen.http;
    let text = format!(
        "
  pannier-sidecar is ready: {tier}, {behind}

  rules, first match wins
{rules}

  try it
    curl -i http://{http}/v1/cache/{key}                     # a miss
    curl -X PUT --data 'hello' http://{http}/v1/cache/{key}
    curl -i http://{http}/v1/cache/{key}                     # a hit
    redis-cli -p {redis} PANNIER.WHY {key}                   # which rule, which tier, and why

  metrics on http://{admin}/metrics, state on /state; Ctrl-C ends it
",
        tier = if config.tier.is_empty() {
            "no CacheTier"
        } else {
            &config.tier
        },
        rules = if rules.is_empty() {
            "    none: keys are passed through".to_owned()
        } else {
            rules.join("\n")
        },
        admin = format_args!("127.0.0.1:{}", listen.admin.port()),
    );
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// A key that a pattern matches: `analytics:ghosts:{guildId}:{since}` → `analytics:ghosts:1:2`.
fn example_key(pattern: &str) -> String {
    let mut number = 0;
    let mut key = String::new();
    let mut inside = false;
    for letter in pattern.chars() {
        match letter {
            '{' => {
                inside = true;
                number += 1;
                key.push_str(&number.to_string());
            }
            '}' => inside = false,
            '*' => key.push('1'),
            letter if !inside => key.push(letter),
            _ => {}
        }
    }
    key
}
