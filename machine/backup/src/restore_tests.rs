use agent_protocol::programs::EtcdMember;

use super::*;

/// The error of a restore of the newest state, with a base on this disk and neither a service nor an etcd.
fn newest(members: &[&str]) -> RestoreError {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("spool")).unwrap();
    let base = ObjectName::Base {
        revision: 7,
        at: 1000,
    };
    fs::write(path("spool").join(base.to_string()), "").unwrap();
    let named = members.iter().map(|name| EtcdMember {
        name: (*name).to_owned(),
        address: Ipv4Addr::LOCALHOST,
    });
    let config = EtcdConfig {
        formed: true,
        data: path("data").display().to_string(),
        spool: path("spool").display().to_string(),
        ..EtcdConfig::bare(members[0], named)
    };
    let restore = Restore {
        config: &config,
        root: &path("root"),
        programs: Programs {
            etcd: path("none"),
            etcdutl: path("none"),
        },
    };
    restore.run(None, &path("into")).unwrap_err()
}

#[test]
fn one_of_several_does_not_take_what_it_has_for_the_newest() {
    // The service cannot be reached now: the program tries again.
    let error = newest(&["a", "b", "c"]);
    assert!(
        matches!(&error, RestoreError::Fetch { name, .. } if name == "what the service has"),
        "{error}"
    );
    // A single member uses its own backup, and fails only because there is no etcd.
    let error = newest(&["a"]);
    assert!(
        matches!(error, RestoreError::Program { .. } | RestoreError::Etcd(_)),
        "{error}"
    );
}
