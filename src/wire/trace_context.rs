//! `traceparent`: the place of a request in a trace (W3C Trace Context, level 2).

use std::fmt;

/// Name of the field with the place in the trace.
pub const TRACEPARENT: &str = "traceparent";
/// Name of the field in which tracing systems keep what is their own.
pub const TRACESTATE: &str = "tracestate";

/// Length of the value in version 00.
const LENGTH: usize = 55;
/// Bit of the flags that says that the caller records the trace.
const SAMPLED: u8 = 1;
/// The version that no value has.
const NO_VERSION: u8 = 0xff;

/// A span of a trace, as the next hop is told of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceContext {
    pub trace_id: u128,
    pub span_id: u64,
    pub is_sampled: bool,
}

impl TraceContext {
    /// Parses the value of a field. `None`: it is none, and a new trace begins.
    pub fn parse(value: &[u8]) -> Option<TraceContext> {
        let (known, rest) = value.split_at_checked(LENGTH)?;
        let known = std::str::from_utf8(known).ok()?;
        let mut parts = known.split('-');
        let mut next = |digits| hex(parts.next()?, digits);
        let version = u8::try_from(next(2)?).ok()?;
        let (trace_id, span_id) = (next(32)?, u64::try_from(next(16)?).ok()?);
        let flags = u8::try_from(next(2)?).ok()?;
        // A later version may say more behind these four parts.
        let is_whole = match version {
            0 => rest.is_empty(),
            NO_VERSION => false,
            _ => matches!(rest.first(), None | Some(b'-')),
        };
        let is_known = is_whole && parts.next().is_none() && trace_id != 0 && span_id != 0;
        is_known.then_some(TraceContext {
            trace_id,
            span_id,
            is_sampled: flags & SAMPLED != 0,
        })
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flags = u8::from(self.is_sampled);
        write!(
            f,
            "00-{:032x}-{:016x}-{flags:02x}",
            self.trace_id, self.span_id
        )
    }
}

/// The number of so many lower-case digits.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_fit = text.len() == digits && text.bytes().all(is_digit);
    is_fit.then(|| u128::from_str_radix(text, 16).ok())?
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn the_example_of_the_standard_is_read() {
        let read = TraceContext::parse(GOOD.as_bytes()).unwrap();
        assert_eq!(read.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c);
        assert_eq!(read.span_id, 0xb7ad_6b71_6920_3331);
        assert!(read.is_sampled);
    }

    #[test]
    fn what_the_standard_forbids_begins_a_new_trace() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        for wrong in [
            String::new(),
            GOOD.to_uppercase(),
            format!("{GOOD}-"),
            format!("{GOOD}-more"),
            GOOD.replace("00-0", "ff-0"),
            GOOD.replace('-', "_"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{id}-{}-01", "0".repeat(16)),
            format!("00-{id}-b7ad6b7169203331-0"),
            format!("00-{id}-b7ad6b7169203331-+1"),
            format!("01-{id}-b7ad6b7169203331-01more"),
        ] {
            assert_eq!(TraceContext::parse(wrong.as_bytes()), None, "{wrong}");
        }
    }

    #[test]
    fn a_later_version_may_say_more() {
        let more = GOOD.replace("00-0", "cc-0");
        for later in [more.clone(), more + "-what the future holds"] {
            assert!(TraceContext::parse(later.as_bytes()).is_some(), "{later}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(trace_id in 1_u128.., span_id in 1_u64.., is_sampled: bool) {
            let context = TraceContext { trace_id, span_id, is_sampled };
            let written = context.to_string();
            prop_assert_eq!(TraceContext::parse(written.as_bytes()), Some(context));
        }

        #[test]
        fn any_bytes_are_read_or_not(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            if let Some(read) = TraceContext::parse(&bytes) {
                prop_assert!(read.trace_id != 0 && read.span_id != 0);
            }
        }
    }
}
