//! The end of a head in a growing buffer. Each byte is checked when it comes, once, so that the
//! result does not depend on chunking.

/// Reason why bytes are no head of HTTP/1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    #[error("line feed without carriage return")]
    BareLineFeed,
    #[error("carriage return without line feed")]
    BareCarriageReturn,
    #[error("control byte")]
    ControlByte,
    #[error("folded header line")]
    Fold,
    #[error("empty line in place of a start line")]
    EmptyLine,
    #[error("head is too large")]
    TooLarge,
    #[error("too many header fields")]
    TooManyFields,
    #[error("malformed start line, or one of another protocol")]
    StartLine,
    #[error("http version is neither 1.0 nor 1.1")]
    Version,
    #[error("malformed header field")]
    Field,
}

/// Looks for the end of a head.
#[derive(Debug)]
pub(super) struct HeadScanner {
    /// Bytes of the buffer that were checked, up to a carriage return without successor.
    scanned: usize,
    line_start: usize,
    ends: LineEnds,
}

/// How lines end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LineEnds {
    /// By carriage return and line feed.
    Strict,
    /// As the first line does: by both, or by a line feed alone (RFC 9112 section 2.2).
    AsFirst,
    /// By a line feed alone. A carriage return would be of somebody who has injected lines.
    LineFeed,
}

impl HeadScanner {
    pub(super) const NEW: HeadScanner = HeadScanner {
        scanned: 0,
        line_start: 0,
        ends: LineEnds::Strict,
    };
    /// For answers: old servers end all their lines by a line feed.
    pub(super) const OF_ANSWER: HeadScanner = HeadScanner {
        ends: LineEnds::AsFirst,
        ..HeadScanner::NEW
    };

    /// Returns the length of the head that `input` begins with; `None` when more bytes are needed.
    /// Each call sees the bytes of the call before, and perhaps more.
    pub(super) fn scan(
        &mut self,
        input: &[u8],
        max_bytes: usize,
    ) -> Result<Option<usize>, HeadError> {
        let window = input.get(..max_bytes).unwrap_or(input);
        match self.scan_window(window)? {
            None if input.len() >= max_bytes => Err(HeadError::TooLarge),
            end => Ok(end),
        }
    }

    fn scan_window(&mut self, window: &[u8]) -> Result<Option<usize>, HeadError> {
        loop {
            self.check_fold(window)?;
            let rest = window.get(self.scanned..).unwrap_or_default();
            let Some(found) = find_control(rest) else {
                self.scanned = window.len();
                return Ok(None);
            };
            let at = self.scanned + found;
            match (rest.get(found), rest.get(found + 1)) {
                (Some(b'\r'), _) if self.ends == LineEnds::LineFeed => {
                    return Err(HeadError::BareLineFeed);
                }
                (Some(b'\r'), Some(b'\n')) => {}
                (Some(b'\r'), None) => {
                    self.scanned = at;
                    return Ok(None);
                }
                (Some(b'\r'), Some(_)) => return Err(HeadError::BareCarriageReturn),
                (Some(b'\n'), _) if at > 0 && self.takes_line_feed() => {}
                (Some(b'\n'), _) => return Err(HeadError::BareLineFeed),
                _ => return Err(HeadError::ControlByte),
            }
            if at == 0 {
                return Err(HeadError::EmptyLine);
            }
            let next = at + self.end_length();
            if at == self.line_start {
                return Ok(Some(next));
            }
            self.line_start = next;
            self.scanned = next;
        }
    }

    /// Whether a line may end by a line feed alone: all do, or this is the first one.
    fn takes_line_feed(&mut self) -> bool {
        if self.ends == LineEnds::AsFirst && self.line_start == 0 {
            self.ends = LineEnds::LineFeed;
        }
        self.ends == LineEnds::LineFeed
    }

    fn end_length(&self) -> usize {
        match self.ends {
            LineEnds::LineFeed => 1,
            LineEnds::Strict | LineEnds::AsFirst => 2,
        }
    }

    /// RFC 9112 section 5.2: a line that begins with white space would continue the one before.
    fn check_fold(&self, window: &[u8]) -> Result<(), HeadError> {
        let is_folded = self.scanned > 0
            && self.scanned == self.line_start
            && matches!(window.get(self.scanned), Some(b' ' | b'\t'));
        if is_folded {
            return Err(HeadError::Fold);
        }
        Ok(())
    }
}

/// Bytes that are looked at together.
const BLOCK: usize = 16;

fn find_control(bytes: &[u8]) -> Option<usize> {
    let (blocks, rest) = bytes.as_chunks::<BLOCK>();
    // Without an early exit the compiler compares a block at once.
    let has_control = |block: &[u8; BLOCK]| {
        block
            .iter()
            .fold(false, |found, &byte| found | is_control(byte))
    };
    let plain = match blocks.iter().position(has_control) {
        Some(block) => block * BLOCK,
        None => bytes.len() - rest.len(),
    };
    let within = bytes
        .get(plain..)?
        .iter()
        .position(|&byte| is_control(byte))?;
    Some(plain + within)
}

/// True for a byte that no line has: all control bytes but the tab.
fn is_control(byte: u8) -> bool {
    (byte < b' ' && byte != b'\t') || byte == 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_found_at_every_place() {
        for length in 0..70 {
            let mut line = vec![b'\t'; length];
            assert_eq!(find_control(&line), None);
            for at in 0..length {
                for byte in [0, 10, 13, 31, 127] {
                    line[at] = byte;
                    assert_eq!(find_control(&line), Some(at), "{byte} at {at} of {length}");
                }
                line[at] = 0x80;
            }
        }
    }

    #[test]
    fn a_head_may_have_exactly_its_limit() {
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for limit in 0..head.len() + 3 {
            let expected = if limit < head.len() {
                Err(HeadError::TooLarge)
            } else {
                Ok(Some(head.len()))
            };
            let mut scanner = HeadScanner::NEW;
            assert_eq!(scanner.scan(head, limit), expected);
            scanner = HeadScanner::NEW;
            let mut bytewise = Ok(None);
            for end in 0..=head.len() {
                bytewise = scanner.scan(&head[..end], limit);
                if bytewise != Ok(None) {
                    break;
                }
            }
            assert_eq!(bytewise, expected, "{limit}");
        }
    }
}
