//! The tables.

use std::fmt::Write;
use std::time::Duration;

use super::Plan;
use super::endings::Ending;
use super::goals::{self, Bound, Goal};
use super::machine;
use super::results::{Results, Series, Summary};
use crate::peers::{LIMIT, OURS};
use crate::settings::Scale;
use crate::workloads::{NAMES, SCENARIOS, peers_of};

/// What was found by profiling, by hand.
const LEFT: &str = include_str!("left.md");

pub(super) fn write(plan: &Plan, results: &Results, took: Duration) -> String {
    let mut text = String::from("# What was measured\n\n");
    head(&mut text, plan, results, took).expect("a string that grows");
    if plan.scale != Scale::Quick {
        goal_table(&mut text, &goals::all(results)).expect("a string that grows");
    }
    for workload in NAMES {
        workload_tables(&mut text, workload, results).expect("a string that grows");
    }
    ending_table(&mut text, &results.endings).expect("a string that grows");
    if plan.only.is_none() {
        text.push_str(LEFT);
    }
    if !results.failed.is_empty() {
        let failed = results.failed.join("\n- ");
        write!(text, "\n## Runs that failed\n\n- {failed}\n").expect("a string that grows");
    }
    text
}

fn head(text: &mut String, plan: &Plan, results: &Results, took: Duration) -> std::fmt::Result {
    let mut words = vec![String::from("cargo run --release -p benches --")];
    words.extend(plan.only.clone());
    words.push(match plan.scale {
        Scale::Quick => "--quick".into(),
        _ => format!("--rounds={}", plan.rounds),
    });
    text.push_str(&machine::describe());
    writeln!(text, "- Command: `{}`, {took:.0?}", words.join(" "))?;
    writeln!(
        text,
        "- {} rounds of every workload on every peer in turn, {} runs, {} of them while others used \
         more than 15 % of the machine\n",
        plan.rounds, results.runs, results.noisy
    )?;
    text.push_str(
        "Each number is the median of the rounds, in brackets the lowest and the highest. A ratio is\n\
         taken round by round. `~`: fewer than three rounds were quiet, so the others count too. What\n\
         the workloads and the limits are is in the [README](README.md).\n",
    );
    Ok(())
}

fn goal_table(text: &mut String, goals: &[Goal]) -> std::fmt::Result {
    let measured: Vec<_> = goals.iter().filter(|goal| goal.reached.summary().is_some()).collect();
    let is_met = |goal: &&Goal| goal.reached.summary().is_some_and(|s| goal.bound.is_met(s.median));
    let met = measured.iter().copied().filter(is_met).count();
    writeln!(text, "\n## Goals: {met} of {} met\n", measured.len())?;
    writeln!(text, "| | goal | bound | reached | |\n|---|---|---|---|---|")?;
    for goal in goals {
        let bound = match goal.bound {
            Bound::AtMost(bound) => format!("≤ {}", short(bound)),
            Bound::AtLeast(bound) => format!("≥ {}", short(bound)),
        };
        let (reached, verdict) = match (goal.reached.summary(), goal.bound) {
            (None, _) => ("not measured".into(), ""),
            (Some(summary), bound) if bound.is_met(summary.median) => (show(summary), "met"),
            (Some(summary), _) => (show(summary), "**not met**"),
        };
        writeln!(text, "| {} | {} | {bound} | {reached} | {verdict} |", goal.workload, goal.what)?;
    }
    Ok(())
}

fn workload_tables(text: &mut String, workload: &str, results: &Results) -> std::fmt::Result {
    let peers: Vec<&str> = peers_of(workload)
        .iter()
        .copied()
        .filter(|peer| results.rows(workload).any(|row| has(results, workload, peer, row)))
        .collect();
    if peers.is_empty() {
        return Ok(());
    }
    writeln!(text, "\n## {workload}\n")?;
    let pools: Vec<&str> = peers.iter().copied().filter(|peer| *peer != LIMIT).collect();
    table(text, workload, &pools, results, |_, _| true, |series, _| series)?;
    let others: Vec<&str> = pools.iter().copied().filter(|peer| *peer != OURS).collect();
    let compared = |row: &(&str, &str)| {
        COMPARED.contains(&row.1)
            && has(results, workload, OURS, *row)
            && others.iter().any(|peer| has(results, workload, peer, *row))
    };
    if results.rows(workload).any(|row| compared(&row)) {
        writeln!(text, "\nOurs over theirs:\n")?;
        let wanted = |_: &str, metric: &str| COMPARED.contains(&metric);
        table(text, workload, &others, results, wanted, |theirs, ours| ours.over(&theirs))?;
    }
    if peers.contains(&LIMIT) {
        writeln!(text, "\nThe limits:\n")?;
        table(text, workload, &[LIMIT], results, |_, _| true, |series, _| series)?;
    }
    Ok(())
}

