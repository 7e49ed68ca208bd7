//! Guards that have to hold alone: the tracked link is late, so no invalidation helps in time. One
//! command each that changes a key in a way of its own, through the sidecar and directly.

use std::time::Duration;

use e2e::{
    Engine, RedisServer, ServerOptions, Sidecar, SidecarOptions, Value, Wire,
    proxy::{Direction::ToClient, Disturbance, Proxy, Which},
    wait,
};
use serde_json::json;

/// What invalidations and replies of the tracked link are late.
const LATE: Disturbance = Disturbance {
    delay: Duration::from_millis(60),
    jitter: Duration::ZERO,
    piece: 0,
    stall: false,
    lose: false,
};

const READS: [&str; 4] = ["GET c:1", "GET c:2", "TTL c:1", "EXISTS c:2"];

struct Stage {
    sidecar: Sidecar,
    app: Wire,
    direct: Wire,
    barriers: u32,
    proxy: Proxy,
    _server: RedisServer,
}

impl Stage {
    fn new() -> Self {
        Self::of(ServerOptions::default())
    }

    fn of(options: ServerOptions) -> Self {
        let server = RedisServer::start(options);
        let proxy = Proxy::before(server.address(), 1);
        let options = SidecarOptions::before_port(proxy.address().port()).rule(
            "cached",
            "c:{id}",
            json!({"negativeTtl": "60s"}),
        );
        let sidecar = Sidecar::start_coherent(&options);
        proxy.disturb(Which::Tracked, ToClient, LATE);
        Self {
            app: sidecar.connect(),
            direct: server.connect(),
            sidecar,
            barriers: 0,
            proxy,
            _server: server,
        }
    }

    /// Two keys, kept locally.
    fn warm(&mut self) {
        for line in ["FLUSHALL", "SET c:1 old", "SET c:2 other"] {
            assert!(!self.direct.run(line).is_error(), "{line}");
        }
        self.barrier();
        for read in READS {
            self.sidecar.until_hit(&mut self.app, read);
        }
    }

    /// A miss travels on the tracked connection, behind the invalidations sent before.
    fn barrier(&mut self) {
        self.barriers += 1;
        self.app.run(&format!("GET c:barrier{}", self.barriers));
    }

    /// All reads at once: by the second reply the invalidations are there.
    fn agrees(&mut self, after: &str) {
        self.app
            .send((READS.join("\r\n") + "\r\n").as_bytes())
            .unwrap();
        for read in READS {
            let seen = self.app.read().unwrap();
            assert_eq!(seen, self.direct.run(read), "{read} after {after}");
        }
    }

    /// The command through the sidecar, alone and in a transaction, and directly.
    fn check(&mut self, command: &[&[u8]], mut before: impl FnMut()) {
        let name = String::from_utf8_lossy(command[0]).into_owned();
        let fine = |reply: &Value| assert!(!reply.is_error(), "{name}: {reply}");
        before();
        self.warm();
        fine(&self.app.call(command));
        self.agrees(&name);

        before();
        self.warm();
        assert_eq!(self.app.run("MULTI"), "OK");
        assert_eq!(self.app.call(command), "QUEUED");
        let replies = self.app.run("EXEC");
        replies.items().iter().for_each(fine);
        self.agrees(&format!("{name} in a transaction"));

        before();
        self.warm();
        fine(&self.direct.call(command));
        self.barrier();
        self.agrees(&format!("{name} by others"));
    }
}

#[test]
fn p2_fcall_changes_keys_that_it_declares_and_others() {
    const LIBRARY: &str = "#!lua name=guards\nredis.register_function('put', function(keys, args) \
        return redis.call('SET', args[1], args[2]) end)";
    let mut stage = Stage::new();
    let loaded = stage.direct.call(&["FUNCTION", "LOAD", LIBRARY]);
    assert!(!loaded.is_error(), "{loaded}");
    let declared: [&[u8]; 6] = [b"FCALL", b"put", b"1", b"c:1", b"c:1", b"declared"];
    stage.check(&declared, || {});
    let hidden: [&[u8]; 5] = [b"FCALL", b"put", b"0", b"c:2", b"hidden"];
    stage.check(&hidden, || {});
}

