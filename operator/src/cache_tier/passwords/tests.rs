use std::cell::Cell;

use crds::cache_tier::{Engine, Pod, Topology};
use kube::api::ObjectMeta;
use policy::ByteSize;

use super::*;
use crate::cache_tier::observe::{View, samples};

fn servers(given: Option<&str>) -> Servers {
    Servers {
        topology: Topology::Standalone,
        engine: Engine::Valkey,
        image: String::new(),
        agent_image: String::new(),
        shards: 1,
        pods_per_shard: 1,
        sentinels: 0,
        memory: ByteSize(1 << 30),
        persistence: None,
        open: false,
        given_password: given.map(str::to_owned),
        databases: 16,
        config: BTreeMap::new(),
        pod: Pod::default(),
    }
}

/// What is there after something was decided.
fn stored(decided: Decided, rotated: Option<&str>) -> Found {
    let (Write::Create(data) | Write::Replace(data)) = decided.write else {
        panic!("nothing was written")
    };
    let rotated = rotated.map(|rotated| (ROTATED.to_owned(), rotated.to_owned()));
    let auth = Secret {
        metadata: ObjectMeta {
            annotations: Some(rotated.into_iter().collect()),
            ..ObjectMeta::default()
        },
        data: Some(data),
        ..Secret::default()
    };
    Found {
        auth: Some(auth),
        ..Found::default()
    }
}

/// A server whose agent says that word of its passwords.
fn accepting(generation: &str) -> Observed {
    let mut state = samples::state();
    state.credential_generation = Some(generation.to_owned());
    let pod = samples::pod("t-shard-0", 0, View::Known(Box::new(state)));
    Observed {
        servers: vec![pod],
        ..Observed::default()
    }
}

/// A tier with passwords that were rotated once; the word for those, and the one for the first.
fn rotated(servers: &Servers, generate: Generate<'_>) -> (Found, String, String) {
    let nobody = Observed::default();
    let first = decide(servers, (&Found::default(), &nobody), None, generate);
    let before = first.passwords.generation(false);
    let found = stored(first, None);
    let second = decide(servers, (&found, &accepting(&before)), Some("1"), generate);
    assert!(second.passwords.overlap() && !second.postponed);
    let now = second.passwords.generation(false);
    (stored(second, Some("1")), now, before)
}

#[test]
fn a_further_change_waits_while_a_server_is_not_known_to_accept_the_last() {
    let count = Cell::new(0);
    let generate = || {
        count.set(count.get() + 1);
        format!("password-{}", count.get())
    };
    let servers = servers(None);
    let (found, now, before) = rotated(&servers, &generate);
    let made = count.get();
    let early = decide(
        &servers,
        (&found, &accepting(&before)),
        Some("2"),
        &generate,
    );
    assert!(early.postponed);
    assert_eq!(early.write, Write::Nothing);
    assert_eq!(early.passwords.generation(false), now);
    assert_eq!(count.get(), made, "none is made in vain");

    let next = decide(&servers, (&found, &accepting(&now)), Some("2"), &generate);
    assert!(!next.postponed);
    for user in User::ALL {
        let held = known(user, &found).unwrap();
        let slots = next.passwords.of(user);
        assert_eq!(slots.previous.as_ref(), Some(&held.current), "{user:?}");
        assert_ne!(slots.current, held.current, "{user:?}");
    }
    // A wish that was obeyed is none.
    let same = decide(
        &servers,
        (&found, &accepting(&before)),
        Some("1"),
        &generate,
    );
    assert!(!same.postponed);
    assert_eq!(same.write, Write::Nothing);
}

#[test]
fn a_password_that_is_given_waits_too_but_not_for_who_does_not_run_or_refuses() {
    let generate = || "generated".to_owned();
    let (found, _, before) = {
        let count = Cell::new(0);
        let unlike = || {
            count.set(count.get() + 1);
            format!("password-{}", count.get())
        };
        rotated(&servers(None), &unlike)
    };
    let given = servers(Some("given"));
    let behind = accepting(&before);
    assert!(decide(&given, (&found, &behind), Some("1"), &generate).postponed);
    let mut down = behind.clone();
    down.servers[0].view = View::Unknown("it has no address yet".to_owned());
    (down.servers[0].ready, down.servers[0].begun) = (false, false);
    let mut refuses = samples::state();
    refuses.credential_error = Some("no".to_owned());
    let mut refusing = behind;
    refusing.servers[0].view = View::Known(Box::new(refuses));
    for observed in [down, refusing, Observed::default()] {
        let decided = decide(&given, (&found, &observed), Some("1"), &generate);
        assert!(!decided.postponed);
        assert_eq!(decided.passwords.of(User::Default).current, "given");
    }
}
