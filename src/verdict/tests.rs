//! Each way to fail, as a table: what machines say, and the word for it.

use super::*;
use crate::crash::{Cause, Kind};

const NOW: u64 = 1_700_000_000_000;

fn name(i: u8) -> Name {
    Name::new(([10, 0, 0, i], 9595).into())
}

fn up() -> Seen {
    Seen {
        state: PeerState::Up,
        silent_ms: 0,
        by: vec![],
        heard_ms: Some(200),
        runs: vec![Met { run: 7, version: "1".into(), ago_ms: 60_000, farewell: false }],
        lost_ms: None,
        end: None,
        farewell: None,
        knock: None,
        unwell: None,
        last_words: None,
        gone: None,
    }
}

fn silent() -> Seen {
    let text = "timed out: nothing answers".to_owned();
    let end = Some(Ending { kind: EndKind::Silence, text, ago_ms: 3_000 });
    let by = vec![name(2), name(3)];
    Seen { state: PeerState::Down, silent_ms: 5_000, by, heard_ms: Some(5_000), end, ..up() }
}

fn knocked(port: Knocked, host: Knocked) -> Seen {
    Seen { knock: Some(Knock { port, host, ago_ms: 300 }), ..silent() }
}

fn own() -> Own {
    Own { run: 7, uptime_ms: 2_000, version: "1".into(), stalled_ms: 0, load: 0, unwell_ms: 0, before: None }
}

fn before(ended: Option<Ended>) -> Option<Before> {
    Some(Before { run: 6, version: "1".into(), ended })
}

fn report(run: u64, kind: Kind, cause: Cause) -> Report {
    Report {
        id: "x".into(),
        kind,
        cause,
        message: "slot 3\nmore".into(),
        location: None,
        backtrace: String::new(),
        thread: "ennead-core".into(),
        part: "core loop".into(),
        log: vec![],
        version: "1".into(),
        uptime_ms: 1,
        restarts: 0,
        machine: name(1).to_string(),
        incarnation: "1".into(),
        run: format!("{run:016x}"),
        at_ms: NOW - 9_000,
    }
}

fn testimony(by: u8, own: Option<Own>, seen: Option<Seen>) -> Testimony {
    Testimony { by: name(by), wall_ms: NOW, own, seen }
}

fn case(own: Option<Own>, others: Vec<Seen>, reports: Vec<Report>) -> Case {
    let unanswered = if own.is_none() { vec![(name(1), "no answer".into())] } else { vec![] };
    let others = others.into_iter().zip(2..).map(|(seen, by)| testimony(by, None, Some(seen)));
    Case {
        name: name(1),
        member: true,
        own: own.map(|own| testimony(1, Some(own), None)),
        others: others.collect(),
        unanswered,
        reports,
        now_ms: NOW,
    }
}

fn word(case: &Case) -> Option<Word> {
    let verdict = judge(case);
    assert!(verdict.sentence.contains(&name(1).to_string()), "{}", verdict.sentence);
    assert!(verdict.word.is_none() || !verdict.evidence.is_empty());
    verdict.word
}

