//! The keys after the last command, and the writes that are not on disk yet.
//!
//! Commands read and change the view alone; it knows neither locks nor disks. Writes are collected
//! in the *open* batch. [`View::seal`] makes the open batch the one *in flight* to disk, and starts
//! the next; [`View::landed`] records its arrival. Batches are numbered from 1 and land in order.
//!
//! Invariant: a key differs between view and disk only if it is in the open batch or in the one in
//! flight. Before the reply to a command may be sent, the newest batch that holds a key that it
//! looked at has to land. The view keeps the maximum over a run of commands ([`View::needs`]).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use crate::command::Condition;
use crate::resp;

/// A key or a value, shared between the view and the batches.
pub(crate) type Blob = Arc<[u8]>;

/// The last write to each key of a batch; `None` is its removal. Ordered, so that equal batches are
/// written to disk in the same way.
pub(crate) type Writes = BTreeMap<Blob, Option<Blob>>;

/// All keys in memory, with the open batch and the one in flight.
pub(crate) struct View {
    keys: BTreeMap<Blob, Blob>,
    open: Writes,
    open_batch: u64,
    in_flight: Option<Arc<Writes>>,
    needs: u64,
}

impl View {
    /// A view of the keys that were loaded from disk.
    pub(crate) fn new(keys: BTreeMap<Blob, Blob>) -> Self {
        View {
            keys,
            open: Writes::new(),
            open_batch: 1,
            in_flight: None,
            needs: 0,
        }
    }

    /// Begins a run of commands.
    pub(crate) fn begin(&mut self) {
        self.needs = 0;
    }

    /// Returns the batch that has to be on disk before the replies of this run may be sent; 0 for
    /// none.
    pub(crate) fn needs(&self) -> u64 {
        self.needs
    }

    /// Seals the open batch and puts it in flight. At most one is in flight.
    pub(crate) fn seal(&mut self) -> (u64, Arc<Writes>) {
        assert!(self.in_flight.is_none(), "two batches in flight");
        let writes = Arc::new(std::mem::take(&mut self.open));
        self.in_flight = Some(Arc::clone(&writes));
        self.open_batch += 1;
        (self.open_batch - 1, writes)
    }

    /// Records that the batch in flight is on disk.
    pub(crate) fn landed(&mut self) {
        assert!(self.in_flight.is_some(), "no batch in flight");
        self.in_flight = None;
    }

    /// Returns the number of keys, on disk or not; for `INFO`, which promises nothing.
    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn get(&mut self, key: &[u8], out: &mut Vec<u8>) {
        match self.read(key) {
            Some(value) => resp::bulk(out, &value),
            None => resp::nil(out),
        }
    }

    pub(crate) fn set(
        &mut self,
        key: &[u8],
        value: &[u8],
        condition: Condition,
        out: &mut Vec<u8>,
    ) {
        let allowed = match condition {
            Condition::Always => true,
            Condition::Missing => self.read(key).is_none(),
            Condition::Present => self.read(key).is_some(),
        };
        if allowed {
            self.write(key, value);
            resp::ok(out);
        } else {
            resp::nil(out);
        }
    }

    pub(crate) fn del(&mut self, keys: &[&[u8]], out: &mut Vec<u8>) {
        let removed = keys.iter().filter(|key| self.remove(key)).count();
        resp::number(out, removed as i64);
    }

    /// Counts a key as often as it is named, as Redis does.
    pub(crate) fn exists(&mut self, keys: &[&[u8]], out: &mut Vec<u8>) {
        let found = keys.iter().filter(|key| self.read(key).is_some()).count();
        resp::number(out, found as i64);
    }

    pub(crate) fn incr(&mut self, key: &[u8], out: &mut Vec<u8>) {
        let current = match self.read(key) {
            Some(value) => resp::integer(&value),
            None => Some(0),
        };
        let Some(current) = current else {
            return resp::error(out, "ERR value is not an integer or out of range");
        };
        let Some(next) = current.checked_add(1) else {
            return resp::error(out, "ERR increment or decrement would overflow");
        };
        self.write(key, next.to_string().as_bytes());
        resp::number(out, next);
    }

    pub(crate) fn cas(&mut self, key: &[u8], old: &[u8], new: &[u8], out: &mut Vec<u8>) {
        match self.read(key) {
            None => resp::nil(out),
            Some(value) if *value == *old => {
                self.write(key, new);
                resp::number(out, 1);
            }
            Some(_) => resp::number(out, 0),
        }
    }

