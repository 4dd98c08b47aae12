//! The connection table for the operator: a page of it, and the end of one connection.
//!
//! What is listed is what the relay holds: established connections. One in set-up has a deadline of its own.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use hyper::body::Body;
use tracing::info;

use super::body::{Nothing, read_json};
use super::look;
use super::query::Listing;
use super::reply::{Failure, Reply, json};
use super::view::ClosedView;
use crate::base::close_code::GOING_AWAY;
use crate::relay::{Filter, Goodbye};
use crate::server::Server;

pub(super) async fn list(server: &Arc<Server>, query: Option<&str>) -> Result<Reply, Failure> {
    let Listing {
        filter,
        from,
        limit,
    } = Listing::parse(query.unwrap_or_default()).map_err(Failure::bad_request)?;
    let page = server.relay().list(filter, from, limit).await;
    Ok(json(StatusCode::OK, &look::connections(server, &page)))
}

pub(super) async fn close<B>(server: &Arc<Server>, id: &str, body: B) -> Result<Reply, Failure>
where
    B: Body<Data = Bytes> + Unpin,
{
    read_json::<Nothing, _>(body).await?;
    let unknown = || Failure::not_found(format!("no established connection {id:?}"));
    let number: u64 = id.parse().map_err(|_| unknown())?;
    let one = Filter {
        id: Some(number),
        ..Filter::default()
    };
    let closed = server
        .relay()
        .close(one, &Arc::new(Goodbye::new(GOING_AWAY, "")))
        .await;
    if closed == 0 {
        return Err(unknown());
    }
    info!(id = number, "operator closes a connection");
    Ok(json(StatusCode::OK, &ClosedView { closed }))
}
