//! What is stored of the webhook's certificates, and what the leader does about it next. Pure.
//!
//! A rotation never has a moment in which a replica serves what the API server does not believe:
//! a new certificate is prepared → the bundle has old and new → replicas serve the new one → the
//! bundle has only the new one.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::ResourceExt as _;

use super::certificate::{Pair, fingerprint};

/// Annotation of the Secret by each replica: which certificate it serves, and since when.
const SERVED_BY: &str = "serves.pannier.dev/";

/// How long things take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Life of a certificate; a new one is prepared when two thirds are over.
    pub lifetime: Duration,
    /// Pause between two looks.
    pub look: Duration,
    /// How long every API server may need to know of a new bundle.
    pub settle: Duration,
    /// After so long a replica says again what it serves; one that has not done so for three times
    /// as long is gone.
    pub renew: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lifetime: Duration::from_hours(24 * 90),
            look: Duration::from_secs(5),
            settle: Duration::from_secs(30),
            renew: Duration::from_hours(1),
        }
    }
}

/// What is stored. No `Debug`: there are keys in it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Stored {
    /// What replicas serve.
    pub current: Option<Pair>,
    /// What they will serve.
    pub next: Option<Pair>,
    /// The authority of what they served before.
    pub old: Option<String>,
    /// By replica: the mark of the certificate that it serves, and when it said so.
    pub served: BTreeMap<String, (String, u64)>,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing.
    Nothing,
    /// Make the first certificate.
    Make,
    /// Make the next one, to be believed before it is served.
    Prepare,
    /// Serve the next one.
    Promote,
    /// Stop believing the old one.
    Drop,
}

// === impl Stored ===

impl Stored {
    /// Reads the Secret. What is incomplete counts as absent.
    pub fn read(secret: &Secret) -> Self {
        let text = |key: &str| {
            let ByteString(bytes) = secret.data.as_ref()?.get(key)?;
            String::from_utf8(bytes.clone()).ok()
        };
        let pair = |prefix: &str| {
            Some(Pair {
                authority: text(&format!("{prefix}ca.crt"))?,
                certificate: text(&format!("{prefix}tls.crt"))?,
                key: text(&format!("{prefix}tls.key"))?,
                expires: text(&format!("{prefix}expires"))?.parse().ok()?,
                names: text(&format!("{prefix}names"))?,
            })
        };
        let usable = |pair: &Pair| pair.certified().is_ok();
        let served = secret.annotations().iter().filter_map(|(name, value)| {
            let replica = name.strip_prefix(SERVED_BY)?;
            let (mark, at) = value.split_once(' ')?;
            Some((replica.to_owned(), (mark.to_owned(), at.parse().ok()?)))
        });
        Self {
            current: pair("").filter(usable),
            next: pair("next-").filter(usable),
            old: text("old-ca.crt"),
            served: served.collect(),
        }
    }

    /// Writes it into the Secret.
    pub fn write(&self, secret: &mut Secret) {
        let mut data = BTreeMap::new();
        let mut put = |key: String, text: &str| {
            data.insert(key, ByteString(text.as_bytes().to_vec()));
        };
        for (prefix, pair) in [("", &self.current), ("next-", &self.next)] {
            if let Some(pair) = pair {
                put(format!("{prefix}ca.crt"), &pair.authority);
                put(format!("{prefix}tls.crt"), &pair.certificate);
                put(format!("{prefix}tls.key"), &pair.key);
                put(format!("{prefix}expires"), &pair.expires.to_string());
                put(format!("{prefix}names"), &pair.names);
            }
        }
        if let Some(old) = &self.old {
            put("old-ca.crt".to_owned(), old);
        }
        secret.data = Some(data);
        let annotations = secret.annotations_mut();
        annotations.retain(|name, _| !name.starts_with(SERVED_BY));
        annotations.extend(self.served.iter().map(|(replica, (mark, at))| {
            (format!("{SERVED_BY}{replica}"), format!("{mark} {at}"))
        }));
    }

    /// What the API server is to believe.
    pub fn bundle(&self) -> String {
        let pairs = [&self.current, &self.next].into_iter().flatten();
        let authorities = pairs.map(|pair| pair.authority.as_str());
        authorities.chain(self.old.as_deref()).collect()
    }

    /// What is to be done, given for how long the API server has had exactly our bundle.
    pub fn step(&self, names: &str, believed: Option<Duration>, now: u64, timing: &Timing) -> Step {
        let settled = believed.is_some_and(|span| span >= timing.settle);
        match (&self.current, &self.next, &self.old) {
            (None, _, _) => Step::Make,
            (Some(_), Some(_), _) if settled => Step::Promote,
            (Some(_), Some(_), _) => Step::Nothing,
            (Some(current), None, Some(_)) if settled && self.all_serve(current, now, timing) => {
                Step::Drop
            }
            (Some(_), None, Some(_)) => Step::Nothing,
            (Some(current), None, None) => {
                let rest = current.expires.saturating_sub(now);
                let due = rest <= timing.lifetime.as_secs() / 3;
                if due || current.names != names {
                    Step::Prepare
                } else {
                    Step::Nothing
                }
            }
        }
    }

