//! No bytes break the decoder of entries, and what it accepts is encoded to the same events.
#![no_main]

use brolga_tape::entry::{Entry, EntryBuilder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(entry) = Entry::parse(bytes) else {
        return;
    };
    let Ok(events) = entry.events().collect::<Result<Vec<_>, _>>() else {
        return;
    };
    let mut builder = EntryBuilder::new();
    for event in &events {
        builder.push(event);
    }
    let again = builder.finish(entry.time_ns, entry.clocks);
    let again = Entry::parse(&again).expect("an entry that was built is one");
    assert_eq!(again.events().collect::<Result<Vec<_>, _>>(), Ok(events));
});
