//! Which piece of which file is asked for next.
//!
//! Files come one after the other, each from its beginning or from where it stopped, so that what
//! is there of a file is always a beginning of it. So many pieces are under way at once that the
//! line is never idle, and so few that what is under way is soon over: a window.
//!
//! Sans-IO: says what to ask for, and is told what came.

use super::wire::{CHUNK_BYTES, Piece};
use std::collections::VecDeque;
use std::time::Duration;

/// Pieces under way.
const WINDOW: usize = 16;
/// A donor that says nothing for longer is given up.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A file that is not whole yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// Index in the manifest.
    pub file: u32,
    /// Bytes that are here.
    pub have: u64,
    /// Length, more than that.
    pub bytes: u64,
}

/// The meaning of a piece that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The piece is to be added to its file.
    Part,
    /// The piece is to be added to its file, which is complete then.
    Last,
    /// The piece was not asked for: the donor violates the protocol.
    Unasked,
}

/// The pieces that are still to come.
#[derive(Debug)]
pub struct Pieces {
    /// Those of which something is still to be asked for; `have` counts what was.
    left: VecDeque<Missing>,
    under_way: VecDeque<(Piece, bool)>,
}

impl Pieces {
    /// Everything that is missing.
    pub fn new(missing: impl IntoIterator<Item = Missing>) -> Self {
        let left = missing.into_iter().filter(|it| it.have < it.bytes);
        Self {
            left: left.collect(),
            under_way: VecDeque::new(),
        }
    }

    /// The next piece to ask for; `None` when enough is under way.
    pub fn next(&mut self) -> Option<Piece> {
        if self.under_way.len() >= WINDOW {
            return None;
        }
        let Missing { file, have, bytes } = self.left.front_mut()?;
        let left = *bytes - *have;
        let length = u32::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
        let piece = Piece {
            file: *file,
            offset: *have,
            bytes: length,
        };
        *have += u64::from(length);
        let last = have == bytes;
        if last {
            self.left.pop_front();
        }
        self.under_way.push_back((piece, last));
        Some(piece)
    }

    /// Something came. Answers come in the order of the questions.
    pub fn came(&mut self, piece: Piece) -> Came {
        match self.under_way.front() {
            Some((asked, last)) if *asked == piece => {
                let last = *last;
                self.under_way.pop_front();
                if last { Came::Last } else { Came::Part }
            }
            _ => Came::Unasked,
        }
    }

    /// A file that was whole turned out to be wrong: all of it is asked for again.
    pub fn again(&mut self, file: u32, bytes: u64) {
        self.left.push_back(Missing {
            file,
            have: 0,
            bytes,
        });
    }

    /// Nothing is left to be waited for.
    pub fn is_done(&self) -> bool {
        self.left.is_empty() && self.under_way.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = CHUNK_BYTES as u64;

    fn missing(file: u32, have: u64, bytes: u64) -> Missing {
        Missing { file, have, bytes }
    }

    fn all(pieces: &mut Pieces) -> Vec<Piece> {
        std::iter::from_fn(|| pieces.next()).collect()
    }

    #[test]
    fn every_byte_is_asked_for_once_and_in_order() {
        let files = [
            missing(0, 0, 3 * CHUNK + 1),
            missing(2, 10, 11),
            missing(5, 7, 7),
        ];
        let mut pieces = Pieces::new(files);
        let asked = all(&mut pieces);
        assert_eq!(asked.len(), 5);
        assert_eq!((asked[3].offset, asked[3].bytes), (3 * CHUNK, 1));
        assert_eq!((asked[4].file, asked[4].offset, asked[4].bytes), (2, 10, 1));
        let came: Vec<Came> = asked.iter().map(|it| pieces.came(*it)).collect();
        let last = came.iter().filter(|came| **came == Came::Last);
        assert_eq!(
            (last.count(), came[3], came[4]),
            (2, Came::Last, Came::Last)
        );
        assert!(pieces.is_done());
    }

    #[test]
    fn no_more_than_a_window_is_under_way() {
        let mut pieces = Pieces::new([missing(0, 0, 100 * CHUNK)]);
        let mut asked = all(&mut pieces);
        assert_eq!(asked.len(), WINDOW);
        let mut came = 0;
        while !pieces.is_done() {
            assert_ne!(pieces.came(asked.remove(0)), Came::Unasked);
            came += 1;
            asked.extend(all(&mut pieces));
            assert!(asked.len() <= WINDOW);
        }
        assert_eq!(came, 100);
    }

    #[test]
    fn what_nobody_asked_for_is_noticed() {
        let mut pieces = Pieces::new([missing(0, 0, 2 * CHUNK)]);
        let asked = all(&mut pieces);
        assert_eq!(pieces.came(asked[1]), Came::Unasked);
        let short = Piece {
            bytes: 1,
            ..asked[0]
        };
        assert_eq!(pieces.came(short), Came::Unasked);
        assert_eq!(pieces.came(asked[0]), Came::Part);
        assert_eq!(pieces.came(asked[0]), Came::Unasked);
    }

    #[test]
    fn a_wrong_file_is_asked_for_again() {
        let mut pieces = Pieces::new([missing(4, 5, 9)]);
        let piece = pieces.next().unwrap();
        assert_eq!(pieces.came(piece), Came::Last);
        pieces.again(4, 9);
        assert!(!pieces.is_done());
        assert_eq!(pieces.next().unwrap().offset, 0);
    }
}
