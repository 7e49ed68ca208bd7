//! The boot guard: may this server start now, and as what? Pure: a situation in, a decision out.
//!
//! It acts on positive knowledge only (P8): a peer that does not answer is not a peer that is
//! empty. An instance that lost its data never becomes a primary while another may hold some, for
//! its replicas would throw theirs away to be like it.
//!
//! The step before is [`super::survey`], which asks everybody; the next is the server's start.

mod refused;

use std::time::Duration;

use super::state::{Past, Role};

/// So long may Sentinels be silent before servers that all answer decide by what they hold.
const SENTINELS_FIRST: Duration = Duration::from_secs(10);
/// So long is the primary that Sentinels name waited for by those that have data as well.
const COMES_BACK: Duration = Duration::from_secs(20);
/// What an agent says of its server may be so old.
const LOOKED: Duration = Duration::from_millis(1500);
/// So long is a peer waited for that has never been heard of, at a tier's first start.
const FIRST_START: Duration = Duration::from_secs(30);

/// Everything that the decision depends on.
#[derive(Clone, Debug)]
pub struct Situation {
    /// This server's address.
    pub me: String,
    /// Its place in the shard.
    pub ordinal: usize,
    /// What it holds and was.
    pub past: Past,
    /// How much of what was acknowledged is on its volume.
    pub keeps: Keeps,
    /// Whether the tier is known to have had a primary.
    pub formed: bool,
    /// What each Sentinel says.
    pub sentinels: Vec<Voice>,
    /// The other servers of the shard.
    pub peers: Vec<Peer>,
    /// How long the guard has waited.
    pub waited: Duration,
    /// Whether a person said that what silent peers hold may be lost.
    pub accept_loss: bool,
    /// For how long Sentinels have refused a failover because no replica suits them.
    pub refused: Duration,
}

/// How much of what was acknowledged a volume holds after a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeps {
    /// All of it: an append-only file that is synced before each reply.
    All,
    /// All but the last two seconds: with `appendfsync everysec` a write waits in memory for as
    /// long while the disk is busy. Replicas that ran on have more.
    Nearly,
    /// The last snapshot.
    Snapshot,
}

/// What a Sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Voice {
    /// Nothing.
    Silent,
    /// It runs, or its agent does, and knows no primary.
    Unaware,
    /// Who the primary is.
    Names {
        /// The primary.
        primary: String,
        /// Number of the failover that made it so.
        epoch: u64,
    },
}

/// Another server of the shard.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: String,
    /// Its place in the shard.
    pub ordinal: usize,
    /// Whether its agent answers, whatever is known of its server.
    pub answers: bool,
    /// What its agent says; none: it is silent, and may be and hold anything.
    pub says: Option<Says>,
}

/// What a peer's agent says.
#[derive(Clone, Debug, Default)]
pub struct Says {
    /// What its server runs as; none while no server answers.
    pub role: Option<Role>,
    /// Whom it follows.
    pub follows: Option<String>,
    /// Whether what it has in memory is the shard's data.
    pub synced: bool,
    /// Whether its agent makes it refuse writes.
    pub frozen: bool,
    /// What it holds on its volume, and was.
    pub past: Past,
    /// Streams of writes that it is part of.
    pub streams: Vec<String>,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start as the primary.
    Primary {
        /// Why.
        reason: String,
        /// What is lost by it, if anything is.
        lost: Option<String>,
    },
    /// Start as a replica.
    Replica {
        /// Of whom.
        of: String,
        /// Why.
        reason: String,
    },
    /// Ask Sentinels for a failover, and look again.
    Failover {
        /// Why.
        reason: String,
        /// Whether also to a replica that they take for too far behind.
        anyway: bool,
        /// What is lost by it, if anything is.
        lost: Option<String>,
    },
    /// Look again.
    Wait {
        /// What for.
        reason: String,
    },
}

/// Decides.
pub fn decide(s: &Situation) -> Decision {
    if s.accept_loss && !s.has_word() {
        return decide(&s.without_word());
    }
    if s.peers.is_empty() && s.sentinels.is_empty() {
        return standalone(s);
    }
    match s.named() {
        Some((primary, epoch)) if primary == s.me => named_me(s, epoch),
        Some((primary, _)) => named_other(s, primary),
        None => unnamed(s),
    }
}

