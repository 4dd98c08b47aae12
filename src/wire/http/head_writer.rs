//! A head as it is written, line by line.

use std::borrow::Cow;
use std::io::Write;

/// Writes one head, line by line. Values are written as they are: what is no value must not come.
#[derive(Debug)]
pub struct HeadWriter<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> HeadWriter<'o> {
    pub fn request(out: &'o mut Vec<u8>, method: &[u8], target: &[&[u8]]) -> HeadWriter<'o> {
        out.extend_from_slice(method);
        out.push(b' ');
        for part in target {
            out.extend_from_slice(part);
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        HeadWriter { out }
    }

    pub fn response(out: &'o mut Vec<u8>, status: u16, reason: &[u8]) -> HeadWriter<'o> {
        // Writing to a vector does not fail.
        let _ = write!(out, "HTTP/1.1 {status:03} ");
        out.extend_from_slice(reason);
        out.extend_from_slice(b"\r\n");
        HeadWriter { out }
    }

    /// Writes on behind the lines of a head that stand there.
    pub(crate) fn continued(out: &'o mut Vec<u8>) -> HeadWriter<'o> {
        HeadWriter { out }
    }

    pub fn field(&mut self, name: &[u8], value: &[u8]) {
        self.list(name, value, std::iter::empty(), b"");
    }

    pub fn number(&mut self, name: &[u8], value: u64) {
        self.out.extend_from_slice(name);
        // As above.
        let _ = write!(self.out, ": {value}\r\n");
    }

    /// Writes a field with several values.
    pub(super) fn list<'v>(
        &mut self,
        name: &[u8],
        first: &[u8],
        others: impl Iterator<Item = &'v [u8]>,
        separator: &[u8],
    ) {
        self.out.extend_from_slice(name);
        self.out.extend_from_slice(b": ");
        self.out.extend_from_slice(first);
        for value in others {
            self.out.extend_from_slice(separator);
            self.out.extend_from_slice(value);
        }
        self.out.extend_from_slice(b"\r\n");
    }

    /// Ends the head.
    pub fn finish(self) {
        self.out.extend_from_slice(b"\r\n");
    }
}

/// Spells a name that has no capital letter with one at the beginning of each word, as most
/// software does: some servers compare names byte by byte. A name that has one is left as it is.
pub(crate) fn title_case(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Cow::Borrowed(name);
    }
    let mut is_first = true;
    let spelled = name.chars().map(|letter| {
        let is_capital = std::mem::replace(&mut is_first, letter == '-');
        if is_capital {
            letter.to_ascii_uppercase()
        } else {
            letter
        }
    });
    Cow::Owned(spelled.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_in_small_letters_gets_capitals() {
        for (name, spelled) in [
            ("x-backend", "X-Backend"),
            ("evenkeel-resume", "Evenkeel-Resume"),
            ("x.back_again", "X.back_again"),
            ("-1-a", "-1-A"),
            ("X-Real-IP", "X-Real-IP"),
            ("Sec-WebSocket-Key", "Sec-WebSocket-Key"),
            ("", ""),
        ] {
            assert_eq!(title_case(name), spelled);
        }
    }
}
