//! Replies that came before those to earlier commands of the same app.
//!
//! Behind several servers most replies of a pipeline do. They wait one behind the other in a single
//! buffer, so that none of them costs an allocation.

use std::ops::Range;

/// The buffer is packed once it is so large and half of it was sent.
const PACK_AT: usize = 64 * 1024;
/// An empty buffer keeps at most this much; many connections are idle.
const KEEP: usize = 2048;

/// Where a reply lies.
pub type Place = Range<usize>;

/// The replies that wait.
#[derive(Debug, Default)]
pub struct Early {
    bytes: Vec<u8>,
    /// Bytes that still wait.
    waiting: usize,
}

impl Early {
    /// Adds what `write` writes.
    #[inline]
    pub fn add(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Place {
        let from = self.bytes.len();
        write(&mut self.bytes);
        self.waiting += self.bytes.len() - from;
        from..self.bytes.len()
    }

    /// The reply at a place.
    #[inline]
    pub fn get(&self, place: &Place) -> &[u8] {
        &self.bytes[place.clone()]
    }

    /// It does not wait any longer.
    #[inline]
    pub fn done(&mut self, place: &Place) {
        self.waiting -= place.len();
        if self.waiting == 0 {
            self.bytes.clear();
            self.bytes.shrink_to(KEEP);
        }
    }

    /// Bytes that wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Gives the space of what was sent back, when there is much of it; `places` are those of all
    /// that wait.
    #[inline]
    pub fn pack<'a>(&mut self, places: impl Iterator<Item = &'a mut Place>) {
        if self.bytes.len() < PACK_AT || self.bytes.len() / 2 < self.waiting {
            return;
        }
        let mut packed = Vec::with_capacity(self.waiting);
        for place in places {
            let from = packed.len();
            packed.extend_from_slice(&self.bytes[place.clone()]);
            *place = from..packed.len();
        }
        self.bytes = packed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_space_of_what_was_sent_is_given_back_while_others_wait() {
        let mut early = Early::default();
        let mut places = vec![early.add(|out| out.extend_from_slice(b"the first waits on"))];
        for round in 0..10_000_u32 {
            places.push(early.add(|out| out.extend_from_slice(&[b'x'; 100])));
            let done = places.remove(1);
            assert_eq!(early.get(&done).len(), 100, "round {round}");
            early.done(&done);
            early.pack(places.iter_mut());
        }
        assert_eq!(early.get(&places[0]), b"the first waits on");
        assert_eq!(early.len(), 18);
        assert!(early.bytes.capacity() <= 2 * PACK_AT);
        early.done(&places[0]);
        assert!(early.len() == 0 && early.bytes.capacity() <= KEEP);
    }
}