    /// Lists keys. The reply depends on all keys, present and absent, so it waits for all writes.
    pub(crate) fn keys(&mut self, prefix: &[u8], out: &mut Vec<u8>) {
        self.need_all();
        let matching = || {
            self.keys
                .range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded))
                .map(|(key, _)| key)
                .take_while(|key| key.starts_with(prefix))
        };
        resp::array(out, matching().count());
        for key in matching() {
            resp::bulk(out, key);
        }
    }

    /// Counts keys. The reply depends on all keys, so it waits for all writes.
    pub(crate) fn dbsize(&mut self, out: &mut Vec<u8>) {
        self.need_all();
        resp::number(out, self.keys.len() as i64);
    }

    fn read(&mut self, key: &[u8]) -> Option<Blob> {
        self.need(key);
        self.keys.get(key).cloned()
    }

    fn write(&mut self, key: &[u8], value: &[u8]) {
        let (key, value) = (Blob::from(key), Blob::from(value));
        self.keys.insert(Arc::clone(&key), Arc::clone(&value));
        self.open.insert(key, Some(value));
        self.needs = self.open_batch;
    }

    fn remove(&mut self, key: &[u8]) -> bool {
        let Some((key, _)) = self.keys.remove_entry(key) else {
            self.need(key); // Its removal may not be on disk yet.
            return false;
        };
        self.open.insert(key, None);
        self.needs = self.open_batch;
        true
    }

    /// Records that the run depends on `key`, present or absent.
    fn need(&mut self, key: &[u8]) {
        if !self.open.is_empty() && self.open.contains_key(key) {
            self.needs = self.open_batch;
        } else if self
            .in_flight
            .as_ref()
            .is_some_and(|writes| writes.contains_key(key))
        {
            self.needs = self.needs.max(self.open_batch - 1);
        }
    }

    /// Records that the run depends on all keys.
    fn need_all(&mut self) {
        if !self.open.is_empty() {
            self.needs = self.open_batch;
        } else if self.in_flight.is_some() {
            self.needs = self.needs.max(self.open_batch - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> View {
        View::new(BTreeMap::new())
    }

    /// The reply of one operation, and the batch it has to wait for.
    fn run(view: &mut View, operation: impl FnOnce(&mut View, &mut Vec<u8>)) -> (String, u64) {
        let mut out = Vec::new();
        view.begin();
        operation(view, &mut out);
        (
            String::from_utf8(out).unwrap().replace("\r\n", "|"),
            view.needs(),
        )
    }

    fn set(view: &mut View, key: &str, value: &str) -> (String, u64) {
        run(view, |v, out| {
            v.set(key.as_bytes(), value.as_bytes(), Condition::Always, out);
        })
    }

    fn get(view: &mut View, key: &str) -> (String, u64) {
        run(view, |v, out| v.get(key.as_bytes(), out))
    }

    fn reply(text: &str, needs: u64) -> (String, u64) {
        (text.to_owned(), needs)
    }

    #[test]
    fn a_write_waits_for_its_batch_and_a_read_for_the_write_it_sees() {
        let mut view = view();
        assert_eq!(get(&mut view, "a"), reply("$-1|", 0));
        assert_eq!(set(&mut view, "a", "1"), reply("+OK|", 1));
        assert_eq!(get(&mut view, "a"), reply("$1|1|", 1));
        assert_eq!(get(&mut view, "b"), reply("$-1|", 0));

        let (batch, writes) = view.seal();
        assert_eq!((batch, writes.len()), (1, 1));
        assert_eq!(get(&mut view, "a"), reply("$1|1|", 1));
        assert_eq!(set(&mut view, "b", "2"), reply("+OK|", 2));
        assert_eq!(run(&mut view, |v, out| v.dbsize(out)), reply(":2|", 2));

        view.landed();
        assert_eq!(get(&mut view, "a"), reply("$1|1|", 0));
        assert_eq!(get(&mut view, "b"), reply("$1|2|", 2));
        view.seal();
        assert_eq!(run(&mut view, |v, out| v.dbsize(out)), reply(":2|", 2));
        view.landed();
        assert_eq!(
            run(&mut view, |v, out| v.keys(b"", out)),
            reply("*2|$1|a|$1|b|", 0)
        );
    }

    #[test]
    fn the_absence_of_a_key_waits_for_its_removal() {
        let mut view = View::new(BTreeMap::from([(Blob::from(*b"a"), Blob::from(*b"1"))]));
        let del = |view: &mut View| run(view, |v, out| v.del(&[b"a", b"a"], out));
        assert_eq!(del(&mut view), reply(":1|", 1));
        assert_eq!(del(&mut view), reply(":0|", 1));
        view.seal();
        assert_eq!(get(&mut view, "a"), reply("$-1|", 1));
        assert_eq!(
            run(&mut view, |v, out| v.exists(&[b"a"], out)),
            reply(":0|", 1)
        );
        assert_eq!(run(&mut view, |v, out| v.keys(b"", out)), reply("*0|", 1));
        view.landed();
        assert_eq!(del(&mut view), reply(":0|", 0));
    }

    #[test]
    fn a_run_waits_for_the_newest_batch_any_command_needs() {
        let mut view = view();
        set(&mut view, "a", "1");
        view.seal();
        set(&mut view, "b", "1");
        let both = run(&mut view, |v, out| {
            v.get(b"b", out);
            v.get(b"a", out);
            v.dbsize(out);
            v.get(b"c", out);
        });
        assert_eq!(both, reply("$1|1|$1|1|:2|$-1|", 2));
    }

    #[test]
    fn conditional_writes_that_fail_still_wait_for_what_they_saw() {
        let mut view = view();
        let nx = |view: &mut View| run(view, |v, o| v.set(b"k", b"n", Condition::Missing, o));
        let xx = |view: &mut View| run(view, |v, o| v.set(b"k", b"x", Condition::Present, o));
        assert_eq!(xx(&mut view), reply("$-1|", 0));
        assert_eq!(nx(&mut view), reply("+OK|", 1));
        view.seal();
        assert_eq!(nx(&mut view), reply("$-1|", 1));
        assert_eq!(
            run(&mut view, |v, o| v.cas(b"k", b"other", b"y", o)),
            reply(":0|", 1)
        );
        assert_eq!(xx(&mut view), reply("+OK|", 2));
        assert_eq!(
            run(&mut view, |v, o| v.cas(b"k", b"x", b"y", o)),
            reply(":1|", 2)
        );
        assert_eq!(
            run(&mut view, |v, o| v.cas(b"none", b"", b"y", o)),
            reply("$-1|", 0)
        );
        assert_eq!(get(&mut view, "k"), reply("$1|y|", 2));
    }

    #[test]
    fn incr_counts_from_nothing_and_refuses_what_is_no_integer() {
        let mut view = view();
        let incr = |view: &mut View| run(view, |v, out| v.incr(b"n", out)).0;
        assert_eq!(incr(&mut view), ":1|");
        assert_eq!(incr(&mut view), ":2|");
        set(&mut view, "n", "abc");
        assert_eq!(
            incr(&mut view),
            "-ERR value is not an integer or out of range|"
        );
        set(&mut view, "n", "9223372036854775807");
        assert_eq!(
            incr(&mut view),
            "-ERR increment or decrement would overflow|"
        );
        set(&mut view, "n", "-1");
        assert_eq!(incr(&mut view), ":0|");
    }

    #[test]
    fn keys_are_listed_in_order_and_by_prefix() {
        let mut view = view();
        for key in ["b", "a:2", "a:10", "a", "a;", "\u{ff}"] {
            set(&mut view, key, "");
        }
        let keys =
            |view: &mut View, prefix: &str| run(view, |v, out| v.keys(prefix.as_bytes(), out)).0;
        assert_eq!(keys(&mut view, "a:"), "*2|$4|a:10|$3|a:2|");
        assert_eq!(keys(&mut view, "c"), "*0|");
        assert_eq!(
            keys(&mut view, ""),
            "*6|$1|a|$4|a:10|$3|a:2|$2|a;|$1|b|$2|\u{ff}|"
        );
    }

    #[test]
    fn the_last_write_to_a_key_is_the_one_in_the_batch() {
        let mut view = view();
        set(&mut view, "a", "1");
        set(&mut view, "a", "2");
        set(&mut view, "b", "1");
        run(&mut view, |v, out| v.del(&[b"b"], out));
        let (_, writes) = view.seal();
        let expected = Writes::from([
            (Blob::from(*b"a"), Some(Blob::from(*b"2"))),
            (Blob::from(*b"b"), None),
        ]);
        assert_eq!(*writes, expected);
    }
}
