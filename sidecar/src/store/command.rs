//! The commands of memory mode: name, number of arguments, what answers them.
//!
//! Scripts are not here yet; they get a file beside this one and their lines in the table.

use super::fail::Fail;
use super::run::Run;
use super::sorted::{algebra, members, pop, range};
use super::stream::{append as stream_append, read as stream_read};
use super::{bits, deadlines, hashes, keys, lists, numbers, scan, sets, strings, waiting};
use crate::resp::write::Reply;

pub(super) type Handler = fn(&mut Run<'_>, &[&[u8]], &mut Reply<'_>) -> Result<(), Fail>;

pub(super) struct Spec {
    pub name: &'static str,
    /// As in `COMMAND`: the number of arguments with the name, or if negative at least so many.
    arity: i8,
    /// Whether room is made beforehand for what the arguments can add; commands that add
    /// something else make room themselves.
    pub grows: bool,
    pub run: Handler,
}

impl Spec {
    pub fn takes(&self, arguments: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 {
            arguments >= wanted
        } else {
            arguments == wanted
        }
    }
}

const fn plain(name: &'static str, arity: i8, run: Handler) -> Spec {
    Spec {
        name,
        arity,
        grows: false,
        run,
    }
}

const fn grows(name: &'static str, arity: i8, run: Handler) -> Spec {
    Spec {
        name,
        arity,
        grows: true,
        run,
    }
}

/// Sorted by name, for binary search.
static TABLE: &[Spec] = SPECS;

