//! What servers log and use while nobody talks to them: their own timers. Measurements, run by hand:
//! `cargo test --release --test end_to_end idle_server -- --ignored --test-threads 1`

use super::clamd::Clamd;
use super::databases::mariadb::Mariadb;
use super::databases::memcached::Memcached;
use super::databases::postgres::Postgres;
use super::databases::redis::Redis;
use super::databases::slapd::Slapd;
use super::recipe::{PreparedRecipe, Recipe, Target, wait_until_ready};
use super::web::board::Board;
use super::web::civetweb::Civetweb;
use super::web::lighttpd::Lighttpd;
use super::web::nginx::Nginx;
use crate::failures::idle::watch_cluster;

use crate::fixture::cluster::Cluster;
use fastrand::Rng;

/// Entries that it logs in a minute.
fn entries_per_minute(recipe: &dyn Recipe) -> u64 {
    let prepared = PreparedRecipe::new(recipe);
    let cluster = Cluster::start(prepared.setup);
    cluster.settle();
    for node in 1..=3 {
        let at = Target::new(node, &cluster.node_dir(node), &prepared.ports);
        wait_until_ready(recipe, &at);
    }
    let (entries, seconds) = watch_cluster(recipe.name(), &cluster);
    cluster.stop();
    60 * entries / seconds
}

fn rng() -> Rng {
    Rng::with_seed(1)
}

#[test]
#[ignore = "a measurement"]
fn idle_server_memcached() {
    entries_per_minute(&Memcached::default());
}

#[test]
#[ignore = "a measurement"]
fn idle_server_lighttpd() {
    entries_per_minute(&Lighttpd::new(&mut rng()));
}

#[test]
#[ignore = "a measurement"]
fn idle_server_civetweb() {
    entries_per_minute(&Civetweb::new(&mut rng()));
}

#[test]
#[ignore = "a measurement"]
fn idle_server_slapd() {
    entries_per_minute(&Slapd::default());
}

#[test]
#[ignore = "a measurement"]
fn idle_server_python() {
    entries_per_minute(&Board::python());
}

#[test]
#[ignore = "a measurement"]
fn idle_server_clamd() {
    entries_per_minute(&Clamd::new(&mut rng()));
}

#[test]
#[ignore = "a measurement"]
fn idle_server_nodejs() {
    entries_per_minute(&Board::nodejs());
}

#[test]
#[ignore = "a measurement"]
fn idle_server_mariadb() {
    entries_per_minute(&Mariadb::default());
}

#[test]
#[ignore = "a measurement"]
fn idle_server_postgres() {
    entries_per_minute(&Postgres::default());
}

#[test]
#[ignore = "a measurement"]
fn idle_server_redis() {
    entries_per_minute(&Redis::default());
}

/// nginx has no timers of its own.
#[test]
fn an_idle_nginx_writes_no_log() {
    assert_eq!(entries_per_minute(&Nginx::new(&mut rng())), 0);
}
