//! Means to outlive a backend, on their way to another relay.

use std::sync::Arc;
use std::time::Duration;

use super::{ResumeState, Takeover};
use crate::config::{Resume, ResumeOn};
use crate::relay::clock::Tick;
use crate::relay::resume_policy::{LostMessages, Migrator};
use crate::relay::websocket::message_times::MessageTimes;
use crate::relay::websocket::moved::{export_rate, full_in, import_rate, left_until_full};
use crate::wire::moved::{MovedResume, MovedResumeSettings, MovedTakeover};

/// Bits of the losses, which are never used for others.
const DRAIN: u8 = 1;
const DOWN: u8 = 1 << 1;
const CLOSE_CODE: u8 = 1 << 2;
const BURST: u8 = 1 << 3;
const EOF: u8 = 1 << 4;

impl ResumeState {
    pub(in crate::relay::websocket) fn export(&self, now: Tick) -> MovedResume {
        let [sent_ms, answered_ms] = self.times.ages(now);
        MovedResume {
            settings: export_settings(&self.settings),
            migrator: self.migrator.export(),
            changes_full_in_ns: left_until_full(&self.changes, now),
            sent_ms,
            answered_ms,
            takeover: self.takeover.map(|takeover| MovedTakeover {
                since_ms: now.age_ms(takeover.since),
                from_ms: now.age_ms(takeover.from),
                lost: takeover.lost.at_most(),
            }),
        }
    }

    /// Goes on with these means. `shared`: the settings of the pool here, which are kept in place
    /// of equal ones. `None`: a setting is out of bounds.
    pub(in crate::relay) fn import(
        moved: &MovedResume,
        migrator: Arc<dyn Migrator>,
        shared: Option<Arc<Resume>>,
        now: Tick,
    ) -> Option<ResumeState> {
        let settings = import_settings(&moved.settings)?;
        let shared = shared.filter(|shared| **shared == settings);
        Some(ResumeState {
            migrator,
            settings: shared.unwrap_or_else(|| Arc::new(settings)),
            changes: full_in(moved.changes_full_in_ns, now),
            times: MessageTimes::of_ages([moved.sent_ms, moved.answered_ms], now),
            takeover: moved.takeover.map(|takeover| Takeover {
                since: now.before_ms(takeover.since_ms),
                from: now.before_ms(takeover.from_ms),
                lost: LostMessages::of_count(takeover.lost),
            }),
        })
    }
}

fn export_settings(settings: &Resume) -> MovedResumeSettings {
    let ResumeOn {
        drain,
        down,
        close_code,
        burst,
        eof,
    } = settings.on;
    let losses = [
        (drain, DRAIN),
        (down, DOWN),
        (close_code, CLOSE_CODE),
        (burst, BURST),
        (eof, EOF),
    ];
    let on = losses.iter().filter(|(is_on, _)| *is_on);
    MovedResumeSettings {
        on: on.fold(0, |bits, (_, bit)| bits | bit),
        settle_ms: milliseconds(settings.settle),
        max: export_rate(settings.max),
        max_buffer: settings.max_buffer,
        timeout_ms: milliseconds(settings.timeout),
        header: settings.header.to_string(),
    }
}

fn import_settings(moved: &MovedResumeSettings) -> Option<Resume> {
    let is_on = |bit: u8| moved.on & bit != 0;
    Some(Resume {
        on: ResumeOn {
            drain: is_on(DRAIN),
            down: is_on(DOWN),
            close_code: is_on(CLOSE_CODE),
            burst: is_on(BURST),
            eof: is_on(EOF),
        },
        settle: Duration::from_millis(moved.settle_ms),
        max: import_rate(moved.max)?,
        max_buffer: moved.max_buffer,
        timeout: Duration::from_millis(moved.timeout_ms),
        header: moved.header.as_str().into(),
    })
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
