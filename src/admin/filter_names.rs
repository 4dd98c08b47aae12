//! Check of the names in a filter. A name that does not exist is an error that lists those that do:
//! it would find no connection, which looks like the end of the work.

use std::sync::Arc;

use http::StatusCode;

use super::reply::ApiError;
use crate::pool::Pool;
use crate::relay::{Cursor, Filter};
use crate::server::Server;

/// Verifies that the listeners, pools and backends of `filter` exist, or were removed and have live
/// connections.
///
/// # Errors
/// Names the one that does not exist, and those that do.
pub(super) async fn verify(server: &Server, filter: &Filter) -> Result<(), ApiError> {
    let Filter {
        listener,
        pool,
        backend,
        ..
    } = filter;
    if let Some(name) = listener {
        let listeners = server.listeners();
        let names = listeners.iter().map(|one| one.name.clone()).collect();
        let only = Filter {
            listener: Some(name.clone()),
            ..Filter::default()
        };
        verify_name(server, format!("no listener {name:?}"), name, names, only).await?;
    }
    if let Some(name) = pool {
        let pools = server.pools();
        let names = pools.iter().map(|pool| pool.name().to_string()).collect();
        let only = Filter {
            pool: Some(name.clone()),
            ..Filter::default()
        };
        verify_name(server, format!("no pool {name:?}"), name, names, only).await?;
    }
    if let Some(name) = backend {
        let what = match pool {
            Some(pool) => format!("no backend {name:?} in pool {pool:?}"),
            None => format!("no backend {name:?} in any pool"),
        };
        let pools = pools_of(server, pool.as_deref());
        let names = pools.iter().flat_map(|pool| backends(pool)).collect();
        let only = Filter {
            pool: pool.clone(),
            backend: Some(name.clone()),
            ..Filter::default()
        };
        verify_name(server, what, name, names, only).await?;
    }
    Ok(())
}

/// Verifies that connections can move: a pool of `filter` has `resume`, on drains too.
///
/// # Errors
/// Names those without it.
pub(super) fn verify_move(server: &Server, filter: &Filter) -> Result<(), ApiError> {
    let mut pools = pools_of(server, filter.pool.as_deref());
    if let Some(name) = &filter.backend {
        pools.retain(|pool| backends(pool).contains(name));
    }
    let may_move = |pool: &Arc<Pool>| {
        let settings = pool.settings();
        settings
            .resume
            .as_ref()
            .is_some_and(|resume| resume.on.drain)
    };
    if pools.iter().any(may_move) {
        return Ok(());
    }
    let names: Vec<String> = pools
        .iter()
        .map(|pool| format!("{:?}", pool.name()))
        .collect();
    let whose = match names.as_slice() {
        [one] => format!("pool {one} has no `resume`"),
        _ => format!("none of the pools {} has `resume`", names.join(", ")),
    };
    Err(ApiError::new(
        StatusCode::CONFLICT,
        format!("{whose}, so no session can move to another backend; close or drain ends them"),
    ))
}

fn pools_of(server: &Server, name: Option<&str>) -> Vec<Arc<Pool>> {
    let mut pools = server.pools();
    pools.retain(|pool| name.is_none_or(|name| **pool.name() == *name));
    pools
}

fn backends(pool: &Pool) -> Vec<String> {
    let all = pool.backends().into_iter().chain(pool.retired());
    all.map(|backend| backend.name().to_string()).collect()
}

/// Verifies one name. A connection of `only` shows that it is of a removed object.
async fn verify_name(
    server: &Server,
    what: String,
    name: &str,
    mut names: Vec<String>,
    only: Filter,
) -> Result<(), ApiError> {
    if names.iter().any(|one| one == name) {
        return Ok(());
    }
    let mut from = Some(Cursor::default());
    while let Some(cursor) = from {
        let page = server.relay().list(only.clone(), cursor, 1).await;
        if !page.connections.is_empty() {
            return Ok(());
        }
        from = page.next;
    }
    names.sort();
    names.dedup();
    let there = if names.is_empty() {
        "there is none".to_owned()
    } else {
        format!("there are: {}", names.join(", "))
    };
    Err(ApiError::not_found(format!("{what}; {there}")))
}
