//! `listener.tls`: TLS is terminated with certificates, or passed through.

use super::super::error::Fault;
use super::super::keys::{Absent, Key, Kind, Section, key};
use super::super::model::{Certificate, ListenerTls, Protocol};
use super::super::table::Table;

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
            Absent::Flag(false),
            "Serves clients that ask for no name or for one that no certificate covers; without it they are refused.",
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

/// `None` when it is wrong, `Some(None)` when there is none.
pub fn decode(listener: &Table<'_>, protocol: Option<Protocol>) -> Option<Option<ListenerTls>> {
    if !listener.has("tls") {
        return Some(None);
    }
    let tls = listener.maybe_table("tls")?;
    let passthrough = tls.flag("passthrough");
    let certificates = tls.tables("certificates");
    if passthrough {
        tls.conflict(
            "certificates",
            "TLS that is passed through is not terminated here: it has no certificates",
        );
        if protocol == Some(Protocol::Websocket) {
            tls.conflict(
                "passthrough",
                "a websocket listener must read HTTP: it has to terminate TLS",
            );
        }
        return Some(Some(ListenerTls::Passthrough));
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
    let certificates: Option<Vec<_>> = certificates
        .iter()
        .map(|table| certificate(table, table.flag("default")))
        .collect();
    Some(Some(ListenerTls::Terminate(certificates?)))
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
    use super::super::super::testing::{each_refused, listener};
    use super::*;

    fn tcp(tls: &str) -> String {
        listener(&format!("protocol = \"tcp\"\npool = \"p\"\ntls = {tls}"))
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
        ]);
    }
}
