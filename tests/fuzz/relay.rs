//! The relay against its model, with the fuzzer's choices in place of a seed's: one relay and its
//! thread serve all inputs.

#![no_main]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use evenkeel::parts::model::bench::Bench;
use evenkeel::parts::model::{Case, Choices, run};
use libfuzzer_sys::arbitrary::{self, Arbitrary, Unstructured};
use libfuzzer_sys::{Corpus, fuzz_target};

#[derive(Debug)]
struct Input(Case);

impl<'a> Arbitrary<'a> for Input {
    fn arbitrary(bytes: &mut Unstructured<'a>) -> arbitrary::Result<Self> {
        let all = bytes.bytes(bytes.len())?;
        Ok(Self(Case::new(Choices::Bytes(all), true)))
    }
}

/// Slow cases that are passed over for each that runs.
const SLOW_PASSED_OVER: u32 = 50;

fuzz_target!(|input: Input| -> Corpus {
    static BENCH: OnceLock<Bench> = OnceLock::new();
    static SLOW: AtomicU32 = AtomicU32::new(0);
    // The first one runs: it may be the one to be repeated.
    if input.0.is_slow() && SLOW.fetch_add(1, Relaxed) % SLOW_PASSED_OVER != 0 {
        return Corpus::Reject;
    }
    run(BENCH.get_or_init(Bench::new), &input.0);
    Corpus::Keep
});
