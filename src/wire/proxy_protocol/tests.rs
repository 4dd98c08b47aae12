use proptest::prelude::*;

use super::v2::TYPE_NETNS;
use super::*;

fn proxied(source: &str, destination: &str) -> ProxyHeader {
    ProxyHeader::Proxied(Box::new(Proxied {
        addresses: Addresses::Ip {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        },
        details: Details::default(),
    }))
}

fn header_of(bytes: &[u8]) -> ProxyHeader {
    match read(bytes) {
        HeaderProgress::Header(header, length) if length == bytes.len() => header,
        other => panic!("{other:?} of {bytes:?}"),
    }
}

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [v2::SIGNATURE, &[command, family][..], &length, body].concat()
}

/// The addresses of 192.0.2.1:4660 to 192.0.2.2:443.
const BODY: [u8; 12] = [192, 0, 2, 1, 192, 0, 2, 2, 0x12, 0x34, 1, 187];

#[test]
fn a_line_of_version_1_is_read() {
    assert_eq!(
        header_of(b"PROXY TCP4 192.0.2.1 192.0.2.2 4660 443\r\n"),
        proxied("192.0.2.1:4660", "192.0.2.2:443")
    );
    assert_eq!(
        header_of(b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n"),
        proxied("[2001:db8::1]:1", "[::1]:65535")
    );
    assert_eq!(header_of(b"PROXY UNKNOWN\r\n"), ProxyHeader::Local);
    let ignored = b"PROXY UNKNOWN ffff::1 whatever 1\r\n";
    assert_eq!(header_of(ignored), ProxyHeader::Local);
}

#[test]
fn what_is_no_line_of_version_1_is_refused() {
    let lines = [
        "PROXY TCP4 192.0.2.1 192.0.2.2 4660\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 4660 443 \r\n",
        "PROXY TCP4  192.0.2.1 192.0.2.2 4660 443\r\n",
        "PROXY TCP4 192.0.2.01 192.0.2.2 4660 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 04660 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 +1 443\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 65536 443\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n\r\n",
        // One of the two that end a line is not its end, and nothing is waited for behind it.
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
        "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\rGET",
        "PROXY UNKNOWN\n",
        "PROXY UNKNOWN a\rb\r\n",
        "PROXY \r\n",
    ];
    for line in lines {
        assert_eq!(
            read(line.as_bytes()),
            HeaderProgress::Invalid(ProxyHeaderError::Line),
            "{line:?}"
        );
    }
    let endless = ["PROXY UNKNOWN ", &"x".repeat(200)].concat();
    let refused = HeaderProgress::Invalid(ProxyHeaderError::LineTooLong);
    assert_eq!(read(endless.as_bytes()), refused);
    for line in [
        "GET / HTTP/1.1\r\n",
        "proxy TCP4",
        "PROXY\t",
        "\x16\x03\x01",
    ] {
        let refused = HeaderProgress::Invalid(ProxyHeaderError::Signature);
        assert_eq!(read(line.as_bytes()), refused, "{line:?}");
    }
}

#[test]
fn the_longest_line_fits_exactly() {
    let rest = "x".repeat(107 - "PROXY UNKNOWN \r\n".len());
    let line = format!("PROXY UNKNOWN {rest}\r\n");
    assert_eq!(header_of(line.as_bytes()), ProxyHeader::Local);
}

#[test]
fn version_2_without_tlvs_is_read() {
    let expected = proxied("192.0.2.1:4660", "192.0.2.2:443");
    assert_eq!(header_of(&v2(0x21, 0x11, &BODY)), expected);
    let unix = header_of(&v2(0x21, 0x31, &[0; 216]));
    let ProxyHeader::Proxied(unix) = unix else {
        panic!("{unix:?}")
    };
    assert_eq!(unix.addresses, Addresses::Unix);
}

#[test]
fn local_and_unspec_are_skipped_whatever_they_hold() {
    assert_eq!(header_of(&v2(0x20, 0x00, &[])), ProxyHeader::Local);
    assert_eq!(header_of(&v2(0x20, 0xff, &[1, 2, 3])), ProxyHeader::Local);
    assert_eq!(header_of(&v2(0x21, 0x00, &[0xff; 40])), ProxyHeader::Local);
}

#[test]
fn what_is_wrong_in_version_2_is_refused() {
    let with = |tlv: &[u8]| v2(0x21, 0x11, &[&BODY[..], tlv].concat());
    let cases = [
        (v2(0x11, 0x11, &BODY), ProxyHeaderError::Command),
        (v2(0x22, 0x11, &BODY), ProxyHeaderError::Command),
        (v2(0x21, 0x41, &BODY), ProxyHeaderError::Family),
        (v2(0x21, 0x13, &BODY), ProxyHeaderError::Family),
        (v2(0x21, 0x12, &BODY), ProxyHeaderError::Datagram),
        (v2(0x21, 0x22, &[0; 36]), ProxyHeaderError::Datagram),
        (v2(0x21, 0x32, &[0; 216]), ProxyHeaderError::Datagram),
        (v2(0x21, 0x02, &[]), ProxyHeaderError::Datagram),
        (v2(0x21, 0x42, &BODY), ProxyHeaderError::Family),
        (v2(0x21, 0x11, &BODY[..11]), ProxyHeaderError::Addresses),
        (v2(0x21, 0x21, &BODY), ProxyHeaderError::Addresses),
        (v2(0x21, 0x31, &[0; 215]), ProxyHeaderError::Addresses),
        (v2(0x21, 0x11, &[0; 16_369]), ProxyHeaderError::TooLong),
        (with(&[0x04, 0]), ProxyHeaderError::Tlv),
        (with(&[0x04, 0, 2, 0]), ProxyHeaderError::Tlv),
        (with(&[0x02, 0, 1, 0xff]), ProxyHeaderError::Tlv),
        (
            with(&[&[0x05, 0, 129][..], &[1; 129]].concat()),
            ProxyHeaderError::Tlv,
        ),
        (with(&[0x20, 0, 4, 1, 0, 0, 0]), ProxyHeaderError::Tlv),
        (
            with(&[0x20, 0, 7, 1, 0, 0, 0, 0, 0x21, 0]),
            ProxyHeaderError::Tlv,
        ),
        (with(&[0x03, 0, 3, 0, 0, 0]), ProxyHeaderError::Tlv),
        (with(&[0x03, 0, 4, 0, 0, 0, 0]), ProxyHeaderError::Checksum),
    ];
    for (bytes, invalid) in cases {
        assert_eq!(read(&bytes), HeaderProgress::Invalid(invalid), "{bytes:?}");
    }
    // The largest that is allowed.
    let noop = [&[0x04, 0x3f, 0xe1][..], &[0; 16_353]].concat();
    assert_eq!(with(&noop).len(), MAX_HEADER_BYTES);
    header_of(&with(&noop));
}

#[test]
fn a_header_with_a_checksum_is_verified_byte_by_byte() {
    let details = Details {
        authority: Some("chat.example.org".into()),
        ..Details::default()
    };
    let ProxyHeader::Proxied(known) = proxied("192.0.2.1:4660", "192.0.2.2:443") else {
        panic!("proxied")
    };
    let right = encode_v2(Some(known.addresses), &details);
    header_of(&right);
    // Behind what decides how it is read.
    for at in 16..right.len() {
        let mut wrong = right.clone();
        wrong[at] ^= 1;
        assert!(
            !matches!(read(&wrong), HeaderProgress::Header(..)),
            "byte {at}"
        );
    }
}

/// In their order, padding and checksum aside.
#[test]
fn what_nobody_here_knows_is_kept_to_be_passed_on() {
    let vpce = [&[0xEA, 0, 5][..], b"\x01vpce"].concat();
    let ssl = [&[0x20, 0, 10, 7, 0, 0, 0, 18, 0x22, 0, 2][..], b"me"].concat();
    let body = [&BODY[..], &vpce, &[0x04, 0, 1, 0], &ssl, &[0xF5, 0, 0]].concat();
    let ProxyHeader::Proxied(read) = header_of(&v2(0x21, 0x11, &body)) else {
        panic!("proxied")
    };
    let others: Vec<_> = read.details.others.iter().collect();
    assert_eq!(others, [(0xEA, &b"\x01vpce"[..]), (0xF5, b"")]);
    let tls = read.details.tls.as_ref().unwrap();
    assert_eq!((tls.verify, tls.others.bytes()), (18, &b"\x22\0\x02me"[..]));
    let again = encode_v2(Some(read.addresses), &read.details);
    assert_eq!(header_of(&again), ProxyHeader::Proxied(read));
}

#[test]
fn a_log_names_what_is_known_and_numbers_the_rest() {
    let described = |tlvs: &[&[u8]]| {
        let body = [&BODY[..], &tlvs.concat()].concat();
        match header_of(&v2(0x21, 0x11, &body)) {
            ProxyHeader::Proxied(read) => describe(&read.details),
            ProxyHeader::Local => None,
        }
    };
    assert_eq!(described(&[]), None);
    let clouds = described(&[
        b"\xEA\0\x07\x01vpce-1",
        b"\xEE\0\x05\x01\x02\0\0\0",
        b"\xE0\0\x08\0\0\0\0\0\0\x01\0",
    ]);
    let expected = "aws_vpce_id=vpce-1 azure_pel_id=2 gcp_conn_id=256";
    assert_eq!(clouds.as_deref(), Some(expected));
    let others = described(&[
        b"\x05\0\x01u",
        b"\x20\0\x0B\x01\0\0\0\0\x22\0\x03a b",
        b"\xE0\0\x03a b",
        b"\xF5\0\x01q",
    ]);
    let expected = "0xE0=0x612062 0xF5=q unique_id=u ssl_cn=0x612062";
    assert_eq!(others.as_deref(), Some(expected));
    let long = described(&[&[&[0xE0, 0x01, 0x00][..], &[b'c'; 256]].concat()]);
    let expected = format!("0xE0={}...", "c".repeat(64));
    assert_eq!(long, Some(expected));
}

#[test]
fn addresses_of_two_families_are_sent_as_ipv6() {
    let addresses = Addresses::Ip {
        source: "192.0.2.1:1".parse().unwrap(),
        destination: "[2001:db8::1]:2".parse().unwrap(),
    };
    let expected = proxied("[::ffff:192.0.2.1]:1", "[2001:db8::1]:2");
    assert_eq!(header_of(&encode_v1(Some(addresses))), expected);
    let v2 = encode_v2(Some(addresses), &Details::default());
    assert_eq!(header_of(&v2), expected);
}

#[test]
fn without_addresses_nothing_is_claimed() {
    assert_eq!(encode_v1(None), b"PROXY UNKNOWN\r\n");
    assert_eq!(header_of(&encode_local_v2()), ProxyHeader::Local);
    let unspec = encode_v2(None, &Details::default());
    assert_eq!(header_of(&unspec), ProxyHeader::Local);
}

fn addresses() -> impl Strategy<Value = Addresses> {
    let v4 = any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (a.into(), b.into()));
    let v6 = any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (a.into(), b.into()));
    let ips = prop_oneof![v4, v6];
    (ips, any::<(u16, u16)>()).prop_map(|((a, b), (from, to))| Addresses::Ip {
        source: SocketAddr::new(a, from),
        destination: SocketAddr::new(b, to),
    })
}

