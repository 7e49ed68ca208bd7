//! Who listens to what.
