//! `listener.tls`: TLS is terminated with certificates, or passed through.

use std::path::PathBuf;

use crate::config::declare::{Declared, FromValue, HasKind, InParts, Parts, TableSpec, ValueKind};
use crate::config::error::ErrorKind;
use crate::config::reader::TableReader;
use crate::config::spec::{text, texts};
use crate::config::value::ValueReader;
use crate::config::value_types;

table! {
    /// Either `certificates`, to terminate TLS here, or `passthrough`.
    #[derive(Eq)]
    pub struct Terminate {
        /// Certificates, chosen by the name that the client asks for, then by the keys that it can
        /// verify. At least one.
        certificates: Vec<Certificate>, empty;
        /// Oldest version of TLS that is spoken; the newest is 1.3.
        ///
        /// Every client of the last ten years speaks it; 1.0 and 1.1 are broken and not even built
        /// in.
        min_version: TlsVersion, default(TlsVersion::Tls12);
        /// Protocols that a client may choose from (ALPN), most wanted first; `tcp` only. A client
        /// that offers others alone is refused.
        alpn: Vec<String> =
            texts("the name of a protocol of at most 255 bytes, such as \"mqtt\""),
            default(Vec::new()) by value_types::texts(read_alpn);
        /// File of session-ticket keys that several balancers share, in HAProxy's format, the
        /// newest last. Without it: own keys.
        ticket_keys: Option<PathBuf> = text("the path of a file with a base64 key on each line"),
            optional;
        /// Certificates that clients show. Without it none is asked for.
        client_auth: Option<ClientAuth>, optional;
    }
    parts {
        /// Whether TLS goes through to the backend; `tcp` only. Routes match `sni` and `alpn` of
        /// the ClientHello.
        passthrough: bool, default(false);
    }
}

table! {
    /// A certificate chain and its key.
    #[derive(Eq)]
    pub struct Certificate {
        /// Certificate and its intermediates, PEM.
        cert: PathBuf = text("the path of a PEM file with a certificate chain"), required;
        /// Private key of `cert`, PEM.
        key: PathBuf = text("the path of a PEM file with a private key"), required;
    }
    parts {
        /// Whether it serves clients that ask for no name or for one that no certificate covers.
        /// Without a default they are refused by an alert. A sole certificate is the default unless
        /// it says `false`.
        is_default as "default": Option<bool>, optional;
    }
    with {
        /// Serves clients that name no host or one that no certificate covers. At most one per
        /// listener.
        default: bool,
    }
    rules set_default;
}

table! {
    /// Clients show certificates, which are verified here.
    #[derive(Eq)]
    pub struct ClientAuth {
        /// Authorities that client certificates must come from, PEM.
        ca: PathBuf = text("the path of a PEM file with certificates"), required;
        /// Whether a client without a certificate is refused (`required`). One with a wrong
        /// certificate is refused in any case.
        ///
        /// An operator who configures authorities wants them to be asked.
        mode: ClientAuthMode, default(ClientAuthMode::Required);
        /// Revocation lists, one for each authority of a client's chain, PEM. Without it nothing is
        /// revoked.
        crl: Option<PathBuf> = text("the path of a PEM file with revocation lists"), optional;
    }
}

words! {
    /// Versions of TLS.
    pub enum TlsVersion {
        Tls12 = "1.2",
        Tls13 = "1.3",
    }
}

words! {
    /// Handling of clients without a certificate.
    pub enum ClientAuthMode {
        /// A client without a certificate is refused.
        Required = "required",
        /// A client without a certificate is served; one with a wrong certificate is refused.
        Optional = "optional",
    }
}

/// `listener.tls`.
#[derive(Debug, Clone, PartialEq)]
pub enum ListenerTls {
    /// `tls = { passthrough = true }`, `tcp` only: the ClientHello is peeked for routes by `sni`
    /// and `alpn`.
    Passthrough,
    /// `tls = { certificates = [...] }`: terminated here.
    Terminate(Terminate),
}

impl Terminate {
    /// With these certificates and the default of everything else.
    pub fn with(certificates: Vec<Certificate>) -> Terminate {
        Terminate {
            certificates,
            min_version: TlsVersion::Tls12,
            alpn: Vec::new(),
            ticket_keys: None,
            client_auth: None,
        }
    }
}

/// The first keys of [`Certificate`].
pub(super) const ADMIN_TLS: &TableSpec = &TableSpec {
    doc: "Certificate of the admin endpoint.",
    keys: Certificate::SPEC.keys.split_at(2).0,
};

/// Keys that mean something where TLS ends.
const TERMINATING_ONLY: [&str; 4] = ["min_version", "alpn", "ticket_keys", "client_auth"];

