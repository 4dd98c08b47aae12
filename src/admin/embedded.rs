//! Files that the binary holds, compressed: those of the dashboard, and the description of the API.
//!
//! The page holds no secret and needs no token: it asks the API like any other client.

use std::io::Read as _;
use std::sync::LazyLock;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use data_encoding::HEXLOWER;
use flate2::read::GzDecoder;
use http::StatusCode;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, ETAG, HeaderMap,
    HeaderName, HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY, X_FRAME_OPTIONS,
};

use super::reply::{ApiError, Reply, reply};

// `FILES`: name and gzip of each file of dashboard/dist. `DESCRIPTION`: gzip of the description.
include!(concat!(env!("OUT_DIR"), "/embedded.rs"));

/// Nothing from elsewhere, nothing inline, no frame around it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; \
                      form-action 'self'; frame-ancestors 'none'";

/// File that the binary holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asset {
    name: &'static str,
    /// The file as gzip.
    packed: &'static [u8],
    /// Weak, as it is the same for both encodings.
    tag: HeaderValue,
}

static ASSETS: LazyLock<Vec<Asset>> = LazyLock::new(|| {
    let files = FILES.iter().chain(&[("openapi.json", DESCRIPTION)]);
    files
        .filter_map(|(name, packed)| Asset::new(name, packed))
        .collect()
});

/// Finds the file of a path: `/` is the page, its others are below `/assets/`.
pub(super) fn find(path: &str) -> Option<&'static Asset> {
    let name = match path.strip_prefix('/')? {
        "" => "index.html",
        name => name.strip_prefix("assets/").map(|_| name)?,
    };
    named(name)
}

/// Finds the description of the API.
pub(super) fn description() -> Option<&'static Asset> {
    named("openapi.json")
}

fn named(name: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.name == name)
}

impl Asset {
    fn new(name: &'static str, packed: &'static [u8]) -> Option<Asset> {
        let hash = HEXLOWER.encode(digest(&SHA256, packed).as_ref());
        let tag = HeaderValue::try_from(format!("W/\"{hash}\"")).ok()?;
        Some(Asset { name, packed, tag })
    }

    /// Answers with the file, or with 304 where the client has it.
    ///
    /// # Errors
    /// The binary is broken.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Result<Reply, ApiError> {
        let packed = lists(headers, &ACCEPT_ENCODING, |word| word == "gzip");
        let mut reply = if lists(headers, &IF_NONE_MATCH, |tag| tag == self.tag) {
            reply(StatusCode::NOT_MODIFIED, self.kind(), "")
        } else if packed {
            reply(StatusCode::OK, self.kind(), self.packed)
        } else {
            reply(StatusCode::OK, self.kind(), self.unpack()?)
        };
        let is_packed = packed && reply.status() == StatusCode::OK;
        let gzip = is_packed.then_some((CONTENT_ENCODING, "gzip"));
        let fields = [
            // Kept, and asked for again each time: the next process may have another.
            (CACHE_CONTROL, "no-cache"),
            (VARY, "accept-encoding"),
            (CONTENT_SECURITY_POLICY, POLICY),
            (X_FRAME_OPTIONS, "DENY"),
            (REFERRER_POLICY, "no-referrer"),
        ];
        let headers = reply.headers_mut();
        for (name, value) in fields.into_iter().chain(gzip) {
            headers.insert(name, HeaderValue::from_static(value));
        }
        headers.insert(ETAG, self.tag.clone());
        Ok(reply)
    }

    /// Unpacks the file for a client that takes no gzip. A few hundred KB at most: they were packed
    /// by the build.
    fn unpack(&self) -> Result<Bytes, ApiError> {
        let mut contents = Vec::new();
        let unpacked = GzDecoder::new(self.packed).read_to_end(&mut contents);
        unpacked.map_err(|error| {
            let message = format!("{}: {error}", self.name);
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, message)
        })?;
        Ok(contents.into())
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

/// Whether a list in a header has a word that is as `wanted`.
fn lists(headers: &HeaderMap, name: &HeaderName, wanted: impl Fn(&str) -> bool) -> bool {
    let lines = headers.get_all(name).iter();
    let mut lines = lines.filter_map(|line| line.to_str().ok());
    lines.any(|line| line.split(',').any(|word| wanted(word.trim())))
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

    #[test]
    fn each_file_unpacks() {
        assert!(ASSETS.len() >= 2);
        for asset in ASSETS.iter() {
            assert!(!asset.unpack().unwrap().is_empty(), "{}", asset.name);
        }
        let description = description().unwrap().unpack().unwrap();
        assert!(serde_json::from_slice::<serde_json::Value>(&description).is_ok());
    }

    /// A browser would refuse what the policy forbids, and nobody else would notice.
    #[test]
    fn the_page_has_nothing_inline() {
        let page = find("/").unwrap().unpack().unwrap();
        let page = std::str::from_utf8(&page).unwrap();
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
