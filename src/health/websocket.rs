//! The `websocket` check: a real opening handshake, verified as on the data path, then a ping where configured.

use std::future::Future;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Empty;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};

use super::http::{check_status, describe, open, request_builder};
use super::plan::{CheckTarget, HttpCheck};
use super::probe::CheckConnection;
use crate::wire::websocket::{self, UpgradeOffer};

/// Largest message taken while a pong is waited for; a backend may greet first.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// What a ping carries, so that its pong is known.
const PING: &[u8] = b"evenkeel check";

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Succeeds on a valid 101, with `ping` on the pong behind it, and on another status that is wanted.
pub(super) async fn ask(
    stream: impl CheckConnection,
    target: &CheckTarget,
    request: &HttpCheck,
    protocol: Option<&HeaderValue>,
    ping: bool,
) -> Result<(), String> {
    let Some(mut socket) = open_websocket(stream, target, request, protocol).await? else {
        return Ok(());
    };
    let answer = match ping {
        true => pong(&mut socket).await,
        false => Ok(()),
    };
    // Told goodbye, the backend logs no abnormal end. It may be gone already: that is not what is asked.
    let _ = socket.close(None).await;
    answer
}

/// `None`: the answer has another status, and it is a wanted one.
async fn open_websocket(
    stream: impl CheckConnection,
    target: &CheckTarget,
    request: &HttpCheck,
    protocol: Option<&HeaderValue>,
) -> Result<Option<Socket>, String> {
    let offer = UpgradeOffer {
        key: websocket::encode_key(fastrand::u128(..).to_be_bytes()),
        protocols: protocol.map(read_protocol).into_iter().collect(),
    };
    let handshake = handshake(target, request, &offer)?;
    let (mut sender, connection) = open(stream, request).await?;
    let upgraded = async {
        let answer = sender.send_request(handshake).await;
        let mut answer = answer.map_err(|error| describe(&error))?;
        check_status(answer.status(), &request.status)?;
        if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(None);
        }
        websocket::check_response(answer.status(), answer.headers(), &offer)
            .map_err(|error| format!("websocket: {error}"))?;
        let upgraded = hyper::upgrade::on(&mut answer).await;
        upgraded.map(Some).map_err(|error| describe(&error))
    };
    let Some(upgraded) = drive(connection.with_upgrades(), upgraded).await? else {
        return Ok(None);
    };
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE_BYTES))
        .max_frame_size(Some(MAX_MESSAGE_BYTES));
    let io = TokioIo::new(upgraded);
    Ok(Some(
        WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await,
    ))
}

/// It was a string of ASCII when it was configured.
fn read_protocol(protocol: &HeaderValue) -> String {
    String::from_utf8_lossy(protocol.as_bytes()).into_owned()
}

fn handshake(
    target: &CheckTarget,
    request: &HttpCheck,
    offer: &UpgradeOffer,
) -> Result<Request<Empty<Bytes>>, String> {
    let mut begun = request_builder(target, request)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, websocket::VERSION)
        .header(SEC_WEBSOCKET_KEY, &offer.key);
    for protocol in &offer.protocols {
        begun = begun.header(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let handshake = begun.body(Empty::new());
    handshake.map_err(|error| format!("http: {error}"))
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
