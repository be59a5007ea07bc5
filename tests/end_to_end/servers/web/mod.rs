//! Servers that speak HTTP.

pub mod apache;
pub mod board;
pub mod civetweb;
pub mod gerbera;
pub mod haproxy;
pub mod http;
pub mod lighttpd;
pub mod nginx;
