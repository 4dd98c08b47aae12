//! RESP2, as far as its answers are read: a value of bounded size and depth.

/// Largest string: ten thousand entries of a registry in one value.
const MAX_BYTES: usize = 16 << 20;
/// Longest list: key and value of ten thousand entries, a cursor, and room for those that several
/// writers have added at once.
const MAX_ITEMS: usize = 24_000;
/// Most bytes of a whole answer: a value of the largest size with its frame.
pub const MAX_ANSWER: usize = MAX_BYTES + 4_096;
/// Deepest nesting of arrays that an answer of ours has.
const MAX_DEPTH: u8 = 4;
/// Longest line of a length, a status or an error.
const MAX_LINE: usize = 4_096;

/// A value of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RespValue {
    Status(String),
    Error(String),
    Number(i64),
    Bytes(Vec<u8>),
    Null,
    List(Vec<RespValue>),
}

/// Why bytes are no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RespError {
    /// More bytes must come.
    Incomplete,
    Malformed,
    TooLarge,
}

/// Reads the first value, and returns it with its length in bytes.
///
/// # Errors
/// See [`RespError`].
pub fn read(bytes: &[u8]) -> Result<(RespValue, usize), RespError> {
    let mut reader = RespReader { bytes, at: 0 };
    let value = reader.value(MAX_DEPTH)?;
    Ok((value, reader.at))
}

/// A command with its arguments, as bytes to be sent.
pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

struct RespReader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> RespReader<'a> {
    fn value(&mut self, depth: u8) -> Result<RespValue, RespError> {
        let depth = depth.checked_sub(1).ok_or(RespError::TooLarge)?;
        let line = self.line()?;
        let (kind, rest) = line.split_first().ok_or(RespError::Malformed)?;
        let text = || String::from_utf8_lossy(rest).into_owned();
        match kind {
            b'+' => Ok(RespValue::Status(text())),
            b'-' => Ok(RespValue::Error(text())),
            b':' => number(rest).map(RespValue::Number),
            b'$' => match length(rest, MAX_BYTES)? {
                None => Ok(RespValue::Null),
                Some(length) => self.bytes(length).map(RespValue::Bytes),
            },
            b'*' => match length(rest, MAX_ITEMS)? {
                None => Ok(RespValue::Null),
                Some(count) => {
                    let values = (0..count).map(|_| self.value(depth));
                    values.collect::<Result<_, _>>().map(RespValue::List)
                }
            },
            _ => Err(RespError::Malformed),
        }
    }

    fn line(&mut self) -> Result<&'a [u8], RespError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.windows(2).position(|pair| pair == b"\r\n");
        match end {
            Some(end) => {
                self.at += end + 2;
                rest.get(..end).ok_or(RespError::Malformed)
            }
            None if rest.len() > MAX_LINE => Err(RespError::Malformed),
            None => Err(RespError::Incomplete),
        }
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>, RespError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (Some(bytes), Some(end)) = (rest.get(..length), rest.get(length..length + 2)) else {
            return Err(RespError::Incomplete);
        };
        if end != b"\r\n" {
            return Err(RespError::Malformed);
        }
        self.at += length + 2;
        Ok(bytes.to_vec())
    }
}

fn number(text: &[u8]) -> Result<i64, RespError> {
    let text = std::str::from_utf8(text).ok();
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or(RespError::Malformed)
}

/// A length; `None`: no value.
fn length(text: &[u8], max: usize) -> Result<Option<usize>, RespError> {
    match number(text)? {
        -1 => Ok(None),
        length => match usize::try_from(length) {
            Ok(length) if length <= max => Ok(Some(length)),
            Ok(_) => Err(RespError::TooLarge),
            Err(_) => Err(RespError::Malformed),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_of_each_kind_are_read() {
        let bytes = b"*5\r\n+OK\r\n-ERR no\r\n:-7\r\n$2\r\nab\r\n$-1\r\nrest";
        let (value, length) = read(bytes).unwrap();
        assert_eq!(length, bytes.len() - 4);
        let wanted = vec![
            RespValue::Status("OK".into()),
            RespValue::Error("ERR no".into()),
            RespValue::Number(-7),
            RespValue::Bytes(b"ab".into()),
            RespValue::Null,
        ];
        assert_eq!(value, RespValue::List(wanted));
    }

    #[test]
    fn what_is_too_large_or_no_value_is_refused() {
        assert_eq!(read(b"*99999999\r\n"), Err(RespError::TooLarge));
        assert_eq!(read(b"$99999999999\r\n"), Err(RespError::TooLarge));
        assert_eq!(read(b"*1\r\n*1\r\n*1\r\n*1\r\n"), Err(RespError::TooLarge));
        assert_eq!(read(b"$-2\r\n"), Err(RespError::Malformed));
        assert_eq!(read(b"$1\r\nabc"), Err(RespError::Malformed));
        assert_eq!(read(b"<html>\r\n"), Err(RespError::Malformed));
    }

    fn value() -> impl Strategy<Value = RespValue> {
        let leaf = prop_oneof![
            "[a-z ]{0,9}".prop_map(RespValue::Status),
            any::<i64>().prop_map(RespValue::Number),
            prop::collection::vec(any::<u8>(), 0..9).prop_map(RespValue::Bytes),
            Just(RespValue::Null),
        ];
        leaf.prop_recursive(2, 16, 4, |inner| {
            prop::collection::vec(inner, 0..4).prop_map(RespValue::List)
        })
    }

    fn write(value: &RespValue) -> Vec<u8> {
        match value {
            RespValue::Status(text) => format!("+{text}\r\n").into_bytes(),
            RespValue::Error(text) => format!("-{text}\r\n").into_bytes(),
            RespValue::Number(number) => format!(":{number}\r\n").into_bytes(),
            RespValue::Null => b"$-1\r\n".to_vec(),
            RespValue::Bytes(bytes) => {
                [format!("${}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
            }
            RespValue::List(values) => {
                let mut bytes = format!("*{}\r\n", values.len()).into_bytes();
                values.iter().for_each(|value| bytes.extend(write(value)));
                bytes
            }
        }
    }

    proptest! {
        #[test]
        fn any_cut_of_a_value_is_incomplete(value in value(), at in any::<prop::sample::Index>()) {
            let bytes = write(&value);
            prop_assert_eq!(read(&bytes), Ok((value, bytes.len())));
            let cut = at.index(bytes.len());
            prop_assert_eq!(read(&bytes[..cut]), Err(RespError::Incomplete));
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..99)) {
            let _ = read(&bytes);
        }
    }
}
