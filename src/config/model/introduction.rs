//! How a client is announced: to us by another balancer, and by us to backends.

/// A version of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyVersion {
    V1,
    V2,
}

/// Who is the client of a request that a `trusted` peer passes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientIpFrom {
    /// Whom the forwarding field names.
    Forwarded,
    /// The peer itself.
    Peer,
}

/// The header fields that tell a backend where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedFields {
    /// `X-Forwarded-For`, `-Proto`, `-Host` and `X-Real-IP`.
    X,
    /// `Forwarded`.
    Rfc7239,
    Both,
}

/// What a listener with a guarded path does with `%2f`, `%5c`, `%00` and `\` in a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EncodedSlash {
    /// 400.
    Refuse,
    Pass,
}

impl ForwardedFields {
    pub fn has_x(self) -> bool {
        matches!(self, Self::X | Self::Both)
    }

    pub fn has_rfc7239(self) -> bool {
        matches!(self, Self::Rfc7239 | Self::Both)
    }
}
