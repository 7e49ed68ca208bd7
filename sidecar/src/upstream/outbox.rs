//! Bytes on their way to Redis, kept until they are answered.
//!
//! A command's bytes stay until its reply has come, so that after a broken connection the sidecar
//! knows which commands never left it (safe to send again, whatever they are) and can repeat those
//! that are idempotent, without a second copy.

/// Answered bytes are cut off the front once there are so many of them.
const COMPACT_AT: usize = 64 * 1024;
/// An empty buffer keeps at most this much.
const KEEP: usize = 64 * 1024;

/// A queue of bytes: answered | sent | unsent.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    answered: usize,
    sent: usize,
}

impl Outbox {
    /// Appends what `write` writes; the answer is its length.
    #[inline]
    pub fn append(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> usize {
        let before = self.bytes.len();
        write(&mut self.bytes);
        self.bytes.len() - before
    }

    /// What has not been sent yet.
    #[inline]
    pub fn unsent(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// So many more bytes were sent.
    #[inline]
    pub fn sent(&mut self, len: usize) {
        self.sent += len;
    }

    /// The oldest `len` bytes were answered.
    #[inline]
    pub fn answered(&mut self, len: usize) {
        self.answered += len;
        // What is given up before it was sent must not be sent afterwards.
        self.sent = self.sent.max(self.answered);
        if self.answered == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(KEEP);
            self.answered = 0;
            self.sent = 0;
        } else if self.answered > COMPACT_AT && self.answered > self.bytes.len() / 2 {
            self.bytes.drain(..self.answered);
            self.sent -= self.answered;
            self.answered = 0;
        }
    }

    /// The oldest `len` bytes that wait for an answer.
    pub fn oldest(&self, len: usize) -> &[u8] {
        &self.bytes[self.answered..self.answered + len]
    }

    /// Bytes that wait for an answer.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes.len() - self.answered
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether everything that was sent is answered.
    pub fn is_settled(&self) -> bool {
        self.sent == self.answered
    }

    /// How many of the commands with these lengths, oldest first, were sent, be it in part.
    pub fn count_sent(&self, lengths: &[usize]) -> usize {
        let mut at = self.answered;
        lengths
            .iter()
            .take_while(|len| {
                let was_sent = at < self.sent;
                at += *len;
                was_sent
            })
            .count()
    }

    /// Starts over after a broken connection: of the commands with these lengths, oldest first,
    /// only those marked in `keep` stay, unsent.
    pub fn restart(&mut self, lengths: &[usize], keep: &[bool]) {
        let mut kept = Vec::new();
        let mut at = self.answered;
        for (len, keep) in lengths.iter().zip(keep) {
            if *keep {
                kept.extend_from_slice(&self.bytes[at..at + len]);
            }
            at += len;
        }
        *self = Self {
            bytes: kept,
            answered: 0,
            sent: 0,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_break_it_is_known_what_was_sent() {
        let mut outbox = Outbox::default();
        let lengths: Vec<usize> = [b"one".as_slice(), b"two", b"three", b"four"]
            .iter()
            .map(|command| outbox.append(|bytes| bytes.extend_from_slice(command)))
            .collect();
        outbox.sent(8);
        outbox.answered(3);
        assert_eq!(
            outbox.count_sent(&lengths[1..]),
            2,
            "`three` was sent in part"
        );
        outbox.restart(&lengths[1..], &[false, true, true]);
        assert_eq!(outbox.unsent(), b"threefour");
        outbox.sent(9);
        outbox.answered(9);
        assert!(outbox.is_empty());
    }

    #[test]
    fn what_is_given_up_before_it_was_sent_is_never_sent() {
        let mut outbox = Outbox::default();
        let lengths = [
            outbox.append(|bytes| bytes.extend_from_slice(b"late")),
            outbox.append(|bytes| bytes.extend_from_slice(b"next")),
        ];
        outbox.sent(8);
        outbox.restart(&lengths, &[true, true]);
        outbox.answered(4);
        assert_eq!(outbox.unsent(), b"next");
    }
}
