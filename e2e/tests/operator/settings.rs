//! What a running server does with settings that it does not take as they are.

use e2e::{Engine, RedisServer};
use operator::cache_tier::act::configure::give;

#[tokio::test]
async fn one_setting_that_a_server_does_not_take_holds_up_no_other() {
    for engine in [Engine::Redis7, Engine::Valkey8] {
        let server = RedisServer::new(engine);
        let client = redis::Client::open(format!("redis://{}/", server.address())).unwrap();
        let mut link = client.get_multiplexed_async_connection().await.unwrap();
        let settings = [
            ("hz", "1000"),
            ("maxmemory-samples", "ten"),
            ("slowlog-max-len", "77"),
            ("maxmemory", "100mb"),
        ];
        for _ in 0..2 {
            let given = give(&mut link, &settings).await.unwrap();
            assert_eq!(given.taken, ["slowlog-max-len", "maxmemory"]);
            let [(hz, shows), (samples, answers)] = given.refused.as_slice() else {
                panic!("{:?}", given.refused)
            };
            assert_eq!((*hz, shows.contains("500")), (settings[0], true), "{shows}");
            assert_eq!(*samples, settings[1]);
            assert!(answers.contains("maxmemory-samples"), "{answers}");
        }
        let all = give(&mut link, &settings[2..]).await.unwrap();
        assert!(all.refused.is_empty(), "{:?}", all.refused);
    }
}
