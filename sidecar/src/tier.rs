//! The local tier: byte-bounded, coherent, shared by all event loops.
//!
//! An entry is served only while three things hold, all checked on every hit: the link that read
//! it is in the same life (`epoch`), that link has proved itself within `maxStaleness`, and the
//! entry's own deadline has not passed. So a lost link or a flush costs one increment, whatever
//! the number of entries.
//!
//! Fills are admitted by a [`FillToken`] taken before the request was sent and voided by any push,
//! flush or local write for its key: a reply that was overtaken is never kept (promise P3).
//! Eviction is `quick_cache`'s (a scan-resistant CLOCK-Pro); expiry is ours, checked on read.

pub mod entry;
pub mod guard;
pub mod links;
mod merge;
pub mod parts;
pub mod query;
pub mod ranges;
mod shadow;
pub mod sorted;
pub mod stale;

use std::{
    hash::{BuildHasher, BuildHasherDefault, Hasher},
    sync::atomic::{
        AtomicBool, AtomicU32, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use foldhash::fast::RandomState;
use parking_lot::{Mutex, MutexGuard};
use quick_cache::{OptionsBuilder, Weighter, unsync};
use smallvec::SmallVec;

pub use self::{
    entry::{Body, Entry, Lookup, Meta, Origin},
    guard::{FillToken, Guards},
    links::{Links, TierLink},
    parts::{Part, Parts},
    query::Query,
    ranges::{Range, Ranges, Span},
    shadow::shadow,
    sorted::Sorted,
    stale::StaleBound,
};
use crate::{
    clock::Tick,
    planted::{self, Bug},
    resp::write::Reply,
};

/// What an entry costs beside its own allocation: allocator header and rounding, the eviction
/// list's node, its slot in the hash table, its share of the ghosts. Measured by `bench/`.
const ENTRY_OVERHEAD: u64 = 72;

/// Databases that are kept locally; keys of higher ones pass through.
const DATABASES: u16 = 64;

/// Seconds between two touches of a hot key in Redis, so that its LRU does not see it go cold.
const TOUCH_INTERVAL_SECS: u32 = 10;

/// The local tier.
pub struct Tier {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    links: Links,
    /// Bumped by a flush; voids all fills that are in flight.
    generation: AtomicU64,
    /// Databases that were read through the tier, as bits.
    databases: AtomicU64,
    /// Some entries are in shadow.
    has_shadow: AtomicBool,
    evicted: AtomicU64,
    max_bytes: AtomicU64,
}

/// Entries are found by the hash of database and key, and compared in full when read: of two keys
/// with the same 64-bit hash only one is kept.
struct Shard {
    cache:
        unsync::Cache<u64, Kept, KeptWeighter, BuildHasherDefault<AlreadyHashed>, CountEvictions>,
    guards: Guards,
}

struct Kept {
    entry: Entry,
    /// When Redis was last told that the key is in use, in seconds.
    touched: AtomicU32,
}

#[derive(Clone, Copy)]
struct KeptWeighter;

impl Weighter<u64, Kept> for KeptWeighter {
    fn weight(&self, _: &u64, kept: &Kept) -> u64 {
        kept.entry.size() as u64 + ENTRY_OVERHEAD
    }
}

/// Passes a hash through.
#[derive(Default)]
struct AlreadyHashed(u64);

impl Hasher for AlreadyHashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only u64 keys are hashed");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[derive(Clone, Copy)]
struct CountEvictions;

/// Evictions of one insert.
#[derive(Default)]
struct Evicted(u64);

impl quick_cache::Lifecycle<u64, Kept> for CountEvictions {
    type RequestState = Evicted;

    fn on_evict(&self, evicted: &mut Evicted, _: u64, _: Kept) {
        evicted.0 += 1;
    }
}

/// What a hit says beside its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// The rule that allowed the entry.
    pub rule: u16,
    /// Redis should be told that the key is in use.
    pub touch: bool,
}

/// Figures of the tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierStats {
    /// Entries, expired ones that were not read again included.
    pub entries: u64,
    /// Bytes in use, bookkeeping included.
    pub bytes: u64,
    /// Most bytes.
    pub max_bytes: u64,
    /// Entries dropped to make room.
    pub evicted: u64,
}

