//! Files of ticket keys: a file that is written in the format is read as it was meant, any other is an
//! error or whole keys.

#![no_main]

use data_encoding::BASE64;
use evenkeel::wire::ticket_keys::{MAX_KEYS, TicketKeys};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
enum Case {
    /// Any bytes.
    Raw(Vec<u8>),
    Lines(Vec<Line>),
}

#[derive(Debug, Arbitrary)]
enum Line {
    Short([u8; 48]),
    Long([u8; 80]),
    Other(Vec<u8>),
    Cut([u8; 80], u8),
    Blank,
}

fuzz_target!(|case: Case| match case {
    Case::Raw(bytes) => check(&bytes),
    Case::Lines(lines) => {
        let text: Vec<u8> = lines.iter().flat_map(Line::bytes).collect();
        check(&text);
        if let Some(keys) = meant(&lines) {
            let read = TicketKeys::parse(&text).expect("it is in the format");
            assert_eq!(read.all().len(), keys.len().min(MAX_KEYS));
            let last = keys.iter().skip(keys.len() - read.all().len());
            for (key, meant) in read.all().iter().zip(last) {
                assert_eq!(key.name, meant[..16]);
                let (aes, hmac) = match meant.len() {
                    48 => (&meant[16..32], &meant[32..48]),
                    _ => (&meant[48..80], &meant[16..48]),
                };
                assert_eq!((&key.aes[..], &key.hmac[..]), (aes, hmac));
            }
        }
    }
});

/// Holds of every file.
fn check(text: &[u8]) {
    let Ok(keys) = TicketKeys::parse(text) else {
        return;
    };
    let all = keys.all();
    assert!((1..=MAX_KEYS).contains(&all.len()) && keys.sealing() < all.len());
    assert!(all.len() == 1 || keys.sealing() == all.len() - 2);
    for key in all {
        assert!(matches!((key.aes.len(), key.hmac.len()), (16, 16) | (32, 32)));
        assert_eq!(key.aes.len(), all[0].aes.len());
    }
    // Reading what it means again gives the same.
    let again: Vec<u8> = all
        .iter()
        .flat_map(|key| {
            let secret = match key.aes.len() {
                16 => [&key.name[..], &key.aes, &key.hmac].concat(),
                _ => [&key.name[..], &key.hmac, &key.aes].concat(),
            };
            Line::encoded(&secret)
        })
        .collect();
    assert_eq!(TicketKeys::parse(&again).as_ref(), Ok(&keys));
}

/// The keys, where every line is one of the same length.
fn meant(lines: &[Line]) -> Option<Vec<&[u8]>> {
    let mut keys: Vec<&[u8]> = Vec::new();
    for line in lines {
        match line {
            Line::Short(key) => keys.push(key),
            Line::Long(key) => keys.push(key),
            Line::Blank => {}
            Line::Other(_) | Line::Cut(..) => return None,
        }
    }
    let length = keys.first()?.len();
    keys.iter().all(|key| key.len() == length).then_some(keys)
}

impl Line {
    fn encoded(key: &[u8]) -> Vec<u8> {
        (BASE64.encode(key) + "\n").into_bytes()
    }

    fn bytes(&self) -> Vec<u8> {
        match self {
            Line::Short(key) => Line::encoded(key),
            Line::Long(key) => Line::encoded(key),
            Line::Other(bytes) => bytes.clone(),
            Line::Cut(key, at) => {
                let mut line = Line::encoded(key);
                line.truncate(usize::from(*at));
                line
            }
            Line::Blank => b" \r\n".to_vec(),
        }
    }
}
