use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ennead_ring::Zone;
use ennead_ring::{Change, ClusterId, Epoch, Hlc, Incarnation, Key, Limits, Machine, Member, Ticket, View};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;

fn name(n: u8) -> Name {
    format!("10.0.0.{n}").parse().unwrap()
}

fn config(data: &Path, birth: Birth) -> NodeConfig {
    NodeConfig {
        disk_reserve: 0,
        listen: name(1).address(),
        advertise: name(1),
        data: data.to_owned(),
        certs: data.to_owned(),
        birth,
        virtual_peers: 64,
        zone: Zone::NONE,
        max_value: 8 << 20,
        request_memory: 256 << 20,
        patience: Duration::from_secs(30),
        move_rate: 32 << 20,
        check_every: Duration::ZERO,
        http: None,
    }
}

/// Opens as a start does.
fn open(config: &NodeConfig) -> Result<(Storage, Restored, UnboundedReceiver<StorageEvent>), StorageError> {
    let (events, told) = unbounded_channel();
    super::open(config, &events).map(|(storage, restored)| (storage, restored, told))
}

/// A machine that was in a cluster with so many others; returns its incarnation.
fn lived(data: &Path, others: u8) -> Incarnation {
    let (storage, restored, mut told) = open(&config(data, Birth::None)).unwrap();
    let members = (1..=others + 1).map(|n| {
        let incarnation = if n == 1 { restored.incarnation } else { Incarnation::new(u64::from(n)) };
        let machine = Machine { name: name(n), incarnation };
        Member::up(machine, 64)
    });
    let view = View::new(ClusterId::new(5), Epoch::FIRST, 9, members.collect(), vec![]).unwrap();
    storage.persist(Ticket(1), Change::View(Arc::new(view)));
    for n in 2..30 {
        storage.persist(Ticket(n), Change::Forget { key: Key::new(format!("key-{n}")).unwrap() });
        let limits = Limits { ceiling: Hlc::from_nanos(n), ..Limits::default() };
        storage.persist(Ticket(n + 100), Change::Limits(limits));
        while !matches!(told.blocking_recv(), Some(StorageEvent::Durable(t)) if t.0 == n + 100) {}
    }
    storage.close();
    restored.incarnation
}

/// Flips a byte in an early entry of the journal.
fn flip(data: &Path) {
    let path = data.join("journal/000001");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(5).position(|w| w == b"key-9").unwrap() - 20;
    bytes[at] ^= 0x40;
    fs::write(&path, bytes).unwrap();
}

fn joins(birth: Result<Birth, StartError>) -> Vec<Name> {
    let Ok(Birth::Join(mut names)) = birth else { panic!("{birth:?}") };
    names.sort();
    names
}

#[test]
fn a_damaged_machine_begins_again_and_joins_those_it_was_with() {
    let dir = tempfile::tempdir().unwrap();
    let was = lived(dir.path(), 3);
    flip(dir.path());
    let config = config(dir.path(), Birth::None);
    let (storage, restored, _) = open(&config).unwrap();
    assert!(restored.fresh);
    assert_ne!(restored.incarnation, was);
    assert_eq!(joins(birth(&config, &restored)), [name(2), name(3), name(4)]);
    storage.close();
    // Should it be ended before anyone took it along, it asks again, as the same.
    let (storage, again, _) = open(&config).unwrap();
    assert_eq!(again.incarnation, restored.incarnation);
    assert_eq!(joins(birth(&config, &again)), [name(2), name(3), name(4)]);
    storage.close();
}

