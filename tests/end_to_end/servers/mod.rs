//! Servers as Debian packages them, with stock clients. Each is described by a [`recipe::Recipe`] that
//! uses the files in `examples/recipes`, and goes through [`scenario::survive`].

mod recipe;
mod scenario;

mod clamd;
mod databases;
mod dns;
mod idle;
mod race;
mod web;
