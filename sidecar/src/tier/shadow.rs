//! Entries that are measured and not served.
//!
//! They lie in the tier like all others, dropped by the same invalidations and bounded by the same
//! memory, under a database number that no client can be in.

/// Set in the database number of an entry in shadow.
const SHADOW: u16 = 1 << 15;

/// Where entries in shadow of that database lie.
#[must_use]
pub const fn shadow(db: u16) -> u16 {
    db | SHADOW
}

/// The database of an entry, in shadow or not.
#[must_use]
pub(super) const fn lit(db: u16) -> u16 {
    db & !SHADOW
}
