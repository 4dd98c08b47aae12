//! One request to the admin endpoint over TCP, TLS or a unix socket, and its errors in words that
//! help.

use std::io::{self, ErrorKind};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, SERVER};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls_pki_types::{InvalidDnsNameError, ServerName};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::io::InspectReader;

use super::first_bytes::FirstBytes;
use super::layout::clean;
use super::target::AdminTarget;
use crate::admin::view::ErrorView;
use crate::base::units::format_duration;
use crate::cli::failure::CommandError;
use crate::config::Bind;
use crate::tls::describe_handshake_error;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A status of ten thousand backends takes about 8 MB.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

trait CallStream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> CallStream for S {}

/// Request of the admin API.
pub(super) struct ApiRequest<'a> {
    method: Method,
    path: &'a str,
    /// JSON; empty where there is nothing to say.
    body: String,
}

impl<'a> ApiRequest<'a> {
    pub(super) fn get(path: &'a str) -> ApiRequest<'a> {
        ApiRequest::new(Method::GET, path, String::new())
    }

    pub(super) fn delete(path: &'a str) -> ApiRequest<'a> {
        ApiRequest::new(Method::DELETE, path, String::new())
    }

    pub(super) fn post(path: &'a str, body: &Value) -> ApiRequest<'a> {
        ApiRequest::new(Method::POST, path, body.to_string())
    }

    pub(super) fn put(path: &'a str, body: &Value) -> ApiRequest<'a> {
        ApiRequest::new(Method::PUT, path, body.to_string())
    }

    fn new(method: Method, path: &'a str, body: String) -> ApiRequest<'a> {
        ApiRequest { method, path, body }
    }
}

/// Sends a request, and returns the body of a successful answer.
///
/// # Errors
/// The endpoint cannot be reached, does not answer within `patience`, or answers with an error.
pub(super) async fn send(
    target: &AdminTarget,
    request: ApiRequest<'_>,
    patience: Duration,
) -> Result<Bytes, CommandError> {
    body(target, reply(target, request, patience).await?)
}

fn body(target: &AdminTarget, answer: CallReply) -> Result<Bytes, CommandError> {
    if answer.status.is_success() && answer.is_json() {
        Ok(answer.body)
    } else {
        Err(refused(target, &answer))
    }
}

/// As [`send`]; `None` where the endpoint asks to come back later (503 with `Retry-After`).
///
/// # Errors
/// Those of [`send`].
pub(super) async fn send_unless_later(
    target: &AdminTarget,
    request: ApiRequest<'_>,
    patience: Duration,
) -> Result<Option<Bytes>, CommandError> {
    let answer = reply(target, request, patience).await?;
    let is_unavailable = answer.status == StatusCode::SERVICE_UNAVAILABLE;
    if is_unavailable && answer.headers.contains_key(RETRY_AFTER) {
        return Ok(None);
    }
    body(target, answer).map(Some)
}

/// Returns the text of a page that is no JSON, such as `/healthz`.
///
/// # Errors
/// The endpoint cannot be reached, does not answer within `patience`, or answers with an error.
pub(super) async fn text(
    target: &AdminTarget,
    path: &str,
    patience: Duration,
) -> Result<String, CommandError> {
    let answer = reply(target, ApiRequest::get(path), patience).await?;
    let text = clean(String::from_utf8_lossy(&answer.body).trim());
    if answer.status.is_success() {
        Ok(text + "\n")
    } else {
        let status = answer.status;
        Err(CommandError::Other(format!("{status} from {path}: {text}")))
    }
}

async fn reply(
    target: &AdminTarget,
    request: ApiRequest<'_>,
    patience: Duration,
) -> Result<CallReply, CommandError> {
    let late = |_| {
        io::Error::new(
            ErrorKind::TimedOut,
            format!("timed out after {}", format_duration(CONNECT_TIMEOUT)),
        )
    };
    let connected = timeout(CONNECT_TIMEOUT, connect(target)).await;
    let stream = connected
        .map_err(late)
        .flatten()
        .map_err(|error| unreachable_endpoint(target, &error))?;
    let request = request.for_target(target)?;
    let seen = FirstBytes::default();
    let recorder = seen.clone();
    let stream = InspectReader::new(stream, move |bytes: &[u8]| recorder.add(bytes));
    let answer = exchange(stream, request);
    match timeout(patience, answer).await {
        Ok(answer) => answer.map_err(|error| unanswered(target, &seen, &error)),
        Err(_) => {
            let error = format!("no answer within {}", format_duration(patience));
            Err(unanswered(target, &seen, &error))
        }
    }
}

/// Answer of whatever listens at the address.
struct CallReply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl CallReply {
    fn is_json(&self) -> bool {
        let kind = self.headers.get(CONTENT_TYPE);
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"))
    }
}

async fn connect(target: &AdminTarget) -> io::Result<Box<dyn CallStream>> {
    let stream: Box<dyn CallStream> = match &target.address {
        Bind::Tcp(address) => Box::new(TcpStream::connect(address).await?),
        Bind::Unix(path) => Box::new(UnixStream::connect(path).await?),
    };
    let Some(trust) = &target.tls else {
        return Ok(stream);
    };
    let connector = TlsConnector::from(trust.client_config()?);
    let name = server_name(target).map_err(io::Error::other)?;
    Ok(Box::new(connector.connect(name, stream).await?))
}

fn server_name(target: &AdminTarget) -> Result<ServerName<'static>, InvalidDnsNameError> {
    match (&target.name, &target.address) {
        (Some(name), _) => ServerName::try_from(name.clone()),
        (None, Bind::Tcp(address)) => Ok(ServerName::from(address.ip())),
        (None, Bind::Unix(_)) => ServerName::try_from("localhost"),
    }
}

impl ApiRequest<'_> {
    fn for_target(self, target: &AdminTarget) -> Result<Request<Full<Bytes>>, CommandError> {
        let host = match (&target.name, &target.address) {
            (Some(name), Bind::Tcp(address)) => format!("{name}:{}", address.port()),
            (None, Bind::Tcp(address)) => address.to_string(),
            (_, Bind::Unix(_)) => "localhost".to_owned(),
        };
        let mut request = Request::builder()
            .method(self.method)
            .uri(self.path)
            .header(HOST, host)
            .header(CONTENT_TYPE, "application/json");
        if let Some(token) = &target.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let unfit = |error| CommandError::Other(format!("the token cannot be sent: {error}"));
        request.body(self.body.into()).map_err(unfit)
    }
}

async fn exchange(
    stream: impl CallStream + 'static,
    request: Request<Full<Bytes>>,
) -> Result<CallReply, String> {
    let shake = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shake.map_err(|error| error.to_string())?;
    // An error of the connection is seen by the request as well.
    let driver = tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
    driver.abort();
    let body = body.map_err(|error| error.to_string())?;
    Ok(CallReply {
        status: head.status,
        headers: head.headers,
        body: body.to_bytes(),
    })
}

fn unreachable_endpoint(target: &AdminTarget, error: &io::Error) -> CommandError {
    const LOOK: &str = "; is evenkeel running, and does its configuration have [admin]?";
    let (reason, hint) = match error.kind() {
        _ if is_no_tls(error) => ("it does not speak TLS; use http://".to_owned(), ""),
        ErrorKind::ConnectionRefused => ("connection refused".to_owned(), LOOK),
        ErrorKind::NotFound => ("no such socket".to_owned(), LOOK),
        ErrorKind::PermissionDenied => return denied(target),
        _ => (describe_handshake_error(error), ""),
    };
    CommandError::Other(format!("no admin endpoint at {target}: {reason}{hint}"))
}

/// Error of a socket that this user may not open; the balancer may well run.
fn denied(target: &AdminTarget) -> CommandError {
    use std::os::unix::fs::MetadataExt as _;
    let file = match &target.address {
        Bind::Unix(path) => std::fs::metadata(path).ok(),
        Bind::Tcp(_) => None,
    };
    let whose = file.map(|file| {
        let (user, group, mode) = (file.uid(), file.gid(), file.mode() & 0o777);
        format!(": its file is of user {user}, group {group}, mode {mode:04o}")
    });
    let whose = whose.unwrap_or_default();
    CommandError::Other(format!("permission to ask at {target} is denied{whose}"))
}

/// Whether the answer to a handshake was no TLS.
fn is_no_tls(error: &io::Error) -> bool {
    use tokio_rustls::rustls::Error;
    let cause = error.get_ref().and_then(|error| error.downcast_ref());
    matches!(cause, Some(Error::InvalidMessage(_)))
}

fn unanswered(target: &AdminTarget, seen: &FirstBytes, reason: &str) -> CommandError {
    CommandError::Other(match seen.describe() {
        Some(what) => format!("no admin endpoint at {target}: {what}"),
        None => format!("no answer of the admin endpoint at {target}: {reason}"),
    })
}

/// Whether a server tells a client without TLS that it needs some, as ours, nginx and Go's do.
fn says_tls(status: StatusCode, body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    status == StatusCode::BAD_REQUEST && ["TLS", "HTTPS"].iter().any(|word| text.contains(word))
}

fn refused(target: &AdminTarget, answer: &CallReply) -> CommandError {
    let CallReply {
        status,
        headers,
        body,
    } = answer;
    let Ok(ErrorView {
        error,
        errors,
        drawn,
        local,
        ..
    }) = serde_json::from_slice(body)
    else {
        let server = headers.get(SERVER).map(|name| name.as_bytes());
        let server = server.map_or(String::new(), |name| format!(" ({})", name.escape_ascii()));
        let what = if says_tls(*status, body) {
            "it speaks TLS; use https://".to_owned()
        } else {
            format!("it answered {status}{server}, which is no admin endpoint's answer")
        };
        return CommandError::Other(format!("no admin endpoint at {target}: {what}"));
    };
    let hint = match *status {
        StatusCode::UNAUTHORIZED => "; give --token-file",
        _ => "",
    };
    if local {
        return CommandError::NotShared(clean(&error));
    }
    if let Some(drawn) = drawn {
        // It shows lines of a file of another machine.
        let lines: Vec<String> = drawn.lines().map(clean).collect();
        let drawn = lines.join("\n");
        return CommandError::Drawn { error, drawn };
    }
    let details: String = errors.iter().map(|detail| format!("\n{detail}")).collect();
    CommandError::Other(format!("{error}{hint}{details}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> AdminTarget {
        AdminTarget {
            address: Bind::Tcp(([127, 0, 0, 1], 9900).into()),
            name: None,
            token: None,
            tls: None,
            origin: "balancer.toml".into(),
        }
    }

    #[test]
    fn a_refused_connection_says_what_to_look_at() {
        let error = io::Error::from(ErrorKind::ConnectionRefused);
        assert_eq!(
            unreachable_endpoint(&target(), &error).to_string(),
            "no admin endpoint at 127.0.0.1:9900 (from balancer.toml): connection refused; is evenkeel running, and \
             does its configuration have [admin]?"
        );
    }

    #[test]
    fn a_socket_of_another_user_is_told_with_its_owner() {
        use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("admin.sock");
        std::fs::write(&path, "").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let file = std::fs::metadata(&path).unwrap();
        let target = AdminTarget {
            address: Bind::Unix(path.clone()),
            ..target()
        };
        let error = io::Error::from(ErrorKind::PermissionDenied);
        assert_eq!(
            unreachable_endpoint(&target, &error).to_string(),
            format!(
                "permission to ask at unix:{} (from balancer.toml) is denied: its file is of user {}, group {}, mode 0600",
                path.display(),
                file.uid(),
                file.gid()
            )
        );
    }

    fn answer(status: StatusCode, body: &'static [u8]) -> CallReply {
        CallReply {
            status,
            headers: HeaderMap::new(),
            body: Bytes::from_static(body),
        }
    }

    #[test]
    fn every_reason_of_a_refusal_is_shown() {
        let body = br#"{"error": "refused", "errors": ["line 1: bad", "line 2: worse"]}"#;
        let failure = refused(&target(), &answer(StatusCode::UNPROCESSABLE_ENTITY, body));
        assert_eq!(failure.to_string(), "refused\nline 1: bad\nline 2: worse");
    }

    #[test]
    fn an_answer_of_something_else_is_told_from_a_refusal() {
        let mut answer = answer(StatusCode::NOT_FOUND, b"<html>");
        answer.headers.insert(SERVER, "nginx".parse().unwrap());
        let failure = refused(&target(), &answer).to_string();
        let expected = "it answered 404 Not Found (nginx), which is no admin endpoint's answer";
        assert!(failure.contains(expected), "{failure}");
    }
}
