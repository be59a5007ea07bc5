//! No bytes break the table of renumbered files.
#![no_main]

use brolga_tape::renumber::Table;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: ([u64; 4], &[u8])| {
    let (words, bytes) = input;
    let Some(table) = Table::parse(bytes) else {
        return;
    };
    if let Some(new) = table.listed(words) {
        assert_eq!(table.file(words), new);
    }
    let _ = table.is_there(words);
    let _ = table.mapping(words[0]);
});