impl FromValue for ListenerTls {
    fn read(value: &ValueReader<'_>) -> Option<Self> {
        let table = TableReader::within(value)?;
        let mut tls = Terminate::parts(&table);
        if tls.passthrough == Some(true) {
            refuse_useless(&table);
            return Some(ListenerTls::Passthrough);
        }
        let certificates = table.value("certificates");
        if certificates.is_none_or(|list| list.is_empty_list()) {
            table.missing(
                "certificates",
                "TLS without a certificate",
                "`certificates`, or `passthrough = true`",
            );
        }
        choose_default(&table, &mut tls);
        Terminate::whole(tls).map(ListenerTls::Terminate)
    }
}

impl HasKind for ListenerTls {
    const KIND: ValueKind = ValueKind::Table(Terminate::SPEC);
}

/// Notes keys without a meaning where TLS goes through.
fn refuse_useless(tls: &TableReader<'_>) {
    tls.conflict(
        "certificates",
        "TLS that is passed through needs no certificates",
    );
    tls.conflicts(
        &TERMINATING_ONLY,
        "with passthrough the backend decides this",
    );
}

/// Refuses TLS that no `websocket` listener can have.
pub(super) fn refuse_of_websocket(listener: &TableReader<'_>, tls: Option<&ListenerTls>) {
    let table = listener.table("tls");
    if tls == Some(&ListenerTls::Passthrough) {
        table.conflict(
            "passthrough",
            "a websocket listener must read HTTP: it must terminate TLS",
        );
    } else {
        table.conflict("alpn", "a websocket listener speaks http/1.1 only");
    }
}

fn set_default(_: &TableReader<'_>, certificate: &mut Parts<Certificate>) {
    certificate.default = Some(certificate.is_default.flatten() == Some(true));
}

/// A sole certificate is the default unless it says otherwise.
fn choose_default(tls: &TableReader<'_>, parts: &mut Parts<Terminate>) {
    let tables = tls.tables("certificates");
    let said = tables.iter().filter_map(|table| table.value("default"));
    for second in said.filter(|value| value.flag() == Some(true)).skip(1) {
        second.refuse(
            ErrorKind::Conflict,
            "another certificate is already the default",
        );
    }
    if let (Some([sole]), [table]) = (parts.certificates.as_deref_mut(), &tables[..]) {
        sole.default |= !table.has("default");
    }
}

/// The name of a protocol as RFC 7301 has it.
pub(super) fn read_alpn(text: &str) -> Result<String, &'static str> {
    match text.len() {
        1..=255 => Ok(text.to_owned()),
        _ => Err("its length is wrong"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::{each_refused, listener, right};

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
            (tcp("true"), "listener[0].tls", ErrorKind::Type),
            (
                tcp("{}"),
                "listener[0].tls.certificates",
                ErrorKind::Missing,
            ),
            (
                tcp("{ passthrough = false }"),
                "listener[0].tls.certificates",
                ErrorKind::Missing,
            ),
            (
                tcp("{ certificates = [] }"),
                "listener[0].tls.certificates",
                ErrorKind::Missing,
            ),
            (
                tcp("{ certificates = [{ cert = \"a\" }] }"),
                "listener[0].tls.certificates[0].key",
                ErrorKind::Missing,
            ),
            (
                tcp("{ certificates = [{ cert = \"\", key = \"b\" }] }"),
                "listener[0].tls.certificates[0].cert",
                ErrorKind::Value,
            ),
            (
                tcp("{ certificates = [\"a.pem\"] }"),
                "listener[0].tls.certificates[0]",
                ErrorKind::Type,
            ),
            (
                tcp(twice),
                "listener[0].tls.certificates[1].default",
                ErrorKind::Conflict,
            ),
            (
                tcp("{ passthrough = true, certificates = [{ cert = \"a\", key = \"b\" }] }"),
                "listener[0].tls.certificates",
                ErrorKind::Conflict,
            ),
            (
                listener(websocket),
                "listener[0].tls.passthrough",
                ErrorKind::Conflict,
            ),
            (
                tcp(&with("min_version = \"1.1\"")),
                "listener[0].tls.min_version",
                ErrorKind::Value,
            ),
            (
                tcp(&with("alpn = [\"\"]")),
                "listener[0].tls.alpn[0]",
                ErrorKind::Value,
            ),
            (
                listener(&format!(
                    "protocol = \"websocket\"\npool = \"p\"\ntls = {}",
                    with("alpn = [\"h2\"]")
                )),
                "listener[0].tls.alpn",
                ErrorKind::Conflict,
            ),
            (
                tcp(&with("client_auth = { mode = \"optional\" }")),
                "listener[0].tls.client_auth.ca",
                ErrorKind::Missing,
            ),
            (
                tcp(&with("client_auth = { ca = \"a\", mode = \"none\" }")),
                "listener[0].tls.client_auth.mode",
                ErrorKind::Value,
            ),
            (
                tcp(&with("client_auth = { ca = \"a\", crl = \"\" }")),
                "listener[0].tls.client_auth.crl",
                ErrorKind::Value,
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
            each_refused([(tcp(&tls), at.as_str(), ErrorKind::Conflict)]);
        }
    }
}
