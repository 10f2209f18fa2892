//! An index that is built once a worker, then asked many questions.
//!
//! Which files speak of these words? Each worker reads the files and builds the index for itself, when
//! it is first asked; whatever it opens lives there and needs no way to travel. It is dropped as the
//! worker ends, in the order of its finalizers, and the report says so.
//!
//! ```sh
//! cargo run --release --example load_once -- examples process finalizer ring
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program talks")]

use std::collections::{BTreeSet, HashMap};
use std::error::Error;
use std::path::PathBuf;
use std::{env, fs, process};

use epilogue::Pool;
use walkdir::WalkDir;

/// Where each word is.
struct Index(HashMap<String, BTreeSet<PathBuf>>);

impl Index {
    /// Reads all text below the directory that the environment names: nothing is sent for this.
    fn build() -> Self {
        let root = env::var_os("LOAD_ONCE").unwrap_or_else(|| ".".into());
        let mut places = HashMap::<String, BTreeSet<PathBuf>>::new();
        let files = WalkDir::new(root).into_iter().filter_map(Result::ok);
        for path in
            files.filter(|file| file.file_type().is_file()).map(walkdir::DirEntry::into_path)
        {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            for word in text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty()) {
                places.entry(word.to_lowercase()).or_default().insert(path.clone());
            }
        }
        eprintln!(
            "load_once: process {} has built an index of {} words",
            process::id(),
            places.len()
        );
        Self(places)
    }

    fn find(&mut self, word: String) -> (String, Vec<PathBuf>) {
        let found = self.0.get(&word.to_lowercase()).into_iter().flatten().cloned().collect();
        (word, found)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let root = arguments.next().unwrap_or_else(|| "examples".to_owned());
    let words: Vec<String> = arguments.collect();
    let pool = Pool::builder().workers(2).name("index").env("LOAD_ONCE", root).start()?;
    let index = pool.local(Index::build);
    for (word, files) in index.map_local(words, Index::find)? {
        println!("{word}: {} files", files.len());
        files.iter().for_each(|file| println!("  {}", file.display()));
    }
    // A thousand questions more need no index more.
    let more = (0..1000).map(|n| format!("word{n}"));
    let found = index.map_local(more, |index, word| index.find(word).1.len())?;
    eprintln!(
        "load_once: {} of 1000 made-up words were found",
        found.iter().filter(|&&n| n > 0).count()
    );
    eprintln!("{}", pool.close()?);
    Ok(())
}
