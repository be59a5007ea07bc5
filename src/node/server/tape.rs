//! The node's end of a tape: the memory object, its mapping with each ring twice in a row, and the
//! doorbell. A server gets a fresh one each time it starts.

use crate::server::process::Objects;
use brolga_os::sys::{self, Mapping, Window};
use brolga_tape::ring::{HEADER_BYTES, Parameters, Tape};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A tape with the resources behind it.
#[derive(Debug)]
pub(crate) struct ServerTape {
    // Before the mapping, because fields are dropped in order and it points into it.
    tape: Tape,
    _mapping: Mapping,
    object: OwnedFd,
    doorbell: OwnedFd,
}

impl ServerTape {
    /// Makes a fresh tape of objects of its own.
    ///
    /// # Errors
    /// Whatever the kernel says to the memory object, the mapping or the doorbell.
    #[cfg(test)]
    pub fn create(parameters: &Parameters) -> io::Result<Self> {
        let bytes = brolga_tape::ring::object_bytes(parameters);
        Self::create_on(Objects::of_memory(bytes)?, parameters)
    }

    /// Makes a fresh tape of fresh objects, and opens it to a server that is started.
    ///
    /// # Errors
    /// Whatever the kernel says to the mapping.
    pub(crate) fn create_on(objects: Objects, parameters: &Parameters) -> io::Result<Self> {
        let Objects { tape, doorbell } = objects;
        let mapping = map(tape.as_fd(), parameters)?;
        // SAFETY: a fresh mapping of a fresh, zeroed object that nobody else uses yet.
        unsafe { Tape::format(mapping.base(), parameters) };
        let made = Self::assemble(tape, mapping, parameters, doorbell)?;
        made.tape.open(sys::random_u64()?.max(1));
        sys::futex_wake(made.tape.ready_futex());
        Ok(made)
    }

    /// Maps the same object a second time, as the server's side does.
    #[cfg(test)]
    pub fn share(&self) -> io::Result<Self> {
        Self::attach(self.object(), self.doorbell())
    }

    /// Maps a tape that somebody else has made, as the server's side does.
    #[cfg(test)]
    pub fn attach(object: BorrowedFd<'_>, doorbell: BorrowedFd<'_>) -> io::Result<Self> {
        let header = Window {
            at: 0,
            from: 0,
            bytes: HEADER_BYTES,
        };
        let page = Mapping::new(object, HEADER_BYTES, &[header])?;
        // SAFETY: a whole readable header page.
        let parameters = unsafe { Tape::parameters(page.base()) };
        let parameters = parameters.ok_or(io::ErrorKind::InvalidData)?;
        let mapping = map(object, &parameters)?;
        let object = object.try_clone_to_owned()?;
        Self::assemble(object, mapping, &parameters, doorbell.try_clone_to_owned()?)
    }

    fn assemble(
        object: OwnedFd,
        mapping: Mapping,
        parameters: &Parameters,
        doorbell: OwnedFd,
    ) -> io::Result<Self> {
        // SAFETY: `map` made the layout that the ring's module description asks for; the mapping
        // lives in the same structure and is dropped after the Tape.
        let tape = unsafe { Tape::from_raw(mapping.base(), parameters) };
        Ok(Self {
            tape,
            _mapping: mapping,
            object,
            doorbell,
        })
    }

    /// The rings.
    pub(crate) fn tape(&self) -> &Tape {
        &self.tape
    }

    /// The rings, to move the node's cursors.
    pub(crate) fn tape_mut(&mut self) -> &mut Tape {
        &mut self.tape
    }

    /// The memory object, to hand to the server.
    pub(crate) fn object(&self) -> BorrowedFd<'_> {
        self.object.as_fd()
    }

    /// The doorbell, to hand to the server and to wait for.
    pub(crate) fn doorbell(&self) -> BorrowedFd<'_> {
        self.doorbell.as_fd()
    }

    /// Wakes the server if it sleeps for input.
    pub(crate) fn wake_server(&mut self) {
        if self.tape.server_sleeps() {
            sys::futex_wake(self.tape.input_futex());
        }
    }

    /// Gives output back and wakes the server if it sleeps for room.
    pub(crate) fn release_output(&mut self, bytes: usize) {
        if self.tape.release_output(bytes) {
            sys::futex_wake(self.tape.output_full_futex());
        }
    }
}

/// Header and input ring, the input ring again, the output ring, the output ring again.
fn map(object: BorrowedFd<'_>, parameters: &Parameters) -> io::Result<Mapping> {
    let size = |bytes: u64| usize::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput);
    let (input, output) = (
        size(parameters.input_bytes)?,
        size(parameters.output_bytes)?,
    );
    let input_from = HEADER_BYTES as u64;
    let output_from = input_from + parameters.input_bytes;
    let output_at = HEADER_BYTES + 2 * input;
    let window = |at, from, bytes| Window { at, from, bytes };
    let windows = [
        window(0, 0, HEADER_BYTES + input),
        window(HEADER_BYTES + input, input_from, input),
        window(output_at, output_from, output),
        window(output_at + output, output_from, output),
    ];
    Mapping::new(object, output_at + 2 * output, &windows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use brolga_tape::ConnId;
    use brolga_tape::record::{Record, decode};

    fn parameters() -> Parameters {
        Parameters {
            seed: [0; 32],
            input_bytes: 8192,
            output_bytes: 8192,
            quantum: 1000,
            parallel: 0,
            perturb_us: 0,
            cpus: 1,
            keep_fsync: 0,
            host_loopback: 0,
            syscall_filter: 0,
            trace: 0,
            unix: brolga_tape::unix::Paths::NONE,
        }
    }

    #[test]
    fn entries_wrap_around_the_input_ring() {
        let mut node = ServerTape::create(&parameters()).unwrap();
        let server = node.share().unwrap();
        let mut cursor = 0;
        for slot in 1..200_u64 {
            let entry = vec![slot as u8; 100 + (slot as usize * 37) % 3000];
            node.tape_mut().push_entry(slot, &entry).unwrap();
            let (read_slot, bytes, next) = server.tape().next_entry(cursor).unwrap();
            assert_eq!((read_slot, bytes), (slot, &entry[..]));
            cursor = next;
            server.tape().release_input(cursor);
        }
        assert!(cursor > 10 * 8192, "the ring was lapped");
    }

    #[test]
    fn records_wrap_around_the_output_ring() {
        let mut node = ServerTape::create(&parameters()).unwrap();
        let server = node.share().unwrap();
        let conn = ConnId {
            frontend: 1,
            counter: 1,
        };
        for offset in 0..200_u64 {
            let bytes = vec![offset as u8; 1 + (offset as usize * 53) % 5000];
            let record = Record::Data {
                conn,
                offset,
                bytes: &bytes,
            };
            assert!(server.tape().push_record(&record));
            let (read, used) = decode(node.tape().output()).unwrap();
            assert_eq!(read, record);
            node.release_output(used);
        }
        assert!(node.tape().output().is_empty());
    }
}
