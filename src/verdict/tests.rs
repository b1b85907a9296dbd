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
        silence: None,
        clock: None,
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
    Own {
        run: 7,
        uptime_ms: 2_000,
        version: "1".into(),
        stalled_ms: 0,
        load: 0,
        refused: 0,
        unwell_ms: 0,
        before: None,
        past: vec![],
    }
}

/// Something that was over so long ago, and its run.
fn over(word: Word, ago: u64, run: u64) -> Happened {
    Happened {
        word,
        from_ms: NOW - ago - 7_000,
        until_ms: NOW - ago,
        run,
        what: format!("it was {}", word.word()),
    }
}

fn after(past: Vec<Happened>) -> Option<Own> {
    Some(Own { past, ..own() })
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
        (
            "a full disk, as others heard it say",
            case(Some(own()), vec![up(), Seen { unwell: Some((0, 3, 4_000)), ..up() }, up()], vec![]),
            Some(Word::DiskFull),
        ),
        (
            "a full disk that hangs",
            case(
                Some(Own { stalled_ms: 900, ..own() }),
                all(Seen { unwell: Some((0, 3, 4_000)), ..up() }),
                vec![],
            ),
            Some(Word::DiskStalled),
        ),
        (
            "a slow disk, as others heard it say: it is well by now",
            case(Some(own()), all(Seen { unwell: Some((900, 3, 4_000)), ..up() }), vec![]),
            None,
        ),
        (
            "a full disk is no reason to be silent",
            case(None, all(Seen { unwell: Some((0, 3, 4_000)), ..knocked(Silent, Refused) }), vec![]),
            Some(Word::Paused),
        ),
        (
            "its disk was full",
            case(after(vec![over(Word::DiskFull, 2_000, 7)]), all(up()), vec![]),
            Some(Word::DiskFull),
        ),
        ("too much", case(Some(Own { load: 120, ..own() }), all(up()), vec![]), Some(Word::Overloaded)),
        (
            "killed, and back",
            case(after(vec![over(Word::Killed, 2_000, 6)]), all(up()), vec![]),
            Some(Word::Killed),
        ),
        (
            "ended, and back",
            case(after(vec![over(Word::Exit, 3_000, 6)]), all(up()), vec![]),
            Some(Word::Exit),
        ),
        (
            "failed, and back",
            case(
                after(vec![over(Word::DiskFailed, 3_000, 6)]),
                all(up()),
                vec![report(6, Kind::End, Cause::Storage)],
            ),
            Some(Word::DiskFailed),
        ),
        (
            "last words, no end noted",
            case(
                after(vec![over(Word::Killed, 2_000, 6)]),
                all(up()),
                vec![report(6, Kind::End, Cause::Panic)],
            ),
            Some(Word::Panic),
        ),
        (
            "a part was begun again",
            case(
                after(vec![over(Word::Killed, 20_000, 6)]),
                all(up()),
                vec![report(7, Kind::Panic, Cause::Panic)],
            ),
            Some(Word::Panic),
        ),
        (
            "upgraded",
            case(after(vec![over(Word::Upgraded, 2_000, 6), over(Word::Exit, 2_000, 6)]), all(up()), vec![]),
            Some(Word::Upgraded),
        ),
        (
            "refuses work",
            case(Some(Own { load: 100, refused: 9, ..own() }), all(up()), vec![]),
            Some(Word::Overloaded),
        ),
        (
            "stood still",
            case(after(vec![over(Word::Paused, 2_000, 7)]), all(up()), vec![]),
            Some(Word::Paused),
        ),
        (
            "a slow disk, later than all else",
            case(
                after(vec![over(Word::Killed, 90_000, 6), over(Word::DiskStalled, 1_000, 7)]),
                all(up()),
                vec![report(6, Kind::Panic, Cause::Panic)],
            ),
            Some(Word::DiskStalled),
        ),
        (
            "missed by all for a while",
            case(Some(own()), all(missed(Silent, Silent)), vec![]),
            Some(Word::Unreachable),
        ),
        (
            "missed by some",
            case(Some(own()), vec![missed(Silent, Silent), missed(Silent, Silent), up()], vec![]),
            Some(Word::Partitioned),
        ),
        (
            "missed by one of three, who was cut off himself",
            case(Some(own()), vec![missed(Silent, Silent), up(), up()], vec![]),
            None,
        ),
        ("its host was away", case(Some(own()), all(missed(NoRoute, NoRoute)), vec![]), Some(Word::HostDown)),
        (
            "it stood still, and its loop did not notice",
            case(Some(own()), all(missed(Silent, Refused)), vec![]),
            Some(Word::Paused),
        ),
        (
            "it knows itself why it was missed",
            case(after(vec![over(Word::DiskStalled, 1_000, 7)]), all(missed(Silent, Silent)), vec![]),
            Some(Word::DiskStalled),
        ),
        (
            "another version, after a farewell",
            case(
                None,
                vec![Seen { farewell: end(EndKind::Farewell), end: end(EndKind::Incompatible), ..silent() }],
                vec![],
            ),
            Some(Word::Incompatible),
        ),
        ("never failed", case(Some(own()), all(up()), vec![]), None),
    ];
    for (what, mut case, expected) in table {
        case.member = !case.others.iter().any(|t| t.seen.as_ref().is_some_and(|s| s.gone.is_some()));
        assert_eq!(word(&case), expected, "{what}: {:#?}", judge(&case));
    }
}

