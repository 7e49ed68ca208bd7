//! Monotonic time as one integer, cheap to store and to compare.

use std::{
    sync::OnceLock,
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

use crate::planted::{self, Bug};

/// Nanoseconds since the process started. Never goes back, whatever is done to the wall clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u64);

static START: OnceLock<Instant> = OnceLock::new();

impl Tick {
    /// A tick that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// The current time.
    #[inline]
    pub fn now() -> Self {
        if planted::is(Bug::WallClock) {
            return Self::by_the_wall();
        }
        let start = *START.get_or_init(Instant::now);
        Self(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// [`Bug::WallClock`]
    #[cold]
    fn by_the_wall() -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self(now.map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0)))
    }

    /// Whole milliseconds since the process started.
    #[inline]
    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// Time from `earlier` until now; zero if it lies in the future.
    #[inline]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl std::ops::Add<Duration> for Tick {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)),
        )
    }
}
