//! `ingestor wal verify`: a line for each thing that is wrong, and one to sum up.

use std::io::Write;
use std::process::ExitCode;

use super::output::{Failure, output};
use super::progress::Progress;
use crate::base::number::with_commas;
use crate::wal::OffsetRange;
use crate::wal::inspect::{Inspection, Scope};

pub(super) fn run(log: &Inspection) -> Result<ExitCode, Failure> {
    let progress = Progress::new(2 * log.file_bytes());
    let mut findings = Vec::new();
    let (mut generations, mut records, mut pending, mut lost) = (0, 0, 0, 0);
    let read = |bytes| progress.advance(bytes);
    for generation in log.generations(0, &read)? {
        let generation = generation?;
        generations += 1;
        records += generation.records(Scope::Everything).0;
        pending += generation.records(Scope::Pending).0;
        lost += generation.missing().iter().map(OffsetRange::records).sum::<u64>();
        let bytes = generation.bytes_a_block(0);
        let found = generation.verify(|| progress.advance(bytes));
        findings.extend(found.into_iter().map(|finding| (generation.file(), finding)));
    }
    progress.end();

    let mut out = output();
    for (file, finding) in &findings {
        writeln!(out, "{}: {finding}", file.display())?;
    }
    let wrong = findings.iter().filter(|(_, finding)| finding.is_wrong()).count();
    write!(
        out,
        "{} checked: {} with {} readable",
        log.dir().display(),
        counted(generations, "generation"),
        counted(records, "record"),
    )?;
    if log.positions().is_some() {
        write!(out, ", {} of them pending", with_commas(pending))?;
    }
    if wrong == 0 {
        writeln!(out, "; all is right")?;
    } else {
        writeln!(
            out,
            "; {}, {} missing",
            counted(wrong as u64, "problem"),
            counted(lost, "record")
        )?;
    }
    out.flush()?;
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn counted(number: u64, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {what}{plural}", with_commas(number))
}
