//! Servers as Debian packages them, with stock clients. Each is described by a [`recipe::Recipe`] that
//! uses the files in `examples/recipes`, and goes through [`scenario::survive`].

mod dns;
mod http;
mod idle;
mod recipe;
mod scenario;

mod apache;
mod board;
mod civetweb;
mod clamd;
mod gerbera;
mod haproxy;
mod lighttpd;
mod mariadb;
mod memcached;
mod nginx;
mod nsd;
mod postgres;
mod race;
mod redis;
mod slapd;
mod store;
mod unbound;
