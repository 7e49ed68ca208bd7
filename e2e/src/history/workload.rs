//! What clients do: readers read in every cached form, writers write in every way that the ten
//! rules know of.

use super::{
    Via,
    client::Client,
    keys::{self, FIELDS, Key, Keyspace, Shape},
    request::{Answer, Request, Touch},
};

/// Writers through a sidecar leave most keys alone for this long, so that a stale entry of theirs
/// has time to be seen.
const SLOT_MILLIS: u64 = 500;

/// The function that `FCALL` calls.
pub const FUNCTION: &str = "#!lua name=history\nredis.register_function('put', function(keys, args) return redis.call('SET', keys[1], args[1]) end)";

/// What a schedule has its clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// `INCR`; not where counters may start again.
    pub counters: bool,
    /// Keys that expire.
    pub expiry: bool,
    /// `FLUSHALL` and `FLUSHDB`; they empty counters as well.
    pub flushes: bool,
    /// Percent of writes that are transactions or scripts.
    pub scripted: usize,
    /// Microseconds that a direct writer rests at most.
    pub direct_rest: usize,
    /// Microseconds that a writer through a sidecar rests at most.
    pub pod_rest: usize,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            counters: true,
            expiry: true,
            flushes: false,
            scripted: 20,
            direct_rest: 1_000,
            pod_rest: 1_500,
        }
    }
}

/// One turn of a reader: up to `most` reads in one pipeline.
pub fn read(client: &mut Client, most: usize, mix: &Mix) {
    let count = 1 + client.random.below(most);
    let requests: Vec<Request> = (0..count).map(|_| one_read(client, mix)).collect();
    client.ask(&requests);
    client.rest(1_500);
}

fn one_read(client: &mut Client, mix: &Mix) -> Request {
    let key = pick(client, mix, |_| true);
    if key.shape == Shape::Hash {
        return read_hash(client, &key);
    }
    if key.shape == Shape::Text && client.random.chance(10) {
        return read_many(client, mix);
    }
    read_key(&key)
}

fn read_hash(client: &mut Client, key: &Key) -> Request {
    if client.random.chance(40) {
        return read_key(key);
    }
    let field = client.random.below(usize::from(FIELDS));
    let name = format!("f{field}");
    let register = key.register + u16::try_from(field).unwrap_or(0);
    Request::new("HGET", &[b"HGET", &*key.name, name.as_bytes()], Answer::One)
        .touching(register, Touch::Read)
        .tagged(key.tag)
}

fn read_many(client: &mut Client, mix: &Mix) -> Request {
    let count = 2 + client.random.below(2);
    let tag = client.one_tag();
    let fits = |key: &Key| key.shape == Shape::Text && tag.is_none_or(|tag| tag == key.tag);
    let keys: Vec<Key> = (0..count).map(|_| pick(client, mix, fits)).collect();
    let mut words: Vec<&[u8]> = vec![b"MGET"];
    words.extend(keys.iter().map(|key| &*key.name));
    let request = Request::new("MGET", &words, Answer::Many).tagged(keys[0].tag);
    keys.iter().fold(request, |request, key| {
        request.touching(key.register, Touch::Read)
    })
}

/// Keys that somebody reads again and again: two of each kind at most.
pub fn watched(space: &Keyspace, mix: &Mix) -> Vec<Key> {
    let mut kept: Vec<Key> = Vec::new();
    for key in space.keys.iter().rev().filter(|key| is_used(key, mix)) {
        let alike = kept.iter().filter(|one| one.shape == key.shape);
        if alike.count() < 2 {
            kept.push(key.clone());
        }
    }
    kept
}

/// One turn of a watcher.
pub fn watch(client: &mut Client, key: &Key) {
    let request = read_key(key);
    client.ask(&[request]);
    client.rest(6_000);
}

/// Reads of all keys.
pub fn read_everything(client: &Client, mix: &Mix) -> Vec<Request> {
    let keys = client.common.space.keys.iter();
    keys.filter(|key| is_used(key, mix)).map(read_key).collect()
}