#[test]
fn each_way_to_fail_has_its_own_verdict() {
    use Knocked::{NoRoute, Refused, Silent};
    let ended = |failed| Some(Ended { reason: "SIGTERM".into(), failed, at_ms: NOW - 3_000 });
    let end = |kind| Some(Ending { kind, text: "what it said".into(), ago_ms: 4_000 });
    let all = |seen: Seen| vec![seen.clone(), seen.clone(), seen];
    let last_words = |cause| Seen {
        last_words: Some(report(7, Kind::End, cause).to_json()),
        farewell: end(EndKind::Farewell),
        ..silent()
    };
    let table = [
        // It does not answer.
        ("kill -9", case(None, all(knocked(Refused, Refused)), vec![]), Some(Word::Killed)),
        ("SIGSTOP", case(None, all(knocked(Silent, Refused)), vec![]), Some(Word::Paused)),
        ("cable cut", case(None, all(knocked(Silent, Silent)), vec![]), Some(Word::Unreachable)),
        ("host off", case(None, all(knocked(NoRoute, NoRoute)), vec![]), Some(Word::HostDown)),
        (
            "one knock of three got through",
            case(None, vec![knocked(Silent, Silent), knocked(Refused, Refused)], vec![]),
            Some(Word::Killed),
        ),
        ("not knocked yet", case(None, all(silent()), vec![]), Some(Word::Unreachable)),
        (
            "SIGTERM",
            case(None, all(Seen { farewell: end(EndKind::Farewell), ..knocked(Refused, Refused) }), vec![]),
            Some(Word::Exit),
        ),
        (
            "two versions",
            case(None, all(Seen { end: end(EndKind::Incompatible), ..silent() }), vec![]),
            Some(Word::Incompatible),
        ),
        ("died too often", case(None, vec![silent(), last_words(Cause::Panic)], vec![]), Some(Word::Panic)),
        (
            "fsync failed",
            case(None, vec![silent(), last_words(Cause::Storage)], vec![]),
            Some(Word::DiskFailed),
        ),
        (
            "report in the ring",
            case(None, all(knocked(Silent, Silent)), vec![report(7, Kind::End, Cause::Panic)]),
            Some(Word::Panic),
        ),
        (
            "report of an earlier run",
            case(None, all(knocked(Refused, Refused)), vec![report(5, Kind::End, Cause::Panic)]),
            Some(Word::Killed),
        ),
        (
            "a part died before",
            case(None, all(knocked(Refused, Refused)), vec![report(7, Kind::Panic, Cause::Panic)]),
            Some(Word::Killed),
        ),
        ("some reach it", case(None, vec![knocked(Silent, Silent), up()], vec![]), Some(Word::Partitioned)),
        (
            "some have not noticed",
            case(None, vec![knocked(Silent, Silent), Seen { heard_ms: Some(4_900), ..up() }], vec![]),
            Some(Word::Unreachable),
        ),
        ("left", case(None, all(Seen { gone: Some((true, 900)), ..silent() }), vec![]), Some(Word::Left)),
        (
            "dropped",
            case(None, all(Seen { gone: Some((false, 900)), ..knocked(Refused, Refused) }), vec![]),
            Some(Word::Killed),
        ),
        ("not missed yet", case(None, all(up()), vec![]), None),
        ("nobody tells", case(None, vec![], vec![]), None),
        // It answers.
        (
            "slow disk",
            case(Some(Own { stalled_ms: 900, ..own() }), all(up()), vec![]),
            Some(Word::DiskStalled),
        ),
        ("cut off from one", case(Some(own()), vec![silent(), up()], vec![]), Some(Word::Partitioned)),
        (
            "cut off from one, who was told that it lives",
            case(
                Some(own()),
                vec![Seen { state: PeerState::Up, lost_ms: Some(4_000), ..knocked(Silent, Silent) }, up()],
                vec![],
            ),
            Some(Word::Partitioned),
        ),
        ("too much", case(Some(Own { load: 120, ..own() }), all(up()), vec![]), Some(Word::Overloaded)),
        (
            "killed, and back",
            case(Some(Own { before: before(None), ..own() }), all(up()), vec![]),
            Some(Word::Killed),
        ),
        (
            "ended, and back",
            case(Some(Own { before: before(ended(false)), ..own() }), all(up()), vec![]),
            Some(Word::Exit),
        ),
        (
            "failed, and back",
            case(
                Some(Own { before: before(ended(true)), ..own() }),
                all(up()),
                vec![report(6, Kind::End, Cause::Storage)],
            ),
            Some(Word::DiskFailed),
        ),
        (
            "last words, no end noted",
            case(
                Some(Own { before: before(None), ..own() }),
                all(up()),
                vec![report(6, Kind::End, Cause::Panic)],
            ),
            Some(Word::Panic),
        ),
        (
            "a part was begun again",
            case(
                Some(Own { before: before(None), ..own() }),
                all(up()),
                vec![report(7, Kind::Panic, Cause::Panic)],
            ),
            Some(Word::Panic),
        ),
        (
            "upgraded",
            case(Some(Own { version: "2".into(), before: before(ended(false)), ..own() }), all(up()), vec![]),
            Some(Word::Upgraded),
        ),
        ("never failed", case(Some(own()), all(up()), vec![]), None),
    ];
    for (what, mut case, expected) in table {
        case.member = !case.others.iter().any(|t| t.seen.as_ref().is_some_and(|s| s.gone.is_some()));
        assert_eq!(word(&case), expected, "{what}: {:#?}", judge(&case));
    }
}

#[test]
fn a_clock_is_judged_against_the_middle_of_all() {
    let mut off = case(Some(own()), vec![up(), up(), up()], vec![]);
    off.own.as_mut().unwrap().wall_ms = NOW + 60_000;
    assert_eq!(word(&off), Some(Word::Clock));
    let mut asker = case(Some(own()), vec![up(), up(), up()], vec![]);
    asker.now_ms = NOW - 60_000;
    assert_eq!(word(&asker), None, "it is the one who asks whose clock is off");
}

#[test]
fn who_is_on_which_side_is_named() {
    let cut = case(None, vec![knocked(Knocked::Silent, Knocked::Silent), up()], vec![]);
    let verdict = judge(&cut);
    let expected = "10.0.0.1 is cut off from some: 10.0.0.2 get no answer from it; 10.0.0.3 reach it";
    assert_eq!(verdict.sentence, expected);
    assert_eq!(verdict.at_ms, Some(NOW - 5_000));
}

#[test]
fn a_verdict_prints_as_scripts_expect_it() {
    let verdict = judge(&case(None, vec![silent(), silent()], vec![report(7, Kind::End, Cause::Panic)]));
    let json = verdict.to_json();
    assert_eq!((&json["machine"], &json["verdict"]), (&json!("10.0.0.1"), &json!("panic")));
    assert_eq!(json["at"], json!(rfc3339(NOW - 9_000)));
    assert_eq!(json["detected_by"], json!(["10.0.0.2", "10.0.0.3"]));
    assert_eq!(json["report"]["message"], json!("slot 3\nmore"));
    assert!(json["evidence"].as_array().is_some_and(|lines| lines.len() >= 3));
}
