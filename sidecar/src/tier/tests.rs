mod crossing;

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
        self.tier
            .fill(token, self.meta(0), key, body, Some(usize::MAX))
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
    assert!(!bench.tier.fill(
        token,
        bench.meta(0),
        b"k",
        Body::Text(b"old"),
        Some(usize::MAX)
    ));
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
    assert!(!bench.tier.fill(
        token,
        bench.meta(5),
        b"k",
        Body::Text(b"old"),
        Some(usize::MAX)
    ));
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
    assert!(!bench.tier.fill(
        before,
        bench.meta(0),
        b"k",
        Body::Text(b"old"),
        Some(usize::MAX)
    ));
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
    assert!(!bench.tier.fill(
        token,
        bench.meta(0),
        b"other",
        Body::Text(b"v"),
        Some(usize::MAX)
    ));
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
    assert!(
        bench
            .tier
            .fill(token, meta, b"k", Body::Text(b"v"), Some(usize::MAX))
    );
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
        assert!(
            bench
                .tier
                .fill(token, meta, b"k", Body::Text(b"v"), Some(usize::MAX))
        );
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
        assert!(bench.tier.fill(
            token,
            bench.meta(db),
            b"k",
            Body::Text(b"v"),
            Some(usize::MAX)
        ));
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
        let part = value.map_or(Part::Absent, Part::Value);
        let bytes = parts::some(None, &[(field, part)]);
        bench.fill(b"h", Body::Hash(Parts::new(false, &bytes)))
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
    assert!(
        bench
            .tier
            .fill(token, meta, b"k", Body::Text(b"v"), Some(usize::MAX))
    );
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
    assert!(
        !bench
            .tier
            .fill(older, meta, b"k", Body::Text(b"old"), Some(usize::MAX))
    );
    // Nobody knows which of them is the younger.
    assert_eq!(bench.read(b"k", Query::Get, at(1)), None);
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

fn set(members: &[&[u8]]) -> Vec<u8> {
    let members: Vec<_> = members.iter().map(|name| (*name, Part::Present)).collect();
    parts::all(&members).unwrap()
}

#[test]
fn a_whole_set_answers_every_form_and_a_count_displaces_nothing() {
    let bench = Bench::new();
    let whole = set(&[b"a", b"b"]);
    assert!(bench.fill(b"s", Body::Set(Parts::new(true, &whole))));
    let read = |query| bench.read(b"s", query, at(1));
    for _ in 0..2 {
        assert_eq!(
            read(Query::SMembers).unwrap(),
            "*2\r\n$1\r\na\r\n$1\r\nb\r\n"
        );
        assert_eq!(read(Query::SIsMember(b"b")).unwrap(), ":1\r\n");
        assert_eq!(read(Query::SIsMember(b"c")).unwrap(), ":0\r\n");
        assert_eq!(read(Query::SCard).unwrap(), ":2\r\n");
        assert_eq!(read(Query::Type).unwrap(), "+set\r\n");
        assert_eq!(read(Query::HLen), None, "WRONGTYPE is for Redis to say");
        let count = parts::some(Some(2), &[]);
        assert!(bench.fill(b"s", Body::Set(Parts::new(false, &count))));
    }
}

#[test]
fn single_members_and_a_count_add_up() {
    let bench = Bench::new();
    for (count, part) in [
        (None, Some((b"a".as_slice(), Part::Present))),
        (Some(5), None),
        (None, Some((b"b".as_slice(), Part::Absent))),
    ] {
        let some = parts::some(count, part.as_slice());
        assert!(bench.fill(b"s", Body::Set(Parts::new(false, &some))));
    }
    let read = |query| bench.read(b"s", query, at(1));
    assert_eq!(read(Query::SIsMember(b"a")).unwrap(), ":1\r\n");
    assert_eq!(read(Query::SIsMember(b"b")).unwrap(), ":0\r\n");
    assert_eq!(read(Query::SIsMember(b"c")), None);
    assert_eq!(read(Query::SCard).unwrap(), ":5\r\n");
    assert_eq!(read(Query::SMembers), None);
}

#[test]
fn a_field_that_is_only_known_to_be_there_has_no_value_to_tell() {
    let bench = Bench::new();
    let some = parts::some(None, &[(b"f", Part::Present), (b"g", Part::Value(b"1"))]);
    assert!(bench.fill(b"h", Body::Hash(Parts::new(false, &some))));
    let read = |query| bench.read(b"h", query, at(1));
    assert_eq!(read(Query::HExists(b"f")).unwrap(), ":1\r\n");
    assert_eq!(read(Query::HGet(b"f")), None);
    assert_eq!(read(Query::HMGet(&[b"g", b"f"])), None);
    assert_eq!(
        read(Query::HMGet(&[b"g", b"g"])).unwrap(),
        "*2\r\n$1\r\n1\r\n$1\r\n1\r\n"
    );
    assert_eq!(read(Query::HLen), None);
}

