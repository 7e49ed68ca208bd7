//! Two links of one tier: replies come in no order, and what apps have seen does not go back (P2).

use super::*;

const KEY: Lookup<'static> = Lookup { db: 0, key: b"k" };

struct Two {
    bench: Bench,
    other: TierLink,
}

impl Two {
    fn new() -> Self {
        let bench = Bench::new();
        let other = TierLink::open(&bench.tier).unwrap();
        other.prove(Tick(0), STALENESS);
        Self { bench, other }
    }

    fn begin(&self, link: &TierLink) -> FillToken {
        self.bench.tier.begin_fill(KEY, link.origin()).unwrap()
    }

    fn end(&self, link: &TierLink, token: FillToken, value: &[u8]) -> bool {
        let meta = Meta {
            origin: link.origin(),
            ..self.bench.meta(0)
        };
        let body = Body::Text(value);
        self.bench
            .tier
            .fill(token, meta, b"k", body, Some(usize::MAX))
    }

    fn value(&self) -> Option<String> {
        self.bench.read(b"k", Query::Get, at(1))
    }
}

#[test]
fn p2_a_reply_that_is_not_kept_drops_what_another_link_read_unless_it_says_the_same() {
    for (kept, told, stays) in [("old", "new", false), ("same", "same", true)] {
        let two = Two::new();
        let (mine, theirs) = (&two.bench.link, &two.other);
        let token = two.begin(mine);
        let their_token = two.begin(theirs);
        // Their reply is kept first, so that ours is refused; the app gets ours all the same.
        assert!(two.end(theirs, their_token, kept.as_bytes()));
        assert!(!two.end(mine, token, told.as_bytes()));
        assert_eq!(two.value().is_some(), stays, "{kept} and {told}");
    }
}

#[test]
fn p2_what_another_link_is_reading_is_kept_only_if_it_says_what_apps_were_told() {
    for (read, told, kept) in [("old", "new", false), ("same", "same", true)] {
        let two = Two::new();
        let (mine, theirs) = (&two.bench.link, &two.other);
        let token = two.begin(mine);
        // A push for our link voids our read; theirs is begun before our reply comes.
        two.bench.tier.invalidate(b"k");
        let their_token = two.begin(theirs);
        assert!(!two.end(mine, token, told.as_bytes()));
        assert_eq!(two.end(theirs, their_token, read.as_bytes()), kept);
        assert_eq!(two.value().is_some(), kept, "{read} and {told}");
    }
}

#[test]
fn p2_nobody_joins_a_read_that_may_be_older_than_what_apps_were_told() {
    let two = Two::new();
    let (mine, theirs) = (&two.bench.link, &two.other);
    let token = two.begin(mine);
    two.bench.tier.invalidate(b"k");
    let their_token = two.begin(theirs);
    assert!(two.bench.tier.is_current(KEY, their_token));
    assert!(!two.end(mine, token, b"new"));
    assert!(!two.bench.tier.is_current(KEY, their_token));
    // Begun later: it brings nothing older.
    let later = two.begin(theirs);
    assert!(two.bench.tier.is_current(KEY, later));
}

#[test]
fn p2_two_replies_that_differ_leave_no_room_for_a_third_but_for_later_reads() {
    let two = Two::new();
    let third = TierLink::open(&two.bench.tier).unwrap();
    let (mine, theirs) = (&two.bench.link, &two.other);
    let (token, their_token) = (two.begin(mine), two.begin(theirs));
    two.bench.tier.invalidate(b"k");
    let third_token = two.begin(&third);
    assert!(!two.end(mine, token, b"a"));
    assert!(!two.end(theirs, their_token, b"b"));
    let later = two.begin(&third);
    assert!(!two.end(&third, third_token, b"b"));
    assert!(two.end(&third, later, b"c"));
}

#[test]
fn a_later_read_over_the_same_link_may_say_something_else() {
    let two = Two::new();
    let mine = &two.bench.link;
    let first = two.begin(mine);
    two.bench.tier.invalidate(b"k");
    let second = two.begin(mine);
    assert!(!two.end(mine, first, b"old"));
    assert!(two.end(mine, second, b"new"));
}

#[test]
fn p2_a_reply_that_is_never_kept_counts_as_well() {
    let two = Two::new();
    let (mine, theirs) = (&two.bench.link, &two.other);
    let (token, their_token) = (two.begin(mine), two.begin(theirs));
    let link = mine.origin().link;
    // The key is gone, and there is no `negativeTtl`.
    two.bench
        .tier
        .pass_by(KEY, token, link, Some(Body::Missing));
    assert!(!two.end(theirs, their_token, b"old"));
    assert_eq!(two.value(), None);
}
