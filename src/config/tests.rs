//! Configurations that are read, and those that are refused.

use super::*;
use brolga_consensus::LEARNERS_FROM;
use std::fs;

const GOOD: &str = r#"
cluster = "000102030405060708090a0b0c0d0e0f"
node = 1
data_dir = "data"
command = ["redis-server", "--port", "6379"]
env = ["A=b=c"]

[[members]]
id = 1
address = "127.0.0.1"
peer = "127.0.0.1:7001"
sidecar = "127.0.0.1:7002"
"#;

fn load(text: &str) -> Result<NodeConfig, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.toml");
    fs::write(&path, text).unwrap();
    let folder = dir.path().display().to_string();
    NodeConfig::load(&path).map_err(|error| error.to_string().replace(&folder, "DIR"))
}

fn complaint(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from));
    load(&GOOD.replacen(from, to, 1)).unwrap_err()
}

#[test]
fn defaults_are_the_documented_ones() {
    let config = load(GOOD).unwrap();
    assert_eq!(
        (config.heartbeat_ms, config.election_timeout_ms),
        (50, [250, 500])
    );
    assert_eq!(
        (config.clocks_per_event, config.bubble_wait_us),
        (1000, 100)
    );
    assert_eq!(
        config.publish_address(),
        "127.0.0.1".parse::<IpAddr>().unwrap()
    );
    assert_eq!(config.environment(), [("A".into(), "b=c".into())]);
    assert!(config.data_dir.is_absolute());
}

#[test]
fn checkpoints_are_taken_unasked_with_a_container_or_when_it_is_said() {
    let triggers = |keys: &str| {
        let config = load(&GOOD.replacen("node = 1", &format!("node = 1\n{keys}"), 1)).unwrap();
        (config.checkpoint_period(), config.checkpoint_log_bytes())
    };
    assert_eq!(triggers(""), (None, None));
    assert_eq!(triggers("container = \"auto\""), (None, Some(256 << 20)));
    let off = "container = \"auto\"\ncheckpoint_log_mib = 0";
    assert_eq!(triggers(off), (None, None));
    let both = "checkpoint_every_s = 60\ncheckpoint_log_mib = 8";
    let minute = Some(Duration::from_secs(60));
    assert_eq!(triggers(both), (minute, Some(8 << 20)));
}

#[test]
fn what_is_written_reads_back_the_same() {
    let config = load(GOOD).unwrap();
    assert_eq!(load(&toml::to_string(&config).unwrap()).unwrap(), config);
}

#[test]
fn a_learner_is_none_of_the_members_and_has_a_number_of_its_own() {
    let learner = |node: u64| {
        let node = format!("node = {node}\n");
        let place = "[learner]\naddress = \"127.0.0.9\"\nsidecar = \"127.0.0.9:0\"\n[[members]]";
        let text = GOOD.replacen("node = 1\n", &node, 1);
        load(&text.replacen("[[members]]", place, 1))
    };
    let config = learner(LEARNERS_FROM + 3).unwrap();
    assert_eq!(config.publish_address().to_string(), "127.0.0.9");
    assert_eq!(config.others().collect::<Vec<_>>(), [1]);
    assert_eq!(load(&toml::to_string(&config).unwrap()).unwrap(), config);
    assert!(learner(1).unwrap_err().contains("cannot be a learner"));
    assert!(learner(2).unwrap_err().contains("too small for a learner"));
}

#[test]
fn errors_say_where_and_what() {
    let unknown = complaint("node = 1", "node = 1\nheart_beat = 3");
    assert!(
        unknown.starts_with("DIR/node.toml:4: unknown field `heart_beat`"),
        "{unknown}"
    );
    let kind = complaint("node = 1", "node = \"one\"");
    assert!(kind.starts_with("DIR/node.toml:3: "), "{kind}");
    assert!(!kind.contains('\n'));
    assert!(complaint("000102", "00010").contains("is not a cluster id"));
    assert!(complaint("node = 1", "node = 2").contains("not one of the members"));
    assert!(complaint("A=b=c", "=b").contains("is not NAME=VALUE"));
    assert!(complaint("A=b=c", "LD_PRELOAD=x").contains("LD_PRELOAD"));
    assert!(complaint("\"redis-server\", \"--port\", \"6379\"", "").contains("command"));
    assert!(complaint(":7002", ":7001").contains("given twice"));
    let timing = complaint("node = 1", "node = 1\nelection_timeout_ms = [60, 90]");
    assert!(timing.contains("twice heartbeat_ms"), "{timing}");
}

#[test]
fn a_renamed_key_is_answered_with_its_new_name() {
    for (old, new) in [
        ("n_clock = 5", "clocks_per_event"),
        ("backstop = false", "syscall_filter"),
        ("checkpoint_log_mb = 8", "checkpoint_log_mib"),
        ("descriptors = 2000", "descriptors_max"),
    ] {
        let key = old.split(' ').next().unwrap();
        assert_eq!(
            complaint("node = 1", &format!("node = 1\n{old}")),
            format!("DIR/node.toml:4: `{key}` is called `{new}` now: rename the key")
        );
    }
}

#[test]
fn a_size_of_segments_that_the_log_cannot_have_is_refused() {
    for bytes in [(32 << 20) + 1, 8 * (u64::from(u32::MAX) + 1)] {
        let said = complaint(
            "node = 1",
            &format!("node = 1\nlog_segment_bytes = {bytes}"),
        );
        assert!(said.contains("a multiple of 8, at most"), "{said}");
    }
}
