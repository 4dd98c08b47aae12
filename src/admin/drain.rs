//! Decoder of requests that end or move live connections: `drain` of a backend or listener,
//! `/connections/close` and `/connections/move`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::filter::{CONDITIONS, set_condition};
use super::reply::ApiError;
use crate::base::close_code::{MAX_REASON_BYTES, may_be_sent};
use crate::base::rate::Rate;
use crate::base::units::parse_duration;
use crate::config::{self, defaults};
use crate::relay::Filter;
use crate::server::DrainRequest;
use crate::server::jobs::DrainRate;

/// Longest time of a job, as in the configuration.
pub(crate) const MAX_TIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Body of a drain. Members that are given replace those of the pool's `drain`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct DrainBody {
    rate: Option<String>,
    deadline: Option<String>,
    after: Option<String>,
    close: Option<CloseBody>,
    /// End no connection, whatever the pool says.
    #[serde(default)]
    keep: bool,
}

/// Body of `POST /api/v1/connections/close` and `/move`.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub(super) struct FilterBody {
    #[serde(default)]
    filter: BTreeMap<String, Option<String>>,
    /// Every connection is meant: an empty filter is not enough for that.
    #[serde(default)]
    all: bool,
    rate: Option<String>,
    deadline: Option<String>,
    after: Option<String>,
    close: Option<CloseBody>,
}

/// Close frame of a body.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct CloseBody {
    code: Option<u16>,
    reason: Option<String>,
}

/// Rate of a body, as text.
struct RateBody {
    rate: Option<String>,
    deadline: Option<String>,
    after: Option<String>,
    close: Option<CloseBody>,
}

impl DrainBody {
    pub(super) fn decode(self, pool: Option<&config::Drain>) -> Result<DrainRequest, ApiError> {
        let rate = RateBody {
            rate: self.rate,
            deadline: self.deadline,
            after: self.after,
            close: self.close,
        };
        match (self.keep, rate.is_empty()) {
            (true, false) => Err(ApiError::bad_request(
                "keep ends no connection: give it without rate, deadline, after and close",
            )),
            (true, true) => Ok(DrainRequest::Keep),
            (false, true) => Ok(DrainRequest::Default(pool.map(DrainRate::from))),
            (false, false) => rate.decode(pool).map(DrainRequest::Rate),
        }
    }
}

impl FilterBody {
    pub(super) fn decode(self) -> Result<(Filter, DrainRate), ApiError> {
        let filter = decode_filter(self.filter)?;
        let filter = match (filter, self.all) {
            (Some(filter), false) => filter,
            (None, true) => Filter::default(),
            (None, false) => {
                return Err(ApiError::bad_request(
                    "an empty filter means every connection; if that is meant, say \"all\": true",
                ));
            }
            (Some(_), true) => return Err(ApiError::bad_request("all goes without a filter")),
        };
        let rate = RateBody {
            rate: self.rate,
            deadline: self.deadline,
            after: self.after,
            close: self.close,
        };
        Ok((filter, rate.decode(None)?))
    }
}

/// Decodes a filter; `None` where it has no condition.
fn decode_filter(body: BTreeMap<String, Option<String>>) -> Result<Option<Filter>, ApiError> {
    let mut filter = None;
    for (name, value) in body {
        if !CONDITIONS.contains(&name.as_str()) {
            return Err(ApiError::bad_request(format!(
                "filter: unknown field `{name}`; allowed: {}",
                CONDITIONS.join(", ")
            )));
        }
        let Some(value) = value else { continue };
        let filter = filter.get_or_insert_with(Filter::default);
        set_condition(filter, &name, &value).map_err(|allowed| {
            ApiError::bad_request(format!("filter.{name}: {value:?} is not {allowed}"))
        })?;
    }
    Ok(filter)
}

impl RateBody {
    fn is_empty(&self) -> bool {
        let times = [&self.rate, &self.deadline, &self.after];
        times.iter().all(|text| text.is_none()) && self.close.is_none()
    }

    /// Decodes the rate; what is absent comes from the pool's `drain`, or from the defaults.
    fn decode(self, pool: Option<&config::Drain>) -> Result<DrainRate, ApiError> {
        let mut drain = pool.cloned().unwrap_or(config::Drain {
            rate: None,
            deadline: None,
            after: defaults::DRAIN_AFTER,
            close: config::Close {
                code: defaults::CLOSE_CODE as u16,
                reason: String::new(),
            },
        });
        if self.rate.is_some() || self.deadline.is_some() {
            drain.rate = self.rate.as_deref().map(decode_rate).transpose()?;
            let deadline = self.deadline.as_deref();
            drain.deadline = deadline
                .map(|text| decode_time("deadline", text))
                .transpose()?;
        }
        if drain.deadline.is_none() {
            drain.rate.get_or_insert(defaults::DRAIN_RATE);
        }
        if let Some(after) = self.after {
            drain.after = decode_time("after", &after)?;
        }
        self.close.unwrap_or_default().apply(&mut drain.close)?;
        Ok(DrainRate::from(&drain))
    }
}

impl CloseBody {
    fn apply(self, close: &mut config::Close) -> Result<(), ApiError> {
        close.code = self.code.unwrap_or(close.code);
        if !may_be_sent(close.code) {
            return Err(ApiError::bad_request(format!(
                "close.code: {} may not be sent; allowed: 1000 to 1003, 1007 to 1014, 3000 to 4999",
                close.code
            )));
        }
        if let Some(reason) = self.reason {
            close.reason = reason;
        }
        if close.reason.len() > MAX_REASON_BYTES {
            return Err(ApiError::bad_request(format!(
                "close.reason: at most {MAX_REASON_BYTES} bytes"
            )));
        }
        Ok(())
    }
}

fn decode_rate(text: &str) -> Result<Rate, ApiError> {
    text.parse().map_err(|error| {
        ApiError::bad_request(format!("rate: {text:?}: {error}; allowed: as in \"100/s\""))
    })
}

fn decode_time(name: &str, text: &str) -> Result<Duration, ApiError> {
    let time = parse_duration(text).ok().filter(|time| *time <= MAX_TIME);
    time.ok_or_else(|| {
        ApiError::bad_request(format!(
            "{name}: {text:?} is not a time of at most 7d, as in \"10m\""
        ))
    })
}