/// Whether a guard that waits for silent servers would start its own if a person accepted the loss. Not
/// where another that answers has data: that one begins by itself, or is asked about itself.
pub fn loss_would_help(s: &Situation) -> bool {
    let for_whom = !s.silent().is_empty() || refused::is_final(s);
    if !for_whom || s.is_unsure() || (!s.past.has_data && s.holders().next().is_some()) {
        return false;
    }
    let accepted = Situation {
        accept_loss: true,
        ..s.clone()
    };
    let waits = |decision| matches!(decision, Decision::Wait { .. });
    waits(decide(s)) && !waits(decide(&accepted))
}

/// What is given up by a decision that was made only because a person accepted the loss.
pub fn given_up(s: &Situation) -> Option<String> {
    let by_word = s.accept_loss && matches!(decide(&s.without_word()), Decision::Wait { .. });
    let silent = s.silent();
    (by_word && !silent.is_empty()).then(|| {
        format!(
            "a person accepted the loss of what {} may hold",
            silent.join(", ")
        )
    })
}

fn standalone(s: &Situation) -> Decision {
    let reason = "it is the only server of the tier".to_owned();
    let lost = (!s.past.has_data && (s.past.initialised || s.formed)).then(|| {
        "the server was started again without its data: nothing is kept on its volume".to_owned()
    });
    Decision::Primary { reason, lost }
}

fn named_me(s: &Situation, epoch: u64) -> Decision {
    if let Some(other) = s.running(Role::Primary).find(|(_, says)| !says.frozen) {
        return wait(format!(
            "Sentinels name this server, but {} runs as a primary",
            other.0.address
        ));
    }
    let silent = s.silent();
    if !s.hears_majority() && !silent.is_empty() && !s.accept_loss {
        return wait(format!(
            "only {} of {} Sentinels answer, and {} not at all",
            s.answering(),
            s.sentinels.len(),
            silent.join(", ")
        ));
    }
    let sure = s.keeps == Keeps::All || (s.past.clean && s.past.was_primary);
    if s.past.has_data && sure {
        return primary("Sentinels name this server, and it has all of its data");
    }
    if let Some((peer, says)) = s.furthest() {
        let lacks = refused::lacks(s, says).filter(|bytes| *bytes > 0);
        if lacks.is_some() && s.waited < LOOKED {
            return wait(format!("{} is asked again how far it is", peer.address));
        }
        if s.past.has_data && s.keeps == Keeps::Nearly && lacks.is_some() {
            return primary(
                "Sentinels name this server, and its append-only file reaches further than what \
                 ran on",
            );
        }
        if refused::is_final(s) {
            return refused::decide(s, peer, says);
        }
        let what = if s.past.has_data {
            "not all of its data"
        } else {
            "no data"
        };
        return Decision::Failover {
            reason: format!(
                "Sentinels name this server, which has {what}; {} holds the data",
                peer.address
            ),
            anyway: false,
            lost: lacks.map(|bytes| refused::went_on_without(peer, bytes)),
        };
    }
    if s.past.has_data && s.keeps == Keeps::Nearly {
        return primary("Sentinels name this server, and no replica ran on that has more");
    }
    if !silent.is_empty() && !s.accept_loss {
        return wait(format!(
            "Sentinels name this server, which lost its memory; {} may hold the data and does not \
             answer",
            silent.join(", ")
        ));
    }
    if s.past.has_data {
        return primary("Sentinels name this server, and nobody has more than its last snapshot");
    }
    if let Some(peer) = s.holders().next() {
        return wait(format!("{} has data and is not running yet", peer.address));
    }
    Decision::Primary {
        reason: "Sentinels name this server, and nobody holds any data".to_owned(),
        lost: Some(format!(
            "no server of the shard kept its data; it begins empty (failover {epoch})"
        )),
    }
}

