//! One visit: finds the primary, asks whether it answers, and reads who is listed.

use policy::config::UpstreamMode;
use redis::{
    ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo, RedisError, RedisResult,
    aio::MultiplexedConnection,
};

use super::{
    Found, Place,
    sidecars::{self, LISTED},
};
use crds::condition::SidecarsStatus;

type Address = (String, u16);

/// Visits a place once: who answers there, and which sidecars are listed.
pub async fn visit(place: &Place) -> Found {
    match primary(place).await {
        Ok((address, link)) => Found {
            answer: Ok(shown(&address)),
            sidecars: listed(place, link).await.ok(),
        },
        Err(why) => Found {
            answer: Err(why),
            sidecars: None,
        },
    }
}

/// A connection to who is to answer, or why there is none.
async fn primary(place: &Place) -> Result<(Address, MultiplexedConnection), String> {
    let mut problems = Vec::new();
    for address in seeds(place) {
        let found = match place.upstream.mode {
            UpstreamMode::Sentinel => named(place, &address).await,
            UpstreamMode::Standalone | UpstreamMode::Cluster => Ok(address.clone()),
        };
        let answered = match found {
            Ok(server) => answer(place, &server).await.map(|link| (server, link)),
            Err(error) => Err(error),
        };
        match answered {
            Ok(answered) => return Ok(answered),
            Err(error) => problems.push(format!("{}: {}", shown(&address), sentence(&error))),
        }
    }
    Err(problems.join("; "))
}

fn seeds(place: &Place) -> Vec<Address> {
    let upstream = &place.upstream;
    let first = (upstream.host.clone(), upstream.port);
    let others = upstream.seeds.iter().filter_map(|seed| {
        let (host, port) = seed.rsplit_once(':')?;
        Some((host.to_owned(), port.parse().ok()?))
    });
    std::iter::once(first).chain(others).collect()
}

/// The primary that a Sentinel names.
async fn named(place: &Place, sentinel: &Address) -> RedisResult<Address> {
    let mut login = RedisConnectionInfo::default();
    if let Some(password) = &place.sentinel_password {
        login = login.set_password(password);
    }
    let mut link = connect(sentinel, login).await?;
    let name = place.upstream.sentinel.as_ref();
    let mut command = redis::cmd("SENTINEL");
    command
        .arg("GET-MASTER-ADDR-BY-NAME")
        .arg(name.map_or("", |sentinel| &sentinel.master_name));
    let found: Option<(String, u16)> = command.query_async(&mut link).await?;
    found.ok_or_else(|| {
        let message = "this Sentinel knows no primary of that name";
        (redis::ErrorKind::UnexpectedReturnType, message).into()
    })
}

/// Logs in and says PING.
async fn answer(place: &Place, address: &Address) -> RedisResult<MultiplexedConnection> {
    let mut login = RedisConnectionInfo::default().set_db(place.database.into());
    if let Some(username) = &place.username {
        login = login.set_username(username);
    }
    if let Some(password) = &place.password {
        login = login.set_password(password);
    }
    let mut link = connect(address, login).await?;
    let _: redis::Value = redis::cmd("PING").query_async(&mut link).await?;
    Ok(link)
}

async fn connect(
    (host, port): &Address,
    login: RedisConnectionInfo,
) -> RedisResult<MultiplexedConnection> {
    let info = ConnectionAddr::Tcp(host.clone(), *port)
        .into_connection_info()?
        .set_redis_settings(login);
    redis::Client::open(info)?
        .get_multiplexed_async_connection()
        .await
}

/// The sidecars that are listed; the server is asked once more where another one has the keys.
async fn listed(place: &Place, mut link: MultiplexedConnection) -> RedisResult<SidecarsStatus> {
    match read(place, &mut link).await {
        Err(error) if error.redirect_node().is_some() => {
            let to = error.redirect_node().and_then(|(address, _)| {
                let (host, port) = address.rsplit_once(':')?;
                Some((host.to_owned(), port.parse().ok()?))
            });
            let Some(to) = to else { return Err(error) };
            let mut link = answer(place, &to).await?;
            read(place, &mut link).await
        }
        done => done,
    }
}

async fn read(place: &Place, link: &mut MultiplexedConnection) -> RedisResult<SidecarsStatus> {
    let tier = format!("{}/{}", place.namespace, place.tier);
    let mut command = redis::cmd("ZREVRANGE");
    command
        .arg(sidecars::index(&place.prefix, &tier))
        .arg(0)
        .arg(LISTED - 1);
    let ids: Vec<String> = command.query_async(link).await?;
    if ids.is_empty() {
        return Ok(SidecarsStatus::default());
    }
    let mut command = redis::cmd("MGET");
    for id in &ids {
        command.arg(sidecars::record(&place.prefix, &tier, id));
    }
    let records: Vec<Option<Vec<u8>>> = command.query_async(link).await?;
    let records = records.iter().flatten().map(Vec::as_slice);
    Ok(sidecars::sum(records, place.generation))
}

fn shown((host, port): &Address) -> String {
    format!("{host}:{port}")
}

/// What went wrong, in one line of bounded length; never what was sent.
fn sentence(error: &RedisError) -> String {
    let line = error.to_string().replace(['\r', '\n'], " ");
    line.chars().take(200).collect()
}
