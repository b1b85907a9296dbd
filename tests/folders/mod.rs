//! Folders that tests copy.

use std::fs;
use std::path::Path;

/// All that is below `from`, to below `to`.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for item in fs::read_dir(from).expect("a folder") {
        let item = item.expect("an item");
        let to = to.join(item.file_name());
        match item.file_type().expect("its kind").is_dir() {
            true => copy(&item.path(), &to),
            false => drop(fs::copy(item.path(), to).expect("a file")),
        }
    }
}
