//! Which reads may still be kept, and which keys are being written.
//!
//! The rules are those of a memcache lease: a read takes a token before it is sent; a push, a
//! flush or a local write voids the tokens of its key; only a valid token fills. Tokens and write
//! marks exist only while something is in flight, so the table is as small as the pipeline.

use foldhash::{HashMap, HashMapExt as _};

use super::entry::Lookup;

/// Permission to keep the reply of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillToken {
    id: u64,
    /// The tier's generation when the token was taken; a flush makes it old.
    pub(super) generation: u64,
}

/// Tokens and write marks of one shard.
pub struct Guards {
    keys: HashMap<Box<[u8]>, Guard>,
    next_id: u64,
}

#[derive(Default)]
struct Guard {
    /// Valid tokens. Few: reads of one key in one database share a flight.
    fills: Vec<Fill>,
    /// Writes in flight.
    writes: u32,
    /// What apps were told meanwhile that was not kept.
    told: Vec<Told>,
}

/// A reply that apps have got and the tier has not. Replies over different links come in no order:
/// a read that another link began before is kept only if it says the same, or what apps see would
/// go back (promise P2).
#[derive(Clone, Copy)]
struct Told {
    /// The link it came over.
    link: u16,
    /// Digest of the reply.
    digest: u64,
    /// Reads with higher numbers were begun later, and bring nothing older.
    last: u64,
}

/// Replies to remember per key; when there are more, reads that are in flight are not kept.
const TOLD: usize = 8;

#[derive(Clone, Copy)]
struct Fill {
    id: u64,
    db: u16,
    /// The link that carries the read.
    link: u16,
}

impl Fill {
    fn is(self, at: Lookup<'_>, token: FillToken) -> bool {
        self.id == token.id && self.db == at.db
    }
}

impl Told {
    /// Whether that read may bring something older.
    fn concerns(&self, fill: Fill) -> bool {
        fill.id <= self.last && fill.link != self.link
    }
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            keys: HashMap::new(),
            next_id: 0,
        }
    }
}

impl Guards {
    /// A token, unless a write of the key is in flight.
    pub fn begin_fill(&mut self, at: Lookup<'_>, link: u16, generation: u64) -> Option<FillToken> {
        if let Some(guard) = self.keys.get(at.key)
            && guard.writes > 0
        {
            return None;
        }
        self.next_id += 1;
        let guard = match self.keys.get_mut(at.key) {
            Some(guard) => guard,
            None => self.keys.entry(at.key.into()).or_default(),
        };
        guard.fills.push(Fill {
            id: self.next_id,
            db: at.db,
            link,
        });
        Some(FillToken {
            id: self.next_id,
            generation,
        })
    }

    /// Whether the token is still valid and nothing that may be younger was told meanwhile: others
    /// may join the read.
    pub fn is_current(&self, at: Lookup<'_>, token: FillToken) -> bool {
        self.keys.get(at.key).is_some_and(|guard| {
            let fill = guard.fills.iter().find(|fill| fill.is(at, token));
            fill.is_some_and(|fill| !guard.told.iter().any(|told| told.concerns(*fill)))
        })
    }

    /// Takes the token back; whether it was still valid. `digest` is asked for what was read.
    pub fn end_fill(
        &mut self,
        at: Lookup<'_>,
        token: FillToken,
        digest: impl FnOnce() -> u64,
    ) -> bool {
        let Some(guard) = self.keys.get_mut(at.key) else {
            return false;
        };
        let Some(place) = guard.fills.iter().position(|fill| fill.is(at, token)) else {
            return false;
        };
        let fill = guard.fills.swap_remove(place);
        let mut before = guard.told.iter().filter(|told| told.concerns(fill));
        if let Some(first) = before.next() {
            let digest = digest();
            if first.digest != digest || before.any(|told| told.digest != digest) {
                self.forget_if_idle(at.key);
                return false;
            }
        }
        // Replies over different links come in no order: one that was read earlier must not
        // displace this one.
        guard.fills.retain(|other| other.link == fill.link);
        self.forget_if_idle(at.key);
        true
    }

    /// Apps were told something about the key that is not kept.
    pub fn tell(&mut self, key: &[u8], link: u16, digest: u64) {
        // Nothing is in flight: nothing can come later that was read before.
        let Some(guard) = self.keys.get_mut(key) else {
            return;
        };
        let oldest = guard.fills.iter().map(|fill| fill.id).min();
        guard.told.retain(|told| {
            let same = told.link == link && told.digest == digest;
            !same && oldest.is_some_and(|oldest| told.last >= oldest)
        });
        if guard.told.len() >= TOLD {
            guard.fills.clear();
            guard.told.clear();
        }
        guard.told.push(Told {
            link,
            digest,
            last: self.next_id,
        });
        self.forget_if_idle(key);
    }

    /// Voids all tokens of a key.
    pub fn void(&mut self, key: &[u8]) {
        if let Some(guard) = self.keys.get_mut(key) {
            guard.fills.clear();
            self.forget_if_idle(key);
        }
    }

    /// Voids the tokens of a key and gives none until the write has ended.
    pub fn begin_write(&mut self, key: &[u8]) {
        let guard = match self.keys.get_mut(key) {
            Some(guard) => guard,
            None => self.keys.entry(key.into()).or_default(),
        };
        guard.fills.clear();
        guard.writes += 1;
    }

    /// Ends one write.
    pub fn end_write(&mut self, key: &[u8]) {
        if let Some(guard) = self.keys.get_mut(key) {
            guard.writes = guard.writes.saturating_sub(1);
            self.forget_if_idle(key);
        }
    }

    fn forget_if_idle(&mut self, key: &[u8]) {
        if self
            .keys
            .get(key)
            .is_some_and(|guard| guard.writes == 0 && guard.fills.is_empty())
        {
            self.keys.remove(key);
        }
    }
}
