//! Line coverage as a tool reports it: all profiles merged, held against the program's mapping.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use llvm_profparser::CoverageMapping;

/// How often each line of the source file `source` ran, by all of `profiles` together.
///
/// # Panics
///
/// If a profile cannot be read, or the file is not part of the program.
#[track_caller]
pub fn lines(program: &Path, profiles: &[PathBuf], source: &str) -> BTreeMap<usize, usize> {
    let merged = llvm_profparser::merge_profiles(profiles).unwrap();
    let programs = [program.to_owned()];
    let mapping = CoverageMapping::new(&programs, &merged, false).unwrap();
    let report = mapping.generate_report().unwrap();
    let mut files = report.files.iter().filter(|(path, _)| path.ends_with(source));
    let (_, result) = files.next().unwrap_or_else(|| panic!("{source} is not measured"));
    let last = result.hits.keys().map(|place| place.line_end).max().unwrap_or_default();
    (1..=last).filter_map(|line| Some((line, result.hits_for_line(line)?))).collect()
}
