use std::{sync::Arc, time::Duration};

use super::*;
use crate::resp::Proto;

const STALENESS: Duration = Duration::from_secs(1);

struct Bench {
    tier: Arc<Tier>,
    link: TierLink,
}

impl Bench {
    fn new() -> Self {
        let tier = Arc::new(Tier::new(1 << 20, 1));
        let link = TierLink::open(&tier).unwrap();
        link.prove(Tick(0), STALENESS);
        Self { tier, link }
    }

    fn meta(&self, db: u16) -> Meta {
        Meta {
            deadline_ms: 10_000,
            expires_ms: None,
            origin: self.link.origin(),
            rule: 0,
            db,
        }
    }

    fn fill(&self, key: &[u8], body: Body<'_>) -> bool {
        let token = self
            .tier
            .begin_fill(Lookup { db: 0, key }, self.link.origin())
            .unwrap();
        self.tier.fill(token, self.meta(0), key, body)
    }

    fn read(&self, key: &[u8], query: Query<'_>, now: Tick) -> Option<String> {
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, Proto::Resp2);
        self.tier
            .read(Lookup { db: 0, key }, query, now, &mut reply)?;
        Some(String::from_utf8(out).unwrap())
    }
}

fn at(millis: u64) -> Tick {
    Tick(millis * 1_000_000)
}

#[test]
fn p1_an_entry_is_served_only_while_its_link_is_proven() {
    let bench = Bench::new();
    assert!(bench.fill(b"k", Body::Text(b"v")));
    assert_eq!(
        bench.read(b"k", Query::Get, at(999)).unwrap(),
        "$1\r\nv\r\n"
    );
    assert_eq!(bench.read(b"k", Query::Get, at(1000)), None);
    bench.link.prove(at(900), STALENESS);
    assert!(bench.read(b"k", Query::Get, at(1899)).is_some());
    assert_eq!(bench.read(b"k", Query::Get, at(1900)), None);
}

#[test]
fn p3_a_reply_overtaken_by_a_push_is_not_kept() {
    let bench = Bench::new();
    let key = Lookup { db: 0, key: b"k" };
    let token = bench.tier.begin_fill(key, bench.link.origin()).unwrap();
    bench.tier.invalidate(b"k");
    assert!(!bench.tier.is_current(key, token));
    assert!(
        !bench
            .tier
            .fill(token, bench.meta(0), b"k", Body::Text(b"old"))
    );
    assert_eq!(bench.read(b"k", Query::Get, at(1)), None);
}

#[test]
fn p3_a_push_voids_the_fills_of_every_database() {
    let bench = Bench::new();
    let token = bench
        .tier
        .begin_fill(Lookup { db: 5, key: b"k" }, bench.link.origin())
        .unwrap();
    bench.tier.invalidate(b"k");
    assert!(
        !bench
            .tier
            .fill(token, bench.meta(5), b"k", Body::Text(b"old"))
    );
}

#[test]
fn p2_nothing_is_kept_while_a_write_is_in_flight() {
    let bench = Bench::new();
    let before = bench
        .tier
        .begin_fill(Lookup { db: 0, key: b"k" }, bench.link.origin())
        .unwrap();
    bench.tier.begin_write(b"k");
    assert!(
        bench
            .tier
            .begin_fill(Lookup { db: 0, key: b"k" }, bench.link.origin())
            .is_none()
    );
    bench.tier.begin_write(b"k");
    bench.tier.end_write(b"k");
    assert!(
        bench
            .tier
            .begin_fill(Lookup { db: 0, key: b"k" }, bench.link.origin())
            .is_none(),
        "one write is left"
    );
    bench.tier.end_write(b"k");
    assert!(
        !bench
            .tier
            .fill(before, bench.meta(0), b"k", Body::Text(b"old"))
    );
    assert!(bench.fill(b"k", Body::Text(b"new")));
}

