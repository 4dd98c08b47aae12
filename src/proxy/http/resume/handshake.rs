//! A client's handshake, kept for hours so that another backend can be asked with it: small, and
//! read only then.

use http::header::{HeaderName, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Request, Uri};

use crate::wire::websocket;

/// A request as it was sent to the first backend, and the agreement of its response.
pub(in crate::proxy) struct ResumeHandshake {
    /// The agreement that holds to the client's end (see [`agreement`]), the target, then a line
    /// for each field.
    text: Box<[u8]>,
}

impl ResumeHandshake {
    /// Keeps a request as it was sent, and its response. `None`: they agreed to an extension that
    /// is not known here, so that another backend could not go on with it.
    pub(crate) fn of(
        target: &Uri,
        sent: &HeaderMap,
        answer: &HeaderMap,
    ) -> Option<ResumeHandshake> {
        let extensions = answer.get_all(SEC_WEBSOCKET_EXTENSIONS);
        if !extensions.iter().all(websocket::is_resumable) {
            return None;
        }
        // None of them has a line feed.
        let mut head = format!("{}\n{target}", agreement(answer)).into_bytes();
        for (name, value) in sent {
            head.push(b'\n');
            head.extend_from_slice(name.as_str().as_bytes());
            head.push(b':');
            head.extend_from_slice(value.as_bytes());
        }
        Some(ResumeHandshake { text: head.into() })
    }

    /// The agreement of the response.
    pub(crate) fn agreed(&self) -> &str {
        let first = self.text.split(|byte| *byte == b'\n').next();
        first
            .and_then(|line| std::str::from_utf8(line).ok())
            .unwrap_or("")
    }

    /// The request again. `None`: never, for what [`ResumeHandshake::of`] has kept.
    pub(crate) fn request(&self) -> Option<Parts> {
        let mut lines = self.text.split(|byte| *byte == b'\n').skip(1);
        let target = std::str::from_utf8(lines.next()?).ok()?;
        let mut request = Request::builder().uri(target).body(()).ok()?.into_parts().0;
        for line in lines {
            let colon = line.iter().position(|byte| *byte == b':')?;
            let (name, value) = line.split_at(colon);
            request.headers.append(
                HeaderName::from_bytes(name).ok()?,
                HeaderValue::from_bytes(&value[1..]).ok()?,
            );
        }
        Some(request)
    }
}

/// Subprotocol and extensions of a response, in one spelling.
pub(super) fn agreement(answer: &HeaderMap) -> String {
    let list = |name: &HeaderName| {
        let values = answer.get_all(name).iter();
        let plain = |value: &HeaderValue| {
            let text = String::from_utf8_lossy(value.as_bytes());
            text.split_ascii_whitespace().collect::<String>()
        };
        let all = values.map(plain).collect::<Vec<_>>().join(",");
        // An empty element chooses nothing.
        let chosen = all.split(',').filter(|item| !item.is_empty());
        chosen.collect::<Vec<_>>().join(",")
    };
    let [protocol, extensions] = [&SEC_WEBSOCKET_PROTOCOL, &SEC_WEBSOCKET_EXTENSIONS].map(list);
    format!("{protocol};{extensions}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kept_head_comes_back_as_it_was() {
        let mut sent = HeaderMap::new();
        for (name, value) in [
            ("host", "a.example"),
            ("x-odd", "a:b \u{e9}"),
            ("x-twice", "1"),
            ("x-twice", "2"),
        ] {
            let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
            sent.append(HeaderName::from_static(name), value);
        }
        let mut answer = HeaderMap::new();
        let target: Uri = "/x?y=1".parse().unwrap();
        let kept = ResumeHandshake::of(&target, &sent, &answer).unwrap();
        let request = kept.request().unwrap();
        assert_eq!(
            (request.uri, request.headers),
            (target.clone(), sent.clone())
        );
        let deflate = HeaderValue::from_static("permessage-deflate;  Server_no_context_takeover");
        answer.insert(SEC_WEBSOCKET_EXTENSIONS, deflate);
        let kept = ResumeHandshake::of(&target, &sent, &answer).unwrap();
        let spaced = HeaderValue::from_static("permessage-deflate; Server_no_context_takeover");
        answer.insert(SEC_WEBSOCKET_EXTENSIONS, spaced);
        assert_eq!(agreement(&answer), kept.agreed());
        answer.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat"));
        assert_ne!(agreement(&answer), kept.agreed());
        answer.insert(SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static("x-own"));
        assert!(ResumeHandshake::of(&target, &sent, &answer).is_none());
    }
}
