//! Changes to the fields of a head on its way through.

use std::fmt::Display;
use std::io::Write;
use std::ops::Range;

use super::fields::{Fields, begins_as, is_read_as};
use super::head_writer::{HeadWriter, title_case};
use super::syntax::{is_token_byte, is_value_byte};

/// A list of changes, each to the result of those before it. A name is written in the spelling
/// given here, and one in small letters with capitals: `X-Name`. A name is matched in every
/// spelling that a backend may read as it: any case, and `_` or `.` for `-`.
///
/// A value that no field can have, such as one with a line feed, is not written; what it was to
/// replace is removed all the same.
#[derive(Debug, Default, Clone)]
pub struct Edits<'a> {
    list: Vec<Edit<'a>>,
    /// The values, one behind the other.
    values: Vec<u8>,
    cookie: Option<&'a str>,
    /// Beginnings of names that end with a number.
    numbered_cookies: &'a [&'a str],
}

#[derive(Debug, Clone)]
struct Edit<'a> {
    action: Action,
    name: &'a str,
    value: Range<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Remove,
    RemovePrefix,
    Set,
    Append,
    Extend,
    Respell,
}

impl Action {
    fn is_new_field(self) -> bool {
        matches!(self, Action::Set | Action::Append | Action::Extend)
    }
}

impl<'a> Edits<'a> {
    /// Forgets all changes and keeps the room.
    pub fn clear(&mut self) {
        self.list.clear();
        self.values.clear();
        self.cookie = None;
        self.numbered_cookies = &[];
    }

    pub fn remove(&mut self, name: &'a str) {
        self.push(Action::Remove, name, self.values.len());
    }

    /// Removes a family of fields, such as `x-forwarded-`.
    pub fn remove_prefix(&mut self, prefix: &'a str) {
        self.push(Action::RemovePrefix, prefix, self.values.len());
    }

    /// Takes the cookie of that name out of all `Cookie` fields; other cookies stay.
    pub fn remove_cookie(&mut self, name: &'a str) {
        self.cookie = Some(name);
    }

    /// Takes the cookies out, too, whose name is one of `prefixes` and a number.
    pub fn remove_numbered_cookies(&mut self, prefixes: &'a [&'a str]) {
        self.numbered_cookies = prefixes;
    }

    /// Writes the field in place of all that were sent.
    pub fn set(&mut self, name: &'a str, value: &[u8]) {
        self.push_value(Action::Set, name, value);
    }

    /// As [`Edits::set`], of a value that is to be printed, such as an address.
    pub fn set_display(&mut self, name: &'a str, value: impl Display) {
        let start = self.print(value);
        self.push_checked(Action::Set, name, start);
    }

    /// Writes the field behind those that were sent.
    pub fn append(&mut self, name: &'a str, value: &[u8]) {
        self.push_value(Action::Append, name, value);
    }

    /// Writes what was sent under this name, in any case, in the spelling given here.
    pub fn respell(&mut self, name: &'a str) {
        self.push(Action::Respell, name, self.values.len());
    }

    /// Joins all values that were sent in one field, and this one behind them. Behind a change that
    /// has removed them it is a field of its own.
    pub fn extend(&mut self, name: &'a str, value: &[u8]) {
        self.push_value(Action::Extend, name, value);
    }

    /// As [`Edits::extend`], of a value that is to be printed.
    pub fn extend_display(&mut self, name: &'a str, value: impl Display) {
        let start = self.print(value);
        self.push_checked(Action::Extend, name, start);
    }

    fn print(&mut self, value: impl Display) -> usize {
        let start = self.values.len();
        // Writing to a vector does not fail.
        let _ = write!(self.values, "{value}");
        start
    }

    fn push_value(&mut self, action: Action, name: &'a str, value: &[u8]) {
        let start = self.values.len();
        self.values.extend_from_slice(value.trim_ascii());
        self.push_checked(action, name, start);
    }

    fn push_checked(&mut self, action: Action, name: &'a str, start: usize) {
        let value = self.values.get(start..).unwrap_or_default();
        let is_valid = value.iter().copied().all(is_value_byte)
            && !name.is_empty()
            && name.bytes().all(is_token_byte);
        match action {
            Action::Extend if is_valid && self.removes(name.as_bytes()) => {
                self.push(Action::Append, name, start);
            }
            _ if is_valid => self.push(action, name, start),
            Action::Append => self.values.truncate(start),
            _ => {
                self.values.truncate(start);
                self.push(Action::Remove, name, start);
            }
        }
    }

    fn push(&mut self, action: Action, name: &'a str, start: usize) {
        let value = start..self.values.len();
        let is_undone = |edit: &Edit<'_>| match action {
            Action::Remove | Action::Set => is_read_as(edit.name.as_bytes(), name),
            Action::RemovePrefix => begins_as(edit.name.as_bytes(), name),
            Action::Append | Action::Extend | Action::Respell => false,
        };
        // What such a change has removed, this one removes, too.
        self.list
            .retain(|edit| !(edit.action.is_new_field() && is_undone(edit)));
        self.list.push(Edit {
            action,
            name,
            value,
        });
    }

    fn value(&self, edit: &Edit<'a>) -> &[u8] {
        self.values.get(edit.value.clone()).unwrap_or_default()
    }

    /// Writes a field that was sent, unless it is changed to nothing here.
    pub(super) fn write_sent(&self, writer: &mut HeadWriter<'_>, name: &[u8], value: &[u8]) {
        if self.removes(name) {
            return;
        }
        let is_removed = |pair: &[u8]| self.removes_cookie(pair);
        if name.eq_ignore_ascii_case(b"cookie") && pairs(value).any(is_removed) {
            let mut others = pairs(value).filter(|pair| !pair.is_empty() && !is_removed(pair));
            if let Some(first) = others.next() {
                writer.list(name, first, others, b"; ");
            }
            return;
        }
        writer.field(self.spelling_of(name), value);
    }

    fn removes_cookie(&self, pair: &[u8]) -> bool {
        self.cookie.is_some_and(|cookie| is_of(pair, cookie))
            || self
                .numbered_cookies
                .iter()
                .any(|prefix| is_numbered(pair, prefix))
    }

    fn spelling_of<'n>(&'n self, name: &'n [u8]) -> &'n [u8] {
        let mut edits = self.list.iter();
        let respelled = edits.find(|edit| {
            edit.action == Action::Respell && name.eq_ignore_ascii_case(edit.name.as_bytes())
        });
        respelled.map_or(name, |edit| edit.name.as_bytes())
    }

    fn removes(&self, name: &[u8]) -> bool {
        self.list.iter().any(|edit| match edit.action {
            Action::Append | Action::Respell => false,
            Action::RemovePrefix => begins_as(name, edit.name),
            Action::Remove | Action::Set | Action::Extend => is_read_as(name, edit.name),
        })
    }

    /// Writes the fields that are new.
    pub(super) fn write_new(&self, writer: &mut HeadWriter<'_>, sent: Fields<'_>) {
        let new = |edit: &&Edit<'_>| edit.action.is_new_field();
        for edit in self.list.iter().filter(new) {
            let (name, value) = (title_case(edit.name), self.value(edit));
            if edit.action == Action::Extend {
                let mut values = sent.values(edit.name).chain([value]);
                let first = values.next().unwrap_or_default();
                writer.list(name.as_bytes(), first, values, b", ");
            } else {
                writer.field(name.as_bytes(), value);
            }
        }
    }
}

