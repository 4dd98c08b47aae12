//! Commands that talk to a running balancer. They speak HTTP/1 to its admin endpoint: `target`
//! finds it, `request` sends a request and `ask` shows the answer. `table` and `listing` are for
//! people, both laid out by `layout`.

mod arguments;
mod ask;
mod cluster;
mod connections;
mod drain;
mod first_bytes;
mod healthcheck;
mod jobs;
mod layout;
mod listing;
mod plan;
mod reload;
mod request;
mod status;
mod subject;
mod table;
mod target;
#[cfg(feature = "top")]
mod top;
mod trust;
mod upgrade;
mod wait;

pub(super) use arguments::{
    AskArguments, DrainArguments, MaintArguments, OutputFormat, ReadyArguments, ReloadArguments,
    WeightArguments,
};
pub(super) use ask::to_json;
pub(super) use connections::{
    CloseArguments, ListArguments, MoveArguments, close, list, move_many,
};
pub(super) use drain::{drain, maint, ready, weight};
pub(super) use healthcheck::{HealthcheckArguments, healthcheck};
pub(super) use jobs::{AbortArguments, abort, list as jobs};
pub(super) use layout::{Cell, Style, clean, layout};
pub(super) use plan::{PlanArguments, plan};
pub(super) use reload::reload;
pub(super) use status::{StatusArguments, status};
#[cfg(feature = "top")]
pub(super) use top::{TopArguments, top};
pub(super) use upgrade::{UpgradeArguments, upgrade};
