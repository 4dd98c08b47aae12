//! Policy of failover: which sessions of a pool to end as its backends go down and come back. Pure:
//! `now` is an argument.
//!
//! Each backend that gives a cause has a course: it begins with the cause, is due after the grace,
//! and is given up with the cause. The operator can end it for as long as the cause lasts.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use crate::config::{Failover, OnDown, OnUp};
use crate::server::control::jobs::EndReason;

/// Health of a backend, as far as its sessions are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    /// Takes new connections, since then.
    Usable(SystemTime),
    /// Down by its check, since then.
    Down(SystemTime),
    /// Drained by the operator, ejected, unresolved, removed, or of weight 0: no reason to end a
    /// session.
    Apart,
}

/// State of the job of failover on a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Work {
    None,
    /// The job runs.
    Running,
    /// The operator aborted the job since the last look.
    Stopped,
}

/// State of a backend at one look.
#[derive(Debug, Clone, Copy)]
pub(super) struct BackendObservation<'a> {
    pub name: &'a str,
    pub health: Health,
    pub backup: bool,
    pub live: u64,
    pub work: Work,
    /// The operator has set it `ready` since the last look.
    pub kept: bool,
}

impl BackendObservation<'_> {
    pub(super) fn is_usable(&self) -> bool {
        matches!(self.health, Health::Usable(_))
    }
}

/// Action on a backend, by its index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailoverAction {
    End(usize, EndReason),
    Abort(usize),
}

/// The courses of one pool.
#[derive(Debug, Default)]
pub(super) struct FailoverPolicy {
    courses: BTreeMap<String, Course>,
    /// At the last look no backend could be used.
    none_usable: bool,
    /// Primaries that could be used at the last look, and since when.
    primaries: BTreeMap<String, SystemTime>,
}

