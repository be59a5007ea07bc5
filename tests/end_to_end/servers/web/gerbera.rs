//! Gerbera, a UPnP media server: select, a pool of threads, SQLite, datagrams.

use crate::fixture::settings::random_bytes;
use crate::servers::recipe::{Load, LoadControl, Recipe, Target, stock};
use crate::servers::scenario::{come_back, survive};
use fastrand::Rng;
use std::fs;
use std::path::Path;
use std::process::Command;

const FILES: usize = 3;

#[test]
fn gerbera_comes_back_from_a_checkpoint() {
    come_back("gerbera_comes_back_from_a_checkpoint", Gerbera::new);
}

#[test]
fn gerbera_survives_its_leader() {
    survive("gerbera_survives_its_leader", Gerbera::new);
}

#[derive(Debug)]
struct Gerbera {
    /// Only noise, but it is what is streamed.
    songs: Vec<Vec<u8>>,
}

impl Gerbera {
    fn new(rng: &mut Rng) -> Self {
        Self {
            songs: (0..FILES)
                .map(|at| random_bytes(rng, 50_000 * (at + 1)))
                .collect(),
        }
    }

    /// Streams each song and compares.
    fn listen(&self, at: &Target, control: &LoadControl) {
        let ids = song_ids(at);
        assert_eq!(ids.len(), FILES, "not all songs are in the list: {ids:?}");
        for (name, id) in ids.iter().cycle() {
            let number = name.trim_end_matches(".mp3").parse::<usize>();
            let number = number.expect("the number of a song");
            let url = format!(
                "http://{}/content/media/object_id/{id}/res_id/0/ext/file.mp3",
                at.address(0)
            );
            let output = Command::new("curl")
                .args(["--silent", "--show-error", "--fail", &url])
                .output()
                .unwrap();
            let told = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{url}: {told}");
            assert!(
                output.stdout == self.songs[number],
                "{name} is not what it was"
            );
            if !control.step() {
                return;
            }
        }
    }
}

/// The contents of a container, as a control point asks for it; the answer's list, unescaped.
fn browse(at: &Target, container: &str) -> String {
    const SERVICE: &str = "urn:schemas-upnp-org:service:ContentDirectory:1";
    let question = format!(
        "<?xml version=\"1.0\"?>\
         <s:Envelope xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\" \
         s:encodingStyle=\"http://schemas.xmlsoap.org/soap/encoding/\"><s:Body>\
         <u:Browse xmlns:u=\"{SERVICE}\"><ObjectID>{container}</ObjectID>\
         <BrowseFlag>BrowseDirectChildren</BrowseFlag><Filter>*</Filter>\
         <StartingIndex>0</StartingIndex><RequestedCount>0</RequestedCount>\
         <SortCriteria></SortCriteria></u:Browse></s:Body></s:Envelope>"
    );
    let answer = stock(
        Command::new("curl")
            .args(["--silent", "--show-error", "--fail", "--header"])
            .arg(format!("SOAPACTION: \"{SERVICE}#Browse\""))
            .args(["--header", "Content-Type: text/xml; charset=\"utf-8\""])
            .args(["--data-binary", &question])
            .arg(format!("http://{}/upnp/control/cds", at.address(0))),
    );
    assert!(answer.contains("<NumberReturned>"), "{answer}");
    answer
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
}

/// Values of an attribute of all elements of a kind, in order.
fn values<'a>(text: &'a str, element: &str, attribute: &str) -> Vec<&'a str> {
    let start = format!("<{element} ");
    let within = format!("{attribute}=\"");
    text.split(&start)
        .skip(1)
        .filter_map(|rest| rest.split_once(&within)?.1.split('"').next())
        .collect()
}

/// The songs below a container: titles and identifiers.
fn songs_below(at: &Target, container: &str, depth: usize) -> Vec<(String, String)> {
    let answer = browse(at, container);
    let titles = answer.split("<item ").skip(1).filter_map(|item| {
        let title = item.split_once("<dc:title>")?.1.split('<').next()?;
        Some(title.to_owned())
    });
    let ids = values(&answer, "item", "id");
    let mut found: Vec<_> = titles.zip(ids.into_iter().map(str::to_owned)).collect();
    if depth > 0 {
        for below in values(&answer, "container", "id") {
            found.extend(songs_below(at, below, depth - 1));
        }
    }
    found
}

/// Songs by the directory that they are in. The server says which of its containers that is.
fn song_ids(at: &Target) -> Vec<(String, String)> {
    const DIRECTORIES: &str = "1";
    const DEPTH: usize = 6;
    songs_below(at, DIRECTORIES, DEPTH)
}

/// Browses again and again; nobody changes anything, so the answer stays.
fn look_around(at: &Target, control: &LoadControl) {
    let first = browse(at, "0");
    assert!(first.contains("PC Directory"), "{first}");
    loop {
        assert_eq!(browse(at, "0"), first);
        if !control.step() {
            return;
        }
    }
}

impl Recipe for Gerbera {
    fn name(&self) -> &'static str {
        "gerbera"
    }

    fn needs(&self) -> &'static [(&'static str, &'static str)] {
        &[("gerbera", "gerbera"), ("curl", "curl")]
    }

    fn version(&self) -> Command {
        let mut command = Command::new("gerbera");
        command.arg("--version");
        command
    }

    fn ports(&self) -> &'static [u16] {
        &[49200]
    }

    /// Gerbera's library takes no lower port for itself.
    fn lowest_port(&self) -> u16 {
        49152
    }

    fn prepare(&self, genesis: &Path) {
        for (number, song) in self.songs.iter().enumerate() {
            fs::write(genesis.join(format!("media/{number}.mp3")), song).unwrap();
        }
    }

    /// Ready a while later: it lists what it has been told to add a while after it has begun to
    /// listen.
    fn ready(&self, at: &Target) -> bool {
        let listens = std::net::TcpStream::connect(at.address(0)).is_ok();
        listens && song_ids(at).len() == FILES
    }

    fn load(&self) -> Vec<Load<'_>> {
        vec![
            Box::new(|at, control| self.listen(at, control)),
            Box::new(look_around),
        ]
    }

    fn dump(&self, at: &Target) -> String {
        at.read("gerbera.db")
    }
}