fn pairs(cookies: &[u8]) -> impl Iterator<Item = &[u8]> {
    cookies.split(|&byte| byte == b';').map(<[u8]>::trim_ascii)
}

fn is_of(pair: &[u8], cookie: &str) -> bool {
    pair.strip_prefix(cookie.as_bytes())
        .is_some_and(|rest| rest.starts_with(b"="))
}

fn is_numbered(pair: &[u8], prefix: &str) -> bool {
    let Some(rest) = pair.strip_prefix(prefix.as_bytes()) else {
        return false;
    };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && rest.get(digits) == Some(&b'=')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::testing::SampleAnswer;

    fn written(edits: &Edits<'_>, sent: &[(&str, &str)]) -> String {
        let sample = SampleAnswer::new(200, sent);
        let fields = sample.fields();
        let mut out = Vec::new();
        let mut writer = HeadWriter::continued(&mut out);
        for (name, value) in fields.iter() {
            edits.write_sent(&mut writer, name, value);
        }
        edits.write_new(&mut writer, fields);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn fields_are_removed_in_every_spelling() {
        let mut edits = Edits::default();
        edits.remove("evenkeel.resume");
        edits.remove_prefix("x-client-cert-");
        let sent = [
            ("A", "1"),
            ("Evenkeel_RESUME", "1"),
            ("evenkeel-resume", "1"),
            ("X_Client-Cert.San", "1"),
            ("evenkeel-resumed", "kept"),
            ("X-Client-Certainty", "kept"),
        ];
        assert_eq!(
            written(&edits, &sent),
            "A: 1\r\nevenkeel-resumed: kept\r\nX-Client-Certainty: kept\r\n"
        );
    }

    #[test]
    fn fields_are_set_appended_and_extended_in_their_own_spelling() {
        let mut edits = Edits::default();
        edits.set("X-Real-IP", b"192.0.2.7");
        edits.append("Set-Cookie", b"b=2");
        let address: std::net::IpAddr = "192.0.2.7".parse().unwrap();
        edits.extend_display("X-Forwarded-For", address);
        edits.extend("Forwarded", b"for=192.0.2.7");
        let sent = [
            ("x-real-ip", "10.0.0.1"),
            ("x_real_ip", "10.0.0.1"),
            ("X-FORWARDED-FOR", "10.0.0.1, 10.0.0.2"),
            ("set-cookie", "a=1"),
            ("x-forwarded-for", "10.0.0.3"),
            ("x-forwarded_for", "10.0.0.4"),
        ];
        assert_eq!(
            written(&edits, &sent),
            "set-cookie: a=1\r\nX-Real-IP: 192.0.2.7\r\nSet-Cookie: b=2\r\n\
             X-Forwarded-For: 10.0.0.1, 10.0.0.2, 10.0.0.3, 192.0.2.7\r\nForwarded: for=192.0.2.7\r\n"
        );
        edits.clear();
        assert_eq!(written(&edits, &sent[3..4]), "set-cookie: a=1\r\n");
    }

    #[test]
    fn each_change_is_one_to_the_result_of_those_before_it() {
        let sent = [("x-a", "sent"), ("X_A", "alias"), ("x-b", "sent")];
        let after = |change: fn(&mut Edits<'_>)| {
            let mut edits = Edits::default();
            change(&mut edits);
            written(&edits, &sent)
        };
        let removed_and_set = after(|edits| {
            edits.remove("X-A");
            edits.remove_prefix("x-");
            edits.remove("x_a");
            edits.set("X-A", b"1");
            edits.set("X-A", b"2");
        });
        assert_eq!(removed_and_set, "X-A: 2\r\n");
        let set_and_removed = after(|edits| {
            edits.set("X-A", b"1");
            edits.append("X-B", b"1");
            edits.extend("X-C", b"1");
            edits.remove("X.a");
            edits.remove_prefix("x-b");
        });
        assert_eq!(set_and_removed, "X-C: 1\r\n");
        let extended = after(|edits| {
            edits.remove("x-a");
            edits.extend("X-A", b"1");
            edits.set("x-B", b"1");
            edits.extend("x-B", b"2");
        });
        assert_eq!(extended, "X-A: 1\r\nx-B: 1\r\nx-B: 2\r\n");
        let refused = after(|edits| {
            edits.set("X-A", b"1");
            edits.set("X-A", b"1\n2");
        });
        assert_eq!(refused, "x-b: sent\r\n");
    }

    #[test]
    fn fields_are_respelled_where_they_stand() {
        let mut edits = Edits::default();
        edits.respell("X-Real-IP");
        edits.respell("Forwarded");
        edits.set("Forwarded", b"for=b");
        edits.append("x-backend", b"n1");
        let sent = [
            ("x-real-ip", "10.0.0.1"),
            ("x_real_ip", "10.0.0.2"),
            ("X-REAL-IP", "10.0.0.3"),
            ("forwarded", "for=a"),
        ];
        assert_eq!(
            written(&edits, &sent),
            "X-Real-IP: 10.0.0.1\r\nx_real_ip: 10.0.0.2\r\nX-Real-IP: 10.0.0.3\r\n\
             Forwarded: for=b\r\nX-Backend: n1\r\n"
        );
    }

    #[test]
    fn no_value_can_end_its_line() {
        let mut edits = Edits::default();
        edits.set("X-Client-Cert-Subject", b"CN=a\r\nX-Admin: yes");
        edits.append("X-A", b"a\nb");
        edits.set("X B", b"b");
        edits.set("X-C", b" c ");
        edits.extend_display("X-D", "d\0");
        let sent = [("x-client-cert-subject", "CN=root"), ("X-D", "0")];
        assert_eq!(written(&edits, &sent), "X-C: c\r\n");
    }

    #[test]
    fn numbered_cookies_are_taken_out_with_every_number() {
        let mut edits = Edits::default();
        edits.remove_numbered_cookies(&["evenkeel-", "__Host-evenkeel-"]);
        let sent = [
            ("Cookie", "evenkeel-9900=a; b=2; __Host-evenkeel-1=c"),
            (
                "Cookie",
                "evenkeel-=1; evenkeel-x1=2; evenkeel-1x=3; evenkeel-1",
            ),
        ];
        let others = "Cookie: evenkeel-=1; evenkeel-x1=2; evenkeel-1x=3; evenkeel-1\r\n";
        assert_eq!(written(&edits, &sent), format!("Cookie: b=2\r\n{others}"));
    }

    #[test]
    fn one_cookie_is_taken_out_and_the_others_stay() {
        let mut edits = Edits::default();
        edits.remove_cookie("evk");
        let sent = [
            ("Cookie", "a=1;  b=2"),
            ("Cookie", "c=3; evk=x;evk2=4; ;d"),
            ("cookie", "evk=y"),
            ("Cookie", "evk"),
        ];
        assert_eq!(
            written(&edits, &sent),
            "Cookie: a=1;  b=2\r\nCookie: c=3; evk2=4; d\r\nCookie: evk\r\n"
        );
    }
}