#[test]
fn p4_a_flush_drops_everything_and_voids_fills_in_flight() {
    let bench = Bench::new();
    assert!(bench.fill(b"k", Body::Text(b"v")));
    let token = bench
        .tier
        .begin_fill(
            Lookup {
                db: 0,
                key: b"other",
            },
            bench.link.origin(),
        )
        .unwrap();
    bench.tier.flush();
    assert_eq!(bench.read(b"k", Query::Get, at(1)), None);
    assert!(
        !bench
            .tier
            .fill(token, bench.meta(0), b"other", Body::Text(b"v"))
    );
}

#[test]
fn p4_a_lost_link_drops_its_entries_even_when_it_comes_back() {
    let bench = Bench::new();
    assert!(bench.fill(b"k", Body::Text(b"v")));
    bench.link.break_proof();
    bench.link.prove(at(1), STALENESS);
    assert_eq!(bench.read(b"k", Query::Get, at(2)), None);
}

#[test]
fn a_deadline_is_checked_on_read_and_ttl_is_computed_from_the_expiry() {
    let bench = Bench::new();
    bench.link.prove(at(60_000), STALENESS);
    let meta = Meta {
        expires_ms: Some(5_400),
        deadline_ms: 5_000,
        ..bench.meta(0)
    };
    let token = bench
        .tier
        .begin_fill(Lookup { db: 0, key: b"k" }, bench.link.origin())
        .unwrap();
    assert!(bench.tier.fill(token, meta, b"k", Body::Text(b"v")));
    assert_eq!(
        bench.read(b"k", Query::Pttl, at(1_000)).unwrap(),
        ":4400\r\n"
    );
    assert_eq!(bench.read(b"k", Query::Ttl, at(1_000)).unwrap(), ":4\r\n");
    assert!(bench.read(b"k", Query::Get, at(4_999)).is_some());
    assert_eq!(bench.read(b"k", Query::Get, at(5_000)), None);
}

#[test]
fn a_key_whose_local_entry_expired_is_kept_again_with_a_new_deadline() {
    let bench = Bench::new();
    let fill = |deadline_ms| {
        let token = bench
            .tier
            .begin_fill(Lookup { db: 0, key: b"k" }, bench.link.origin())
            .unwrap();
        let meta = Meta {
            deadline_ms,
            ..bench.meta(0)
        };
        assert!(bench.tier.fill(token, meta, b"k", Body::Text(b"v")));
    };
    // Ticks count from the start of the process: the first entry is dead when it is kept.
    fill(0);
    fill(900);
    assert!(bench.read(b"k", Query::Get, at(800)).is_some());
    fill(5_000);
    bench.link.prove(at(3_000), STALENESS);
    assert!(
        bench.read(b"k", Query::Get, at(3_500)).is_some(),
        "a value read anew has its own deadline"
    );
}

#[test]
fn databases_do_not_mix_and_a_push_drops_the_key_in_all() {
    let bench = Bench::new();
    for db in [0, 1, 63] {
        let token = bench
            .tier
            .begin_fill(Lookup { db, key: b"k" }, bench.link.origin())
            .unwrap();
        assert!(
            bench
                .tier
                .fill(token, bench.meta(db), b"k", Body::Text(b"v"))
        );
    }
    assert!(
        bench
            .tier
            .begin_fill(Lookup { db: 64, key: b"k" }, bench.link.origin())
            .is_none()
    );
    assert!(
        bench
            .tier
            .peek(Lookup { db: 1, key: b"k" }, at(1))
            .is_some()
    );
    assert!(
        bench
            .tier
            .peek(Lookup { db: 2, key: b"k" }, at(1))
            .is_none()
    );
    bench.tier.invalidate(b"k");
    for db in [0, 1, 63] {
        assert!(bench.tier.peek(Lookup { db, key: b"k" }, at(1)).is_none());
    }
}

