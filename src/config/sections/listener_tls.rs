//! `listener.tls`: TLS is terminated with certificates, or passed through.

use super::super::defaults;
use super::super::error::Fault;
use super::super::keys::{Absent, Key, Kind, Section, key};
use super::super::model::{
    Certificate, ClientAuth, ClientAuthMode, ListenerTls, Protocol, Terminate, TlsVersion,
};
use super::super::table::Table;
use super::super::words::words;
use super::route::read_alpn;

pub static TLS: Section = Section {
    doc: "Either `certificates`, to terminate TLS here, or `passthrough`.",
    keys: &[
        key(
            "certificates",
            Kind::Tables(&CERTIFICATE),
            Absent::None,
            "Certificates, chosen by the name that the client asks for.",
        ),
        key(
            "passthrough",
            Kind::Flag,
            Absent::Flag(false),
            "`tcp` only: TLS goes through to the backend; routes match `sni` and `alpn` of the ClientHello.",
        ),
        key(
            "min_version",
            Kind::Word(words::<TlsVersion>),
            Absent::Text(defaults::MIN_VERSION),
            "Oldest version of TLS that is spoken; the newest is 1.3.",
        ),
        key(
            "alpn",
            Kind::Texts("the name of a protocol of at most 255 bytes, such as \"mqtt\""),
            Absent::Texts(&[]),
            "`tcp` only: protocols that a client may choose from, most wanted first; one that offers others alone is refused.",
        ),
        key(
            "ticket_keys",
            Kind::Text("the path of a file with a base64 key on each line"),
            Absent::None,
            "File of session-ticket keys that several balancers share, in HAProxy's format, the newest last. Without it: own keys.",
        ),
        key(
            "client_auth",
            Kind::Table(&CLIENT_AUTH),
            Absent::None,
            "Clients show certificates. Without it none is asked for.",
        ),
    ],
};

static CERTIFICATE: Section = Section {
    doc: "One certificate chain and its key.",
    keys: &[
        CERT,
        KEY,
        key(
            "default",
            Kind::Flag,
            Absent::None,
            "Serves clients that ask for no name or for one that no certificate covers; without a default they are refused by an alert. A sole certificate is the default unless it says `false`.",
        ),
    ],
};

static CLIENT_AUTH: Section = Section {
    doc: "Clients show certificates, which are verified here.",
    keys: &[
        key(
            "ca",
            Kind::Text("the path of a PEM file with certificates"),
            Absent::Required,
            "The authorities that client certificates must come from, PEM.",
        ),
        key(
            "mode",
            Kind::Word(words::<ClientAuthMode>),
            Absent::Text(defaults::CLIENT_AUTH_MODE),
            "Whether a client without a certificate is refused.",
        ),
        key(
            "crl",
            Kind::Text("the path of a PEM file with revocation lists"),
            Absent::None,
            "Revocation lists, one for each authority of a client's chain, PEM. Without it nothing is revoked.",
        ),
    ],
};

/// Of the admin endpoint's certificate too.
pub const CERT: Key = key(
    "cert",
    Kind::Text("the path of a PEM file with a certificate chain"),
    Absent::Required,
    "The certificate and its intermediates, PEM.",
);

/// Of the admin endpoint's certificate too.
pub const KEY: Key = key(
    "key",
    Kind::Text("the path of a PEM file with a private key"),
    Absent::Required,
    "Its private key, PEM.",
);

/// Keys that mean something where TLS ends.
const TERMINATING_ONLY: [&str; 4] = ["min_version", "alpn", "ticket_keys", "client_auth"];

