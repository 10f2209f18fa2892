//! The environment of a child.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use epilogue_embed::ending;

/// Where the coverage runtime writes.
const PROFILE_FILE: &str = "LLVM_PROFILE_FILE";

/// What a child's environment is, relative to this process's as it is at the start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Environment {
    base: Base,
    /// What was set or removed, in that order; the last word on a name counts.
    changes: Vec<(OsString, Option<OsString>)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Base {
    #[default]
    Inherited,
    /// Nothing but what coverage needs.
    Cleared,
}

impl Environment {
    /// What names the profile file, and what tells the coverage runtime that it is not the first.
    /// A cleared environment that lost them would lose the coverage data of the child.
    const PROFILE_PREFIXES: [&str; 2] = ["LLVM_PROFILE_", "__LLVM_PROFILE_"];

    pub(crate) fn clear(&mut self) {
        self.base = Base::Cleared;
        self.changes.clear();
    }

    pub(crate) fn set(&mut self, name: OsString, value: Option<OsString>) {
        self.changes.push((name, value));
    }

    /// The name of a variable that was set and that no environment can hold.
    pub(crate) fn impossible(&self) -> Option<&OsStr> {
        let set = self.changes.iter().filter_map(|(name, value)| Some((name, value.as_ref()?)));
        let mut impossible = set.filter(|(name, value)| {
            let (name, value) = (name.as_bytes(), value.as_bytes());
            name.is_empty() || name.contains(&b'=') || name.contains(&0) || value.contains(&0)
        });
        impossible.next().map(|(name, _)| name.as_os_str())
    }

    /// The variables of a child that is started by a process with `ours`.
    pub(crate) fn apply(
        &self,
        ours: impl Iterator<Item = (OsString, OsString)>,
    ) -> Vec<(OsString, OsString)> {
        let last = |name: &OsStr| self.changes.iter().rev().find(|(other, _)| other == name);
        let kept = ours.filter(|(name, _)| {
            last(name).is_none() && (self.base == Base::Inherited || is_profile(name))
        });
        let changed = self.changes.iter().enumerate().filter_map(|(position, (name, value))| {
            let later = &self.changes[position + 1..];
            let is_last = later.iter().all(|(other, _)| other != name);
            value.clone().filter(|_| is_last).map(|value| (name.clone(), value))
        });
        kept.map(with_our_meaning).chain(changed).collect()
    }
}

/// In a child a relative name for coverage data would mean another directory than it did here.
fn with_our_meaning((name, value): (OsString, OsString)) -> (OsString, OsString) {
    match name == PROFILE_FILE {
        true => (name, ending::coverage_file_of_child(value)),
        false => (name, value),
    }
}

fn is_profile(name: &OsStr) -> bool {
    let prefixes = Environment::PROFILE_PREFIXES;
    prefixes.iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::Environment;
    use std::ffi::OsString;

    fn applied(environment: &Environment) -> Vec<String> {
        let ours = [("HOME", "/root"), ("LLVM_PROFILE_FILE", "%p"), ("A", "1")];
        let ours = ours.map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let text = |(name, value): (OsString, OsString)| format!("{name:?}={value:?}");
        environment.apply(ours.into_iter()).into_iter().map(text).collect()
    }

    #[test]
    fn the_last_word_on_a_name_counts() {
        let mut environment = Environment::default();
        for value in [Some("2"), None, Some("3")] {
            environment.set("A".into(), value.map(OsString::from));
        }
        environment.set("HOME".into(), None);
        assert_eq!(applied(&environment), [r#""LLVM_PROFILE_FILE"="%p""#, r#""A"="3""#]);
    }

    #[test]
    fn a_cleared_environment_keeps_the_coverage_data_unless_that_is_removed_too() {
        let mut environment = Environment::default();
        environment.clear();
        assert_eq!(applied(&environment), [r#""LLVM_PROFILE_FILE"="%p""#]);
        environment.set("LLVM_PROFILE_FILE".into(), None);
        assert!(applied(&environment).is_empty());
    }
}
