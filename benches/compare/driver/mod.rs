//! The driver: lets the balancers take turns through every case and reports what it saw.

mod cases;
mod certificate;
mod chart;
mod child;
mod goal;
mod machine;
mod meter;
mod peer;
mod report;
mod settings;
mod statistics;
mod turn;

use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;

use anyhow::{Result, ensure};
use tokio::signal::unix::{SignalKind, signal};

use crate::options::Options;
use cases::Case;
use machine::Machine;
use peer::Peer;
use report::Report;
use settings::NetworkSettings;
use turn::Stage;

/// Exit code of a run that a signal ended, as shells count it (128 + SIGINT).
const INTERRUPTED: u8 = 130;

/// Runs the comparison. Whatever ends it, the network settings are put back and the children are gone.
pub fn run(options: Options) -> Result<ExitCode> {
    let peers = peer::find(&options)?;
    let cases = cases::chosen(&options)?;
    if options.list {
        cases
            .iter()
            .for_each(|case| println!("{:<14} {}", case.name, case.title));
        return Ok(ExitCode::SUCCESS);
    }
    let cores = thread::available_parallelism()?.get();
    ensure!(
        cores > options.balancer_core.max(options.load_core),
        "the comparison needs a core for the balancer and one for the load; this process may use {cores}"
    );
    let _settings = NetworkSettings::widen();
    let (ended, end) = mpsc::channel();
    // Children die with the thread that started them: this one lives as long as the comparison.
    let driver = thread::Builder::new()
        .name("driver".into())
        .spawn(move || {
            let outcome = compare(&options, &peers, &cases);
            drop(ended);
            outcome
        })?;
    if interrupted(end)? {
        child::kill_all();
        eprintln!("compare: interrupted");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let outcome = driver.join();
    child::kill_all();
    outcome.map_err(|_| anyhow::anyhow!("the driver panicked"))??;
    Ok(ExitCode::SUCCESS)
}

/// Waits for a signal or for the end of the driver, which drops its side of the channel.
fn interrupted(end: mpsc::Receiver<()>) -> Result<bool> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let signalled = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let ended = tokio::task::spawn_blocking(move || end.recv().is_err());
        anyhow::Ok(tokio::select! {
            _ = ended => false,
            _ = tokio::signal::ctrl_c() => true,
            _ = terminate.recv() => true,
        })
    });
    runtime.shutdown_background();
    signalled
}

fn compare(options: &Options, peers: &[Peer], cases: &[Case]) -> Result<()> {
    let stage = Stage::build(options)?;
    let mut report = Report::new(Machine::look(options, peers));
    for case in cases {
        for round in 1..=case.rounds(options.rounds()) {
            for peer in peers.iter().filter(|peer| case.suits(peer)) {
                match stage.turn(case, peer) {
                    Ok(sample) => report.add(case, peer, sample),
                    Err(error) => report.fail(case, peer, &error),
                }
            }
            eprintln!("{}: round {round} done", case.name);
        }
        report.show(case);
        report.write(&options.out)?;
    }
    report.print(&options.out)
}
