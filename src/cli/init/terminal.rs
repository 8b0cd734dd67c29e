//! Whoever sits at the terminal.

use std::io::{self, BufRead, IsTerminal, Write};
use std::process;
use std::thread;

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::arguments::Arguments;

/// Whoever sits there, if anybody does and wants to be asked.
pub(super) struct Terminal {
    may_ask: bool,
}

impl Terminal {
    pub(super) fn of(arguments: &Arguments) -> Self {
        Self { may_ask: !arguments.yes && io::stdin().is_terminal() }
    }

    pub(super) fn may_ask(&self) -> bool {
        self.may_ask
    }

    pub(super) fn ask(&self, question: &str, default: &str, flag: &str) -> Result<String, String> {
        if !self.may_ask {
            return Err(format!("{flag} is needed, since there is nobody to ask"));
        }
        let shown = if default.is_empty() { String::new() } else { format!(" [{default}]") };
        let answer = prompt(&format!("{question}{shown}: ")).map_err(|error| error.to_string())?;
        Ok(if answer.is_empty() { default.to_owned() } else { answer })
    }

    /// The same, without the answer on the screen, which may be empty.
    pub(super) fn ask_secretly(&self, question: &str, flag: &str) -> Result<String, String> {
        let before = if self.may_ask { tcgetattr(io::stdin()).ok() } else { None };
        if let Some(before) = &before {
            silence(before).map_err(|error| format!("cannot hide the answer: {error}"))?;
        }
        let answer = self.ask(question, "", flag);
        if let Some(before) = &before {
            restore(before);
        }
        answer
    }

    /// The same, and an empty answer is none.
    pub(super) fn ask_for_secret(&self, question: &str, flag: &str) -> Result<String, String> {
        match self.ask_secretly(question, flag) {
            Ok(answer) if answer.is_empty() => {
                Err(format!("{flag} is needed, and the answer is empty"))
            }
            answer => answer,
        }
    }

    /// Whether the answer is yes; it is no where nobody can be asked.
    pub(super) fn agrees(&self, question: &str) -> bool {
        self.may_ask
            && prompt(&format!("{question} [y/N]: "))
                .is_ok_and(|answer| matches!(answer.to_lowercase().as_str(), "y" | "yes"))
    }
}

/// On standard error, since standard output may be a file.
fn prompt(text: &str) -> io::Result<String> {
    let mut error = io::stderr();
    error.write_all(text.as_bytes())?;
    error.flush()?;
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Shows nothing of what is typed. Nor can it be suspended, which would leave a shell so.
fn silence(before: &Termios) -> io::Result<()> {
    restore_at_the_end(before.clone())?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    silent.special_codes[SpecialCodeIndex::VSUSP] = 0;
    Ok(tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?)
}

fn restore(before: &Termios) {
    tcsetattr(io::stdin(), OptionalActions::Flush, before).ok();
    // The one that was typed is not seen.
    writeln!(io::stderr()).ok();
}

/// From here on, a signal that ends this process gives the terminal back first.
#[expect(clippy::disallowed_methods, reason = "the main thread waits for a line that never comes")]
fn restore_at_the_end(before: Termios) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
    let of_runtime = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let mut quit = signal(SignalKind::quit())?;
    drop(of_runtime);
    let wait = move || {
        let kind = runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => SignalKind::interrupt(),
                _ = terminate.recv() => SignalKind::terminate(),
                _ = hangup.recv() => SignalKind::hangup(),
                _ = quit.recv() => SignalKind::quit(),
            }
        });
        restore(&before);
        // As a shell says it of one that was ended so.
        process::exit(128 + kind.as_raw_value())
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop)
}