/// One turn of a writer. Through a sidecar it often reads back what it wrote, in the same pipeline
/// or right after it.
pub fn write(client: &mut Client, mix: &Mix) {
    let slot = client.common.clock.now() / super::MILLI / SLOT_MILLIS;
    let via = client.identity.via;
    let rest = match via {
        Via::Direct => mix.direct_rest,
        Via::Pod(_) => mix.pod_rest,
    };
    let Some(request) = one_write(client, mix, slot) else {
        client.rest(rest);
        return;
    };
    let mut requests = vec![request];
    if via != Via::Direct && client.random.chance(50) {
        let together = client.random.chance(50);
        let back = read_back(client, &requests[0]);
        if together {
            requests.extend(back);
        } else {
            client.ask(&requests);
            requests = back;
        }
    }
    client.ask(&requests);
    client.rest(rest);
}

fn read_back(client: &Client, write: &Request) -> Vec<Request> {
    let touched = |key: &&Key| {
        key.registers()
            .any(|register| write.touches.iter().any(|(of, _)| *of == register))
    };
    let keys = client.common.space.keys.iter().filter(touched).take(3);
    keys.map(read_key).collect()
}

fn read_key(key: &Key) -> Request {
    let get = || Request::new("GET", &[b"GET", &*key.name], Answer::One);
    let request = match key.shape {
        Shape::Hash => key.registers().fold(
            Request::new("HGETALL", &[b"HGETALL", &*key.name], Answer::Fields),
            |request, register| request.touching(register, Touch::Read),
        ),
        Shape::Counter => get().touching(key.register, Touch::ReadSum),
        _ => get().touching(key.register, Touch::Read),
    };
    request.tagged(key.tag)
}

fn one_write(client: &mut Client, mix: &Mix, slot: u64) -> Option<Request> {
    if mix.flushes && client.random.chance(1) && client.random.chance(40) {
        return Some(flush(client));
    }
    let mine = |via: Via, key: &Key| match via {
        // One slot of four is quiet.
        Via::Direct => slot % 4 != 3,
        Via::Pod(pod) => (u64::from(key.register) + slot + u64::from(pod)).is_multiple_of(3),
    };
    let via = client.identity.via;
    let any = client.common.space.keys.iter().any(|key| mine(via, key));
    if !any {
        return None;
    }
    if client.random.chance(mix.scripted) {
        return Some(scripted(client, mix, |key| mine(via, key)));
    }
    let key = pick(client, mix, |key| mine(via, key));
    if key.shape == Shape::Text && client.random.chance(15) {
        return Some(set_many(client, mix, |key| mine(via, key)));
    }
    Some(plain_write(client, &key))
}

/// `SET`, `DEL`, `HSET`, `INCR` and the like.
fn plain_write(client: &mut Client, key: &Key) -> Request {
    let name = &*key.name;
    let request = match key.shape {
        Shape::Counter => Request::new("INCR", &[b"INCR", name], Answer::Status)
            .touching(key.register, Touch::Add),
        Shape::Hash if client.random.chance(10) => remove(client, key),
        Shape::Hash => set_fields(client, key),
        Shape::Text if client.random.chance(10) => remove(client, key),
        Shape::Brief => {
            let ttl = 30 + client.random.below(200);
            set(client, key, u32::try_from(ttl).unwrap_or(0))
        }
        Shape::Expiring if client.random.chance(30) => {
            let ttl = 20 + client.random.below(200);
            let words = [b"PEXPIRE".to_vec(), name.to_vec(), ttl.to_string().into()];
            Request::new("PEXPIRE", &words, Answer::Status)
                .touching(key.register, Touch::End(u32::try_from(ttl).unwrap_or(0)))
        }
        _ => set(client, key, 0),
    };
    request.tagged(key.tag)
}

fn set(client: &mut Client, key: &Key, ttl: u32) -> Request {
    let mark = client.next_mark();
    let value = keys::value(mark, padding(client));
    let mut words = vec![b"SET".to_vec(), key.name.clone(), value];
    let mut verb = "SET";
    if ttl > 0 {
        verb = "SET PX";
        words.extend([b"PX".to_vec(), ttl.to_string().into()]);
    }
    Request::new(verb, &words, Answer::Status).touching(key.register, Touch::Set(mark, ttl))
}

fn set_fields(client: &mut Client, key: &Key) -> Request {
    let mut words = vec![b"HSET".to_vec(), key.name.clone()];
    let first = client.random.below(2);
    let last = if client.random.chance(50) { first } else { 1 };
    let mut touches = Vec::new();
    for field in first..=last {
        let mark = client.next_mark();
        words.extend([format!("f{field}").into_bytes(), keys::value(mark, 0)]);
        let register = key.register + u16::try_from(field).unwrap_or(0);
        touches.push((register, Touch::Set(mark, 0)));
    }
    let mut request = Request::new("HSET", &words, Answer::Status);
    request.touches = touches;
    request
}

