//! Nearest-name hints for messages: `unknown key "intervall", did you mean "interval"?`.

/// Beginnings of the names of the cookies of the admin endpoint; the port follows. A browser sends
/// them to every port of the host, and no backend is to see them. The second one is for TLS: a
/// browser takes it from that very host alone, for all its paths.
pub(crate) const SESSION_COOKIES: [&str; 2] = ["evenkeel-", "__Host-evenkeel-"];

/// The allowed name that was most likely meant by `name`, if one is near enough.
///
/// Near means at most a third of the letters typed wrong (added, left out, changed or two swapped),
/// and at least one.
pub(crate) fn nearest<'a>(
    name: &str,
    allowed: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let typed: Vec<char> = name.chars().take(LONGEST).collect();
    let near = allowed
        .into_iter()
        .map(|candidate| (distance(&typed, candidate), candidate));
    let (distance, candidate) = near.min_by_key(|(distance, _)| *distance)?;
    let tolerance = (typed.len().max(candidate.chars().count()) / 3).max(1);
    (distance <= tolerance && distance < typed.len()).then_some(candidate)
}

/// Longest name compared; all of ours are shorter. Bounds the work on a hostile file.
const LONGEST: usize = 64;

/// Optimal string alignment: edits of one letter and swaps of two neighbours, case aside.
fn distance(typed: &[char], candidate: &str) -> usize {
    let candidate: Vec<char> = candidate.chars().take(LONGEST).collect();
    let same = |a: usize, b: usize| match (typed.get(a), candidate.get(b)) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
        _ => false,
    };
    let width = candidate.len() + 1;
    let mut before: Vec<usize> = vec![0; width];
    let mut last: Vec<usize> = (0..width).collect();
    for i in 1..=typed.len() {
        let mut row = vec![i];
        for j in 1..width {
            let substituted = at(&last, j - 1) + usize::from(!same(i - 1, j - 1));
            let mut best = substituted.min(at(&last, j) + 1).min(at(&row, j - 1) + 1);
            if i > 1 && j > 1 && same(i - 1, j - 2) && same(i - 2, j - 1) {
                best = best.min(at(&before, j - 2) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    at(&last, width - 1)
}

fn at(row: &[usize], index: usize) -> usize {
    row.get(index).copied().unwrap_or(usize::MAX / 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEYS: [&str; 5] = ["interval", "timeout", "rise", "fall", "connect_timeout"];

    #[test]
    fn a_slip_of_the_finger_finds_its_name() {
        for (typed, meant) in [
            ("intervall", "interval"),
            ("itnerval", "interval"),
            ("Timeout", "timeout"),
            ("rize", "rise"),
            ("connection_timeout", "connect_timeout"),
        ] {
            assert_eq!(nearest(typed, KEYS), Some(meant), "{typed}");
        }
    }

    #[test]
    fn a_name_unlike_all_gets_no_hint() {
        for typed in ["", "x", "gzip", "proxy_pass"] {
            assert_eq!(nearest(typed, KEYS), None, "{typed}");
        }
        assert_eq!(nearest("interval", []), None);
    }

    proptest! {
        #[test]
        fn one_changed_letter_is_always_near(index in 0usize..5, place in 0usize..4, letter in "[a-z]") {
            let key = KEYS[index];
            let mut typed = key.to_owned();
            typed.replace_range(place..=place, &letter);
            prop_assert_eq!(nearest(&typed, [key]), Some(key));
        }

        #[test]
        fn any_name_is_survived(name in ".*") {
            let _ = nearest(&name, KEYS);
        }
    }
}
