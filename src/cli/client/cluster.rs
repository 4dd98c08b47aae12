//! The cluster in `evenkeel status`.

use super::ask::connections;
use super::layout::clean;
use crate::admin::view::{ClusterView, MemberView, SharedStateView};

/// Describes it, ending with a line end.
pub(super) fn describe(cluster: &ClusterView) -> String {
    let ClusterView {
        name,
        id,
        store,
        alone,
        members,
        share,
        ..
    } = cluster;
    let age = age(cluster.age_seconds);
    let (id, store) = (clean(id), clean(store));
    let present = if *alone {
        "ALONE".to_owned()
    } else {
        format!("{} members", members.len() + 1)
    };
    let state = format!("{present}, the store {store} was heard {age}");
    let mut text = format!("cluster {}, here {id}: {state}\n", clean(name));
    if cluster.same_id {
        text.push_str(&format!("  another balancer has the id {id}, too\n"));
    }
    if let Some(error) = &cluster.last_error {
        text.push_str(&format!("  the latest exchange failed: {}\n", clean(error)));
    }
    if cluster.rejected > 0 {
        let rejected = cluster.rejected;
        text.push_str(&format!(
            "  {rejected} values in the store are not of the cluster\n"
        ));
    }
    let share = share.iter().map(|part| clean(part)).collect::<Vec<_>>();
    text.push_str(&format!("  shares {}\n", share.join(", ")));
    members.iter().for_each(|one| text.push_str(&member(one)));
    cluster
        .states
        .iter()
        .for_each(|one| text.push_str(&shared(one)));
    text
}

fn age(seconds: Option<f64>) -> String {
    seconds.map_or("never".to_owned(), |age| format!("{age:.1}s ago"))
}

fn member(member: &MemberView) -> String {
    let (id, live) = (clean(&member.id), connections(member.connections));
    let behind = if member.up_to_date {
        ""
    } else {
        ", behind with the operator's states"
    };
    format!(
        "  {id}: heard {}, {live}{behind}\n",
        age(Some(member.age_seconds))
    )
}

fn shared(shared: &SharedStateView) -> String {
    let SharedStateView {
        pool,
        backend,
        state,
        by,
        revision,
    } = shared;
    let (backend, by) = (clean(backend), clean(by));
    format!(
        "  {}/{backend}: {state}, said on {by}, revision {revision}\n",
        clean(pool)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_ages_and_who_said_what_are_told() {
        let cluster = ClusterView {
            name: "edge".into(),
            id: "lb1".into(),
            store: "redis://a:1".into(),
            age_seconds: Some(0.42),
            share: vec!["operator".into(), "load".into()],
            members: vec![MemberView {
                id: "lb2".into(),
                age_seconds: 1.04,
                connections: 7,
                up_to_date: false,
            }],
            states: vec![SharedStateView {
                pool: "chat".into(),
                backend: "n1".into(),
                state: "drain".into(),
                by: "lb2".into(),
                revision: 3,
            }],
            ..ClusterView::default()
        };
        assert_eq!(
            describe(&cluster),
            "cluster edge, here lb1: 2 members, the store redis://a:1 was heard 0.4s ago\n  \
             shares operator, load\n  \
             lb2: heard 1.0s ago, 7 connections, behind with the operator's states\n  \
             chat/n1: drain, said on lb2, revision 3\n"
        );
        let alone = ClusterView {
            alone: true,
            age_seconds: None,
            last_error: Some("no answer in time".into()),
            ..cluster
        };
        let said = describe(&alone);
        assert!(
            said.starts_with("cluster edge, here lb1: ALONE, "),
            "{said}"
        );
        assert!(
            said.contains("heard never\n  the latest exchange failed: no answer"),
            "{said}"
        );
    }
}
