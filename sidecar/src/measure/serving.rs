//! Which keys the local tier serves, and which are in shadow: read from Redis each time, counted
//! and compared.
//!
//! Entries of keys in shadow lie in the tier under a database number of their own
//! ([`crate::tier::shadow`]), where no read looks for them, so the hit path does not ask which
//! mode holds. It is asked when a read goes to Redis, after its fill token was taken: a change of
//! mode is written before the flush that voids all tokens, so no reply is kept under the old mode.

use std::sync::{
    Arc,
    atomic::{
        AtomicU8,
        Ordering::{Acquire, Release},
    },
};

use parking_lot::Mutex;
use policy::config::{Local, LocalMode};

/// Which keys are served.
pub struct Serving {
    /// Percent of the keys.
    percent: AtomicU8,
    state: Mutex<Mode>,
}

/// Whether the local tier serves, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// That many percent of the keys are served.
    Active(u8),
    /// None is, as declared.
    Shadow,
    /// None is, since a stale local value was found under that rule.
    FellBack(Arc<str>),
}

// === impl Serving ===

impl Serving {
    /// As the configuration declares.
    pub fn new(local: &Local) -> Self {
        let serving = Self {
            percent: AtomicU8::new(0),
            state: Mutex::new(Mode::Shadow),
        };
        serving.reset(local);
        serving
    }

    /// A new configuration begins; the caller flushes the tier afterwards.
    pub fn reset(&self, local: &Local) {
        let (mode, percent) = match local.mode {
            LocalMode::Active => (Mode::Active(local.ramp_percent), local.ramp_percent),
            LocalMode::Shadow => (Mode::Shadow, 0),
        };
        *self.state.lock() = mode;
        self.percent.store(percent, Release);
    }

    /// Serves nothing any longer; whether that is new. The caller flushes the tier afterwards.
    pub fn fall_back(&self, rule: &Arc<str>) -> bool {
        let mut state = self.state.lock();
        let served = matches!(&*state, Mode::Active(percent) if *percent > 0);
        if served {
            *state = Mode::FellBack(Arc::clone(rule));
            self.percent.store(0, Release);
        }
        served
    }

    /// Whether the key is in shadow. Ask after the fill token was taken.
    pub fn shadows(&self, key: &[u8]) -> bool {
        match self.percent.load(Acquire) {
            100.. => false,
            0 => true,
            percent => share(key) >= percent,
        }
    }

    /// What holds now.
    pub fn mode(&self) -> Mode {
        self.state.lock().clone()
    }
}

impl Mode {
    /// For metrics and `/state`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Active(_) => "Active",
            Self::Shadow => "Shadow",
            Self::FellBack(_) => "FellBack",
        }
    }

    /// In words.
    pub fn words(&self) -> String {
        match self {
            Self::Active(100) => "hits are served".to_owned(),
            Self::Active(percent) => format!(
                "hits of {percent} % of the keys are served, those of the others are counted and compared"
            ),
            Self::Shadow => {
                "nothing is served locally: what would be a hit is counted and compared".to_owned()
            }
            Self::FellBack(rule) => format!(
                "nothing is served locally: a stale value was found under rule {rule:?}; the local tier serves again when the policy changes or the sidecar restarts"
            ),
        }
    }
}

/// A key's place from 0 to 99: the same in every sidecar and every version (FNV-1a).
fn share(key: &[u8]) -> u8 {
    let hash = key.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // FNV's upper bits vary most.
    u8::try_from((hash >> 32) % 100).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(mode: LocalMode, ramp_percent: u8) -> Local {
        Local {
            mode,
            ramp_percent,
            ..Local::default()
        }
    }

    #[test]
    fn a_ramp_serves_its_share_of_the_keys_and_a_larger_one_serves_those_and_more() {
        let keys: Vec<String> = (0..10_000).map(|id| format!("user:{id}")).collect();
        let served = |percent| -> Vec<bool> {
            let serving = Serving::new(&local(LocalMode::Active, percent));
            let served = |key: &String| !serving.shadows(key.as_bytes());
            keys.iter().map(served).collect()
        };
        let count = |served: &[bool]| served.iter().filter(|served| **served).count();
        let (quarter, half) = (served(25), served(50));
        assert!(
            (2200..2800).contains(&count(&quarter)),
            "{}",
            count(&quarter)
        );
        assert!((4700..5300).contains(&count(&half)), "{}", count(&half));
        assert!(
            quarter
                .iter()
                .zip(&half)
                .all(|(quarter, half)| half >= quarter)
        );
        assert_eq!(served(25), quarter, "a key is always in or always out");
        assert_eq!((count(&served(0)), count(&served(100))), (0, 10_000));
    }

    #[test]
    fn shadow_mode_serves_nothing_whatever_the_ramp_says() {
        assert!(Serving::new(&local(LocalMode::Shadow, 100)).shadows(b"any"));
    }

    #[test]
    fn falling_back_happens_once_and_holds_until_the_policy_changes() {
        let active = local(LocalMode::Active, 100);
        let serving = Serving::new(&active);
        assert!(!serving.shadows(b"key"));
        assert!(serving.fall_back(&"users".into()));
        assert!(serving.shadows(b"key"));
        assert!(!serving.fall_back(&"others".into()));
        assert_eq!(serving.mode(), Mode::FellBack("users".into()));
        serving.reset(&active);
        assert!(!serving.shadows(b"key"));
    }

    #[test]
    fn what_is_in_shadow_by_declaration_does_not_fall_back() {
        let serving = Serving::new(&local(LocalMode::Shadow, 100));
        assert!(!serving.fall_back(&"users".into()));
        assert_eq!(serving.mode(), Mode::Shadow);
    }
}
