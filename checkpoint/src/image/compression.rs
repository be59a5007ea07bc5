//! The setting for the compression of images.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The level of `zstd` without a number. Low, because checkpoints are taken while servers run.
const LEVEL_DEFAULT: i32 = 1;

/// The compression of images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Compression {
    /// Images are not compressed.
    #[default]
    None,
    /// Images are compressed by zstd at this level.
    Zstd(i32),
}

impl FromStr for Compression {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let levels = zstd::compression_level_range();
        let level = match text.strip_prefix("zstd") {
            None if text == "none" => return Ok(Self::None),
            Some("") => Some(LEVEL_DEFAULT),
            Some(rest) => rest.strip_prefix(':').and_then(|level| level.parse().ok()),
            None => None,
        };
        let level = level.filter(|level| levels.contains(level) && *level != 0);
        level.map(Self::Zstd).ok_or_else(|| {
            let (least, most) = (1, levels.end());
            format!("`{text}` is not none, zstd or zstd:LEVEL, LEVEL from {least} to {most}")
        })
    }
}

impl TryFrom<String> for Compression {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Compression> for String {
    fn from(compression: Compression) -> Self {
        compression.to_string()
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Zstd(level) => write!(f, "zstd:{level}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_read_as_it_is_shown() {
        for (text, choice) in [
            ("none", Compression::None),
            ("zstd", Compression::Zstd(1)),
            ("zstd:19", Compression::Zstd(19)),
        ] {
            let read: Compression = text.parse().unwrap();
            assert_eq!(read, choice);
            assert_eq!(read.to_string().parse(), Ok(choice));
        }
        for text in ["", "zst", "zstd:", "zstd:0", "zstd:1000", "zstd3", "None"] {
            let error = text.parse::<Compression>().unwrap_err();
            assert!(error.contains("zstd:LEVEL"), "{error}");
        }
    }
}
