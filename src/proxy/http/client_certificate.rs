//! The names of a client's certificate in the fields of its requests.
//!
//! A backend believes these fields, so a client's own are dropped on every listener, with and
//! without `client_auth`, from trusted networks too: no hop before this one has seen the handshake.

use crate::tls::ClientIdentity;
use crate::wire::http::Edits;

const SUBJECT: &str = "X-Client-Cert-Subject";
const SAN: &str = "X-Client-Cert-San";
/// Prefix of every name that is ours.
const PREFIX: &str = "x-client-cert-";

/// Sets the fields of a request to what the certificate has shown. What is not known has no field.
pub(super) fn set(edits: &mut Edits<'_>, identity: Option<&ClientIdentity>) {
    // CGI and PHP read `X_Client_Cert_Subject` as the same variable.
    edits.remove_prefix(PREFIX);
    let Some(identity) = identity else { return };
    let fields = [
        (SUBJECT, &identity.subject),
        (SAN, &identity.alternative_names),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            edits.set(name, value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::http::testing::SampleRequest;

    /// The fields that a backend gets of a client that claims to be another one.
    fn forwarded(identity: Option<&ClientIdentity>) -> Vec<(String, String)> {
        let mut claims = Vec::new();
        for name in [
            "X-Client-Cert-Subject",
            "x_client_cert_subject",
            "X-Client_Cert-San",
            "X-Client-Cert-Serial",
        ] {
            claims.extend([(name, "CN=root"), (name, "CN=other")]);
        }
        claims.push(("x-client-certainty", "kept"));
        let request = SampleRequest::get("/", &claims);
        let mut edits = Edits::default();
        set(&mut edits, identity);
        request.forwarded(&edits)
    }

    fn field(name: &str, value: &str) -> (String, String) {
        (name.to_owned(), value.to_owned())
    }

    #[test]
    fn what_a_client_claims_never_goes_on() {
        assert_eq!(forwarded(None), [field("x-client-certainty", "kept")]);
    }

    #[test]
    fn what_is_known_stands_in_place_of_the_claims() {
        let identity = ClientIdentity {
            subject: Some("CN=device 7".to_owned()),
            alternative_names: None,
        };
        let expected = [
            field("x-client-certainty", "kept"),
            field("X-Client-Cert-Subject", "CN=device 7"),
        ];
        assert_eq!(forwarded(Some(&identity)), expected);
    }
}
