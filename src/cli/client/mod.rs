//! Commands that talk to a running balancer. They speak HTTP/1 to its admin endpoint: `target`
//! finds it, `request` sends a request and `ask` shows the answer. `table` and `listing` are for
//! people, both laid out by `layout`.

mod arguments;
mod ask;
mod connections;
mod drain;
mod first_bytes;
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
mod trust;
mod wait;

pub use arguments::{
    AskArguments, DrainArguments, MaintArguments, ReadyArguments, ReloadArguments, WeightArguments,
};
pub use connections::{CloseArguments, ListArguments, MoveArguments, close, list, move_many};
pub use drain::{drain, maint, ready, weight};
pub use jobs::{AbortArguments, abort, list as jobs};
pub use plan::{PlanArguments, plan};
pub use reload::reload;
pub use status::{StatusArguments, status};