// === impl Tier ===

impl Tier {
    /// A tier of at most `max_bytes` for `threads` event loops.
    pub fn new(max_bytes: u64, threads: usize) -> Self {
        let shards = if threads <= 1 {
            1
        } else {
            (threads * 4).next_power_of_two()
        };
        let hasher = RandomState::default();
        let per_shard = max_bytes / shards as u64;
        // Only sizes the list of ghosts and the first allocation.
        let expected = usize::try_from(per_shard / 256)
            .unwrap_or(usize::MAX)
            .min(1 << 20);
        let options = OptionsBuilder::new()
            .estimated_items_capacity(expected.max(16))
            .weight_capacity(per_shard)
            .build()
            .expect("capacity and item estimate are given");
        let shard = || {
            let cache = unsync::Cache::with_options(
                options.clone(),
                KeptWeighter,
                BuildHasherDefault::default(),
                CountEvictions,
            );
            Mutex::new(Shard {
                cache,
                guards: Guards::default(),
            })
        };
        Self {
            shards: (0..shards).map(|_| shard()).collect(),
            hasher,
            links: Links::default(),
            generation: AtomicU64::new(0),
            databases: AtomicU64::new(0),
            has_shadow: AtomicBool::new(false),
            evicted: AtomicU64::new(0),
            max_bytes: AtomicU64::new(max_bytes),
        }
    }

    /// Changes the bound; entries above it are evicted now.
    pub fn resize(&self, max_bytes: u64) {
        if self.max_bytes.swap(max_bytes, Relaxed) != max_bytes {
            for shard in &self.shards {
                shard
                    .lock()
                    .cache
                    .set_capacity(max_bytes / self.shards.len() as u64);
            }
        }
    }

    /// Whether a value of so many bytes has room.
    pub fn could_hold(&self, bytes: usize) -> bool {
        bytes as u64 <= self.max_bytes.load(Relaxed) / self.shards.len() as u64
    }

    /// The links whose proofs entries depend on.
    pub fn links(&self) -> &Links {
        &self.links
    }

    /// Answers `query` from a local entry, if there is one that may be served now.
    #[inline]
    pub fn read(
        &self,
        at: Lookup<'_>,
        query: Query<'_>,
        now: Tick,
        reply: &mut Reply<'_>,
    ) -> Option<Hit> {
        let hash = self.hash(at.key);
        let shard = self.shard(hash);
        let kept = shard.cache.get(&hash.in_db(at.db))?;
        let entry = &kept.entry;
        if !self.may_serve(entry, at, now) || !query.answer(entry, now.millis(), reply) {
            return None;
        }
        Some(Hit {
            rule: entry.rule(),
            touch: kept.is_due(now),
        })
    }

    /// Brings the entries of these keys into the CPU's cache. The loops are apart so that the
    /// misses of all keys overlap: hash tables and list nodes first, then the allocations.
    pub fn warm(&self, db: u16, keys: &[&[u8]]) {
        let [only] = &*self.shards else { return };
        let shard = only.lock();
        let mut found: SmallVec<[&Entry; 16]> = SmallVec::new();
        for key in keys {
            if let Some(kept) = shard.cache.peek(&self.hash(key).in_db(db)) {
                found.push(&kept.entry);
            }
        }
        let sum = found.iter().fold(0_u8, |sum, entry| sum ^ entry.touch());
        std::hint::black_box(sum);
    }

    /// The three conditions of the head of this file; the fourth is that it is the right key.
    #[inline]
    fn may_serve(&self, entry: &Entry, at: Lookup<'_>, now: Tick) -> bool {
        entry.is(at)
            && (cfg!(feature = "without-guards")
                || self.links.may_serve(entry.origin(), now) && now.millis() < entry.deadline_ms())
    }

