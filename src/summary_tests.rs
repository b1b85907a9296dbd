//! What status says of clusters in various states.

use crate::status::{CheckStatus, Figures, PeerState, PeerStatus};
use ennead_ring::{ClusterId, Incarnation, Machine, Member};

use super::*;

fn name(n: usize) -> Name {
    format!("127.0.0.{n}").parse().expect("a name")
}

fn machine(n: usize) -> Machine {
    Machine { name: name(n), incarnation: Incarnation::new(n as u64) }
}

fn view(machines: usize) -> View {
    zoned(machines, machines)
}

/// So many machines to a zone, if there are several zones.
fn zoned(machines: usize, each: usize) -> View {
    let zone = |n: usize| if each < machines { format!("z{}", (n - 1) / each) } else { "-".to_owned() };
    let member = |n| Member { zone: zone(n).parse().expect("a zone"), ..Member::up(machine(n), 64) };
    View::new(ClusterId::new(1), Epoch::FIRST, 9, (1..=machines).map(member).collect(), Vec::new())
        .expect("a view")
}

/// Every machine's account; those in `down` give none, and the others in `missed_by` do not reach them.
fn accounts(
    machines: usize,
    down: &[usize],
    missed_by: &[usize],
) -> Vec<(Name, Result<MachineStatus, String>)> {
    let account = |n: usize| {
        let peer = |p: usize| {
            let missed = down.contains(&p) && missed_by.contains(&n);
            let reason = missed.then(|| "connection lost".to_string());
            PeerStatus {
                name: name(p),
                reachable: !missed,
                since_ms: 5_000,
                reason,
                state: PeerState::Up,
                silent_ms: 0,
                by: Vec::new(),
                late_by: Vec::new(),
            }
        };
        MachineStatus {
            machine: machine(n),
            cluster: Some(ClusterId::new(1)),
            epoch: Epoch::FIRST,
            settled: Epoch::FIRST,
            version: "0.1.0".to_string(),
            uptime_ms: 60_000,
            slots: 64,
            synced_slots: 64,
            peers: (1..=machines).filter(|&p| p != n).map(peer).collect(),
            records: 7,
            clients: 1,
            part_restarts: 0,
            moves: Vec::new(),
            check: CheckStatus::default(),
            taken_bytes: 0,
            figures: Figures::default(),
            objections: Vec::new(),
        }
    };
    let tell = |n| match down.contains(&n) {
        true => (name(n), Err("no answer within 2 s".to_string())),
        false => (name(n), Ok(account(n))),
    };
    (1..=machines).map(tell).collect()
}

fn summary(machines: usize, down: &[usize]) -> Summary {
    Summary::of(&view(machines), &accounts(machines, down, &[1, 2, 3]))
}

#[test]
fn nine_up_bear_any_four() {
    let summary = summary(9, &[]);
    assert!(summary.healthy());
    assert_eq!(summary.headline().1, "any 4 of 9 machines can fail now: all are up");
    let json = summary.to_json(&view(9), &[]);
    assert_eq!((&json["tolerates"], &json["quorum"], &json["healthy"]), (&json!(4), &json!(5), &json!(true)));
    assert_eq!(json["machines"][0]["state"], "up");
}

#[test]
fn one_down_leaves_three_and_says_why_and_since_when() {
    let summary = summary(9, &[4]);
    assert!(!summary.healthy());
    assert_eq!(summary.headline().1, "any 3 more of 9 machines can fail now: 1 is not up");
    let line = &summary.lines[3];
    assert_eq!((line.health, line.since), (Health::Down, Some(Duration::from_secs(5))));
    assert_eq!(line.reason.as_deref(), Some("connection lost"));
}

#[test]
fn the_verdict_is_in_the_json_as_a_word_of_why() {
    let mut summary = summary(9, &[4]);
    let of = |summary: &Summary| summary.to_json(&view(9), &[])["machines"][3]["verdict"].clone();
    assert_eq!(of(&summary), Value::Null);
    summary.lines[3].verdict = Some(Word::DiskFailed);
    assert_eq!(of(&summary), json!("disk_failed"));
    let report = |summary: &Summary| summary.to_json(&view(9), &[])["machines"][3]["crash_report"].clone();
    assert_eq!(report(&summary), Value::Null);
    summary.lines[3].crash_report = Some("7-1".to_owned());
    assert_eq!(report(&summary), json!("7-1"));
}

#[test]
fn four_down_leave_none_and_five_stop_keys() {
    assert!(summary(9, &[4, 5, 6, 7]).headline().1.starts_with("no more machines may fail"));
    let five = summary(9, &[4, 5, 6, 7, 8]);
    assert!(five.headline().1.starts_with("keys are stopped: 5 are not up"));
    assert_eq!(five.to_json(&view(9), &[])["tolerates"], 0);
}

#[test]
fn a_whole_zone_down_stops_nothing_and_one_machine_more_may_fail() {
    let of = |down: &[usize]| Summary::of(&zoned(15, 5), &accounts(15, down, &[6, 7]));
    let (mood, said) = of(&[1, 2, 3, 4, 5]).headline();
    assert_eq!(
        (mood, said.as_str()),
        (Mood::Warning, "any 1 more of 15 machines can fail now: 5 are not up")
    );
    assert!(of(&[1, 2, 3, 4, 5, 8]).headline().1.starts_with("no more machines may fail: 6 are not up"));
    assert!(of(&[1, 2, 3, 4, 5, 8, 9]).headline().1.starts_with("keys are stopped: 7 are not up"));
    let unzoned = Summary::of(&view(15), &accounts(15, &[1, 2, 3, 4, 5], &[6, 7]));
    assert!(unzoned.headline().1.starts_with("keys are stopped: 5 are not up"));
}

