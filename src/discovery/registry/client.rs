//! The thin HTTP client of registries: one connection, one request at a time, bounded answers. It
//! follows no redirect: a registry has no reason for one, and a token must not go elsewhere.

use bytes::{Bytes, BytesMut};
use http::request::Builder;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use std::time::Duration;

use tokio_util::task::AbortOnDropHandle;

use super::SourceRequest;
use crate::config::{BackendTls, RegistryUrl};
use crate::discovery::bounded::{MAX_BODY, MAX_LINE};
use crate::discovery::fault::{Fault, FaultKind};
use crate::remote::RemoteServers;

/// A client of one registry.
pub(super) struct HttpClient {
    servers: RemoteServers,
    connection: Option<HttpConnection>,
    timeout: Duration,
}

/// An open connection; ends when it is dropped.
struct HttpConnection {
    sender: SendRequest<Full<Bytes>>,
    _task: AbortOnDropHandle<()>,
}

/// Head of an answer, its body still to be read.
pub(super) struct HttpAnswer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: HttpBody,
}

/// Body of an answer as it comes.
pub(super) struct HttpBody {
    incoming: Incoming,
    buffered: BytesMut,
}

impl HttpClient {
    pub(super) fn new(
        urls: &[RegistryUrl],
        tls: Option<&BackendTls>,
        timeout: Duration,
    ) -> HttpClient {
        HttpClient {
            servers: RemoteServers::new(urls, tls),
            connection: None,
            timeout,
        }
    }

    /// Ends the connection, and turns to the next server.
    pub(super) fn turn(&mut self) {
        self.connection = None;
        self.servers.turn();
    }

    /// Ends the connection: an answer on it was not read to its end.
    pub(super) fn close(&mut self) {
        self.connection = None;
    }

    /// Sends a request and reads the head of its answer. A connection that the server has closed
    /// meanwhile is replaced by a new one.
    ///
    /// # Errors
    /// Names the server.
    ///
    /// # Cancel safety
    /// Dropping it may leave an answer unread: call [`HttpClient::close`] then.
    pub(super) async fn send(
        &mut self,
        request: &SourceRequest,
        patience: Duration,
    ) -> Result<HttpAnswer, Fault> {
        let mut builder = Request::builder()
            .method(&request.method)
            .uri(&request.path);
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        let body = Bytes::from(request.body.clone());
        self.send_within(self.timeout + patience, builder, body)
            .await
    }

    /// As [`HttpClient::send`], of any request without a Host, within the time limit of a request.
    ///
    /// # Errors
    /// Names the server.
    ///
    /// # Cancel safety
    /// That of [`HttpClient::send`].
    #[cfg(feature = "traces")]
    pub(super) async fn send_built(
        &mut self,
        builder: Builder,
        body: Bytes,
    ) -> Result<HttpAnswer, Fault> {
        self.send_within(self.timeout, builder, body).await
    }

    async fn send_within(
        &mut self,
        limit: Duration,
        builder: Builder,
        body: Bytes,
    ) -> Result<HttpAnswer, Fault> {
        let sent = tokio::time::timeout(limit, self.try_send(builder, body)).await;
        sent.unwrap_or_else(|_| {
            let at = self.servers.url().map(ToString::to_string);
            let message = format!("{}: no answer in time", at.unwrap_or_default());
            Err(Fault::new(FaultKind::Timeout, message))
        })
    }

    async fn try_send(&mut self, builder: Builder, body: Bytes) -> Result<HttpAnswer, Fault> {
        if let Some(mut kept) = self.connection.take()
            && kept.sender.ready().await.is_ok()
        {
            self.connection = Some(kept);
        }
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        let connection = self.connection.insert(connection);
        let Some(url) = self.servers.url() else {
            return Err(Fault::new(
                FaultKind::Unreachable,
                "no address of the registry",
            ));
        };
        let failed = |error: &dyn std::fmt::Display| {
            Fault::new(FaultKind::Unreachable, format!("{url}: {error}"))
        };
        // The error of a bad header would show its value.
        let built = builder
            .header(header::HOST, url.authority())
            .body(Full::new(body))
            .map_err(|_| failed(&"a header that cannot be sent"))?;
        let answer = connection.sender.send_request(built).await;
        let (head, incoming) = answer.map_err(|error| failed(&error))?.into_parts();
        Ok(HttpAnswer {
            status: head.status,
            headers: head.headers,
            body: HttpBody {
                incoming,
                buffered: BytesMut::new(),
            },
        })
    }

    async fn connect(&mut self) -> Result<HttpConnection, Fault> {
        let stream = self.servers.connect(self.timeout).await?;
        let failed = |error: hyper::Error| Fault::new(FaultKind::Unreachable, error.to_string());
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let task = tokio::spawn(async move {
            // Its end is seen by the sender.
            let _ = connection.await;
        });
        Ok(HttpConnection {
            sender,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Reads a whole body within the time limit of a request.
    ///
    /// # Errors
    /// It is cut, too large, or too slow.
    pub(super) async fn read_whole(&self, mut body: HttpBody) -> Result<Vec<u8>, Fault> {
        let read = async {
            let mut whole = Vec::new();
            while let Some(bytes) = body.more().await? {
                if whole.len() + bytes.len() > MAX_BODY {
                    let what = format!("an answer of more than {MAX_BODY} bytes");
                    return Err(Fault::new(FaultKind::TooLarge, what));
                }
                whole.extend_from_slice(&bytes);
            }
            Ok(whole)
        };
        let read = tokio::time::timeout(self.timeout, read).await;
        read.unwrap_or_else(|_| {
            let what = "the answer did not end in time";
            Err(Fault::new(FaultKind::Timeout, what))
        })
    }
}

impl HttpBody {
    /// Returns the next line without its end; `None` at the end of the body. A line that is not
    /// ended is none.
    ///
    /// # Errors
    /// The connection broke, or the line is too long.
    ///
    /// # Cancel safety
    /// Bytes that were read stay for the next call.
    pub(super) async fn line(&mut self) -> Result<Option<BytesMut>, Fault> {
        let mut searched = 0;
        loop {
            let end = self
                .buffered
                .iter()
                .skip(searched)
                .position(|byte| *byte == b'\n');
            if let Some(end) = end {
                let mut line = self.buffered.split_to(searched + end + 1);
                line.truncate(searched + end);
                return Ok(Some(line));
            }
            searched = self.buffered.len();
            if searched > MAX_LINE {
                let what = format!("a line of more than {MAX_LINE} bytes");
                return Err(Fault::new(FaultKind::TooLarge, what));
            }
            match self.more().await? {
                Some(bytes) => self.buffered.extend_from_slice(&bytes),
                None => return Ok(None),
            }
        }
    }

    async fn more(&mut self) -> Result<Option<Bytes>, Fault> {
        while let Some(frame) = self.incoming.frame().await {
            let frame = frame.map_err(|error| {
                let what = format!("the answer was cut: {error}");
                Fault::new(FaultKind::Unreachable, what)
            })?;
            if let Ok(bytes) = frame.into_data() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}
