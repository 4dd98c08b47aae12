//! The names of a client's certificate in the fields of its requests.
//!
//! A backend believes these fields, so a client's own are dropped on every listener, with and
//! without `client_auth`, from trusted networks too: no hop before this one has seen the handshake.

use http::{HeaderMap, HeaderName};

use super::headers::{self, drop_where};
use crate::tls::ClientIdentity;

const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
const SAN: HeaderName = HeaderName::from_static("x-client-cert-san");
/// Prefix of every name that is ours.
const PREFIX: &str = "x-client-cert-";

/// Sets the fields of a request to what the certificate has shown. What is not known has no field.
pub(super) fn set(headers: &mut HeaderMap, identity: Option<&ClientIdentity>) {
    // CGI and PHP read `X_Client_Cert_Subject` as the same variable.
    drop_where(headers, |_, plain| plain.starts_with(PREFIX));
    let Some(identity) = identity else { return };
    let fields = [
        (SUBJECT, &identity.subject),
        (SAN, &identity.alternative_names),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            headers::set(headers, name, value.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn claims() -> HeaderMap {
        let mut headers = HeaderMap::new();
        for name in [
            "X-Client-Cert-Subject",
            "x_client_cert_subject",
            "X-Client_Cert-San",
            "X-Client-Cert-Serial",
        ] {
            let name = HeaderName::try_from(name).unwrap();
            headers.append(name.clone(), HeaderValue::from_static("CN=root"));
            headers.append(name, HeaderValue::from_static("CN=other"));
        }
        headers.insert("x-client-certainty", HeaderValue::from_static("kept"));
        headers
    }

    #[test]
    fn what_a_client_claims_never_goes_on() {
        let mut headers = claims();
        set(&mut headers, None);
        assert_eq!(headers.len(), 1);
        assert!(headers.contains_key("x-client-certainty"));
    }

    #[test]
    fn what_is_known_stands_in_place_of_the_claims() {
        let mut headers = claims();
        let identity = ClientIdentity {
            subject: Some("CN=device 7".to_owned()),
            alternative_names: None,
        };
        set(&mut headers, Some(&identity));
        let subjects: Vec<_> = headers.get_all(SUBJECT).iter().collect();
        assert_eq!(subjects, ["CN=device 7"]);
        assert_eq!(headers.len(), 2);
    }
}
