//! The keys of an `expect` check: what is sent, and what the answer must or must not hold.

use super::super::model::{CheckKind, Expect};
use super::super::table::Table;

/// Keys of which a check has one.
const WANTED: [&str; 3] = ["expect", "expect_binary", "expect_regex"];

pub(super) fn decode(table: &Table<'_>) -> Option<CheckKind> {
    only_one(table, &["send", "send_binary"]);
    only_one(table, &WANTED);
    let has_any = |keys: &[&str]| keys.iter().any(|key| table.has(key));
    if !has_any(&WANTED) && !table.has("expect_not") {
        let keys = "`expect`, `expect_binary`, `expect_regex` or `expect_not`";
        table.missing("expect", "nothing is expected", keys);
        return None;
    }
    let send = table.text_by("send", |text| Ok(text.as_bytes().to_vec()));
    let expect = table.text_by("expect", read_bytes).map(Expect::Bytes);
    let expect = expect.or_else(|| table.text_by("expect_binary", read_hex).map(Expect::Bytes));
    Some(CheckKind::Expect {
        send: send
            .or_else(|| table.text_by("send_binary", read_hex))
            .unwrap_or_default(),
        expect: expect.or_else(|| table.text_by("expect_regex", read_regex).map(Expect::Regex)),
        unwanted: table.text_by("expect_not", read_bytes),
    })
}

/// Notes every key that stands beside an earlier one of its kind.
fn only_one(table: &Table<'_>, keys: &[&str]) {
    let mut given = keys.iter().filter(|key| table.has(key));
    if let Some(first) = given.next() {
        given.for_each(|key| {
            table.conflict(key, &format!("`{first}` is given too; give one of them"));
        });
    }
}

fn read_bytes(text: &str) -> Result<Vec<u8>, &'static str> {
    match text {
        "" => Err("it is empty: every backend says that"),
        _ => Ok(text.as_bytes().to_vec()),
    }
}

fn read_hex(text: &str) -> Result<Vec<u8>, &'static str> {
    let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
    match data_encoding::HEXLOWER_PERMISSIVE.decode(&digits) {
        Ok(bytes) if bytes.is_empty() => Err("it is empty"),
        Ok(bytes) => Ok(bytes),
        Err(_) if digits.len() % 2 == 1 => Err("it has half a byte: a byte has two digits"),
        Err(_) => Err("it is not in hexadecimal"),
    }
}

fn read_regex(text: &str) -> Result<String, &'static str> {
    match regex::bytes::Regex::new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(regex::Error::CompiledTooBig(_)) => Err("it is too large when compiled"),
        Err(_) => Err("it is not a regular expression"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::error::Fault;
    use super::super::super::testing::{each_refused, pool, right};
    use super::*;

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
            ("send = \"x\"", "", Fault::Missing),
            ("expect = \"\"", "", Fault::Value),
            ("expect_not = \"\"", "expect_not", Fault::Value),
            ("expect_regex = \"(\"", "expect_regex", Fault::Value),
            (
                "expect_regex = \"(a{999}){999}\"",
                "expect_regex",
                Fault::Value,
            ),
            (
                "expect = \"a\", expect_regex = \"a\"",
                "expect_regex",
                Fault::Conflict,
            ),
            (
                "expect = \"a\", expect_binary = \"61\"",
                "expect_binary",
                Fault::Conflict,
            ),
            (
                "expect = \"a\", send = \"a\", send_binary = \"61\"",
                "send_binary",
                Fault::Conflict,
            ),
            ("expect_binary = \" \"", "expect_binary", Fault::Value),
            ("expect_binary = \"0\"", "expect_binary", Fault::Value),
            ("expect_binary = \"0x00\"", "expect_binary", Fault::Value),
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
