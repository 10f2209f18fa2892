//! What the mill does, the same with and without epilogue: the lines that are measured.
//!
//! The first words of each function's documentation say how the process ends that it runs in.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use nix::unistd::Pid;

use crate::ran;

/// A pool, closed: counts the words of `text`.
pub fn words(text: String) -> usize {
    let mut letters = ran!(text.chars());
    let mut count = ran!(0);
    let mut is_inside = ran!(false);
    while let Some(letter) = ran!(letters.next()) {
        if ran!(letter.is_whitespace()) {
            is_inside = ran!(false);
        } else if ran!(!is_inside) {
            is_inside = ran!(true);
            count = ran!(count + 1);
        }
    }
    ran!(count)
}

/// A pool, dropped: counts the sentences of `text`.
pub fn sentences(text: String) -> usize {
    let mut letters = ran!(text.chars());
    let mut count = ran!(0);
    while let Some(letter) = ran!(letters.next()) {
        match ran!(letter) {
            '.' => count = ran!(count + 1),
            '!' | '?' => {
                let is_last = ran!(letters.as_str().is_empty());
                count = ran!(count + 1);
                if ran!(is_last) {
                    return ran!(count);
                }
            }
            _ => {}
        }
    }
    ran!(count)
}

/// A pool, terminated while a task runs: the longest word of `text`, told to who reads `fifo`.
pub fn longest((text, fifo): (String, Option<PathBuf>)) -> usize {
    let mut words = ran!(text.split_whitespace());
    let mut longest = ran!(0);
    while let Some(word) = ran!(words.next()) {
        if ran!(word.len() > longest) {
            longest = ran!(word.len());
        }
    }
    match ran!(fifo) {
        Some(fifo) => ran!(tell_and_stay(&fifo)),
        None => ran!(longest),
    }
}

/// A process, joined: counts the vowels of `text`.
pub fn vowels(text: String) -> usize {
    let mut letters = ran!(text.chars());
    let mut count = ran!(0);
    while let Some(letter) = ran!(letters.next()) {
        if ran!("aeiou".contains(letter)) {
            count = ran!(count + 1);
        }
    }
    ran!(count)
}

/// A process, terminated: watches over `fifo`, and is still there when it has told so.
pub fn watch(fifo: PathBuf) -> usize {
    let mut round = ran!(0);
    loop {
        round = ran!(round + 1);
        if ran!(round == 3) {
            return ran!(tell_and_stay(&fifo));
        }
    }
}

/// A worker that aborts: reads a number, and takes no nonsense.
pub fn number(text: String) -> u64 {
    let parsed = ran!(text.trim().parse());
    match ran!(parsed) {
        Ok(number) => ran!(number),
        Err(_) => ran!(std::process::abort()),
    }
}

/// A service, reloaded on SIGHUP: loads its rules for the `generation`th time.
pub fn load(generation: u32) -> u32 {
    let is_first = ran!(generation == 0);
    if ran!(is_first) {
        return ran!(10);
    }
    ran!(10 + generation)
}

/// A service, as it hands over to the new program: what it is started with.
pub fn successor(program: &str, generation: u32) -> Command {
    let mut command = ran!(Command::new(program));
    let generation = ran!(generation + 1);
    let generation = ran!(generation.to_string());
    ran!(command.arg("service"));
    ran!(command.arg(generation));
    ran!(command)
}

/// A copy by fork: has a copy of this process find the largest of `values`, and waits for it.
pub fn largest(values: &[i32], system: &System) -> Option<i32> {
    let mut largest = ran!(0);
    let copy = ran!((system.fork)());
    match ran!(copy.ok()?) {
        Some(copy) => ran!((system.wait)(copy)),
        None => {
            let mut values = ran!(values.iter());
            while let Some(value) = ran!(values.next()) {
                largest = ran!(largest.max(*value));
            }
            ran!((system.leave)(largest))
        }
    }
}

/// A child that has a child: the depth of an outline, where `indent` measures each line elsewhere.
pub fn depth(text: String, indent: impl Fn(String) -> usize) -> usize {
    let mut lines = ran!(text.lines());
    let mut deepest = ran!(0);
    while let Some(line) = ran!(lines.next()) {
        let depth = ran!(indent(line.to_owned()));
        if ran!(depth > deepest) {
            deepest = ran!(depth);
        }
    }
    ran!(deepest)
}

/// A grandchild: how far a line is indented.
pub fn indent(line: String) -> usize {
    let bare = ran!(line.trim_start());
    let spaces = ran!(line.len() - bare.len());
    if ran!(spaces == 0) {
        return ran!(0);
    }
    ran!(spaces / 2)
}

/// How a process is copied, waited for and left.
#[derive(Debug)]
pub struct System {
    /// Copies this process; `None` in the copy.
    pub fork: fn() -> nix::Result<Option<Pid>>,
    /// Waits for a copy and gives its exit code.
    pub wait: fn(Pid) -> Option<i32>,
    /// Ends the copy with this code.
    pub leave: fn(i32) -> !,
}

/// Tells who reads `fifo` that the work is done, and waits to be ended. In one step: between two,
/// nobody could say whether the second had run.
fn tell_and_stay(fifo: &std::path::Path) -> usize {
    let told = fs::write(fifo, "done");
    assert!(told.is_ok(), "{}: {told:?}", fifo.display());
    loop {
        thread::park();
    }
}
