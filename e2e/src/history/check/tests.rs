//! Histories made by hand, good ones and bad ones. Times are in milliseconds.

use super::{
    super::{Action, Fate, History, Kind, MILLI, Mark, NIL, Op, Register, Via, Window, report},
    Promise, Terms, check,
};

const POD: Via = Via::Pod(0);
const OTHER: Via = Via::Pod(1);
const DIRECT: Via = Via::Direct;

/// With a bound of 100 ms.
#[derive(Default)]
struct Made(History);

impl Made {
    fn new() -> Self {
        Self::of(Kind::Value)
    }

    fn counter() -> Self {
        Self::of(Kind::Counter)
    }

    fn of(kind: Kind) -> Self {
        let name = "k".to_owned();
        let mut made = Self::default();
        made.0.registers.push(Register { name, kind });
        made
    }

    fn op(mut self, client: u16, via: Via, times: (u64, u64), action: Action) -> Self {
        self.0.ops.push(Op {
            begun: times.0 * MILLI,
            ended: times.1 * MILLI,
            client,
            via,
            register: 0,
            action,
            verb: "TEST",
        });
        self
    }

    fn set(self, via: Via, times: (u64, u64), mark: Mark) -> Self {
        self.fated(via, times, mark, Fate::Done)
    }

    fn fated(self, via: Via, times: (u64, u64), mark: Mark, fate: Fate) -> Self {
        let set = Action::Set {
            mark,
            ttl_ms: 0,
            fate,
        };
        let client = u16::try_from(mark).unwrap_or(0) + 100;
        self.op(client, via, times, set)
    }

    fn read(self, via: Via, times: (u64, u64), mark: Mark) -> Self {
        let client = u16::try_from(self.0.ops.len() % 50_000).unwrap_or(0) + 1000;
        self.op(client, via, times, Action::Read(mark))
    }

    fn add(self, via: Via, times: (u64, u64), sum: Mark) -> Self {
        let client = u16::try_from(self.0.ops.len() % 50_000).unwrap_or(0) + 1000;
        let fate = Fate::Done;
        self.op(client, via, times, Action::Add { sum, fate })
    }

    fn lossy(mut self, from: u64, to: u64) -> Self {
        let (from, to) = (from * MILLI, to * MILLI);
        self.0.lossy.push(Window { from, to });
        self
    }

    fn broken(&self) -> Vec<Promise> {
        let terms = Terms {
            bound: 100 * MILLI,
            ..Terms::default()
        };
        check(&self.0, terms).counts.into_keys().collect()
    }

    #[track_caller]
    fn keeps_all(self) {
        assert_eq!(self.broken(), []);
    }

    #[track_caller]
    fn breaks(self, promise: Promise) {
        assert_eq!(self.broken(), [promise]);
    }
}

#[test]
fn an_old_value_is_allowed_within_the_bound_and_not_after_it() {
    let written = |read_at| {
        Made::new()
            .set(DIRECT, (0, 1), 1)
            .set(DIRECT, (10, 11), 2)
            .read(POD, (read_at, read_at + 1), 1)
    };
    written(111).keeps_all();
    written(112).breaks(Promise::BoundedStaleness);
}

#[test]
fn of_concurrent_writes_either_may_be_the_last() {
    for last in [1, 2] {
        Made::new()
            .set(DIRECT, (0, 10), 1)
            .set(DIRECT, (5, 15), 2)
            .read(POD, (500, 501), last)
            .keeps_all();
    }
}

/// Whoever reads a value proves that it was written by then, although its acknowledgement is late.
#[test]
fn a_read_orders_writes_whose_acknowledgements_overlap() {
    Made::new()
        .set(DIRECT, (0, 40), 1)
        .read(DIRECT, (5, 6), 1)
        .set(DIRECT, (10, 45), 2)
        .read(POD, (500, 501), 1)
        .breaks(Promise::BoundedStaleness);
}

#[test]
fn a_write_of_unknown_outcome_may_take_effect_at_any_later_time() {
    Made::new()
        .fated(POD, (0, 1), 1, Fate::Unknown)
        .set(DIRECT, (10, 11), 2)
        .read(POD, (500, 501), 1)
        .keeps_all();
    // Nor does it prove anything about others.
    Made::new()
        .set(DIRECT, (0, 1), 1)
        .fated(POD, (10, 11), 2, Fate::Unknown)
        .read(POD, (500, 501), 1)
        .keeps_all();
    // Until somebody has seen it.
    Made::new()
        .fated(POD, (0, 1), 1, Fate::Unknown)
        .read(DIRECT, (5, 6), 1)
        .set(DIRECT, (10, 11), 2)
        .read(POD, (500, 501), 1)
        .breaks(Promise::BoundedStaleness);
}

