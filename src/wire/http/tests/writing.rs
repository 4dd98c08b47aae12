use super::*;

fn forwarded_request(stream: &str, hop: NextHop, edits: &Edits<'_>) -> String {
    let mut reader = RequestReader::new(HeadLimits::REQUEST);
    reader.next(stream.as_bytes()).unwrap();
    let mut out = Vec::new();
    write_request(reader.head(stream.as_bytes()), hop, edits, &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

fn plain(stream: &str) -> String {
    forwarded_request(stream, NextHop::KeepAlive, &Edits::default())
}

const OF_11: ClientHop = ClientHop {
    version: HttpVersion::Http11,
    closes: false,
};
const OF_10: ClientHop = ClientHop {
    version: HttpVersion::Http10,
    closes: false,
};

fn forwarded_response(asked: Asked, stream: &str, hop: ClientHop) -> (String, ForwardedResponse) {
    let mut reader = ResponseReader::new(HeadLimits::RESPONSE, asked);
    let event = reader.next(stream.as_bytes()).unwrap();
    assert!(matches!(event, Some(Event::Head(_))));
    let mut out = Vec::new();
    let head = reader.head(stream.as_bytes());
    let forwarded = write_response(head, hop, &Edits::default(), &mut out);
    (String::from_utf8_lossy(&out).into_owned(), forwarded)
}

fn answer(stream: &str) -> String {
    forwarded_response(Asked::Ordinary, stream, OF_11).0
}

#[test]
fn a_request_keeps_order_and_spelling_and_loses_what_ends_at_this_hop() {
    let stream = "POST http://a/x?y HTTP/1.1\r\n\
        hOsT: a\r\n\
        connection: keep-alive, X-Mine, Content-Length, Host, Upgrade, HTTP2-Settings\r\n\
        X-mine: 1\r\nACCEPT:*/*\r\nkeep-alive: timeout=5\r\nTE: trailers\r\nTrailer: x\r\n\
        Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nProxy-Connection: keep-alive\r\n\
        Proxy-Authorization: Basic x\r\nX-Other:\r\nConnection: x-other\r\n\
        Expect: 100-continue\r\naccept:  text/html \r\nContent-Length: 5\r\n\r\n";
    let kept = "hOsT: a\r\nACCEPT: */*\r\nExpect: 100-continue\r\naccept: text/html\r\n\
        Content-Length: 5\r\n";
    assert_eq!(plain(stream), format!("POST /x?y HTTP/1.1\r\n{kept}\r\n"));
    let closing = forwarded_request(stream, NextHop::Close, &Edits::default());
    assert_eq!(
        closing,
        format!("POST /x?y HTTP/1.1\r\n{kept}Connection: close\r\n\r\n")
    );
}

#[test]
fn connection_removes_nothing_that_decides() {
    let kept = [
        "Content-Length: 1",
        "X-Forwarded-For: 10.0.0.1",
        "X-Forwarded-Port: 80",
        "X-Real-IP: 10.0.0.1",
        "X-Client-Cert-Subject: CN=a",
        "Forwarded: for=10.0.0.1",
        "Cookie: a=b",
        "Authorization: Basic x",
        "Origin: null",
        "X-Request-Id: 1",
        "Sec-WebSocket-Protocol: chat",
    ];
    for line in kept {
        let name = line.split(':').next().unwrap().to_uppercase();
        let stream = format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {name}\r\n{line}\r\n\r\n");
        assert_eq!(
            plain(&stream),
            format!("GET / HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n")
        );
    }
    let stream =
        "HTTP/1.1 204 No\r\nConnection: Set-Cookie, x-a\r\nSet-Cookie: a=b\r\nX-A: 1\r\n\r\n";
    assert_eq!(answer(stream), "HTTP/1.1 204 No\r\nSet-Cookie: a=b\r\n\r\n");
}

#[test]
fn no_name_is_an_alias_of_a_field_that_decides() {
    let names = [
        "Transfer_Encoding",
        "Content_Length",
        "Sec_WebSocket_Key",
        "Sec-WebSocket_Protocol",
        "Content.Length",
        "X_Forwarded_Port",
        "X_Real_IP",
        "X_Client-Cert_Subject",
        "Proxy_Authorization",
        "Ho\u{7e}st",
    ];
    for name in names {
        let stream = format!("GET / HTTP/1.1\r\nHost: a\r\n{name}: 1\r\nuser_id: 7\r\n\r\n");
        let is_kept = plain(&stream).contains(name);
        assert_eq!(is_kept, name.starts_with("Ho"), "{name}");
        assert!(plain(&stream).contains("user_id: 7"));
    }
}

#[test]
fn a_target_becomes_origin_form() {
    let line = |method: &str, target: &str| {
        let stream = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        plain(&stream).lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(line("GET", "http://a"), "GET / HTTP/1.1");
    assert_eq!(line("GET", "wss://a?x"), "GET /?x HTTP/1.1");
    assert_eq!(line("GET", "ws://a/x?y"), "GET /x?y HTTP/1.1");
    assert_eq!(line("GET", "/x//y?"), "GET /x//y? HTTP/1.1");
    assert_eq!(line("OPTIONS", "http://a"), "OPTIONS * HTTP/1.1");
    assert_eq!(line("OPTIONS", "http://a/"), "OPTIONS / HTTP/1.1");
    assert_eq!(line("OPTIONS", "*"), "OPTIONS * HTTP/1.1");
}

#[test]
fn a_chunked_request_stays_chunked_with_its_trailer() {
    let stream = "POST / HTTP/1.1\r\nHost: a\r\nTRANSFER-ENCODING: Chunked\r\nTrailer: X\r\n\r\n";
    assert_eq!(
        plain(stream),
        "POST / HTTP/1.1\r\nHost: a\r\nTrailer: X\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
}

#[test]
fn connection_cannot_remove_the_framing_of_a_chunked_body() {
    let stream = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\
        Connection: transfer-encoding\r\n\r\n";
    assert_eq!(
        plain(stream),
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
}

#[test]
fn an_old_clients_request_expects_nothing() {
    let stream = "POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
    let mut edits = Edits::default();
    edits.set("Host", b"10.0.0.1:80");
    assert_eq!(
        forwarded_request(stream, NextHop::KeepAlive, &edits),
        "POST / HTTP/1.1\r\nContent-Length: 1\r\nHost: 10.0.0.1:80\r\n\r\n"
    );
}

#[test]
fn an_upgrade_asks_for_nothing_but_a_websocket() {
    let stream = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, Sec-WebSocket-Key\r\n\
        Upgrade: h2c, websocket\r\nHTTP2-Settings: AAMAAABk\r\nSec-WebSocket-Key: x\r\n\r\n";
    let mut edits = Edits::default();
    edits.extend("X-Forwarded-For", b"192.0.2.7");
    assert_eq!(
        forwarded_request(stream, NextHop::Upgrade, &edits),
        "GET /chat HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: x\r\nX-Forwarded-For: 192.0.2.7\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
}

#[test]
fn an_answer_loses_the_backends_hop_and_gets_this_one() {
    let stream = "HTTP/1.1 200 Fine \u{e9}\r\nconnection: keep-alive, x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
        sErVer: x\r\nUpgrade: h2c\r\nTrailer: X\r\nProxy-Authenticate: Basic\r\nContent-Length: 05, 5\r\n\
        content-length: 5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n";
    let kept = "HTTP/1.1 200 Fine \u{e9}\r\nsErVer: x\r\nContent-Length: 5\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n";
    assert_eq!(answer(stream), format!("{kept}\r\n"));
    let closing = ClientHop {
        closes: true,
        ..OF_11
    };
    let (head, forwarded) = forwarded_response(Asked::Ordinary, stream, closing);
    assert_eq!(head, format!("{kept}Connection: close\r\n\r\n"));
    assert!(forwarded.closes);
    let (head, forwarded) = forwarded_response(Asked::Ordinary, stream, OF_10);
    assert_eq!(head, format!("{kept}Connection: keep-alive\r\n\r\n"));
    assert!(!forwarded.closes);
}

#[test]
fn a_body_goes_as_the_client_can_read_it() {
    use BodyTransfer::{DataOnly, InChunks, Verbatim};
    let chunked = "HTTP/1.1 200 OK\r\nTrailer: X\r\nTransfer-Encoding: CHUNKED\r\n\r\n";
    let close = "HTTP/1.0 200 OK\r\nTrailer: X\r\n\r\n";
    let both = "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n";
    let table = [
        (
            chunked,
            OF_11,
            "Trailer: X\r\nTransfer-Encoding: chunked\r\n",
            Verbatim,
            false,
        ),
        (chunked, OF_10, "Connection: close\r\n", DataOnly, true),
        (
            close,
            OF_11,
            "Transfer-Encoding: chunked\r\n",
            InChunks,
            false,
        ),
        (close, OF_10, "Connection: close\r\n", Verbatim, true),
        (
            both,
            OF_11,
            "Transfer-Encoding: chunked\r\n",
            Verbatim,
            false,
        ),
    ];
    for (stream, hop, fields, transfer, closes) in table {
        let (head, forwarded) = forwarded_response(Asked::Ordinary, stream, hop);
        assert_eq!(head, format!("HTTP/1.1 200 OK\r\n{fields}\r\n"));
        assert_eq!(forwarded, ForwardedResponse { transfer, closes });
    }
    let mut out = Vec::new();
    chunk_start(26, &mut out);
    assert_eq!(out, b"1a\r\n");
}

#[test]
fn an_answer_without_body_keeps_its_length() {
    let stream = "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n";
    let (head, _) = forwarded_response(Asked::Head, stream, OF_11);
    assert_eq!(head, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n");
    assert_eq!(
        answer("HTTP/1.1 304 Not Modified\r\nETag: a\r\nContent-Length: 5\r\n\r\n"),
        "HTTP/1.1 304 Not Modified\r\nETag: a\r\nContent-Length: 5\r\n\r\n"
    );
    let stream = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (head, _) = forwarded_response(Asked::Head, stream, OF_11);
    assert_eq!(head, "HTTP/1.1 200 OK\r\n\r\n");
    assert_eq!(
        answer(
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
        ),
        "HTTP/1.1 204 No Content\r\n\r\n"
    );
}

#[test]
fn upgrade_stays_on_a_426_and_on_a_101() {
    let offer = "HTTP/1.1 426 Upgrade Required\r\nConnection: upgrade\r\nupgrade: TLS/1.0, HTTP/1.1\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(
        answer(offer),
        "HTTP/1.1 426 Upgrade Required\r\nupgrade: TLS/1.0, HTTP/1.1\r\nContent-Length: 0\r\nConnection: Upgrade\r\n\r\n"
    );
    let closing = ClientHop {
        closes: true,
        ..OF_11
    };
    let (head, _) = forwarded_response(Asked::Ordinary, offer, closing);
    assert!(
        head.ends_with("Connection: Upgrade, close\r\n\r\n"),
        "{head}"
    );
    let switched = "HTTP/1.1 101 Switching\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\nContent-Length: 0\r\n\r\n";
    let (head, forwarded) = forwarded_response(Asked::Upgrade, switched, closing);
    assert_eq!(
        head,
        "HTTP/1.1 101 Switching\r\nSec-WebSocket-Accept: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    );
    assert!(!forwarded.closes);
}

#[test]
fn interim_answers_are_for_clients_that_know_them() {
    let stream = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nX: 1\r\nContent-Length: 5\r\n\r\n";
    let mut reader = ResponseReader::new(HeadLimits::RESPONSE, Asked::Ordinary);
    assert_eq!(
        reader.next(stream.as_bytes()),
        Ok(Some(Event::Interim(stream.len())))
    );
    let head = reader.head(stream.as_bytes());
    let mut out = Vec::new();
    assert!(!write_interim(head, HttpVersion::Http10, &mut out) && out.is_empty());
    assert!(write_interim(head, HttpVersion::Http11, &mut out));
    assert_eq!(out, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
}

#[test]
fn an_answer_of_our_own_is_written_line_by_line() {
    let mut out = Vec::new();
    let mut writer = HeadWriter::response(&mut out, 426, b"Upgrade Required");
    writer.field(b"Upgrade", b"websocket");
    writer.number(b"Content-Length", 0);
    writer.finish();
    assert_eq!(
        out,
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
    );
}
