//! How full Redis' table of tracked keys is (B.7).
//!
//! In coherence mode `Tracking` Redis remembers each key that was read and by whom, for all
//! clients together, up to `tracking-table-max-keys`. Beyond that it forgets keys and announces
//! changes of them that never happened: entries fall early and hits become misses. Nothing is
//! wrong then, only slow, so it is said before.

/// From this share of the limit on there is a warning, in percent.
const WARN: u64 = 80;
/// Below this share it is taken back.
const CALM: u64 = 70;

/// The table, as far as the server says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackingTable {
    /// Whose it is, in front of a cluster: the fullest of all shards.
    pub server: Option<String>,
    /// Keys in it.
    pub keys: Option<u64>,
    /// Keys times clients that read them.
    pub items: Option<u64>,
    /// Prefixes of clients in broadcast mode.
    pub prefixes: Option<u64>,
    /// Clients that want announcements.
    pub clients: Option<u64>,
    /// `tracking-table-max-keys`; 0: no limit.
    pub max_keys: Option<u64>,
    /// It is nearly full, or was and has not much more room yet.
    pub is_tight: bool,
}

impl TrackingTable {
    /// What `INFO stats`, `INFO clients` and `CONFIG GET tracking-table-max-keys` say, after `self`.
    #[must_use]
    pub fn next(&self, stats: &str, clients: &str, max_keys: Option<u64>) -> Self {
        let number = |info: &str, name: &str| super::field(info, name)?.parse().ok();
        let mut next = Self {
            server: None,
            keys: number(stats, "tracking_total_keys"),
            items: number(stats, "tracking_total_items"),
            prefixes: number(stats, "tracking_total_prefixes"),
            clients: number(clients, "tracking_clients"),
            max_keys,
            is_tight: false,
        };
        let least = if self.is_tight { CALM } else { WARN };
        next.is_tight = next.percent().is_some_and(|percent| percent >= least);
        next
    }

    /// How full it is; `None`: not known, or without a limit.
    fn percent(&self) -> Option<u64> {
        let max = self.max_keys.filter(|max| *max > 0)?;
        Some(self.keys?.saturating_mul(100) / max)
    }

    /// Whether it is nearer to its limit than another, or, where there is none, has more keys.
    pub fn is_fuller_than(&self, other: &Self) -> bool {
        (self.percent(), self.keys) > (other.percent(), other.keys)
    }

    /// What is wrong and what to do, if it is nearly full.
    pub fn warning(&self) -> Option<String> {
        let (keys, max) = (self.keys?, self.max_keys?);
        let whose = self.server.as_deref();
        self.is_tight.then(|| {
            let redis = whose.map_or_else(|| "redis".to_owned(), |at| format!("redis at {at}"));
            format!(
                "{redis} tracks {keys} keys of at most {max} for all its clients; above that it announces changes that did not happen and local entries fall early: raise tracking-table-max-keys there, or declare local.coherence: Broadcast"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(keys: u64) -> String {
        format!(
            "# Stats\r\ntracking_total_keys:{keys}\r\ntracking_total_items:7\r\ntracking_total_prefixes:0\r\n"
        )
    }

    #[test]
    fn a_warning_comes_at_80_percent_and_goes_below_70() {
        let mut table = TrackingTable::default();
        for (keys, tight) in [
            (0, false),
            (79, false),
            (80, true),
            (75, true),
            (69, false),
            (75, false),
            (120, true),
        ] {
            table = table.next(&stats(keys), "tracking_clients:3\r\n", Some(100));
            assert_eq!(table.is_tight, tight, "{keys}");
            assert_eq!(table.warning().is_some(), tight);
        }
        let words = table.warning().unwrap();
        assert!(
            words.contains("120 keys of at most 100") && words.contains("Broadcast"),
            "{words}"
        );
        assert_eq!((table.items, table.clients), (Some(7), Some(3)));
    }

    #[test]
    fn what_is_not_known_or_not_limited_is_no_reason_to_warn() {
        for (stats, max) in [
            (stats(1 << 40), None),
            (stats(1 << 40), Some(0)),
            (String::new(), Some(10)),
        ] {
            let table = TrackingTable::default().next(&stats, "", max);
            assert_eq!(table.warning(), None);
        }
        assert_eq!(
            TrackingTable::default().next("", "", None),
            TrackingTable::default()
        );
    }
}
