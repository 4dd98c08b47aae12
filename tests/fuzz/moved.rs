//! The state of a session that moves: whatever its bytes are, they are read or refused. What is
//! read is written as it was read, and filters in its states follow whatever comes.

#![no_main]

use evenkeel::wire::frame_filter::{FrameAction, FrameFilter};
use evenkeel::wire::moved::{MovedSession, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(session) = decode(bytes) else {
        return;
    };
    let mut written = Vec::new();
    encode(&session, &mut written);
    assert!(decode(&written).as_ref() == Ok(&session), "it is written otherwise");
    for end in 0..written.len() {
        assert!(decode(&written[..end]).is_err(), "a part of it is read");
    }
    follow(session, bytes);
});

fn follow(session: MovedSession, bytes: &[u8]) {
    let Some(frames) = session.frames else {
        return;
    };
    let client = FrameFilter::from_client().import(frames.client);
    let backend = FrameFilter::from_server().import(frames.backend);
    for mut filter in [client, backend].into_iter().flatten() {
        let state = filter.export();
        for chunk in bytes.chunks(7) {
            let _ = filter.pass(chunk, |_| FrameAction::Pass);
            let _ = filter.take_insert();
            filter.skip(filter.unseen().min(3));
        }
        assert!(state.is_some(), "a state that cannot move on");
    }
}
