//! `evenkeel connections`, `close` and `move`: the connection table of a running balancer, a page
//! at a time.

use std::time::Duration;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueEnum};
use percent_encoding::utf8_percent_encode;
use serde_json::Value;

use super::arguments::{AskArguments, OutputFormat, PaceArguments, client, duration, number};
use super::ask::{ANSWER_TIMEOUT, SEGMENT, ask, ask_and_show, connections, parse, show, show_view};
use super::layout::{Style, clean};
use super::listing::NextPage;
use super::request::{ApiRequest, send};
use super::target::AdminTarget;
use super::{jobs, listing};
use crate::admin::view::{ClosedView, ConnectionsView, JobView};
use crate::admin::{CONDITIONS, DEFAULT_LIMIT};
use crate::base::units::format_duration;
use crate::cli::failure::CommandError;
use crate::relay::MAX_PAGE;

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// How many to show, 1 to 1000 [default: 100]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=MAX_PAGE as i64))]
    limit: Option<u16>,
    /// Show all of them
    #[arg(long, conflicts_with_all = ["limit", "sort"])]
    all: bool,
    /// Order: the oldest, the longest idle or those with the most bytes first
    #[arg(long, value_enum)]
    sort: Option<SortArgument>,
    #[command(flatten)]
    ask: AskArguments,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SortArgument {
    Age,
    Idle,
    Bytes,
}

impl SortArgument {
    fn word(self) -> &'static str {
        match self {
            SortArgument::Age => "age",
            SortArgument::Idle => "idle",
            SortArgument::Bytes => "bytes",
        }
    }
}

/// Filter of connections: all conditions that are given must hold.
#[derive(Debug, Args)]
struct FilterArguments {
    /// Only those that came in there
    #[arg(long, value_name = "NAME")]
    listener: Option<String>,
    /// Only those of this pool
    #[arg(long, value_name = "NAME")]
    pool: Option<String>,
    /// Only those on the backend of this name
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Only those of clients in this network, as in 10.0.0.0/8
    #[arg(long, value_name = "NETWORK", value_parser = client)]
    client: Option<String>,
    /// Only those with this tag, see `tag` of a listener
    #[arg(long, value_name = "TAG", value_parser = NonEmptyStringValueParser::new())]
    tag: Option<String>,
    /// Only those that asked for this host, whatever its port
    #[arg(long, value_name = "HOST", value_parser = NonEmptyStringValueParser::new())]
    host: Option<String>,
    /// Only those that asked for this path; `/chat/*` for all below
    #[arg(long, value_name = "PATH", value_parser = NonEmptyStringValueParser::new())]
    path: Option<String>,
    /// Only those that asked for this name in their TLS hello
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    sni: Option<String>,
    /// Only those whose certificate has this subject, or this as a part of it, as in CN=alice
    #[arg(long, value_name = "SUBJECT", value_parser = NonEmptyStringValueParser::new())]
    subject: Option<String>,
    /// Only those accepted at least so long ago, as in 1h
    #[arg(long, visible_alias = "age", value_name = "DURATION", value_parser = duration)]
    min_age: Option<Duration>,
    /// Only those without a byte either way for so long, as in 10m
    #[arg(long, visible_alias = "idle", value_name = "DURATION", value_parser = duration)]
    min_idle: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct CloseArguments {
    /// Which connection, by its id in `evenkeel connections` and in the access log
    #[arg(value_name = "ID", value_parser = number, conflicts_with_all = CONDITIONS, conflicts_with = "all")]
    id: Option<u64>,
    #[command(flatten)]
    job: MoveArguments,
}

#[derive(Debug, Args)]
pub(crate) struct MoveArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// Every connection
    #[arg(long, conflicts_with_all = CONDITIONS)]
    all: bool,
    #[command(flatten)]
    pace: PaceArguments,
    #[command(flatten)]
    ask: AskArguments,
}

/// Prints the established connections that match.
pub(crate) fn list(arguments: ListArguments) -> Result<(), CommandError> {
    let ListArguments {
        filter,
        limit,
        all,
        sort,
        ask: asked,
    } = arguments;
    ask(&asked, async |target, output| {
        if all {
            return show_all(target, output, &filter).await;
        }
        let body = page(target, &filter, sort, limit, None).await?;
        // In another order than the table's there are no further pages.
        let more = match sort {
            Some(_) => NextPage::Sorted(limit.map_or(DEFAULT_LIMIT, usize::from)),
            None => NextPage::Paged,
        };
        show(output, &body, |listed| {
            listing::connections(listed, more, Style::of_stdout())
        })
    })
}

/// Closes one connection at once, as a stop of the balancer would, or starts a job that closes
/// those that match.
pub(crate) fn close(arguments: CloseArguments) -> Result<(), CommandError> {
    let CloseArguments { id, job } = arguments;
    let Some(id) = id else {
        return start_job("/api/v1/connections/close", &job);
    };
    if job.pace.is_given() {
        return Err(CommandError::Usage(
            "one connection is closed at once: --rate, --deadline, --after, --code and --reason go with a filter or --all".to_owned(),
        ));
    }
    let path = format!("/api/v1/connections/{id}");
    ask_and_show(&job.ask, ApiRequest::delete(&path), |done: &ClosedView| {
        format!("{} closed\n", connections(done.closed))
    })
}

