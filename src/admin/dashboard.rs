//! Files of the dashboard, which the binary holds. They hold no secret and need no token: the page
//! asks the API like any other client.

use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use http::StatusCode;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH,
    REFERRER_POLICY, X_FRAME_OPTIONS,
};

use super::reply::{Reply, reply};

// `FILES`: name and contents of each file of dashboard/dist.
include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// Nothing from elsewhere, nothing inline, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
                      form-action 'self'; frame-ancestors 'none'";

/// A file of the dashboard.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asset {
    name: &'static str,
    contents: &'static [u8],
    tag: HeaderValue,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let asset = |&(name, contents): &(&'static str, &'static [u8])| {
        let hash = HEXLOWER.encode(digest(&SHA256, contents).as_ref());
        let tag = HeaderValue::try_from(format!("\"{hash}\"")).ok()?;
        Some(Asset {
            name,
            contents,
            tag,
        })
    };
    FILES.iter().filter_map(asset).collect()
});

/// Finds the file of a path: `/` is the page, the others are below `/assets/`.
pub(super) fn find(path: &str) -> Option<&'static Asset> {
    let name = match path.strip_prefix('/')? {
        "" => "index.html",
        name => name.strip_prefix("assets/").map(|_| name)?,
    };
    ASSETS.iter().find(|asset| asset.name == name)
}

impl Asset {
    /// Answers with the file, or with 304 where the client has it.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Reply {
        let known = headers.get_all(IF_NONE_MATCH).iter();
        let mut known = known.filter_map(|line| line.to_str().ok());
        let is_known = known.any(|line| line.split(',').any(|tag| tag.trim() == self.tag));
        let mut reply = if is_known {
            reply(StatusCode::NOT_MODIFIED, self.kind(), "")
        } else {
            reply(StatusCode::OK, self.kind(), self.contents)
        };
        let headers = reply.headers_mut();
        // Kept, and asked for again each time: the next process may have another.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(ETAG, self.tag.clone());
        let policy = HeaderValue::from_static(POLICY);
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        reply
    }

    fn kind(&self) -> &'static str {
        match self.name.rsplit('.').next() {
            Some("html") => "text/html; charset=utf-8",
            Some("js") => "text/javascript; charset=utf-8",
            Some("css") => "text/css; charset=utf-8",
            Some("svg") => "image/svg+xml",
            Some("png") => "image/png",
            Some("ico") => "image/x-icon",
            Some("woff2") => "font/woff2",
            Some("json" | "map") => "application/json",
            Some("webmanifest") => "application/manifest+json",
            _ => "application/octet-stream",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_there_and_no_path_leads_elsewhere() {
        let page = find("/").unwrap();
        assert_eq!(page.name, "index.html");
        assert!(std::ptr::eq(find("/").unwrap(), page));
        for path in [
            "",
            "/index.html",
            "/assets/",
            "/assets/../index.html",
            "/assets/none.js",
        ] {
            assert!(find(path).is_none(), "{path}");
        }
    }

    /// What a policy forbids would not work, and is found only in a browser.
    #[test]
    fn the_page_has_nothing_inline() {
        let page = std::str::from_utf8(find("/").unwrap().contents).unwrap();
        for inline in ["<style", " style=", " onclick=", " onload=", "javascript:"] {
            assert!(!page.contains(inline), "{inline}");
        }
        for script in page.split("<script").skip(1) {
            assert!(
                script.split('>').next().unwrap().contains("src="),
                "{script}"
            );
        }
    }
}
