//! The two indexes of an image: of its files, and of their inodes.
#![no_main]

use brolga_checkpoint::image::InodeMap;
use brolga_checkpoint::image::files::Index;
use libfuzzer_sys::fuzz_target;
use std::path::{Component, Path, PathBuf};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(index) = Index::decode(bytes) {
        let top = Path::new("/top");
        for path in index.paths(|_| Some(PathBuf::from(top))) {
            let inner = path.strip_prefix(top).expect("it is below its tree");
            let plain = |part: Component<'_>| matches!(part, Component::Normal(_));
            assert!(inner.components().all(plain), "{}", path.display());
        }
    }
    if let Ok(map) = InodeMap::decode(bytes) {
        let encoded = map.encode().expect("what was decoded can be encoded");
        assert_eq!(InodeMap::decode(&encoded).expect("it is whole"), map);
    }
});
