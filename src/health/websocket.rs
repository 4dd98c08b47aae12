//! The `websocket` check: a real opening handshake, verified as on the data path, then a ping where
//! configured.

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

use super::connection::{CheckConnection, drive};
use super::http::{check_status, describe, open, request_builder};
use super::plan::{CheckTarget, HttpCheck};
use crate::wire::websocket::{self, UpgradeOffer};

/// Largest message before the pong; a backend may greet first.
const MAX_MESSAGE_BYTES: usize = 64 << 10;

/// Payload of a ping, to recognize its pong.
const PING: &[u8] = b"evenkeel check";

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Succeeds on a valid 101, with `ping` on the pong after it, and on another configured status.
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
    let answer = if ping {
        pong(&mut socket).await
    } else {
        Ok(())
    };
    // After a Close the backend logs no abnormal end. It may be gone already: that is not checked.
    let _ = socket.close(None).await;
    answer
}

/// Opens a WebSocket; `None`: the response has another configured status.
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
        websocket::check_response(answer.status().as_u16(), answer.headers(), &offer)
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

/// Text of a protocol; it was ASCII when it was configured.
fn read_protocol(protocol: &HeaderValue) -> String {
    String::from_utf8_lossy(protocol.as_bytes()).into_owned()
}

fn handshake(
    target: &CheckTarget,
    request: &HttpCheck,
    offer: &UpgradeOffer,
) -> Result<Request<Empty<Bytes>>, String> {
    let mut builder = request_builder(target, request)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, websocket::VERSION)
        .header(SEC_WEBSOCKET_KEY, &offer.key[..]);
    for protocol in &offer.protocols {
        builder = builder.header(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    let handshake = builder.body(Empty::new());
    handshake.map_err(|error| format!("http: {error}"))
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
