//! The filter against an encoder and a decoder of its own.

use proptest::prelude::*;

use super::*;
use crate::wire::control::{self, ControlReader};
use crate::wire::frames::Frame;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
const TOKEN: [u8; PING_BYTES] = *b"\x01token-\x02";

/// A frame as a reader of its own takes it apart.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Whole {
    first: u8,
    payload: Vec<u8>,
}

impl Whole {
    fn encode(&self, is_masked: bool) -> Vec<u8> {
        let length = self.payload.len();
        let mask_bit = if is_masked { 0x80 } else { 0 };
        let mut bytes = vec![self.first];
        match length {
            0..126 => bytes.push(length as u8 | mask_bit),
            _ => {
                bytes.push(126 | mask_bit);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
        }
        if is_masked {
            bytes.extend_from_slice(&KEY);
        }
        let key = KEY
            .iter()
            .cycle()
            .map(|key| if is_masked { *key } else { 0 });
        bytes.extend(self.payload.iter().zip(key).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// All frames, or what is left of one that is not whole.
    fn decode(mut bytes: &[u8]) -> (Vec<Whole>, Vec<u8>) {
        let mut frames = Vec::new();
        while let Some((frame, length)) = Whole::first(bytes) {
            frames.push(frame);
            bytes = &bytes[length..];
        }
        (frames, bytes.to_vec())
    }

    fn first(bytes: &[u8]) -> Option<(Whole, usize)> {
        let (first, second) = (*bytes.first()?, *bytes.get(1)?);
        let (length, mut at) = match second & 0x7f {
            126 => (
                usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
                4,
            ),
            short => (usize::from(short), 2),
        };
        let mut key = [0; 4];
        if second & 0x80 != 0 {
            key.copy_from_slice(bytes.get(at..at + 4)?);
            at += 4;
        }
        let payload = bytes.get(at..at + length)?;
        let payload = payload
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key);
        let frame = Whole {
            first,
            payload: payload.collect(),
        };
        Some((frame, at + length))
    }
}

fn control_frames() -> impl Strategy<Value = Whole> {
    let pongs = prop_oneof![
        Just(TOKEN.to_vec()),
        Just(TOKEN[..7].to_vec()),
        Just([&TOKEN[..], b"!"].concat()),
        prop::collection::vec(any::<u8>(), 0..126),
    ];
    (prop_oneof![Just(0x89u8), Just(0x8a), Just(0x8a)], pongs)
        .prop_map(|(first, payload)| Whole { first, payload })
}

/// Messages of one to three fragments, with control frames anywhere between.
fn streams() -> impl Strategy<Value = Vec<Whole>> {
    let fragment = prop::collection::vec(any::<u8>(), 0..300);
    let fragments = prop::collection::vec((fragment, prop::option::of(control_frames())), 1..4);
    prop::collection::vec(fragments, 0..5).prop_map(|messages| {
        let mut frames = Vec::new();
        for message in messages {
            let last = message.len() - 1;
            for (place, (payload, control)) in message.into_iter().enumerate() {
                let opcode = if place == 0 { 2 } else { 0 };
                let fin = if place == last { 0x80 } else { 0 };
                frames.push(Whole {
                    first: opcode | fin,
                    payload,
                });
                frames.extend(control);
            }
        }
        frames
    })
}

fn chunks<'a>(bytes: &'a [u8], cuts: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

fn filter(is_masked: bool) -> FrameFilter {
    if is_masked {
        FrameFilter::from_client()
    } else {
        FrameFilter::from_server()
    }
}

fn reader(is_masked: bool) -> ControlReader {
    if is_masked {
        ControlReader::Backend(KEY)
    } else {
        ControlReader::Client
    }
}

/// Passes the chunks, with `act` before the one of that number and a look for what may be put in
/// after each.
fn run(
    filter: &mut FrameFilter,
    chunks: &[&[u8]],
    at: usize,
    mut act: impl FnMut(&mut FrameFilter),
) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, chunk) in chunks.iter().enumerate() {
        if number == at {
            act(filter);
            out.extend(filter.take_insert().unwrap_or_default());
        }
        match filter.pass(chunk, |_| FrameAction::Pass) {
            Filtered::Whole => out.extend_from_slice(chunk),
            Filtered::Edited(bytes) => out.extend(bytes),
        }
        out.extend(filter.take_insert().unwrap_or_default());
    }
    out
}

