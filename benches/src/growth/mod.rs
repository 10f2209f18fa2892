//! How cost grows with the number of tasks, of workers, and with the size of what is sent: flat a
//! task, and the memory of the parent bounded by what is in flight.

mod cells;

use std::fmt::Write;
use std::time::Duration;

pub(crate) use self::cells::run as cell;
use crate::compare::{machine, session};
use crate::figure::Figure;

/// The name under which a cell is run, and of its figures.
pub(crate) const NAME: &str = "growth";

/// For one cell. One that would need longer, by what the one before took, is not run.
const PATIENCE: Duration = Duration::from_secs(100);

/// A table: what grows, and what is measured of it.
struct Table {
    kind: &'static str,
    title: &'static str,
    /// What is measured.
    what: &'static str,
    /// Of each row, the words of its command line.
    rows: Vec<Vec<String>>,
    /// How many rows belong to one size.
    each: usize,
    columns: &'static [&'static str],
}

/// Runs all, prints the tables and writes them to their file.
pub(crate) fn run() -> Result<(), String> {
    nix::sys::prctl::set_child_subreaper(true).map_err(|error| format!("subreaper: {error}"))?;
    let mut text = String::from("# How cost grows\n\n");
    text.push_str(&machine::describe());
    text.push_str("- Command: `cargo run --release -p benches -- growth`, one run of each row\n");
    for table in tables() {
        eprintln!("{}", table.title);
        fill(&mut text, &table).map_err(|error| error.to_string())?;
    }
    println!("{text}");
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/GROWTH.md");
    std::fs::write(file, text).map_err(|error| format!("{file}: {error}"))
}

fn tables() -> [Table; 3] {
    let chunks = ["auto", "1"];
    let tasks = (3..=7).map(|power| 10u64.pow(power));
    let sizes = (1..=10).map(|power| 8u64.pow(power));
    let row = |size: u64, way: &str| vec![size.to_string(), way.to_owned()];
    [
        Table {
            kind: "tasks",
            title: "Tasks",
            what: "`x * x` of a lazy iterator, two workers. `overhead` is the parent's peak of \
                   memory above what it had before and above the values.",
            rows: tasks.flat_map(|n| chunks.map(|chunk| row(n, chunk))).collect(),
            each: chunks.len(),
            columns: &["s", "ns_per_task", "values_MiB", "overhead_MiB"],
        },
        Table {
            kind: "workers",
            title: "Workers",
            what: "Until all run, 20,000 tasks in chunks of one, close.",
            rows: (0..=8).map(|power| row(1 << power, "spawn")).collect(),
            each: 1,
            columns: &[
                "ready_ms",
                "ready_ms_per_worker",
                "ns_per_task",
                "close_ms",
                "pss_per_worker_MiB",
            ],
        },
        Table {
            kind: "payload",
            title: "Payloads",
            what: "A vector of bytes to a worker and back, and shared memory that both read. \
                   `overhead` is the parent's peak of memory above what it had before it made the \
                   payload, in payloads. Bytes of more than 64 MiB get memory for one use, of which \
                   each page is new, and that takes ten times as long as to copy it: a pool does not \
                   keep so much. A view is not copied at any size.",
            rows: sizes.flat_map(|len| ["bytes", "view"].map(|kind| row(len, kind))).collect(),
            each: 2,
            columns: &["us", "GB_per_s", "overhead_payloads"],
        },
    ]
}

fn fill(text: &mut String, table: &Table) -> std::fmt::Result {
    writeln!(text, "\n## {}\n\n{}\n", table.title, table.what)?;
    writeln!(text, "| | | {} |", table.columns.join(" | "))?;
    writeln!(text, "|---|---|{}", "---|".repeat(table.columns.len()))?;
    let mut before: Vec<f64> = vec![0.0; table.each];
    for (i, row) in table.rows.iter().enumerate() {
        let expected = before[i % table.each] * 10.0;
        let cells = if expected > PATIENCE.as_secs_f64() {
            // What is after it takes even longer.
            before[i % table.each] = expected;
            format!("not run: it would take about {expected:.0} s")
        } else {
            let words: Vec<&str> =
                [NAME, table.kind].into_iter().chain(row.iter().map(String::as_str)).collect();
            let run = session::run(&words, PATIENCE);
            before[i % table.each] = of(&run.figures, "s").unwrap_or(PATIENCE.as_secs_f64());
            run.failure.unwrap_or_else(|| {
                let shown = |column: &&str| of(&run.figures, column).map_or(String::new(), short);
                table.columns.iter().map(shown).collect::<Vec<_>>().join(" | ")
            })
        };
        writeln!(text, "| {} | {cells} |", row.join(" | "))?;
    }
    Ok(())
}

fn of(figures: &[Figure], metric: &str) -> Option<f64> {
    figures.iter().find(|figure| figure.metric == metric).map(|figure| figure.value)
}

fn short(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
