use crds::condition::ConditionStatus;

use super::*;
use crate::{
    cache_tier::{
        observe::{View, samples},
        passwords::User,
    },
    conditions, user,
};

fn judged(servers: &[Option<&str>], sentinels: &[Option<&str>], overlap: bool) -> Fact {
    let pods = |set: &str, words: &[Option<&str>]| {
        let pod = |(ordinal, word): (u32, Option<&str>)| {
            let mut state = samples::state();
            state.credential_generation = word.map(str::to_owned);
            samples::pod(set, ordinal, View::Known(Box::new(state)))
        };
        (0..).zip(words.iter().copied()).map(pod).collect()
    };
    let observed = Observed {
        servers: pods("shard", servers),
        sentinels: pods("sentinel", sentinels),
        ..Observed::default()
    };
    let generation = "new".to_owned();
    credentials(
        &observed,
        &Held {
            generation,
            overlap,
            postponed: false,
        },
    )
}

#[test]
fn servers_that_agree_on_old_passwords_have_not_the_current_ones() {
    let old = judged(&[Some("old"), Some("old")], &[Some("old")], true);
    assert_eq!(
        (old.status, old.reason),
        (ConditionStatus::Unknown, "UnderWay")
    );
    assert!(
        old.message.contains("shard-0, shard-1, sentinel-0"),
        "{}",
        old.message
    );
    for (servers, sentinels, who) in [
        (vec![Some("new"), Some("old")], vec![Some("new")], "shard-1"),
        (vec![Some("new"), None], vec![Some("new")], "shard-1"),
        (vec![Some("new")], vec![Some("old")], "sentinel-0"),
        (vec![], vec![], "any server"),
    ] {
        let fact = judged(&servers, &sentinels, false);
        assert_eq!(
            fact.status,
            ConditionStatus::Unknown,
            "{servers:?} {sentinels:?}"
        );
        assert!(
            fact.message.ends_with(&format!(": {who}")),
            "{}",
            fact.message
        );
    }
    let all = |overlap| judged(&[Some("new"), Some("new")], &[Some("new")], overlap);
    assert_eq!(all(true).reason, "Overlap");
    assert_eq!(
        (all(false).status, all(false).reason),
        (ConditionStatus::True, "Current")
    );
}

#[test]
fn the_word_for_passwords_is_another_one_for_each_slot_and_for_an_open_tier() {
    let word = |open, current, previous| {
        user::generation(open, User::ALL.map(|user| (user, Some(current), previous)))
    };
    let words = [
        word(false, "b", Some("a")),
        word(false, "b", None),
        word(false, "a", Some("b")),
        word(true, "b", None),
    ];
    for (number, word) in words.iter().enumerate() {
        assert_eq!(word.len(), 16, "{word}");
        assert!(!words[..number].contains(word), "{words:?}");
    }
}

#[test]
fn a_lag_is_written_anew_when_it_has_doubled_or_halved() {
    const MIB: i64 = 1 << 20;
    assert_eq!(lag(NEAR - 1, None), 0, "at rest nothing is written");
    assert_eq!(lag(-5, Some(0)), 0, "a replica was asked after its primary");
    assert_eq!(lag(3 * MIB, None), 3 * MIB);
    assert_eq!(lag(5 * MIB, Some(3 * MIB)), 3 * MIB);
    assert_eq!(lag(2 * MIB, Some(3 * MIB)), 3 * MIB);
    assert_eq!(lag(7 * MIB, Some(3 * MIB)), 7 * MIB);
    assert_eq!(lag(MIB, Some(3 * MIB)), MIB);
    assert_eq!(lag(10, Some(3 * MIB)), 0);
}

#[test]
fn a_loss_is_told_once_and_a_further_one_again() {
    let pod = |ordinal, loss: Option<&str>| {
        let mut state = samples::state();
        state.data_lost = loss.map(str::to_owned);
        samples::pod("shard", ordinal, View::Known(Box::new(state)))
    };
    let told = |servers, before: &[Condition]| {
        let observed = Observed {
            servers,
            ..Observed::default()
        };
        lost(&observed, before)
    };
    assert_eq!(told(vec![pod(0, None)], &[]), None);
    let first = told(vec![pod(0, Some("at 1")), pod(1, None)], &[]).unwrap();
    assert_eq!(first.message, "shard-0: at 1");
    let before = conditions::merge(&[], vec![first.clone()], &[], Some(1), "t1");
    for same in [Some("at 1"), None] {
        let again = told(vec![pod(0, same), pod(1, None)], &before);
        assert_eq!(again, Some(first.clone()));
    }
    let further = told(vec![pod(0, Some("at 1")), pod(1, Some("at 2"))], &before);
    assert_eq!(further.unwrap().message, "shard-0: at 1; shard-1: at 2");
}
