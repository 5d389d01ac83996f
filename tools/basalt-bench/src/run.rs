//! One run: the load against one target, or against two that are compared, and all its reports.

use std::io::Write;
use std::thread;

use clap::CommandFactory;

use crate::cli::{Cli, Command};
use crate::clock;
use crate::error::Fatal;
use crate::options::Globals;
use crate::report::{
    Comparison, Finished, How, Side, Style, write_json, write_page, write_perfdash,
};

/// Runs the command line. Returns false if an operation or a check failed.
///
/// # Errors
/// The load could not be run at all, or a report cannot be written.
pub fn run(cli: Cli) -> Result<bool, Fatal> {
    let Cli { globals, command } = cli;
    if let Command::Completion { shell } = command {
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut Cli::command(), "basalt-bench", &mut script);
        std::io::stdout().write_all(&script)?;
        return Ok(true);
    }
    if globals.against.is_empty() {
        let finished = command.run(&globals)?;
        let name = name(&globals, 0);
        tell(&globals, &[(&name, &finished)], None)?;
        return Ok(finished.is_good());
    }
    let both = compare(&globals, &command)?;
    let (first, second) = (&both.first, &both.second);
    let sides = [(first.name.as_str(), &first.finished), (second.name.as_str(), &second.finished)];
    tell(&globals, &sides, Some(&both))?;
    Ok(sides.iter().all(|(_, finished)| finished.is_good()))
}

fn compare(globals: &Globals, command: &Command) -> Result<Comparison, Fatal> {
    let mut second = globals.clone();
    second.endpoints = std::mem::take(&mut second.against);
    let (how, sides) = if globals.together {
        let run = |globals: &Globals| Ok::<_, Fatal>(vec![command.run(globals)?]);
        let (first, second) = thread::scope(|scope| {
            let other = scope.spawn(|| run(&second));
            (run(globals), other.join())
        });
        let second = second.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (How::Together, [first?, second?])
    } else {
        let turns = globals.turns.max(1);
        (How::Turns(turns), take_turns(turns, [globals, &second], command)?)
    };
    let [first, second] = sides;
    Ok(Comparison {
        how,
        first: side(name(globals, 0), first),
        second: side(name(globals, 1), second),
    })
}

/// Every second turn begins with the second target, so that a drift of the machine favours neither.
fn take_turns(
    turns: usize,
    targets: [&Globals; 2],
    command: &Command,
) -> Result<[Vec<Finished>; 2], Fatal> {
    let mut sides = [Vec::new(), Vec::new()];
    for turn in 0..turns {
        for place in 0..2 {
            let who = (turn + place) % 2;
            sides[who].push(command.run(targets[who])?);
        }
    }
    Ok(sides)
}

fn side(name: String, turns: Vec<Finished>) -> Side {
    let rates = turns.iter().filter_map(|turn| turn.reports.first()).map(|it| it.rate()).collect();
    let all = turns.into_iter().reduce(|mut all, turn| {
        all.merge(turn);
        all
    });
    Side { name, finished: all.unwrap_or_default(), rates }
}

/// The name that the user gave a target, or its first endpoint.
fn name(globals: &Globals, number: usize) -> String {
    let endpoints = if number == 0 { &globals.endpoints } else { &globals.against };
    let given = globals.names.get(number).or(endpoints.first());
    given.map_or_else(|| format!("target {}", number + 1), |name| name.trim().to_owned())
}

/// Prints and writes every report that was asked for.
fn tell(
    globals: &Globals,
    sides: &[(&str, &Finished)],
    compared: Option<&Comparison>,
) -> Result<(), Fatal> {
    let style = Style { precise: globals.precise, sample: globals.sample };
    if globals.json.as_deref() != Some("-".as_ref()) {
        for (name, finished) in sides {
            if sides.len() > 1 {
                println!("\n== {name} ==");
            }
            print(finished, style);
        }
        if let Some(both) = compared {
            print!("{}", both.to_text());
        }
    }
    if let Some(path) = &globals.json {
        write_json(path, sides, compared)?;
    }
    if let Some(path) = &globals.report {
        write_page(path, sides, compared, clock::unix())?;
        eprintln!("The report is in {}", path.display());
    }
    if globals.report_perfdash {
        for report in sides.iter().flat_map(|(_, finished)| &finished.reports) {
            let path = write_perfdash(report, clock::unix())?;
            println!("Successfully created a JSON perf report at {}", path.display());
        }
    }
    Ok(())
}

fn print(finished: &Finished, style: Style) {
    print!("{}", finished.prologue);
    for report in &finished.reports {
        print!("{}", report.heading);
        println!("{}", style.report(&report.recorder, report.total));
        if report.recorder.count() > 0 {
            print!("{}", style.percentiles(&report.recorder));
        }
    }
    print!("{}{}", style.closing(finished), finished.epilogue);
}
