//! Kinds of events, and the set of them that a viewer asks for.

/// Kind of an event: its `event:` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) enum EventKind {
    /// Begins every stream.
    Hello,
    /// The viewer has missed events.
    Lost,
    Process,
    Backend,
    Check,
    Pool,
    Discovery,
    Listener,
    /// A backend, pool or listener is not listed any more.
    Gone,
    Reload,
    Job,
    Refusals,
    Upgrade,
    Cluster,
    Rates,
}

impl EventKind {
    pub(in crate::admin) const ALL: [EventKind; 15] = [
        EventKind::Hello,
        EventKind::Lost,
        EventKind::Process,
        EventKind::Backend,
        EventKind::Check,
        EventKind::Pool,
        EventKind::Discovery,
        EventKind::Listener,
        EventKind::Gone,
        EventKind::Reload,
        EventKind::Job,
        EventKind::Refusals,
        EventKind::Upgrade,
        EventKind::Cluster,
        EventKind::Rates,
    ];

    pub(in crate::admin) fn word(self) -> &'static str {
        match self {
            EventKind::Hello => "hello",
            EventKind::Lost => "lost",
            EventKind::Process => "process",
            EventKind::Backend => "backend",
            EventKind::Check => "check",
            EventKind::Pool => "pool",
            EventKind::Discovery => "discovery",
            EventKind::Listener => "listener",
            EventKind::Gone => "gone",
            EventKind::Reload => "reload",
            EventKind::Job => "job",
            EventKind::Refusals => "refusals",
            EventKind::Upgrade => "upgrade",
            EventKind::Cluster => "cluster",
            EventKind::Rates => "rates",
        }
    }
}

/// Events as they are published: each with its data, as JSON.
pub(super) type Events = Vec<(EventKind, String)>;

/// Set of kinds. `hello` and `lost` belong to every set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::admin) struct EventKinds(u16);

impl EventKinds {
    const ALL: EventKinds = EventKinds(u16::MAX);
    const ALWAYS: EventKinds = EventKinds(bit(EventKind::Hello) | bit(EventKind::Lost));

    /// Parses the query of a request target, without its `?`: `types=backend,job`, or nothing.
    ///
    /// # Errors
    /// Names the parameter or word and what is allowed.
    pub(in crate::admin) fn parse(query: Option<&str>) -> Result<EventKinds, String> {
        let Some(query) = query.filter(|query| !query.is_empty()) else {
            return Ok(EventKinds::ALL);
        };
        let Some(words) = query.strip_prefix("types=") else {
            return Err(format!(
                "query {query:?} is not understood; allowed: types=WORD,WORD"
            ));
        };
        let mut kinds = EventKinds::ALWAYS;
        // A browser's URLSearchParams escapes the comma.
        for word in words.split(',').flat_map(|part| part.split("%2C")) {
            let known = EventKind::ALL.iter().find(|kind| kind.word() == word);
            let kind = known.ok_or_else(|| {
                let words = EventKind::ALL.map(EventKind::word).join(", ");
                format!("types: {word:?} is no type of events; allowed: {words}")
            })?;
            kinds.0 |= bit(*kind);
        }
        Ok(kinds)
    }

    pub(super) fn has(self, kind: EventKind) -> bool {
        self.0 & bit(kind) != 0
    }
}

const fn bit(kind: EventKind) -> u16 {
    1 << kind as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_a_place_and_a_word_of_its_own() {
        for (place, kind) in EventKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, place);
            let query = format!("types={}", kind.word());
            let kinds = EventKinds::parse(Some(&query)).unwrap();
            let found = EventKind::ALL.into_iter().filter(|one| kinds.has(*one));
            let wanted = [EventKind::Hello, EventKind::Lost, kind];
            assert!(
                found.into_iter().all(|one| wanted.contains(&one)),
                "{kind:?}"
            );
            assert!(kinds.has(kind));
        }
    }

    #[test]
    fn a_query_is_a_list_of_kinds_or_an_error() {
        let all = EventKinds::parse(None).unwrap();
        assert_eq!(EventKinds::parse(Some("")).unwrap(), all);
        assert!(EventKind::ALL.iter().all(|kind| all.has(*kind)));
        let two = EventKinds::parse(Some("types=job%2Crates")).unwrap();
        assert!(two.has(EventKind::Rates) && !two.has(EventKind::Backend));
        for wrong in [
            "types=",
            "types=jobs",
            "type=job",
            "types=job,",
            "types=job&x=1",
        ] {
            let refused = EventKinds::parse(Some(wrong)).unwrap_err();
            assert!(refused.contains("allowed: "), "{refused}");
        }
    }
}