#[test]
fn rot_in_every_part_of_the_directory_ends_in_a_start() {
    for file in ["ennead-data", "records/current", "journal/000001"] {
        let dir = tempfile::tempdir().unwrap();
        let was = lived(dir.path(), 3);
        let path = dir.path().join(file);
        let mut bytes = fs::read(&path).unwrap();
        let middle = match file {
            "journal/000001" => bytes.iter().rposition(|&b| b != 0).unwrap() / 2,
            _ => 0,
        };
        // A bad sector.
        let end = bytes.len().min(middle + 512);
        bytes[middle..end].fill(0xee);
        fs::write(&path, bytes).unwrap();
        let (storage, restored, _) = open(&config(dir.path(), Birth::None)).unwrap();
        assert!(restored.fresh && restored.incarnation != was, "{file}");
        storage.close();
    }
}

#[test]
fn a_damaged_machine_that_knows_no_other_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path(), 0);
    flip(dir.path());
    for birth in [Birth::None, Birth::Join(vec![name(1)]), Birth::Init { with: vec![], slots: 9 }] {
        let Err(refused) = open(&config(dir.path(), birth)) else { panic!("opened") };
        assert!(refused.is_damage(), "{refused}");
        assert!(refused.to_string().contains("started with --join and the name of another"), "{refused}");
        assert!(dir.path().join("journal/000001").exists());
    }
    let config = config(dir.path(), Birth::Join(vec![name(9)]));
    let (storage, restored, _) = open(&config).unwrap();
    assert!(restored.fresh);
    assert_eq!(joins(birth(&config, &restored)), [name(9)]);
    storage.close();
}

#[test]
fn a_damaged_machine_that_was_told_to_initialise_with_others_asks_them() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path(), 0);
    flip(dir.path());
    let config = config(dir.path(), Birth::Init { with: vec![name(2)], slots: 9 });
    let (storage, restored, _) = open(&config).unwrap();
    assert!(restored.fresh);
    assert_eq!(birth(&config, &restored).unwrap(), config.birth);
    storage.close();
}

#[test]
fn what_is_no_damage_moves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path(), 3);
    let config = config(dir.path(), Birth::None);
    let (storage, _, _) = open(&config).unwrap();
    let Err(refused) = open(&config) else { panic!("opened twice") };
    assert!(matches!(refused, StorageError::Locked { .. }), "{refused}");
    storage.close();
    let mark = dir.path().join("ennead-data");
    let text = fs::read(&mark).unwrap();
    fs::write(&mark, "ennead data, format 9\n").unwrap();
    let Err(refused) = open(&config) else { panic!("opened") };
    assert!(matches!(refused, StorageError::Newer { .. }), "{refused}");
    fs::write(&mark, text).unwrap();
    // A passing failure: something in the way of a file.
    let journal = dir.path().join("journal/000099");
    fs::create_dir(&journal).unwrap();
    let Err(refused) = open(&config) else { panic!("opened") };
    assert!(matches!(refused, StorageError::Io { .. }), "{refused}");
    fs::remove_dir(journal).unwrap();
    assert!(!open(&config).unwrap().1.fresh);
}

#[test]
fn a_machine_with_a_view_comes_to_none_other_and_a_blank_one_needs_a_word() {
    let dir = tempfile::tempdir().unwrap();
    lived(dir.path(), 40);
    let joining = config(dir.path(), Birth::Join(vec![name(50)]));
    let (storage, mut restored, _) = open(&joining).unwrap();
    assert_eq!(birth(&joining, &restored).unwrap(), Birth::Join(vec![name(50)]));
    // As if it were blank: the one it was told first, then some of those noted.
    restored.views.clear();
    let names = joins(birth(&joining, &restored));
    assert!(names.contains(&name(50)) && !names.contains(&name(1)) && names.len() == 1 + ASKED, "{names:?}");
    let init = config(dir.path(), Birth::Init { with: vec![], slots: 9 });
    assert!(matches!(birth(&init, &restored), Err(StartError::WasMember(_))));
    storage.close();
    fs::remove_file(dir.path().join("peers")).unwrap();
    assert_eq!(birth(&init, &restored).unwrap(), init.birth);
    let nothing = config(dir.path(), Birth::None);
    assert!(matches!(birth(&nothing, &restored), Err(StartError::NeedsBirth(_))));
}
