//! Answers of Redis: whatever the bytes are, they are a value, a part of one, or refused. A value
//! that is cut anywhere is a part of one.

#![no_main]

use evenkeel::wire::resp::{RespError, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok((_, length)) = read(bytes) else {
        return;
    };
    assert!(length <= bytes.len(), "more than there is");
    for end in 0..length {
        assert_eq!(read(&bytes[..end]), Err(RespError::Incomplete), "a part is read");
    }
});
