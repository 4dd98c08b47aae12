//! The two text formats of the page: OpenMetrics 1.0, and the classic one of Prometheus, which more
//! tools read. A scraper says in `Accept` which it wants.

use std::fmt::{self, Write};

use http::HeaderMap;
use http::header::ACCEPT;

const OPEN_METRICS: &str = "application/openmetrics-text";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum PageFormat {
    Classic,
    OpenMetrics,
}

impl PageFormat {
    /// The format that a client has asked for: OpenMetrics where it names that, and no other text
    /// that it likes better.
    pub(in crate::admin) fn wanted(headers: &HeaderMap) -> PageFormat {
        let ranges = headers.get_all(ACCEPT).iter();
        let ranges = ranges.filter_map(|value| value.to_str().ok());
        let ranges = ranges.flat_map(|value| value.split(',')).map(weighed);
        let (mut open, mut classic) = (0.0_f32, 0.0_f32);
        for (kind, weight) in ranges {
            match kind {
                OPEN_METRICS => open = open.max(weight),
                "text/plain" | "text/*" => classic = classic.max(weight),
                _ => {}
            }
        }
        if open > 0.0 && open >= classic {
            PageFormat::OpenMetrics
        } else {
            PageFormat::Classic
        }
    }

    pub(in crate::admin) fn content_type(self) -> &'static str {
        match self {
            PageFormat::Classic => "text/plain; version=0.0.4; charset=utf-8",
            PageFormat::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Media type of a range of `Accept`, and its weight.
fn weighed(range: &str) -> (&str, f32) {
    let mut parts = range.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=")?.trim().parse().ok());
    (kind, weight.unwrap_or(1.0))
}

/// Writer that turns OpenMetrics into the classic format: a counter's family has the name of its
/// samples, and there are neither units nor an end. Samples pass as they are.
pub(super) struct ClassicText<'w, W> {
    page: &'w mut W,
    /// The comment that is being written; empty in a sample.
    comment: String,
    /// Help text of the family whose kind comes next.
    help: String,
    begins_line: bool,
}

impl<'w, W: Write> ClassicText<'w, W> {
    pub(super) fn new(page: &'w mut W) -> ClassicText<'w, W> {
        ClassicText {
            page,
            comment: String::new(),
            help: String::new(),
            begins_line: true,
        }
    }

    fn end_comment(&mut self) -> fmt::Result {
        let comment = std::mem::take(&mut self.comment);
        let comment = comment.trim_end();
        if let Some(help) = comment.strip_prefix("# HELP ") {
            self.help = help.split_once(' ').unwrap_or_default().1.to_owned();
        } else if let Some(kind) = comment.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap_or_default();
            let suffix = if kind == "counter" { "_total" } else { "" };
            writeln!(self.page, "# HELP {name}{suffix} {}", self.help)?;
            writeln!(self.page, "# TYPE {name}{suffix} {kind}")?;
        }
        Ok(())
    }
}

impl<W: Write> Write for ClassicText<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for piece in text.split_inclusive('\n') {
            let is_comment = !self.comment.is_empty() || self.begins_line && piece.starts_with('#');
            self.begins_line = piece.ends_with('\n');
            if !is_comment {
                self.page.write_str(piece)?;
                continue;
            }
            self.comment.push_str(piece);
            if self.begins_line {
                self.end_comment()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(accept: &str) -> PageFormat {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, accept.parse().unwrap());
        PageFormat::wanted(&headers)
    }

    #[test]
    fn the_client_chooses_the_format() {
        for accept in [
            "application/openmetrics-text",
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            "text/plain;q=0.5, application/openmetrics-text; version=1.0.0; q=0.5",
        ] {
            assert_eq!(wanted(accept), PageFormat::OpenMetrics, "{accept}");
        }
        for accept in [
            "*/*",
            "text/plain",
            "text/html",
            "application/openmetrics-text;q=0",
            "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;q=0.3",
        ] {
            assert_eq!(wanted(accept), PageFormat::Classic, "{accept}");
        }
        assert_eq!(PageFormat::wanted(&HeaderMap::new()), PageFormat::Classic);
    }

    const OPEN: &str = "# HELP a_bytes The # sign.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
        a_bytes_total{x=\"#\\n# TYPE\"} 1\n# HELP b Two.\n# TYPE b gauge\nb 2\n# EOF\n";
    const CLASSIC: &str = "# HELP a_bytes_total The # sign.\n# TYPE a_bytes_total counter\n\
        a_bytes_total{x=\"#\\n# TYPE\"} 1\n# HELP b Two.\n# TYPE b gauge\nb 2\n";

    proptest! {
        #[test]
        fn however_it_is_cut_the_text_is_the_same(mut cuts in prop::collection::vec(0..OPEN.len(), 0..20)) {
            cuts.extend([0, OPEN.len()]);
            cuts.sort_unstable();
            let mut page = String::new();
            let mut classic = ClassicText::new(&mut page);
            for pair in cuts.windows(2) {
                classic.write_str(&OPEN[pair[0]..pair[1]]).unwrap();
            }
            prop_assert_eq!(page, CLASSIC);
        }
    }
}