#[test]
fn all_forms_of_a_key_answer_from_one_entry_and_fields_add_up() {
    let bench = Bench::new();
    let field = |field: &[u8], value: Option<&[u8]>| {
        let mut bytes = Vec::new();
        Fields::append(&mut bytes, field, value);
        bench.fill(b"h", Body::Hash(Fields::new(false, &bytes)))
    };
    assert!(field(b"a", Some(b"1")));
    assert!(field(b"b", None));
    assert_eq!(
        bench.read(b"h", Query::HGet(b"a"), at(1)).unwrap(),
        "$1\r\n1\r\n"
    );
    assert_eq!(
        bench.read(b"h", Query::HGet(b"b"), at(1)).unwrap(),
        "$-1\r\n"
    );
    assert_eq!(bench.read(b"h", Query::HGet(b"c"), at(1)), None);
    assert_eq!(bench.read(b"h", Query::HGetAll, at(1)), None);
    assert_eq!(bench.read(b"h", Query::Type, at(1)).unwrap(), "+hash\r\n");
    assert_eq!(
        bench.read(b"h", Query::Get, at(1)),
        None,
        "WRONGTYPE is for Redis to say"
    );
    assert!(bench.fill(b"h", Body::Typed(b"hash")));
    assert!(
        bench.read(b"h", Query::HGet(b"a"), at(1)).is_some(),
        "a type displaces no fields"
    );
}

#[test]
fn a_hot_key_is_touched_in_redis_once_per_interval() {
    let bench = Bench::new();
    assert!(bench.fill(b"k", Body::Text(b"v")));
    let meta = Meta {
        deadline_ms: u64::MAX,
        ..bench.meta(0)
    };
    let key = Lookup { db: 0, key: b"k" };
    let token = bench.tier.begin_fill(key, bench.link.origin()).unwrap();
    assert!(bench.tier.fill(token, meta, b"k", Body::Text(b"v")));
    let touch = |millis| {
        bench.link.prove(at(millis), STALENESS);
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, Proto::Resp2);
        let hit = bench.tier.read(key, Query::Get, at(millis), &mut reply);
        hit.unwrap().touch
    };
    let interval = u64::from(TOUCH_INTERVAL_SECS) * 1_000;
    assert!(!touch(interval / 2));
    assert!(touch(interval * 2));
    assert!(!touch(interval * 2 + 1));
    assert!(touch(interval * 3));
}

#[test]
fn p9_the_tier_never_exceeds_its_bytes() {
    let bench = Bench::new();
    for n in 0..20_000_u32 {
        bench.fill(&n.to_le_bytes(), Body::Text(&[b'v'; 100]));
        assert!(bench.tier.stats().bytes <= 1 << 20);
    }
    let stats = bench.tier.stats();
    assert!(stats.evicted > 10_000 && stats.entries > 3_000, "{stats:?}");
}

#[test]
fn p2_a_reply_over_another_link_does_not_displace_a_newer_one() {
    let bench = Bench::new();
    let key = Lookup { db: 0, key: b"k" };
    let other = TierLink::open(&bench.tier).unwrap();
    let older = bench.tier.begin_fill(key, other.origin()).unwrap();
    assert!(bench.fill(b"k", Body::Text(b"new")));
    let meta = Meta {
        origin: other.origin(),
        ..bench.meta(0)
    };
    assert!(!bench.tier.fill(older, meta, b"k", Body::Text(b"old")));
    assert_eq!(
        bench.read(b"k", Query::Get, at(1)).unwrap(),
        "$3\r\nnew\r\n"
    );
}

#[test]
fn p9_a_smaller_bound_takes_effect_at_once() {
    let bench = Bench::new();
    for n in 0..1_000_u32 {
        bench.fill(&n.to_le_bytes(), Body::Text(&[b'v'; 100]));
    }
    bench.tier.resize(64 << 10);
    let stats = bench.tier.stats();
    assert!(
        stats.bytes <= 64 << 10 && stats.max_bytes == 64 << 10,
        "{stats:?}"
    );
}
