//! A collector of traces, to which bytes are posted by the client of registries: over one
//! connection, plain or TLS, by name or address.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};

use super::client::HttpClient;
use crate::config::{BackendTls, RegistryUrl};
use crate::discovery::fault::Fault;

/// A connection to a collector, made anew when it is lost.
pub(crate) struct Collector {
    client: HttpClient,
    path: String,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct CollectorAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Collector {
    /// A collector at `path` of `url`; `timeout`: of one request.
    pub(crate) fn new(
        url: &RegistryUrl,
        path: &str,
        tls: Option<&BackendTls>,
        timeout: Duration,
    ) -> Collector {
        Collector {
            client: HttpClient::new(std::slice::from_ref(url), tls, timeout),
            path: path.to_owned(),
        }
    }

    /// Posts bytes and reads the answer.
    ///
    /// # Errors
    /// Names the server, and says why there is no answer.
    pub(crate) async fn post(
        &mut self,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<CollectorAnswer, String> {
        let answered = self.try_post(headers, body).await;
        answered.map_err(|fault| {
            // Nothing of it is kept: not its connection, not the files of its TLS.
            self.client.turn();
            fault.message
        })
    }

    async fn try_post(
        &mut self,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<CollectorAnswer, Fault> {
        let mut builder = Request::builder().method(Method::POST).uri(&self.path);
        if let Some(all) = builder.headers_mut() {
            all.extend(headers.clone());
        }
        let answer = self.client.send_built(builder, body).await?;
        Ok(CollectorAnswer {
            status: answer.status,
            headers: answer.headers,
            body: self.client.read_whole(answer.body).await?,
        })
    }
}