/// `None` when it is wrong, `Some(None)` when there is none.
pub fn decode(listener: &Table<'_>, protocol: Option<Protocol>) -> Option<Option<ListenerTls>> {
    if !listener.has("tls") {
        return Some(None);
    }
    let tls = listener.maybe_table("tls")?;
    let certificates = tls.tables("certificates");
    if tls.flag("passthrough") {
        refuse_useless(&tls, protocol);
        return Some(Some(ListenerTls::Passthrough));
    }
    if protocol == Some(Protocol::Websocket) {
        tls.conflict("alpn", "a websocket listener speaks http/1.1 only");
    }
    if tls
        .entry("certificates")
        .is_none_or(|entry| entry.is_empty_list())
    {
        tls.missing(
            "certificates",
            "TLS without a certificate",
            "`certificates`, or `passthrough = true`",
        );
    }
    refuse_second_default(&certificates);
    let is_sole = certificates.len() == 1;
    let is_default = |table: &Table<'_>| match table.entry("default") {
        Some(_) => table.flag("default"),
        None => is_sole,
    };
    let certificates: Option<Vec<_>> = certificates
        .iter()
        .map(|table| certificate(table, is_default(table)))
        .collect();
    let client_auth = tls.maybe_table("client_auth");
    Some(Some(ListenerTls::Terminate(Terminate {
        min_version: tls.word("min_version"),
        alpn: tls.texts_by("alpn", read_alpn),
        ticket_keys: tls.path("ticket_keys"),
        client_auth: super::decoded(client_auth.as_ref().map(decode_client_auth))?,
        certificates: certificates?,
    })))
}

/// Notes what has no meaning where TLS goes through.
fn refuse_useless(tls: &Table<'_>, protocol: Option<Protocol>) {
    tls.conflict(
        "certificates",
        "TLS that is passed through is not terminated here: it has no certificates",
    );
    for key in TERMINATING_ONLY {
        tls.conflict(
            key,
            "TLS that is passed through is not terminated here: the backend decides this",
        );
    }
    if protocol == Some(Protocol::Websocket) {
        tls.conflict(
            "passthrough",
            "a websocket listener must read HTTP: it has to terminate TLS",
        );
    }
}

fn decode_client_auth(table: &Table<'_>) -> Option<ClientAuth> {
    Some(ClientAuth {
        mode: table.word("mode"),
        crl: table.path("crl"),
        ca: table.path("ca")?,
    })
}

/// The files that [`CERT`] and [`KEY`] name.
pub fn certificate(table: &Table<'_>, default: bool) -> Option<Certificate> {
    let (cert, key) = (table.path("cert"), table.path("key"));
    Some(Certificate {
        cert: cert?,
        key: key?,
        default,
    })
}

