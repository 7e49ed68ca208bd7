//! Which settings servers have: the answers of Redis 7.0 and 8.0 and of Valkey 8 and 9 to
//! `CONFIG GET *`, which a test compares. One that a server does not have keeps it from starting.

use crds::{cache_tier::Engine, structure};

/// A line per name, with the engines that have it.
const ALL: &str = include_str!("settings.txt");

/// The names that an engine has.
pub fn names(engine: Engine) -> impl Iterator<Item = &'static str> {
    let wanted = match engine {
        Engine::Redis => "redis",
        Engine::Valkey => "valkey",
    };
    ALL.lines().filter_map(move |line| {
        let (name, engines) = line.split_once(' ')?;
        engines
            .split(' ')
            .any(|engine| engine == wanted)
            .then_some(name)
    })
}

/// Why a server would not start with a setting of that name.
pub(super) fn unknown(engine: Engine, name: &str) -> Option<String> {
    if names(engine).any(|known| known == name) {
        return None;
    }
    let remedy = match structure::nearest(name, names(engine)) {
        Some(nearest) => format!("did you mean {nearest}?"),
        None => "remove it".to_owned(),
    };
    Some(format!("{engine:?} has no such setting; {remedy}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_the_engine_does_not_have_is_told_with_the_nearest() {
        assert_eq!(unknown(Engine::Redis, "maxmemory-samples"), None);
        assert_eq!(
            unknown(Engine::Redis, "maxmemory-sample").unwrap(),
            "Redis has no such setting; did you mean maxmemory-samples?"
        );
        assert_eq!(unknown(Engine::Valkey, "import-mode"), None);
        assert!(unknown(Engine::Redis, "import-mode").is_some());
        let strange = unknown(Engine::Valkey, "k").unwrap();
        assert!(
            strange.starts_with("Valkey has no such setting"),
            "{strange}"
        );
    }
}
