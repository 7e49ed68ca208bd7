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
}

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

    /// Whether the token is still valid.
    pub fn is_current(&self, at: Lookup<'_>, token: FillToken) -> bool {
        self.keys
            .get(at.key)
            .is_some_and(|guard| guard.fills.iter().any(|fill| fill.is(at, token)))
    }

    /// Takes the token back; whether it was still valid.
    pub fn end_fill(&mut self, at: Lookup<'_>, token: FillToken) -> bool {
        let Some(guard) = self.keys.get_mut(at.key) else {
            return false;
        };
        let Some(place) = guard.fills.iter().position(|fill| fill.is(at, token)) else {
            return false;
        };
        let Fill { link, .. } = guard.fills.swap_remove(place);
        // Replies over different links come in no order: one that was read earlier must not
        // displace this one.
        guard.fills.retain(|fill| fill.link == link);
        self.forget_if_idle(at.key);
        true
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