fn details() -> impl Strategy<Value = Details> {
    // Any type but the version's.
    let version = prop::option::of("TLSv1\\.[0-3]");
    let tls = (any::<[bool; 3]>(), any::<u32>(), version, tlvs(0x22)).prop_map(
        |([over_tls, certificate, certificate_in_session], verify, version, others)| SslDetails {
            over_tls,
            certificate,
            certificate_in_session,
            verify,
            version,
            others,
        },
    );
    let bytes = |max| prop::option::of(prop::collection::vec(any::<u8>(), 0..=max));
    (
        prop::option::of("[a-z.]{0,60}"),
        bytes(40),
        bytes(128),
        prop::option::of(tls),
        tlvs(TYPE_NETNS),
    )
        .prop_map(|(authority, alpn, unique_id, tls, others)| Details {
            authority,
            alpn,
            unique_id,
            tls,
            others,
        })
}

/// TLVs of types from `first` on.
fn tlvs(first: u8) -> impl Strategy<Value = Tlvs> {
    let one = (first..=u8::MAX, prop::collection::vec(any::<u8>(), 0..300));
    prop::collection::vec(one, 0..4).prop_map(|all| {
        let mut bytes = Vec::new();
        for (kind, value) in all {
            tlvs::push(&mut bytes, kind, &value);
        }
        Tlvs::of(&bytes)
    })
}