const SPECS: &[Spec] = &[
    plain("append", 3, strings::append),
    plain("bitcount", -2, bits::bitcount),
    plain("blmove", 6, waiting::blmove),
    plain("blpop", -3, waiting::blpop),
    plain("brpop", -3, waiting::brpop),
    plain("brpoplpush", 4, waiting::brpoplpush),
    plain("bzpopmax", -3, waiting::bzpopmax),
    plain("bzpopmin", -3, waiting::bzpopmin),
    plain("copy", -3, keys::copy),
    plain("dbsize", 1, keys::dbsize),
    grows("decr", 2, numbers::decr),
    grows("decrby", 3, numbers::decrby),
    plain("del", -2, keys::del),
    plain("exists", -2, keys::exists),
    plain("expire", -3, deadlines::expire),
    plain("expireat", -3, deadlines::expireat),
    plain("expiretime", 2, deadlines::expiretime),
    plain("flushall", -1, keys::flushall),
    plain("flushdb", -1, keys::flushdb),
    plain("get", 2, strings::get),
    plain("getbit", 3, bits::getbit),
    plain("getdel", 2, strings::getdel),
    plain("getex", -2, strings::getex),
    plain("getrange", 4, strings::getrange),
    plain("getset", 3, strings::getset),
    plain("hdel", -3, hashes::hdel),
    plain("hexists", 3, hashes::hexists),
    plain("hget", 3, hashes::hget),
    plain("hgetall", 2, hashes::hgetall),
    grows("hincrby", 4, hashes::hincrby),
    grows("hincrbyfloat", 4, hashes::hincrbyfloat),
    plain("hkeys", 2, hashes::hkeys),
    plain("hlen", 2, hashes::hlen),
    plain("hmget", -3, hashes::hmget),
    grows("hmset", -4, hashes::hmset),
    plain("hrandfield", -2, hashes::hrandfield),
    plain("hscan", -3, scan::hscan),
    grows("hset", -4, hashes::hset),
    grows("hsetnx", 4, hashes::hsetnx),
    plain("hstrlen", 3, hashes::hstrlen),
    plain("hvals", 2, hashes::hvals),
    grows("incr", 2, numbers::incr),
    grows("incrby", 3, numbers::incrby),
    grows("incrbyfloat", 3, numbers::incrbyfloat),
    plain("keys", 2, scan::keys),
    plain("lindex", 3, lists::lindex),
    grows("linsert", 5, lists::linsert),
    plain("llen", 2, lists::llen),
    plain("lmove", 5, lists::lmove),
    plain("lpop", -2, lists::lpop),
    plain("lpos", -3, lists::lpos),
    grows("lpush", -3, lists::lpush),
    grows("lpushx", -3, lists::lpushx),
    plain("lrange", 4, lists::lrange),
    plain("lrem", 4, lists::lrem),
    grows("lset", 4, lists::lset),
    plain("ltrim", 4, lists::ltrim),
    plain("mget", -2, strings::mget),
    plain("move", 3, keys::move_key),
    plain("mset", -3, strings::mset),
    plain("msetnx", -3, strings::msetnx),
    plain("persist", 2, deadlines::persist),
    plain("pexpire", -3, deadlines::pexpire),
    plain("pexpireat", -3, deadlines::pexpireat),
    plain("pexpiretime", 2, deadlines::pexpiretime),
    plain("psetex", 4, strings::psetex),
    plain("pttl", 2, deadlines::pttl),
    plain("randomkey", 1, keys::randomkey),
    plain("rename", 3, keys::rename),
    plain("renamenx", 3, keys::renamenx),
    plain("rpop", -2, lists::rpop),
    plain("rpoplpush", 3, lists::rpoplpush),
    grows("rpush", -3, lists::rpush),
    grows("rpushx", -3, lists::rpushx),
    grows("sadd", -3, sets::sadd),
    plain("scan", -2, scan::scan),
    plain("scard", 2, sets::scard),
    plain("sdiff", -2, sets::sdiff),
    plain("sdiffstore", -3, sets::sdiffstore),
    plain("set", -3, strings::set),
    plain("setbit", 4, bits::setbit),
    plain("setex", 4, strings::setex),
    plain("setnx", 3, strings::setnx),
    plain("setrange", 4, strings::setrange),
    plain("sinter", -2, sets::sinter),
    plain("sintercard", -3, sets::sintercard),
    plain("sinterstore", -3, sets::sinterstore),
    plain("sismember", 3, sets::sismember),
    plain("smembers", 2, sets::smembers),
    plain("smismember", -3, sets::smismember),
    grows("smove", 4, sets::smove),
    plain("spop", -2, sets::spop),
    plain("srandmember", -2, sets::srandmember),
    plain("srem", -3, sets::srem),
    plain("sscan", -3, scan::sscan),
    plain("strlen", 2, strings::strlen),
    plain("substr", 4, strings::getrange),
    plain("sunion", -2, sets::sunion),
    plain("sunionstore", -3, sets::sunionstore),
    plain("swapdb", 3, keys::swapdb),
    plain("time", 1, keys::time),
    plain("touch", -2, keys::exists),
    plain("ttl", 2, deadlines::ttl),
    plain("type", 2, keys::type_of),
    plain("unlink", -2, keys::del),
    plain("xadd", -5, stream_append::xadd),
    plain("xdel", -3, stream_append::xdel),
    plain("xlen", 2, stream_read::xlen),
    plain("xrange", -4, stream_read::xrange),
    plain("xread", -4, stream_read::xread),
    plain("xrevrange", -4, stream_read::xrevrange),
    plain("xtrim", -4, stream_append::xtrim),
    plain("zadd", -4, members::zadd),
    plain("zcard", 2, members::zcard),
    plain("zcount", 4, range::zcount),
    plain("zdiff", -3, algebra::zdiff),
    plain("zdiffstore", -4, algebra::zdiffstore),
    plain("zincrby", 4, members::zincrby),
    plain("zinter", -3, algebra::zinter),
    plain("zintercard", -3, algebra::zintercard),
    plain("zinterstore", -4, algebra::zinterstore),
    plain("zlexcount", 4, range::zlexcount),
    plain("zmscore", -3, members::zmscore),
    plain("zpopmax", -2, pop::zpopmax),
    plain("zpopmin", -2, pop::zpopmin),
    plain("zrandmember", -2, members::zrandmember),
    plain("zrange", -4, range::zrange),
    plain("zrangebylex", -4, range::zrangebylex),
    plain("zrangebyscore", -4, range::zrangebyscore),
    plain("zrangestore", -5, range::zrangestore),
    plain("zrank", -3, members::zrank),
    plain("zrem", -3, members::zrem),
    plain("zremrangebylex", 4, range::zremrangebylex),
    plain("zremrangebyrank", 4, range::zremrangebyrank),
    plain("zremrangebyscore", 4, range::zremrangebyscore),
    plain("zrevrange", -4, range::zrevrange),
    plain("zrevrangebylex", -4, range::zrevrangebylex),
    plain("zrevrangebyscore", -4, range::zrevrangebyscore),
    plain("zrevrank", -3, members::zrevrank),
    plain("zscan", -3, scan::zscan),
    plain("zscore", 3, members::zscore),
    plain("zunion", -3, algebra::zunion),
    plain("zunionstore", -4, algebra::zunionstore),
];

pub(super) const NAMES: [&str; SPECS.len()] = {
    let mut names = [""; SPECS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = SPECS[at].name;
        at += 1;
    }
    names
};

/// The longest name, `zremrangebyscore`, fits.
const LONGEST: usize = 16;

pub(super) fn find(name: &[u8]) -> Option<&'static Spec> {
    let mut lower = [0; LONGEST];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    TABLE
        .binary_search_by(|spec| spec.name.as_bytes().cmp(lower))
        .ok()
        .map(|at| &TABLE[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_found_in_any_case() {
        for name in NAMES {
            assert_eq!(
                find(name.to_uppercase().as_bytes()).map(|spec| spec.name),
                Some(name)
            );
        }
        assert!(find(b"eval").is_none());
        assert!(find(b"").is_none());
        assert!(find(b"a-name-that-is-longer-than-any").is_none());
    }
}
