//! A filter whose reader comes and goes, in two chunkings: what passes, what is taken out and what
//! is left does not hang on how the bytes came.

#![no_main]

use evenkeel::wire::frame_filter::{CloseFilter, Filtered, FrameAction, FrameFilter};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Arbitrary)]
struct Case {
    from_client: bool,
    hides_leaving: bool,
    actions: Vec<Action>,
    /// Sizes of the pieces that the second filter gets, over and over.
    pieces: Vec<u8>,
}

#[derive(Debug, Clone, Arbitrary)]
enum Action {
    Bytes(Vec<u8>),
    /// A frame with so many bytes of payload, of which the first are these.
    Frame {
        first: u8,
        length: u16,
        payload: [u8; 8],
    },
    /// A Close with this code.
    Close(u16),
    Insert,
    InsertClose,
    ExpectPong([u8; 8]),
    Pause,
    EndPause,
    DetachReader,
    AttachReader,
    ReplaceSource,
    HideAnyClose,
    HideNoClose,
}

fuzz_target!(|case: Case| {
    let new = || {
        let filter = if case.from_client {
            FrameFilter::from_client()
        } else {
            FrameFilter::from_server()
        };
        if case.hides_leaving {
            filter.with_close_filter(CloseFilter::Leaving)
        } else {
            filter
        }
    };
    let (mut whole, mut pieced) = (new(), new());
    let mut sizes = case.pieces.iter().cycle();
    let mut came = 0;
    let mut passed = 0;
    let mut has_changed = false;
    // Asked of a source that no Close is taken of, it would find one of which a part has passed.
    let mut hides_leaving = case.hides_leaving;
    for action in &case.actions {
        hides_leaving &= !matches!(action, Action::HideNoClose);
        if matches!(action, Action::HideAnyClose) && !hides_leaving {
            continue;
        }
        // Behind a violation nothing is known, and such a session is ended.
        has_changed |= matches!(action, Action::DetachReader);
        if has_changed && whole.violation().is_some() {
            return;
        }
        let bytes = match action {
            Action::Bytes(bytes) => bytes.clone(),
            Action::Frame {
                first,
                length,
                payload,
            } => frame(*first, usize::from(length % 512), payload, case.from_client),
            Action::Close(code) => frame(0x88, 2, &code.to_be_bytes(), case.from_client),
            other => {
                let ends = [&mut whole, &mut pieced].map(|filter| act(filter, other));
                assert_eq!(ends[0], ends[1], "{other:?}");
                // What had waited behind a pause has its turn now.
                let rest = &ends[0];
                let outs = [&mut whole, &mut pieced].map(|filter| pass(filter, rest));
                assert_eq!(outs[0], outs[1]);
                vec![]
            }
        };
        came += bytes.len();
        let expected = pass(&mut whole, &bytes);
        passed += expected.len();
        let mut found = Vec::new();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let size = usize::from(sizes.next().map_or(1, |&size| size.max(1))).min(rest.len());
            let (piece, behind) = rest.split_at(size);
            found.extend(pass(&mut pieced, piece));
            rest = behind;
        }
        if has_changed && whole.violation().is_some() {
            return;
        }
        assert_eq!(found, expected);
        assert_eq!(look(&whole), look(&pieced));
        assert_eq!(whole.take_ping(), pieced.take_ping());
    }
    // Nothing is made up but what was put in.
    let inserts = case
        .actions
        .iter()
        .filter(|action| matches!(action, Action::Insert | Action::InsertClose));
    assert!(passed <= came + 64 * inserts.count());
});

fn look(filter: &FrameFilter) -> [bool; 9] {
    [
        filter.is_discarding(),
        filter.is_truncated(),
        filter.is_closed(),
        filter.has_closed(),
        filter.has_left(),
        filter.is_holding(),
        filter.has_insert(),
        filter.is_paused(),
        filter.at_message_boundary(),
    ]
}

/// Bytes that pass, with frames that are put in at their end.
fn pass(filter: &mut FrameFilter, bytes: &[u8]) -> Vec<u8> {
    let mut passed = match filter.pass(bytes, |_| FrameAction::Pass) {
        Filtered::Whole => bytes.to_vec(),
        Filtered::Edited(bytes) => bytes,
    };
    passed.extend(filter.take_insert().unwrap_or_default());
    passed
}

/// Bytes that are to be passed again.
fn act(filter: &mut FrameFilter, action: &Action) -> Vec<u8> {
    match action {
        Action::Insert => filter.insert(b"\x89\x01x"),
        Action::InsertClose => filter.insert_close(b"\x88\x02\x03\xe8".to_vec()),
        Action::ExpectPong(payload) => filter.expect_pong(*payload),
        Action::Pause => filter.pause(),
        Action::EndPause => return filter.end_pause(),
        Action::DetachReader => return filter.detach_reader().1,
        Action::AttachReader => filter.attach_reader(),
        Action::ReplaceSource if filter.at_message_boundary() || filter.has_left() => {
            filter.replace_source()
        }
        Action::HideAnyClose => filter.set_close_filter(CloseFilter::Any),
        Action::HideNoClose => filter.set_close_filter(CloseFilter::None),
        _ => {}
    }
    vec![]
}

fn frame(first: u8, length: usize, payload: &[u8], is_masked: bool) -> Vec<u8> {
    let mask = u8::from(is_masked) << 7;
    let mut bytes = vec![first];
    match length {
        0..126 => bytes.push(mask | length as u8),
        _ => {
            bytes.push(mask | 126);
            bytes.extend((length as u16).to_be_bytes());
        }
    }
    if is_masked {
        bytes.extend([0; 4]);
    }
    let end = bytes.len() + length;
    bytes.extend(payload.iter().take(length));
    bytes.resize(end, 0x81);
    bytes
}
