//! Situations and what must be decided in them. Each row is one line of a story: what is on this
//! server's volume, what Sentinels say, what the peers say.

mod words;

use super::*;
pub(super) use words::*;

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
        &Is::PrimaryAfterLoss,
    );
    check(
        "Sentinels forgot, too",
        &s().sentinels([Voice::Unaware, Voice::Unaware, Voice::Unaware]),
        &Is::PrimaryAfterLoss,
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
        &Is::PrimaryAfterLoss,
    );
    check(
        "not even Sentinels know",
        &wiped.after(11),
        &Is::PrimaryAfterLoss,
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
    let ended_well = guarding(Past {
        was_primary: true,
        clean: true,
        ..data(1, 7)
    });
    check(
        "the primary ended in good order, its mark is older than its last writes",
        &s(data(1, 8)).peers([ended_well, on_disk(1, 8)]),
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
        &Is::PrimaryAfterLoss,
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
    check(
        "nobody knows anything",
        &s().after(11),
        &Is::PrimaryAfterLoss,
    );
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
        &Is::PrimaryAfterLoss,
    );
    s.formed = true;
    check("on a new volume", &s, &Is::PrimaryAfterLoss);
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
        &Is::PrimaryAfterLoss,
    );
    check("a stranger is named", &s.all_name("s2"), &Is::Waits);
}

#[test]
fn p8_a_primary_that_was_cut_off_and_replaced_has_what_its_successor_lost() {
    let stopped = |says: Option<Says>| {
        says.map(|says| Says {
            frozen: true,
            ..says
        })
    };
    let s = |says| {
        situation()
            .all_name("s0")
            .with(ran_once())
            .peers([says, guarding(ran_once())])
    };
    check(
        "it refuses writes",
        &s(stopped(primary_since(0))),
        &Is::Failover,
    );
    check("it takes writes", &s(primary_since(0)), &Is::Waits);
}

#[test]
fn an_append_only_file_that_reaches_further_than_the_replicas_is_not_given_up() {
    let at = |offset| {
        let mut says = replica_of("s0", true)?;
        says.past.offset = offset;
        says.streams = vec!["stream-1".to_owned()];
        Some(says)
    };
    let s = |offset| {
        situation()
            .all_name("s0")
            .with(data(1, 900))
            .peers([at(offset), at(offset)])
            .after(2)
    };
    check("they lag", &s(800).everysec(), &Is::Primary);
    let at_once = s(800).everysec().after(0);
    check("they may have more than they said", &at_once, &Is::Waits);
    check("they have all", &s(900).everysec(), &Is::Failover);
    // A snapshot may be older still.
    match decide(&s(800)) {
        Decision::Failover { lost, .. } => assert!(lost.unwrap().contains("100 bytes")),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_given_up_by_a_persons_word_is_told_and_nothing_else() {
    let s = situation()
        .all_name("s0")
        .with(data(1, 9))
        .peers([None, None]);
    assert_eq!(given_up(&s), None);
    let told = given_up(&s.accepting_loss()).unwrap();
    assert!(told.contains("s1, s2"), "{told}");
    let all_answer = situation()
        .all_name("s1")
        .with(data(1, 9))
        .peers([primary_since(1), replica_of("s1", true)])
        .accepting_loss();
    assert_eq!(given_up(&all_answer), None);
}

#[test]
fn p8_who_answers_without_knowing_its_server_is_neither_empty_nor_away() {
    let unsure = |mut s: Situation, ordinal: usize| {
        let peer = s.peers.iter_mut().find(|peer| peer.ordinal == ordinal);
        peer.unwrap().answers = true;
        s
    };
    let first = || {
        let s = situation()
            .new_tier()
            .at(1)
            .sentinels([Voice::Unaware, Voice::Unaware, Voice::Unaware])
            .peers([None, None])
            .after(31);
        check("a first start, both are away", &s, &Is::Primary);
        s
    };
    check("the first begins just now", &unsure(first(), 0), &Is::Waits);
    check("the last does", &unsure(first(), 2), &Is::Waits);
    let lost = || {
        situation()
            .all_name("s0")
            .with(ran_once())
            .peers([None, guarding(ran_once())])
            .after(31)
    };
    assert!(loss_would_help(&lost()));
    check("a word", &lost().accepting_loss(), &Is::PrimaryAfterLoss);
    let loading = || unsure(lost(), 1);
    assert!(!loss_would_help(&loading()));
    let s = loading().accepting_loss();
    check("it loads what it has", &s, &Is::Waits);
}