/// It was silent for five seconds, until a second ago.
fn missed(port: Knocked, host: Knocked) -> Seen {
    let knock = Some(Knock { port, host, ago_ms: 1_300 });
    Seen { silence: Some(Silence { for_ms: 5_000, ago_ms: 1_000, run: 7, knock }), ..up() }
}

#[test]
fn what_is_over_is_told_with_its_times_and_what_was_before_it() {
    let own =
        after(vec![over(Word::Paused, 2_000, 7), over(Word::Killed, 60_000, 6), over(Word::Exit, 90_000, 5)]);
    let verdict = judge(&case(own, vec![up()], vec![report(6, Kind::End, Cause::Storage)]));
    assert_eq!((verdict.word, verdict.lasts()), (Some(Word::Paused), false));
    assert_eq!((verdict.at_ms, verdict.until_ms), (Some(NOW - 9_000), Some(NOW - 2_000)));
    assert_eq!(verdict.sentence, "10.0.0.1 is up; it was paused");
    let earlier: Vec<Word> = verdict.earlier.iter().map(|happened| happened.word).collect();
    assert_eq!(earlier, [Word::DiskFailed, Word::Exit], "its report knows better than that it was killed");
    let json = verdict.to_json();
    assert_eq!(
        (&json["until"], &json["earlier"][1]["verdict"]),
        (&json!(rfc3339(NOW - 2_000)), &json!("exit"))
    );
}

#[test]
fn one_machine_alone_says_itself_that_its_disk_is_full() {
    let mut alone = case(Some(own()), vec![], vec![]);
    if let Some(told) = &mut alone.own {
        told.seen = Some(Seen { unwell: Some((0, 3, 4_000)), ..up() });
    }
    let verdict = judge(&alone);
    assert_eq!(
        (verdict.word, verdict.at_ms, verdict.lasts()),
        (Some(Word::DiskFull), Some(NOW - 4_000), true)
    );
    assert!(verdict.up && verdict.sentence.starts_with("the disk of 10.0.0.1 is full"), "{verdict:#?}");
    assert!(
        verdict.evidence.iter().any(|line| line == "it says: its disk is full, for 4.0 s"),
        "{verdict:#?}"
    );
}

#[test]
fn a_clock_is_measured_by_all_and_one_that_is_off_blames_nobody() {
    let off = |ms| Seen { clock: Some(Offset { ms, ago_ms: 100, far_ms: Some(3_000) }), ..up() };
    let verdict = judge(&case(Some(own()), vec![off(90_000), off(89_990)], vec![]));
    assert_eq!((verdict.word, verdict.at_ms), (Some(Word::Clock), Some(NOW - 3_000)));
    assert_eq!(verdict.sentence, "the clock of 10.0.0.1 is 90 s ahead of the others'");
    for blamed in [90_000, -90_000] {
        let by_one = case(
            Some(own()),
            vec![off(blamed), Seen { clock: Some(Offset { ms: 3, ago_ms: 9, far_ms: None }), ..up() }],
            vec![],
        );
        assert_eq!(word(&by_one), None);
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