#[test]
fn a_refused_write_has_no_effect() {
    Made::new()
        .fated(POD, (0, 1), 1, Fate::Refused)
        .read(POD, (5, 6), 1)
        .breaks(Promise::RefusedIsRefused);
}

#[test]
fn values_that_nobody_wrote_and_values_of_later_writes_are_invented() {
    Made::new()
        .read(POD, (5, 6), 7)
        .breaks(Promise::NothingInvented);
    Made::new()
        .read(POD, (5, 6), 1)
        .set(DIRECT, (10, 11), 1)
        .breaks(Promise::NothingInvented);
}

#[test]
fn what_was_written_through_a_sidecar_is_read_through_it() {
    let history = |via| {
        Made::new()
            .set(POD, (0, 1), 1)
            .set(POD, (10, 11), 2)
            .read(via, (12, 13), 1)
    };
    history(POD).breaks(Promise::ReadYourWrites);
    history(OTHER).keeps_all();
}

#[test]
fn a_read_that_began_before_the_acknowledgement_may_be_older() {
    Made::new()
        .set(POD, (0, 1), 1)
        .set(POD, (10, 12), 2)
        .read(POD, (11, 13), 1)
        .keeps_all();
}

#[test]
fn one_connection_reads_its_own_pipelined_write() {
    let history = |reader| {
        let set = Action::Set {
            mark: 2,
            ttl_ms: 0,
            fate: Fate::Done,
        };
        Made::new()
            .set(DIRECT, (0, 1), 1)
            .op(7, POD, (10, 20), set)
            .op(reader, POD, (10, 20), Action::Read(1))
    };
    history(7).breaks(Promise::ReadYourWrites);
    history(8).keeps_all();
}

#[test]
fn what_is_seen_through_one_sidecar_never_goes_back() {
    let history = |via| {
        Made::new()
            .set(DIRECT, (0, 1), 1)
            .set(DIRECT, (10, 11), 2)
            .read(POD, (12, 13), 2)
            .read(via, (14, 15), 1)
    };
    history(POD).breaks(Promise::MonotonicReads);
    history(OTHER).keeps_all();
}

#[test]
fn one_connection_sees_no_way_back_within_a_pipeline() {
    Made::new()
        .set(DIRECT, (0, 1), 1)
        .set(DIRECT, (10, 11), 2)
        .op(7, POD, (12, 20), Action::Read(2))
        .op(7, POD, (12, 20), Action::Read(1))
        .breaks(Promise::MonotonicReads);
}

#[test]
fn removed_values_do_not_come_back() {
    let removed = |bound_over| {
        Made::new()
            .set(DIRECT, (0, 1), 1)
            .op(1, DIRECT, (10, 11), Action::Remove(Fate::Done))
            .read(POD, (bound_over, bound_over + 1), 1)
    };
    removed(50).keeps_all();
    removed(200).breaks(Promise::BoundedStaleness);
}

#[test]
fn nothing_is_as_old_as_any_other_value() {
    Made::new()
        .set(DIRECT, (10, 11), 1)
        .read(POD, (50, 51), NIL)
        .keeps_all();
    Made::new()
        .set(DIRECT, (10, 11), 1)
        .read(POD, (200, 201), NIL)
        .breaks(Promise::BoundedStaleness);
    Made::new()
        .set(POD, (10, 11), 1)
        .read(POD, (12, 13), NIL)
        .breaks(Promise::ReadYourWrites);
}

#[test]
fn a_value_may_vanish_when_the_log_says_so() {
    Made::new()
        .set(POD, (10, 11), 1)
        .op(1, DIRECT, (20, 5000), Action::MayVanish)
        .read(POD, (500, 501), NIL)
        .read(POD, (500, 501), 1)
        .keeps_all();
}

#[test]
fn a_value_with_a_time_to_live_ends_and_not_before() {
    let history = |at, mark| {
        let set = Action::Set {
            mark: 1,
            ttl_ms: 300,
            fate: Fate::Done,
        };
        Made::new()
            .op(1, DIRECT, (10, 11), set)
            .read(POD, (at, at + 1), mark)
    };
    history(310, 1).keeps_all();
    history(400, NIL).keeps_all();
    history(330, 1).breaks(Promise::NoLifeAfterExpiry);
    history(200, NIL).breaks(Promise::BoundedStaleness);
}

#[test]
fn acknowledged_writes_are_there_for_direct_readers() {
    Made::new()
        .set(POD, (0, 1), 1)
        .set(POD, (10, 11), 2)
        .read(DIRECT, (12, 13), 1)
        .breaks(Promise::NothingLost);
}

