//! Clusters that are created, found again, and refused.

use super::*;
use brolga_config::Containment;

fn plan(data: &Path) -> Plan {
    Plan {
        data: data.join("data"),
        replicas: 3,
        addresses: Vec::new(),
        genesis: None,
        root: None,
        env: vec!["A=1".into()],
        perturb_us: 0,
        host_loopback: false,
        syscall_filter: true,
        unix_sockets: Vec::new(),
        vote: false,
        container: Containment::None,
        policy: Policy::Serial,
        command: vec!["server".into(), "--port".into(), "1".into()],
    }
}

#[test]
fn a_cluster_is_created_once_and_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut plan = plan(dir.path());
    let first = Cluster::open_or_create(&plan).unwrap();
    let created = first.file().clone();
    assert!(matches!(
        Cluster::open_or_create(&plan),
        Err(ClusterError::InUse(_))
    ));
    drop(first);
    plan.perturb_us = 9;
    let again = Cluster::open_or_create(&plan).unwrap();
    assert_eq!(again.file(), &created);
    let config = NodeConfig::load(&again.config_path(3)).unwrap();
    assert_eq!((config.node, config.perturb_us), (3, 9));
    assert_eq!(
        config.place().address,
        "127.0.0.3".parse::<IpAddr>().unwrap()
    );
    assert_eq!(config.data_dir.file_name().unwrap(), "node-3");
}

#[test]
fn what_gives_the_log_its_meaning_cannot_change() {
    let dir = tempfile::tempdir().unwrap();
    let plan = plan(dir.path());
    drop(Cluster::open_or_create(&plan).unwrap());
    let complaint = |plan: &Plan| Cluster::open_or_create(plan).unwrap_err().to_string();
    let other = Plan {
        command: vec!["other".into()],
        ..plan.clone()
    };
    assert!(complaint(&other).contains("the command `server --port 1`, not `other`"));
    assert!(
        complaint(&Plan {
            replicas: 2,
            ..plan.clone()
        })
        .contains("the addresses")
    );
    assert!(
        complaint(&Plan {
            env: Vec::new(),
            ..plan.clone()
        })
        .contains("the environment")
    );
    assert!(
        complaint(&Plan {
            replicas: 0,
            ..plan.clone()
        })
        .contains("from 1 to 9")
    );
    assert!(
        complaint(&Plan {
            policy: Policy::Parallel,
            ..plan.clone()
        })
        .contains("with --policy serial")
    );
    let few = vec!["127.0.0.1".parse().unwrap()];
    assert!(
        complaint(&Plan {
            addresses: few,
            ..plan
        })
        .contains("1 addresses for 3")
    );
}

#[test]
fn threads_that_run_beside_each_other_are_not_kept_on_one_processor() {
    let dir = tempfile::tempdir().unwrap();
    for (name, policy) in [("a", Policy::Serial), ("b", Policy::Parallel)] {
        let plan = Plan {
            policy,
            ..plan(&dir.path().join(name))
        };
        let cluster = Cluster::open_or_create(&plan).unwrap();
        let config = NodeConfig::load(&cluster.config_path(1)).unwrap();
        assert_eq!(config.policy, policy);
        assert_eq!(config.pin_cpu.is_some(), policy == Policy::Serial);
    }
}

#[test]
fn genesis_is_copied_at_creation() {
    let dir = tempfile::tempdir().unwrap();
    let genesis = dir.path().join("genesis");
    fs::create_dir(&genesis).unwrap();
    fs::write(genesis.join("file"), "old").unwrap();
    let plan = Plan {
        genesis: Some(genesis.clone()),
        ..plan(dir.path())
    };
    let cluster = Cluster::open_or_create(&plan).unwrap();
    fs::write(genesis.join("file"), "changed later").unwrap();
    let config = NodeConfig::load(&cluster.config_path(1)).unwrap();
    assert_eq!(
        fs::read_to_string(config.genesis.unwrap().join("file")).unwrap(),
        "old"
    );
}
