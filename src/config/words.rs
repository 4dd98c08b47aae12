//! The words of the file for the closed sets of the model.

use super::model::{
    Activity, AdminRole, Balance, ClientAuthMode, ClientIpFrom, EncodedSlash, ForwardedFields,
    InitState, LogFormat, LogLevel, OnDown, OnDrain, OnUp, Protocol, ProxyVersion, RedisRole,
    SameSite, TlsVersion, UntoldSessions, WhenAllDown,
};

/// A closed set whose members have a word each.
pub trait Word: Copy + PartialEq + 'static {
    /// Every member with its word; never empty.
    const WORDS: &'static [(&'static str, Self)];

    /// The word of this member.
    fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, member)| *member == self);
        found.map_or("", |(word, _)| word)
    }

    /// The member of a word.
    fn of(word: &str) -> Option<Self> {
        Self::WORDS
            .iter()
            .find(|(name, _)| *name == word)
            .map(|(_, member)| *member)
    }
}

/// All words of a set.
pub(super) fn words<T: Word>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}

impl Word for AdminRole {
    const WORDS: &'static [(&'static str, Self)] =
        &[("read", AdminRole::Read), ("operate", AdminRole::Operate)];
}

impl Word for LogLevel {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("error", LogLevel::Error),
        ("warn", LogLevel::Warn),
        ("info", LogLevel::Info),
        ("debug", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
}

impl Word for LogFormat {
    const WORDS: &'static [(&'static str, Self)] =
        &[("text", LogFormat::Text), ("json", LogFormat::Json)];
}

impl Word for Protocol {
    const WORDS: &'static [(&'static str, Self)] =
        &[("tcp", Protocol::Tcp), ("websocket", Protocol::Websocket)];
}

impl Word for ProxyVersion {
    const WORDS: &'static [(&'static str, Self)] =
        &[("v1", ProxyVersion::V1), ("v2", ProxyVersion::V2)];
}

impl Word for ClientIpFrom {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("forwarded", ClientIpFrom::Forwarded),
        ("peer", ClientIpFrom::Peer),
    ];
}

impl Word for EncodedSlash {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("refuse", EncodedSlash::Refuse),
        ("pass", EncodedSlash::Pass),
    ];
}

impl Word for ForwardedFields {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("x", ForwardedFields::X),
        ("rfc7239", ForwardedFields::Rfc7239),
        ("both", ForwardedFields::Both),
    ];
}

impl Word for InitState {
    const WORDS: &'static [(&'static str, Self)] =
        &[("up", InitState::Up), ("down", InitState::Down)];
}

impl Word for TlsVersion {
    const WORDS: &'static [(&'static str, Self)] =
        &[("1.2", TlsVersion::Tls12), ("1.3", TlsVersion::Tls13)];
}

impl Word for ClientAuthMode {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("required", ClientAuthMode::Required),
        ("optional", ClientAuthMode::Optional),
    ];
}

impl Word for WhenAllDown {
    const WORDS: &'static [(&'static str, Self)] =
        &[("refuse", WhenAllDown::Refuse), ("try", WhenAllDown::Try)];
}

impl Word for Activity {
    const WORDS: &'static [(&'static str, Self)] =
        &[("any", Activity::Any), ("messages", Activity::Messages)];
}

/// One of `ping.to`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Side {
    Client,
    Backend,
}

impl Word for Side {
    const WORDS: &'static [(&'static str, Self)] =
        &[("client", Side::Client), ("backend", Side::Backend)];
}

impl Word for SameSite {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("lax", SameSite::Lax),
        ("strict", SameSite::Strict),
        ("none", SameSite::None),
    ];
}

impl Word for OnDrain {
    const WORDS: &'static [(&'static str, Self)] =
        &[("keep", OnDrain::Keep), ("repick", OnDrain::Repick)];
}

impl Word for UntoldSessions {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("keep", UntoldSessions::Keep),
        ("close", UntoldSessions::Close),
    ];
}

impl Word for OnDown {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("keep", OnDown::Keep),
        ("drain", OnDown::Drain),
        ("close", OnDown::Close),
    ];
}

impl Word for OnUp {
    const WORDS: &'static [(&'static str, Self)] =
        &[("keep", OnUp::Keep), ("return", OnUp::Return)];
}

/// A moment of `log_at`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Moment {
    Open,
    Interval,
    Resume,
    End,
}

impl Word for Moment {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("open", Moment::Open),
        ("interval", Moment::Interval),
        ("resume", Moment::Resume),
        ("end", Moment::End),
    ];
}

/// One of `retry_on`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum RetryCause {
    Connect,
    EmptyResponse,
}

impl Word for RetryCause {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("connect", RetryCause::Connect),
        ("empty_response", RetryCause::EmptyResponse),
    ];
}

/// One of `resume.on`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Loss {
    Drain,
    Down,
    CloseCode,
    Burst,
    Eof,
}

impl Word for Loss {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("drain", Loss::Drain),
        ("down", Loss::Down),
        ("close_code", Loss::CloseCode),
        ("burst", Loss::Burst),
        ("eof", Loss::Eof),
    ];
}

/// A value of `balance`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Algorithm {
    RoundRobin,
    LeastConn,
    IpHash,
    Random,
    Hash,
}

impl Word for Algorithm {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("round_robin", Algorithm::RoundRobin),
        ("least_conn", Algorithm::LeastConn),
        ("ip_hash", Algorithm::IpHash),
        ("random", Algorithm::Random),
        ("hash", Algorithm::Hash),
    ];
}

impl Balance {
    /// As the file writes it.
    pub fn word(&self) -> &'static str {
        let algorithm = match self {
            Balance::RoundRobin => Algorithm::RoundRobin,
            Balance::LeastConn => Algorithm::LeastConn,
            Balance::IpHash => Algorithm::IpHash,
            Balance::Random => Algorithm::Random,
            Balance::Hash(_) => Algorithm::Hash,
        };
        algorithm.word()
    }
}

/// A value of `check.type`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum CheckType {
    Tcp,
    Http,
    Websocket,
    Expect,
    Redis,
}

impl Word for CheckType {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("tcp", CheckType::Tcp),
        ("http", CheckType::Http),
        ("websocket", CheckType::Websocket),
        ("expect", CheckType::Expect),
        ("redis", CheckType::Redis),
    ];
}

impl Word for RedisRole {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("primary", RedisRole::Primary),
        ("replica", RedisRole::Replica),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each_word_finds_its_member<T: Word + std::fmt::Debug>() {
        for (word, member) in T::WORDS {
            assert_eq!(T::of(word), Some(*member));
            assert_eq!(member.word(), *word);
        }
    }

    #[test]
    fn words_and_members_are_one_to_one() {
        each_word_finds_its_member::<LogLevel>();
        each_word_finds_its_member::<LogFormat>();
        each_word_finds_its_member::<Protocol>();
        each_word_finds_its_member::<InitState>();
        each_word_finds_its_member::<OnDown>();
        each_word_finds_its_member::<OnUp>();
        each_word_finds_its_member::<TlsVersion>();
        each_word_finds_its_member::<Moment>();
        each_word_finds_its_member::<Loss>();
        each_word_finds_its_member::<Algorithm>();
        each_word_finds_its_member::<CheckType>();
        each_word_finds_its_member::<RedisRole>();
        each_word_finds_its_member::<AdminRole>();
    }
}
