//! Who a client has proved to be by its certificate: into its record, and into the fields of its requests.
//!
//! A backend believes these fields, so whatever a client says in their names is dropped on every listener, with and without
//! `client_auth`, from trusted networks too: nobody before this hop has seen the handshake.

use http::{HeaderMap, HeaderName};

use super::forward::{drop_where, set};
use crate::observe::ConnectionRecord;
use crate::tls::ClientIdentity;

const SUBJECT: HeaderName = HeaderName::from_static("x-client-cert-subject");
const SAN: HeaderName = HeaderName::from_static("x-client-cert-san");
/// Of every name that is ours.
const PREFIX: &str = "x-client-cert-";

/// Writes it to the record, cut at what that keeps.
pub(super) fn note(record: &mut ConnectionRecord, identity: &ClientIdentity) {
    let ClientIdentity {
        subject,
        alternative_names,
    } = identity;
    record.set_client_certificate(subject.as_deref(), alternative_names.as_deref());
}

/// Makes the fields of a request say who the client is. What is not known has no field.
pub(super) fn tell(headers: &mut HeaderMap, identity: Option<&ClientIdentity>) {
    // CGI and PHP read `X_Client_Cert_Subject` as the same variable.
    drop_where(headers, |_, plain| plain.starts_with(PREFIX));
    let Some(identity) = identity else { return };
    let told = [
        (SUBJECT, &identity.subject),
        (SAN, &identity.alternative_names),
    ];
    for (name, value) in told {
        if let Some(value) = value {
            set(headers, name, value.as_bytes());
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
        tell(&mut headers, None);
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
        tell(&mut headers, Some(&identity));
        let subjects: Vec<_> = headers.get_all(SUBJECT).iter().collect();
        assert_eq!(subjects, ["CN=device 7"]);
        assert_eq!(headers.len(), 2);
    }
}
