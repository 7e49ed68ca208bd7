//! The words in which situations are told.

#![expect(
    clippy::unnecessary_wraps,
    reason = "rows of the table read better when every peer is what `Peer::says` holds"
)]

use super::super::*;

pub(in super::super) fn situation() -> Situation {
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

pub(in super::super) fn peer(ordinal: usize, says: Option<Says>) -> Peer {
    Peer {
        address: format!("s{ordinal}"),
        ordinal,
        answers: says.is_some(),
        says,
    }
}

pub(in super::super) fn names(primary: &str, epoch: u64) -> Voice {
    Voice::Names {
        primary: primary.to_owned(),
        epoch,
    }
}

/// Data of failover `epoch`, written up to `offset`.
pub(in super::super) fn data(epoch: u64, offset: i64) -> Past {
    Past {
        initialised: true,
        has_data: true,
        epoch,
        offset,
        replication_id: format!("stream-{epoch}"),
        ..Past::default()
    }
}

pub(in super::super) fn ran_once() -> Past {
    Past {
        initialised: true,
        ..Past::default()
    }
}

/// A peer whose guard waits, too.
pub(in super::super) fn guarding(past: Past) -> Option<Says> {
    Some(Says {
        past,
        ..Says::default()
    })
}

pub(in super::super) fn replica_of(primary: &str, synced: bool) -> Option<Says> {
    Some(Says {
        role: Some(Role::Replica),
        follows: Some(primary.to_owned()),
        synced,
        past: ran_once(),
        ..Says::default()
    })
}

pub(in super::super) fn primary_since(epoch: u64) -> Option<Says> {
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
    pub(in super::super) fn sentinels(mut self, voices: [Voice; 3]) -> Self {
        self.sentinels = voices.into_iter().collect();
        self
    }

    pub(in super::super) fn all_name(self, primary: &str) -> Self {
        self.sentinels([names(primary, 1), names(primary, 1), names(primary, 1)])
    }

    pub(in super::super) fn peers(mut self, says: [Option<Says>; 2]) -> Self {
        let others = (0..3).filter(|ordinal| *ordinal != self.ordinal);
        self.peers = others
            .zip(says)
            .map(|(ordinal, says)| peer(ordinal, says))
            .collect();
        self
    }

    pub(in super::super) fn with(mut self, past: Past) -> Self {
        self.past = past;
        self
    }

    pub(in super::super) fn durable(mut self) -> Self {
        self.keeps = Keeps::All;
        self
    }

    pub(in super::super) fn everysec(mut self) -> Self {
        self.keeps = Keeps::Nearly;
        self
    }

    pub(in super::super) fn new_tier(mut self) -> Self {
        self.formed = false;
        self
    }

    pub(in super::super) fn at(mut self, ordinal: usize) -> Self {
        self.ordinal = ordinal;
        self.me = format!("s{ordinal}");
        self
    }

    pub(in super::super) fn after(mut self, seconds: u64) -> Self {
        self.waited = Duration::from_secs(seconds);
        self
    }

    pub(in super::super) fn accepting_loss(mut self) -> Self {
        self.accept_loss = true;
        self
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(in super::super) enum Is {
    Primary,
    /// Primary, and something is lost.
    PrimaryAfterLoss,
    ReplicaOf(&'static str),
    Failover,
    Waits,
}

#[track_caller]
pub(in super::super) fn check(story: &str, situation: &Situation, expected: &Is) {
    let decided = decide(situation);
    let is = match &decided {
        Decision::Primary { lost: None, .. } => Is::Primary,
        Decision::Primary { lost: Some(_), .. } => Is::PrimaryAfterLoss,
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
