//! `pannier-operator demo`: an app as the users of Pannier write them, for `make up` and `helm test`. It knows
//! nothing but `REDIS_URL`: shows products again and again, and makes one anew when the cache
//! has none.

use std::{collections::HashMap, time::Duration};

use redis::{AsyncCommands as _, RedisError, Value, aio::MultiplexedConnection};
use tokio::time::{Instant, interval, sleep, timeout};

/// What the variable is called in every pod with a sidecar.
const VARIABLE: &str = "REDIS_URL";
/// Time for the first answer of the cache.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two products that are shown.
const PAUSE: Duration = Duration::from_millis(10);
/// Between two lines that are printed.
const REPORT: Duration = Duration::from_secs(5);
/// What the database would take.
const DATABASE: Duration = Duration::from_millis(20);

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The pod was not told of a cache.
    #[error(
        "REDIS_URL is not set: has this pod a sidecar? Its label pannier.dev/inject names a tier"
    )]
    NoCache,
    /// The cache did not answer.
    #[error("no answer from the cache within {seconds} s: {0}", seconds = PATIENCE.as_secs())]
    Unreachable(String),
    /// A command failed.
    #[error("{0}")]
    Command(#[from] RedisError),
    /// The cache works, the sidecar's memory does not.
    #[error("{0}")]
    Unexpected(String),
}

/// Runs until SIGTERM, or shows with `once` that a value is written, read, and read again from memory.
pub async fn run(once: bool) -> Result<(), DemoError> {
    let url = std::env::var(VARIABLE).map_err(|_| DemoError::NoCache)?;
    let client = redis::Client::open(url)?;
    let mut cache = connect(&client).await?;
    if once {
        return prove(&mut cache).await;
    }
    tokio::select! {
        () = serve(&mut cache) => {}
        () = crate::run::signal() => {}
    }
    Ok(())
}

async fn connect(client: &redis::Client) -> Result<MultiplexedConnection, DemoError> {
    let mut last = "it is silent".to_owned();
    let connected = timeout(PATIENCE, async {
        loop {
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => return connection,
                Err(error) => last = error.to_string(),
            }
            sleep(Duration::from_millis(100)).await;
        }
    });
    connected
        .await
        .map_err(|_| DemoError::Unreachable(last.clone()))
}

// === one round ===

async fn prove(cache: &mut MultiplexedConnection) -> Result<(), DemoError> {
    let (key, value) = ("demo:once", "a value");
    () = cache.set(key, value).await?;
    let before = Figures::ask(cache).await?;
    // The first read may have to ask Redis, and is kept.
    for _ in 0..2 {
        let found: Option<String> = cache.get(key).await?;
        if found.as_deref() != Some(value) {
            return Err(DemoError::Unexpected(format!(
                "{key} was set and is not there: {found:?}"
            )));
        }
    }
    let hits = Figures::ask(cache).await?.hits - before.hits;
    if hits < 1 {
        return Err(DemoError::Unexpected(format!(
            "{key} was read twice and never from the sidecar's memory: has the tier a rule for demo:*, and is its \
             local tier on?"
        )));
    }
    println!("SET, GET and a hit: {hits} of 2 reads were answered from the sidecar's memory");
    Ok(())
}

// === the app ===

async fn serve(cache: &mut MultiplexedConnection) {
    let mut pause = interval(PAUSE);
    let mut told = Instant::now();
    let mut alone = 0_u64;
    for turn in 1_u64.. {
        pause.tick().await;
        // Without its cache a shop is slow, not closed.
        if let Err(error) = show(cache, turn % (1 + turn % 50)).await {
            alone += 1;
            if alone == 1 {
                println!("the cache failed, the database is asked instead: {error}");
            }
        }
        if told.elapsed() >= REPORT || turn == 100 {
            told = Instant::now();
            match Figures::ask(cache).await {
                Ok(figures) => {
                    println!("{turn} products shown, {alone} without the cache, {figures}");
                }
                Err(error) => println!("{turn} products shown, {alone} without the cache: {error}"),
            }
        }
    }
}

/// Small numbers are popular.
async fn show(cache: &mut MultiplexedConnection, product: u64) -> Result<(), DemoError> {
    let key = format!("demo:product:{product}");
    let found: Option<String> = cache.get(&key).await?;
    if found.is_none() {
        sleep(DATABASE).await;
        () = cache.set(&key, format!("product number {product}")).await?;
    }
    Ok(())
}

/// What the sidecar counts, for its whole life.
struct Figures {
    hits: i64,
    misses: i64,
}

impl Figures {
    async fn ask(cache: &mut MultiplexedConnection) -> Result<Self, DemoError> {
        let all: HashMap<String, Value> = redis::cmd("PANNIER.STATS").query_async(cache).await?;
        let number = |name: &str| match all.get(name) {
            Some(Value::Int(number)) => Ok(*number),
            other => Err(DemoError::Unexpected(format!(
                "PANNIER.STATS says {other:?} of {name}"
            ))),
        };
        Ok(Self {
            hits: number("hits")?,
            misses: number("misses")?,
        })
    }
}

impl std::fmt::Display for Figures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { hits, misses } = self;
        let tenths = 1000 * hits / (hits + misses).max(1);
        write!(
            f,
            "hit ratio {}.{} % ({hits} of {} reads from the sidecar's memory)",
            tenths / 10,
            tenths % 10,
            hits + misses
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Figures;

    #[test]
    fn the_ratio_has_one_digit_and_no_reads_are_no_error() {
        let text = |hits, misses| Figures { hits, misses }.to_string();
        assert!(text(973, 27).starts_with("hit ratio 97.3 % (973 of 1000"));
        assert!(text(0, 0).starts_with("hit ratio 0.0 %"));
    }
}