#[test]
fn a_key_that_is_not_there_answers_every_form_as_redis_does() {
    let bench = Bench::new();
    assert!(bench.fill(b"k", Body::Missing));
    let span = Span {
        start: 0,
        stop: -1,
        scores: false,
    };
    for (query, answer) in [
        (Query::HMGet(&[b"a", b"b"]), "*2\r\n$-1\r\n$-1\r\n"),
        (Query::HExists(b"f"), ":0\r\n"),
        (Query::HLen, ":0\r\n"),
        (Query::SMembers, "*0\r\n"),
        (Query::SIsMember(b"m"), ":0\r\n"),
        (Query::SCard, ":0\r\n"),
        (Query::LRange(span), "*0\r\n"),
        (Query::LLen, ":0\r\n"),
        (Query::ZRange(span), "*0\r\n"),
        (Query::ZScore(b"m"), "$-1\r\n"),
        (Query::ZCard, ":0\r\n"),
    ] {
        assert_eq!(bench.read(b"k", query, at(1)).unwrap(), answer, "{query:?}");
    }
}

#[test]
fn ranges_scores_and_the_count_of_a_sorted_set_are_told_in_both_versions() {
    let bench = Bench::new();
    let span = Span {
        start: 0,
        stop: 1,
        scores: true,
    };
    let range = Range {
        span,
        count: 1,
        elements: b"*2\r\n$1\r\na\r\n,1.5\r\n",
    };
    for known in [
        sorted::write(None, Some(range), None),
        sorted::write(None, None, Some((b"a", Part::Value(b"1.5")))),
        sorted::write(Some(9), None, None),
    ] {
        assert!(bench.fill(b"z", Body::Sorted(Sorted::new(&known.unwrap()))));
    }
    let read = |query, proto| {
        let mut out = Vec::new();
        let mut reply = Reply::new(&mut out, proto);
        let at_key = Lookup { db: 0, key: b"z" };
        let hit = bench.tier.read(at_key, query, at(1), &mut reply);
        hit.map(|_| String::from_utf8(out).unwrap())
    };
    let both = |query| [Proto::Resp2, Proto::Resp3].map(|proto| read(query, proto).unwrap());
    assert_eq!(
        both(Query::ZRange(span)),
        [
            "*2\r\n$1\r\na\r\n$3\r\n1.5\r\n",
            "*1\r\n*2\r\n$1\r\na\r\n,1.5\r\n"
        ]
    );
    assert_eq!(both(Query::ZScore(b"a")), ["$3\r\n1.5\r\n", ",1.5\r\n"]);
    assert_eq!(both(Query::ZCard), [":9\r\n", ":9\r\n"]);
    let bare = Span {
        scores: false,
        ..span
    };
    assert_eq!(read(Query::ZRange(bare), Proto::Resp2), None);
    assert_eq!(read(Query::ZScore(b"b"), Proto::Resp2), None);
}

#[test]
fn a_bound_for_values_is_a_bound_for_all_that_is_known_of_a_key() {
    let bench = Bench::new();
    let fill = |name: &[u8]| {
        let some = parts::some(None, &[(name, Part::Value(&[b'v'; 40]))]);
        let key = Lookup { db: 0, key: b"h" };
        let token = bench.tier.begin_fill(key, bench.link.origin()).unwrap();
        let body = Body::Hash(Parts::new(false, &some));
        assert!(bench.tier.fill(token, bench.meta(0), b"h", body, Some(120)));
    };
    fill(b"a");
    fill(b"b");
    assert!(
        bench
            .read(b"h", Query::HMGet(&[b"a", b"b"]), at(1))
            .is_some()
    );
    fill(b"c");
    assert!(bench.read(b"h", Query::HGet(b"c"), at(1)).is_some());
    assert!(bench.read(b"h", Query::HGet(b"a"), at(1)).is_none());
}

#[test]
fn b5_an_entry_in_shadow_answers_no_read_and_falls_with_its_key() {
    let bench = Bench::new();
    let read = Lookup { db: 0, key: b"k" };
    let lit = |db| bench.tier.peek(Lookup { db, key: b"k" }, at(1)).is_some();
    let fill = || {
        let token = bench.tier.begin_fill(read, bench.link.origin()).unwrap();
        let meta = bench.meta(shadow(0));
        assert!(
            bench
                .tier
                .fill(token, meta, b"k", Body::Text(b"v"), Some(usize::MAX))
        );
    };
    fill();
    assert_eq!(bench.read(b"k", Query::Get, at(1)), None);
    assert!(lit(shadow(0)) && !lit(0));
    bench.tier.invalidate(b"k");
    assert!(!lit(shadow(0)), "invalidations reach it");
    fill();
    bench.tier.begin_write(b"k");
    assert!(!lit(shadow(0)), "writes reach it");
    bench.tier.end_write(b"k");
    fill();
    bench.tier.flush();
    assert!(!lit(shadow(0)), "a flush reaches it");
}

#[test]
fn p3_a_fill_into_the_shadow_is_voided_like_any_other() {
    let bench = Bench::new();
    let read = Lookup { db: 0, key: b"k" };
    let token = bench.tier.begin_fill(read, bench.link.origin()).unwrap();
    bench.tier.invalidate(b"k");
    let meta = bench.meta(shadow(0));
    assert!(
        !bench
            .tier
            .fill(token, meta, b"k", Body::Text(b"old"), Some(usize::MAX))
    );
}