fn named_other(s: &Situation, named: &str) -> Decision {
    let Some(peer) = s.peers.iter().find(|peer| peer.address == named) else {
        return wait(format!(
            "Sentinels name {named}, which is no server of this shard; SENTINEL FAILOVER to one \
             that is, or SENTINEL REMOVE"
        ));
    };
    let role = peer.says.as_ref().and_then(|says| says.role);
    if role == Some(Role::Primary) {
        return Decision::Replica {
            of: named.to_owned(),
            reason: format!("Sentinels name {named}, and it runs as the primary"),
        };
    }
    let comes_back = match &peer.says {
        Some(says) => says.role.is_none() && says.past.has_data,
        None => s.waited < COMES_BACK && !s.accept_loss,
    };
    if s.past.has_data && comes_back {
        // What this server has may be older: it must not be chosen before that one has begun.
        return wait(format!(
            "Sentinels name {named}, which may begin with its data"
        ));
    }
    if s.past.has_data {
        // Running, it can be chosen should the one that they name not come back; that one's own
        // guard keeps it from starting empty.
        return Decision::Replica {
            of: named.to_owned(),
            reason: format!("Sentinels name {named}; this server has data and can be chosen"),
        };
    }
    if s.accept_loss {
        return Decision::Replica {
            of: named.to_owned(),
            reason: format!("Sentinels name {named}; a person accepts the loss of what it holds"),
        };
    }
    wait(match role {
        Some(_) => format!("Sentinels name {named}, which is not a primary yet"),
        None => format!("Sentinels name {named}, which does not run; this server has no data"),
    })
}

fn unnamed(s: &Situation) -> Decision {
    let mut primaries = s.running(Role::Primary);
    match (primaries.next(), primaries.next()) {
        (Some((one, _)), Some((two, _))) => {
            return wait(format!(
                "{} and {} both run as primaries, and no Sentinel says which is right",
                one.address, two.address
            ));
        }
        (Some((one, says)), None) => return join(s, one, says),
        (None, _) => {}
    }
    if let Some((peer, says)) = s.running(Role::Replica).next() {
        let follows = says.follows.clone().unwrap_or_default();
        if follows == s.me && s.past.has_data && s.keeps == Keeps::All && s.silent().is_empty() {
            return primary("all others answer and follow this server, which has all of its data");
        }
        return wait(format!(
            "{} follows {follows}, and no Sentinel says who the primary is",
            peer.address
        ));
    }
    let silent = s.silent();
    if !silent.is_empty() && !s.accept_loss {
        return first_start_without(s, &silent);
    }
    if !s.hears_majority() && s.waited < SENTINELS_FIRST && s.knows_a_past() {
        return wait("Sentinels may know who was the primary, and do not answer yet");
    }
    all_answer(s)
}

/// A running primary that Sentinels do not confirm: may its data replace ours?
fn join(s: &Situation, peer: &Peer, says: &Says) -> Decision {
    let same_stream = says.streams.contains(&s.past.replication_id);
    if !s.past.has_data || same_stream || says.past.epoch > s.past.epoch {
        return Decision::Replica {
            of: peer.address.clone(),
            reason: format!("{} runs as the primary", peer.address),
        };
    }
    wait(format!(
        "{} runs as a primary with another history than this server's, and no Sentinel says which \
         is right",
        peer.address
    ))
}

/// Nobody knows anything, and some do not answer. Only a tier that never was may begin so: its
/// third pod may find no node for days.
fn first_start_without(s: &Situation, silent: &[&str]) -> Decision {
    let silent = silent.join(", ");
    let new = !s.formed && !s.knows_a_past() && s.hears_majority();
    if !new {
        return wait(format!(
            "{silent} may hold data or be the primary, and does not answer"
        ));
    }
    if s.waited < FIRST_START {
        return wait(format!("a first start waits for {silent}"));
    }
    if s.is_unsure() {
        return wait(format!(
            "a first start; of {silent} one begins, or has missed a question"
        ));
    }
    if s.is_first() {
        return primary("a first start; most Sentinels know nothing, nor does anyone who answers");
    }
    wait("a first start; a server before this one becomes the primary")
}

/// All servers answer, and none runs: the one with the newest data begins, or the first.
fn all_answer(s: &Situation) -> Decision {
    if s.past.has_data || s.holders().next().is_some() {
        let mine = rank(&s.past, s.ordinal);
        let newer = s.holders().find(|peer| {
            let past = peer
                .says
                .as_ref()
                .map(|says| rank(&says.past, peer.ordinal));
            !s.past.has_data || past > Some(mine)
        });
        return match newer {
            Some(peer) => wait(format!("{} has newer data and begins", peer.address)),
            None => primary("no server runs, and this one has the newest data"),
        };
    }
    if !s.is_first() {
        return wait("no server runs or has data; the first becomes the primary");
    }
    let lost = (s.formed || s.knows_a_past())
        .then(|| "no server of the shard kept its data; it begins empty".to_owned());
    Decision::Primary {
        reason: "no server runs or has data, and this is the first".to_owned(),
        lost,
    }
}

