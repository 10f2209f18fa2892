//! Holds two coverage reports against the truth, side by side:
//! `compare SOURCE RAW.lcov RAW.ledger EPILOGUE.lcov EPILOGUE.ledger [hits]`.
//!
//! It fails unless the second says of each line exactly how often that ran (with `hits`: that it
//! ran), and the first does not.
#![expect(clippy::print_stdout, reason = "it prints a report")]

use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;
use std::{env, fs};

/// How often each line ran, or is said to have run.
type Counts = BTreeMap<u32, u64>;

/// One way to run the program.
struct Run {
    /// What the report says.
    said: Counts,
    truth: Counts,
    /// What copies made by `fork` brought with them: their original's counts at that time.
    copied: Counts,
}

/// The lines of one function, and how the process ends that it runs in.
struct Story {
    name: String,
    lines: Vec<u32>,
}

#[derive(Default)]
struct Verdict {
    ran: usize,
    reported: usize,
    too_often: u64,
    by_copies: u64,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [source, raw, raw_truth, ours, our_truth, rest @ ..] = &*arguments else {
        return Err(
            "compare SOURCE RAW.lcov RAW.ledger EPILOGUE.lcov EPILOGUE.ledger [hits]".into()
        );
    };
    let stories = stories(&fs::read_to_string(source)?);
    let raw = Run::read(source, raw, raw_truth)?;
    let mut ours = Run::read(source, ours, our_truth)?;
    if rest.first().is_some_and(|what| what == "hits") {
        ours.count_hits_only();
    }
    println!("{:46}{:>6}{:>22}{:>22}", "", "lines", "(a) raw fork, spawn,", "(b) epilogue");
    println!("{:46}{:>6}{:>22}{:>22}", "", "ran", "kill: reported", "reported");
    let (mut all, mut all_ours) = (Verdict::default(), Verdict::default());
    for story in &stories {
        let (first, second) = (raw.judge(story), ours.judge(story));
        row(&story.name, &first, &second);
        all.add(&first);
        all_ours.add(&second);
    }
    row("all", &all, &all_ours);
    println!(
        "{:46}{:>6}{:>22}{:>22}",
        "runs counted that did not happen", "", all.too_often, all_ours.too_often
    );
    println!(
        "{:46}{:>6}{:>22}{:>22}",
        "counted again in a copy by fork", "", all.by_copies, all_ours.by_copies
    );
    let wrong = ours.wrong(&stories);
    for line in &wrong {
        println!("(b) is wrong about {line}");
    }
    let good = wrong.is_empty() && all_ours.ran > 0 && all_ours.reported == all_ours.ran;
    match (good, all.reported < all.ran) {
        (true, true) if rest.is_empty() => {
            println!("(b) says of every line exactly how often it ran.");
        }
        (true, true) => println!("(b) says of every line whether it ran."),
        (false, _) => println!("(b) does not say what happened."),
        (true, false) => println!("(a) lost nothing, so this proves nothing."),
    }
    Ok(if good && all.reported < all.ran { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn row(name: &str, raw: &Verdict, ours: &Verdict) {
    let ran = format!("{}", ours.ran);
    println!("{name:46}{ran:>6}{:>22}{:>22}", raw.share(), ours.share());
}

impl Verdict {
    fn share(&self) -> String {
        let percent = 100.0 * self.reported as f64 / self.ran.max(1) as f64;
        format!("{} of {}  {percent:5.1} %", self.reported, self.ran)
    }

    fn add(&mut self, other: &Self) {
        self.ran += other.ran;
        self.reported += other.reported;
        self.too_often += other.too_often;
        self.by_copies += other.by_copies;
    }
}

impl Run {
    fn read(source: &str, report: &str, ledger: &str) -> Result<Self, Box<dyn Error>> {
        let (truth, copied) = truth(&fs::read_to_string(ledger)?);
        Ok(Self { said: said(&fs::read_to_string(report)?, source)?, truth, copied })
    }

    /// Takes the report's word for no more than that a line ran, or did not.
    fn count_hits_only(&mut self) {
        for (line, said) in &mut self.said {
            let ran = of(&self.truth, *line) + of(&self.copied, *line);
            *said = if (*said > 0) == (ran > 0) { ran } else { *said };
        }
    }

    fn judge(&self, story: &Story) -> Verdict {
        let mut verdict = Verdict::default();
        for line in &story.lines {
            let (said, ran, copied) =
                (of(&self.said, *line), of(&self.truth, *line), of(&self.copied, *line));
            verdict.ran += usize::from(ran > 0);
            verdict.reported += usize::from(ran > 0 && said > 0);
            verdict.by_copies += said.saturating_sub(ran).min(copied);
            verdict.too_often += said.saturating_sub(ran + copied);
        }
        verdict
    }

    /// The lines of which the report does not say what happened.
    fn wrong(&self, stories: &[Story]) -> Vec<String> {
        let lines = stories.iter().flat_map(|story| &story.lines);
        let wrong = lines.filter(|line| {
            of(&self.said, **line) != of(&self.truth, **line) + of(&self.copied, **line)
        });
        let tell = |line: &u32| {
            let (said, ran) = (of(&self.said, *line), of(&self.truth, *line));
            format!("line {line}: it ran {ran} times, the report says {said}")
        };
        wrong.map(tell).collect()
    }
}

fn of(counts: &Counts, line: u32) -> u64 {
    counts.get(&line).copied().unwrap_or_default()
}

/// What the report in lcov's format says of the file `source`: `DA:LINE,COUNT`.
fn said(report: &str, source: &str) -> Result<Counts, Box<dyn Error>> {
    let mut counts = Counts::new();
    let mut is_ours = false;
    for record in report.lines() {
        if let Some(file) = record.strip_prefix("SF:") {
            is_ours = file.ends_with(source);
        } else if let (true, Some(data)) = (is_ours, record.strip_prefix("DA:")) {
            let (line, count) = data.split_once(',').ok_or("not lcov's format")?;
            counts.insert(line.parse()?, count.parse()?);
        }
    }
    Ok(counts)
}

/// How often each line ran by the ledger, and what copies inherited: `PID LINE`, `PID forks`,
/// `PID copy PARENT`.
fn truth(ledger: &str) -> (Counts, Counts) {
    let (mut all, mut copied) = (Counts::new(), Counts::new());
    let mut by_process: BTreeMap<&str, Counts> = BTreeMap::new();
    let mut at_fork: BTreeMap<&str, Counts> = BTreeMap::new();
    for record in ledger.lines() {
        let Some((process, what)) = record.split_once(' ') else { continue };
        if what == "forks" {
            at_fork.insert(process, by_process.get(process).cloned().unwrap_or_default());
        } else if let Some(parent) = what.strip_prefix("copy ") {
            let inherited = at_fork.get(parent).cloned().unwrap_or_default();
            inherited.iter().for_each(|(line, count)| *copied.entry(*line).or_default() += count);
            by_process.insert(process, inherited);
        } else if let Ok(line) = what.parse() {
            *all.entry(line).or_default() += 1;
            *by_process.entry(process).or_default().entry(line).or_default() += 1;
        }
    }
    (all, copied)
}

/// The functions of `source`, each with its lines that tell the ledger that they run.
fn stories(source: &str) -> Vec<Story> {
    let mut stories: Vec<Story> = Vec::new();
    let mut name = String::new();
    for (line, text) in (1..).zip(source.lines()) {
        if let Some(comment) = text.strip_prefix("/// ") {
            name = comment.split(':').next().unwrap_or_default().to_owned();
        } else if text.starts_with("pub fn ") {
            stories.push(Story { name: std::mem::take(&mut name), lines: Vec::new() });
        } else if let (true, Some(story)) = (text.contains("ran!("), stories.last_mut()) {
            story.lines.push(line);
        }
    }
    stories
}