proptest! {
    #[test]
    fn untouched_it_passes_every_byte(frames in streams(), masked: bool, cuts: Vec<prop::sample::Index>) {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(masked)).collect();
        let mut filter = filter(masked);
        prop_assert_eq!(run(&mut filter, &chunks(&bytes, &cuts), 0, |_| {}), bytes);
        prop_assert!(filter.violation().is_none() && filter.edits.is_none());
    }

    #[test]
    fn a_ping_goes_in_between_two_frames(
        frames in streams(), masked: bool, cuts: Vec<prop::sample::Index>, at: prop::sample::Index,
    ) {
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(masked)).collect();
        let chunks = chunks(&bytes, &cuts);
        let ping = control::ping(*b"our-ping", reader(masked));
        let mut filter = filter(masked);
        let out = run(&mut filter, &chunks, at.index(chunks.len()), |filter| filter.insert(&ping));
        let (mut passed, rest) = Whole::decode(&out);
        prop_assert!(rest.is_empty());
        let ours = passed.iter().position(|frame| frame.first == 0x89 && frame.payload == b"our-ping");
        passed.remove(ours.expect("it went in"));
        prop_assert_eq!(passed, frames);
        prop_assert!(filter.edits.is_none());
    }

    #[test]
    fn only_the_first_pong_to_our_ping_is_taken_out(
        frames in streams(), masked: bool, cuts: Vec<prop::sample::Index>, at: prop::sample::Index,
    ) {
        let mut bytes = Vec::new();
        let mut begins = Vec::new();
        for frame in &frames {
            begins.push(bytes.len());
            bytes.extend(frame.encode(masked));
        }
        let chunks = chunks(&bytes, &cuts);
        let at = at.index(chunks.len());
        let asked_at: usize = chunks[..at].iter().map(|chunk| chunk.len()).sum();
        let mut filter = filter(masked);
        let out = run(&mut filter, &chunks, at, |filter| filter.expect_pong(TOKEN));
        let ours = frames.iter().zip(&begins).position(|(frame, begin)| {
            *begin >= asked_at && frame.first == 0x8a && frame.payload == TOKEN
        });
        let mut wanted = frames.clone();
        if let Some(ours) = ours {
            wanted.remove(ours);
        }
        prop_assert_eq!(Whole::decode(&out), (wanted, Vec::new()));
        prop_assert_eq!(filter.edits.is_none(), ours.is_some());
    }

    #[test]
    fn behind_our_close_nothing_passes_and_theirs_is_heard(
        frames in streams(), masked: bool, answers: bool, cuts: Vec<prop::sample::Index>, at: prop::sample::Index,
    ) {
        let mut bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(masked)).collect();
        if answers {
            let answer = Whole { first: 0x88, payload: vec![3, 0xe9] };
            bytes.extend(answer.encode(masked));
        }
        let chunks = chunks(&bytes, &cuts);
        let close = control::close(1012, "restart", reader(masked));
        let mut filter = filter(masked);
        let at = at.index(chunks.len());
        let out = run(&mut filter, &chunks, at, |filter| filter.insert_close(close.clone()));
        let (mut passed, rest) = Whole::decode(&out);
        prop_assert!(rest.is_empty());
        let last = passed.pop().expect("a close");
        prop_assert_eq!(last.first, 0x88);
        prop_assert!(passed.len() <= frames.len() && passed[..] == frames[..passed.len()]);
        prop_assert!(filter.is_discarding() && filter.is_closed() && !filter.is_truncated());
        prop_assert_eq!(filter.has_closed(), answers);
        prop_assert_eq!(filter.take_close_code(), answers.then_some(1001));
    }

    #[test]
    fn a_refused_frame_does_not_pass(
        frames in streams(), masked: bool, cuts: Vec<prop::sample::Index>, refused: prop::sample::Index,
    ) {
        prop_assume!(!frames.is_empty());
        let refused = refused.index(frames.len());
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(masked)).collect();
        let mut filter = filter(masked);
        let (mut seen, mut out) = (0, Vec::new());
        for chunk in chunks(&bytes, &cuts) {
            let watch = |_: &Frame| {
                seen += 1;
                if seen > refused { FrameAction::Refuse } else { FrameAction::Pass }
            };
            match filter.pass(chunk, watch) {
                Filtered::Whole => out.extend_from_slice(chunk),
                Filtered::Edited(bytes) => out.extend(bytes),
            }
        }
        let (passed, rest) = Whole::decode(&out);
        prop_assert_eq!(&passed[..], &frames[..refused]);
        prop_assert_eq!(filter.is_truncated(), !rest.is_empty());
        prop_assert!(filter.is_discarding());
    }

    #[test]
    fn any_bytes_pass_in_the_end(bytes: Vec<u8>, masked: bool, cuts: Vec<prop::sample::Index>) {
        let mut filter = filter(masked);
        filter.expect_pong(TOKEN);
        let out = run(&mut filter, &chunks(&bytes, &cuts), 0, |_| {});
        prop_assert!(bytes.starts_with(&out) || filter.violation().is_none());
        if filter.violation().is_some() {
            prop_assert_eq!(out, bytes);
        }
    }
}

