//! The offline queue (S2.9): what waits while Redis is away, counted over all event loops.
//!
//! The commands themselves wait in order on their link, as unsent bytes; here are the bounds and
//! the figures. Each command has a deadline of its own, which `Link::check_timeout` keeps.

use std::sync::{
    Arc,
    atomic::{
        AtomicBool, AtomicU64,
        Ordering::{AcqRel, Acquire, Relaxed},
    },
};

use policy::config;

use crate::clock::Tick;

/// Most bytes that wait, whatever their number (P9).
pub const MAX_BYTES: u64 = 64 << 20;

/// Figures of the queue; one per process.
#[derive(Debug, Default)]
pub struct OfflineQueue {
    commands: AtomicU64,
    bytes: AtomicU64,
    full: AtomicU64,
    expired: AtomicU64,
    /// The log has told of a full queue; once per outage.
    told: AtomicBool,
}

/// A command that waits in its client, because it needs a connection of its own.
#[derive(Debug)]
pub struct Ticket {
    queue: Arc<OfflineQueue>,
    bytes: u64,
    /// Since when it waits.
    pub since: Tick,
}

/// Figures for metrics and `/state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OfflineFigures {
    /// Commands that wait now.
    pub commands: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Commands that failed because the queue was full.
    pub full: u64,
    /// Commands that failed because they had waited for too long.
    pub expired: u64,
}

impl OfflineQueue {
    /// Whether there is room for one more command; if not, why.
    pub fn has_room(&self, limits: config::OfflineQueue, bytes: u64) -> Result<(), String> {
        let full = if self.commands.load(Acquire) >= u64::from(limits.max_commands) {
            format!(
                "the offline queue is full: {} commands wait (resilience.offlineQueue.maxCommands)",
                limits.max_commands
            )
        } else if self.bytes.load(Acquire).saturating_add(bytes) > MAX_BYTES {
            format!(
                "the offline queue is full: the waiting commands take {} MiB",
                MAX_BYTES >> 20
            )
        } else {
            return Ok(());
        };
        self.full.fetch_add(1, Relaxed);
        if !self.told.swap(true, Relaxed) {
            tracing::warn!("{full}; further commands fail until redis is back");
        }
        Err(full)
    }

    /// A command waits from now on; `command` is false for what follows one.
    pub fn enter(&self, command: bool, bytes: u64) {
        self.commands.fetch_add(u64::from(command), AcqRel);
        self.bytes.fetch_add(bytes, AcqRel);
    }

    /// It was sent, or given up.
    pub fn leave(&self, command: bool, bytes: u64) {
        self.commands.fetch_sub(u64::from(command), AcqRel);
        self.bytes.fetch_sub(bytes, AcqRel);
    }

    /// A command has waited for too long; the answer is what the app is told.
    pub fn expire(&self, limits: config::OfflineQueue, why: &str) -> String {
        self.expired.fetch_add(1, Relaxed);
        format!(
            "it waited {} in the offline queue (resilience.offlineQueue.maxWait): {why}",
            limits.max_wait
        )
    }

    /// Redis is back.
    pub fn redis_is_back(&self) {
        self.told.store(false, Relaxed);
    }

    /// Counts a command that waits in its client.
    pub fn ticket(self: &Arc<Self>, bytes: u64) -> Ticket {
        self.enter(true, bytes);
        Ticket {
            queue: Arc::clone(self),
            bytes,
            since: Tick::now(),
        }
    }

    /// Figures.
    pub fn figures(&self) -> OfflineFigures {
        OfflineFigures {
            commands: self.commands.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            full: self.full.load(Relaxed),
            expired: self.expired.load(Relaxed),
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.queue.leave(true, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use policy::Span;

    use super::*;

    #[test]
    fn commands_and_bytes_are_bounded_and_what_leaves_makes_room_p9() {
        let limits = config::OfflineQueue {
            max_commands: 2,
            max_wait: Span::from_secs(1),
        };
        let queue = Arc::new(OfflineQueue::default());
        queue.enter(true, 10);
        let ticket = queue.ticket(5);
        let full = queue.has_room(limits, 1).unwrap_err();
        assert!(full.contains("maxCommands"), "{full}");
        drop(ticket);
        assert_eq!(queue.has_room(limits, 1), Ok(()));
        let full = queue.has_room(limits, MAX_BYTES).unwrap_err();
        assert!(full.contains("64 MiB"), "{full}");
        queue.leave(true, 10);
        assert_eq!(queue.has_room(limits, MAX_BYTES), Ok(()));
        let figures = queue.figures();
        assert_eq!((figures.commands, figures.bytes, figures.full), (0, 0, 2));
    }
}