/// The newest data: of the latest failover, then that of a primary that ended in good order, for
/// its mark may be older than its last writes; then the furthest in its stream.
fn rank(past: &Past, ordinal: usize) -> (u64, bool, i64, bool, std::cmp::Reverse<usize>) {
    (
        past.epoch,
        past.clean && past.was_primary,
        past.offset,
        past.was_primary,
        std::cmp::Reverse(ordinal),
    )
}

fn primary(reason: &str) -> Decision {
    Decision::Primary {
        reason: reason.to_owned(),
        lost: None,
    }
}

fn wait(reason: impl Into<String>) -> Decision {
    Decision::Wait {
        reason: reason.into(),
    }
}

impl Decision {
    /// Why.
    pub fn reason(&self) -> &str {
        match self {
            Self::Primary { reason, .. }
            | Self::Replica { reason, .. }
            | Self::Failover { reason, .. }
            | Self::Wait { reason } => reason,
        }
    }
}

impl Situation {
    fn answering(&self) -> usize {
        let answers = |voice: &&Voice| **voice != Voice::Silent;
        self.sentinels.iter().filter(answers).count()
    }

    fn hears_majority(&self) -> bool {
        self.answering() * 2 > self.sentinels.len()
    }

    /// Whom the Sentinel names that knows the latest failover. A minority that knows less than the
    /// servers' own marks was left behind, and is not heard.
    fn named(&self) -> Option<(&str, u64)> {
        let names = self.sentinels.iter().filter_map(|voice| match voice {
            Voice::Names { primary, epoch } => Some((primary.as_str(), *epoch)),
            _ => None,
        });
        let latest = names.max_by_key(|(_, epoch)| *epoch)?;
        let marks = self.peers.iter().filter_map(|peer| peer.says.as_ref());
        let known = marks.map(|says| says.past.epoch).max().unwrap_or(0);
        (self.hears_majority() || latest.1 >= known.max(self.past.epoch)).then_some(latest)
    }

    /// Whether an agent answers that does not know what its server is: it begins, is being filled, or missed a
    /// question.
    fn is_unsure(&self) -> bool {
        let unsure = |peer: &Peer| peer.answers && peer.says.is_none();
        self.peers.iter().any(unsure)
    }

    /// Whether a person's word counts: it is about those that do not answer at all.
    pub fn has_word(&self) -> bool {
        self.accept_loss && !self.is_unsure()
    }

    /// The same, had no person said anything.
    fn without_word(&self) -> Self {
        Self {
            accept_loss: false,
            ..self.clone()
        }
    }

    fn silent(&self) -> Vec<&str> {
        let silent = self.peers.iter().filter(|peer| peer.says.is_none());
        silent.map(|peer| peer.address.as_str()).collect()
    }

    fn running(&self, role: Role) -> impl Iterator<Item = (&Peer, &Says)> {
        self.peers
            .iter()
            .filter_map(|peer| Some((peer, peer.says.as_ref()?)))
            .filter(move |(_, says)| says.role == Some(role))
    }

    /// Of those that ran on with the data, the one with the newest: Sentinels would choose it. Also a
    /// primary that refuses writes because it was cut off, and replaced meanwhile.
    fn furthest(&self) -> Option<(&Peer, &Says)> {
        let stopped = self.running(Role::Primary).filter(|(_, says)| says.frozen);
        self.running(Role::Replica)
            .chain(stopped)
            .filter(|(_, says)| says.synced)
            .max_by_key(|(peer, says)| rank(&says.past, peer.ordinal))
    }

    /// Peers with data on their volume.
    fn holders(&self) -> impl Iterator<Item = &Peer> {
        let holds = |says: &Says| says.past.has_data;
        self.peers
            .iter()
            .filter(move |peer| peer.says.as_ref().is_some_and(holds))
    }

    /// Whether anyone who answers has ever run.
    fn knows_a_past(&self) -> bool {
        let ran = |past: &Past| past.initialised || past.has_data;
        let peers = self.peers.iter().filter_map(|peer| peer.says.as_ref());
        ran(&self.past) || peers.map(|says| &says.past).any(ran)
    }

    /// Whether no answering peer comes before this server.
    fn is_first(&self) -> bool {
        let before = |peer: &Peer| peer.ordinal < self.ordinal && peer.answers;
        !self.peers.iter().any(before)
    }
}

#[cfg(test)]
mod tests;