/// Bytes that pass: whole frames, or the parts of one.
fn pass_all(filter: &mut FrameFilter, bytes: &[u8]) -> Vec<u8> {
    match filter.pass(bytes, |_| FrameAction::Pass) {
        Filtered::Whole => bytes.to_vec(),
        Filtered::Edited(bytes) => bytes,
    }
}

fn is_data(frame: &Whole) -> bool {
    frame.first & 0x08 == 0
}

/// Only frames of messages, and whether each ends one.
fn messages(frames: &[Whole]) -> Vec<Whole> {
    frames
        .iter()
        .filter(|frame| is_data(frame))
        .cloned()
        .collect()
}

proptest! {
    /// Whatever the reader had when it went: the next one gets whole messages, each frame once and
    /// in order, and of the frames of messages only those are missing that belong to the message
    /// that was cut.
    #[test]
    fn a_far_end_that_goes_gets_a_prefix_and_the_next_one_whole_messages(
        frames in streams(), at in any::<prop::sample::Index>(), size in 1usize..40, back in prop::option::of(0usize..200),
    ) {
        let stream: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(true)).collect();
        let at = at.index(stream.len() + 1);
        let mut filter = FrameFilter::from_client();
        let mut first = Vec::new();
        for chunk in stream[..at].chunks(size) {
            first.extend(pass_all(&mut filter, chunk));
        }
        let (cut, rest) = filter.detach_reader();
        prop_assert!(rest.is_empty());
        let behind = back.map_or(stream.len(), |back| (at + back).min(stream.len()));
        let mut second = Vec::new();
        let mut pings = 0;
        for chunk in stream[at..behind].chunks(size) {
            second.extend(pass_all(&mut filter, chunk));
            pings += usize::from(filter.take_ping().is_some());
        }
        filter.attach_reader();
        for chunk in stream[behind..].chunks(size) {
            second.extend(pass_all(&mut filter, chunk));
        }
        prop_assert!(filter.edits.is_none());
        let (had, part) = Whole::decode(&first);
        let (has, left) = Whole::decode(&second);
        prop_assert!(left.is_empty());
        // The first frame of the next reader begins a message.
        let has_messages = messages(&has);
        prop_assert!(has_messages.first().is_none_or(|frame| frame.first & 0x0f != 0));
        let had_messages = messages(&had);
        let all = messages(&frames);
        prop_assert_eq!(&had_messages[..], &all[..had_messages.len()]);
        prop_assert_eq!(&has_messages[..], &all[all.len() - has_messages.len()..]);
        let missing = &all[had_messages.len()..all.len() - has_messages.len()];
        // What is missing continues what was cut: at most one message's end.
        let begun = missing.iter().skip(usize::from(!part.is_empty())).filter(|frame| frame.first & 0x0f != 0);
        prop_assert_eq!(begun.count(), 0);
        prop_assert!(missing.is_empty() || cut);
        let asked = frames.iter().filter(|frame| frame.first == 0x89).count();
        let passed = had.iter().chain(&has).filter(|frame| frame.first == 0x89).count();
        prop_assert!(pings + passed <= asked);
    }

    /// A pause falls between two messages, and nothing is lost at it.
    #[test]
    fn a_pause_falls_between_two_messages(
        frames in streams(), at in any::<prop::sample::Index>(), size in 1usize..400,
    ) {
        let stream: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(true)).collect();
        let at = at.index(stream.len() + 1);
        let mut filter = FrameFilter::from_client();
        let mut first = pass_all(&mut filter, &stream[..at]);
        filter.pause();
        let mut come = at;
        for chunk in stream[at..].chunks(size) {
            if filter.is_paused() {
                break;
            }
            come += chunk.len();
            first.extend(pass_all(&mut filter, chunk));
        }
        prop_assume!(filter.is_paused());
        let (cut, rest) = filter.detach_reader();
        prop_assert!(!cut);
        let mut second = pass_all(&mut filter, &rest);
        second.extend(pass_all(&mut filter, &stream[come..]));
        let (had, part) = Whole::decode(&first);
        prop_assert!(part.is_empty());
        let (has, left) = Whole::decode(&second);
        prop_assert!(left.is_empty());
        let both = [messages(&had), messages(&has)].concat();
        prop_assert_eq!(both, messages(&frames));
        prop_assert!(messages(&had).last().is_none_or(|frame| frame.first & 0x80 != 0));
    }

    /// A Close by which a server goes away is not seen by its client, in any chunking, and any
    /// other is.
    #[test]
    fn only_a_close_of_who_goes_away_is_taken_out(
        frames in streams(), code in prop_oneof![Just(1000u16), Just(1001), Just(1012), Just(1013), Just(4000)],
        reason in "[a-z]{0,20}", size in 1usize..40, behind in prop::collection::vec(any::<u8>(), 0..20),
    ) {
        let payload = [&code.to_be_bytes()[..], reason.as_bytes()].concat();
        let close = Whole { first: 0x88, payload };
        let before: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(false)).collect();
        let stream = [before.clone(), close.encode(false)].concat();
        let mut filter = FrameFilter::from_server().with_close_filter(CloseFilter::Leaving);
        let mut passed = Vec::new();
        for chunk in stream.chunks(size) {
            passed.extend(pass_all(&mut filter, chunk));
        }
        let leaves = code != 1000 && code != 4000;
        prop_assert_eq!(filter.has_left(), leaves);
        prop_assert_eq!(filter.has_closed(), !leaves);
        prop_assert_eq!(&passed, if leaves { &before } else { &stream });
        prop_assert_eq!(filter.take_close_code(), Some(code));
        prop_assert_eq!(filter.take_close_code(), None);
        if leaves {
            prop_assert!(pass_all(&mut filter, &behind).is_empty());
            filter.replace_source();
            prop_assert_eq!(&pass_all(&mut filter, &stream[..before.len()]), &before);
            prop_assert!(filter.edits.is_none());
        }
    }
}

