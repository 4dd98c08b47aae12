//! Escapes for a log line or a terminal, as in JSON: quote and backslash, C0 controls, and besides
//! DEL, C1 and the Unicode line and direction controls, which a terminal or an editor would act
//! upon.

use std::fmt::Write;

/// Appends `text` escaped, without quotes around it.
pub(crate) fn escape(text: &str, into: &mut String) {
    let is_itself = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_itself) {
        return into.push_str(text);
    }
    for character in text.chars() {
        match character {
            '"' => into.push_str("\\\""),
            '\\' => into.push_str("\\\\"),
            '\n' => into.push_str("\\n"),
            '\r' => into.push_str("\\r"),
            '\t' => into.push_str("\\t"),
            unsafe_to_show if acts_on_a_reader(unsafe_to_show) => {
                // All of them are in the basic plane: four digits. Writing to a String cannot fail.
                let _ = write!(into, "\\u{:04x}", u32::from(unsafe_to_show));
            }
            other => into.push(other),
        }
    }
}

fn acts_on_a_reader(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn escaped(text: &str) -> String {
        let mut out = String::new();
        escape(text, &mut out);
        out
    }

    #[test]
    fn control_bytes_are_escaped() {
        assert_eq!(
            escaped("a\u{1b}[2Jb\u{7f}\u{9b}"),
            "a\\u001b[2Jb\\u007f\\u009b"
        );
        assert_eq!(escaped("x\"\\\r\n\t"), "x\\\"\\\\\\r\\n\\t");
        assert_eq!(escaped("\u{202e}evil"), "\\u202eevil");
    }

    #[test]
    fn ordinary_text_stays_as_it_is() {
        assert_eq!(escaped("/grüße/日本"), "/grüße/日本");
    }

    proptest! {
        #[test]
        fn a_json_reader_gets_the_text_back(text in any::<String>()) {
            let back: String = serde_json::from_str(&format!("\"{}\"", escaped(&text)))?;
            prop_assert_eq!(back, text);
        }
    }
}
