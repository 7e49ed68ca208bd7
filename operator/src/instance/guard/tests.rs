//! Situations and what must be decided in them. Each row is one line of a story: what is on this
//! server's volume, what Sentinels say, what the peers say.

#![expect(
    clippy::unnecessary_wraps,
    reason = "rows of the table read better when every peer is what `Peer::says` holds"
)]

use super::*;

pub(super) fn situation() -> Situation {
    Situation {
        me: "s0".to_owned(),
        ordinal: 0,
        past: Past::default(),
        keeps: Keeps::Snapshot,
        formed: true,
        sentinels: vec![Voice::Silent; 3],
        peers: (1..3).map(|ordinal| peer(ordinal, None)).collect(),
        waited: Duration::ZERO,
        accept_loss: false,
        refused: Duration::ZERO,
    }
}

fn peer(ordinal: usize, says: Option<Says>) -> Peer {
    Peer {
        address: format!("s{ordinal}"),
        ordinal,
        says,
    }
}

fn names(primary: &str, epoch: u64) -> Voice {
    Voice::Names {
        primary: primary.to_owned(),
        epoch,
    }
}

/// Data of failover `epoch`, written up to `offset`.
pub(super) fn data(epoch: u64, offset: i64) -> Past {
    Past {
        initialised: true,
        has_data: true,
        epoch,
        offset,
        replication_id: format!("stream-{epoch}"),
        ..Past::default()
    }
}

pub(super) fn ran_once() -> Past {
    Past {
        initialised: true,
        ..Past::default()
    }
}

/// A peer whose guard waits, too.
pub(super) fn guarding(past: Past) -> Option<Says> {
    Some(Says {
        past,
        ..Says::default()
    })
}

pub(super) fn replica_of(primary: &str, synced: bool) -> Option<Says> {
    Some(Says {
        role: Some(Role::Replica),
        follows: Some(primary.to_owned()),
        synced,
        past: ran_once(),
        ..Says::default()
    })
}

fn primary_since(epoch: u64) -> Option<Says> {
    Some(Says {
        role: Some(Role::Primary),
        synced: true,
        past: Past {
            epoch,
            ..ran_once()
        },
        streams: vec![format!("stream-{epoch}")],
        ..Says::default()
    })
}

impl Situation {
    fn sentinels(mut self, voices: [Voice; 3]) -> Self {
        self.sentinels = voices.into_iter().collect();
        self
    }

    pub(super) fn all_name(self, primary: &str) -> Self {
        self.sentinels([names(primary, 1), names(primary, 1), names(primary, 1)])
    }

    pub(super) fn peers(mut self, says: [Option<Says>; 2]) -> Self {
        let others = (0..3).filter(|ordinal| *ordinal != self.ordinal);
        self.peers = others
            .zip(says)
            .map(|(ordinal, says)| peer(ordinal, says))
            .collect();
        self
    }

    pub(super) fn with(mut self, past: Past) -> Self {
        self.past = past;
        self
    }

    fn durable(mut self) -> Self {
        self.keeps = Keeps::All;
        self
    }

    pub(super) fn everysec(mut self) -> Self {
        self.keeps = Keeps::Nearly;
        self
    }

    fn new_tier(mut self) -> Self {
        self.formed = false;
        self
    }

    fn at(mut self, ordinal: usize) -> Self {
        self.ordinal = ordinal;
        self.me = format!("s{ordinal}");
        self
    }

    fn after(mut self, seconds: u64) -> Self {
        self.waited = Duration::from_secs(seconds);
        self
    }

