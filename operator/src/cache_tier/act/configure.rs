//! Gives settings to a running server, and looks whether it takes them: it may refuse a value, or
//! take it and show another.

use std::collections::HashMap;

use redis::{RedisError, RedisResult, aio::ConnectionLike};

use crate::instance::verify::same;

/// A name and a value.
pub type Setting<'a> = (&'a str, &'a str);

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Given<'a> {
    /// Names of those that the server took.
    pub taken: Vec<&'a str>,
    /// Those that it did not, and why.
    pub refused: Vec<(Setting<'a>, String)>,
}

/// Gives the settings to the server.
pub async fn give<'a>(
    link: &mut impl ConnectionLike,
    settings: &[Setting<'a>],
) -> RedisResult<Given<'a>> {
    let mut answers = HashMap::new();
    // All or none: the server takes them together, so one bad value stands for all.
    if let Err(error) = set(link, settings).await {
        refusal(error)?;
        for setting in settings {
            if let Err(error) = set(link, &[*setting]).await {
                answers.insert(setting.0, refusal(error)?);
            }
        }
    }
    let shown = shown(link, settings).await?;
    let mut given = Given::default();
    for setting @ (name, value) in settings.iter().copied() {
        let now = shown.get(name).map(String::as_str).unwrap_or_default();
        if let Some(answer) = answers.remove(name) {
            given
                .refused
                .push((setting, format!("it answers {answer:?}")));
        } else if same(name, value, now) {
            given.taken.push(name);
        } else {
            given
                .refused
                .push((setting, format!("it shows {now:?} then")));
        }
    }
    Ok(given)
}

async fn set(link: &mut impl ConnectionLike, settings: &[Setting<'_>]) -> RedisResult<()> {
    let mut command = redis::cmd("CONFIG");
    command.arg("SET");
    for (name, value) in settings {
        command.arg(*name).arg(*value);
    }
    command.query_async(link).await
}

async fn shown(
    link: &mut impl ConnectionLike,
    settings: &[Setting<'_>],
) -> RedisResult<HashMap<String, String>> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET");
    for (name, _) in settings {
        command.arg(*name);
    }
    command.query_async(link).await
}

/// What the server says of a value; a failure of another kind is given back.
fn refusal(error: RedisError) -> RedisResult<String> {
    if error.code() != Some("ERR") {
        return Err(error);
    }
    let detail = error.detail().map(ToOwned::to_owned);
    Ok(detail.unwrap_or_else(|| error.to_string()))
}