#[test]
fn a_silence_that_only_we_noticed_gives_the_reason_we_know() {
    let summary = Summary::of(&view(9), &accounts(9, &[4], &[]));
    let line = &summary.lines[3];
    assert_eq!((line.health, line.since), (Health::Down, None));
    assert_eq!(line.reason.as_deref(), Some("no answer within 2 s"));
}

#[test]
fn reached_by_us_and_missed_by_others_is_suspect() {
    let mut accounts = accounts(9, &[4], &[1, 2]);
    let own = self::accounts(9, &[], &[]).remove(3);
    accounts[3] = own;
    let summary = Summary::of(&view(9), &accounts);
    assert_eq!(summary.lines[3].health, Health::Suspect);
    assert_eq!(summary.lines[3].reason.as_deref(), Some("2 of 8 others do not reach it: connection lost"));
}

/// All accounts say that the probes of machines 1 to 3 are not answered by machine 4.
fn silent(accounts: &mut [(Name, Result<MachineStatus, String>)], state: PeerState) {
    let told = accounts.iter_mut().filter_map(|(_, account)| account.as_mut().ok());
    for peer in told.flat_map(|account| account.peers.iter_mut().filter(|p| p.name == name(4))) {
        (peer.state, peer.silent_ms, peer.by) = (state, 7_000, (1..=3).map(name).collect());
    }
}

#[test]
fn an_idle_machine_that_answers_no_probes_is_down_since_the_first_of_them() {
    let mut accounts = accounts(9, &[4], &[]);
    silent(&mut accounts, PeerState::Suspect);
    let line = &Summary::of(&view(9), &accounts).lines[3];
    assert_eq!((line.health, line.since), (Health::Down, Some(Duration::from_secs(7))));
    let said = "suspected by 3 machines, no answer to probes for 7.0 s";
    assert_eq!(line.reason.as_deref(), Some(said));

    let mut accounts = self::accounts(9, &[4], &[1, 2, 3]);
    silent(&mut accounts, PeerState::Down);
    let line = &Summary::of(&view(9), &accounts).lines[3];
    let said = "connection lost; given up by 3 machines, no answer to probes for 7.0 s";
    assert_eq!(line.reason.as_deref(), Some(said));
}

#[test]
fn a_machine_that_answers_us_and_no_probes_is_suspect() {
    let mut accounts = accounts(9, &[], &[]);
    silent(&mut accounts, PeerState::Suspect);
    let line = &Summary::of(&view(9), &accounts).lines[3];
    assert_eq!(line.health, Health::Suspect);
    let reason = line.reason.as_deref().expect("a reason");
    assert!(reason.starts_with("8 of 8 others do not reach it: suspected by 3 machines"), "{reason}");

    let told = accounts.iter_mut().filter_map(|(_, account)| account.as_mut().ok());
    told.flat_map(|account| account.peers.iter_mut()).for_each(|p| p.by.truncate(1));
    let line = &Summary::of(&view(9), &accounts).lines[3];
    assert_eq!((line.health, &line.reason), (Health::Up, &None), "on one machine's word");
}

#[test]
fn a_lone_machine_may_not_fail_and_is_healthy() {
    let summary = summary(1, &[]);
    assert!(summary.healthy());
    assert!(summary.headline().1.contains("3 machines would bear one"), "{}", summary.headline().1);
}

#[test]
fn a_blank_machine_under_a_members_name_is_not_that_member() {
    let mut accounts = accounts(9, &[], &[]);
    if let Ok(own) = &mut accounts[3].1 {
        own.machine.incarnation = Incarnation::new(77);
        (own.slots, own.synced_slots) = (0, 0);
    }
    let summary = Summary::of(&view(9), &accounts);
    assert_eq!((summary.lines[3].health, summary.lines[3].slots), (Health::Down, None));
    assert!(summary.lines[3].reason.as_ref().is_some_and(|why| why.contains("new incarnation")));
    assert_eq!(summary.tolerates(), Some(3));
}

#[test]
fn a_change_of_the_ring_waits_for_those_of_the_next_one_that_do_not_answer() {
    let summary = summary(9, &[4, 7]);
    assert_eq!(summary.waits_for(&view(9), &[]), [], "nothing changes");
    let changing = |which: usize, state: MemberState| {
        let member = |n| Member {
            state: if n == which { state } else { MemberState::Up },
            ..Member::up(machine(n), 64)
        };
        let members = (1..=9).map(member).collect();
        View::new(ClusterId::new(1), Epoch::FIRST, 9, members, Vec::new()).expect("a view")
    };
    assert_eq!(summary.waits_for(&changing(9, MemberState::Joining), &[]), [name(4), name(7)]);
    assert_eq!(
        summary.waits_for(&changing(7, MemberState::Leaving), &[]),
        [name(4)],
        "who leaves needs no data"
    );
}
