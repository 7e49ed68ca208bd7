//! Free ports. They are taken from below the range that the kernel gives to outgoing connections,
//! so that nothing else takes one between the check and its use.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicU32, Ordering},
};

const FIRST: u32 = 12_000;
const COUNT: u32 = 20_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port that is free on both loopback addresses.
pub fn free() -> u16 {
    // Test processes run one after another or side by side: each begins at a place of its own.
    let own_start = std::process::id().wrapping_mul(101);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + own_start.wrapping_add(step) % COUNT;
        let port = u16::try_from(port).expect("32,000 is below 65,536");
        let free_v4 = TcpListener::bind(("0.0.0.0", port)).is_ok();
        let free_v6 = TcpListener::bind(("::1", port)).is_ok();
        if free_v4 && free_v6 {
            return port;
        }
    }
}