/// Headers that are right, nearly right, or neither.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let right = prop_oneof![
        (addresses(), details()).prop_map(|(ip, details)| encode_v2(Some(ip), &details)),
        addresses().prop_map(|ip| encode_v1(Some(ip))),
        Just(encode_local_v2()),
        Just(encode_v1(None)),
    ];
    let change = prop::option::of((any::<prop::sample::Index>(), any::<u8>()));
    let behind = prop::collection::vec(any::<u8>(), 0..40);
    (right, change, behind).prop_map(|(mut bytes, change, behind)| {
        if let Some((at, byte)) = change {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.extend(behind);
        bytes
    })
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_answer(bytes in streams()) {
        let whole = read(&bytes);
        let mut last = HeaderProgress::NeedMore;
        for end in 0..=bytes.len() {
            let now = read(&bytes[..end]);
            prop_assert!(last == HeaderProgress::NeedMore || last == now, "{last:?}, then {now:?}");
            if let HeaderProgress::Header(_, length) = now {
                prop_assert!(length <= end);
            }
            last = now;
        }
        prop_assert_eq!(last, whole);
    }

    #[test]
    fn what_is_written_is_read_again(ip in addresses(), details in details(), behind in any::<Vec<u8>>()) {
        let expected = ProxyHeader::Proxied(Box::new(Proxied { addresses: ip, details: details.clone() }));
        let header = encode_v2(Some(ip), &details);
        let stream = [&header[..], &behind].concat();
        prop_assert_eq!(read(&stream), HeaderProgress::Header(expected, header.len()));

        let expected = ProxyHeader::Proxied(Box::new(Proxied { addresses: ip, details: Details::default() }));
        let header = encode_v1(Some(ip));
        prop_assert!(header.len() <= 107);
        let stream = [&header[..], &behind].concat();
        prop_assert_eq!(read(&stream), HeaderProgress::Header(expected, header.len()));
    }

    #[test]
    fn any_bytes_are_survived(bytes in any::<Vec<u8>>(), signed in any::<bool>()) {
        let mut stream = if signed { v2::SIGNATURE.to_vec() } else { b"PROXY ".to_vec() };
        stream.extend(&bytes);
        read(&stream);
        read(&bytes);
    }
}