#[test]
fn a_failover_may_lose_writes_but_only_those_of_its_time() {
    let history = || {
        Made::new()
            .set(POD, (0, 1), 1)
            .set(POD, (50, 51), 2)
            .read(POD, (60, 61), 2)
            .lossy(40, 100)
    };
    history().read(POD, (500, 501), 1).keeps_all();
    history()
        .set(POD, (200, 201), 3)
        .read(POD, (500, 501), 1)
        .breaks_all(&[Promise::BoundedStaleness, Promise::ReadYourWrites]);
}

impl Made {
    #[track_caller]
    fn breaks_all(self, promises: &[Promise]) {
        assert_eq!(self.broken(), promises);
    }
}

#[test]
fn counters_count_once_and_in_the_order_of_time() {
    Made::counter()
        .add(POD, (0, 1), 1)
        .add(OTHER, (0, 1), 2)
        .read(POD, (2, 3), 2)
        .keeps_all();
    Made::counter()
        .add(POD, (0, 1), 1)
        .add(OTHER, (0, 1), 1)
        .breaks(Promise::CountsOnce);
    Made::counter()
        .add(POD, (0, 1), 2)
        .add(OTHER, (5, 6), 1)
        .breaks(Promise::CountsOnce);
}

#[test]
fn sums_order_what_time_does_not() {
    let added = || {
        Made::counter()
            .add(DIRECT, (0, 10), 1)
            .add(DIRECT, (0, 10), 2)
    };
    added().read(POD, (50, 51), 1).keeps_all();
    added()
        .read(POD, (500, 501), 1)
        .breaks(Promise::BoundedStaleness);
    added()
        .read(DIRECT, (50, 51), 1)
        .breaks(Promise::NothingLost);
    added()
        .read(POD, (50, 51), 3)
        .breaks(Promise::NothingInvented);
    added()
        .read(POD, (20, 21), 2)
        .read(POD, (30, 31), 1)
        .breaks(Promise::MonotonicReads);
    Made::counter()
        .add(DIRECT, (0, 10), 1)
        .add(POD, (0, 10), 2)
        .read(POD, (20, 21), 1)
        .breaks(Promise::ReadYourWrites);
}

#[test]
fn reads_during_a_write_are_counted() {
    let made = Made::new()
        .set(DIRECT, (10, 20), 1)
        .read(POD, (5, 9), NIL)
        .read(POD, (5, 11), NIL)
        .read(POD, (19, 30), 1)
        .read(POD, (21, 30), 1);
    let verdict = check(&made.0, Terms::default());
    assert_eq!((verdict.reads, verdict.concurrent), (4, 2));
}

#[test]
fn ages_are_measured_exactly() {
    let mut made = Made::new()
        .set(DIRECT, (0, 1), 1)
        .set(DIRECT, (10, 11), 2)
        .read(POD, (18, 19), 1);
    for _ in 0..98 {
        made = made.read(POD, (20, 21), 2);
    }
    let verdict = check(&made.0, Terms::default());
    assert_eq!(verdict.staleness.percentile(98), 0);
    assert_eq!(verdict.staleness.percentile(100), 7 * MILLI);
    assert_eq!(verdict.staleness.highest(), 7 * MILLI);
}

#[test]
fn an_excerpt_shows_the_read_its_write_and_what_came_between() {
    let made = Made::new()
        .set(DIRECT, (1000, 1001), 1)
        .set(POD, (1010, 1011), 2)
        .read(POD, (1300, 1301), 1);
    let terms = Terms {
        bound: 100 * MILLI,
        ..Terms::default()
    };
    let verdict = check(&made.0, terms);
    assert_eq!(
        report::excerpt(&made.0, &verdict.violations[0]),
        "\
bounded staleness (P1): overwritten 289 ms before the read began; the bound is 100 ms
       0.000 ..      1.000  direct   client 101 TEST     k := 1
      10.000 ..     11.000  pod 0    client 102 TEST     k := 2
     300.000 ..    301.000  pod 0    client 1002 TEST     k -> 1
  (milliseconds; the first began 1000.0 ms into the history)
"
    );
}

/// A million reads are judged in seconds: a quadratic rule would not end.
#[test]
fn a_million_reads_are_judged() {
    let mut made = Made::new();
    for number in 1..=20_000_u64 {
        made = made.set(DIRECT, (number * 10, number * 10 + 2), number);
    }
    for number in 0..1_000_000_u64 {
        let at = 10 + number / 5;
        made = made.read(POD, (at + 3, at + 4), (at / 10).max(1));
    }
    let verdict = check(&made.0, Terms::default());
    assert_eq!(verdict.reads, 1_000_000);
    assert!(verdict.is_clean(), "{:?}", verdict.violations);
}
