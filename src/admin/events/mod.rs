//! Events of the admin API: one producer looks at the server and tells all viewers what changed.
//!
//! `observer` compares two looks, `feed` numbers the differences and keeps them, `stream` sends
//! them to one viewer. Nothing on the data path knows of this, and without a viewer nothing runs.

mod feed;
mod kind;
mod marks;
mod observer;
mod producer;
mod rates;
mod stream;

pub(super) use feed::Feed;
pub(super) use kind::EventKinds;
pub(super) use stream::{EventBody, Viewer};