    fn all_serve(&self, current: &Pair, now: u64, timing: &Timing) -> bool {
        let mark = fingerprint(&current.certificate);
        let gone = 3 * timing.renew.as_secs();
        let mut living = self
            .served
            .values()
            .filter(|(_, at)| now.saturating_sub(*at) < gone)
            .peekable();
        // Nobody at all: nobody has told yet.
        living.peek().is_some() && living.all(|(served, _)| *served == mark)
    }

    /// Notes what a replica serves. Whether that is news.
    pub fn note(&mut self, replica: &str, mark: &str, now: u64, timing: &Timing) -> bool {
        let known = self.served.get(replica).is_some_and(|(served, at)| {
            served == mark && now.saturating_sub(*at) < timing.renew.as_secs()
        });
        if known {
            return false;
        }
        let gone = 3 * timing.renew.as_secs();
        self.served
            .retain(|_, (_, at)| now.saturating_sub(*at) < gone);
        self.served
            .insert(replica.to_owned(), (mark.to_owned(), now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::certificate;

    const NOW: u64 = 1_800_000_000;

    fn pair(at: u64) -> Pair {
        let names = certificate::names("hook", "system");
        certificate::make(&names, at, Timing::default().lifetime).unwrap()
    }

    fn names() -> String {
        certificate::names("hook", "system").join(" ")
    }

    #[test]
    fn a_rotation_goes_step_by_step_and_waits_for_api_server_and_replicas() {
        let timing = Timing::default();
        let mut stored = Stored::default();
        let long = Some(Duration::from_mins(1));
        let step = |stored: &Stored, believed, now| stored.step(&names(), believed, now, &timing);
        assert_eq!(step(&stored, None, NOW), Step::Make);
        let first = pair(NOW);
        stored.current = Some(first.clone());
        assert_eq!(step(&stored, long, NOW), Step::Nothing);
        assert_eq!(stored.bundle(), first.authority);
        let later = NOW + 61 * 24 * 3600;
        assert_eq!(step(&stored, long, later), Step::Prepare);
        assert_eq!(
            stored.step("other names", long, NOW, &timing),
            Step::Prepare,
            "another Service"
        );
        let second = pair(later);
        stored.next = Some(second.clone());
        assert_eq!(stored.bundle(), first.authority.clone() + &second.authority);
        assert_eq!(step(&stored, None, later), Step::Nothing, "not believed");
        let short = Some(Duration::from_secs(29));
        assert_eq!(step(&stored, short, later), Step::Nothing, "not by all");
        assert_eq!(step(&stored, long, later), Step::Promote);
        stored.next = None;
        stored.current = Some(second.clone());
        stored.old = Some(first.authority);
        assert_eq!(
            step(&stored, long, later),
            Step::Nothing,
            "nobody serves it"
        );
        let mark = fingerprint(&second.certificate);
        stored.note("a", &mark, later, &timing);
        stored.note("b", "another", later, &timing);
        assert_eq!(
            step(&stored, long, later),
            Step::Nothing,
            "b serves the old"
        );
        let gone = later + 3 * 3600;
        stored.note("a", &mark, gone, &timing);
        assert_eq!(step(&stored, long, gone), Step::Drop, "b is gone");
        stored.old = None;
        assert_eq!(stored.bundle(), second.authority);
        assert_eq!(step(&stored, long, gone), Step::Nothing);
    }

    #[test]
    fn what_is_written_is_read_again_and_what_is_broken_is_absent() {
        let mut stored = Stored {
            current: Some(pair(NOW)),
            next: Some(pair(NOW)),
            old: Some("old".to_owned()),
            served: BTreeMap::new(),
        };
        assert!(stored.note("a", "m", NOW, &Timing::default()));
        assert!(!stored.note("a", "m", NOW + 1, &Timing::default()));
        let mut secret = Secret::default();
        stored.write(&mut secret);
        assert!(Stored::read(&secret) == stored);
        let data = secret.data.as_mut().unwrap();
        data.insert("tls.key".to_owned(), ByteString(b"broken".to_vec()));
        data.remove("next-expires");
        let read = Stored::read(&secret);
        assert!(read.current.is_none() && read.next.is_none());
        assert!(Stored::read(&Secret::default()) == Stored::default());
    }
}
