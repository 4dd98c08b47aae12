//! A list of backends behind a URL: `{"backends": [...]}`, or the list alone. Asked again and
//! again, with the tag of the last answer.

use std::time::Duration;

use http::{StatusCode, header};

use super::{HttpSource, Publication, SourceAnswer, SourceRequest};
use crate::config::{Registry, RegistryUrl};
use crate::discovery::bounded::json;
use crate::discovery::entry::Listing;
use crate::discovery::fault::Fault;

/// Between two requests, where the operator says nothing.
const INTERVAL: Duration = Duration::from_secs(10);

/// Longest tag that is sent back.
const MAX_TAG: usize = 256;

/// The protocol of a list.
#[derive(Debug)]
pub(super) struct ListSource {
    path: String,
    interval: Duration,
    last: Option<Publication>,
    is_first: bool,
}

impl ListSource {
    pub(super) fn new(registry: &Registry, url: &RegistryUrl) -> ListSource {
        let slash = if url.path.starts_with('/') { "" } else { "/" };
        ListSource {
            path: format!("{slash}{}", url.path),
            interval: registry.interval.unwrap_or(INTERVAL),
            last: None,
            is_first: true,
        }
    }
}

impl HttpSource for ListSource {
    fn next(&mut self, secret: Option<&str>) -> SourceRequest {
        let mut request = SourceRequest::get(self.path.clone());
        if !self.is_first {
            request.after = self.interval;
        }
        if let Some(secret) = secret {
            request
                .headers
                .push(("authorization", format!("Bearer {secret}")));
        }
        let tag = self.last.as_ref().map(|last| &last.revision);
        if let Some(tag) = tag.filter(|tag| !tag.is_empty()) {
            request.headers.push(("if-none-match", tag.clone()));
        }
        request
    }

    fn answered(&mut self, answer: SourceAnswer<'_>) -> Result<Option<Publication>, Fault> {
        if answer.status == StatusCode::NOT_MODIFIED && self.last.is_some() {
            self.is_first = false;
            return Ok(self.last.clone());
        }
        answer.successful()?;
        let listing = Listing::read(&json(answer.body)?)?;
        let tag = answer.headers.get(header::ETAG);
        let tag = tag
            .and_then(|tag| tag.to_str().ok())
            .filter(|tag| tag.len() <= MAX_TAG);
        self.is_first = false;
        self.last = Some(Publication {
            listing,
            revision: tag.unwrap_or_default().to_owned(),
        });
        Ok(self.last.clone())
    }

    fn restart(&mut self) {
        self.is_first = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, HeaderValue};

    fn source() -> ListSource {
        ListSource {
            path: "/list".to_owned(),
            interval: INTERVAL,
            last: None,
            is_first: true,
        }
    }

    fn answer(source: &mut ListSource, status: u16, body: &str) -> Result<usize, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert("etag", HeaderValue::from_static("\"7\""));
        let answer = SourceAnswer {
            status: StatusCode::from_u16(status).unwrap(),
            headers: &headers,
            body: body.as_bytes(),
        };
        Ok(source.answered(answer)?.unwrap().listing.entries.len())
    }

    #[test]
    fn an_answer_without_news_is_the_last_one() {
        let mut source = source();
        assert!(answer(&mut source, 304, "").is_err());
        assert_eq!(source.next(None).after, Duration::ZERO);
        assert_eq!(answer(&mut source, 200, "[\"10.0.0.1:80\"]"), Ok(1));
        let next = source.next(Some("t"));
        assert_eq!(next.after, INTERVAL);
        assert!(
            next.headers
                .contains(&("if-none-match", "\"7\"".to_owned()))
        );
        assert!(
            next.headers
                .contains(&("authorization", "Bearer t".to_owned()))
        );
        assert_eq!(answer(&mut source, 304, ""), Ok(1));
    }

    #[test]
    fn what_is_no_list_is_a_fault() {
        let mut source = source();
        for (status, body) in [
            (200, "<html>"),
            (200, "{}"),
            (200, "[1]"),
            (500, "[]"),
            (302, "[]"),
        ] {
            assert!(
                answer(&mut source, status, body).is_err(),
                "{status} {body}"
            );
        }
    }
}
