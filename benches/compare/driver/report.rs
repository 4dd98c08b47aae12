//! What came out: the table, the chart and the raw figures.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use super::cases::{Case, Measure, Quantity};
use super::chart;
use super::machine::Machine;
use super::peer::Peer;
use super::statistics::{self, Interval};
use super::turn::Sample;
use crate::plan::Work;

/// Part of the machine's time in other hands above which a case's figures are not for quoting.
const NOISY_PART: f64 = 0.1;
/// The columns; a column without a figure is left out.
const COLUMNS: [&str; 6] = [
    "evenkeel", "baseline", "haproxy", "nginx", "envoy", "direct",
];

/// All figures of a run.
#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    rows: Vec<Row>,
    failures: Vec<String>,
    /// By case, a value per turn: part of the machine's time that neither the balancer nor the load nor the backend used.
    foreign: BTreeMap<&'static str, Vec<f64>>,
}

/// One line of the table: one measure of one case.
#[derive(Serialize)]
pub struct Row {
    pub case: &'static str,
    pub title: String,
    pub what: &'static str,
    pub unit: &'static str,
    work: Work,
    /// A value per round, by balancer.
    pub values: BTreeMap<&'static str, Vec<f64>>,
    #[serde(skip)]
    measure: Measure,
}

impl Report {
    pub fn new(machine: Machine) -> Self {
        Self {
            machine,
            rows: Vec::new(),
            failures: Vec::new(),
            foreign: BTreeMap::new(),
        }
    }

    pub fn add(&mut self, case: &Case, peer: &Peer, sample: Sample) {
        if !self.rows.iter().any(|row| row.case == case.name) {
            self.rows
                .extend(case.measures.iter().map(|measure| Row::new(case, *measure)));
        }
        let rows = self.rows.iter_mut().filter(|row| row.case == case.name);
        for (row, value) in rows.zip(sample.values) {
            row.values.entry(peer.name).or_default().push(value);
        }
        self.foreign
            .entry(case.name)
            .or_default()
            .push(sample.foreign);
    }

    /// A balancer that fails a turn keeps its other rounds; the report says so.
    pub fn fail(&mut self, case: &Case, peer: &Peer, error: &anyhow::Error) {
        let failure = format!("{} failed a round of {}: {error:#}", peer.name, case.name);
        eprintln!("compare: {failure}");
        self.failures.push(failure);
    }

    /// Shows one case's part of the table to whoever waits.
    pub fn show(&self, case: &Case) {
        let rows: Vec<&Row> = self
            .rows
            .iter()
            .filter(|row| row.case == case.name)
            .collect();
        eprintln!("{}", table(&rows, &self.columns()));
    }

