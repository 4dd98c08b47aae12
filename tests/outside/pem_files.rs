//! Certificate and key files as editors, OpenSSL and exports leave them: served, or refused by `check` in words that help.

use std::path::Path;
use std::process::Command;

use tokio::io::AsyncWriteExt as _;

use crate::authority::{Authority, ECDSA, RSA};
use crate::certificates::Certificate;
use crate::clients::connect;
use crate::harness::{Balancer, Launch};
use crate::settings::{backend, listener, pool};
use crate::tls_nodes::OpenSsl;

/// What `openssl` prints.
fn openssl(words: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(words).output();
    let output = output.expect("openssl");
    assert!(output.status.success(), "{words:?}: {output:?}");
    output.stdout
}

/// What `check` says of a listener with this certificate.
fn check(folder: &Path, cert: &str, key: &str) -> (Option<i32>, String) {
    let config = format!(
        "[[listener]]\nname = \"main\"\nbind = \"127.0.0.1:0\"\nprotocol = \"tcp\"\npool = \"nodes\"\n\
         tls = {{ certificates = [{{ cert = \"{cert}\", key = \"{key}\" }}] }}\n\
         [pool.nodes]\nbackend = [{{ address = \"127.0.0.1:1\" }}]\n"
    );
    let file = folder.join("balancer.toml");
    std::fs::write(&file, config).expect("write");
    let output = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .arg("check")
        .arg(&file)
        .output()
        .expect("check");
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

/// Version 1 has no extensions; `openssl x509` writes it where none are asked for.
fn write_version_1(certificate: &Certificate) {
    let path = |path: &Path| path.to_str().expect("a path").to_owned();
    let (cert, key) = (path(&certificate.cert), path(&certificate.key));
    let request = format!("{cert}.csr");
    openssl(&[
        "req", "-new", "-key", &key, "-subj", "/CN=old", "-out", &request,
    ]);
    openssl(&[
        "x509", "-req", "-in", &request, "-signkey", &key, "-out", &cert,
    ]);
    let said = openssl(&["x509", "-in", &cert, "-noout", "-text"]);
    assert!(String::from_utf8_lossy(&said).contains("Version: 1 "));
}

#[tokio::test]
async fn a_certificate_of_version_1_is_told_and_taken_from_a_backend_that_is_not_verified() {
    let launch = Launch::new();
    let folder = launch.folder.path().to_owned();
    let old = Certificate::write(&folder, "old", &["a.example"]);
    write_version_1(&old);
    let (code, said) = check(&folder, "old.pem", "old.key");
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("old.pem: an X.509 certificate of version 1, "),
        "{said}"
    );
    for version in ["-tls1_2", "-tls1_3"] {
        let Some(mut node) = OpenSsl::start(&old, &[version]).await else {
            return;
        };
        let config = listener("main", "tcp", "nodes")
            + &pool(
                "nodes",
                "tls = { verify = false }",
                &[backend("n1", node.address)],
            );
        let balancer = Balancer::start(&config);
        let mut client = connect(balancer.address("main").await).await;
        client.write_all(b"hello\n").await.expect("write");
        node.says("hello").await;
    }
}

#[test]
fn check_takes_byte_order_marks_and_tells_of_encrypted_keys() {
    let launch = Launch::new();
    let folder = launch.folder.path().to_owned();
    let authority = Authority::new(&folder, "ca");
    let ecdsa = authority.server("ecdsa", &["a.example"], ECDSA);
    let rsa = authority.server("rsa", &["a.example"], RSA);
    let check = |cert: &str, key: &str| check(&folder, cert, key);
    for name in ["ecdsa.pem", "ecdsa.key"] {
        let text = std::fs::read(folder.join(name)).expect("read");
        let marked = [b"\xef\xbb\xbf", &text[..]].concat();
        std::fs::write(folder.join(format!("marked-{name}")), marked).expect("write");
    }
    let (code, said) = check("marked-ecdsa.pem", "marked-ecdsa.key");
    assert_eq!(code, Some(0), "{said}");
    let path = |issued: &std::path::Path| issued.to_str().expect("a path").to_owned();
    let (ecdsa, rsa) = (path(&ecdsa.key), path(&rsa.key));
    let pass = ["-passout", "pass:x"];
    let pkcs8 = ["pkcs8", "-topk8", "-v2", "aes256", "-in", &ecdsa];
    let traditional = ["rsa", "-traditional", "-aes128", "-in", &rsa];
    for (words, cert) in [(&pkcs8[..], "ecdsa.pem"), (&traditional, "rsa.pem")] {
        let key = openssl(&[words, &pass].concat());
        std::fs::write(folder.join("encrypted.key"), key).expect("write");
        let (code, said) = check(cert, "encrypted.key");
        assert_eq!(code, Some(1), "{said}");
        assert!(
            said.contains("encrypted.key: the private key is encrypted"),
            "{said}"
        );
    }
}