fn refuse_second_default(certificates: &[Table<'_>]) {
    let defaults = certificates
        .iter()
        .filter_map(|table| table.entry("default"));
    for second in defaults.filter(|entry| entry.flag() == Some(true)).skip(1) {
        second.refuse(
            Fault::Conflict,
            "another certificate is the default already",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::testing::{each_refused, listener, right};
    use super::*;

    fn tcp(tls: &str) -> String {
        listener(&format!("protocol = \"tcp\"\npool = \"p\"\ntls = {tls}"))
    }

    fn with(keys: &str) -> String {
        format!("{{ certificates = [{{ cert = \"a\", key = \"b\" }}], {keys} }}")
    }

    fn terminate(tls: &str) -> Terminate {
        match right(&tcp(tls)).listeners.remove(0).tls {
            Some(ListenerTls::Terminate(terminate)) => terminate,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_left_out_has_its_default_and_what_is_given_is_taken() {
        let least = terminate("{ certificates = [{ cert = \"a\", key = \"b\" }] }");
        assert_eq!(least, Terminate::with(least.certificates.clone()));
        let most = terminate(&with(
            "min_version = \"1.3\", alpn = [\"mqtt\", \"x\"], ticket_keys = \"t\", client_auth = { ca = \"c\", crl = \"d\" }",
        ));
        assert_eq!(most.min_version, TlsVersion::Tls13);
        assert_eq!(most.alpn, ["mqtt", "x"]);
        let file = |name: &str| std::path::Path::new("/etc/evenkeel").join(name);
        assert_eq!(most.ticket_keys, Some(file("t")));
        let client_auth = ClientAuth {
            ca: file("c"),
            mode: ClientAuthMode::Required,
            crl: Some(file("d")),
        };
        assert_eq!(most.client_auth, Some(client_auth));
    }

    #[test]
    fn a_sole_certificate_is_the_default_unless_it_says_otherwise() {
        let defaults = |certificates: &str| -> Vec<bool> {
            let tls = terminate(&format!("{{ certificates = [{certificates}] }}"));
            let certificates = tls.certificates.iter();
            certificates.map(|one| one.default).collect()
        };
        assert_eq!(defaults("{ cert = \"a\", key = \"b\" }"), [true]);
        assert_eq!(
            defaults("{ cert = \"a\", key = \"b\", default = false }"),
            [false]
        );
        let two = "{ cert = \"a\", key = \"b\" }, { cert = \"c\", key = \"d\" }";
        assert_eq!(defaults(two), [false, false]);
    }

    #[test]
    fn each_wrong_value_is_refused() {
        let twice = "{ certificates = [{ cert = \"a\", key = \"b\", default = true }, { cert = \"c\", key = \"d\", default = true }] }";
        let websocket = "protocol = \"websocket\"\npool = \"p\"\ntls = { passthrough = true }";
        each_refused([
            (tcp("true"), "listener[0].tls", Fault::Type),
            (tcp("{}"), "listener[0].tls.certificates", Fault::Missing),
            (
                tcp("{ passthrough = false }"),
                "listener[0].tls.certificates",
                Fault::Missing,
            ),
            (
                tcp("{ certificates = [] }"),
                "listener[0].tls.certificates",
                Fault::Missing,
            ),
            (
                tcp("{ certificates = [{ cert = \"a\" }] }"),
                "listener[0].tls.certificates[0].key",
                Fault::Missing,
            ),
            (
                tcp("{ certificates = [{ cert = \"\", key = \"b\" }] }"),
                "listener[0].tls.certificates[0].cert",
                Fault::Value,
            ),
            (
                tcp("{ certificates = [\"a.pem\"] }"),
                "listener[0].tls.certificates[0]",
                Fault::Type,
            ),
            (
                tcp(twice),
                "listener[0].tls.certificates[1].default",
                Fault::Conflict,
            ),
            (
                tcp("{ passthrough = true, certificates = [{ cert = \"a\", key = \"b\" }] }"),
                "listener[0].tls.certificates",
                Fault::Conflict,
            ),
            (
                listener(websocket),
                "listener[0].tls.passthrough",
                Fault::Conflict,
            ),
            (
                tcp(&with("min_version = \"1.1\"")),
                "listener[0].tls.min_version",
                Fault::Value,
            ),
            (
                tcp(&with("alpn = [\"\"]")),
                "listener[0].tls.alpn[0]",
                Fault::Value,
            ),
            (
                listener(&format!(
                    "protocol = \"websocket\"\npool = \"p\"\ntls = {}",
                    with("alpn = [\"h2\"]")
                )),
                "listener[0].tls.alpn",
                Fault::Conflict,
            ),
            (
                tcp(&with("client_auth = { mode = \"optional\" }")),
                "listener[0].tls.client_auth.ca",
                Fault::Missing,
            ),
            (
                tcp(&with("client_auth = { ca = \"a\", mode = \"none\" }")),
                "listener[0].tls.client_auth.mode",
                Fault::Value,
            ),
            (
                tcp(&with("client_auth = { ca = \"a\", crl = \"\" }")),
                "listener[0].tls.client_auth.crl",
                Fault::Value,
            ),
        ]);
        for key in [
            "min_version = \"1.3\"",
            "alpn = [\"mqtt\"]",
            "ticket_keys = \"t\"",
            "client_auth = { ca = \"a\" }",
        ] {
            let name = key.split(' ').next().unwrap();
            let at = format!("listener[0].tls.{name}");
            let tls = format!("{{ passthrough = true, {key} }}");
            each_refused([(tcp(&tls), at.as_str(), Fault::Conflict)]);
        }
    }
}