    pub(super) fn accepting_loss(mut self) -> Self {
        self.accept_loss = true;
        self
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Is {
    Primary,
    EmptyAfterLoss,
    ReplicaOf(&'static str),
    Failover,
    Waits,
}

#[track_caller]
pub(super) fn check(story: &str, situation: &Situation, expected: &Is) {
    let decided = decide(situation);
    let is = match &decided {
        Decision::Primary { lost: None, .. } => Is::Primary,
        Decision::Primary { lost: Some(_), .. } => Is::EmptyAfterLoss,
        Decision::Replica { of, .. } => Is::ReplicaOf(match of.as_str() {
            "s0" => "s0",
            "s1" => "s1",
            "s2" => "s2",
            _ => "a stranger",
        }),
        Decision::Failover { .. } => Is::Failover,
        Decision::Wait { .. } => Is::Waits,
    };
    assert_eq!(&is, expected, "{story}: {decided:?}");
}

#[test]
fn where_sentinels_agree_on_a_living_primary_the_server_joins_it() {
    let s = || {
        situation()
            .all_name("s1")
            .peers([primary_since(1), replica_of("s1", true)])
    };
    check("it is new", &s(), &Is::ReplicaOf("s1"));
    check(
        "it was the primary and has old data",
        &s().with(data(0, 900)).durable(),
        &Is::ReplicaOf("s1"),
    );
    check(
        "it was the primary and is empty",
        &s().with(ran_once()),
        &Is::ReplicaOf("s1"),
    );
}

#[test]
fn p8_an_empty_primary_never_starts_while_others_hold_data() {
    let s = || situation().all_name("s0").with(ran_once());
    let synced = || replica_of("s0", true);
    check(
        "replicas hold it in memory",
        &s().peers([synced(), synced()]),
        &Is::Failover,
    );
    check(
        "one holds it, one is silent",
        &s().peers([synced(), None]),
        &Is::Failover,
    );
    check(
        "the volume was lost with the marker",
        &s().with(Past::default()).peers([synced(), synced()]),
        &Is::Failover,
    );
    check("nobody answers", &s(), &Is::Waits);
    check(
        "one is silent, one empty",
        &s().peers([guarding(ran_once()), None]),
        &Is::Waits,
    );
    check(
        "a replica never synced, the other is silent",
        &s().peers([replica_of("s0", false), None]),
        &Is::Waits,
    );
    check(
        "a peer has data on its volume and does not run yet",
        &s().peers([guarding(data(1, 5)), guarding(ran_once())]),
        &Is::Waits,
    );
    check(
        "Sentinels have just named another",
        &s().all_name("s1").peers([replica_of("s0", true), synced()]),
        &Is::Waits,
    );
}

#[test]
fn an_empty_start_after_all_lost_their_memory_is_reported() {
    let empty = || guarding(ran_once());
    let s = || situation().with(ran_once()).peers([empty(), empty()]);
    check(
        "Sentinels remember this server",
        &s().all_name("s0"),
        &Is::EmptyAfterLoss,
    );
    check(
        "Sentinels forgot, too",
        &s().sentinels([Voice::Unaware, Voice::Unaware, Voice::Unaware]),
        &Is::EmptyAfterLoss,
    );
    check(
        "another is first",
        &s().at(1).peers([empty(), empty()]).sentinels([
            Voice::Unaware,
            Voice::Unaware,
            Voice::Unaware,
        ]),
        &Is::Waits,
    );
    check(
        "Sentinels remember another",
        &s().all_name("s1"),
        &Is::Waits,
    );
    let wiped = situation().peers([guarding(Past::default()), guarding(Past::default())]);
    check(
        "volumes went, too; only the operator knows",
        &wiped.clone().all_name("s0"),
        &Is::EmptyAfterLoss,
    );
    check(
        "not even Sentinels know",
        &wiped.after(11),
        &Is::EmptyAfterLoss,
    );
}

#[test]
fn a_named_primary_with_all_of_its_data_starts_as_one() {
    let s = || situation().all_name("s0").with(data(1, 900));
    let peers = || [replica_of("s0", true), replica_of("s0", true)];
    check(
        "append-only file",
        &s().durable().peers(peers()),
        &Is::Primary,
    );
    check(
        "append-only file, nobody else answers",
        &s().durable(),
        &Is::Primary,
    );
    check(
        "synced every second: replicas that ran on have more",
        &s().everysec().peers(peers()),
        &Is::Failover,
    );
    check(
        "synced every second, nobody else answers",
        &s().everysec(),
        &Is::Primary,
    );
    check(
        "snapshot only, it was killed, replicas ran on",
        &s().peers(peers()),
        &Is::Failover,
    );
    let saved = Past {
        clean: true,
        was_primary: true,
        ..data(1, 900)
    };
    check(
        "snapshot only, but it ended in good order",
        &s().with(saved).peers(peers()),
        &Is::Primary,
    );
    let behind = || replica_of("s0", false);
    check(
        "snapshot only, all were killed",
        &s().peers([behind(), behind()]),
        &Is::Primary,
    );
    check(
        "snapshot only, a peer is silent",
        &s().peers([behind(), None]),
        &Is::Waits,
    );
}

#[test]
fn a_partition_does_not_make_a_second_primary() {
    let one = |primary| [names(primary, 1), Voice::Silent, Voice::Silent];
    let s = || situation().with(data(1, 900)).durable();
    check(
        "one Sentinel of three, no peer",
        &s().sentinels(one("s0")),
        &Is::Waits,
    );
    check(
        "one Sentinel of three, one peer",
        &s().sentinels(one("s0"))
            .peers([replica_of("s0", true), None]),
        &Is::Waits,
    );
    check(
        "one Sentinel of three, but all peers",
        &s().sentinels(one("s0"))
            .peers([replica_of("s0", true), replica_of("s0", true)]),
        &Is::Primary,
    );
    check("nobody at all", &s(), &Is::Waits);
    check("nobody at all, for long", &s().after(3600), &Is::Waits);
    check(
        "another runs as primary",
        &s().all_name("s0").peers([primary_since(1), None]),
        &Is::Waits,
    );
    let mut fenced = primary_since(1);
    if let Some(says) = &mut fenced {
        says.frozen = true;
    }
    check(
        "another did, and refuses writes already",
        &s().all_name("s0").peers([fenced, None]),
        &Is::Primary,
    );
}

#[test]
fn a_sentinel_that_was_left_behind_is_not_heard() {
    let stale = [names("s0", 1), Voice::Silent, Voice::Silent];
    let s = situation().with(data(1, 900)).durable().sentinels(stale);
    check(
        "a peer runs as primary of a later failover",
        &s.clone().peers([primary_since(2), None]),
        &Is::ReplicaOf("s1"),
    );
    let mixed = [names("s0", 1), names("s1", 2), Voice::Silent];
    check(
        "the later word counts",
        &s.sentinels(mixed).peers([primary_since(2), None]),
        &Is::ReplicaOf("s1"),
    );
}

#[test]
fn a_first_start_makes_the_first_the_primary_and_the_others_wait_for_it() {
    let new = || guarding(Past::default());
    let unaware = || [Voice::Unaware, Voice::Unaware, Voice::Unaware];
    let s = || situation().new_tier().sentinels(unaware());
    check("all answer", &s().peers([new(), new()]), &Is::Primary);
    check(
        "all answer, Sentinels do not run yet",
        &situation().new_tier().peers([new(), new()]),
        &Is::Primary,
    );
    check(
        "another is first",
        &s().at(2).peers([new(), new()]),
        &Is::Waits,
    );
    check(
        "the first runs",
        &s().at(2).peers([primary_since(0), new()]),
        &Is::ReplicaOf("s0"),
    );
    check(
        "one has not come yet",
        &s().peers([new(), None]),
        &Is::Waits,
    );
    check(
        "one does not come",
        &s().peers([new(), None]).after(31),
        &Is::Primary,
    );
    check(
        "the first does not come",
        &s().at(1).peers([None, new()]).after(31),
        &Is::Primary,
    );
    check(
        "one does not come, and this is not the first that did",
        &s().at(2).peers([None, new()]).after(31),
        &Is::Waits,
    );
    let some = [Voice::Unaware, Voice::Silent, Voice::Silent];
    check(
        "one does not come, nor do most Sentinels",
        &s().sentinels(some).peers([new(), None]).after(3600),
        &Is::Waits,
    );
    check(
        "the tier is not new",
        &situation()
            .sentinels(unaware())
            .peers([new(), None])
            .after(3600),
        &Is::Waits,
    );
}

#[test]
fn after_all_ended_at_once_the_newest_data_begins() {
    let unaware = || [Voice::Unaware, Voice::Unaware, Voice::Unaware];
    let s = |past| situation().with(past).durable().sentinels(unaware());
    let on_disk = |epoch, offset| guarding(data(epoch, offset));
    check(
        "it is furthest",
        &s(data(1, 9)).peers([on_disk(1, 8), on_disk(1, 7)]),
        &Is::Primary,
    );
    check(
        "another is further",
        &s(data(1, 8)).peers([on_disk(1, 8), on_disk(1, 9)]),
        &Is::Waits,
    );
    check(
        "another is of a later failover",
        &s(data(1, 900)).peers([on_disk(2, 5), on_disk(1, 900)]),
        &Is::Waits,
    );
    check(
        "all are equal: the first",
        &s(data(1, 8)).peers([on_disk(1, 8), on_disk(1, 8)]),
        &Is::Primary,
    );
    let led = guarding(Past {
        was_primary: true,
        ..data(1, 8)
    });
    check(
        "all are equal: the primary",
        &s(data(1, 8)).peers([led, on_disk(1, 8)]),
        &Is::Waits,
    );
    check(
        "only another has data",
        &s(ran_once()).peers([on_disk(1, 1), guarding(Past::default())]),
        &Is::Waits,
    );
    check(
        "one is silent",
        &s(data(1, 9)).peers([on_disk(1, 8), None]).after(3600),
        &Is::Waits,
    );
    let silent = situation()
        .with(data(1, 9))
        .durable()
        .peers([on_disk(1, 8), on_disk(1, 7)]);
    check("Sentinels may still come", &silent, &Is::Waits);
    check("Sentinels do not come", &silent.after(11), &Is::Primary);
}

#[test]
fn a_server_with_data_runs_as_a_replica_so_that_sentinels_can_choose_it() {
    let s = || situation().at(1).all_name("s0");
    let empty = || guarding(ran_once());
    check(
        "the primary lost its volume",
        &s().with(data(1, 9)).peers([empty(), empty()]),
        &Is::ReplicaOf("s0"),
    );
    check(
        "the primary's node is gone",
        &s().with(data(1, 9)).peers([None, empty()]).after(21),
        &Is::ReplicaOf("s0"),
    );
    check(
        "the primary's pod has not come yet, and may have newer data",
        &s().with(data(1, 9)).peers([None, empty()]),
        &Is::Waits,
    );
    check(
        "the primary comes back with its data",
        &s().with(data(1, 9))
            .peers([guarding(data(1, 9)), empty()])
            .after(60),
        &Is::Waits,
    );
    check(
        "it has nothing to be chosen for",
        &s().with(ran_once()).peers([None, empty()]),
        &Is::Waits,
    );
}

#[test]
fn without_sentinels_a_running_primary_is_joined_only_if_nothing_is_lost_by_it() {
    let s = |past| {
        situation()
            .with(past)
            .durable()
            .peers([primary_since(2), None])
    };
    check("nothing to lose", &s(Past::default()), &Is::ReplicaOf("s1"));
    check("older data", &s(data(1, 900)), &Is::ReplicaOf("s1"));
    check("the same stream", &s(data(2, 900)), &Is::ReplicaOf("s1"));
    check("newer data", &s(data(3, 1)), &Is::Waits);
    let two = situation().peers([primary_since(2), primary_since(2)]);
    check("two primaries", &two, &Is::Waits);
}

#[test]
fn a_person_is_asked_for_a_loss_only_where_that_ends_the_wait() {
    let s = || situation().with(ran_once());
    assert!(loss_would_help(&s().all_name("s0")));
    // Another begins with its data, or is before this one.
    let other = s().all_name("s1").peers([guarding(data(3, 9)), None]);
    assert!(!loss_would_help(&other));
    let second = s().at(1).peers([guarding(ran_once()), None]).after(60);
    assert!(!loss_would_help(&second));
    assert!(!loss_would_help(&s().all_name("s0").accepting_loss()));
}

#[test]
fn a_person_may_accept_the_loss() {
    let s = || situation().with(ran_once()).accepting_loss();
    check(
        "it is named, nobody answers",
        &s().all_name("s0"),
        &Is::EmptyAfterLoss,
    );
    check(
        "another is named: Sentinels shall choose this one",
        &s().all_name("s1"),
        &Is::ReplicaOf("s1"),
    );
    check(
        "a peer that runs with the data still counts",
        &s().all_name("s0").peers([replica_of("s0", true), None]),
        &Is::Failover,
    );
    check("nobody knows anything", &s().after(11), &Is::EmptyAfterLoss);
}

#[test]
fn a_standalone_server_starts_and_says_when_it_lost_its_data() {
    let mut s = situation().new_tier();
    s.sentinels.clear();
    s.peers.clear();
    check("first start", &s, &Is::Primary);
    check("with its data", &s.clone().with(data(0, 9)), &Is::Primary);
    check(
        "again, without its data",
        &s.clone().with(ran_once()),
        &Is::EmptyAfterLoss,
    );
    s.formed = true;
    check("on a new volume", &s, &Is::EmptyAfterLoss);
}

#[test]
fn one_server_watched_by_sentinels_needs_no_peer() {
    let mut s = situation();
    s.peers.clear();
    check(
        "named, with its data",
        &s.clone().all_name("s0").with(data(1, 9)).durable(),
        &Is::Primary,
    );
    check(
        "named, empty",
        &s.clone().all_name("s0").with(ran_once()),
        &Is::EmptyAfterLoss,
    );
    check("a stranger is named", &s.all_name("s2"), &Is::Waits);
}
