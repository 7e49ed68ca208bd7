//! A subscription to one Sentinel: which server it makes the primary.

use std::time::Duration;

use tokio::{sync::mpsc, time::sleep};

use super::super::{
    PATIENCE,
    ask::{self, Conn},
};
use crate::{
    resp::reply::Value,
    upstream::{Endpoint, topology::Address},
};

/// Pause before a subscription that broke is made again; the looks go on meanwhile.
const PAUSE: Duration = Duration::from_secs(1);
const CHANNELS: [&str; 3] = ["+switch-master", "+selected-slave", "+promoted-slave"];

/// A server that is, or is about to be, the primary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event(pub(super) Address);

/// Listens until the connection breaks.
pub(super) async fn run(to: Endpoint, name: String, events: mpsc::Sender<Event>) {
    if let Ok(mut conn) = Conn::open(&to).await {
        let subscribe = [&["SUBSCRIBE"][..], &CHANNELS].concat();
        let subscribed = conn.ask(&subscribe, PATIENCE).await.is_ok();
        while subscribed && let Ok(frame) = conn.next().await {
            let event = Value::read(&frame)
                .ok()
                .and_then(|value| event(&value, &name));
            // A full queue holds switches enough.
            if let Some(event) = event {
                let _ = events.try_send(event);
            }
        }
    }
    sleep(PAUSE).await;
}

/// The event in a message about the primary called `name`.
pub(super) fn event(message: &Value<'_>, name: &str) -> Option<Event> {
    let [kind, channel, text] = message.list()? else {
        return None;
    };
    if kind.text()? != b"message" {
        return None;
    }
    let text = std::str::from_utf8(text.text()?).ok()?;
    let words: Vec<&str> = text.split(' ').collect();
    // <https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel/#pubsub-messages>
    let (host, port) = match (channel.text()?, words.as_slice()) {
        (b"+switch-master", [of, _, _, host, port]) if *of == name => (host, port),
        (b"+selected-slave" | b"+promoted-slave", [_, _, host, port, "@", of, ..])
            if *of == name =>
        {
            (host, port)
        }
        _ => return None,
    };
    let port = port.parse().ok().filter(|port| *port != 0)?;
    Some(Event(Address::new(ask::host(host.as_bytes())?, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(channel: &str, text: &str) -> Option<Event> {
        let message = Value::List(vec![
            Value::Text(b"message"),
            Value::Text(channel.as_bytes()),
            Value::Text(text.as_bytes()),
        ]);
        event(&message, "mymaster")
    }

    #[test]
    fn messages_of_a_real_failover_name_the_new_primary() {
        let new = Some(Event(Address::new("127.0.0.1", 17_258)));
        let text = "mymaster 127.0.0.1 17256 127.0.0.1 17258";
        assert_eq!(read("+switch-master", text), new);
        let text = "slave 127.0.0.1:17258 127.0.0.1 17258 @ mymaster 127.0.0.1 17256";
        assert_eq!(read("+selected-slave", text), new);
        assert_eq!(read("+promoted-slave", text), new);
    }

    #[test]
    fn messages_about_others_and_nonsense_are_no_events() {
        for (channel, text) in [
            ("+switch-master", "other 127.0.0.1 1 127.0.0.1 2"),
            ("+switch-master", "mymaster 127.0.0.1 1 127.0.0.1 0"),
            ("+switch-master", "mymaster 127.0.0.1 1 127.0.0.1 99999"),
            ("+switch-master", "mymaster 127.0.0.1 1 http://x 2"),
            ("+switch-master", ""),
            ("+selected-slave", "slave a:2 a 2 @ other b 1"),
            ("+sdown", "slave a:2 a 2 @ mymaster b 1"),
        ] {
            assert_eq!(read(channel, text), None, "{channel} {text}");
        }
        assert_eq!(event(&Value::Null, "mymaster"), None);
        assert_eq!(
            event(&Value::List(vec![Value::Integer(1)]), "mymaster"),
            None
        );
    }
}