/// Starts a job that moves those that match to other backends, where they can outlive their own.
pub(crate) fn move_many(arguments: MoveArguments) -> Result<(), CommandError> {
    start_job("/api/v1/connections/move", &arguments)
}

/// Starts a job on the connections that match.
fn start_job(path: &str, arguments: &MoveArguments) -> Result<(), CommandError> {
    let conditions: serde_json::Map<String, Value> = arguments
        .filter
        .conditions()
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    if conditions.is_empty() && !arguments.all {
        return Err(CommandError::Usage(
            "which ones? give a filter such as --pool or --min-idle, or --all".to_owned(),
        ));
    }
    let mut body = serde_json::Map::new();
    if arguments.all {
        body.insert("all".to_owned(), true.into());
    } else {
        body.insert("filter".to_owned(), conditions.into());
    }
    arguments.pace.write(&mut body);
    let body = Value::from(body);
    let request = ApiRequest::post(path, &body);
    ask_and_show(&arguments.ask, request, |job: &JobView| {
        if job.ended == 0 && job.left == 0 {
            return format!("no connection matches: {}\n", clean(&job.target));
        }
        jobs::line(job)
    })
}

/// Shows all pages as one answer.
async fn show_all(
    target: &AdminTarget,
    output: OutputFormat,
    filter: &FilterArguments,
) -> Result<(), CommandError> {
    let limit = u16::try_from(MAX_PAGE).ok();
    let mut whole: ConnectionsView = parse(&page(target, filter, None, limit, None).await?)?;
    while let Some(cursor) = whole.next {
        let body = page(target, filter, None, limit, Some(cursor)).await?;
        let ConnectionsView {
            connections,
            next,
            live,
            ..
        } = parse(&body)?;
        // Each page lies behind the one before: that bounds their number, whatever the answers.
        if next.is_some_and(|next| next <= cursor) {
            return Err(CommandError::Other(
                "the pages repeat: a cursor did not advance".to_owned(),
            ));
        }
        whole.connections.extend(connections);
        (whole.next, whole.live) = (next, live);
    }
    show_view(output, &whole, || {
        listing::connections(&whole, NextPage::Paged, Style::of_stdout())
    })
}

async fn page(
    target: &AdminTarget,
    filter: &FilterArguments,
    sort: Option<SortArgument>,
    limit: Option<u16>,
    cursor: Option<u64>,
) -> Result<bytes::Bytes, CommandError> {
    let path = list_path(filter, sort, limit, cursor);
    send(target, ApiRequest::get(&path), ANSWER_TIMEOUT).await
}

impl FilterArguments {
    /// Lists those that are given, by the names that the endpoint has for them.
    fn conditions(&self) -> impl Iterator<Item = (&'static str, String)> {
        let values = [
            self.listener.clone(),
            self.pool.clone(),
            self.backend.clone(),
            self.client.clone(),
            self.tag.clone(),
            self.host.clone(),
            self.path.clone(),
            self.sni.clone(),
            self.subject.clone(),
            self.min_age.map(format_duration),
            self.min_idle.map(format_duration),
        ];
        let conditions = CONDITIONS.into_iter().zip(values);
        conditions.filter_map(|(name, value)| Some((name, value?)))
    }
}

fn list_path(
    filter: &FilterArguments,
    sort: Option<SortArgument>,
    limit: Option<u16>,
    cursor: Option<u64>,
) -> String {
    let page = [
        ("sort", sort.map(|sort| sort.word().to_owned())),
        ("limit", limit.map(|limit| limit.to_string())),
        ("cursor", cursor.map(|cursor| cursor.to_string())),
    ];
    let page = page.into_iter();
    let page = page.filter_map(|(name, value)| Some((name, value?)));
    let parameters = filter.conditions().chain(page);
    let encoded =
        parameters.map(|(name, value)| format!("{name}={}", utf8_percent_encode(&value, SEGMENT)));
    let query = encoded.collect::<Vec<_>>().join("&");
    let mark = if query.is_empty() { "" } else { "?" };
    format!("/api/v1/connections{mark}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_asked_and_encoded() {
        let mut filter = FilterArguments {
            listener: None,
            pool: None,
            backend: None,
            client: None,
            tag: None,
            host: None,
            path: None,
            sni: None,
            subject: None,
            min_age: None,
            min_idle: None,
        };
        assert_eq!(list_path(&filter, None, None, None), "/api/v1/connections");
        filter.backend = Some("a&b=c d".into());
        filter.client = Some("10.0.0.0/8".into());
        filter.min_idle = Some(Duration::from_secs(90));
        assert_eq!(
            list_path(&filter, Some(SortArgument::Idle), Some(5), Some(9)),
            "/api/v1/connections?backend=a%26b%3Dc%20d&client=10.0.0.0%2F8&min_idle=90s&sort=idle&limit=5&cursor=9"
        );
    }
}
