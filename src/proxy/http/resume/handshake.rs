//! A client's handshake, kept for hours so that another backend can be asked with it: small, and
//! read only then.

use crate::wire::http::{FieldLookup, Fields, HeadWriter, is_value_byte, title_case};
use crate::wire::websocket;

const LINE_END: &[u8] = b"\r\n";

/// A request as it was sent to the first backend, and the agreement of its response.
pub(in crate::proxy) struct ResumeHandshake {
    /// The agreement that holds to the client's end (see [`agreement`]), a line feed, the head.
    text: Box<[u8]>,
}

impl ResumeHandshake {
    /// Keeps the head of a request as it was sent, to its empty line, and its response. `None`:
    /// they agreed to an extension that is not known here, so that another backend could not go on
    /// with it.
    pub(crate) fn of(head: &[u8], answer: Fields<'_>) -> Option<ResumeHandshake> {
        let mut extensions = answer.values("sec-websocket-extensions");
        if !extensions.all(websocket::is_resumable) {
            return None;
        }
        let agreed = agreement(&answer);
        Some(ResumeHandshake {
            text: [agreed.as_bytes(), b"\n", head].concat().into(),
        })
    }

    /// Everything that is kept, for [`ResumeHandshake::of_text`].
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// A handshake that another process has kept. `None`: it is none.
    pub(super) fn of_text(text: Vec<u8>) -> Option<ResumeHandshake> {
        let kept = ResumeHandshake { text: text.into() };
        let is_text = str::from_utf8(kept.parts().0).is_ok();
        (is_text && kept.head().ends_with(b"\r\n\r\n")).then_some(kept)
    }

    /// The agreement of the response.
    pub(crate) fn agreed(&self) -> &str {
        str::from_utf8(self.parts().0).unwrap_or_default()
    }

    /// The head of the request.
    pub(crate) fn head(&self) -> &[u8] {
        self.parts().1
    }

    fn parts(&self) -> (&[u8], &[u8]) {
        // The agreement has no line feed.
        let end = self.text.iter().position(|&byte| byte == b'\n');
        let (agreed, rest) = self.text.split_at(end.unwrap_or(self.text.len()));
        (agreed, rest.get(1..).unwrap_or_default())
    }

    /// Writes the head again, with more fields at its end in place of kept ones of their names. A
    /// value that no field can have is not written.
    pub(super) fn write(&self, extra: &[(&str, &[u8])], out: &mut Vec<u8>) {
        let mut lines = self.head().split_inclusive(|&byte| byte == b'\n');
        out.extend_from_slice(lines.next().unwrap_or_default());
        for line in lines.take_while(|line| *line != LINE_END) {
            let name = line.split(|&byte| byte == b':').next().unwrap_or(line);
            let is_same = |(own, _): &(&str, &[u8])| name.eq_ignore_ascii_case(own.as_bytes());
            if !extra.iter().any(is_same) {
                out.extend_from_slice(line);
            }
        }
        let mut writer = HeadWriter::continued(out);
        for (name, value) in extra {
            if value.iter().copied().all(is_value_byte) {
                writer.field(title_case(name).as_bytes(), value);
            }
        }
        writer.finish();
    }
}

/// Subprotocol and extensions of a response, in one spelling.
pub(super) fn agreement(answer: &impl FieldLookup) -> String {
    let list = |name: &str| {
        let plain = |value: &[u8]| {
            let text = String::from_utf8_lossy(value);
            text.split_ascii_whitespace().collect::<String>()
        };
        let all = answer.all_values(name).map(plain);
        let all = all.collect::<Vec<_>>().join(",");
        // An empty element chooses nothing.
        let chosen = all.split(',').filter(|item| !item.is_empty());
        chosen.collect::<Vec<_>>().join(",")
    };
    let [protocol, extensions] = ["sec-websocket-protocol", "sec-websocket-extensions"].map(list);
    format!("{protocol};{extensions}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::testing::{SampleAnswer, SampleRequest};

    const HEAD: &str = "GET /x?y=1 HTTP/1.1\r\nhOst: a.example\r\nX-Odd: a:b \u{e9}\r\nX-Twice: 1\r\n\
         x-twice: 2\r\nX-Empty: \r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

    fn answer(fields: &[(&str, &str)]) -> SampleAnswer {
        SampleAnswer::new(101, fields)
    }

    fn kept(fields: &[(&str, &str)]) -> Option<ResumeHandshake> {
        ResumeHandshake::of(HEAD.as_bytes(), answer(fields).fields())
    }

    #[test]
    fn a_kept_head_comes_back_as_it_was() {
        let kept = kept(&[]).unwrap();
        assert_eq!(kept.head(), HEAD.as_bytes());
        let mut out = Vec::new();
        kept.write(&[], &mut out);
        assert_eq!(out, HEAD.as_bytes());
    }

    #[test]
    fn the_agreement_of_an_answer_is_kept_in_one_spelling() {
        let extensions = |value| ("Sec-WebSocket-Extensions", value);
        let deflate = extensions("permessage-deflate;  Server_no_context_takeover");
        let kept_one = kept(&[deflate]).unwrap();
        let spaced = extensions("permessage-deflate; Server_no_context_takeover");
        assert_eq!(agreement(&answer(&[spaced]).fields()), kept_one.agreed());
        let chat = ("Sec-WebSocket-Protocol", "chat");
        assert_ne!(
            agreement(&answer(&[spaced, chat]).fields()),
            kept_one.agreed()
        );
        assert_eq!(kept(&[chat, deflate]).unwrap().head(), HEAD.as_bytes());
        assert!(kept(&[extensions("x-own")]).is_none());
    }

    #[test]
    fn more_fields_stand_at_the_end_in_place_of_kept_ones() {
        let kept = kept(&[]).unwrap();
        let mut out = b"PROXY UNKNOWN\r\n".to_vec();
        let note = b"count=1; from=\"n1\"; lost=0";
        let extra: [(&str, &[u8]); 4] = [
            ("evenkeel-resume", note),
            ("X-TWICE", b"3"),
            ("x-forged", b"a\r\nx-admin: 1"),
            ("X-Backend", b"n2"),
        ];
        kept.write(&extra, &mut out);
        let text = String::from_utf8(out).unwrap();
        let head = text.strip_prefix("PROXY UNKNOWN\r\n").unwrap();
        assert_eq!(
            head,
            "GET /x?y=1 HTTP/1.1\r\nhOst: a.example\r\nX-Odd: a:b \u{e9}\r\nX-Empty: \r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\n\
             Evenkeel-Resume: count=1; from=\"n1\"; lost=0\r\nX-TWICE: 3\r\nX-Backend: n2\r\n\r\n"
        );
        let again = SampleRequest::new(head);
        assert!(again.head().is_upgrade());
        assert_eq!(
            again.head().fields().only("evenkeel-resume"),
            Some(&note[..])
        );
    }
}
