//! Reads RESP values from a complete frame, without recursion.

use super::Malformed;

/// Reads RESP values from a complete frame.
pub(super) struct Reader<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The rest of a line without its end; moves behind it.
    pub(super) fn line(&mut self) -> Result<&'a [u8], Malformed> {
        let rest = self.bytes.get(self.at..).ok_or(Malformed)?;
        let end = rest
            .windows(2)
            .position(|end| end == b"\r\n")
            .ok_or(Malformed)?;
        self.at += end + 2;
        Ok(&rest[..end])
    }

    /// The length in a header line, none for -1; moves behind the line.
    pub(super) fn length(&mut self) -> Result<Option<usize>, Malformed> {
        let line = self.line()?;
        let digits = line.get(1..).ok_or(Malformed)?;
        if digits == b"-1" {
            return Ok(None);
        }
        let all_digits = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(digits).map_err(|_| Malformed)?;
        let length = if all_digits { text.parse().ok() } else { None };
        // Every element takes at least three bytes: a length beyond the frame is a lie.
        length
            .filter(|length| *length <= self.bytes.len())
            .map(Some)
            .ok_or(Malformed)
    }

    /// A bulk string's bytes, none (and no move) for anything else.
    pub(super) fn bulk(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        if self.peek() != Some(b'$') {
            return if self.peek().is_some() {
                Ok(None)
            } else {
                Err(Malformed)
            };
        }
        let start = self.at;
        let Some(length) = self.length()? else {
            self.at = start;
            return Ok(None);
        };
        let end = self.at.checked_add(length).ok_or(Malformed)?;
        let text = self.bytes.get(self.at..end).ok_or(Malformed)?;
        if self.bytes.get(end..end + 2) != Some(b"\r\n") {
            return Err(Malformed);
        }
        self.at = end + 2;
        Ok(Some(text))
    }

    /// The count of an array; anything else is copied as it is.
    pub(super) fn array(&mut self, out: &mut Vec<u8>) -> Result<Option<usize>, Malformed> {
        let start = self.at;
        if self.peek() == Some(b'*')
            && let Some(count) = self.length()?
        {
            return Ok(Some(count));
        }
        self.at = start;
        self.copy(out)?;
        Ok(None)
    }

    pub(super) fn copy(&mut self, out: &mut Vec<u8>) -> Result<(), Malformed> {
        let start = self.at;
        self.skip()?;
        out.extend_from_slice(&self.bytes[start..self.at]);
        Ok(())
    }

    /// Moves behind the next value with all that is in it.
    pub(super) fn skip(&mut self) -> Result<(), Malformed> {
        let mut open = 1_usize;
        while open > 0 {
            open -= 1;
            let inner = match self.peek().ok_or(Malformed)? {
                b'+' | b'-' | b':' | b'_' | b'#' | b',' | b'(' => {
                    self.line()?;
                    0
                }
                b'$' | b'=' | b'!' => {
                    if let Some(length) = self.length()? {
                        let end = self.at.checked_add(length).ok_or(Malformed)?;
                        if self.bytes.get(end..end.saturating_add(2)) != Some(b"\r\n") {
                            return Err(Malformed);
                        }
                        self.at = end + 2;
                    }
                    0
                }
                b'*' | b'~' | b'>' => self.length()?.unwrap_or(0),
                b'%' => 2 * self.length()?.unwrap_or(0),
                // An attribute comes before the value it belongs to.
                b'|' => 2 * self.length()?.unwrap_or(0) + 1,
                _ => return Err(Malformed),
            };
            open = open.checked_add(inner).ok_or(Malformed)?;
        }
        Ok(())
    }
}
