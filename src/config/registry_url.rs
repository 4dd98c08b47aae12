//! URLs of registries: `http://10.0.0.1:8500`, `https://etcd.internal`, `redis://10.0.0.1:6379/2`.

use std::fmt;

/// Address of a registry's server. It never holds a secret: those stand in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistryUrl {
    pub is_tls: bool,
    /// A host name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
    /// With its query; of Redis the number of the database.
    pub path: String,
    scheme: &'static str,
}

/// Name of a cluster's own API server, which its certificate is for.
const IN_CLUSTER: &str = "kubernetes.default.svc";

impl RegistryUrl {
    /// Parses `http://HOST[:PORT][/PATH]`, or `https`.
    pub(crate) fn parse(text: &str) -> Result<RegistryUrl, &'static str> {
        let schemes = [("http", 80, false), ("https", 443, true)];
        RegistryUrl::parse_as(text, schemes, "it begins with neither http:// nor https://")
    }

    /// Parses `redis://HOST[:PORT][/DATABASE]`, or `rediss` with TLS.
    pub(crate) fn parse_redis(text: &str) -> Result<RegistryUrl, &'static str> {
        let schemes = [("redis", 6379, false), ("rediss", 6379, true)];
        let none = "it begins with neither redis:// nor rediss://";
        let url = RegistryUrl::parse_as(text, schemes, none)?;
        let database = url.path.strip_prefix('/').unwrap_or_default();
        if !url.path.is_empty() && database.parse::<u16>().is_err() {
            return Err("the database is not a number");
        }
        Ok(url)
    }

    /// Parses `HOST:PORT`, of ZooKeeper and of GatewayWorker's Register.
    pub(crate) fn parse_tcp(text: &str) -> Result<RegistryUrl, &'static str> {
        if !text.contains(':') || text.contains('/') {
            return Err("it is not a host and a port");
        }
        let schemes = [("tcp", 0, false); 2];
        RegistryUrl::parse_as(
            &format!("tcp://{text}"),
            schemes,
            "it is not a host and a port",
        )
    }

    /// Parses the address of a Kubernetes API server, or `in-cluster`.
    pub(crate) fn parse_kubernetes(text: &str) -> Result<RegistryUrl, &'static str> {
        match text {
            "in-cluster" => RegistryUrl::parse(&format!("https://{IN_CLUSTER}")),
            url => RegistryUrl::parse(url),
        }
    }

    fn parse_as(
        text: &str,
        schemes: [(&'static str, u16, bool); 2],
        none: &'static str,
    ) -> Result<RegistryUrl, &'static str> {
        let (given, rest) = text.split_once("://").ok_or(none)?;
        let known = schemes.into_iter().find(|(scheme, ..)| *scheme == given);
        let (scheme, default_port, is_tls) = known.ok_or(none)?;
        let begin = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(begin);
        if authority.contains('@') {
            return Err("it holds a user or a password; they belong into `user` and `token_file`");
        }
        if path
            .bytes()
            .any(|byte| !byte.is_ascii_graphic() || byte == b'#')
        {
            return Err("its path has a character that must be percent-encoded");
        }
        let authority: http::uri::Authority =
            authority.parse().map_err(|_| "its host is not one")?;
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        let port = match authority.port_u16() {
            Some(0) => return Err("nothing can be reached on port 0"),
            Some(port) => port,
            None if authority.as_str() != authority.host() => {
                return Err("its port is not a number from 1 to 65535");
            }
            None => default_port,
        };
        if host.is_empty() {
            return Err("the host is missing");
        }
        Ok(RegistryUrl {
            is_tls,
            host: host.to_ascii_lowercase(),
            port,
            path: path.to_owned(),
            scheme,
        })
    }

    /// The same at another server.
    pub(crate) fn at(&self, host: &str, port: u16) -> RegistryUrl {
        RegistryUrl {
            host: host.to_owned(),
            port,
            ..self.clone()
        }
    }

    /// Whether it is the API server of the cluster that the process runs in.
    pub(crate) fn is_in_cluster(&self) -> bool {
        self.is_tls && self.host == IN_CLUSTER
    }

    /// The path without a slash at its end, before what a protocol appends.
    pub fn base_path(&self) -> &str {
        self.path.trim_end_matches('/')
    }

    /// `HOST:PORT`, an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for RegistryUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.authority())?;
        // A query may hold a token.
        f.write_str(self.path.split('?').next().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_url_has_its_scheme_s_port() {
        let url = RegistryUrl::parse("https://Etcd.Test").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.is_tls),
            ("etcd.test", 443, true)
        );
        let url = RegistryUrl::parse_redis("redis://[::1]/3").unwrap();
        assert_eq!(url.authority(), "[::1]:6379");
        assert_eq!(url.path, "/3");
    }

    #[test]
    fn a_query_is_kept_and_not_shown() {
        let url = RegistryUrl::parse("http://a:1/list?token=secret").unwrap();
        assert_eq!(url.path, "/list?token=secret");
        assert_eq!(url.to_string(), "http://a:1/list");
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for bad in [
            "a:1",
            "ftp://a:1",
            "http://",
            "http://:1",
            "http://a:0",
            "http://a:99999",
            "http://a b/",
        ] {
            assert!(RegistryUrl::parse(bad).is_err(), "{bad}");
        }
        assert!(RegistryUrl::parse_redis("redis://a/x").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_or_refused(text in "\\PC{0,40}", path in "[ -~]{0,20}") {
            let _ = RegistryUrl::parse(&text);
            let _ = RegistryUrl::parse(&format!("http://a{path}"));
            let _ = RegistryUrl::parse_redis(&format!("redis://{text}"));
        }
    }
}
