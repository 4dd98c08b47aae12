//! Connection table for the operator: pages of it, and closing one connection.
//!
//! The relay's connections are listed: the established ones. A connection in set-up has a deadline.

use std::cmp::Reverse;
use std::sync::Arc;

use http::StatusCode;
use tracing::info;

use super::body::{ApiBody, EmptyBody, read_json};
use super::query::{Listing, SortKey};
use super::reply::{ApiError, Reply, json};
use super::view::{ClosedView, ConnectionsView};
use super::{filter_names, snapshot};
use crate::relay::{CloseFrame, ConnectionInfo, Cursor, Filter, MAX_PAGE, TablePage};
use crate::server::Server;

pub(super) async fn list(server: &Arc<Server>, query: Option<&str>) -> Result<Reply, ApiError> {
    let Listing {
        filter,
        from,
        sort,
        limit,
        counts,
    } = Listing::parse(query.unwrap_or_default()).map_err(ApiError::bad_request)?;
    filter_names::verify(server, &filter).await?;
    let matching = if counts {
        Some(count(server, &filter).await)
    } else {
        None
    };
    let page = match sort {
        None => server.relay().list(filter, from, limit).await,
        Some(sort) => first(server, filter, sort, limit).await,
    };
    let view = ConnectionsView {
        matching,
        ..snapshot::connections(server, &page)
    };
    Ok(json(StatusCode::OK, &view))
}

/// Counts the connections that match, as an operator wants to know before closing them.
async fn count(server: &Server, filter: &Filter) -> u64 {
    let (mut count, mut from) = (0, Some(Cursor::default()));
    while let Some(cursor) = from {
        let page = server.relay().list(filter.clone(), cursor, MAX_PAGE).await;
        count += page.connections.len() as u64;
        from = page.next;
    }
    count
}

/// Reads the whole table and keeps the first `limit`.
async fn first(server: &Server, filter: Filter, sort: SortKey, limit: usize) -> TablePage {
    let rank = |one: &ConnectionInfo| match sort {
        // By number, given in the order of accepting: workers read ages at different moments.
        SortKey::Age => u128::from(u64::MAX - one.summary.id),
        SortKey::Idle => one.idle.as_nanos(),
        SortKey::Bytes => {
            u128::from(one.summary.bytes_from_client) + u128::from(one.summary.bytes_from_backend)
        }
    };
    let mut kept = TablePage::default();
    let mut from = Some(Cursor::default());
    while let Some(cursor) = from {
        let page = server.relay().list(filter.clone(), cursor, MAX_PAGE).await;
        kept.connections.extend(page.connections);
        kept.connections.sort_by_key(|one| Reverse(rank(one)));
        kept.connections.truncate(limit);
        from = page.next;
    }
    kept
}

pub(super) async fn close(
    server: &Arc<Server>,
    id: &str,
    body: impl ApiBody,
) -> Result<Reply, ApiError> {
    read_json::<EmptyBody>(body).await?;
    let unknown = || ApiError::not_found(format!("no established connection {id:?}"));
    let number: u64 = id.parse().map_err(|_| unknown())?;
    let one = Filter {
        id: Some(number),
        ..Filter::default()
    };
    let closed = server
        .relay()
        .close(one, &Arc::new(CloseFrame::going_away()))
        .await;
    if closed == 0 {
        return Err(unknown());
    }
    info!(id = number, "operator closes a connection");
    Ok(json(StatusCode::OK, &ClosedView { closed }))
}