#[test]
fn p2_migrate_takes_one_key_or_several_away() {
    let elsewhere = RedisServer::new(Engine::Redis7);
    let port = elsewhere.port().to_string();
    let (mut stage, mut there) = (Stage::new(), elsewhere.connect());
    let mut empty = || assert_eq!(there.run("FLUSHALL"), "OK");
    let to: [&[u8]; 3] = [b"MIGRATE", b"127.0.0.1", port.as_bytes()];
    let one: [&[u8]; 3] = [b"c:1", b"0", b"5000"];
    stage.check(&[&to[..], &one].concat(), &mut empty);
    let several: [&[u8]; 6] = [b"", b"0", b"5000", b"KEYS", b"c:1", b"c:2"];
    stage.check(&[&to[..], &several].concat(), &mut empty);
}

#[test]
fn p2_restore_replaces_a_value_and_its_time_to_live() {
    let mut stage = Stage::new();
    stage.direct.run("SET source restored");
    let payload = stage.direct.run("DUMP source").bytes().to_vec();
    let lasting: [&[u8]; 5] = [b"RESTORE", b"c:1", b"0", &payload, b"REPLACE"];
    stage.check(&lasting, || {});
    let brief: [&[u8]; 5] = [b"RESTORE", b"c:1", b"600000", &payload, b"REPLACE"];
    stage.check(&brief, || {});
}

/// What was delivered to whom.
fn pending(wire: &mut Wire) -> Value {
    wire.run("XPENDING c:s g")
}

fn stream(stage: &mut Stage) {
    stage.warm();
    for line in [
        "XADD c:s 1-1 f a",
        "XADD c:s 2-1 f b",
        "XADD c:s 3-1 f c",
        "XGROUP CREATE c:s g 0",
    ] {
        assert!(!stage.direct.run(line).is_error(), "{line}");
    }
}

#[test]
fn p2_xreadgroup_is_executed_each_time_and_what_it_changed_is_seen() {
    const TAKE: &str = "XREADGROUP GROUP g one COUNT 1 STREAMS c:s >";
    let mut stage = Stage::new();
    stream(&mut stage);
    // Twice the same words, at once: they are two commands, and deliver two entries.
    stage
        .app
        .send(format!("{TAKE}\r\n{TAKE}\r\n").as_bytes())
        .unwrap();
    let taken = [stage.app.read().unwrap(), stage.app.read().unwrap()];
    assert_ne!(taken[0], taken[1]);
    assert_eq!(pending(&mut stage.app), pending(&mut stage.direct));
    assert_eq!(stage.app.run("MULTI"), "OK");
    stage.app.run(TAKE);
    assert!(stage.app.run("EXEC").to_string().contains("3-1"));
    let seen = pending(&mut stage.app);
    assert_eq!(
        (seen.items()[0].integer(), &seen),
        (3, &pending(&mut stage.direct))
    );
    // By others.
    stage.direct.run("XADD c:s 4-1 f d");
    assert!(stage.direct.run(TAKE).to_string().contains("4-1"));
    assert_eq!(pending(&mut stage.app), pending(&mut stage.direct));
    stage.agrees(TAKE);
}

/// It is called a read of its key, and would be sent again if it were one.
#[test]
fn an_xreadgroup_whose_reply_is_lost_is_not_sent_again() {
    let mut stage = Stage::new();
    stream(&mut stage);
    let lost = Disturbance {
        lose: true,
        ..Disturbance::default()
    };
    stage.proxy.disturb(Which::Plain, ToClient, lost);
    stage
        .app
        .send(b"XREADGROUP GROUP g one COUNT 1 STREAMS c:s >\r\n")
        .unwrap();
    let delivered = |direct: &mut Wire| pending(direct).items()[0].integer();
    wait::until_true("Redis has delivered an entry", || {
        delivered(&mut stage.direct) == 1
    });
    stage.proxy.heal();
    let answer = stage.app.read().unwrap().to_string();
    assert!(
        answer.contains("may or may not have been executed"),
        "{answer}"
    );
    assert_eq!(stage.app.run("SET c:1 behind"), "OK");
    assert_eq!(delivered(&mut stage.direct), 1);
}