#[derive(Debug)]
struct Course {
    cause: FailoverCause,
    since: Instant,
    /// Nothing more is to be done until there is another cause.
    is_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FailoverCause {
    /// Down since then: down again is another cause.
    Down(SystemTime),
    PrimariesAreBack,
}

impl FailoverPolicy {
    /// Decides what to do now; `seen` are the backends of the pool.
    pub(super) fn decide(
        &mut self,
        failover: &Failover,
        seen: &[BackendObservation<'_>],
        now: Instant,
    ) -> Vec<FailoverAction> {
        let any_usable = seen.iter().any(BackendObservation::is_usable);
        let any_primary = seen.iter().any(|one| one.is_usable() && !one.backup);
        let stayed = self.primaries_stayed(seen);
        // When all are down it is the checks, or the network: the grace begins with the first that
        // is back.
        let restarts = std::mem::replace(&mut self.none_usable, !any_usable) || !any_usable;
        let mut before = std::mem::take(&mut self.courses);
        let mut actions = Vec::new();
        for (index, one) in seen.iter().enumerate() {
            let Some(cause) = cause(one, failover, any_primary) else {
                if one.work == Work::Running {
                    actions.push(FailoverAction::Abort(index));
                }
                continue;
            };
            let goes_on = |known: &Course| {
                known.cause == cause && (stayed || cause != FailoverCause::PrimariesAreBack)
            };
            let known = before.remove(one.name).filter(goes_on);
            let mut course = known.unwrap_or(Course {
                cause,
                since: now,
                is_over: false,
            });
            course.is_over |= one.kept || one.work == Work::Stopped;
            if restarts {
                course.since = now;
            }
            let is_due = any_usable && course.is_due(failover.grace, now);
            match one.work {
                Work::Running if !is_due => actions.push(FailoverAction::Abort(index)),
                Work::None if is_due && one.live > 0 => {
                    actions.push(FailoverAction::End(index, cause.reason()));
                }
                _ => {}
            }
            // Once for each time that they come back: sessions that are on a backup later were
            // refused by the primaries, and would be sent around for ever.
            let is_empty_again = is_due && one.live == 0;
            course.is_over |= is_empty_again && cause == FailoverCause::PrimariesAreBack;
            self.courses.insert(one.name.to_owned(), course);
        }
        actions
    }

    /// Whether a primary has been usable since the last look. All may have gone and come back
    /// between two looks: that is another return.
    fn primaries_stayed(&mut self, seen: &[BackendObservation<'_>]) -> bool {
        let mut now = BTreeMap::new();
        for one in seen.iter().filter(|one| !one.backup) {
            if let Health::Usable(since) = one.health {
                now.insert(one.name.to_owned(), since);
            }
        }
        let before = std::mem::replace(&mut self.primaries, now);
        let stayed = |(name, since): (&String, &SystemTime)| before.get(name) == Some(since);
        self.primaries.iter().any(stayed)
    }
}

impl Course {
    fn is_due(&self, grace: Duration, now: Instant) -> bool {
        !self.is_over && now.saturating_duration_since(self.since) >= grace
    }
}

impl FailoverCause {
    fn reason(self) -> EndReason {
        match self {
            FailoverCause::Down(_) => EndReason::Down,
            FailoverCause::PrimariesAreBack => EndReason::Return,
        }
    }
}

/// The cause to end sessions of a backend. `primary`: one can be used.
fn cause(
    one: &BackendObservation<'_>,
    failover: &Failover,
    primary: bool,
) -> Option<FailoverCause> {
    let returns = failover.on_up == OnUp::Return && one.backup && primary;
    match one.health {
        Health::Apart => None,
        Health::Down(since) if failover.on_down != OnDown::Keep => Some(FailoverCause::Down(since)),
        Health::Down(_) | Health::Usable(_) => returns.then_some(FailoverCause::PrimariesAreBack),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRACE: Duration = Duration::from_secs(30);
    const UP: Health = Health::Usable(SystemTime::UNIX_EPOCH);

    fn failover(on_down: OnDown, on_up: OnUp) -> Failover {
        Failover {
            on_down,
            grace: GRACE,
            on_up,
            max_close_rate: 25,
        }
    }

    fn down() -> Health {
        Health::Down(SystemTime::UNIX_EPOCH)
    }

    fn one(name: &str, health: Health) -> BackendObservation<'_> {
        BackendObservation {
            name,
            health,
            backup: false,
            live: 10,
            work: Work::None,
            kept: false,
        }
    }

    fn spare() -> BackendObservation<'static> {
        BackendObservation {
            backup: true,
            ..one("spare", UP)
        }
    }

    /// Looks of one pool, seconds apart.
    struct Looks {
        policy: FailoverPolicy,
        failover: Failover,
        start: Instant,
    }

    impl Looks {
        fn new(on_down: OnDown, on_up: OnUp) -> Looks {
            Looks {
                policy: FailoverPolicy::default(),
                failover: failover(on_down, on_up),
                start: Instant::now(),
            }
        }

        fn at(&mut self, second: u64, seen: &[BackendObservation<'_>]) -> Vec<FailoverAction> {
            let now = self.start + Duration::from_secs(second);
            self.policy.decide(&self.failover, seen, now)
        }
    }

    #[test]
    fn who_is_down_for_the_grace_is_ended_and_who_is_back_is_left_alone() {
        let mut looks = Looks::new(OnDown::Drain, OnUp::Keep);
        let other = one("b", UP);
        assert_eq!(looks.at(0, &[one("a", down()), other]), []);
        assert_eq!(looks.at(29, &[one("a", down()), other]), []);
        let end = [FailoverAction::End(0, EndReason::Down)];
        assert_eq!(looks.at(30, &[one("a", down()), other]), end);
        let running = |health| BackendObservation {
            work: Work::Running,
            ..one("a", health)
        };
        assert_eq!(looks.at(31, &[running(down()), other]), []);
        let back = looks.at(32, &[running(UP), other]);
        assert_eq!(back, [FailoverAction::Abort(0)]);
    }

    #[test]
    fn down_again_is_another_grace_though_nobody_saw_it_up() {
        let mut looks = Looks::new(OnDown::Close, OnUp::Keep);
        let other = one("b", UP);
        looks.at(0, &[one("a", down()), other]);
        let later = Health::Down(SystemTime::UNIX_EPOCH + Duration::from_secs(20));
        assert_eq!(looks.at(30, &[one("a", later), other]), []);
        assert_eq!(looks.at(60, &[one("a", later), other]).len(), 1);
    }

    #[test]
    fn when_all_are_down_the_grace_begins_with_the_first_that_is_back() {
        let mut looks = Looks::new(OnDown::Close, OnUp::Keep);
        looks.at(0, &[one("a", down()), one("b", down())]);
        assert_eq!(looks.at(100, &[one("a", down()), one("b", down())]), []);
        let back = one("b", UP);
        assert_eq!(looks.at(101, &[one("a", down()), back]), []);
        assert_eq!(looks.at(130, &[one("a", down()), back]), []);
        assert_eq!(looks.at(131, &[one("a", down()), back]).len(), 1);
    }

    #[test]
    fn the_last_one_that_goes_takes_the_others_jobs_back() {
        let mut looks = Looks::new(OnDown::Close, OnUp::Keep);
        looks.at(0, &[one("a", down()), one("b", UP)]);
        let running = BackendObservation {
            work: Work::Running,
            ..one("a", down())
        };
        let orders = looks.at(40, &[running, one("b", down())]);
        assert_eq!(orders, [FailoverAction::Abort(0)]);
    }

    #[test]
    fn what_the_operator_stopped_or_kept_is_kept_until_it_was_up() {
        let other = one("b", UP);
        let stopped = |seen: &mut BackendObservation<'_>| seen.work = Work::Stopped;
        let kept = |seen: &mut BackendObservation<'_>| seen.kept = true;
        for word in [stopped as fn(&mut BackendObservation<'_>), kept] {
            let mut looks = Looks::new(OnDown::Drain, OnUp::Keep);
            let mut told = one("a", down());
            word(&mut told);
            looks.at(0, &[told, other]);
            assert_eq!(looks.at(100, &[one("a", down()), other]), []);
            looks.at(101, &[one("a", UP), other]);
            looks.at(102, &[one("a", down()), other]);
            assert_eq!(looks.at(132, &[one("a", down()), other]).len(), 1);
        }
    }

    #[test]
    fn a_backup_returns_its_sessions_once_each_time_that_primaries_are_back() {
        let mut looks = Looks::new(OnDown::Keep, OnUp::Return);
        let end = [FailoverAction::End(1, EndReason::Return)];
        assert_eq!(looks.at(0, &[one("a", down()), spare()]), []);
        assert_eq!(looks.at(100, &[one("a", down()), spare()]), []);
        assert_eq!(looks.at(101, &[one("a", UP), spare()]), []);
        assert_eq!(looks.at(131, &[one("a", UP), spare()]), end);
        let empty = BackendObservation { live: 0, ..spare() };
        assert_eq!(looks.at(140, &[one("a", UP), empty]), []);
        // One that the primaries refused.
        assert_eq!(looks.at(150, &[one("a", UP), spare()]), []);
        looks.at(151, &[one("a", Health::Apart), spare()]);
        looks.at(152, &[one("a", UP), spare()]);
        assert_eq!(looks.at(182, &[one("a", UP), spare()]), end);
    }

    #[test]
    fn primaries_that_were_away_between_two_looks_are_back_again() {
        let mut looks = Looks::new(OnDown::Keep, OnUp::Return);
        let end = [FailoverAction::End(2, EndReason::Return)];
        let since = |second| Health::Usable(SystemTime::UNIX_EPOCH + Duration::from_secs(second));
        let empty = BackendObservation { live: 0, ..spare() };
        let mut look = |second, health, other, spare| {
            looks.at(second, &[one("a", health), one("b", other), spare])
        };
        assert_eq!(look(0, UP, down(), empty), []);
        assert_eq!(look(29, UP, down(), empty), []);
        // Neither the time before counts for those that came to the backup meanwhile, nor that it
        // was empty before.
        assert_eq!(look(30, since(30), down(), spare()), []);
        assert_eq!(look(59, since(30), down(), spare()), []);
        assert_eq!(look(60, since(30), down(), spare()), end);
        assert_eq!(look(61, since(30), down(), empty), []);
        assert_eq!(look(62, since(62), down(), spare()), []);
        assert_eq!(look(92, since(62), down(), spare()), end);
        // Another one that comes or goes is no return: the first was there all the time.
        assert_eq!(look(93, since(62), since(93), empty), []);
        assert_eq!(look(94, since(62), since(94), spare()), []);
        assert_eq!(look(200, since(62), down(), spare()), []);
    }

    #[test]
    fn primaries_that_go_again_take_the_return_back() {
        let mut looks = Looks::new(OnDown::Drain, OnUp::Return);
        looks.at(0, &[one("a", UP), spare()]);
        let running = BackendObservation {
            work: Work::Running,
            ..spare()
        };
        let orders = looks.at(31, &[one("a", down()), running]);
        assert_eq!(orders, [FailoverAction::Abort(1)]);
    }

    #[test]
    fn settings_that_keep_all_take_back_what_is_under_way() {
        let mut looks = Looks::new(OnDown::Keep, OnUp::Keep);
        let running = BackendObservation {
            work: Work::Running,
            ..one("a", down())
        };
        let orders = looks.at(0, &[running, one("b", UP)]);
        assert_eq!(orders, [FailoverAction::Abort(0)]);
    }

    fn health() -> impl Strategy<Value = Health> {
        let since = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        prop_oneof![
            (0u64..2).prop_map(move |second| Health::Usable(since(second))),
            Just(Health::Apart),
            (0u64..2).prop_map(move |second| Health::Down(since(second))),
        ]
    }

    proptest! {
        /// Whatever happens, a session is ended only where it has somewhere to go, for a cause that
        /// has lasted for the grace.
        #[test]
        fn nobody_is_ended_without_cause(
            looks in prop::collection::vec((0u64..20, prop::collection::vec((health(), 0u64..3, 0u8..6), 4)), 1..60),
            drains in any::<bool>(), returns in any::<bool>(),
        ) {
            let on_down = if drains { OnDown::Drain } else { OnDown::Keep };
            let on_up = if returns { OnUp::Return } else { OnUp::Keep };
            let any_usable = |healths: &[Health]| healths.iter().any(|one| matches!(one, Health::Usable(_)));
            let mut bench = Looks::new(on_down, on_up);
            let mut now = 0;
            let mut history: Vec<(u64, Vec<Health>)> = Vec::new();
            let mut running = [false; 4];
            for (step, backends) in looks {
                now += step;
                let healths: Vec<_> = backends.iter().map(|(health, ..)| *health).collect();
                history.push((now, healths.clone()));
                let seen: Vec<_> = backends.iter().enumerate().map(|(index, (health, live, word))| BackendObservation {
                    name: ["a", "b", "c", "d"][index],
                    health: *health,
                    backup: index == 3,
                    live: *live,
                    work: match (running[index], word) {
                        (true, 0) => Work::Stopped,
                        (true, _) => Work::Running,
                        (false, _) => Work::None,
                    },
                    kept: *word == 1,
                }).collect();
                let orders = bench.at(now, &seen);
                for order in &orders {
                    let FailoverAction::End(index, why) = *order else { continue };
                    prop_assert!(seen[index].live > 0 && !seen[index].kept);
                    prop_assert!(any_usable(&healths));
                    let lasts = |(_, then): &&(u64, Vec<Health>)| match why {
                        EndReason::Down => then[index] == healths[index] && any_usable(then),
                        EndReason::Return => any_usable(&then[..3]) && then[index] != Health::Apart,
                    };
                    let since = history.iter().rev().take_while(lasts).last().map(|(at, _)| *at);
                    prop_assert!(since.is_some_and(|since| now - since >= GRACE.as_secs()), "{order:?} {history:?}");
                    let allowed = if why == EndReason::Down { drains } else { returns && index == 3 };
                    prop_assert!(allowed);
                }
                // A job goes on only where one would be begun.
                for index in 0..4 {
                    let ends = orders.iter().any(|order| matches!(order, FailoverAction::End(at, _) if *at == index));
                    running[index] = ends || seen[index].work == Work::Running && !orders.contains(&FailoverAction::Abort(index));
                    prop_assert!(!running[index] || any_usable(&healths));
                    prop_assert!(!running[index] || healths[index] != Health::Apart);
                }
            }
        }
    }
}
