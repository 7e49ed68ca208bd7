//! Slots that move while apps read and write: `MOVED`, `ASK`, `TRYAGAIN`, and no stale value.

use e2e::wait;

use super::start;

#[test]
fn a_slot_that_moves_is_followed_and_nothing_stale_is_served() {
    let (cluster, sidecar) = start();
    let mut wire = sidecar.connect();
    let key = cluster.key_on(0, "c:");
    let slot = cluster.slot_of(&key);
    for round in 0..4 {
        let value = format!("before {round}");
        wire.call(&["SET", &key, &value]);
        sidecar.until_hit(&mut wire, &format!("GET {key}"));
        let to = (cluster.owner_of(slot) + 1) % 3;
        cluster.migrate_slot(slot, to);
        assert_eq!(wire.call(&["GET", &key]).text(), value);
        let value = format!("after {round}");
        cluster.call(to, &["SET", &key, &value]);
        wait::until_true("the write at the new owner is seen", || {
            wire.call(&["GET", &key]).text() == value
        });
        sidecar.until_hit(&mut wire, &format!("GET {key}"));
    }
}

#[test]
fn in_the_middle_of_a_move_every_key_is_found_where_it_is() {
    let (cluster, sidecar) = start();
    let mut wire = sidecar.connect();
    let tag = cluster.key_on(0, "tag");
    let key = |number: u32| format!("c:{{{tag}}}:{number}");
    for number in 0..10 {
        wire.call(&["SET", &key(number), &format!("v{number}")]);
        wire.call(&["GET", &key(number)]);
    }
    let migration = cluster.begin_migration(cluster.slot_of(&key(0)), 1);
    for number in 0..5 {
        migration.move_key(&key(number));
    }
    for number in 0..10 {
        assert_eq!(
            wire.call(&["GET", &key(number)]).text(),
            format!("v{number}")
        );
        assert_eq!(wire.call(&["APPEND", &key(number), "+"]).integer(), 3);
        assert_eq!(
            wire.call(&["GET", &key(number)]).text(),
            format!("v{number}+")
        );
    }
    assert_eq!(wire.call(&["SET", &key(99), "new"]).to_string(), "OK");
    // Several keys of which some have gone: TRYAGAIN until the move is over.
    let mut many = sidecar.connect();
    many.send(&e2e::wire::encode(&["SUNION", &key(0), &key(9)]))
        .unwrap();
    wait::until_true("the command was refused and is held", || {
        sidecar.metric("pannier_upstream_redirects_total", "") > 20.0
    });
    migration.move_all();
    migration.finish();
    let reply = many.read().unwrap().to_string();
    assert!(reply.starts_with("-WRONGTYPE"), "{reply}");
    for number in 0..10 {
        assert_eq!(
            wire.call(&["GET", &key(number)]).text(),
            format!("v{number}+")
        );
    }
}

#[test]
fn a_command_that_blocks_follows_its_key() {
    let (cluster, sidecar) = start();
    let key = cluster.key_on(2, "list:");
    let mut wire = sidecar.connect();
    wire.call(&["RPUSH", &key, "one"]);
    cluster.migrate_slot(cluster.slot_of(&key), 0);
    assert_eq!(
        wire.call(&["BLPOP", &key, "5"]).to_string(),
        format!("[{key} one]")
    );
}