fn pass(filter: &mut FrameFilter, bytes: &[u8]) -> Filtered {
    filter.pass(bytes, |_| FrameAction::Pass)
}

/// A byte of a length, first in what was read, was taken for the begin of a Close, and the frame
/// was held to its end.
#[test]
fn a_length_that_looks_like_a_close_is_not_held() {
    let mut filter = FrameFilter::from_server().with_close_filter(CloseFilter::Leaving);
    let pieces: [&[u8]; 4] = [&[0x82, 126], &[0x08], &[0x00], &[1; 1000]];
    for piece in pieces {
        assert_eq!(pass(&mut filter, piece), Filtered::Whole, "{piece:?}");
        assert!(!filter.is_holding());
    }
}

/// A long frame that was cut went on to the next reader where nobody looked at it: through a pipe.
#[test]
fn what_is_thrown_away_is_not_let_by_unseen() {
    let mut filter = FrameFilter::from_client();
    let head = [0x82, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0];
    assert_eq!(pass(&mut filter, &head), Filtered::Whole);
    assert!(filter.unseen() > 0);
    assert_eq!(filter.detach_reader(), (true, Vec::new()));
    filter.attach_reader();
    assert_eq!(filter.unseen(), 0);
    assert_eq!(
        pass(&mut filter, &[7; 0x1000]),
        Filtered::Edited(Vec::new())
    );
}

#[test]
fn a_part_of_a_frame_that_is_held_is_not_at_the_far_end() {
    let mut filter = FrameFilter::from_server().with_close_filter(CloseFilter::Leaving);
    pass(&mut filter, &[0x01, 1, b'a', 0x88]);
    assert!(filter.has_passed_whole_frames() && !filter.has_passed_whole_messages());
    let mut filter = FrameFilter::from_server().with_close_filter(CloseFilter::Leaving);
    pass(&mut filter, &[0x81, 1, b'a', 0x88, 2, 3]);
    assert!(filter.has_passed_whole_messages() && !filter.at_message_boundary());
}

/// Once it was kept for good, where its source ended behind it and that was no loss.
#[test]
fn a_part_of_a_close_is_let_go_as_it_came() {
    let mut filter = FrameFilter::from_server().with_close_filter(CloseFilter::Leaving);
    assert_eq!(
        pass(&mut filter, &[0x81, 1, b'a', 0x88, 2]),
        Filtered::Edited(vec![0x81, 1, b'a'])
    );
    assert_eq!(filter.release_held(), [0x88, 2]);
    assert!(!filter.is_holding() && filter.release_held().is_empty());
}

#[test]
fn only_a_close_of_the_same_code_or_of_no_leaving_one_is_an_answer() {
    for (code, answers) in [(1012u16, true), (1000, true), (1001, false), (1013, false)] {
        let left = CloseCause::of(&code.to_be_bytes());
        assert_eq!(left.answers(1012), answers, "{code}");
    }
    assert!(CloseCause::of(&[]).answers(1012));
}
