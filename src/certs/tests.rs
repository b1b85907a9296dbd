use super::*;

fn authority() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    init(dir.path()).unwrap();
    dir
}

fn peer(name: &str) -> Who {
    Who::Peer(name.parse().unwrap())
}

fn client(name: &str) -> Who {
    Who::Client(name.to_string())
}

#[test]
fn what_is_issued_names_whom_it_was_issued_to() {
    let dir = authority();
    for who in
        [peer("10.0.0.1"), peer("127.0.0.1:9605"), peer("[fd00::1]:9605"), peer("fd00::1"), client("ops")]
    {
        let pem = issue(dir.path(), &who).unwrap();
        let certificate = CertificateDer::from_pem_file(&pem).unwrap();
        assert_eq!(names(&certificate), Ok(who.clone()));
        let identity = match &who {
            Who::Peer(name) => Identity::peer(dir.path(), *name),
            Who::Client(name) => Identity::client(dir.path(), Some(name)),
        };
        assert_eq!(identity.unwrap().who(), &who);
    }
    assert!(dir.path().join("peers/127.0.0.1:9605.key").exists());
}

#[cfg(unix)]
#[test]
fn keys_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let dir = authority();
    issue(dir.path(), &peer("10.0.0.1")).unwrap();
    for key in ["ca.key", "peers/10.0.0.1.key"] {
        assert_eq!(fs::metadata(dir.path().join(key)).unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn nothing_is_overwritten() {
    let dir = authority();
    let before = fs::read(dir.path().join("ca.key")).unwrap();
    let error = init(dir.path()).unwrap_err();
    assert!(error.to_string().contains("ca.pem exists and is not overwritten"), "{error}");
    assert_eq!(fs::read(dir.path().join("ca.key")).unwrap(), before);
    issue(dir.path(), &client("ops")).unwrap();
    assert!(matches!(issue(dir.path(), &client("ops")), Err(CertError::Exists(_))));
    // A key alone is as precious.
    fs::remove_file(dir.path().join("clients/ops.pem")).unwrap();
    assert!(matches!(issue(dir.path(), &client("ops")), Err(CertError::Exists(_))));
}

#[test]
fn what_is_missing_is_named_with_the_command_that_makes_it() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().display();
    let name = "10.0.0.1".parse().unwrap();
    let error = Identity::peer(dir.path(), name).unwrap_err().to_string();
    assert_eq!(error, format!("there is no {at}/ca.pem: run `kvctl certs init --dir {at}`"));
    assert!(matches!(issue(dir.path(), &peer("10.0.0.1")), Err(CertError::Missing { .. })));
    init(dir.path()).unwrap();
    let error = Identity::peer(dir.path(), name).unwrap_err().to_string();
    let command = format!("kvctl certs issue --dir {at} --peer 10.0.0.1");
    assert_eq!(error, format!("there is no {at}/peers/10.0.0.1.pem: run `{command}`"));
    let error = Identity::client(dir.path(), None).unwrap_err().to_string();
    let command = format!("kvctl certs issue --dir {at} --client NAME");
    assert_eq!(error, format!("there is no {at}/clients/NAME.pem: run `{command}`"));
}

#[test]
fn the_only_client_is_meant_and_of_several_one_is_named() {
    let dir = authority();
    issue(dir.path(), &client("ops")).unwrap();
    assert_eq!(Identity::client(dir.path(), None).unwrap().who(), &client("ops"));
    issue(dir.path(), &client("backup")).unwrap();
    let error = Identity::client(dir.path(), None).unwrap_err().to_string();
    assert!(error.contains("choose one of backup, ops with --as NAME"), "{error}");
    assert_eq!(Identity::client(dir.path(), Some("ops")).unwrap().who(), &client("ops"));
}

#[test]
fn a_file_of_anothers_name_is_refused() {
    let dir = authority();
    issue(dir.path(), &peer("10.0.0.1")).unwrap();
    for ending in ["pem", "key"] {
        let of = |name: &str| dir.path().join(format!("peers/{name}.{ending}"));
        fs::copy(of("10.0.0.1"), of("10.0.0.2")).unwrap();
    }
    let error = Identity::peer(dir.path(), "10.0.0.2".parse().unwrap()).unwrap_err().to_string();
    assert!(error.contains("was issued to peer 10.0.0.1, not to peer 10.0.0.2"), "{error}");
}

#[test]
fn damaged_files_are_named() {
    let dir = authority();
    issue(dir.path(), &client("ops")).unwrap();
    fs::write(dir.path().join("clients/ops.key"), "-----BEGIN NONSENSE-----").unwrap();
    let error = Identity::client(dir.path(), None).unwrap_err().to_string();
    assert!(error.contains("ops.key is damaged"), "{error}");
    fs::write(dir.path().join("ca.pem"), "").unwrap();
    let error = Identity::client(dir.path(), None).unwrap_err().to_string();
    assert!(error.contains("ca.pem is damaged"), "{error}");
}

#[test]
fn a_key_of_another_authority_signs_nothing() {
    let (ours, theirs) = (authority(), authority());
    fs::copy(theirs.path().join("ca.key"), ours.path().join("ca.key")).unwrap();
    let error = issue(ours.path(), &client("ops")).unwrap_err().to_string();
    assert!(error.contains("it is not the key of ca.pem"), "{error}");
    assert!(!ours.path().join("clients/ops.key").exists());
}

#[test]
fn a_client_cannot_be_called_anything() {
    let dir = authority();
    for name in ["", ".", "../ca", "a/b", "a b", "é", &"a".repeat(65)] {
        assert!(matches!(issue(dir.path(), &client(name)), Err(CertError::ClientName(_))), "{name}");
        assert!(matches!(Identity::client(dir.path(), Some(name)), Err(CertError::ClientName(_))), "{name}");
    }
}

#[test]
fn all_certificates_are_shown() {
    let dir = authority();
    issue(dir.path(), &peer("10.0.0.1")).unwrap();
    issue(dir.path(), &client("ops")).unwrap();
    fs::remove_file(dir.path().join("ca.key")).unwrap();
    let shown = show(dir.path()).unwrap();
    let who: Vec<_> = shown.iter().map(|s| s.who.clone()).collect();
    assert_eq!(who, [None, Some(peer("10.0.0.1")), Some(client("ops"))]);
    let keys: Vec<_> = shown.iter().map(|s| s.has_key).collect();
    assert_eq!(keys, [false, true, true]);
    let day = 24 * 3600;
    assert_eq!(shown[0].not_after - shown[0].not_before, (AUTHORITY_DAYS + 1) * day);
    assert_eq!(shown[1].not_after - shown[1].not_before, (LEAF_DAYS + 1) * day);
    assert_ne!(shown[1].serial, shown[2].serial);
}

#[test]
fn a_new_authority_comes_before_the_old_one_and_the_old_one_goes_when_nothing_is_its_any_more() {
    let dir = authority();
    let folder = dir.path();
    let who = [peer("10.0.0.1"), client("ops")];
    for who in &who {
        issue(folder, who).unwrap();
    }
    let identity = || Identity::load(folder, client("ops")).unwrap();
    let (first, before) = (identity(), identity().authority().clone());
    assert!(first.check(folder).is_ok() && first.is_same(&identity()));
    renew_authority(folder).unwrap();
    assert_eq!(identity().authorities()[1..], [before]);
    assert!(identity().check(folder).is_ok() && !first.is_same(&identity()));
    assert_eq!(show(folder).unwrap().iter().filter(|shown| shown.who.is_none()).count(), 2);
    let refused = |older: &str| {
        let error = retire_authorities(folder).unwrap_err();
        let said = error.to_string();
        let is_older = matches!(error, CertError::Older { .. });
        assert!(is_older && said.contains(older) && said.contains("certs renew --dir"), "{said}");
        assert_eq!(identity().authorities().len(), 2, "nothing was changed");
    };
    refused("2 of the 2 certificates here are its (peer 10.0.0.1, client ops)");
    renew(folder, &who[0]).unwrap();
    refused("1 of the 2 certificates here are its (client ops)");
    renew(folder, &who[1]).unwrap();
    assert_ne!(identity().certificate(), first.certificate());
    assert_eq!((retire_authorities(folder).unwrap(), retire_authorities(folder).unwrap()), (1, 0));
    assert!(identity().check(folder).is_ok() && identity().authorities().len() == 1);
    let stranger = Identity { authorities: identity().authorities, ..first };
    assert!(
        stranger.check(folder).unwrap_err().to_string().contains("no authority in ca.pem"),
        "{stranger:?}"
    );
    // Nothing is left of how it was made.
    let left = fs::read_dir(folder).unwrap().map(|item| item.unwrap().file_name().into_string().unwrap());
    assert!(left.into_iter().all(|name| !name.starts_with('.')));
}

#[test]
fn a_key_that_is_anothers_does_not_fit() {
    let dir = authority();
    for who in [client("ops"), client("backup")] {
        issue(dir.path(), &who).unwrap();
    }
    let stamp_before = stamp(dir.path(), &client("ops"));
    fs::copy(dir.path().join("clients/backup.key"), dir.path().join("clients/ops.key")).unwrap();
    assert_ne!(stamp(dir.path(), &client("ops")), stamp_before);
    let error = Identity::load(dir.path(), client("ops")).unwrap().check(dir.path()).unwrap_err();
    assert!(error.to_string().contains("the key beside it is another's"), "{error}");
}

#[test]
fn bytes_that_are_no_certificate_name_nobody() {
    for bytes in [&b""[..], b"\x30\x80", &[0xff; 100]] {
        assert_eq!(names(&CertificateDer::from(bytes)), Err(NamesError::Unreadable));
    }
}

#[test]
fn an_authority_names_nobody() {
    let dir = authority();
    let certificate = CertificateDer::from_pem_file(dir.path().join("ca.pem")).unwrap();
    assert_eq!(names(&certificate), Err(NamesError::HowMany(0)));
}
