//! Table of `evenkeel connections`: a row per connection, and a last line with the totals.

use super::layout::{Cell, Style, layout, span};
use crate::admin::view::{ConnectionView, ConnectionsView};
use crate::base::units::readable_size;

const HEAD: [&str; 9] = [
    "ID",
    "CLIENT",
    "LISTENER",
    "BACKEND",
    "WHAT",
    "AGE",
    "IDLE",
    "FROM CLIENT",
    "FROM BACKEND",
];
/// Column of tags, if there are any.
const TAG_COLUMN: usize = 4;

/// Access to further connections.
#[derive(Debug, Clone, Copy)]
pub(super) enum NextPage {
    Paged,
    /// Sorted, without pages; the limit that was asked for.
    Sorted(usize),
}

/// Writes the whole table, ending with a line end.
pub(super) fn connections(listed: &ConnectionsView, more: NextPage, style: Style) -> String {
    let is_tagged = listed.connections.iter().any(|one| one.tag.is_some());
    let rows = listed.connections.iter().map(|one| row(one, is_tagged));
    let mut head = HEAD.to_vec();
    if is_tagged {
        head.insert(TAG_COLUMN, "TAG");
    }
    let mut text = layout(&head, rows.collect(), style);
    let count = listed.connections.len();
    let more = match more {
        NextPage::Paged if listed.next.is_some() => "; there may be more: --all",
        NextPage::Sorted(limit) if count >= limit && listed.live > count as u64 => {
            "; there may be more: a higher --limit"
        }
        _ => "",
    };
    text.push_str(&format!("{count} listed, {} live{more}\n", listed.live));
    text
}

fn row(connection: &ConnectionView, is_tagged: bool) -> Vec<Cell> {
    let ConnectionView {
        id,
        listener,
        client,
        pool,
        backend,
        tag,
        age_seconds,
        idle_seconds,
        bytes_from_client,
        bytes_from_backend,
        ..
    } = connection;
    let backend = match (pool, backend) {
        (Some(pool), Some(backend)) => format!("{pool}/{backend}"),
        _ => String::new(),
    };
    let mut cells = vec![
        Cell::number(*id),
        Cell::text(client),
        Cell::text(listener),
        Cell::text(&backend),
        Cell::foreign(&what(connection)),
        Cell::amount(span(*age_seconds)),
        Cell::amount(span(*idle_seconds)),
        Cell::amount(readable_size(*bytes_from_client)),
        Cell::amount(readable_size(*bytes_from_backend)),
    ];
    if is_tagged {
        cells.insert(
            TAG_COLUMN,
            Cell::foreign(tag.as_deref().unwrap_or_default()),
        );
    }
    cells
}

/// Returns host and path of a WebSocket session, else the name of the ClientHello.
fn what(connection: &ConnectionView) -> String {
    let ConnectionView {
        sni, host, path, ..
    } = connection;
    match (host, path) {
        (None, None) => sni.clone().unwrap_or_default(),
        (host, path) => [host, path]
            .into_iter()
            .flatten()
            .map(String::as_str)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> ConnectionView {
        ConnectionView {
            id: 7,
            listener: "main".into(),
            client: "192.0.2.1:4000".into(),
            via: None,
            sni: Some("a.example".into()),
            host: Some("b.example".into()),
            path: Some("/socket".into()),
            tag: None,
            client_subject: None,
            pool: Some("chat".into()),
            backend: Some("n1".into()),
            tls: true,
            age_seconds: 3_700,
            idle_seconds: 5,
            bytes_from_client: 1_536,
            bytes_from_backend: 12,
        }
    }

    fn table(connection: ConnectionView, next: Option<u64>) -> String {
        let listed = ConnectionsView {
            connections: vec![connection],
            next,
            live: 9,
            matching: None,
        };
        connections(&listed, NextPage::Paged, Style::Plain)
    }

    #[test]
    fn a_row_tells_who_where_what_and_how_much() {
        let text = table(connection(), None);
        let words: Vec<&str> = text.lines().nth(1).unwrap().split_whitespace().collect();
        let expected = [
            "7",
            "192.0.2.1:4000",
            "main",
            "chat/n1",
            "b.example/socket",
            "1h01m",
            "5s",
            "1.5KiB",
            "12B",
        ];
        assert_eq!(words, expected);
        assert!(text.ends_with("\n1 listed, 9 live\n"), "{text}");
        assert!(table(connection(), Some(3)).ends_with("--all\n"));
    }

    #[test]
    fn tags_have_a_column_where_there_are_any() {
        let tagged = ConnectionView {
            tag: Some("u\u{1b}7".into()),
            ..connection()
        };
        let text = table(tagged, None);
        let words = |line: usize| -> Vec<&str> {
            text.lines().nth(line).unwrap().split_whitespace().collect()
        };
        assert_eq!((words(0)[4], words(1)[4]), ("TAG", "u\\u001b7"));
        assert!(!table(connection(), None).contains("TAG"));
    }

    #[test]
    fn a_session_without_a_request_shows_its_server_name() {
        let raw = ConnectionView {
            host: None,
            path: None,
            ..connection()
        };
        assert_eq!(what(&raw), "a.example");
        assert_eq!(what(&ConnectionView { sni: None, ..raw }), "");
    }

    #[test]
    fn a_clients_words_cannot_act_on_the_terminal() {
        let hostile = ConnectionView {
            path: Some("/\u{1b}[2J\u{9b}\u{202e}\n".into()),
            ..connection()
        };
        let text = table(hostile, None);
        assert!(
            text.contains("b.example/\\u001b[2J\\u009b\\u202e\\n"),
            "{text}"
        );
    }
}
