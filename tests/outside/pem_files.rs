//! Certificate and key files as editors, OpenSSL and exports leave them: served, or refused by `check` in words that help.

use std::process::Command;

use crate::authority::{Authority, ECDSA, RSA};
use crate::harness::Launch;

/// What `openssl` prints.
fn openssl(words: &[&str]) -> Vec<u8> {
    let output = Command::new("openssl").args(words).output();
    let output = output.expect("openssl");
    assert!(output.status.success(), "{words:?}: {output:?}");
    output.stdout
}

#[test]
fn check_takes_byte_order_marks_and_tells_of_encrypted_keys() {
    let launch = Launch::new();
    let folder = launch.folder.path().to_owned();
    let authority = Authority::new(&folder, "ca");
    let ecdsa = authority.server("ecdsa", &["a.example"], ECDSA);
    let rsa = authority.server("rsa", &["a.example"], RSA);
    let check = |cert: &str, key: &str| {
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
        let said = String::from_utf8_lossy(&said).into_owned();
        (output.status.code(), said)
    };
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