    /// Takes a token for a read of `key` that is about to be sent over `origin`'s link; `None` while a write of the key
    /// is in flight.
    pub fn begin_fill(&self, at: Lookup<'_>, origin: Origin) -> Option<FillToken> {
        if at.db >= DATABASES {
            return None;
        }
        let generation = self.generation.load(Acquire);
        let mut shard = self.shard(self.hash(at.key));
        // Under the lock: a push for this key that comes later must know where to look.
        self.databases.fetch_or(1 << at.db, Relaxed);
        shard.guards.begin_fill(at, origin.link, generation)
    }

    /// Whether a reply to the read that holds this token would still be kept.
    pub fn is_current(&self, at: Lookup<'_>, token: FillToken) -> bool {
        self.generation.load(Acquire) == token.generation
            && self.shard(self.hash(at.key)).guards.is_current(at, token)
    }

    /// Keeps what a read brought, unless its token was voided meanwhile. It is added to what is
    /// known already, as far as the sum stays below `add_up_to` bytes, or takes its place.
    pub fn fill(
        &self,
        token: FillToken,
        meta: Meta,
        key: &[u8],
        body: Body<'_>,
        add_up_to: Option<usize>,
    ) -> bool {
        let at = Lookup { db: meta.db, key };
        let read = Lookup {
            db: shadow::lit(meta.db),
            key,
        };
        let hash = self.hash(key);
        let slot = hash.in_db(meta.db);
        let mut shard = self.shard(hash);
        let admitted = planted::is(Bug::LateFill)
            || shard.guards.end_fill(read, token, || body.digest())
                && self.generation.load(Acquire) == token.generation
                && self.links.is_current(meta.origin);
        if !admitted {
            shard.pass_by(slot, at, meta.origin.link, Some(body));
            return false;
        }
        if meta.db != read.db {
            self.has_shadow.store(true, Relaxed);
        }
        let entry = match (shard.cache.peek(&slot), add_up_to) {
            // What has expired adds nothing.
            (Some(kept), Some(max_size))
                if kept.entry.is(at)
                    && kept.entry.origin() == meta.origin
                    && Tick::now().millis() < kept.entry.deadline_ms() =>
            {
                merge::merge(&kept.entry, meta, key, body, max_size)
            }
            _ => Entry::new(meta, key, body),
        };
        let Some(entry) = entry else { return false };
        let mut evicted = Evicted::default();
        shard
            .cache
            .insert_with_lifecycle(slot, Kept::new(entry), &mut evicted);
        drop(shard);
        self.evicted.fetch_add(evicted.0, Relaxed);
        true
    }

    /// Gives a token back without a value: no reply came.
    pub fn cancel_fill(&self, at: Lookup<'_>, token: FillToken) {
        self.shard(self.hash(at.key))
            .guards
            .end_fill(at, token, || 0);
    }

    /// Gives a token back: a reply came and goes to the app, but is not kept. `None`: it says
    /// nothing that could be compared.
    pub fn pass_by(&self, at: Lookup<'_>, token: FillToken, link: u16, body: Option<Body<'_>>) {
        let hash = self.hash(at.key);
        let mut shard = self.shard(hash);
        let digest = || body.map_or(0, |body| body.digest());
        shard.guards.end_fill(at, token, digest);
        shard.pass_by(hash.in_db(at.db), at, link, body);
    }

    /// Drops a key in every database and voids its fills: it changed, or may have.
    pub fn invalidate(&self, key: &[u8]) {
        self.change(key, Guards::void);
    }

    /// Marks a write of `key` as in flight: the entry is dropped and nothing is kept until
    /// [`Tier::end_write`].
    pub fn begin_write(&self, key: &[u8]) {
        if planted::is(Bug::WriteMarks) {
            return;
        }
        self.change(key, Guards::begin_write);
    }

    /// The write was answered, or will never be.
    pub fn end_write(&self, key: &[u8]) {
        if planted::is(Bug::WriteMarks) {
            return;
        }
        self.change(key, Guards::end_write);
    }

    /// Drops everything at once, for good: bumps the epoch of every link and voids all fills.
    pub fn flush(&self) {
        self.generation.fetch_add(1, AcqRel);
        self.links.bump_all();
    }