    /// Writes table.md, chart.svg and results.json: after every case, so that a run that is cut short leaves what it has.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let text = self.text()?;
        let save = |name: &str, text: &str| {
            let path = folder.join(name);
            fs::write(&path, text).with_context(|| path.display().to_string())
        };
        save("table.md", &text)?;
        save("results.json", &serde_json::to_string_pretty(self)?)?;
        save("chart.svg", &chart::draw(&self.rows, &self.columns()))
    }

    /// Prints the whole table.
    pub fn print(&self, folder: &Path) -> Result<()> {
        println!("{}", self.text()?);
        println!(
            "written: table.md, chart.svg and results.json in {}",
            folder.display()
        );
        Ok(())
    }

    /// How much of the machine other work took, case by case.
    fn noise(&self) -> String {
        let one = |(case, parts): (&&str, &Vec<f64>)| {
            let part = statistics::median(parts).unwrap_or(0.0);
            let remark = if part > NOISY_PART {
                " (**not for quoting**)"
            } else {
                ""
            };
            format!("{case} {:.0} %{remark}", part * 100.0)
        };
        self.foreign.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn columns(&self) -> Vec<&'static str> {
        let used = |name: &&str| self.rows.iter().any(|row| row.values.contains_key(*name));
        COLUMNS.into_iter().filter(used).collect()
    }

    fn text(&self) -> Result<String> {
        let mut text = table(&self.rows.iter().collect::<Vec<_>>(), &self.columns());
        let machine = &self.machine;
        writeln!(
            text,
            "\nMedians; in brackets Evenkeel's ratio to that balancer with its 95 % interval, below 1 is better.\n"
        )?;
        writeln!(
            text,
            "- command: `{}`, {} rounds",
            machine.command, machine.rounds
        )?;
        writeln!(
            text,
            "- machine: {}, {} cores, Linux {}",
            machine.processor, machine.cores, machine.kernel
        )?;
        writeln!(
            text,
            "- network: {}, local ports {}",
            machine.congestion_control, machine.local_ports
        )?;
        for (name, version) in &machine.peers {
            writeln!(text, "- {name}: {version}")?;
        }
        writeln!(
            text,
            "- other work on the machine, median of the turns: {}",
            self.noise()
        )?;
        if machine.quick {
            writeln!(text, "- a quick run: its figures are not for quoting")?;
        }
        for failure in &self.failures {
            writeln!(text, "- {failure}")?;
        }
        Ok(text)
    }
}

impl Row {
    fn new(case: &Case, measure: Measure) -> Self {
        Self {
            case: case.name,
            title: case.title.clone(),
            work: case.work,
            what: match measure.of {
                Quantity::Cpu => "CPU",
                Quantity::Busy => "whole machine",
                Quantity::LatencyP50 => "p50",
                Quantity::LatencyP99 => "p99",
                Quantity::LatencyP999 => "p99.9",
                Quantity::Memory => "memory",
                Quantity::IdleCpu => "idle CPU",
                Quantity::WakeUps => "wake-ups",
            },
            unit: measure.unit,
            values: BTreeMap::new(),
            measure,
        }
    }

    pub fn median(&self, name: &str) -> Option<f64> {
        statistics::median(self.values.get(name)?)
    }

    /// The whole machine's time and single percentiles are for the table only.
    pub fn is_main(&self) -> bool {
        self.measure.goal.is_some()
    }

    fn ratio(&self, name: &str) -> Option<Interval> {
        match name {
            "evenkeel" => None,
            _ => statistics::ratio(self.values.get("evenkeel")?, self.values.get(name)?),
        }
    }

    fn verdict(&self) -> String {
        let Some(goal) = self.measure.goal else {
            return String::new();
        };
        let peers = ["haproxy", "nginx", "envoy"];
        let ratios: Vec<_> = peers
            .iter()
            .filter_map(|name| Some((*name, self.ratio(name)?)))
            .collect();
        let met = self
            .median("evenkeel")
            .and_then(|own| goal.met(own, &ratios));
        let word = match met {
            Some(true) => ": met",
            Some(false) => ": **missed**",
            None => "",
        };
        format!("{}{word}", goal.shown())
    }

    fn cell(&self, name: &str) -> String {
        let Some(median) = self.median(name) else {
            return "-".to_owned();
        };
        match self.ratio(name) {
            None => number(median),
            Some(Interval {
                low,
                median: ratio,
                high,
            }) => format!("{} [{ratio:.2}: {low:.2}-{high:.2}]", number(median)),
        }
    }
}

fn table(rows: &[&Row], columns: &[&str]) -> String {
    let mut text = format!(
        "| case | measure | {} | goal |\n|---|---|{}---|\n",
        columns.join(" | "),
        "---|".repeat(columns.len())
    );
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|name| row.cell(name)).collect();
        text += &format!(
            "| {} | {}, {} | {} | {} |\n",
            row.title,
            row.what,
            row.unit,
            cells.join(" | "),
            row.verdict()
        );
    }
    text
}

/// Three digits, which is what the figures are good for; bytes in full.
pub fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        1.0..10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
