//! The `websocket` check: a real opening handshake, verified as on the data path, then a ping where configured.

use std::future::Future;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
};
use http::{Request, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::http::{AGENT, MAX_HEAD_BYTES, reason};
use super::plan::Target;
use super::probe::Connection;
use crate::wire::websocket::{self, Offer};

/// Largest message taken while a pong is waited for; a backend may greet first.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// What a ping carries, so that its pong is known.
const PING: &[u8] = b"evenkeel check";

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Succeeds on a valid 101, with `ping` on the pong behind it.
pub(super) async fn ask(
    stream: impl Connection,
    target: &Target,
    path: &Uri,
    ping: bool,
) -> Result<(), String> {
    let mut socket = open(stream, target, path).await?;
    let answer = match ping {
        true => pong(&mut socket).await,
        false => Ok(()),
    };
    // Told goodbye, the backend logs no abnormal end. It may be gone already: that is not what is asked.
    let _ = socket.close(None).await;
    answer
}

async fn open(stream: impl Connection, target: &Target, path: &Uri) -> Result<Socket, String> {
    let offer = Offer {
        key: websocket::encode_key(fastrand::u128(..).to_be_bytes()),
        protocols: Vec::new(),
    };
    let request = request(target, path, &offer)?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| reason(&error))?;
    let upgraded = async {
        let mut answer = sender
            .send_request(request)
            .await
            .map_err(|error| reason(&error))?;
        let status = answer.status();
        websocket::check_response(status, answer.headers(), &offer).map_err(
            |error| match error {
                websocket::AnswerError::Status => {
                    format!("status {} (wanted 101)", status.as_u16())
                }
                error => format!("websocket: {error}"),
            },
        )?;
        let upgraded = hyper::upgrade::on(&mut answer).await;
        upgraded.map_err(|error| reason(&error))
    };
    let upgraded = drive(connection.with_upgrades(), upgraded).await?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let io = TokioIo::new(upgraded);
    Ok(WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await)
}

fn request(target: &Target, path: &Uri, offer: &Offer) -> Result<Request<Empty<Bytes>>, String> {
    Request::builder()
        .uri(path)
        .header(HOST, &target.host)
        .header(USER_AGENT, AGENT)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, websocket::VERSION)
        .header(SEC_WEBSOCKET_KEY, &offer.key)
        .body(Empty::new())
        .map_err(|error| format!("http: {error}"))
}

/// Polls hyper's connection while `answer` is waited for: without a task of its own it ends with the check.
pub(super) async fn drive<T>(
    connection: impl Future<Output = hyper::Result<()>>,
    answer: impl Future<Output = T>,
) -> T {
    let mut connection = std::pin::pin!(connection);
    let mut answer = std::pin::pin!(answer);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection's end has reached the answer's side too, as its value or its error.
        _ = &mut connection => answer.await,
    }
}

async fn pong(socket: &mut Socket) -> Result<(), String> {
    let failed = |error: tungstenite::Error| format!("ping: {error}");
    let ping = Message::Ping(Bytes::from_static(PING));
    socket.send(ping).await.map_err(failed)?;
    loop {
        match socket.next().await {
            Some(Ok(Message::Pong(payload))) if payload == PING => return Ok(()),
            Some(Ok(Message::Close(_))) | None => return Err("ping: closed before the pong".into()),
            Some(Ok(_)) => {}
            Some(Err(error)) => return Err(failed(error)),
        }
    }
}