    /// Nothing is current any longer and all fills are void: another server is the primary. Rules may
    /// allow what could be served so far, until that one answers.
    pub fn doubt(&self) {
        self.generation.fetch_add(1, AcqRel);
        self.links.doubt_all();
    }

    /// Figures for metrics and `PANNIER.STATS`.
    pub fn stats(&self) -> TierStats {
        let mut stats = TierStats {
            max_bytes: self.max_bytes.load(Relaxed),
            evicted: self.evicted.load(Relaxed),
            ..TierStats::default()
        };
        for shard in &self.shards {
            let shard = shard.lock();
            stats.entries += shard.cache.len() as u64;
            stats.bytes += shard.cache.weight();
        }
        stats
    }

    /// The entry that would be served for the key now, if there is one; for `PANNIER.WHY`.
    pub fn peek(&self, at: Lookup<'_>, now: Tick) -> Option<Meta> {
        let hash = self.hash(at.key);
        let shard = self.shard(hash);
        let kept = shard.cache.peek(&hash.in_db(at.db))?;
        self.may_serve(&kept.entry, at, now)
            .then(|| kept.entry.meta())
    }

    #[inline]
    fn hash(&self, key: &[u8]) -> KeyHash {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(key);
        KeyHash(hasher.finish())
    }

    #[inline]
    fn shard(&self, hash: KeyHash) -> MutexGuard<'_, Shard> {
        if let [only] = &*self.shards {
            return only.lock();
        }
        // The upper half: the lower bits choose the slot within the shard.
        self.shards[(hash.0 >> 32) as usize & (self.shards.len() - 1)].lock()
    }

    /// Applies `change` to the guards of `key` and drops its entry in every database in use.
    fn change(&self, key: &[u8], change: fn(&mut Guards, &[u8])) {
        let hash = self.hash(key);
        let mut shard = self.shard(hash);
        change(&mut shard.guards, key);
        let mut databases = self.databases.load(Relaxed);
        while databases != 0 {
            let db = u16::try_from(databases.trailing_zeros()).unwrap_or(0);
            databases &= databases - 1;
            // The flag was set under this lock, if there is such an entry.
            let shadow = self.has_shadow.load(Relaxed).then(|| shadow(db));
            for db in [Some(db), shadow].into_iter().flatten() {
                let slot = hash.in_db(db);
                if shard.cache.peek(&slot).is_some() {
                    shard.cache.remove(&slot);
                }
            }
        }
    }
}

impl Shard {
    /// An app is told what is not kept. What another link has read, or is reading, may be older;
    /// it stays only if it says the same.
    fn pass_by(&mut self, slot: u64, at: Lookup<'_>, link: u16, body: Option<Body<'_>>) {
        let differs = self.cache.peek(&slot).is_some_and(|kept| {
            kept.entry.is(at) && kept.entry.origin().link != link && Some(kept.entry.body()) != body
        });
        if differs {
            self.cache.remove(&slot);
        }
        let digest = body.map_or(0, |body| body.digest());
        self.guards.tell(at.key, link, digest);
    }
}

/// Hash of a key, the same in every database, so that all its entries lie in one shard.
#[derive(Clone, Copy)]
struct KeyHash(u64);

impl KeyHash {
    /// Where the key's entry of that database is kept.
    #[inline]
    fn in_db(self, db: u16) -> u64 {
        self.0
            .wrapping_add(u64::from(db).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

// === impl Kept ===

impl Kept {
    fn new(entry: Entry) -> Self {
        Self {
            entry,
            touched: AtomicU32::new(seconds(Tick::now())),
        }
    }

    /// Whether Redis should be told that the key is in use; says so once per interval.
    #[inline]
    fn is_due(&self, now: Tick) -> bool {
        let now = seconds(now);
        let due = now.wrapping_sub(self.touched.load(Relaxed)) >= TOUCH_INTERVAL_SECS;
        if due {
            self.touched.store(now, Relaxed);
        }
        due
    }
}

fn seconds(at: Tick) -> u32 {
    u32::try_from(at.0 / 1_000_000_000).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