#[test]
fn p2_a_select_inside_multi_leads_what_follows_to_another_database() {
    let mut stage = Stage::new();
    let mut other = stage.sidecar.connect();
    let prepare = |stage: &mut Stage, other: &mut Wire| {
        stage.warm();
        for line in ["SELECT 1", "SET c:1 there", "SELECT 0"] {
            assert_eq!(stage.direct.run(line), "OK", "{line}");
        }
        assert_eq!(stage.app.run("SELECT 0"), "OK");
        assert_eq!(other.run("SELECT 1"), "OK");
        stage.sidecar.until_hit(other, "GET c:1");
        assert_eq!(other.run("GET c:1"), "there");
    };
    let transaction = ["MULTI", "SELECT 1", "SET c:1 new", "EXEC"];
    prepare(&mut stage, &mut other);
    for line in transaction {
        assert!(!stage.app.run(line).is_error(), "{line}");
    }
    assert_eq!(other.run("GET c:1"), "new", "in the database of the write");
    assert_eq!(
        stage.app.run("GET c:1"),
        "new",
        "EXEC left the client there"
    );
    assert_eq!(stage.app.run("SELECT 0"), "OK");
    assert_eq!(stage.app.run("GET c:1"), "old", "in the database before");

    // What is discarded leads nowhere.
    prepare(&mut stage, &mut other);
    for line in ["MULTI", "SELECT 1", "SET c:1 never", "DISCARD"] {
        assert!(!stage.app.run(line).is_error(), "{line}");
    }
    assert_eq!(stage.app.run("GET c:1"), "old");
    assert_eq!(other.run("GET c:1"), "there");

    // By others.
    prepare(&mut stage, &mut other);
    for line in transaction {
        assert!(!stage.direct.run(line).is_error(), "{line}");
    }
    assert_eq!(stage.direct.run("SELECT 0"), "OK");
    other.run("GET c:barrier");
    assert_eq!(other.run("GET c:1"), "new");
    assert_eq!(stage.app.run("GET c:1"), "old");
}

#[test]
fn p2_reset_ends_a_transaction_without_effect_and_leads_back_to_the_first_database() {
    let mut stage = Stage::new();
    stage.warm();
    for line in ["MULTI", "SET c:1 never"] {
        assert!(!stage.app.run(line).is_error(), "{line}");
    }
    assert_eq!(stage.app.run("RESET"), "RESET");
    stage.agrees("RESET inside MULTI");
    // Its mark as being written has gone with it.
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");

    stage.direct.run("SELECT 1");
    stage.direct.run("SET c:1 there");
    stage.direct.run("SELECT 0");
    assert_eq!(stage.app.run("SELECT 1"), "OK");
    stage.sidecar.until_hit(&mut stage.app, "GET c:1");
    assert_eq!(stage.app.run("GET c:1"), "there");
    assert_eq!(stage.app.run("RESET"), "RESET");
    stage.agrees("RESET in another database");
    // A write after it goes where reads look.
    assert_eq!(stage.app.run("SET c:1 new"), "OK");
    stage.agrees("a write after RESET");
    stage.direct.run("SET c:1 newest");
    stage.barrier();
    stage.agrees("a write by others after RESET");
}

/// It is answered here: passed on, it would hold for every client of the shared connection.
#[test]
fn client_no_touch_of_one_client_is_not_that_of_others() {
    let mut options = ServerOptions::of(Engine::Redis8);
    // Every access counts one.
    options.config.extend([
        "maxmemory-policy allkeys-lfu".into(),
        "lfu-log-factor 0".into(),
    ]);
    let mut stage = Stage::of(options);
    let mut quiet = stage.sidecar.connect();
    stage.warm();
    stage.direct.run("SET u:1 v");
    let frequency = |direct: &mut Wire| direct.run("OBJECT FREQ u:1").integer();
    let before = frequency(&mut stage.direct);
    assert_eq!(quiet.run("CLIENT NO-TOUCH ON"), "OK");
    for _ in 0..5 {
        assert_eq!(stage.app.run("GET u:1"), "v");
    }
    assert_eq!(frequency(&mut stage.direct), before + 5);
    // Who asked for it writes and reads like everybody.
    assert_eq!(quiet.run("SET c:1 quietly"), "OK");
    assert_eq!(quiet.run("GET c:1"), "quietly");
    stage.agrees("a write of a client with NO-TOUCH");
    stage.direct.run("SET c:1 by-others");
    stage.barrier();
    assert_eq!(quiet.run("GET c:1"), "by-others");
}
