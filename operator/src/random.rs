//! Passwords from the system's random source.

use ring::rand::{SecureRandom as _, SystemRandom};

use crate::fingerprint::hex;

/// 64 hexadecimal digits: 256 bits, and nothing that a URL or a file of Redis would have to escape.
pub fn password() -> String {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .expect("the system gives random numbers");
    hex(&bytes)
}
