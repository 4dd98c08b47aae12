//! Values of an `expect` check: bytes that are sent, and those that the answer must or must not
//! hold.

/// Right answer of an `expect` check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// These bytes occur in the backend's answer.
    Bytes(Vec<u8>),
    /// This regular expression (of the `regex` crate, checked at decode) matches it.
    Regex(String),
}

pub(super) fn read_bytes(text: &str) -> Result<Vec<u8>, &'static str> {
    match text {
        "" => Err("it is empty: every backend says that"),
        _ => Ok(text.as_bytes().to_vec()),
    }
}

pub(super) fn read_hex(text: &str) -> Result<Vec<u8>, &'static str> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    match data_encoding::HEXLOWER_PERMISSIVE.decode(&digits) {
        Ok(bytes) if bytes.is_empty() => Err("it is empty"),
        Ok(bytes) => Ok(bytes),
        Err(_) if digits.len() % 2 == 1 => Err("it has half a byte: a byte has two digits"),
        Err(_) => Err("it is not in hexadecimal"),
    }
}

pub(super) fn read_regex(text: &str) -> Result<String, &'static str> {
    match regex::bytes::Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(regex::Error::CompiledTooBig(_)) => Err("it is too large when compiled"),
        Err(_) => Err("it is not a regular expression"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CheckKind;
    use crate::config::error::ErrorKind;
    use crate::config::testing::{each_refused, pool, right};

    fn check(keys: &str) -> String {
        pool(&format!("check = {{ type = \"expect\", {keys} }}"))
    }

    #[test]
    fn each_wrong_value_is_refused() {
        let at = |key| -> &'static str {
            match key {
                "" => "pool.p.check.expect",
                key => format!("pool.p.check.{key}").leak(),
            }
        };
        let cases = [
            ("send = \"x\"", "", ErrorKind::Missing),
            ("expect = \"\"", "", ErrorKind::Value),
            ("expect_not = \"\"", "expect_not", ErrorKind::Value),
            ("expect_regex = \"(\"", "expect_regex", ErrorKind::Value),
            (
                "expect_regex = \"(a{999}){999}\"",
                "expect_regex",
                ErrorKind::Value,
            ),
            (
                "expect = \"a\", expect_regex = \"a\"",
                "expect_regex",
                ErrorKind::Conflict,
            ),
            (
                "expect = \"a\", expect_binary = \"61\"",
                "expect_binary",
                ErrorKind::Conflict,
            ),
            (
                "expect = \"a\", send = \"a\", send_binary = \"61\"",
                "send_binary",
                ErrorKind::Conflict,
            ),
            ("expect_binary = \" \"", "expect_binary", ErrorKind::Value),
            ("expect_binary = \"0\"", "expect_binary", ErrorKind::Value),
            (
                "expect_binary = \"0x00\"",
                "expect_binary",
                ErrorKind::Value,
            ),
        ];
        each_refused(cases.map(|(keys, key, fault)| (check(keys), at(key), fault)));
    }

    #[test]
    fn bytes_are_read_as_text_as_hexadecimal_and_as_a_pattern() {
        let read = |keys: &str| right(&check(keys)).pools["p"].check.clone().unwrap().kind;
        let expected = |send: &[u8], expect, unwanted: Option<&[u8]>| CheckKind::Expect {
            send: send.to_vec(),
            expect,
            unwanted: unwanted.map(<[u8]>::to_vec),
        };
        assert_eq!(
            read("send = \"\\u0000PING\\r\\n\", expect_regex = \"^PONG\""),
            expected(
                b"\x00PING\r\n",
                Some(Expect::Regex("^PONG".to_owned())),
                None
            )
        );
        assert_eq!(
            read("send_binary = \"00 0A ff\", expect_binary = \"0061\""),
            expected(&[0, 10, 255], Some(Expect::Bytes(b"\0a".to_vec())), None)
        );
        assert_eq!(
            read("expect_not = \"busy\""),
            expected(b"", None, Some(b"busy"))
        );
    }
}