fn remove(client: &mut Client, key: &Key) -> Request {
    let verb = if client.random.chance(50) {
        "DEL"
    } else {
        "UNLINK"
    };
    let request = Request::new(verb, &[verb.as_bytes(), &key.name], Answer::Status);
    key.registers().fold(request, |request, register| {
        request.touching(register, Touch::Remove)
    })
}

fn set_many(client: &mut Client, mix: &Mix, mine: impl Fn(&Key) -> bool) -> Request {
    let mut words = vec![b"MSET".to_vec()];
    let mut touches: Vec<(u16, Touch)> = Vec::new();
    let first = pick(client, mix, |key| key.shape == Shape::Text && mine(key));
    let tag = client.one_tag().map(|_| first.tag);
    let fits = |key: &Key| key.shape == Shape::Text && tag.is_none_or(|tag| tag == key.tag);
    for _ in 0..3 {
        let key = pick(client, mix, |key| fits(key) && mine(key));
        // The same key twice would be written twice at one moment.
        if fits(&key) && touches.iter().all(|(of, _)| *of != key.register) {
            let mark = client.next_mark();
            words.extend([key.name.clone(), keys::value(mark, 0)]);
            touches.push((key.register, Touch::Set(mark, 0)));
        }
    }
    let mut request = Request::new("MSET", &words, Answer::Status).tagged(first.tag);
    request.touches = touches;
    request
}

/// A transaction or a script.
fn scripted(client: &mut Client, mix: &Mix, mine: impl Fn(&Key) -> bool) -> Request {
    if client.random.chance(50) {
        let first = pick(client, mix, |key| key.shape == Shape::Text && mine(key));
        let tag = first.tag;
        let second = pick(client, mix, |key| {
            key.shape == Shape::Hash && key.tag == tag && mine(key)
        });
        let commands: Vec<Request> = [first, second]
            .iter()
            .filter(|key| matches!(key.shape, Shape::Text | Shape::Hash) && key.tag == tag)
            .map(|key| plain_write(client, key))
            .collect();
        return Request::transaction(&commands);
    }
    let key = pick(client, mix, |key| key.shape == Shape::Text && mine(key));
    if key.shape != Shape::Text {
        return plain_write(client, &key);
    }
    let mark = client.next_mark();
    let (verb, what) = if client.random.chance(30) {
        ("FCALL", "put")
    } else {
        ("EVAL", "return redis.call('SET', KEYS[1], ARGV[1])")
    };
    let words = [
        verb.into(),
        what.into(),
        b"1".to_vec(),
        key.name.clone(),
        keys::value(mark, 0),
    ];
    Request::new(verb, &words, Answer::Status)
        .touching(key.register, Touch::Set(mark, 0))
        .tagged(key.tag)
}

fn flush(client: &mut Client) -> Request {
    let verb = if client.random.chance(50) {
        "FLUSHALL"
    } else {
        "FLUSHDB"
    };
    let request = Request::new(verb, &[verb], Answer::Status);
    let space = &client.common.space;
    space.values().fold(request, |request, register| {
        request.touching(register, Touch::Remove)
    })
}

/// Mostly short; some do not fit into one packet.
fn padding(client: &mut Client) -> usize {
    match client.random.below(20) {
        0 => 3_000,
        1 => 200,
        _ => 0,
    }
}

/// A key that fits, the first ones more often; any key that the mix allows if none fits.
fn pick(client: &mut Client, mix: &Mix, fits: impl Fn(&Key) -> bool) -> Key {
    let allowed = |key: &&Key| is_used(key, mix);
    let space = &client.common.space.keys;
    let mut fitting: Vec<&Key> = space
        .iter()
        .filter(allowed)
        .filter(|key| fits(key))
        .collect();
    if fitting.is_empty() {
        fitting = space.iter().filter(allowed).collect();
    }
    let place = client.random.below(fitting.len());
    fitting[place].clone()
}

fn is_used(key: &Key, mix: &Mix) -> bool {
    match key.shape {
        Shape::Counter => mix.counters && !mix.flushes,
        Shape::Brief | Shape::Expiring => mix.expiry,
        Shape::Text | Shape::Hash => true,
    }
}
