//! Replies of one app connection that are ready to be sent.

/// Sent bytes are cut off the front once there are so many of them.
const COMPACT_AT: usize = 64 * 1024;
/// An empty buffer keeps at most this much; many connections are idle.
const KEEP: usize = 1024;

/// A queue of bytes: sent | unsent.
#[derive(Debug, Default)]
pub struct Output {
    bytes: Vec<u8>,
    sent: usize,
    /// The largest piece since the queue was empty.
    largest: usize,
    /// Bytes of replies that wait for earlier ones.
    pub held: usize,
}

impl Output {
    /// Appends what `write` writes.
    #[inline]
    pub fn append<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        let before = self.bytes.len();
        let result = write(&mut self.bytes);
        self.largest = self.largest.max(self.bytes.len() - before);
        result
    }

    /// What has not been sent yet.
    #[inline]
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// Whether everything was sent.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Bytes in memory on behalf of the app.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.sent + self.held
    }

    /// Whether more than `limit` has piled up. One reply may be larger than that: it cannot be
    /// sent in less.
    pub fn exceeds(&self, limit: usize) -> bool {
        self.len() > limit.saturating_add(self.largest)
    }

    /// So many more bytes were sent.
    #[inline]
    pub fn advance(&mut self, len: usize) {
        self.sent += len;
        if self.is_empty() {
            self.bytes.clear();
            self.bytes.shrink_to(KEEP);
            self.sent = 0;
            self.largest = 0;
        } else if self.sent > COMPACT_AT && self.sent > self.bytes.len() / 2 {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_large_reply_is_no_pile() {
        let mut output = Output::default();
        output.append(|out| out.extend_from_slice(&[0; 1000]));
        assert!(!output.exceeds(100));
        output.append(|out| out.extend_from_slice(&[0; 101]));
        assert!(output.exceeds(100));
        output.advance(1101);
        assert!(output.is_empty() && !output.exceeds(0));
    }

    #[test]
    fn replies_that_wait_for_earlier_ones_count() {
        let output = Output {
            held: 101,
            ..Output::default()
        };
        assert!(output.exceeds(100) && output.is_empty());
    }
}
