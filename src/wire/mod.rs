//! Pure parsers: TLS ClientHello, HTTP/1 heads and bodies, WebSocket handshakes.