/// The metrics of which a ratio says something.
const COMPARED: [&str; 10] = [
    "items_per_s",
    "p50_us",
    "p50_ms",
    "ready_ms",
    "close_ms",
    "total_ms",
    "ms",
    "efficiency",
    "time_over_ideal",
    "s",
];

fn has(results: &Results, workload: &str, peer: &str, (case, metric): (&str, &str)) -> bool {
    results.series(workload, peer, case, metric).summary().is_some()
}

/// One row a case and metric, with what `cell` makes of a peer's figures and ours.
fn table(
    text: &mut String,
    workload: &str,
    peers: &[&str],
    results: &Results,
    wanted: impl Fn(&str, &str) -> bool,
    cell: impl Fn(Series, Series) -> Series,
) -> std::fmt::Result {
    writeln!(text, "| | {} |", peers.join(" | "))?;
    writeln!(text, "|---|{}", "---|".repeat(peers.len()))?;
    for (case, metric) in results.rows(workload).filter(|(case, metric)| wanted(case, metric)) {
        let ours = results.series(workload, OURS, case, metric);
        let cells: Vec<String> = peers
            .iter()
            .map(|peer| cell(results.series(workload, peer, case, metric), ours.clone()))
            .map(|series| series.summary().map_or(String::new(), show))
            .collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            writeln!(text, "| {case}: {metric} | {} |", cells.join(" | "))?;
        }
    }
    Ok(())
}

fn ending_table(text: &mut String, endings: &[Ending]) -> std::fmt::Result {
    let peers: Vec<&str> = peers_of("W8")
        .iter()
        .copied()
        .filter(|peer| endings.iter().any(|ending| ending.peer == *peer))
        .collect();
    if peers.is_empty() {
        return Ok(());
    }
    writeln!(
        text,
        "\n## W8\n\nWorkers whose exit handlers ran, of all; `+n`: processes left after 2 s;"
    )?;
    writeln!(text, "the longest time until the program had ended.\n")?;
    writeln!(text, "| | {} |\n|---|{}", peers.join(" | "), "---|".repeat(peers.len()))?;
    for scenario in SCENARIOS {
        let cells = peers.iter().map(|peer| {
            let of = |ending: &&Ending| ending.peer == *peer && ending.scenario == scenario;
            ending_cell(&endings.iter().filter(of).collect::<Vec<_>>())
        });
        writeln!(text, "| {scenario} | {} |", cells.collect::<Vec<_>>().join(" | "))?;
    }
    Ok(())
}

fn ending_cell(endings: &[&Ending]) -> String {
    let sum = |part: fn(&Ending) -> usize| endings.iter().map(|ending| part(ending)).sum::<usize>();
    let left = match sum(|ending| ending.left) {
        0 => String::new(),
        n => format!(" **+{n}**"),
    };
    let failures = endings.iter().filter_map(|ending| ending.failure.as_deref());
    let failures: String = failures.map(|failure| format!(", {failure}")).collect();
    let longest = endings.iter().map(|ending| ending.seconds).fold(0.0, f64::max);
    let (handlers, workers) = (sum(|ending| ending.handlers), sum(|ending| ending.workers));
    format!("{handlers}/{workers}{left}, {longest:.2} s{failures}")
}

fn show(summary: Summary) -> String {
    let Summary { median, low, high, noisy } = summary;
    let mark = if noisy { "~" } else { "" };
    match low == high {
        true => format!("{mark}{}", short(median)),
        false => format!("{mark}{} ({}–{})", short(median), short(low), short(high)),
    }
}

/// Three digits, and a letter for thousands or millions.
fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, " M"),
        size if size >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        0.0 => 0,
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 0.1234, 1.0, 12.34, 1234.0, 12345.0, 3.4e6].map(short);
        assert_eq!(shown, ["0", "0.123", "1.00", "12.3", "1234", "12.3 k", "3.40 M"]);
    }
}
