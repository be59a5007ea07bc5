//! Servers that keep data: SQL, LDAP, and keys with values.

mod client;
mod counters;

pub mod mariadb;
pub mod memcached;
pub mod postgres;
pub mod redis;
pub mod slapd;
pub mod store;
